"""How kept columns are encoded is judged by their first rows; it takes little more room than pyarrow's own choice."""

from __future__ import annotations

import datetime
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.records import Output
from scanrnn_dist.records.encodings import encodings_of
from scanrnn_dist.records.part_writer import leaves_of

ROWS = 5000
RNG = np.random.default_rng(0)
COLUMNS: dict[str, tuple[Any, str]] = {
    "numbers": (np.arange(ROWS), "differences"),
    "labels": (np.arange(ROWS) % 10, "differences"),
    "hashes of few": (RNG.integers(0, 2**62, 40)[RNG.integers(0, 40, ROWS)], "dictionary"),
    "hashes": (RNG.integers(0, 2**64, ROWS, np.uint64), "differences"),
    "bytes": (RNG.integers(0, 200, ROWS).astype(np.uint8), "differences"),
    "times": (np.datetime64("2020-01-01T00:00:00.000001") + np.arange(ROWS), "differences"),
    "days": ([datetime.date(2020, 1, 1 + row % 3) for row in range(ROWS)], "differences"),
    "floats": (RNG.normal(size=ROWS), "plain"),
    "few floats": (RNG.normal(size=3)[RNG.integers(0, 3, ROWS)], "dictionary"),
    "names": ([f"name {row}" for row in range(ROWS)], "plain"),
    "kinds": ([f"kind {row % 5}" for row in range(ROWS)], "dictionary"),
    "flags": (np.arange(ROWS) % 2 == 0, "dictionary"),
    "halves": (np.zeros(ROWS, np.float16), "dictionary"),
    "nulls": (pa.nulls(ROWS, pa.int64()), "differences"),
    "lists": ([[row] for row in range(ROWS)], "dictionary"),
    "categories": (pa.array([f"{row % 5}" for row in range(ROWS)]).dictionary_encode(), "dictionary"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_encoded_as_it_pays_and_read_back(name: str) -> None:
    values, how = COLUMNS[name]
    table = pa.table({name: values})
    leaves = leaves_of(table.schema)
    differences, plain = encodings_of(table, leaves)
    assert (name in differences, name in plain) == (how == "differences", how == "plain")
    content, usual = io.BytesIO(), io.BytesIO()
    pq.write_table(table, content, **Output().writing(table, leaves, set(), np.dtype(np.float32)))
    pq.write_table(table, usual, compression="zstd", write_page_checksum=True)
    assert pq.read_table(content).equals(table)
    assert len(content.getvalue()) <= 1.1 * len(usual.getvalue())  # bytes of 8 bits take 9 as differences


def test_a_column_without_rows_is_encoded_too() -> None:
    table = pa.table({"id": pa.array([], pa.int64()), "name": pa.array([], pa.string())})
    assert encodings_of(table, leaves_of(table.schema)) == ({"id"}, set())
