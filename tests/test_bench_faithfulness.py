"""The sweep over real data sets, cut down to one: no false alarm, and distances that float32 can have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sources import write_source

from benchmarks import bench_faithfulness


def test_a_real_data_set_raw_and_multiplied(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_faithfulness, "HIDDEN", (8,))
    monkeypatch.setattr(bench_faithfulness, "FACTORS", (1, 100))
    table, not_read = bench_faithfulness.sweep(shared_data, ["basic_motions"])
    assert not not_read and set(table["basic_motions"]) == {1, 100}
    for by_hidden in table["basic_motions"].values():
        features, specification, between = by_hidden[8]
        assert 0 < features < 1e-4 and features <= max(1e-6, 1.5 * specification) and between < 1e-4
    assert bench_faithfulness.as_markdown(table).count("\n") == 3


def test_what_is_no_sequence_of_numbers_is_not_tried(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", [np.zeros((2, 3), np.float32)], words=[["a"]])
    assert bench_faithfulness.columns_of(path) == ["sequence"]
