"""Damaged, encrypted or unreachable files, and such that pyarrow cannot give: right rows, or one plain line."""

from __future__ import annotations

import base64
import datetime
import errno
import gc
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bit_flips import InThisProcess
from pyarrow import fs

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.source import footers
from scanrnn_dist.source.decode import ReadOptions
from scanrnn_dist.source.kept import read_kept
from scanrnn_dist.source.parquet import checked_file as parquet_file
from scanrnn_dist.source.parquet.budget import usual_bytes
from scanrnn_dist.source.parquet.checked_file import CheckedFile
from scanrnn_dist.source.parquet.footer import parse_footer, read_tail
from scanrnn_dist.source.parquet.pages import PageFile, PageWalk
from scanrnn_dist.source.parquet.readable import arrow_fields
from scanrnn_dist.source.parquet.thrift import I32, Raw, integer_bytes, key, read_struct
from scanrnn_dist.source.read_ahead import read_chunks
from scanrnn_dist.source.source import open_source, plan_units
from scanrnn_dist.storage import open_input_file

SEQUENCES = pa.array([[[1.0, 2.0]], [], [[3.0, 4.0]] * 3], pa.list_(pa.list_(pa.float32())))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"id": [1, 2, 3], "seq": SEQUENCES}), tmp_path / "a.parquet", row_group_size=2)
    return tmp_path / "a.parquet"


def kept(path: Path, names: list[str] | None = None, column: str | None = None) -> pa.Table:
    plan = plan_job(path, JobOptions(keep=names, column=column))
    chunks = read_chunks(plan.source, plan.units, ReadOptions(plan.layout, plan.keep))
    return pa.Table.from_batches([chunk.kept for chunk in chunks], plan.kept_schema)


