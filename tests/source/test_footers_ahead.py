"""Footers that are asked for ahead: answers in order, whatever ends the child in between, and its end names a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3_server import S3Server

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.source import footers
from scanrnn_dist.source.footers import read_footers
from scanrnn_dist.source.source import open_source

URI = "s3://bucket"
RESOLVED = 'resolve(told["uri"])[0]'
OPENING = "        file = CheckedFile(filesystem, path, columns=(), ahead=ahead)"
HARM = """        if 'abort' in path: os.abort()
        if 'hang' in path:
            left = signal.getitimer(signal.ITIMER_REAL)[0] or os.abort()
            signal.setitimer(signal.ITIMER_REAL, left / 1000)
            threading.Event().wait()
"""


@pytest.fixture
def on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that takes this machine's files for a bucket's, and that some names end, or stop: time flies there."""
    text = Path(footers.CHILD).read_text(encoding="utf-8")
    assert text.count(RESOLVED) == text.count(OPENING) == 1
    script = tmp_path / "child.py"
    script.write_text(text.replace(RESOLVED, "fs.LocalFileSystem()").replace(OPENING, HARM + OPENING))
    monkeypatch.setattr(footers, "CHILD", str(script))


def content_of(rows: int, columns: int = 1) -> bytes:
    """A file."""
    content = io.BytesIO()
    pq.write_table(pa.table({f"column {number}": [0] * rows for number in range(columns)}), content)
    return content.getvalue()


SOME = {9: "gone", 10: "cut", 20: "hang"}
MANY = {0: "abort", 1: "abort", 2: "hang", 9: "gone", 10: "abort", 28: "cut", 29: "abort"}
SIGNALS = {"abort": 6, "hang": 14}


@pytest.mark.usefixtures("on_this_machine")
@pytest.mark.parametrize(
    ("bad", "ahead"), [(SOME, 8), *(pytest.param(MANY, ahead, marks=pytest.mark.soak) for ahead in (1, 8, 100))]
)
def test_files_that_end_or_stop_the_child_are_named_and_all_others_come_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: dict[int, str], ahead: int
) -> None:
    """Also one that is cut off, and one that is gone."""
    monkeypatch.setattr(footers, "AHEAD", ahead)
    paths = [str(tmp_path / f"{number:02}-{bad.get(number, 'good')}.parquet") for number in range(30)]
    for number, path in enumerate(paths):
        if bad.get(number) != "gone":
            Path(path).write_bytes(content_of(number + 1)[: -4 if bad.get(number) == "cut" else None])
    answers = list(read_footers(paths, uri=URI))
    errors = {number: answer["error"] for number, answer in enumerate(answers) if "error" in answer}
    assert errors.keys() == bad.keys()
    told = {"gone": "FileNotFoundError", "cut": "it is cut off"}
    for number, kind in bad.items():
        ended = f"looking at its footer ended the process that did (exit status -{SIGNALS.get(kind)})"
        assert errors[number] == ended if kind in SIGNALS else told[kind] in errors[number]
    rows = {number: answer["row_groups"][0][0] for number, answer in enumerate(answers) if "error" not in answer}
    assert rows == {number: number + 1 for number in range(30) if number not in bad}


