"""Only what is asked for is read and checked, however the file names its lists; names alike do no harm."""

from __future__ import annotations

import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from scanrnn_dist.errors import DataError
from scanrnn_dist.job.first_rows import in_features_of
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.plan import plan_job
from scanrnn_dist.source import read_chunks
from scanrnn_dist.source.parquet import CheckedFile
from scanrnn_dist.source.parquet.leaves import Leaves

ROWS = [
    [{"x": row + step, "s": "text", "in": {"y": 2 * step, "z": [step]}} for step in range(row % 4)] for row in range(40)
]
STRUCT = pa.struct(
    [("x", pa.int16()), ("s", pa.string()), ("in", pa.struct([("y", pa.int8()), ("z", pa.list_(pa.int8()))]))]
)


def write(path: Path, **options: Any) -> Path:
    columns = {
        "id": pa.array(range(40)),
        "hits": pa.array(ROWS, pa.list_(STRUCT)),
        "hits.list.element.x": pa.array([0.5] * 40),  # spelled like a leaf
        "hits.x": pa.array(["other"] * 40),
    }
    pq.write_table(pa.table(columns), path, row_group_size=15, **options)
    return path


def read(path: Path, keep: list[str], **asked: Any) -> tuple[list[Any], pa.Table]:
    plan = plan_job(path, JobOptions(**asked, keep=keep))
    options = JobOptions(**asked).settled(plan.layout, plan.keep, plan.rows_per_part)
    chunks = list(read_chunks(plan.source, plan.units, options.reading(in_features_of(plan), None)))
    rows = [chunk.sequences.row(row).tolist() for chunk in chunks for row in range(len(chunk.sequences))]
    return rows, pa.Table.from_batches([chunk.kept for chunk in chunks])


EXPECTED = [[[step["in"]["y"], step["x"]] for step in row] for row in ROWS]
ASKED: dict[str, Any] = {"column": "hits", "features": ["in.y", "x"]}


@pytest.mark.parametrize("nested_names", [True, False])
@pytest.mark.parametrize("keep", [[], ["id"], ["hits.x", "hits.list.element.x", "id"], ["hits", "id"]], ids=str)
def test_fields_are_read_beside_kept_columns(tmp_path: Path, nested_names: bool, keep: list[str]) -> None:
    path = write(tmp_path / "a.parquet", use_compliant_nested_type=nested_names)
    rows, kept = read(path, keep, **ASKED)
    assert rows == EXPECTED
    assert kept.to_pydict() == (pq.read_table(path).select(keep).to_pydict() if keep else {})


class Awkward(pa.ExtensionType):
    """As the library of that name registers it."""

    def __init__(self, storage: pa.DataType) -> None:
        super().__init__(storage, "awkward")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Awkward:
        return cls(storage)


def as_awkward(array: pa.Array) -> pa.ExtensionArray:
    return pa.ExtensionArray.from_storage(Awkward(array.type), array)


@pytest.mark.parametrize("is_registered", [True, False])
@pytest.mark.parametrize("column", ["hits", "tracks"])
def test_fields_within_extension_types_are_read(tmp_path: Path, column: str, is_registered: bool) -> None:
    """pyarrow gives none of them alone: all leaves of such a type are read, and none of what stands beside it."""
    numbers = [as_awkward(pa.array([1, 2, 3], pa.int16())), as_awkward(pa.array([4, 5, 6], pa.int16()))]
    records = pa.StructArray.from_arrays([*numbers, pa.array(["a", "b", "c"])], ["x", "y", "s"])
    offsets = pa.array([0, 1, 3])
    hits = as_awkward(pa.LargeListArray.from_arrays(offsets, as_awkward(records)))
    tracks = pa.LargeListArray.from_arrays(offsets, as_awkward(records))
    event = pa.StructArray.from_arrays([tracks, pa.array(["d", "e"])], ["tracks", "beside"])
    pq.write_table(pa.table({"hits": hits, "event": event}), tmp_path / "a.parquet")
    name = {"hits": "hits", "tracks": "event.tracks"}[column]
    if is_registered:
        pa.register_extension_type(Awkward(pa.null()))
    try:
        with closing(CheckedFile(fs.LocalFileSystem(), str(tmp_path / "a.parquet"))) as file:
            leaves = Leaves(file.footer, file.schema_arrow)
            number = len(leaves.of((*name.split("."), "y")))
        rows, _ = read(tmp_path / "a.parquet", [], column=name, features=["y", "x"])
    finally:
        if is_registered:
            pa.unregister_extension_type("awkward")
    assert rows == [[[4, 1]], [[5, 2], [6, 3]]]
    assert number == (3 if is_registered else 1)


