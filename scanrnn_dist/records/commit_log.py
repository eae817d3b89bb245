"""Which units are committed, which failed, and which end their process: what the logs of all attempts come to.

How an attempt writes its log stands in `attempt_log.py`. Logs of another job do not count, nor does a line that a crash
has cut, the last of its file. Read as columns: a million of them take 2 s.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from scanrnn_dist.errors import DataError
from scanrnn_dist.records.arrow_bytes import reader_of
from scanrnn_dist.records.attempt_log import PartRecord, Took
from scanrnn_dist.records.evidence import OUT_OF_MEMORY, attempts_out_of_memory, crash_in
from scanrnn_dist.records.history import TOOK, AttemptHistory, last_of
from scanrnn_dist.records.names import COMMITS, CRASH, unit_of_part
from scanrnn_dist.records.suspects import Death, Suspect, suspects_of
from scanrnn_dist.storage import Store

_ROWS = ("rows", "aside", "filtered")
"""What became of the rows of a unit: in its part, set aside, left out by a filter."""
_RECORD = pa.schema([(each.name, pa.int64() if each.type == "int" else pa.string()) for each in fields(PartRecord)])
_COMMIT = pa.schema([*_RECORD, ("finished", pa.float64())])
_FAILURE = pa.schema([("failed", pa.int64()), ("reason", pa.string()), ("finished", pa.float64())])
_BEGIN = pa.schema([("begin", pa.int64()), ("alone", pa.bool_()), ("chunks", pa.int64())])
_FAILED = _FAILURE.append(pa.field("attempt", pa.string()))
_LINE = pa.schema([*_COMMIT, *list(_FAILURE)[:2], *_BEGIN, ("end", pa.string()), ("took", TOOK)])
_SMALL_LOG_BYTES = 1 << 20
_RENUMBERED = re.compile(r"-[0-9a-f]{8}$")
"""Ends the name of a log that was taken over: the beginning of the id of the job that did."""


@dataclass(frozen=True)
class Commits:
    """What all attempts have come to."""

    records: pa.Table  # one row per committed unit, by unit, with the fields of `PartRecord`
    units: int  # how many units the job has
    history: tuple[AttemptHistory, ...]  # of every attempt there was, by name
    failures: pa.Table  # one row per unit that failed when it was last tried, by unit: `failed`, `reason`, `attempt`
    suspects: dict[int, Suspect]  # units that are not committed and were in hand when an attempt died

    @property
    def headers(self) -> tuple[dict[str, Any], ...]:
        """The first line of the log of every attempt there was."""
        return tuple(attempt.header for attempt in self.history)

    @cached_property
    def by_attempt(self) -> dict[str, tuple[int, int]]:
        """Units and rows that each attempt committed."""
        return {attempt.name: (len(attempt.rows), int(attempt.rows.sum())) for attempt in self.history}

    @property
    def committed(self) -> np.ndarray:
        """The numbers of the committed units, sorted."""
        numbers: np.ndarray = self.records["unit"].to_numpy()
        return numbers

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return int(self.records["rows"].to_numpy().sum())

    @property
    def aside(self) -> int:
        """Rows of all units that were set aside."""
        return int(self.records["aside"].to_numpy().sum())

    @property
    def filtered(self) -> int:
        """Rows of all units that a filter left out."""
        return int(self.records["filtered"].to_numpy().sum())

    @property
    def counts(self) -> dict[str, int]:
        """How often each choice of a policy was applied."""
        return counts_of(self.records)

    @property
    def is_complete(self) -> bool:
        """Whether all units are committed."""
        return len(self.records) == self.units

    @property
    def attempts(self) -> set[str]:
        """The names of all attempts there were."""
        return {header["attempt"] for header in self.headers}

    @property
    def fatal(self) -> list[int]:
        """Units that end their process, as `suspects.py` judges."""
        return sorted(unit for unit, suspect in self.suspects.items() if suspect.verdict)

    @property
    def failed(self) -> np.ndarray:
        """Units whose data was not what it should be when they were last tried, sorted."""
        numbers: np.ndarray = self.failures["failed"].to_numpy()
        return numbers

    def failed_by(self, attempts: Collection[str]) -> np.ndarray:
        """Those of them that one of these attempts tried last."""
        return self.failed[pc.is_in(self.failures["attempt"], pa.array(attempts, pa.string())).to_numpy()]

    def missing(self, among: np.ndarray) -> np.ndarray:
        """Those of the sorted unit numbers that are not committed."""
        return np.setdiff1d(among, self.committed, assume_unique=True)

    def to_parquet(self) -> bytes:
        """The list of parts as it is kept with a finished job; the same bytes for the same parts."""
        content = io.BytesIO()
        pq.write_table(self.records, content, compression="zstd")
        return content.getvalue()


def counts_of(records: pa.Table) -> dict[str, int]:
    """How often each choice of a policy was applied in all of these units."""
    told = Counter[str]()
    for each in pc.value_counts(records["counts"].combine_chunks()).to_pylist():  # of a million units, most are alike
        told.update({name: count * each["counts"] for name, count in json.loads(each["values"]).items()})
    return dict(sorted(told.items()))


def read_parts(content: bytes, where: str) -> pa.Table:
    """The list of parts of a finished job, one row for each `PartRecord`."""
    try:
        return pq.read_table(reader_of(content)).cast(_RECORD)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{where} is damaged: {error}") from error


def read_commits(
    store: Store, job: str, rows: np.ndarray, alive: Collection[str] = (), *, only_standing: bool = False
) -> Commits:
    """What the attempts at a job of units of so many rows have committed.

    Args:
        rows: of each unit.
        alive: attempts that are at work now, whose units did not end them.
        only_standing: whether a unit counts as committed only while its part stands, with the size that is recorded.

    Raises:
        DataError: a log is damaged, or speaks of other units.
    """
    logs, every, records, failures = _logged(store, job, rows)
    done_at = np.full(len(rows), -np.inf)
    done_at[records["unit"].to_numpy()] = records["finished"].to_numpy()
    if only_standing:  # of those that fit, since the clock of another machine may have been ahead
        records = _last_of_each(_standing(store, every, len(rows)), "unit")
    records = records.select(_RECORD.names)
    committed = records["unit"].to_numpy()
    # Done after it had failed is done; failed after it was done, since its part is gone, has failed.
    is_last = failures["finished"].to_numpy() > done_at[failures["failed"].to_numpy()]
    failures = _without(failures.filter(pa.array(is_last)), "failed", committed)
    failures = failures.drop_columns("finished").combine_chunks()
    suspects = suspects_of(_deaths(store, logs, alive, committed))
    return Commits(records, len(rows), tuple(log.history for log in logs), failures, suspects)


def records_of_parts(store: Store, job: str, rows: np.ndarray) -> pa.Table:
    """What is recorded of the parts of a job of units of so many rows, by unit, with the fields of `PartRecord`.

    Of the records of a unit the last one counts that has the size of the part that stands, where there is one: a part
    that stands is held against the record of who made it. Raises `DataError` as `read_commits`.
    """
    _, every, last, _ = _logged(store, job, rows)
    standing = _last_of_each(_standing(store, every, len(rows)), "unit")
    others = _without(last, "unit", standing["unit"].to_numpy())
    return _last_of_each(pa.concat_tables([standing, others]), "unit").select(_RECORD.names)


class _Logged(NamedTuple):
    """What the logs of all attempts say of units that the job has."""

    logs: list[_AttemptRead]
    every: pa.Table  # record there is
    last: pa.Table  # record of each unit: the one that wrote its part last
    failures: pa.Table  # the last one of each unit


def _logged(store: Store, job: str, rows: np.ndarray) -> _Logged:
    """The logs of a job of units of so many rows; `DataError` if they speak of other ones."""
    logs = [log for log in _read_logs(store, job) if log is not None]
    every = pa.concat_tables([_COMMIT.empty_table(), *(log.records for log in logs)])
    last = _last_of_each(every, "unit")
    committed = last["unit"].to_numpy()
    if len(committed) and not 0 <= committed[0] <= committed[-1] < len(rows):
        raise DataError(f"{store.path(COMMITS)} is damaged: part {committed[-1]} of {len(rows)} is recorded.")
    accounted = sum(last[name].to_numpy() for name in _ROWS)
    wrong = np.flatnonzero(accounted != rows[committed])
    if len(wrong):
        unit = committed[wrong[0]]
        raise DataError(f"{store.path(COMMITS)} is damaged: part {unit} is recorded with other rows than it has.")
    failures = _last_of_each(pa.concat_tables([_FAILED.empty_table(), *(log.failures for log in logs)]), "failed")
    if len(failures) and not 0 <= failures["failed"][0].as_py() <= failures["failed"][-1].as_py() < len(rows):
        raise DataError(f"{store.path(COMMITS)} is damaged: a part beyond the {len(rows)} that there are has failed.")
    return _Logged(logs, every, last, failures)


def _standing(store: Store, records: pa.Table, units: int) -> pa.Table:
    """The records of units whose part is there, with its size: listed after the records, which come after the parts."""
    sizes = np.full(units, -1)
    for name, size in store.entries():
        unit = unit_of_part(name, units)
        if unit is not None:
            sizes[unit] = size
    stand = sizes[records["unit"].to_numpy()] == records["size_bytes"].to_numpy()
    return records if stand.all() else records.filter(pa.array(stand)).combine_chunks()


def _last_of_each(table: pa.Table, unit: str) -> pa.Table:
    """Of the lines of each unit the one that came last, by unit."""
    units = table[unit].to_numpy()
    order = np.lexsort((table["finished"].to_numpy(), units))
    return table.take(order[np.diff(units[order], append=-1) != 0]).combine_chunks()


def _without(table: pa.Table, unit: str, units: np.ndarray) -> pa.Table:
    """The lines of other units than these."""
    return table.filter(pa.array(~np.isin(table[unit].to_numpy(), units))) if len(units) else table


def renumbered_logs(store: Store, job: str, new_job: str, numbers: Mapping[int, int]) -> Iterator[tuple[str, bytes]]:
    """The files of the logs of a job, as those of another one that takes over some of its units under other numbers.

    Who committed them, when and where is kept. Nothing else is: what an attempt began, and how it ended, says nothing
    of the units of the new job. `numbers` are those in the new job, by those in the old one. The files get names of
    their own: in a bucket an attempt that was asleep writes its log again under the name that this had.
    """
    for attempt, names in sorted(_logs_of(store).items()):
        contents = [store.read(name) for name in names]
        header = _header(store.path(names[0]), contents[0])
        if header is None or header.get("job") != job:
            continue
        new_attempt = f"{_RENUMBERED.sub('', attempt)}-{new_job[:8]}"
        for name, content in zip(names, contents, strict=True):
            lines = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
            kept = [{**line, "unit": numbers[line["unit"]]} for line in lines if line.get("unit") in numbers]
            first = [{**header, "job": new_job}] if name == names[0] else []
            took = next((line["took"] for line in reversed(lines) if "took" in line), None)
            end = {"end": "amended"} if took is None else {"end": "amended", "took": took}
            last = [end] if name == names[-1] else []
            yield (
                name.replace(attempt, new_attempt),
                "".join(f"{json.dumps(line)}\n" for line in [*first, *kept, *last]).encode(),
            )


def _header(where: str, content: bytes) -> dict[str, Any] | None:
    """The first line of a log; None if it was cut."""
    line, newline, _ = content.partition(b"\n")
    try:
        header = json.loads(line) if newline else None
    except ValueError as error:
        raise DataError(f"{where} is damaged: {error}") from error
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
    """What the log of an attempt says: parts, failed units, units begun and read, and whether it ended by itself."""

    attempt: str
    header: dict[str, Any]
    records: pa.Table
    failures: pa.Table
    begins: pa.Table
    is_ended: bool
    took: Took | None

    @property
    def history(self) -> AttemptHistory:
        """What it did, for whoever looks back."""
        rows, finished = (self.records[name].to_numpy() for name in ("rows", "finished"))
        return AttemptHistory(self.attempt, self.header, rows, finished, self.took, self.is_ended)

    def death(self, committed: np.ndarray, evidence: str) -> Death:
        """How it died, if it did; the committed units are sorted."""
        begun, alone = self.begins["begin"], self.begins["alone"]
        units = begun.drop_null().to_numpy()
        own = np.concatenate([self.records["unit"].to_numpy(), self.failures["failed"].to_numpy()])
        # Not `isin`: a million units are committed, and a thousand attempts may have died.
        is_committed = np.searchsorted(committed, units, side="right") > np.searchsorted(committed, units)
        in_hand = frozenset(units[~is_committed & ~np.isin(units, own)].tolist())
        last = len(begun) - 1 - int(begun.is_valid().to_numpy()[::-1].argmax()) if len(units) else 0
        is_alone = len(units) and alone[last].as_py() and int(units[-1]) in in_hand
        chunks = pc.max(self.begins["chunks"].slice(last)).as_py() or 0
        share = tuple(self.header["share"])
        return Death(in_hand, int(units[-1]) if is_alone else None, chunks, evidence, share)


def _read_logs(store: Store, job: str) -> Iterator[_AttemptRead | None]:
    """The logs of all attempts, each read once it is its turn, of a bucket some ahead."""
    listed = sorted(_logs_of(store).items())
    contents = store.read_each([name for _, names in listed for name in names])
    for attempt, names in listed:
        found = [content for content in islice(contents, len(names)) if content is not None]
        if len(found) == len(names):  # else removed since it was listed, as where a restart takes the place of the job
            yield _read_log(store.path(names[0]), job, attempt, found[0] if len(found) == 1 else b"".join(found))


def _read_log(where: str, job: str, attempt: str, content: bytes) -> _AttemptRead | None:
    """The log of an attempt; None if it is at another job, or died before it had said at which."""
    header = _header(where, content)
    if header is None or header.get("job") != job:
        return None
    parsing = pyarrow.json.ParseOptions(explicit_schema=_LINE, unexpected_field_behavior="ignore")
    # A few lines are read before other threads have begun: 0.15 ms, not 0.25, and 2 in a process whose cores are busy.
    reading = pyarrow.json.ReadOptions(use_threads=len(content) > _SMALL_LOG_BYTES)
    try:
        # There is a whole line at least, the header.
        whole = reader_of(memoryview(content)[: content.rfind(b"\n") + 1])
        lines = pyarrow.json.read_json(whole, reading, parsing).select(_LINE.names).cast(_LINE)
    except (pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{where} is damaged: {error}") from error
    failures = lines.select(_FAILURE.names).filter(lines["failed"].is_valid())
    # What was found after the last of its rows was written is no less wrong.
    failed = failures["failed"].to_numpy()
    records = _without(lines.select(_COMMIT.names).filter(lines["unit"].is_valid()), "unit", failed)
    failures = failures.append_column(_FAILED.field("attempt"), pa.array([attempt] * len(failures), pa.string()))
    begins = lines.select(_BEGIN.names).filter(pc.or_(lines["begin"].is_valid(), lines["chunks"].is_valid()))
    is_ended = lines["end"].null_count < len(lines)
    return _AttemptRead(attempt, header, records, failures, begins, is_ended, last_of(lines["took"]))


def _deaths(
    store: Store, logs: Sequence[_AttemptRead], alive: Collection[str], committed: np.ndarray
) -> Iterator[Death]:
    """How attempts died, in the order in which they began."""
    logs = sorted(logs, key=lambda log: log.header["started"])
    crashes = {name.removesuffix(CRASH) for name, size in store.entries(COMMITS) if name.endswith(CRASH) and size}
    out_of_memory = attempts_out_of_memory([log.header for log in logs])
    for log in logs:
        if log.is_ended or log.attempt in alive:
            continue
        evidence = OUT_OF_MEMORY if log.attempt in out_of_memory else ""
        if log.attempt in crashes:
            evidence = crash_in(store.read(f"{COMMITS}/{log.attempt}{CRASH}"))
        yield log.death(committed, evidence)
