"""How far a job is, read from its records: while it runs, from anywhere that sees the destination, touching nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np

from scanrnn_dist.errors import ConfigError, DataError, StoppedError, counted
from scanrnn_dist.job.amend import ACCEPTED
from scanrnn_dist.job.attempt import last_bound
from scanrnn_dist.job.continued import WAY_BACK
from scanrnn_dist.job.damage import damaged_parts
from scanrnn_dist.job.in_words import job_in_words, way_to_continue
from scanrnn_dist.job.restart import is_ready, records_to_read, restart_of
from scanrnn_dist.observe import as_text, seconds_left
from scanrnn_dist.records import (
    PARTS,
    QUARANTINE,
    REPLACING,
    UNITS,
    Commits,
    JobRecords,
    Share,
    Worker,
    read_commits,
    read_weights,
    read_workers,
)
from scanrnn_dist.source import told_counts

BEING_REPLACED = "being replaced"
FAILED_SHOWN = 5
"""Failed units that are printed for people."""


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Args:
        destination: of the job.
        state: "complete"; "damaged": it was, and parts are missing or changed since; "running"; "stopped": begun, not
            complete, and nobody is heard of; or "being replaced": a new output that is ready takes its place, or that
            was cut short, and numbers are partly of the one and partly of the other.
        units: of the job.
        units_committed: of these.
        rows: of the job.
        rows_committed: of these.
        share_done: of the work, weighed in steps, from 0 to 1.
        rows_per_second: of all that are at work, of late; 0 if nobody is.
        seconds_left: at that rate, rows in hand taken as done; None if nobody is at work, or if the rate is not known
            yet or next to nothing.
        workers: the present owner of every share that ever had one.
        attempts: processes that have worked on it.
        environments: how many different ones they had; more than 1 only where --allow-mixed was given.
        failed_units: units whose data was not what it should be when they were last tried, each with the reason.
        fatal_units: units that are held to end their process.
        restart: of the job that is to take this one's place, if one was begun.
        parts_damaged: of a job that was complete, how many parts are missing or of another size than recorded.
        accepted: which changes of its source were accepted, in words.
        set_aside: rows of the committed units that were set aside.
        counts: how often each choice for rows that are not what they should be was applied in these units.
        job: what the job is, in words: its source, sequences, encoder, options, what it was made with, when it began.
        filtered: rows of the committed units that the filter left out.
        continues: of a job that was stopped, what goes on with it.
    """

    destination: str
    state: str
    units: int
    units_committed: int
    rows: int
    rows_committed: int
    share_done: float
    rows_per_second: float
    seconds_left: float | None
    workers: tuple[Worker, ...]
    attempts: int
    environments: int
    failed_units: dict[int, str]
    fatal_units: tuple[int, ...]
    restart: Status | None
    parts_damaged: int = 0
    accepted: tuple[str, ...] = ()
    set_aside: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    job: Mapping[str, str] = field(default_factory=dict)
    filtered: int = 0
    continues: str = ""

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def to_json(self) -> dict[str, object]:
        """The same for machines; of each worker also whether it is alive."""
        workers = [{**asdict(worker), "is_alive": worker.is_alive} for worker in self.workers]
        return {**asdict(self), "workers": workers, "restart": self.restart and self.restart.to_json()}

    def _not_begun(self) -> list[Share]:
        """The shares that never had an owner, where all that had one are of the same division."""
        seen = {worker.share for worker in self.workers}
        counts = {count for _, count in seen}
        return [(k, n) for n in counts for k in range(1, n + 1) if (k, n) not in seen] if len(counts) == 1 else []

    def _damage(self) -> str:
        """What is damaged, and what to do about it."""
        if self.state != "damaged":
            return ""
        told = f"{self.parts_damaged:,} of {self.units:,} parts are missing or changed"
        way_out = WAY_BACK if "updated" in self.job else "the same command makes them again"
        return f": {told if self.parts_damaged else 'the list of parts changed'}; {way_out}"

    def _lines(self) -> Iterator[str]:
        yield f"{self.destination}: {self.state}{self._damage()}"
        if self.state == BEING_REPLACED:
            yield "           by a new output that is ready; if that was cut short, `scanrnn clean` or resume ends it"
            return
        yield from (f"{name:<10} {text}" for name, text in self.job.items())
        yield (
            f"parts      {self.units_committed:,} of {self.units:,} written, {self.share_done:.1%} of the steps, in "
            f"{counted(self.attempts, 'attempt')}"
        )
        yield f"rows       {self.rows_committed:,} of {self.rows:,}"
        if self.set_aside:
            yield f"aside      {self.set_aside:,} of these rows were set aside, in {self.destination}/{QUARANTINE}"
        if self.filtered:
            yield f"filtered   {self.filtered:,} of these rows were left out by --filter"
        if told := told_counts(self.counts):
            yield f"choices    {told}" + (", in the last update" if "updated" in self.job else "")
        if self.seconds_left is not None:
            end = datetime.now() + timedelta(seconds=self.seconds_left)
            left = timedelta(seconds=round(self.seconds_left))
            yield f"rate       {self.rows_per_second:,.0f} rows/s; {left} left, until {end:%Y-%m-%d %H:%M}"
        for worker in self.workers:
            yield f"share      {worker.share[0]}/{worker.share[1]}: {_doing(worker)}"
        if self.state != "complete":
            yield from (f"share      {index}/{count}: nobody has begun it" for index, count in self._not_begun()[:8])
        if self.environments > 1:
            yield f"mixed      computed in {self.environments} environments, which may have given other bits"
        if self.failed_units:
            count = len(self.failed_units)
            yield f"failed     {counted(count, 'part')}, which the same command tries again:"
            yield from (f"    part {unit}: {why}" for unit, why in islice(self.failed_units.items(), FAILED_SHOWN))
            if count > FAILED_SHOWN:
                yield f"    and {count - FAILED_SHOWN:,} more; --json gives all"
        if self.fatal_units:
            yield f"fatal      parts {list(self.fatal_units[:8])} end the process that computes them; see --retry"
        for change in self.accepted[:8]:
            yield f"source     a change was accepted: {change}"
        if self.continues:
            yield f"continue   {self.continues}"
        if self.restart is not None:
            what = "update" if "updated" in self.restart.job else "restart"
            yield f"{what:<10} a new output is made; it will take the place of this one:"
            yield from (f"    {line}" for line in self.restart._lines())


