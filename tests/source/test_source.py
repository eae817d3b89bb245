"""Sources: which files in which order, what their footers may claim, and how units cover them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.source import footers
from scanrnn_dist.source import source as source_module
from scanrnn_dist.source.file_table import FileTable
from scanrnn_dist.source.schemas import plain
from scanrnn_dist.source.source import RowGroups, Source, open_source, plan_units


def write(path: Path, rows: int = 3, row_group_size: int = 2, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns or {"seq": pa.array([[1.0]] * rows), "id": list(range(rows))})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def names(source: Source, root: Path) -> list[str]:
    return [str(Path(file.path).relative_to(root)) for file in source.files]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", "sub/c.parquet", "sub/_old/d.parquet", ".x/e.parquet"):
        write(tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "sub/.d.crc").touch()
    return tmp_path


def test_folder_glob_and_uri_are_sorted_and_skip_hidden_names(folder: Path) -> None:
    expected = ["a.parquet", "b.parquet", "sub/c.parquet"]
    assert names(open_source(folder), folder) == expected
    assert names(open_source(f"{folder}/"), folder) == expected
    assert names(open_source(folder.as_uri()), folder) == expected
    assert names(open_source(f"{folder}/**/*.parquet"), folder) == expected
    assert names(open_source(f"{folder}/*.parquet"), folder) == expected[:2]
    assert names(open_source(f"{folder}/*/_old/*.parquet"), folder) == ["sub/_old/d.parquet"]
    assert names(open_source(folder / "sub/_old"), folder) == ["sub/_old/d.parquet"]


def test_a_list_keeps_its_order_and_a_file_is_itself(folder: Path) -> None:
    given_names = ["sub/c.parquet", "a.parquet"]
    source = open_source([folder / name for name in given_names])
    assert names(source, folder) == given_names
    one = open_source(str(folder / "a.parquet"))
    stat = (folder / "a.parquet").stat()
    assert (one.files[0].size_bytes, one.files[0].modified_ns) == (stat.st_size, stat.st_mtime_ns)
    assert source.rows == 6 and source.schema.names == ["seq", "id"]


def test_row_groups_are_what_the_footers_say(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", seq=[[1.0, 2.0], [], [3.0], None, [4.0]], id=range(5))
    write(tmp_path / "b.parquet", seq=pa.array([], pa.list_(pa.float64())), id=pa.array([], pa.int64()))
    write(tmp_path / "c.parquet", seq=[[1.0, 2.0]], id=[0])
    source = open_source(tmp_path)
    assert source.row_groups is not None
    assert source.row_groups.offsets.tolist() == [0, 3, 4, 5] and source.rows == 6
    assert source.row_groups.rows.tolist() == [2, 2, 1, 0, 1]
    metadata = [pq.read_metadata(path) for path in sorted(tmp_path.iterdir())]
    sizes = [of.row_group(index).total_byte_size for of in metadata for index in range(of.num_row_groups)]
    assert source.row_groups.nbytes.tolist() == sizes
    assert {name: values.tolist() for name, values in source.row_groups.values.items()} == {"seq": [3, 2, 1, 0, 2]}


def test_a_name_with_glob_characters_that_exists_is_a_name(tmp_path: Path) -> None:
    write(tmp_path / "a[1]/x y.parquet")
    assert names(open_source(tmp_path / "a[1]"), tmp_path) == ["a[1]/x y.parquet"]


def test_partition_values_are_those_of_pyarrow(tmp_path: Path) -> None:
    write(tmp_path / "p=1/q=x%20y/a.parquet")
    write(tmp_path / "p=2/q=__HIVE_DEFAULT_PARTITION__/a.parquet")
    source = open_source(tmp_path)
    oracle = pq.read_table(tmp_path).select(["p", "q"])  # rows of files in the same order
    assert source.schema.field("p").type == pa.int32() and source.schema.names == ["seq", "id", "p", "q"]
    got = [dict(unit.file.partitions) for unit in plan_units(source, 100) for _ in range(unit.rows)]
    assert [{key: str(value) for key, value in row.items()} for row in got] == [
        {key: str(value) for key, value in row.items()} for row in oracle.to_pylist()
    ]
    assert open_source(f"{tmp_path}/p=*/**/*.parquet").schema == source.schema
    assert open_source([tmp_path / "p=1/q=x%20y/a.parquet"]).schema.names == ["seq", "id"]


def test_folders_of_which_none_has_a_value_are_a_column_of_nulls(tmp_path: Path) -> None:
    write(tmp_path / "p=1/q=__HIVE_DEFAULT_PARTITION__/a.parquet")
    write(tmp_path / "p=__HIVE_DEFAULT_PARTITION__/q=__HIVE_DEFAULT_PARTITION__/a.parquet")
    source = open_source(tmp_path)
    assert source.schema.names == ["seq", "id", "p", "q"]
    assert [source.schema.field(name).type for name in "pq"] == [pa.int32(), pa.string()]
    (_, first), (_, second) = [list(zip(*unit.file.partitions, strict=True)) for unit in plan_units(source, 100)]
    assert (first, second) == ((1, None), (None, None))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("nope", "Nothing found at"),
        ("nope/*.parquet", "No files match the glob"),
        ("empty", "No files below the folder"),
        ("s*", "No files match the glob"),
    ],
)
def test_nothing_found_says_what_was_looked_at(folder: Path, bad: str, says: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=re.escape(f"{says} '{folder / bad}'")):
        open_source(folder / bad)


def test_lists_are_checked(folder: Path) -> None:
    file = str(folder / "a.parquet")
    with pytest.raises(ConfigError, match="named twice"):
        open_source([file, str(folder / "sub/../a.parquet")])
    with pytest.raises(ConfigError, match="is a folder"):
        open_source([file, str(folder / "sub")])
    with pytest.raises(ConfigError, match="is not there"):
        open_source([file, str(folder / "nope")])
    with pytest.raises(ConfigError, match="different filesystems"):
        open_source([file, "mock:///x.parquet"])
    with pytest.raises(ConfigError, match="empty"):
        open_source([])
    with pytest.raises(ConfigError, match="URI that pyarrow understands"):
        open_source("nonsense://x")


def test_columns_are_those_of_all_files_in_the_order_of_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", x=[1], y=["s"])
    write(tmp_path / "b.parquet", y=["s"], x=[1])
    assert open_source(tmp_path).drift == () and open_source(tmp_path).schema.names == ["x", "y"]
    write(tmp_path / "c.parquet", z=["s"], x=[2])
    assert open_source(tmp_path).schema.names == ["x", "y", "z"]
    write(tmp_path / "d.parquet", x=["s"])
    with pytest.raises(DataError, match=r"d\.parquet has 'x' as string, and .*/a\.parquet as int64: .*without loss"):
        open_source(tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, ["x", "y", "x"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has several columns named 'x'; expected every name once"):
        open_source(tmp_path)


def test_a_schema_is_asked_for_its_names_once() -> None:
    """It makes them anew each time, which for each of some thousand columns took a second a file."""
    asked: list[bool] = []

    class Schema:
        metadata = None

        @property
        def names(self) -> list[str]:
            asked.append(True)
            return ["x", "y", "z"]

        def __iter__(self) -> Iterator[pa.Field]:
            return (pa.field(name, pa.int8()) for name in "xyz")

    plain(Schema(), "a.parquet")  # type: ignore[arg-type]
    assert len(asked) == 1


def test_a_partition_key_that_is_also_a_column_is_read_from_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As polars writes them, and DuckDB if it is asked to."""
    for key in (1, 2):
        write(tmp_path / f"id={key}/day=3/a.parquet")
    source = open_source(tmp_path)
    assert source.schema.names.count("id") == 1 and source.files[0].partitions == (("day", 3),)
    assert "'id': these are read from the files" in caplog.text
    rows = pq.read_table(tmp_path / "id=1/day=3/a.parquet", partitioning=None)
    pq.write_table(rows.drop_columns("id"), tmp_path / "id=2/day=3/a.parquet")
    with pytest.raises(DataError, match="have a column 'id', others lack it; expected it in all"):
        open_source(tmp_path)


