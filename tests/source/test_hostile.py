"""Files that want to do harm: what they would take of memory meets the budget first, and none ends a process.

The files of `shared/data/hostile` as they are, each column of each read; bombs made here, with a budget as small as
they are; folders whose partition values look like paths.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from scanrnn_dist.errors import DataError
from scanrnn_dist.source import FailedUnit, ReadOptions, read_chunks, read_kept
from scanrnn_dist.source.layouts import is_list
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.parquet import CheckedFile
from scanrnn_dist.source.parquet.budget import LongestRow, least_row_bytes
from scanrnn_dist.source.parquet.pages import _are_levels
from scanrnn_dist.source.parquet.thrift import read_struct
from scanrnn_dist.source.source import open_source, plan_units

STEPS = pa.list_(pa.list_(pa.float32()))

READ_ALL = """
import sys
from dataclasses import replace
from scanrnn_dist.errors import DataError
from scanrnn_dist.observe import peak_memory_bytes
from scanrnn_dist.source import read_kept
from scanrnn_dist.source.source import open_source, plan_units
for path in sys.argv[1:]:
    try:
        source = replace(open_source(path), memory_bytes=256 << 20)
    except DataError as error:
        print("footer", len(str(error).splitlines()), path in str(error), flush=True)
        continue
    for unit in plan_units(source, 1):
        rows = 0
        try:
            for batch in read_kept(source, [unit], source.schema.names):
                batch.validate(full=True)
                rows += batch.num_rows
            print("read", rows == unit.rows, path.endswith("repeated_no_annotation.parquet"), flush=True)
        except DataError as error:
            print("pages", len(str(error).splitlines()), path in str(error), flush=True)