@pytest.mark.usefixtures("on_this_machine")
def test_long_names_and_long_answers_meet_no_full_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both pipes hold 64 KiB: here 300 KB of requests are under way, and as many answers of 60 KB."""
    monkeypatch.setattr(footers, "AHEAD", 100)
    (tmp_path / "a.parquet").write_bytes(content_of(1, columns=400))
    paths = [f"{tmp_path}/{'./' * 1500}a.parquet"] * 110
    answers = read_footers(paths, uri=URI)
    assert len(next(answers)["schema"]) == 400
    assert all(len(answer["schema"]) == 400 for answer in [next(answers) for _ in range(9)])
    answers.close()  # type: ignore[attr-defined] # who wants no more need not take the others


class Simulated:
    """A child by the rules of `_Child`: it looks at its requests in order, some at once and others late, and may die.

    `fatal` are paths that end it; `eager` says of each request whether it is looked at before the next one is made, and
    `tired` whether it ends then for no reason.
    """

    def __init__(self, fatal: set[str], eager: Callable[[], bool], tired: Callable[[], bool]) -> None:
        self._fatal, self._eager, self._tired = fatal, eager, tired
        self._requests: list[str] = []
        self._answers: list[str] = []
        self._is_there = self._is_dead = False
        self.under_way = self.most = 0

    def send(self, path: str) -> None:
        self._is_there = True
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if not self._is_dead:
            self._requests.append(path)
            self._is_dead = self._tired()
            if self._eager():
                self._look()

    def receive(self) -> dict[str, Any] | None:
        assert self._is_there
        self._look()
        if self._answers:
            self.under_way -= 1
            return {"of": self._answers.pop(0)}
        assert self._is_dead, "nobody would ever answer"
        self._requests, self._is_there, self._is_dead, self.under_way = [], False, False, 0
        return None

    def ask(self, path: str) -> dict[str, Any]:
        assert not self._is_there and not self.under_way, "alone"
        self._is_there = path not in self._fatal
        return {"of": path} if self._is_there else {"error": path}

    def _look(self) -> None:
        while self._requests and not self._is_dead:
            path = self._requests.pop(0)
            self._is_dead = path in self._fatal
            self._answers += [] if self._is_dead else [path]


@given(st.integers(0, 25), st.integers(1, 30), st.sets(st.integers(0, 24)), st.data())
def test_each_path_has_its_answer_whatever_the_window(
    count: int, ahead: int, fatal: set[int], data: st.DataObject
) -> None:
    paths, bad = [str(number) for number in range(count)], {str(number) for number in fatal}
    child = Simulated(bad, lambda: data.draw(st.booleans()), lambda: data.draw(st.integers(0, 9)) == 0)
    answers = list(footers._asked_ahead(child, iter(paths), ahead))
    assert answers == [{"error" if path in bad else "of": path} for path in paths]
    assert child.most <= ahead


def test_a_window_is_asked_for_before_the_first_answer_is_taken() -> None:
    child = Simulated(set(), lambda: False, lambda: False)
    next(footers._asked_ahead(child, map(str, range(100)), 7))
    assert child.most == 7


@pytest.fixture
def bucket(s3: S3Server) -> list[str]:
    """Files of one row, two rows, ...; of the fifth the footer is longer than the first read."""
    for number in range(9):
        s3.put("bucket", f"data/{number}.parquet", content_of(number + 1, columns=1 + 800 * (number == 4)))
    return [f"bucket/data/{number}.parquet" for number in range(9)]


def test_footers_of_a_bucket_come_in_order_from_a_server_that_fails(s3: S3Server, bucket: list[str]) -> None:
    s3.inject("delay", seconds=0.1, every=3)
    s3.inject("refuse", every=5, status=503)
    answers = list(read_footers(bucket, uri=s3.uri("bucket")))
    assert [answer["row_groups"][0][0] for answer in answers] == list(range(1, 10))
    assert len(answers[4]["schema"]) == 801


def test_a_file_that_may_not_be_read_stops_once_it_is_its_turn(s3: S3Server, bucket: list[str]) -> None:
    s3.put("bucket", "data/6.parquet", b"no Parquet")
    s3.inject("refuse", status=403, match="data/7")
    answers = read_footers(bucket, uri=s3.uri("bucket"))
    assert all("row_groups" in next(answers) for _ in range(6))
    assert "no Parquet file" in next(answers)["error"]
    with pytest.raises(StoppedError, match=r"^bucket/data/7.parquet could not be read: .*ACCESS_DENIED"):
        next(answers)
    with pytest.raises(DataError, match=r"^bucket/data/6.parquet cannot be read as Parquet"):
        open_source(s3.uri("bucket/data"))
