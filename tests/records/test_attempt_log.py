"""The log of an attempt tells where its time went: seldom, at its end, and without a write of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scanrnn_dist.records import AttemptLog, PartRecord, Took, read_commits
from scanrnn_dist.records.names import COMMITS
from scanrnn_dist.storage import open_store


def test_time_is_told_with_parts_every_ten_seconds_and_at_the_end(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    log = AttemptLog(store, {"job": "j", "share": [1, 1]})
    for unit, seconds in enumerate([0.5, 9.0, 10.5, 20.0, 21.0]):
        log.took = Took(seconds, seconds / 8, steps=unit)
        log.commit(PartRecord(unit, 3, 7, "hash"))
    log.took = Took(22.25, 1.0, 2.0, 3.0, 90, 100)
    log.end("done")
    lines = [json.loads(line) for line in (tmp_path / COMMITS / f"{store.attempt}.jsonl").read_text().splitlines()]
    told = [(line.get("unit"), line["took"]["seconds"]) for line in lines if "took" in line]
    assert told == [(2, 10.5), (4, 21.0), (None, 22.25)]
    (history,) = read_commits(store, "j", np.full(5, 3)).history
    assert history.took == Took(22.25, 1.0, 2.0, 3.0, 90, 100) and history.is_ended
    assert history.rows.tolist() == [3] * 5 and history.started > 0


@pytest.mark.parametrize("end", [True, False])
def test_an_attempt_that_did_nothing_or_died_tells_what_it_can(tmp_path: Path, end: bool) -> None:
    store = open_store(tmp_path)
    log = AttemptLog(store, {"job": "j", "share": [1, 1]})
    if end:
        log.end("done")
    else:
        log.took = Took(12.0, steps=5)
        log.commit(PartRecord(0, 3, 7, "hash"))
        log.took = Took(15.0, steps=9)
        log._log.close()  # as the end of the process does
    (history,) = read_commits(store, "j", np.array([3])).history
    assert history.took == (None if end else Took(12.0, steps=5)) and history.is_ended == end


def test_a_reason_with_bytes_that_are_no_text_is_read_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    log = AttemptLog(store, {"job": "j", "share": [1, 1]})
    log.fail(0, "\udcff is no file")
    log.end("RuntimeError: \udcff")
    assert read_commits(store, "j", np.array([3])).failures["reason"].to_pylist() == [r"\udcff is no file"]