def damage(path: Path, leaf: str) -> None:
    """Change a byte within the last page of a leaf in the second row group."""
    metadata = pq.ParquetFile(path).metadata
    (chunk,) = (
        metadata.row_group(1).column(number)
        for number in range(metadata.num_columns)
        if metadata.row_group(1).column(number).path_in_schema == leaf
    )
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    path.write_bytes(content)


def test_damage_in_a_field_that_is_not_asked_for_is_no_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", write_page_checksum=True, use_dictionary=False, compression="none")
    damage(path, "hits.list.element.s")
    assert read(path, ["id"], **ASKED)[0] == EXPECTED
    with pytest.raises(DataError, match=r"row group 1, column 'hits'"):
        read(path, ["hits"], **ASKED)


def test_damage_in_a_field_that_is_asked_for_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", write_page_checksum=True, use_dictionary=False, compression="none")
    damage(path, "hits.list.element.in.y")
    with pytest.raises(DataError, match=r"row group 1, column 'hits\.in\.y': cannot be read"):
        read(path, ["id"], **ASKED)
    rows, _ = read(path, ["id"], column="hits", features=["x"])
    assert rows == [[[step["x"]] for step in row] for row in ROWS]


def test_the_pages_of_what_is_asked_for_are_held_against_the_footer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", use_dictionary=False)
    with path.open("r+b") as file:
        file.seek(pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset)
        file.write(b"\xff")  # a header that is none
    for ways, is_damaged in (([("hits", "x")], True), ([("hits", "in"), ("id",)], False), ([("hits",)], True)):
        file = CheckedFile(fs.LocalFileSystem(), str(path), ways)
        if is_damaged:
            with pytest.raises(DataError, match=r"row group 1, column 'hits\.list\.element\.x'.*cannot be right"):
                file.check_pages([0, 1, 2])
        else:
            file.check_pages([0, 1, 2])
        file.close()


def test_leaves_are_counted_through_every_type(tmp_path: Path) -> None:
    types = {
        "map": pa.map_(pa.string(), pa.struct([("a", pa.int8()), ("b", pa.int8())])),
        "words": pa.dictionary(pa.int8(), pa.string()),
        "tensor": pa.fixed_shape_tensor(pa.float32(), [2, 2]),
        "views": pa.list_view(pa.struct([("u", pa.int8()), ("v", pa.int8())])),
        "nothing": pa.null(),
        "last": pa.large_list(pa.list_(pa.float64(), 3)),
    }
    struct = pa.struct(list(types.items()))
    pq.write_table(pa.table({"first": [1], "s": pa.nulls(1, struct)}), tmp_path / "a.parquet")
    file = CheckedFile(fs.LocalFileSystem(), str(tmp_path / "a.parquet"))
    names = [leaf.name for leaf in file.footer.leaves]

    def found(*path: str) -> list[str]:
        return [names[leaf] for leaf in Leaves(file.footer, file.schema_arrow).of(path)]

    assert found("s") == names[1:] and found("first") == ["first"]
    for name in types:
        assert found("s", name) == [leaf for leaf in names if leaf.startswith(f"s.{name}")] != []
    assert found("s", "views", "v") == ["s.views.list.element.v"]
    assert found("s", "map", "value", "b") == ["s.map.key_value.value.b"]
    assert found("nope") == [] and found("first", "x") == ["first"]
    assert found("s", "nope") == names[1:2], "a leaf beside it, by which lists are as long as they are"
    file.close()


