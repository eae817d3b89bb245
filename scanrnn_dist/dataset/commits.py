"""Which units are committed, and which ended their process: what all attempts at a job wrote down.

Every attempt has a log of its own, `__scanrnn/commits/ATTEMPT.jsonl`, JSON lines in the order of time:

    {"attempt": ..., "job": id, "started": ..., "share": [1, 1], "environment": {...}}    first
    {"begin": 17}                                                             before a unit is read; "alone": true
    {"unit": 17, "rows": ..., "size_bytes": ..., "sha256": ..., "seconds": ..., "finished": ...}
    {"end": "done"}                                                           last, unless the process was killed

Logs of another job do not count, nor does a line that a crash has cut, the last of its file. Read as columns: a million
of them take 2 s.
"""

from __future__ import annotations

import dataclasses
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from scanrnn_dist.dataset.manifest import RECORDS, unit_of_part
from scanrnn_dist.dataset.store import Store
from scanrnn_dist.errors import DataError

COMMITS = f"{RECORDS}/commits"
FATAL_DEATHS = 2
"""A unit that was begun in so many attempts that died, the last of them working on it alone, ended them."""

_RECORD = pa.schema([("unit", pa.int64()), ("rows", pa.int64()), ("size_bytes", pa.int64()), ("sha256", pa.string())])
_COMMIT = pa.schema([*_RECORD, ("finished", pa.float64())])
_LINE = pa.schema([*_COMMIT, ("begin", pa.int64()), ("alone", pa.bool_()), ("end", pa.string())])


@dataclass(frozen=True)
class PartRecord:
    """What is recorded of a part: its unit, rows, size in bytes, and the SHA-256 of the file in hexadecimal."""

    unit: int
    rows: int
    size_bytes: int
    sha256: str


class AttemptLog:
    """What this attempt writes down; safe to use from several threads.

    Args:
        store: the destination.
        header: what the first line tells beside the attempt's name and time.
    """

    def __init__(self, store: Store, header: dict[str, Any]) -> None:
        self._log = store.log(f"{COMMITS}/{store.attempt}")
        self._begun: dict[int, float] = {}
        self._lock = threading.Lock()
        self._append({"attempt": store.attempt, "started": time.time(), **header})

    @property
    def in_hand(self) -> list[int]:
        """Units that were begun and not committed."""
        with self._lock:
            return sorted(self._begun)

    def begin(self, unit: int, alone: bool) -> None:
        """Say that a unit will be read now. Survives the process, not a loss of power, which no unit causes."""
        with self._lock:
            self._begun[unit] = time.time()
        self._append({"begin": unit, "alone": True} if alone else {"begin": unit}, durable=False)

    def commit(self, record: PartRecord) -> None:
        """Say that the part of a unit stands."""
        now = time.time()
        seconds = round(now - self._begun.get(record.unit, now), 3)
        self._append({**dataclasses.asdict(record), "seconds": seconds, "finished": round(now, 3)})
        with self._lock:
            self._begun.pop(record.unit, None)

    def end(self, reason: str) -> None:
        """Say that the attempt ended by itself."""
        self._append({"end": reason})
        self._log.close()

    def _append(self, line: dict[str, Any], durable: bool = True) -> None:
        self._log.append(json.dumps(line), durable)


@dataclass(frozen=True)
class Commits:
    """What all attempts have come to.

    Args:
        records: one row per committed unit, by unit: `unit`, `rows`, `size_bytes`, `sha256`.
        units: how many units the job has.
        headers: the first line of the log of every attempt there was.
        deaths: of each unit that is not committed, how often an attempt died that had begun it.
        alone: of each, how often it was worked on alone when that happened.
        by_attempt: units and rows that each attempt committed.
    """

    records: pa.Table
    units: int
    headers: tuple[dict[str, Any], ...]
    deaths: dict[int, int]
    alone: dict[int, int]
    by_attempt: dict[str, tuple[int, int]]

    @property
    def committed(self) -> np.ndarray:
        """The numbers of the committed units, sorted."""
        numbers: np.ndarray = self.records["unit"].to_numpy()
        return numbers

    @property
    def rows(self) -> int:
        """Rows of all committed units."""
        return int(self.records["rows"].to_numpy().sum())

    @property
    def is_complete(self) -> bool:
        """Whether all units are committed."""
        return len(self.records) == self.units

    @property
    def fatal(self) -> list[int]:
        """Units that ended their process, see `FATAL_DEATHS`."""
        return sorted(u for u, deaths in self.deaths.items() if deaths >= FATAL_DEATHS and self.alone.get(u))

    def missing(self, among: np.ndarray) -> np.ndarray:
        """Those of the sorted unit numbers that are not committed."""
        return np.setdiff1d(among, self.committed, assume_unique=True)

    def that_stand(self, entries: Iterable[tuple[str, int]]) -> Commits:
        """Without the units whose part is not among the files with their sizes, or not of the size that is recorded."""
        sizes = np.full(self.units, -1)
        for name, size in entries:
            unit = unit_of_part(name, self.units)
            if unit is not None:
                sizes[unit] = size
        stand = sizes[self.committed] == self.records["size_bytes"].to_numpy()
        return self if stand.all() else dataclasses.replace(self, records=self.records.filter(pa.array(stand)))

    def to_parquet(self) -> bytes:
        """The list of parts as it is kept with a finished job; the same bytes for the same parts."""
        content = io.BytesIO()
        pq.write_table(self.records, content, compression="zstd")
        return content.getvalue()


