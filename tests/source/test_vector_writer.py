"""A file with a column of vectors is what pyarrow would have written, to every reader."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from scanrnn_dist.source.parquet import CheckedFile, VectorWriter, vector_writer
from scanrnn_dist.source.parquet.thrift import fields_bytes, read_struct

OTHERS = pa.schema([("id", pa.int64()), ("name", pa.string())])
Rows = tuple[pa.RecordBatch, np.ndarray, np.ndarray | None]


def schema_of(size: int, dtype: Any, others: pa.Schema = OTHERS) -> pa.Schema:
    return pa.schema([*others, ("features", pa.list_(pa.from_numpy_dtype(dtype), size))], {"made": "by a test"})


def rows_of(nulls: list[bool], size: int, dtype: Any, others: pa.Schema, first: int) -> Rows:
    numbers = np.arange(first, first + len(nulls))
    columns = [pa.array(numbers), pa.array([str(number % 3) for number in numbers])][: len(others)]
    vectors = (numbers[:, None] + np.arange(size) / 16).astype(dtype)
    return pa.record_batch(columns, schema=others), vectors, np.array(nulls) if any(nulls) else None


def written(schema: pa.Schema, size: int, groups: list[list[Rows]], page_bytes: int = 1 << 20) -> bytes:
    sink = io.BytesIO()
    with mock.patch.object(vector_writer, "PAGE_BYTES", page_bytes):
        writer = VectorWriter(sink, schema, size, lambda table: {"compression": "zstd", "write_page_checksum": True})
        for group in groups:
            for rows in group:
                writer.write(*rows)
            writer.end_group()
        writer.close()
    return sink.getvalue()


def table_of(schema: pa.Schema, size: int, groups: list[list[Rows]]) -> pa.Table:
    """The rows as Arrow has them."""
    batches = []
    for others, vectors, is_null in (rows for group in groups for rows in group):
        mask = None if is_null is None else pa.array(is_null)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size, mask=mask)
        batches.append(pa.record_batch([*others.columns, column], schema=schema))
    return pa.Table.from_batches(batches, schema)


def read(content: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(content), page_checksum_verification=True)


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([1, 2, 3, 8, 11, 16]), dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    groups=st.lists(st.lists(st.lists(st.booleans(), max_size=30), max_size=3), max_size=3),
    page_bytes=st.sampled_from([1, 200, 1 << 20]), columns=st.sampled_from([0, 2]),
)  # fmt: skip
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, size: int, dtype: Any, groups: list[list[list[bool]]], page_bytes: int,
    columns: int,
) -> None:  # fmt: skip
    others, first = pa.schema(list(OTHERS)[:columns]), 0
    schema, rows = schema_of(size, dtype, others), list[list[Rows]]()
    for group in groups:
        rows.append([])
        for nulls in group:
            rows[-1].append(rows_of(nulls, size, dtype, others, first))
            first += len(nulls)
    content, expected = written(schema, size, rows, page_bytes), table_of(schema, size, rows)
    found = read(content)
    assert found.schema.metadata == schema.metadata and found.equals(expected)
    assert content == written(schema, size, rows, page_bytes)
    path = tmp_path_factory.mktemp("vectors") / "a.parquet"
    path.write_bytes(content)
    checked = CheckedFile(fs.LocalFileSystem(), str(path))
    numbers = range(len(checked.footer.row_groups))
    batches = list(checked.iter_batches(7, row_groups=numbers, columns=[(name,) for name in schema.names]))
    checked.check_pages(numbers)
    checked.close()
    assert pa.Table.from_batches(batches, checked.schema_arrow).to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("reader", ["duckdb", "polars"])
@pytest.mark.parametrize("size", [5, 16])
def test_other_readers_find_the_same(tmp_path: Path, reader: str, size: int) -> None:
    module: Any = pytest.importorskip(reader)
    schema, path = schema_of(size, np.float32), tmp_path / "a.parquet"
    nulls = [number % 5 == 2 or 40 < number < 60 for number in range(1000)]
    groups = [[rows_of(nulls, size, np.float32, OTHERS, 0)], [rows_of([False] * 77, size, np.float32, OTHERS, 1000)]]
    path.write_bytes(written(schema, size, groups, page_bytes=4096))
    if reader == "polars":
        found = module.read_parquet(path).to_dicts()
    else:
        table = module.sql(f"SELECT * FROM '{path}'")
        found = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    rows = table_of(schema, size, groups).to_pylist()
    assert [{**row, "features": row["features"] and list(row["features"])} for row in found] == rows


def test_the_footer_tells_what_pyarrows_tells_but_for_where_and_how_large() -> None:
    schema = schema_of(16, np.float32)
    groups = [[rows_of([False, True] * 30, 16, np.float32, OTHERS, 60 * number)] for number in range(3)]
    ours, theirs = io.BytesIO(written(schema, 16, groups)), io.BytesIO()
    codecs, others = {"id": "zstd", "name": "zstd", "features.list.element": "none"}, ["id", "name"]
    options: dict[str, Any] = {"use_dictionary": others, "write_statistics": others, "compression": codecs}
    with pq.ParquetWriter(theirs, schema, **options) as writer:
        for group in groups:
            writer.write_table(table_of(schema, 16, [group]))

    def told(file: io.BytesIO) -> dict[str, Any]:
        told: dict[str, Any] = pq.read_metadata(file).to_dict()
        places = {"file_offset", "data_page_offset", "dictionary_page_offset", "total_byte_size", "serialized_size",
                  "total_compressed_size", "total_uncompressed_size"}  # fmt: skip

        def without(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: without(each) for name, each in value.items() if name not in places}
            return [without(each) for each in value] if isinstance(value, list) else value

        return dict(without(told))

    found, expected = told(ours), told(theirs)
    for group in (*found["row_groups"], *expected["row_groups"]):
        group["columns"][2]["encodings"] = sorted(group["columns"][2]["encodings"])
    assert found == expected


@pytest.mark.parametrize("columns", [0, 2])
def test_a_row_group_is_one_range_that_begins_with_its_first_column(columns: int) -> None:
    """Spark gives a row group to whoever has the byte at that begin and half its size: else to nobody."""
    others = pa.schema(list(OTHERS)[:columns])
    groups = [[rows_of([False] * 90, 16, np.float32, others, 90 * number)] for number in range(3)]
    content = written(schema_of(16, np.float32, others), 16, groups, page_bytes=1024)
    told, end = pq.read_metadata(io.BytesIO(content)), 4
    for group in map(told.row_group, range(told.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            begin = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
            assert begin == end
            end += column.total_compressed_size
    assert len(content) == end + told.serialized_size + 8


def test_a_changed_bit_of_a_page_is_seen() -> None:
    schema = schema_of(4, np.float32, pa.schema([]))
    rows = rows_of([False] * 9, 4, np.float32, pa.schema([]), 0)
    content = bytearray(written(schema, 4, [[rows]]))
    values = content.index(rows[1].tobytes())
    for place in (values - 3, values + 5):  # of the levels, of the values
        changed = content.copy()
        changed[place] ^= 1
        with pytest.raises(OSError, match="CRC"):
            read(bytes(changed))


def test_a_column_that_is_no_list_of_values_that_may_be_null_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an optional list"):
        VectorWriter(io.BytesIO(), pa.schema([("features", pa.float32())]), 1, lambda table: {})


def test_a_footer_that_was_read_is_written_as_it_was() -> None:
    table = pa.table({"x": [1, None, 3], "y": [True, False, None], "z": [[1.5], None, []]})
    content = io.BytesIO()
    pq.write_table(table, content, write_page_index=True)
    told = content.getvalue()
    footer = told[-8 - int.from_bytes(told[-8:-4], "little") : -8]
    assert fields_bytes(read_struct(footer)[0]) == footer