@pytest.mark.parametrize("is_struct", [False, True], ids=["columns", "fields"])
def test_twice_as_many_columns_or_fields_take_twice_the_work(tmp_path: Path, is_struct: bool) -> None:
    calls = []
    for count in (60, 120):
        names, value = [f"c{number}" for number in range(count)], pa.array([[1.0, 2.0]], pa.list_(pa.float32()))
        table = pa.table([value] * count, names)
        table = pa.table({"s": table.to_struct_array()}) if is_struct else table
        pq.write_table(table, tmp_path / f"{count}.parquet")
        paths = [("s", name) if is_struct else (name,) for name in names]
        made: list[str] = []
        sys.setprofile(lambda frame, event, _, made=made: made.append(event))
        try:
            file = CheckedFile(fs.LocalFileSystem(), str(tmp_path / f"{count}.parquet"), paths)
            for _ in file.iter_batches(1, row_groups=[0], columns=paths):
                assert all(file.leaves.decoded_bytes(path, [0]) for path in paths)
        finally:
            sys.setprofile(None)
        file.close()
        calls.append(len(made))
    assert calls[1] < 2.2 * calls[0]


def test_the_width_is_found_where_other_lists_of_the_column_hold_the_values(tmp_path: Path) -> None:
    rows = [{"other": [1, 2, 3], "seq": []}] * 4 + [{"other": [], "seq": [[1.0, 2.0]]}]
    type = pa.struct([("other", pa.list_(pa.int8())), ("seq", pa.list_(pa.list_(pa.float32())))])
    pq.write_table(pa.table({"a": pa.array(rows, type)}), tmp_path / "a.parquet", row_group_size=2)
    plan = plan_job(tmp_path / "a.parquet", JobOptions(column="a.seq", rows_per_part=1))
    assert len(plan.units) == 3 and in_features_of(plan) == 2


ARRAYS = {
    "small": pa.array([1] * 1000, pa.int8()),
    "wide": pa.array([Decimal("1.25")] * 1000, pa.decimal128(9, 2)),
    "when": pa.array([7] * 1000, pa.timestamp("us")),
    "bytes": pa.array([b"abc"] * 1000, pa.binary(3)),
    "lists": pa.array([[0.5] * (row % 5) for row in range(1000)], pa.list_(pa.float32())),
    "fixed": pa.array([[0.5] * 3, None] * 500, pa.list_(pa.float64(), 3)),
    "structs": pa.array(
        [[{"x": 1, "y": 2.0}] * 3] * 1000, pa.list_(pa.struct([("x", pa.int16()), ("y", pa.float32())]))
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_footer_tells_what_numbers_take_once_they_are_decoded(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({name: ARRAYS[name]}), tmp_path / "a.parquet", row_group_size=300)
    with closing(CheckedFile(fs.LocalFileSystem(), str(tmp_path / "a.parquet"))) as file:
        told = file.leaves.decoded_bytes((name,), range(1, 3))
        found = sum(batch.nbytes for batch in file.iter_batches(1000, row_groups=[1, 2], columns=[(name,)]))
    assert told is not None and 0.9 * found <= told <= 1.25 * found  # offsets count once for each leaf


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "b"]),
        pa.array([["a"], []]),
        pa.array([{"x": 1, "s": "a"}] * 2),
        pa.array(["a", "a"]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_what_texts_take_is_for_nobody_to_know(tmp_path: Path, array: pa.Array) -> None:
    pq.write_table(pa.table({"a": array}), tmp_path / "a.parquet")
    with closing(CheckedFile(fs.LocalFileSystem(), str(tmp_path / "a.parquet"))) as file:
        assert file.leaves.decoded_bytes(("a",), [0]) is None


def test_rows_are_cut_alike_whatever_the_first_ones_are(tmp_path: Path) -> None:
    """A chunk is of the mean size: neither short rows at the beginning nor a page of a dictionary decide."""
    lengths = [1] * 200 + [400] * 200
    rows = [[float(row)] * length for row, length in enumerate(lengths)]
    found = []
    for name, ordered in (("short", rows), ("long", rows[::-1])):
        pq.write_table(pa.table({"seq": pa.array(ordered, pa.list_(pa.float32()))}), tmp_path / f"{name}.parquet")
        plan = plan_job(tmp_path / f"{name}.parquet", JobOptions(column="seq", keep=[]))
        options = JobOptions(column="seq").settled(plan.layout, plan.keep, plan.rows_per_part)
        chunks = list(read_chunks(plan.source, plan.units, options.reading(1, None, chunk_bytes=1 << 15)))
        found.append([chunk.rows for chunk in chunks])
    assert found[0] == found[1] and 30 < found[0][0] < 45
