"""Options of a job may be numbers of numpy: they are Python's own, which the records, in JSON, can hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from scanrnn_dist.job import Handling, JobOptions, Sharing
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.records import Output


@pytest.mark.parametrize(
    "given",
    [
        JobOptions(
            in_features=np.int64(3), min_steps=np.int32(1), max_steps=np.int64(9), rows_per_part=np.int64(5),
            limit=np.uint8(7), lossy_cast=np.True_, keep=np.array(["a", "b"]),
        ),
        Handling(restart=np.False_, max_bad_rows=np.int64(0), memory_bytes=np.int64(2**30)),
        Sharing(share=(np.int64(1), 4), steal=np.True_, expiry_seconds=np.float32(9)),
        WindowShape(np.int64(32), np.int64(4), np.int64(8)),
        Output(row_group_bytes=np.int64(2**20)),
    ],
)  # fmt: skip
def test_numbers_of_numpy_are_options(given: Any) -> None:
    assert type(given)(**{name: getattr(given, name) for name in asdict(given)}) == given
    json.dumps(asdict(given))