def test_a_corrupt_file_is_named(folder: Path) -> None:
    whole = (folder / "b.parquet").read_bytes()
    for content in (b"", b"no parquet", whole[:-20], whole[: len(whole) // 2]):
        (folder / "b.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"b\.parquet cannot be read as Parquet"):
            open_source(folder)


def test_a_footer_that_kills_the_process_costs_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that aborts at one path: the others are read all the same."""
    script = folder / "child.py"
    text = Path(footers.CHILD).read_text(encoding="utf-8")
    assert text.count(OPENING) == 1
    script.write_text(text.replace(OPENING, ABORT + OPENING))
    monkeypatch.setattr(footers, "CHILD", str(script))
    child = footers._Child()
    monkeypatch.setattr(footers, "_child", lambda: child)
    paths = [str(folder / name) for name in ("a.parquet", "b.parquet", "sub/c.parquet")]
    answers = list(footers.read_footers(fs.LocalFileSystem(), paths))
    assert "ended the process" in answers[1]["error"] and "-6" in answers[1]["error"]
    assert [answer.get("row_groups", ())[0][0] for answer in (answers[0], answers[2])] == [2, 2]
    with pytest.raises(DataError, match=r"b\.parquet .*ended the process"):
        open_source(folder / "b.parquet")
    child.close()


def test_the_child_stays_for_the_next_source_and_is_replaced_once_it_ended(folder: Path) -> None:
    open_source(folder)
    first = footers._child()._process
    open_source(folder)
    assert first is not None and footers._child()._process is first
    first.kill()
    first.wait()
    assert open_source(folder).rows > 0
    assert footers._child()._process is not first


class Cancelled(BaseException):
    """What a caller raises into code that waits."""


def test_a_wait_for_a_footer_that_is_interrupted_leaves_no_answer_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = footers._Child._asked

    def interrupted(self: Any, message: Any) -> Any:
        monkeypatch.setattr(footers._Child, "_asked", asked)
        self._process = self._process or footers._start()
        footers._send(self._process, message)
        raise Cancelled

    monkeypatch.setattr(footers._Child, "_asked", interrupted)
    with pytest.raises(Cancelled):
        open_source(write(folder / "long.parquet", rows=9))
    assert [len(open_source(folder / name).row_groups.rows) for name in ("a.parquet", "long.parquet", "b.parquet")] == [
        2,
        5,
        2,
    ]


def test_what_is_no_text_among_the_places_of_modules_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, folder])
    child = footers._Child()
    monkeypatch.setattr(footers, "_child", lambda: child)
    assert open_source(folder / "a.parquet").rows > 0
    child.close()


FORKING = """
import multiprocessing, sys
from scanrnn_dist.source import open_source
from scanrnn_dist.source.footers import _child

def read_by_another(pid):
    assert open_source(sys.argv[1]).rows > 0
    assert _child()._process.pid != pid

open_source(sys.argv[1])
ours = _child()._process
fork = multiprocessing.get_context("fork").Process(target=read_by_another, args=(ours.pid,))
fork.start()
fork.join()
assert fork.exitcode == 0 and _child()._process is ours and ours.poll() is None
"""


def test_a_fork_begins_a_child_of_its_own(folder: Path) -> None:
    told = subprocess.run([sys.executable, "-c", FORKING, folder], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr


OPENING = "        footer, _, schema, unreadable = checked_footer(tail, size)"
ABORT = "        if path.endswith('b.parquet'): signal.raise_signal(signal.SIGABRT)\n"


def described(row_groups: list[list[int]], values: list[int] | None = None) -> Source:
    """A source of which only the footers are known; the bytes of a row group are ten times its rows."""
    names = pa.array([f"{number}" for number in range(len(row_groups))], pa.string())
    files = FileTable(names, *np.zeros((2, len(row_groups)), np.int64))
    rows = np.array([rows for groups in row_groups for rows in groups], np.int64)
    offsets = np.cumsum([0, *map(len, row_groups)])
    lists = {} if values is None else {"seq": np.array(values, np.int64)}
    groups = RowGroups(offsets, rows, 10 * rows, lists)
    return Source(fs.LocalFileSystem(), files, pa.schema([]), int(rows.sum()), groups)


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=4),
    st.integers(1, 12),
    st.sampled_from([30, 80, 1000]),
    st.booleans(),
)
def test_units_cover_every_row_once_in_order(
    row_groups: list[list[int]], rows_per_part: int, most: int, is_said: bool
) -> None:
    source = described(row_groups)
    with patch.multiple(source_module, ROWS_PER_PART=rows_per_part, BYTES_PER_PART=most):
        units = plan_units(source, rows_per_part if is_said else None)
    most = 10**9 if is_said else most
    assert [unit.index for unit in units] == list(range(len(units)))
    if not sum(map(sum, row_groups)):  # one unit without rows, for the part that carries the schema
        (unit,) = units
        assert (unit.file, unit.group_rows, unit.rows, unit.values) == (source.files[0], (), 0, 0)
        return
    for number, groups in enumerate(row_groups):
        own = [unit for unit in units if unit.file == source.files[number]]
        at = group = 0
        for unit in own:
            assert (unit.first_row, unit.row_group_begin) == (at, group) and unit.rows > 0
            assert unit.group_rows == tuple(groups[unit.row_group_begin : unit.row_group_end])
            assert (unit.nbytes, unit.values) == (10 * unit.rows, unit.rows)
            at, group = at + unit.rows, unit.row_group_end
        assert at == sum(groups) and group == (len(groups) if at else 0)
        assert all(unit.rows >= rows_per_part or unit.nbytes >= most for unit in own[:-1])
        before_last = [unit.rows - unit.group_rows[-1] for unit in own if unit.group_rows[-1]]
        assert all(rows < rows_per_part and 10 * rows < most for rows in before_last)
    with pytest.raises(ConfigError):
        plan_units(source, 0)


def test_units_are_weighed_by_the_values_of_their_lists() -> None:
    source = described([[1, 1, 0], [0], [3, 2]], values=[70, 1, 0, 0, 30, 5])
    assert plan_units(source, 2, ["seq"]).values.tolist() == [71, 30, 5]
    assert plan_units(source, 2, ["id"]).values.tolist() == plan_units(source, 2).values.tolist() == [2, 3, 2]


def test_reading_never_imports_jax() -> None:
    code = "import sys, scanrnn_dist.records, scanrnn_dist.source; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