def read_status(destination: str | os.PathLike[str]) -> Status:
    """How far the job of a destination is.

    Raises:
        ConfigError: no job was ever started there.
        DataError: its records are damaged.
    """
    records = records_to_read(destination)
    return look_at(records, records.read_job())[0]


def saved_rows(destination: str | os.PathLike[str]) -> str:
    """How many rows of an unfinished job are saved, in words; empty where none can be read, or a new output waits."""
    try:
        status = read_status(destination)
    except (ConfigError, DataError, StoppedError):
        return ""
    # What is damaged is told where it is made again.
    if status.state in ("complete", "damaged", BEING_REPLACED) or status.restart is not None:
        return ""
    if not status.rows_committed:
        return f"None of {counted(status.rows, 'row')} is saved yet: no part of the output was finished"
    return f"{status.rows_committed:,} of {counted(status.rows, 'row')} are saved"


def look_at(records: JobRecords, job: dict[str, Any]) -> tuple[Status, Commits]:
    """How far a job is, and what its attempts committed, from one reading of their logs."""
    store, new = records.store, restart_of(records)
    rows, values = read_weights(records.read_plan(job, UNITS))
    workers = [worker for worker in read_workers(store) if worker.share != REPLACING]
    alive = [worker for worker in workers if worker.is_alive]
    names = {name for worker in alive for name in worker.names}
    commits = read_commits(store, job["id"], rows, names, only_standing=not records.is_complete)
    workers = [_as_recorded(worker, commits) for worker in workers]
    environments = {str(header["environment"]) for header in commits.headers}
    new_job = new.find_job()
    total, done = int(values.sum()), int(values[commits.committed].sum())
    rate, in_hand = sum(worker.values_per_second for worker in alive), sum(worker.values_in_hand for worker in alive)
    known = rate > 0 and not commits.is_complete
    damaged = damaged_parts(records) if records.is_complete else []
    state = "damaged" if damaged else "complete" if records.is_complete else "running" if alive else "stopped"
    if is_replaced := is_ready(records):
        state = BEING_REPLACED
    status = Status(
        store.root, state, units=commits.units, units_committed=len(commits.committed),
        rows=int(rows.sum()), rows_committed=int(rows[commits.committed].sum()),
        share_done=done / total if total else float(commits.is_complete),
        rows_per_second=rate * float(rows.sum()) / total if known else 0.0,
        seconds_left=seconds_left(max(0, total - done - in_hand), rate) if known else None,
        workers=tuple(workers), attempts=len(commits.headers), environments=len(environments),
        failed_units=dict(zip(commits.failed.tolist(), commits.failures["reason"].to_pylist(), strict=True)),
        fatal_units=tuple(commits.fatal),
        restart=None if is_replaced or new_job is None or ACCEPTED in new_job else look_at(new, new_job)[0],
        parts_damaged=len([name for name in damaged if name != PARTS]), accepted=tuple(job.get(ACCEPTED, ())),
        set_aside=commits.aside, counts=commits.counts, job=job_in_words(job, commits.headers),
        filtered=commits.filtered, continues=_continues(records, job, commits) if state == "stopped" else "",
    )  # fmt: skip
    return status, commits


def _continues(records: JobRecords, job: dict[str, Any], commits: Commits) -> str:
    """What goes on with a job that was stopped: if too many rows were set aside, only with a higher bound."""
    way, most = way_to_continue(records, job), last_bound(commits.headers)
    if most is None or commits.aside <= most:
        return way
    return f"{way}, with a --max-bad-rows of {commits.aside} or more: so many are set aside by now"


def _as_recorded(worker: Worker, commits: Commits) -> Worker:
    """A worker with what its log tells, which is newer than its last beat."""
    told = [commits.by_attempt.get(name, (0, 0)) for name in worker.names]
    units, rows = max(worker.units, sum(it[0] for it in told)), max(worker.rows, sum(it[1] for it in told))
    in_hand = commits.missing(np.array(worker.in_hand, np.int64)).tolist() if worker.is_alive else ()
    return replace(worker, units=units, rows=rows, in_hand=tuple(in_hand))


def _doing(worker: Worker) -> str:
    """What a worker is doing, or what became of it."""
    did = f"{counted(worker.units, 'part')}, {counted(worker.rows, 'row')}"
    did += f" and {worker.rows_in_hand:,} in hand" if worker.rows_in_hand else ""
    if worker.is_alive:
        running = timedelta(seconds=round(max(0, time.time() - worker.started)))
        units = ", ".join(map(str, worker.in_hand[:3]))
        hand = f", now part{'s' * (len(worker.in_hand) > 1)} {units}" if worker.in_hand else ""
        return f"{worker}; {did} in {running}{hand}"
    ended = "died" if worker.state == "working" else worker.state
    why = f"\n         {worker.reason}" if worker.reason else ""
    return f"{ended}: {worker}; {did}{why}"
