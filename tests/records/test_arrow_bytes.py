"""Records are read from memory that is Arrow's own, or else a process that read them may abort at its end."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from scanrnn_dist.api import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.records import arrow_bytes, commit_log, plan_file
from tests.sources import random_rows, write_source


@pytest.mark.parametrize("content", [b"", b"some bytes"])
def test_a_reader_holds_no_object_of_pythons(content: bytes) -> None:
    content = b"".join([content, b"!"])  # an object that nobody else has
    before = sys.getrefcount(content)
    reader = arrow_bytes.reader_of(content)
    assert sys.getrefcount(content) == before
    assert reader.read() == content and not reader.closed


def test_every_record_of_a_job_is_read_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scanrnn_dist.job import read_status

    write_source(tmp_path / "in.parquet", random_rows([2], in_features=3))
    featurize(Encoder.from_seed(0, 3, 4), tmp_path / "in.parquet", tmp_path / "out")
    read: list[bytes] = []

    def watched(content: bytes | memoryview) -> pa.BufferReader:
        read.append(bytes(content[:4]))
        return arrow_bytes.reader_of(content)

    for module in (commit_log, plan_file):
        monkeypatch.setattr(module, "reader_of", watched)
    assert read_status(tmp_path / "out").state == "complete"
    assert read.count(b"PAR1") >= 2  # the plan and the list of parts
