"""Footers of many files: answers in order, whatever ends the child in between, and its end names a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from s3_server import S3Server

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.source import footers
from scanrnn_dist.source.footers import read_footers
from scanrnn_dist.source.listing import filesystem_of
from scanrnn_dist.source.source import open_source

OPENING = "        footer, _, schema, unreadable = checked_footer(tail, size)"
HARM = """        if 'abort' in path: signal.raise_signal(signal.SIGABRT)
        if 'hang' in path:
            left = signal.getitimer(signal.ITIMER_REAL)[0]
            signal.setitimer(signal.ITIMER_REAL, left / 1000)
            signal.pause()
"""


@pytest.fixture
def harmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A child that some names end, or stop: time flies there."""
    text = Path(footers.CHILD).read_text(encoding="utf-8")
    assert text.count(OPENING) == 1
    (tmp_path / "child.py").write_text(text.replace(OPENING, HARM + OPENING))
    monkeypatch.setattr(footers, "CHILD", str(tmp_path / "child.py"))
    child = footers._Child()
    monkeypatch.setattr(footers, "_child", lambda: child)
    yield
    child.close()


def content_of(rows: int, columns: int = 1) -> bytes:
    """A file."""
    content = io.BytesIO()
    pq.write_table(pa.table({f"column {number}": [0] * rows for number in range(columns)}), content)
    return content.getvalue()


SOME = {9: "gone", 10: "cut", 20: "hang"}
MANY = {0: "abort", 1: "abort", 2: "hang", 9: "gone", 10: "abort", 28: "cut", 29: "abort"}
SIGNALS = {"abort": 6, "hang": 14}


@pytest.mark.usefixtures("harmed")
@pytest.mark.parametrize("bad", [SOME, pytest.param(MANY, marks=pytest.mark.soak)])
def test_files_that_end_or_stop_the_child_are_named_and_all_others_come_whole(
    tmp_path: Path, bad: dict[int, str]
) -> None:
    """Also one that is cut off, and one that is gone."""
    paths = [str(tmp_path / f"{number:02}-{bad.get(number, 'good')}.parquet") for number in range(30)]
    for number, path in enumerate(paths):
        if bad.get(number) != "gone":
            Path(path).write_bytes(content_of(number + 1)[: -4 if bad.get(number) == "cut" else None])
    answers = list(read_footers(fs.SubTreeFileSystem("/", fs.LocalFileSystem()), paths))  # as of a bucket: many at once
    errors = {number: answer["error"] for number, answer in enumerate(answers) if "error" in answer}
    assert errors.keys() == bad.keys()
    told = {"gone": "FileNotFoundError", "cut": "it is cut off"}
    for number, kind in bad.items():
        ended = f"looking at its footer ended the process that did (exit status -{SIGNALS.get(kind)})"
        assert errors[number] == ended if kind in SIGNALS else told[kind] in errors[number]
    rows = {number: answer["row_groups"][0][0] for number, answer in enumerate(answers) if "error" not in answer}
    assert rows == {number: number + 1 for number in range(30) if number not in bad}


@pytest.fixture
def bucket(s3: S3Server) -> list[str]:
    """Files of one row, two rows, ...; of the fifth the footer is longer than the first read."""
    for number in range(9):
        s3.put("bucket", f"data/{number}.parquet", content_of(number + 1, columns=1 + 800 * (number == 4)))
    return [f"bucket/data/{number}.parquet" for number in range(9)]


def test_footers_of_a_bucket_come_in_order_from_a_server_that_fails(s3: S3Server, bucket: list[str]) -> None:
    s3.inject("delay", seconds=0.1, every=3)
    s3.inject("refuse", every=5, status=503)
    answers = list(read_footers(filesystem_of(s3.uri("bucket")), bucket))
    assert [answer["row_groups"][0][0] for answer in answers] == list(range(1, 10))
    assert len(answers[4]["schema"]) == 801


def test_a_file_that_may_not_be_read_stops_once_it_is_its_turn(s3: S3Server, bucket: list[str]) -> None:
    s3.put("bucket", "data/6.parquet", b"no Parquet")
    s3.inject("refuse", status=403, match="data/7")
    answers = read_footers(filesystem_of(s3.uri("bucket")), bucket)
    assert all("row_groups" in next(answers) for _ in range(6))
    assert "no Parquet file" in next(answers)["error"]
    with pytest.raises(StoppedError, match=r"^bucket/data/7.parquet could not be read: .*ACCESS_DENIED"):
        next(answers)
    with pytest.raises(DataError, match=r"^bucket/data/6.parquet cannot be read as Parquet"):
        open_source(s3.uri("bucket/data"))
