"""A job on another layout gives the bits of the same job on nested lists, and `verify` reads it the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import D, features_of, featurize, random_rows, some_lengths, write_source

from scanrnn_dist.api.verification import verify
from scanrnn_dist.errors import ConfigError

ROWS = random_rows(some_lengths(14))
NAMES = ["x", "y/z", "t.u"]
LISTS = {
    name: pa.array([row[:, nth].tolist() for row in ROWS], pa.list_(pa.float64())) for nth, name in enumerate(NAMES)
}
STRUCTS = pa.array([[dict(zip(NAMES, step, strict=True)) for step in row.tolist()] for row in ROWS])
COLUMNS: list[tuple[dict[str, pa.Array], dict[str, Any]]] = [
    (LISTS, {"features": NAMES}),
    ({"hits": pa.StructArray.from_arrays(list(LISTS.values()), NAMES)}, {}),
    (
        {"event": pa.StructArray.from_arrays([STRUCTS, pa.array(["e"] * 14)], ["hits", "name"])},
        {"column": "event.hits"},
    ),
    ({"flat": pa.array([row.ravel().tolist() for row in ROWS], pa.list_(pa.float32()))}, {"in_features": D}),
]


@pytest.mark.parametrize(("columns", "asked"), COLUMNS, ids=["columns", "struct", "structs", "flat"])
def test_features_and_verification_are_those_of_nested_lists(
    tmp_path: Path, columns: dict[str, pa.Array], asked: dict[str, Any]
) -> None:
    nested = write_source(tmp_path / "nested.parquet", ROWS)
    featurize(nested, tmp_path / "expected")
    ids = pa.array(range(len(ROWS)), pa.int64())
    pq.write_table(pa.table({"id": ids, **columns}), tmp_path / "other.parquet", row_group_size=5)
    source = str(tmp_path / "other.parquet")
    report = featurize(source, tmp_path / "out", **asked)
    assert report.rows == len(ROWS)
    assert pq.read_table(tmp_path / "out").column_names == ["id", "features"]
    assert features_of(tmp_path / "out").tobytes() == features_of(tmp_path / "expected").tobytes()
    assert verify(tmp_path / "out", sample=5).rows_compared == len(ROWS)
    assert featurize(source, tmp_path / "out", **asked).rows == 0  # the same command is the same job


def test_other_features_are_another_job(tmp_path: Path) -> None:
    pq.write_table(pa.table(LISTS), tmp_path / "lists.parquet")
    featurize(str(tmp_path / "lists.parquet"), tmp_path / "out", features=NAMES)
    with pytest.raises(ConfigError, match=r"features was \[x, y/z, t\.u\] and is \[t\.u, y/z, x\]"):
        featurize(str(tmp_path / "lists.parquet"), tmp_path / "out", features=NAMES[::-1])