def read_parts(content: bytes, where: str) -> pa.Table:
    """The list of parts of a finished job: `unit`, `rows`, `size_bytes`, `sha256`."""
    try:
        return pq.read_table(io.BytesIO(content)).cast(_RECORD)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{where} is damaged: {error}") from error


def read_commits(store: Store, job: str, rows: np.ndarray, alive: Collection[str] = ()) -> Commits:
    """What the attempts at a job of units of so many rows have committed.

    Args:
        store: the destination.
        job: the id of the job.
        rows: of each unit.
        alive: attempts that are at work now, whose units did not end them.

    Raises:
        DataError: a log is damaged, or speaks of other units.
    """
    read = (_read_log(store, job, attempt, names) for attempt, names in sorted(_logs_of(store).items()))
    logs = [log for log in read if log is not None]
    records = pa.concat_tables([pa.Table.from_batches([], _COMMIT), *(log.records for log in logs)])
    units = records["unit"].to_numpy()
    # By unit, then by time: the last of each unit is the one that wrote its part last.
    order = np.lexsort((records["finished"].to_numpy(), units))
    is_last = np.diff(units[order], append=-1) != 0
    records = records.select(_RECORD.names).take(order[is_last]).combine_chunks()
    committed = records["unit"].to_numpy()
    if len(committed) and not 0 <= committed[0] <= committed[-1] < len(rows):
        raise DataError(f"{store.path(COMMITS)} is damaged: unit {committed[-1]} of {len(rows)} is committed.")
    wrong = np.flatnonzero(records["rows"].to_numpy() != rows[committed])
    if len(wrong):
        unit = committed[wrong[0]]
        raise DataError(f"{store.path(COMMITS)} is damaged: unit {unit} was committed with other rows than it has.")
    deaths, alone = _deaths([log for log in logs if not log.is_ended and log.attempt not in alive], committed)
    headers = tuple(log.header for log in logs)
    by_attempt = {log.attempt: (len(log.records), pc.sum(log.records["rows"]).as_py() or 0) for log in logs}
    return Commits(records, len(rows), headers, deaths, alone, by_attempt)


def _header(store: Store, name: str, content: bytes) -> dict[str, Any] | None:
    """The first line of a log; None if it was cut."""
    line, newline, _ = content.partition(b"\n")
    try:
        header = json.loads(line) if newline else None
    except ValueError as error:
        raise DataError(f"{store.path(name)} is damaged: {error}") from error
    return header if isinstance(header, dict) else None


def _logs_of(store: Store) -> dict[str, list[str]]:
    """The files of each attempt's log, in order; in a folder one, in an object store one for every so many lines."""
    logs: dict[str, list[str]] = {}
    for name in sorted(name for name, _ in store.entries(COMMITS)):
        if name.endswith(".jsonl") and not name.startswith("."):
            parts = name.removesuffix(".jsonl").split(".")
            # host.pid.random, and maybe the number of a segment
            attempt = ".".join(parts[:-1]) if len(parts[-1]) == 6 and parts[-1].isdigit() else ".".join(parts)
            logs.setdefault(attempt, []).append(f"{COMMITS}/{name}")
    return logs


class _AttemptRead(NamedTuple):
    """What the log of an attempt says: parts, units begun and whether alone, and whether it ended by itself."""

    attempt: str
    header: dict[str, Any]
    records: pa.Table
    begun: np.ndarray
    alone: np.ndarray
    is_ended: bool


def _read_log(store: Store, job: str, attempt: str, names: Sequence[str]) -> _AttemptRead | None:
    """The log of an attempt; None if it is at another job, or died before it had said at which."""
    try:
        contents = [store.read(name) for name in names]
    except FileNotFoundError:  # removed since it was listed, as where a restart takes the place of the job
        return None
    content = contents[0] if len(contents) == 1 else b"".join(contents)
    whole = content.rfind(b"\n") + 1
    header = _header(store, names[0], content)
    if header is None or header.get("job") != job:
        return None
    parsing = pyarrow.json.ParseOptions(explicit_schema=_LINE, unexpected_field_behavior="ignore")
    try:
        lines = pa.Table.from_batches([], _LINE)
        if whole:
            buffer = pa.py_buffer(content).slice(0, whole)
            lines = (
                pyarrow.json.read_json(pa.BufferReader(buffer), parse_options=parsing).select(_LINE.names).cast(_LINE)
            )
    except (pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{store.path(names[0])} is damaged: {error}") from error
    records = lines.select(_COMMIT.names).filter(lines["unit"].is_valid())
    begins = lines.select(["begin", "alone"]).filter(lines["begin"].is_valid())
    alone = begins["alone"].fill_null(False).to_numpy()
    is_ended = lines["end"].null_count < len(lines)
    return _AttemptRead(attempt, header, records, begins["begin"].to_numpy(), alone, is_ended)


def _deaths(died: list[_AttemptRead], committed: np.ndarray) -> tuple[dict[int, int], dict[int, int]]:
    """How often each unit was in hand when an attempt died, and how often it was so alone."""
    deaths, alone = Counter[int](), Counter[int]()
    for log in died:
        in_hand = ~np.isin(log.begun, committed)
        deaths.update(set(log.begun[in_hand].tolist()))
        alone.update(set(log.begun[in_hand & log.alone].tolist()))
    return dict(deaths), dict(alone)