def with_footer(path: Path, change: Any) -> None:
    """Replace the bytes of the footer by what `change` makes of them."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer = change(content[-8 - length : -8])
    path.write_bytes(content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda whole: b"", "the file is empty, 0 bytes"),
        (lambda whole: b"id,seq\n1,2\n3,4\n", "it is cut off or is no Parquet file"),
        (lambda whole: whole[:-20], "it is cut off or is no Parquet file"),
        (lambda whole: b"PAR1" + whole[-60:], "the file is cut off"),
        (lambda whole: whole[:-4] + b"PARE", "the file is encrypted, its footer too; decrypt it first"),
    ],
)
def test_what_is_no_whole_file_is_said_plainly(file: Path, content: Any, reason: str) -> None:
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(DataError) as error:
        open_source(file)
    assert f"{file} cannot be read as Parquet: " in str(error.value) and reason in str(error.value)
    assert "\n" not in str(error.value)


def test_encrypted_columns_are_said_to_be_encrypted(file: Path) -> None:
    """The field that says so, added to a footer; pyarrow would end the process when asked about such a column."""
    with_footer(file, lambda footer: footer[:-1] + b"\x1c\x00\x00" + b"signature")
    with pytest.raises(DataError, match="the file holds encrypted columns; decrypt it first"):
        open_source(file)


def test_a_real_encrypted_file_names_its_columns(shared_data: Path) -> None:
    path = shared_data / "found" / "encrypt_columns_plaintext_footer.parquet.encrypted"
    with pytest.raises(DataError, match=r"encrypted columns \('float_field', 'double_field'\)"):
        open_source(path)


def test_offsets_and_sizes_beyond_the_file_are_refused_before_pyarrow_sees_them(file: Path) -> None:
    """Each number of a column chunk in turn, by its bytes in the footer."""
    with open(file, "rb") as opened:
        native = pa.PythonFile(opened)
        tail = read_tail(native, usual_bytes)
        begin = native.size() - len(tail)
    footer = parse_footer(tail[:-8], begin)
    chunk = footer.row_groups[1].chunks[0]
    for number in (chunk.begin, chunk.data_begin, chunk.end - chunk.begin):
        stored, reasons = integer_bytes(number), []
        for place in range(len(footer.content)):  # the number itself, and others that are equal
            if footer.content.startswith(stored, place):
                after = footer.content[place + len(stored) :]
                try:
                    parse_footer(footer.content[:place] + integer_bytes(number + 4096) + after, begin)
                except ValueError as error:
                    reasons.append(str(error))
        told = ("outside the pages", "its dictionary at byte", "overlap")
        assert any(text in reason for reason in reasons for text in told), reasons


def test_a_nested_or_long_lie_ends_soon() -> None:
    for content in (b"\x1c" * 100_000, b"\x19\xfc\xff\xff\xff\xff\x07", b"\x16" + b"\xff" * 20, b"", b"\x00"):
        with pytest.raises(ValueError):
            parse_footer(content, 4)


def test_far_dates_in_int96_are_the_sources(tmp_path: Path) -> None:
    dates = [datetime.datetime(2020, 1, 1, 1, 2, 3, 4), datetime.datetime(9999, 12, 31, 23, 59, 59), None]
    nested = [[datetime.datetime(1000, 1, 1)], [], [None]]
    table = pa.table(
        {
            "at": pa.array(dates, pa.timestamp("us")),
            "all": pa.array(nested, pa.list_(pa.timestamp("us"))),
            "seq": SEQUENCES,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert kept(tmp_path / "a.parquet").equals(table.select(["at", "all"]))
    plan = plan_job(tmp_path / "a.parquet")
    (batch,) = read_kept(plan.source, [plan.units[0]], ["at"])
    assert batch.column(0).to_pylist() == dates


def test_nanoseconds_in_int96_are_not_lost_in_silence(tmp_path: Path) -> None:
    times = pa.array(np.array([0, 1_000, -1_001]), pa.timestamp("ns"))
    for column in (
        times,
        pa.array([[time] for time in times], pa.list_(times.type)),
        pa.StructArray.from_arrays([times], ["x"]),
    ):
        table = pa.table({"id": [1, 2, 3], "at": column, "seq": SEQUENCES})
        pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
        with pytest.raises(DataError, match=r"column 'at': an INT96 timestamp has nanoseconds, 1969-.*999998999"):
            kept(tmp_path / "a.parquet")
        assert kept(tmp_path / "a.parquet", ["id"])["id"].to_pylist() == [1, 2, 3]


def test_int96_is_read_once_more_alone_also_where_other_columns_end_batches_at_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts in dictionaries do. "s.x" is a column and a field of another one."""
    time = pa.timestamp("us")
    at = [datetime.datetime(2020, 1, 1, 0, 0, row) for row in range(10)]
    table = pa.table(
        {
            "kind": pa.array([f"{row // 3} {row % 2}" for row in range(10)]).dictionary_encode(),
            "at": pa.array(at, time),
            "all": pa.array([[("begin", second)] * (second.second % 3) for second in at], pa.map_(pa.string(), time)),
            "s": pa.array([{"x": second, "y": second} for second in at], pa.struct([("x", time), ("y", time)])),
            "s.x": pa.array(range(10)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, row_group_size=3)
    asked, iter_batches = list[list[str]](), pq.ParquetFile.iter_batches

    def told(parquet: pq.ParquetFile, *rows: int, columns: list[str], **how: Any) -> Any:
        asked.append(columns)
        return iter_batches(parquet, *rows, columns=columns, **how)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", told)
    columns = [("kind",), ("at",), ("all",), ("s", "y"), ("s.x",)]
    with closing(CheckedFile(fs.LocalFileSystem(), str(tmp_path / "a.parquet"), columns)) as checked:
        batches = list(checked.iter_batches(5, row_groups=range(4), columns=columns))
    assert [batch.num_rows for batch in batches] == [3, 2, 1, 3, 1]
    assert asked == [["kind", "at", "all", "s.y", "s.x"], ["at", "all", "s.y", "s.x"]]
    read = pa.Table.from_batches(batches)
    assert all(read[name].to_pylist() == table[name].to_pylist() for name in ("kind", "at", "all", "s", "s.x"))


def test_int96_that_has_fewer_rows_the_second_time_is_damage() -> None:
    batch = pa.record_batch([pa.array([1, 2])], names=["at"])
    with pytest.raises(ValueError, match="fewer rows"):
        list(parquet_file._cut_alike(iter([batch, batch]), iter([batch])))


def test_a_column_that_pyarrow_cannot_give_is_left_out_or_named(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": [1, 2, 3], "big": [5, 6, 7], "seq": SEQUENCES.to_pylist()})
    frame = frame.with_columns(
        polars.col("big").cast(polars.Int128), polars.col("seq").cast(polars.List(polars.List(polars.Float32)))
    )
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=2)
    assert kept(tmp_path / "a.parquet", ["id"])["id"].to_pylist() == [1, 2, 3]
    for names in (None, ["big"]):
        with pytest.raises(DataError, match=r"Column 'big' cannot be read: Integers with more than 64 bits .*--keep"):
            kept(tmp_path / "a.parquet", names)


LARGE = pa.list_(pa.float32(), 150_528)
WITH_TAGS = pa.struct([("x", LARGE), ("tags", pa.list_(pa.string()))])


@pytest.mark.parametrize(
    "image",
    [
        pa.nulls(3, LARGE),
        pa.array([{"x": None}, None, {"x": None}], pa.struct([("x", LARGE)])),
        pa.array([{"x": None, "tags": ["a", "b"]}, None, {"x": None, "tags": []}], WITH_TAGS),
        pa.array([[None, None], [], [None]], pa.list_(LARGE)),
        pa.array([[None, None], None, None], pa.list_(LARGE, 2)),
    ],
    ids=lambda image: str(image.type),
)
def test_lists_of_a_large_fixed_size_may_all_be_null(tmp_path: Path, image: pa.Array) -> None:
    long = pa.array([[1] * 200_000, [], []], pa.list_(pa.int8()))
    for others in ({}, {"long": long}):
        pq.write_table(pa.table({"seq": SEQUENCES, "image": image, **others}), tmp_path / "a.parquet")
        assert kept(tmp_path / "a.parquet", ["image"], "seq")["image"].to_pylist() == image.to_pylist()


def test_a_fixed_size_that_no_row_has_is_damage(tmp_path: Path) -> None:
    """A bit of the type is flipped, and 12,345 becomes 143,417; longer lists beside it are none of its business."""
    kind = pa.struct([("x", pa.list_(pa.float32(), 12_345)), ("tags", pa.list_(pa.string()))])
    rows = [{"x": [1.0] * 12_345, "tags": ["a"] * 200_000}, None, None]
    table = pa.table({"seq": SEQUENCES, "image": pa.array(rows, kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    stored = table.schema.serialize().to_pybytes()
    damaged = stored.replace((12_345).to_bytes(4, "little"), (143_417).to_bytes(4, "little"))
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace(base64.b64encode(stored), base64.b64encode(damaged)))
    with pytest.raises(DataError, match=r"column 'image': cannot be read: .*of size=143417 but index 1 had size=12345"):
        kept(tmp_path / "a.parquet", ["image"], "seq")


def test_lists_of_fewer_values_than_none_are_refused(tmp_path: Path) -> None:
    """By a damaged file of another writer."""
    table = pa.table({"seq": SEQUENCES, "image": pa.nulls(3, pa.list_(pa.float32(), 12_345))})
    pq.write_table(table, tmp_path / "a.parquet")
    stored = table.schema.serialize().to_pybytes()
    damaged = stored.replace((12_345).to_bytes(4, "little"), (-12_345).to_bytes(4, "little", signed=True))
    content = (tmp_path / "a.parquet").read_bytes().replace(base64.b64encode(stored), base64.b64encode(damaged))
    (tmp_path / "a.parquet").write_bytes(content.replace(b"parquet-cpp-arrow", b"another writer..."))
    with pytest.raises(
        DataError, match=r"a\.parquet cannot be read as Parquet: .*lists of -12345 values: it is damaged"
    ):
        open_source(tmp_path / "a.parquet")


def test_lists_of_the_fixed_size_0_are_not_kept_since_they_could_not_be_read_again(tmp_path: Path) -> None:
    """Polars writes some that can be read."""
    table = pa.table({"seq": SEQUENCES, "image": pa.nulls(3, pa.list_(pa.list_(pa.float32(), 0)))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"Column 'image' holds lists of the fixed size 0 .* cannot be kept"):
        plan_job(tmp_path / "a.parquet", JobOptions(column="seq"))
    assert len(plan_job(tmp_path / "a.parquet", JobOptions(column="seq", keep=())).units) == 1


@pytest.mark.parametrize(
    "kind, name, told",
    [
        (pa.list_(pa.float32(), 4), "arrow.fixed_shape_tensor", '{"shape": [2, 2]}'),
        (pa.string(), "arrow.json", "{}"),
    ],
)
def test_metadata_that_make_an_extension_type_may_be_spelled_in_any_way(
    tmp_path: Path, kind: pa.DataType, name: str, told: str
) -> None:
    metadata = {"ARROW:extension:metadata": told, "unit": "m", "ARROW:extension:name": name}
    column = pa.field("x", kind, metadata=metadata)
    schema = pa.schema([pa.field("seq", SEQUENCES.type), column, pa.field("s", pa.struct([column]))])
    columns = [SEQUENCES, *(pa.nulls(3, field.type) for field in list(schema)[1:])]
    pq.write_table(pa.table(columns, schema), tmp_path / "a.parquet")
    assert kept(tmp_path / "a.parquet", ["x", "s"], "seq").num_rows == 3


def test_fields_of_arrow_are_read_one_by_one() -> None:
    schema = pa.schema([pa.field("a", pa.int8(), metadata={"x": "y"}), pa.field("b", pa.list_(pa.string()), False)])
    content = schema.serialize().to_pybytes()
    assert arrow_fields(content, 2) == list(schema)
    assert arrow_fields(content, 3) == [None] * 3 and arrow_fields(content[:9], 2) == [None] * 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ETIMEDOUT])
def test_trouble_on_the_way_is_not_the_files_fault(file: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    plan = plan_job(file)
    monkeypatch.setattr(footers, "_child", InThisProcess)

    def fail(*_: Any) -> Any:
        raise OSError(number, "no luck")

    class Failing:
        closed = False

        def __init__(self, opened: pa.NativeFile) -> None:
            self.seek, self.tell, self.size, self.close = opened.seek, opened.tell, opened.size, opened.close
            self.read_buffer = fail

    def opened(way: Any, _: fs.FileSystem, *how: Any) -> Any:
        return open_input_file(SimpleNamespace(type_name="local", open_input_file=way), *how)  # type: ignore[arg-type]

    for way in (fail, lambda path: Failing(fs.LocalFileSystem().open_input_file(path))):
        for module in (parquet_file, footers):
            monkeypatch.setattr(module, "open_input_file", partial(opened, way))
        chunks = read_chunks(plan.source, plan.units, ReadOptions(plan.layout, in_features=2))
        for reads in (lambda chunks=chunks: next(chunks), lambda: open_source(file)):
            with pytest.raises(StoppedError, match=r"a\.parquet could not be read: .*says nothing about its content"):
                reads()


def test_found_files_of_one_flipped_bit_are_refused(shared_data: Path) -> None:
    for name, reason in {
        "tiny-numvalues.crc": r"row group 0, column 'seq.list.element': .* 6 values, the footer says 7",
        "lastpage-num_values-bitflip.crc1": r"column 'seq.list.element.list.element': .*values, the footer says",
        "footer-bitflip-2GB": "two column chunks overlap",
    }.items():
        with pytest.raises(DataError, match=reason):
            kept(shared_data / "found" / f"{name}.parquet", [])
    checked = CheckedFile(fs.LocalFileSystem(), str(shared_data / "found" / "tiny-good.crc.parquet"))
    checked.close()


def test_an_index_outside_of_its_dictionary_is_refused(tmp_path: Path) -> None:
    """pyarrow gives it as it is, and who uses it reads foreign memory. Every third bit of a page of indices in turn."""
    kind = pa.array(["a", "b", None, "c"] * 3).dictionary_encode()
    table = pa.table(
        {"kind": kind, "all": pa.ListArray.from_arrays(pa.array([0, 5, 12], pa.int32()), kind).take([0, 1] * 6)}
    )
    pq.write_table(table, tmp_path / "a.parquet", compression="none")
    content = (tmp_path / "a.parquet").read_bytes()
    refused = Counter[str]()
    for leaf in range(2):
        column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(leaf)
        begin, end = column.data_page_offset, column.dictionary_page_offset + column.total_compressed_size
        for bit in range(8 * begin, 8 * end, 3):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            try:
                pq.read_table(pa.BufferReader(bytes(changed))).validate(full=True)
            except (pa.ArrowException, OSError) as error:
                if "indices invalid" not in str(error):
                    continue
                (tmp_path / "b.parquet").write_bytes(changed)
                source = open_source(tmp_path / "b.parquet")
                with pytest.raises(DataError, match=rf"b\.parquet, row group 0, column '{table.column_names[leaf]}'.*"):
                    list(read_kept(source, [plan_units(source, 100)[0]], ["kind", "all"]))
                refused[table.column_names[leaf]] += 1
    assert refused["kind"] and refused["all"]


def test_a_dictionary_shorter_than_it_promises_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["one", "two", "three"]}), path, compression="none")
    content = path.read_bytes()
    header, end = read_struct(content, 4)
    size = integer_bytes(header[key(2, I32)])
    longer = content[4:end].replace(size, integer_bytes(header[key(2, I32)] + 4), 1)
    path.write_bytes(content[:4] + longer + content[end:])
    source = open_source(path)
    with pytest.raises(DataError, match=r"row group 0, column 'id': .* a dictionary of 23 bytes that promises 27"):
        list(read_kept(source, [plan_units(source, 100)[0]], ["id"]))


def test_the_pages_before_a_row_group_without_rows_are_looked_at_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a row group is said to begin where the first one does."""
    table = pa.table({"seq": [[float(number)] for number in range(20_000)]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(table)
        writer.write_table(table.slice(0, 0))
    looks: list[int] = []
    look = PageFile._look
    monkeypatch.setattr(PageFile, "_look", lambda self, walk: looks.append(walk.position) or look(self, walk))
    assert kept(tmp_path / "a.parquet", ["seq"]).num_rows == 20_000
    assert not looks, "of pages that were read, no header is read once more"


def test_an_open_file_holds_no_more_of_its_footer_than_is_needed(tmp_path: Path) -> None:
    """Nothing of how it was parsed, and of pages only what was asked for: that lies beside any bound on memory."""
    pq.write_table(pa.table({"x": range(40), "y": range(40)}), tmp_path / "a.parquet", row_group_size=2)

    def held(kind: type) -> int:
        gc.collect()
        return sum(type(each) is kind for each in gc.get_objects())

    before = held(Raw), held(PageWalk)
    with closing(CheckedFile(fs.LocalFileSystem(), str(tmp_path / "a.parquet"))) as checked:
        assert (held(Raw), held(PageWalk)) == before
        assert sum(batch.num_rows for batch in checked.iter_batches(9, row_groups=[3], columns=[("x",)])) == 2
        checked.check_pages([3])
        assert held(PageWalk) - before[1] == 2 and checked.footer.names == ["x", "y"]