print("peak", peak_memory_bytes() < 500 << 20)
"""


def test_all_columns_of_every_hostile_file_end_in_one_line(shared_data: Path) -> None:
    """No file ends the process or takes much memory; the only one that is sound gives the rows that it has."""
    paths = sorted(map(str, (shared_data / "hostile").glob("*.parquet")))
    command = [sys.executable, "-c", READ_ALL, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    *lines, peak = done.stdout.splitlines()
    good = {"footer 1 True", "pages 1 True", "read True True"}
    assert set(lines) == good and len(lines) >= len(paths) and peak == "peak True", done.stdout + done.stderr[-2000:]


def hostile_commands(path: Path, columns: bool) -> list[list[str]]:
    """What a user might do with a file."""
    commands = [["featurize", str(path), "OUT", "--hidden", "4", "--lossy-cast"], ["plan", str(path), "--hidden", "4"]]
    if columns:
        names = ["arr", "col_24", "col_25", "col_27", "list_int64", "fixed_size_list_float64", "list_float32"]
        commands += [[*commands[0], "--column", name] for name in names]
    return commands


@pytest.mark.parametrize(
    "some", [pytest.param(True, marks=pytest.mark.soak), pytest.param(False, marks=pytest.mark.sweep)]
)
def test_the_command_line_ends_with_code_3_soon_and_in_little_memory(
    shared_data: Path, tmp_path: Path, some: bool
) -> None:
    """Each command in a process of its own, under 4 GB of addresses."""
    paths = sorted((shared_data / "hostile").glob("*.parquet"))
    few = ("large_string_map", "6189954201092096", "ARROW-GH-41321")
    for path in [path for path in paths if not some or any(name in path.name for name in few)]:
        columns = not some and any(name in path.name for name in few)  # the others have no footer to be read
        for number, command in enumerate(hostile_commands(path, columns)):
            arguments = [argument.replace("OUT", str(tmp_path / f"{path.name}-{number}")) for argument in command]
            code, peak_mib, seconds, said = run_limited(arguments)
            told = f"{arguments} {code} {peak_mib} MiB {seconds:.1f} s {said[-500:]}"
            assert code == 3 or (code == 2 and f"has no column {arguments[-1]!r}" in said), told
            said = said[max(0, said.find("UndoneError")) :]  # what would be done may stand before
            lines = 3 if said.startswith("UndoneError") else 1  # one for each unit, one before, one after
            assert peak_mib < 1000 and len(said.splitlines()) == lines and path.name in said, told
            print(told)


LIMITED = """
import os, sys
from scanrnn_dist.cli.app import run
from scanrnn_dist.observe import peak_memory_bytes
code = run(sys.argv[1:])
sys.stdout.flush()
print(peak_memory_bytes() >> 20, file=sys.stderr, flush=True)
os._exit(code)  # as the command does: a thread that still imports may abort a process that ends
"""


def run_limited(arguments: list[str]) -> tuple[int, int, float, str]:
    """Exit code of a command, its peak of memory in MiB, seconds, and what was said, under `ulimit -v` of 4 GB.

    The process tells its own peak: what the system counts of a child begins with what the parent has.
    """
    began = time.monotonic()
    shell = ["bash", "-c", 'ulimit -v 4000000; exec "$@"', "limited", sys.executable, "-c", LIMITED, *arguments]
    done = subprocess.run(shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    said, _, peak_mib = done.stdout.rstrip().rpartition("\n")
    return done.returncode, int(peak_mib), time.monotonic() - began, said


# A budget of memory ---------------------------------------------------------------------------------------------------


def read_within(path: Path, memory_bytes: int) -> tuple[pa.Table, int]:
    """All columns, and the most rows of a batch."""
    source = replace(open_source(path), memory_bytes=memory_bytes)
    names = source.schema.names
    batches = [*read_kept(source, plan_units(source, 1 << 40), names)]
    return pa.Table.from_batches(batches, source.schema), max(batch.num_rows for batch in batches)


def list_of(lengths: list[int], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths]), pa.int32()), values)


BOMBS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a page of zeros": (
        pa.array(np.zeros(1 << 20)),
        {"compression": "zstd", "use_dictionary": False, "data_page_size": 1 << 25, "write_batch_size": 1 << 20,
         "max_rows_per_page": 1 << 21},
        r"the page at byte 4, [0-9,]+ bytes that become 8,388,6.., would take about 9 MiB of memory",
    ),
    "one row of equal values": (
        list_of([1 << 21], pa.array(np.zeros(1 << 21, np.int32))),
        {"compression": "zstd"},
        r"column 'bomb\.list\.element': a row of 2,097,152 values would take about 32 MiB",
    ),
    "a long row of equal values among short ones": (
        list_of([1] * 500 + [1 << 20] + [1] * 500, pa.array(np.zeros(1000 + (1 << 20), np.int32))),
        {"compression": "zstd"},
        r"column 'bomb\.list\.element': a row of 1,048,576 values would take about 16 MiB",
    ),
    "the same in pages of the second version": (
        list_of([1] * 500 + [1 << 20] + [1] * 500, pa.array(np.zeros(1000 + (1 << 20), np.int32))),
        {"compression": "zstd", "data_page_version": "2.0"},
        r"column 'bomb\.list\.element': a row of 1,048,576 values would take about 16 MiB",
    ),
    "a dictionary of one long string": (
        pa.DictionaryArray.from_arrays(pa.array([0, 0, 0], pa.int32()), pa.array(["x" * (3 << 20)])),
        {"compression": "brotli"},
        r"the page at byte 4, [0-9,]+ bytes that become 3,145,732, would take about 7 MiB",
    ),
    "binaries of a fixed size": (
        pa.nulls(2, pa.binary(7_000_000)),
        {},
        r"column 'bomb': one row of 7,000,000 bytes, by its type, would take about 7 MiB",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_meets_the_budget_before_anything_is_allocated(tmp_path: Path, name: str) -> None:
    array, options, reason = BOMBS[name]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"bomb": array}), path, **options)
    assert path.stat().st_size < 60_000
    usual = pa.default_memory_pool()
    pools = [pa.proxy_memory_pool(usual) for _ in range(2)]
    try:
        pa.set_memory_pool(pools[0])
        with pytest.raises(DataError, match=rf"a\.parquet.*{reason}.*may take 6 MiB at once.*--memory"):
            read_within(path, 6 << 20)
        pa.set_memory_pool(pools[1])
        read_within(path, 1 << 30)
    finally:
        pa.set_memory_pool(usual)
    assert pools[0].max_memory() < 6 << 20 < pools[1].max_memory()
    if "binaries" not in name:
        assert (
            read_within(path, 1 << 30)[0]["bomb"].combine_chunks().equals(pq.read_table(path)["bomb"].combine_chunks())
        )


def test_fixed_sizes_within_one_another_multiply() -> None:
    pairs = pa.list_(pa.list_(pa.struct([("x", pa.int64()), ("y", pa.list_(pa.bool_(), 4))]), 1000), 2000)
    assert least_row_bytes(pairs) == 2000 * 1000 * (8 + 4)
    assert least_row_bytes(pa.list_(pairs)) == least_row_bytes(pa.string()) == 4
    assert least_row_bytes(pa.fixed_shape_tensor(pa.float32(), (3, 5))) == 60


WIDE = pa.list_(pa.list_(pa.float32(), 16), 16_000)
X, XY = pa.struct([("x", pa.int8())]), pa.struct([("x", pa.int8()), ("y", pa.list_(pa.list_(pa.float32(), 16), 800))])
LISTS_BESIDE = pa.field("z", pa.list_(pa.list_(pa.int8())))


def some_of(kind: pa.DataType) -> Any:
    """A value; lists and maps have 20."""
    if pa.types.is_struct(kind):
        return {field.name: some_of(field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(str(number), some_of(kind.item_type)) for number in range(20)]
    if is_list(kind):
        return [some_of(kind.value_type)] * (kind.list_size if pa.types.is_fixed_size_list(kind) else 20)
    return None if kind == pa.null() else 1


SURE = [
    (WIDE, None),
    (WIDE, pa.null()),
    (pa.struct([("x", pa.int8()), ("y", WIDE)]), X),
    (pa.struct([("z", pa.struct([("y", WIDE)]))]), pa.struct([("z", pa.struct([("y", pa.null())]))])),
    (pa.list_(pa.struct([("x", pa.int8()), ("y", pa.list_(pa.float32(), 256))]), 1000), pa.list_(X, 1000)),
]
WITHIN_LISTS = [
    (pa.list_(XY), pa.list_(X)),
    (pa.list_(pa.struct([*XY, LISTS_BESIDE])), pa.list_(pa.struct([*X, LISTS_BESIDE]))),
    (pa.struct([("a", pa.list_(XY)), LISTS_BESIDE]), pa.struct([("a", pa.list_(X)), LISTS_BESIDE])),
    (pa.map_(pa.string(), XY), pa.map_(pa.string(), X)),
    (pa.struct([("a", pa.map_(pa.string(), XY))]), pa.struct([("a", pa.map_(pa.string(), X))])),
]


@pytest.mark.parametrize(("kind", "own"), [*SURE, *WITHIN_LISTS], ids=str)
def test_nulls_for_what_a_file_lacks_are_bounded(tmp_path: Path, kind: pa.DataType, own: pa.DataType | None) -> None:
    """1 MB of each row."""
    pq.write_table(pa.table({"id": [0], "k": pa.nulls(1, kind)}), tmp_path / "a.parquet")
    table = pa.table({"id": range(1, 101)})
    if own is not None:
        table = table.append_column("k", pa.array([some_of(own)] * 100, own))
    pq.write_table(table, tmp_path / "b.parquet")
    source = open_source(tmp_path)
    _, unit = plan_units(source, 1 << 40)
    batches = list(read_kept(source, [unit], ["k", "id"]))
    assert 3 << 20 < max(batch.nbytes for batch in batches) < 9 << 20
    assert [row for batch in batches for row in batch["id"].to_pylist()] == list(range(1, 101))
    if (kind, own) in WITHIN_LISTS:
        return  # of whose rows nothing is sure by the type
    with pytest.raises(DataError, match=r"b\.parquet, column 'k': one row of 1,024,00. bytes, by its type, .*--memory"):
        list(read_kept(replace(source, memory_bytes=1_000_000), [unit], ["k", "id"]))


def test_a_footer_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    """Empty lists within a list, and a footer too large for the budget."""
    with pytest.raises(ValueError, match="a list holds lists or maps"):
        read_struct(b"\x19\xf9\x80\x80\x40" + bytes(1 << 20) + b"\0")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + bytes(2 << 20) + (2 << 20).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match=r"the footer of 2,097,152 bytes would take 48 times as many of memory"):
        CheckedFile(LocalFileSystem(), str(path), memory_bytes=64 << 20)
    with pytest.raises(ValueError, match=r"the footer takes 1 of the 2097152 bytes"):
        CheckedFile(LocalFileSystem(), str(path), memory_bytes=256 << 20)


class Watched(bytes):
    """Bytes that count how many of them are looked at."""

    looked_at = 0

    def __getitem__(self, index: Any) -> Any:
        self.looked_at += 1
        return super().__getitem__(index)


def test_a_run_of_levels_whose_length_does_not_end_is_not_read_on() -> None:
    """To the end of 1 MB took two minutes, as the number grows with each byte."""
    levels = Watched(b"\xff" * 1000)
    assert not _are_levels(levels, 1, 1000) and levels.looked_at < 10  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.booleans(), st.data())
def test_the_longest_row_is_found_whatever_the_runs(lengths: list[int], deep: bool, data: st.DataObject) -> None:
    """Levels are cut into pages anywhere, and written in runs of one level and in groups of bits as they come."""
    bits = 2 if deep else 1
    levels = [level for length in lengths for level in [0, *[1 + deep * (step % 2) for step in range(length - 1)]]]
    longest, begin = LongestRow(), 0
    while begin < len(levels):
        end = begin + data.draw(st.integers(1, len(levels) - begin))
        longest.add(memoryview(runs(levels[begin:end], bits, data)), bits, end - begin)
        begin = end
    assert longest.values == max(lengths)


def runs(levels: list[int], bits: int, data: st.DataObject) -> bytes:
    """Levels as Parquet has them."""
    written = b""
    while levels:
        same = next((number for number, level in enumerate(levels) if level != levels[0]), len(levels))
        if len(levels) < 8 or data.draw(st.booleans()):
            written, levels = written + bytes([same << 1, levels[0]]), levels[same:]
        else:
            packed = sum(level << bits * number for number, level in enumerate(levels[:8]))
            written, levels = written + bytes([3]) + packed.to_bytes(bits, "little"), levels[8:]
    return written


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}]
)
def test_long_texts_late_in_a_file_make_batches_smaller(tmp_path: Path, options: Any) -> None:
    """The first rows say that many fit; rows are right all the same, and none is there twice."""
    texts = ["x"] * 20_000 + [str(row) * 500 for row in range(3000)] + ["y"] * 500
    table = pa.table({"text": pa.array(texts), "many": list_of([2] * len(texts), pa.array(texts + texts))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=9000, data_page_size=50_000, **options)
    sizes = []
    for memory_bytes in (1 << 30, 6 << 20):
        file = CheckedFile(LocalFileSystem(), str(tmp_path / "a.parquet"), memory_bytes=memory_bytes)
        batches = list(file.iter_batches(5000, row_groups=range(3), columns=[("text",), ("many",)]))
        file.check_pages(range(3))
        file.close()
        assert pa.Table.from_batches(batches).equals(table)
        sizes.append([batch.num_rows for batch in batches])
    few, many = sizes
    assert few[0] == 5000 and many[0] > 2 * max(many[-3:]) and max(few[-3:]) > max(many[-3:])


@pytest.mark.parametrize("lists", [False, True])
def test_long_texts_after_the_rows_that_are_tried_make_batches_smaller(tmp_path: Path, lists: bool) -> None:
    """To learn how long texts are, 64 rows are read first: their pages tell of the long ones that follow."""
    texts = pa.array(["x"] * 64 + ["y" * 100_000] * 400)
    column = list_of([1] * len(texts), texts) if lists else texts
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    source = replace(open_source(tmp_path / "a.parquet"), memory_bytes=16 << 20)
    (unit,) = plan_units(source, 1)
    with closing(read_kept(source, [unit], ["text"])) as batches:
        nbytes = next(batches).nbytes
    assert nbytes <= 16 << 20


def test_a_row_group_may_be_far_larger_than_the_budget(tmp_path: Path) -> None:
    """It is streamed, in batches as large as ever: 16 MB of pages and 8 MB of equal values, within 4 MB."""
    numbers = np.random.default_rng(0).normal(size=2_000_000)
    zeros = pa.array(np.zeros(1_920_000, np.int32))
    table = pa.table({"seq": list_of([100] * 20_000, pa.array(numbers)), "zero": list_of([96] * 20_000, zeros)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20_000, use_dictionary=["zero"])
    source = replace(open_source(tmp_path / "a.parquet"), memory_bytes=4 << 20)
    (unit,) = plan_units(source, 1)
    batches = list(read_kept(source, [unit], ["seq", "zero"]))
    assert pa.Table.from_batches(batches).equals(table)
    assert min(batch.num_rows for batch in batches[:-1]) > 1000


# Beside others --------------------------------------------------------------------------------------------------------


def write_sequences(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[[float(number), row / 4]] * (row % 4) for row in range(20)]
    pq.write_table(pa.table({"id": range(20), "seq": pa.array(rows, STEPS)}), path, write_page_checksum=True)


def test_a_file_of_damaged_pages_fails_alone(tmp_path: Path) -> None:
    """Its unit is told with file and place; all rows of its neighbours come out."""
    for number in range(4):
        write_sequences(tmp_path / f"{number}.parquet", number)
    content = bytearray((tmp_path / "2.parquet").read_bytes())
    content[40:60] = bytes(20)
    (tmp_path / "2.parquet").write_bytes(content)
    source = open_source(tmp_path)
    read = list(
        read_chunks(source, plan_units(source, 20), ReadOptions(NestedLists("seq"), ["id"], 2), keep_going=True)
    )
    failed = [one for one in read if isinstance(one, FailedUnit)]
    assert len(failed) == 1 and failed[0].unit.file.path.endswith("2.parquet")
    assert "2.parquet, row group 0, column 'id'" in failed[0].reason and "\n" not in failed[0].reason
    good = [one for one in read if not isinstance(one, FailedUnit)]
    assert [float(chunk.sequences.row(1)[0, 0]) for chunk in good] == [0.0, 1.0, 3.0]
    assert sum(len(chunk.sequences) for chunk in good) == 60


def test_descriptions_that_are_nested_deeply_are_passed_over(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    said = dict.fromkeys(("pandas", "huggingface", "geo"), deep)
    table = pa.table({"sequence": [[[1.0]]]}).replace_schema_metadata(said)
    pq.write_table(table, tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet").rows == 1


def test_partition_values_that_look_like_paths_are_values_alone(tmp_path: Path) -> None:
    """They come out in their column as they are; no file is written outside of the destination."""
    values = ["%2e%2e%2f%2e%2e%2fetc", "..%2F..%2Fx", "%2Fetc%2Fpasswd", "a%00b", "..", "__scanrnn"]
    told = ["../../etc", "../../x", "/etc/passwd", "a\0b", "..", "__scanrnn"]
    for number, value in enumerate(values):
        write_sequences(tmp_path / "in" / f"key={value}" / "a.parquet", number)
    before = set(tmp_path.rglob("*"))
    (tmp_path / "out").mkdir()
    encoder = sources.encoder_of(in_features=2)
    sources.featurize(tmp_path / "in", tmp_path / "out" / "deep", encoder)
    new = set(tmp_path.rglob("*")) - before
    assert all(path == tmp_path / "out" or path.is_relative_to(tmp_path / "out" / "deep") for path in new)
    table = pq.read_table(str(tmp_path / "out" / "deep"))
    assert sorted(set(table["key"].to_pylist())) == sorted(told)
    assert not any(".." in path.name or "etc" in path.name for path in new)
