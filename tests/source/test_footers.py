"""What the child says of footers: rows and bytes are covered by the tests of sources, here the values of lists."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from scanrnn_dist.source import footer_child, footers
from scanrnn_dist.source.footers import read_footers
from scanrnn_dist.source.parquet import read_tail, usual_bytes


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (MemoryError(), "stopped"),
        (pa.ArrowMemoryError("malloc of size 4096 failed"), "stopped"),
        (pa.ArrowMemoryError(f"malloc of size {1 << 62} failed"), "error"),
    ],
)
def test_memory_that_runs_out_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, key: str
) -> None:
    def without_memory(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(footer_child, "checked_footer", without_memory)
    answer = footer_child.answer_of(str(tmp_path / "a.parquet"), 12, b"")
    assert list(answer) == [key] and (key == "error" or "a.parquet: there is not enough memory" in answer[key])


def size_and_tail(path: Path) -> tuple[int, bytes]:
    """What the child is told of a file."""
    with pa.OSFile(str(path)) as file:
        return file.size(), read_tail(file, usual_bytes)


PAIRS = pa.list_(pa.float32(), 2)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([[[1, 2], [3, 4]], None, []], pa.list_(pa.list_(pa.float32()))), 4 + 1 + 1),
        (pa.array([[[1, 2], [3, 4]], [[5, 6]], []], pa.list_(PAIRS)), 4 + 2 + 1),
        (pa.array([[1, 2], [3, 4], None], PAIRS), 2 + 2 + 1),
        (pa.array([[{"x": 1, "y": [1, 2]}], [], []]), 2 + 1 + 1),  # of its leaves the one with most
        (pa.array([[("a", [1, 2])], [], []], pa.map_(pa.string(), pa.list_(pa.int8()))), 2 + 1 + 1),
        (pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2]), pa.array([[1, 2]] * 3, PAIRS)), 6),
        (pa.array(["a", "b", "c"]), None),
        (pa.array(["a", "b", "c"]).dictionary_encode(), None),
        (pa.array([{"x": 1}] * 3), None),
    ],
)  # fmt: skip
def test_values_of_lists_are_counted(tmp_path: Path, column: pa.Array, values: int | None) -> None:
    """Beside columns whose names make its leaves' paths ambiguous."""
    columns: dict[str, Any] = {"a.b": [[1]] * 3, "a": column, "b": [{"c": 1, "d": [1, 2]}] * 3, "a.list": [1, 2, 3]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (footer,) = read_footers(fs.LocalFileSystem(), [str(tmp_path / "a.parquet")])
    expected = {"a.b": [3], "b": [6]} | ({} if values is None else {"a": [values]})
    assert footer["values"] == expected


def test_the_child_ends_at_once_although_another_process_has_the_end_of_its_pipe(tmp_path: Path) -> None:
    """As a fork has that was made meanwhile."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    child = footers._Child()
    assert child.ask("a.parquet", *size_and_tail(tmp_path / "a.parquet"))["row_groups"]
    process = child._process
    assert process is not None and process.stdin is not None
    with open(os.dup(process.stdin.fileno()), "wb"):
        child.close()
        assert process.returncode == -signal.SIGKILL
