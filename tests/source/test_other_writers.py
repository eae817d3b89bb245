"""What other writers do differently, and soundly, is read: each file is one of pyarrow's, written again as they do.

The quirks are those of files by HVR, Parquet.Net, Dremio, fastparquet, nanoparquet, old DuckDB, old parquet-mr,
early parquet-rs, and parquet-go.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.api import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import DataError
from scanrnn_dist.job.inspection import inspect
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.source import BadRows
from scanrnn_dist.source.kept import read_kept
from scanrnn_dist.source.parquet.thrift import (
    BINARY,
    I8,
    I32,
    I64,
    LIST,
    STRUCT,
    TRUE,
    Fields,
    Raw,
    binary_bytes,
    integer_bytes,
    key,
    list_bytes,
    read_struct,
    struct_bytes,
)
from scanrnn_dist.source.source import open_source, plan_units

TABLE = pa.table({"id": pa.array([7, 8, 9], pa.int64()), "name": ["a", "b", "a"], "twelve": pa.array([b"x" * 12] * 3)})
TABLE = TABLE.cast(
    pa.schema([pa.field("id", pa.int64(), False), pa.field("name", pa.string()), pa.field("twelve", pa.binary(12))])
)
SIZES = [key(6, I64), key(7, I64)]


def as_bytes(fields: Fields) -> bytes:
    """The bytes of fields that `read_struct` gave."""
    parts = []
    for name, value in sorted(fields.items()):
        number, kind = name >> 4, name & 15
        if kind == TRUE:
            parts.append((number, TRUE if value else TRUE + 1, b""))
        else:
            values = [one(value.kind, item) for item in value] if kind == LIST else []
            parts.append((number, kind, list_bytes(value.kind, values) if kind == LIST else one(kind, value)))
    return struct_bytes(*parts)


def one(kind: int, value: Any) -> bytes:
    if kind == STRUCT:
        return as_bytes(value.fields if isinstance(value, Raw) else value)
    if kind == BINARY:
        return binary_bytes(value)
    return bytes([value & 255]) if kind == I8 else integer_bytes(value)


def write(path: Path, change: Callable[[Fields, list[Fields]], bytes | None], **options: Any) -> None:
    """The table, with a footer as `change` makes it, which is given its fields and those of the columns.

    What `change` returns, if anything, stands in place of the bytes before the footer.
    """
    options = {"compression": "none", "use_dictionary": ["name"], "store_schema": False, **options}
    pq.write_table(TABLE, path, **options)
    content = path.read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer, _ = read_struct(content[begin:-8])
    assert as_bytes(footer) == content[begin:-8]
    columns = [raw.fields[key(3, STRUCT)] for raw in footer[key(4, LIST)][0].fields[key(1, LIST)]]
    before = change(footer, columns) or content[:begin]
    stored = as_bytes(footer)
    path.write_bytes(before + stored + len(stored).to_bytes(4, "little") + b"PAR1")


def read(path: Path) -> pa.Table:
    source = open_source(path)
    names = [name for name in TABLE.column_names if name in source.schema.names]
    batches = [*read_kept(source, plan_units(source, 100), names)]
    return pa.Table.from_batches(batches)


def of_writer(name: str, encodings: list[int]) -> Callable[[Fields, list[Fields]], None]:
    def change(footer: Fields, columns: list[Fields]) -> None:
        footer[key(6, BINARY)] = name.encode()
        for column in columns:
            column[key(2, LIST)][:] = encodings

    return change


def no_rows(footer: Fields, columns: list[Fields]) -> None:
    footer[key(3, I64)] = 0


def uncounted_sizes(footer: Fields, columns: list[Fields]) -> None:
    for column in columns:
        column[key(6, I64)] = 0


def other_bloom_filters(footer: Fields, columns: list[Fields]) -> None:
    columns[0][key(15, LIST)] = columns[0][key(2, LIST)]


def misplaced_data_pages(footer: Fields, columns: list[Fields]) -> None:
    columns[1][key(9, I64)] -= 3


def text_that_is(logical: int) -> Callable[[Fields, list[Fields]], None]:
    def change(footer: Fields, columns: list[Fields]) -> None:
        footer[key(2, LIST)][2].fields[key(10, STRUCT)] = {key(logical, STRUCT): {}}

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(of_writer("HVR 5.3.0", []), of_writer("parquet-mr", []), of_writer("Parquet.Net version 4", [0, 3, 4])),
        *(no_rows, uncounted_sizes, other_bloom_filters, misplaced_data_pages, text_that_is(4), text_that_is(12)),
    ],
)
def test_a_footer_as_others_write_it_is_read(tmp_path: Path, change: Any) -> None:
    write(tmp_path / "a.parquet", change)
    found = read(tmp_path / "a.parquet")
    assert [column.to_pylist() for column in found.columns[::2]] == [c.to_pylist() for c in TABLE.columns[::2]]
    assert found["name"].cast(pa.string()).to_pylist() == ["a", "b", "a"]


def test_encodings_are_held_against_the_list_of_writers_who_write_it_well(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", of_writer("parquet-mr version 1.13.1", [3, 4]))
    with pytest.raises(DataError, match=r"has encoding 0, the footer says \[3, 4\]"):
        read(tmp_path / "a.parquet")


def first_page(path: Path) -> tuple[Fields, int, int]:
    """The header of the first page, and where its body begins and ends."""
    header, body = read_struct(path.read_bytes(), 4)
    return header, body, body + header[key(3, I32)]


def test_levels_that_are_not_there_may_have_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"

    def change(footer: Fields, columns: list[Fields]) -> bytes:
        content = path.read_bytes()
        (header, body, _), length = first_page(path), int.from_bytes(content[-8:-4], "little")
        header[key(5, STRUCT)] |= {key(3, I32): 0, key(4, I32): 0}
        assert len(as_bytes(header)) == body - 4
        return content[:4] + as_bytes(header) + content[body : -8 - length]

    write(path, change)
    assert read(path).equals(TABLE)


def test_rows_and_nulls_of_pages_of_the_second_version_are_not_relied_on(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"

    def change(footer: Fields, columns: list[Fields]) -> bytes:
        content = path.read_bytes()
        (header, body, _), length = first_page(path), int.from_bytes(content[-8:-4], "little")
        header[key(8, STRUCT)] |= {key(2, I32): 9, key(3, I32): 0}
        assert len(as_bytes(header)) == body - 4
        return content[:4] + as_bytes(header) + content[body : -8 - length]

    write(path, change, data_page_version="2.0")
    assert read(path).equals(TABLE)


def test_a_page_may_end_in_more_bytes_than_its_values_take(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"

    def change(footer: Fields, columns: list[Fields]) -> bytes:
        content = path.read_bytes()
        (header, body, end), length = first_page(path), int.from_bytes(content[-8:-4], "little")
        header |= {key(number, I32): end - body + 8 for number in (2, 3)}
        assert len(as_bytes(header)) == body - 4
        columns[0] |= {name: columns[0][name] + 8 for name in SIZES}
        for column in columns[1:]:
            column |= {name: column[name] + 8 for name in (key(9, I64), key(11, I64)) if name in column}
        return content[:4] + as_bytes(header) + content[body:end] + bytes(8) + content[end : -8 - length]

    write(path, change)
    assert read(path).equals(TABLE)


@pytest.mark.parametrize("version", ["", " version 1.2.5-cdh4.5.0 (build )", " version 1.2.8"])
def test_old_sizes_without_the_header_of_the_dictionary_are_understood(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.parquet"

    def change(footer: Fields, columns: list[Fields]) -> None:
        begin = columns[1][key(11, I64)]
        header = read_struct(path.read_bytes(), begin)[1] - begin
        columns[1] |= {name: columns[1][name] - header for name in SIZES}
        footer[key(6, BINARY)] = f"parquet-mr{version}".encode()

    write(path, change)
    assert read(path).equals(TABLE)
    version = " version 1.2.9"
    write(path, change)
    with pytest.raises(DataError, match=r"column 'name': the page at byte .* cannot be right"):
        read(path)


def test_a_column_whose_type_contradicts_itself_is_left_out_and_named(tmp_path: Path) -> None:
    """Intervals of parquet-mr are "unknown" too, and pyarrow gives nulls for them."""

    def interval(footer: Fields, columns: list[Fields]) -> None:
        footer[key(2, LIST)][3].fields.update({key(6, I32): 21, key(10, STRUCT): {key(11, STRUCT): {}}})

    write(tmp_path / "a.parquet", interval)
    assert pq.read_table(tmp_path / "a.parquet")["twelve"].null_count == 3
    source = open_source(tmp_path / "a.parquet")
    assert "logical type 11 and converted type 21, which contradict" in source.unreadable["twelve"]
    assert read(tmp_path / "a.parquet").equals(TABLE.select(["id", "name"]))


def test_a_struct_without_fields_is_left_out_and_named(tmp_path: Path) -> None:
    """pyarrow names it in the schema, and then gives rows without it."""

    def struct(footer: Fields, columns: list[Fields]) -> None:
        footer[key(2, LIST)][0].fields[key(5, I32)] = 4
        footer[key(2, LIST)].append(Raw({key(3, I32): 1, key(4, BINARY): b"hollow", key(5, I32): 0}, 0, 0))

    write(tmp_path / "a.parquet", struct)
    source = open_source(tmp_path / "a.parquet")
    assert "'hollow' is a struct without fields" in source.unreadable["hollow"]
    assert read(tmp_path / "a.parquet").equals(TABLE)


def test_dictionaries_within_lists_and_structs_may_differ_from_row_group_to_row_group(tmp_path: Path) -> None:
    """As polars writes its categoricals; pyarrow makes no batch of several such row groups."""
    kind = pa.dictionary(pa.uint32(), pa.string())
    fields = pa.struct([("c", kind), ("n", pa.int64())])
    rows = [{"seq": [1.0], "cats": [name, "b"], "st": {"c": name, "n": 1}} for name in "axyxa"]
    schema = pa.schema([("seq", pa.list_(pa.float64())), ("cats", pa.list_(kind)), ("st", fields)])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "a.parquet", row_group_size=2)
    source = open_source(tmp_path)
    (unit,) = plan_units(source, 100)
    got = [row for batch in read_kept(source, [unit], ["seq", "cats", "st"]) for row in batch.to_pylist()]
    assert got == rows
    encoder = Encoder.from_seed(0, 1, 2)
    report = featurize(encoder, tmp_path / "a.parquet", tmp_path / "out", column="seq")
    out = pq.read_table(tmp_path / "out")
    assert report.rows == 5 and out.select(["cats", "st"]).to_pylist() == [
        {name: row[name] for name in ("cats", "st")} for row in rows
    ]


def change_column(path: Path, column: str, told: Fields) -> None:
    """Say more of the type of a column, or of the first leaf within it."""
    content = path.read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer, _ = read_struct(content[begin:-8])
    elements = [raw.fields for raw in footer[key(2, LIST)]]
    number = next(number for number, fields in enumerate(elements) if fields[key(4, BINARY)] == column.encode())
    next(fields for fields in elements[number:] if key(1, I32) in fields).update(told)
    stored = as_bytes(footer)
    path.write_bytes(content[:begin] + stored + len(stored).to_bytes(4, "little") + b"PAR1")


def make_unreadable(path: Path, column: str) -> None:
    """Have the type of a column contradict itself."""
    change_column(path, column, {key(6, I32): 21, key(10, STRUCT): {key(11, STRUCT): {}}})


@pytest.mark.parametrize("is_in_lists", [False, True])
def test_times_of_64_bits_beside_int96_are_read(tmp_path: Path, is_in_lists: bool) -> None:
    struct = pa.struct([("old", pa.timestamp("us")), ("new", pa.int64())])
    rows = [{"old": datetime.datetime(2020, 1, 1), "new": 1}, {"old": datetime.datetime(9999, 1, 1), "new": 10**15}]
    rows, kind = ([rows, []], pa.list_(struct)) if is_in_lists else (rows, struct)
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"s": pa.array(rows, kind)}), path, use_deprecated_int96_timestamps=True, store_schema=False
    )
    change_column(path, "new", {key(6, I32): 10})  # microseconds
    source = open_source(path)
    (unit,) = plan_units(source, 100)
    (batch,) = read_kept(source, [unit], ["s"])
    flat = batch.column(0).flatten() if is_in_lists else batch.column(0)
    assert flat.field("new").cast(pa.int64()).to_pylist() == [1, 10**15]


@pytest.mark.parametrize(
    "unreadable, flags, is_named",
    [
        ("total", {"column": "seq", "keep": ("id",), "filter": "total > 5"}, True),
        ("s", {"column": "seq", "keep": ("id",), "filter": "field('s.n') > 0"}, True),
        ("s", {"column": "s.x", "keep": ("id",)}, True),
        (
            "seq",
            {"layout": "flat-lists", "in_features": 1, "keep": ("id",), "bad_rows": BadRows(null_sequence="null")},
            False,
        ),
        ("total", {"group_by": ("id",)}, False),
    ],
)
def test_a_column_that_a_file_cannot_give_is_not_taken_for_one_that_it_lacks(
    tmp_path: Path, unreadable: str, flags: dict[str, Any], is_named: bool
) -> None:
    schema = pa.schema([
        ("id", pa.int64()), ("total", pa.int64()), ("seq", pa.list_(pa.float64())),
        ("s", pa.struct([("x", pa.list_(pa.float64())), ("n", pa.int64())])),
    ])  # fmt: skip
    rows = [{"id": n, "total": 9, "seq": [1.0], "s": {"x": [2.0], "n": 1}} for n in range(3)]
    for name in "ab":
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet", store_schema=False)
    make_unreadable(tmp_path / "b.parquet", unreadable)
    for source in (tmp_path, tmp_path / "b.parquet")[: 1 + is_named]:
        with pytest.raises(DataError, match=f"Column '{unreadable}' cannot be read"):
            featurize(Encoder.from_seed(0, 1, 2), source, tmp_path / "out", **flags)
    looked_at = inspect(tmp_path, JobOptions(layout="struct-of-lists", features=("x",)), scan=True)
    assert unreadable in looked_at.unreadable and looked_at.rows == 6
    assert unreadable not in looked_at.plain.nulls and not looked_at.drift, "no nulls, but a column that b cannot give"
    if unreadable == "s":
        with pytest.raises(DataError, match="Column 's' cannot be read"):
            inspect(tmp_path, JobOptions(layout="struct-of-lists", features=("x",)), statistics=True)


def test_a_column_that_a_changed_file_cannot_give_any_more_is_not_taken_for_nulls(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        pq.write_table(pa.table({"id": [1, 2], "seq": [[1.0], [2.0]]}), tmp_path / f"in/{name}.parquet")
    job = partial(featurize, Encoder.from_seed(0, 1, 2), tmp_path / "in", tmp_path / "out", column="seq")
    job()
    pq.write_table(pa.table({"id": [1, 2], "seq": [[1.0], [2.0]]}), tmp_path / "in/b.parquet", store_schema=False)
    make_unreadable(tmp_path / "in/b.parquet", "id")
    with pytest.raises(DataError, match="Column 'id' cannot be read"):
        job(accept_changes=True)
