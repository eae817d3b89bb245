"""Files as columns: what is in is given back, and differences between listings are told in words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from scanrnn_dist.errors import DataError
from scanrnn_dist.source.file_table import UNKNOWN_TIME, FileTable, SourceFile, differences, partition_schema

LISTINGS = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 2), st.integers(0, 2)))


def files_of(listing: dict[str, tuple[int, int]]) -> FileTable:
    sizes, times = ([state[which] for state in listing.values()] for which in (0, 1))
    return FileTable(pa.array(listing.keys(), pa.large_string()), np.array(sizes, np.int64), np.array(times, np.int64))


def test_files_are_a_sequence() -> None:
    files = files_of({"b": (1, 2), "a": (3, UNKNOWN_TIME)})
    assert list(files) == [SourceFile("b", 1, 2), SourceFile("a", 3, None)] and len(files) == 2
    assert files[np.int32(1)] == files[-1] == SourceFile("a", 3, None)
    with pytest.raises(IndexError):
        files[2]


def test_partition_values_are_those_of_the_folders() -> None:
    paths = pa.array(["/in=0/p=1/q=x%20y/a=b", "/in=0/p=2/b", "/in=0/q=z/c"], pa.large_string())
    files = FileTable(paths, np.zeros(3, np.int64), np.zeros(3, np.int64), "/in=0")
    assert files[0].partitions == ()
    fields = partition_schema(fs.LocalFileSystem(), files)
    assert fields == pa.schema([("p", pa.int32()), ("q", pa.string())])
    read = FileTable(paths, files.sizes_bytes, files.modified_ns, "/in=0", fields)
    assert [dict(file.partitions) for file in read] == [
        {"p": 1, "q": "x y"}, {"p": 2, "q": None}, {"p": None, "q": "z"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("folders", "values"),
    [
        (["01234", "1234", "00501"], ["01234", "1234", "00501"]),
        (["7", "-0"], ["7", "-0"]),
        (["0x10", "16"], ["0x10", "16"]),
        (["1", "%30%31"], ["1", "01"]),
        (["1", "__HIVE_DEFAULT_PARTITION__", "02"], ["1", None, "02"]),
        (["1", "+1", "1_0", "nan"], ["1", "+1", "1_0", "nan"]),
        (["3", "-5", "0", "2147483647", "__HIVE_DEFAULT_PARTITION__", "%34"], [3, -5, 0, 2147483647, None, 4]),
        (["2147483648", "1"], ["2147483648", "1"]),
    ],
    ids=str,
)
def test_a_key_is_a_number_only_where_all_its_values_are_printed_as_they_are_spelled(
    folders: list[str], values: list[object]
) -> None:
    paths = pa.array([f"/in/zip={folder}/n={number}/a" for number, folder in enumerate(folders)], pa.large_string())
    files = FileTable(paths, np.zeros(len(folders), np.int64), np.zeros(len(folders), np.int64), "/in")
    fields = partition_schema(fs.LocalFileSystem(), files)
    assert fields.field("n").type == pa.int32()
    read = FileTable(paths, files.sizes_bytes, files.modified_ns, "/in", fields)
    assert [dict(file.partitions)["zip"] for file in read] == values
    assert fields.field("zip").type == (pa.int32() if isinstance(values[0], int) else pa.string())


def test_folders_that_are_no_partitions_are_refused() -> None:
    paths = pa.array(["/in/p=%ff/a"], pa.large_string())
    with pytest.raises(DataError, match="cannot be understood"):
        partition_schema(fs.LocalFileSystem(), FileTable(paths, np.zeros(1, np.int64), np.zeros(1, np.int64), "/in"))


@given(LISTINGS, LISTINGS)
def test_every_difference_is_told_once(before: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]]) -> None:
    told = differences(files_of(before), files_of(now), 99)
    for names, what in ((before.keys() - now.keys(), "is gone"), (now.keys() - before.keys(), "is new")):
        assert {line for line in told if line.endswith(what)} == {f"{name} {what}" for name in names}
    others = {name for name in before.keys() & now.keys() if before[name] != now[name]}
    assert {line[0] for line in told if " was " in line} == others
    for most in range(len(told)):
        assert differences(files_of(before), files_of(now), most) == [*told[:most], f"and {len(told) - most} more"]
    assert len(told) == len(set(told)) == len(before.keys() ^ now.keys()) + len(others)


def test_times_are_told_as_fine_as_they_are() -> None:
    before = files_of({"a": (123, 1795514400 * 10**9), "b": (1, 0), "c": (1, UNKNOWN_TIME)})
    now = files_of({"a": (125, 1795514400 * 10**9 + 1), "b": (1, 10**10), "c": (2, UNKNOWN_TIME)})
    assert differences(before, now, 3) == [
        "a was 123 bytes of 2026-11-24 10:00:00 UTC and is 125 bytes of 2026-11-24 10:00:00.000000001 UTC",
        "b was 1 bytes of 1970-01-01 00:00:00 UTC and is 1 bytes of 1970-01-01 00:00:10 UTC",
        "c was 1 bytes of unknown time and is 2 bytes of unknown time",
    ]
