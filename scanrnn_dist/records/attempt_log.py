"""What an attempt writes down about its units as it works on them. What all of them come to is `commit_log.py`'s.

Every attempt has a log of its own, `__scanrnn/commits/ATTEMPT.jsonl`, JSON lines in the order of time:

    {"attempt": ..., "job": id, "started": ..., "share": [1, 1], "environment": {...}}    first
    {"begin": 17}                                                             before a unit is read; "alone": true
    {"chunks": 3}                                           of the unit that is worked on alone, so many were read
    {"unit": 17, "rows": ..., "aside": ..., "filtered": ..., "size_bytes": ..., "sha256": ..., "counts": "{...}",
     "aside_sha256": "", "finished": ...}
    {"failed": 17, "reason": ..., "finished": ...}                            its data is not what it should be
    {"end": "done"}                                                           last, unless the process was killed

A line of a part and the last one may hold `"took": {...}`, where the time of the attempt went so far: at most every ten
seconds, so that a log of many small parts stays short.

A process that crashed may have left a trace beside it, `ATTEMPT.crash`.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from dataclasses import dataclass
from typing import Any

from scanrnn_dist.errors import one_line
from scanrnn_dist.protocols import added
from scanrnn_dist.records.names import COMMITS
from scanrnn_dist.storage import Store

TOOK_SECONDS = 10.0
"""Of work, between two lines that tell where the time went."""
REASON_CHARACTERS = 1000
"""Of the reason of a failed unit, which is a line of a message, the first so many are kept."""


@dataclass(frozen=True)
class PartRecord:
    """What is recorded of a part.

    Args:
        unit: whose it is.
        rows: of the file.
        size_bytes: of the file.
        sha256: of the file, in hexadecimal.
        aside: rows of the unit that were set aside; with `rows` and `filtered` they are all of its rows.
        filtered: rows of the unit that a filter left out.
        counts: how often each choice of a policy was applied, as JSON: of columns that change, a line has one.
        aside_sha256: of the file of the rows that were set aside; empty if none were.
    """

    unit: int
    rows: int
    size_bytes: int
    sha256: str
    aside: int = 0
    filtered: int = 0
    counts: str = "{}"
    aside_sha256: str = ""


@dataclass(frozen=True)
class Took:
    """Where the time of an attempt went, as the thread saw it that feeds the devices; and how full they were.

    Args:
        seconds: in which units were put through.
        read_wait_seconds: of these, waiting for rows to be read.
        device_wait_seconds: of these, waiting for the devices, which compute.
        write_wait_seconds: of these, waiting for the writer.
        steps: that were computed, of work that came to its end.
        positions: of all lanes, which could have held a step, of the same work.
    """

    seconds: float = 0.0
    read_wait_seconds: float = 0.0
    device_wait_seconds: float = 0.0
    write_wait_seconds: float = 0.0
    steps: int = 0
    positions: int = 0

    def __add__(self, other: Took) -> Took:
        """Of both, one after the other or side by side."""
        return added(self, other)


class AttemptLog:
    """What this attempt writes down, first its name, the time and a header; safe to use from several threads.

    `took` is set by whoever works: it goes out with the lines of parts, and costs no write of its own.
    """

    def __init__(self, store: Store, header: dict[str, Any]) -> None:
        self._log = store.log(f"{COMMITS}/{store.attempt}")
        self._begun: set[int] = set()
        self._chunks = 0
        self.took, self._told = Took(), Took()
        self._lock = threading.Lock()
        self._append({"attempt": store.attempt, "started": time.time(), **header})

    @property
    def in_hand(self) -> list[int]:
        """Units that were begun, and neither committed nor failed."""
        with self._lock:
            return sorted(self._begun)

    def begin(self, unit: int, alone: bool) -> None:
        """Say that a unit will be read now. Survives the process, not a loss of power, which no unit causes."""
        with self._lock:
            self._begun.add(unit)
            self._chunks = 0
        self._append({"begin": unit, "alone": True} if alone else {"begin": unit}, durable=False)

    def read_chunk(self) -> None:
        """Say that one more chunk of the unit that is worked on alone was read."""
        self._chunks += 1
        self._append({"chunks": self._chunks}, durable=False)

    def commit(self, record: PartRecord) -> None:
        """Say that the part of a unit stands."""
        took = self.took
        is_due = took.seconds - self._told.seconds >= TOOK_SECONDS
        line = {**dataclasses.asdict(record), "finished": round(time.time(), 3)}
        self._append({**line, **(self._take(took) if is_due else {})})
        self._drop(record.unit)

    def fail(self, unit: int, reason: str) -> None:
        """Say that the data of a unit is not what it should be. What a loss of power takes of it is found again."""
        line = {"failed": unit, "reason": one_line(reason)[:REASON_CHARACTERS], "finished": round(time.time(), 3)}
        self._append(line, durable=False)
        self._drop(unit)

    def end(self, reason: str) -> None:
        """Say that the attempt ended by itself; with no unit in hand that need not survive a loss of power."""
        self._append({"end": one_line(reason), **self._take(self.took)}, durable=bool(self.in_hand))
        self._log.close()

    def _take(self, took: Took) -> dict[str, Any]:
        """What a line has besides, where it tells of the time; nothing if nothing was worked on."""
        self._told = took
        told = {name: round(value, 3) for name, value in dataclasses.asdict(took).items()}
        return {"took": told} if took.seconds else {}

    def _drop(self, unit: int) -> None:
        with self._lock:
            self._begun.discard(unit)

    def _append(self, line: dict[str, Any], durable: bool = True) -> None:
        self._log.append(json.dumps(line), durable)
