"""A job whose kept column, its values and its destination are as hostile to a page as names and values can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sources import featurize, random_rows, stop_once_committed, write_source

from scanrnn_dist import BadRows
from scanrnn_dist.errors import StoppedError

EVIL = "</script><script>document.title='evil'</script><!--<img src=x onerror=alert(1)>{{ 7 * 7 }}"
VALUES = (EVIL, "<b>bold</b>", "a & b", None)


def evil_job(folder: Path) -> Path:
    """It was stopped once, and is finished: 60 rows, and one that was set aside."""
    kinds = pa.array([VALUES[row % 4] for row in range(61)], pa.string())
    rows: list[Any] = [*random_rows([2] + [4] * 59), None]
    skipping = BadRows(null_sequence="skip")
    out = folder / "<i>out & more"
    source = write_source(folder / "<b>in & more.parquet", rows, **{EVIL: kinds})
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, bad_rows=skipping, on_rows=stop_once_committed(out, 10))
    featurize(source, out, rows_per_part=5, bad_rows=skipping)
    return out
