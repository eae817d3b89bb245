"""One process's attempt at a job: which units it works on, in which order, until nothing is left for it.

Has its shares from `held_share.py`, learns what is committed from `commit_log.py`, and says when the last unit is,
or which units are left because they failed. What is done to a unit is `pipeline.py`'s, by whom `executor.py`'s.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pyarrow.compute as pc

from scanrnn_dist.errors import DataError, StoppedError, one_line
from scanrnn_dist.job.held_share import HeldShare
from scanrnn_dist.job.options import Sharing
from scanrnn_dist.job.report import Made
from scanrnn_dist.job.undone import error_of_undone
from scanrnn_dist.records import (
    DONE,
    QUARANTINE,
    STOPPED,
    AttemptLog,
    Commits,
    CrashTrace,
    JobRecords,
    PartRecord,
    Share,
    collect_traces,
    living_workers,
    oom_kills,
    read_commits,
)
from scanrnn_dist.source import Unit, Units

ROUNDS = 3
"""Times that a unit of one attempt may be found missing after it was committed, before the attempt gives up."""

TOLD_AT_ONCE = 3
"""So many failed units are told as soon as they fail: a wrong option would make all of them fail."""

MAX_BAD_ROWS = "max_bad_rows"
"""What of `Handling` the first line of a log tells too, unless the job was continued by its records alone."""

OnRows = Callable[[int], None]
"""Called with the number of rows each time some are finished."""

logger = logging.getLogger("scanrnn_dist")


class Attempt:
    """A context in which `work` gives the units to do; leaving it says how the attempt ended.

    `commits` is what all attempts had committed when it was last looked; `header` what the first line of this one's log
    tells. It ends once all attempts have set aside more rows than its `max_bad_rows`; where it says none, than that of
    the last attempt that did; None is no bound. `made` is what it committed itself, `rows_in_hand` how many rows of
    each unit are finished until that is settled. An executor that hands units to workers sets `helpers`, the names of
    their attempts, and `handed`, which of these has a unit until that is settled. `on_rows` is called by `tell`.

    Raises:
        StoppedError: another process works on the share.
    """

    def __init__(
        self,
        records: JobRecords,
        job: dict[str, Any],
        units: Units,
        sharing: Sharing,
        header: dict[str, Any],
        on_rows: OnRows | None = None,
    ) -> None:
        self._records, self._job, self._units, self._sharing = records, job, units, sharing
        self._times_unread = 0  # units that were set aside as a whole here
        self._aside = 0  # rows that were set aside here since it was last looked what all attempts had committed
        self._rows = units.rows
        self._times_done = np.zeros(len(self._rows), np.int8)
        self._has_failed = np.zeros(len(self._rows), bool)  # in this attempt, which tries them no more
        self._trace: CrashTrace | None = None
        self.made = Made()
        self.rows_in_hand = Counter[int]()
        self._lost: set[int] = set()
        self.handed: dict[int, str] = {}
        self.helpers: set[str] = set()
        self._on_rows, self._told = on_rows, 0
        self._rows_of_failed = 0  # that were finished, and may have been told
        self._held = HeldShare(records, units.values, sharing)
        try:
            collect_traces(records.store)
            header = {"job": job["id"], "share": list(sharing.share), **oom_kills(), **header}
            self.log = AttemptLog(records.store, header)  # before the others' are read: it tells how the last one died
        except BaseException:
            self._held.lease.release(STOPPED)
            raise
        try:
            self._trace = CrashTrace(records.store) if sharing.owns_process else None
            self.commits = self._read_commits()
            self._max_bad_rows = header.get(MAX_BAD_ROWS, last_bound(self.commits.headers))
            self._earlier = self.commits.attempts - self._alive()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        self._held.works_on(self._in_hand)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        """Say how it ended, as far as the destination still takes it: an error on the way is told, not this one."""
        says = one_line(str(error).partition("\n")[0])
        reason = "" if error is None else f"{type(error).__name__}: {says}"[:500]
        try:
            with nullcontext() if error is None else suppress(StoppedError):
                self.log.end(reason or "done")
        finally:
            if self._trace is not None:
                self._trace.close()
            with nullcontext() if error is None else suppress(StoppedError):
                self._held.lease.release(STOPPED if reason else DONE, reason)

    def work(self, at_once: int = 1) -> Iterator[tuple[np.ndarray, bool]]:
        """Sorted numbers of units to do now, and whether alone, until none is left.

        Of those to be done alone, `at_once` come together, each for a process of its own; but those whose process died
        for want of memory come last and one by one, since those of one machine share its memory.

        Units that were in hand when an attempt died come last and alone: should the process die again, its log says
        which of them it worked on. At the end, and where this was the last process, the job is declared finished.

        Raises:
            DataError: all is done but units that failed, or that are held to end their process; or too many rows were
                set aside.
            StoppedError: the share was taken over by another process, or parts do not stay where they were put.
        """
        shares = {self.share}
        while True:
            commits = self.commits
            self._check_bad_rows()
            if commits.is_complete:
                self._finish(commits)
                return
            safe, suspects = self._to_do(commits, self._held.units(self.share))
            if len(safe):
                yield self._counted(safe), False
            elif len(suspects):
                yield from self._alone(suspects, at_once)
            elif not self._take_another(commits):
                self.check_job()  # else what was done here would count for nobody
                self._check_nothing_is_undone(commits, shares)
                return
            shares.add(self.share)
            self.commits = self._read_commits()

    def _alone(self, suspects: np.ndarray, at_once: int) -> Iterator[tuple[np.ndarray, bool]]:
        """All of them in their turn, until a worker dies of one: then the records tell of which, and what is next.

        As for units that are done together, what was committed is looked at once they are done: a look at a hundred
        thousand parts takes seconds, and there may be hundreds of these units.
        """
        wants_memory = np.array([self.commits.suspects[unit].wants_memory for unit in suspects.tolist()])
        for units, many in ((suspects[~wants_memory], at_once), (suspects[wants_memory], 1)):
            for begin in range(0, len(units), many):
                yield self._counted(units[begin : begin + many]), True
                if self._lost:
                    return

    def lost(self, helper: str) -> None:
        """Take note of a worker that died, with the units that it had and did not say to be done."""
        self.helpers.discard(helper)
        for number in [unit for unit, has in self.handed.items() if has == helper]:
            self._times_done[number] -= 1
            self._lost.add(number)
            self._settle(number)

    def failed(self, unit: Unit, reason: str) -> None:
        """Take note of a unit that failed; the first few are told at once."""
        self._has_failed[unit.index] = True
        finished = self.rows_in_hand[unit.index]
        self._settle(unit.index)
        self._rows_of_failed += finished
        if self._has_failed.sum() <= TOLD_AT_ONCE and len(self._units) > 1:
            logger.warning("Part %d cannot be made; all others are done first. %s", unit.index, reason)

    def set_aside(self, unit: Unit, reason: str) -> None:
        """Take note of a unit that is set aside as a whole, before `committed`."""
        self.rows_in_hand[unit.index] = unit.rows
        self._times_unread += 1
        if self._times_unread <= TOLD_AT_ONCE:
            logger.warning("All %d rows of part %d are set aside. %s", unit.rows, unit.index, reason)

    def committed(self, unit: Unit, record: PartRecord) -> None:
        """Take note of a unit whose part is recorded; `DataError` once too many rows were set aside."""
        self._settle(unit.index)
        self.made.add(record)
        self._held.lease.committed(unit.rows, unit.values)
        self._aside += record.aside
        if record.aside:
            self._check_bad_rows()

    def _settle(self, number: int) -> None:
        """Have a unit be in nobody's hand any more."""
        self.handed.pop(number, None)
        del self.rows_in_hand[number]

    def finished(self, unit: Unit, rows: int) -> None:
        """Take note of rows of a unit that are computed; `StoppedError` if another process has taken over the share."""
        self.rows_in_hand[unit.index] += rows
        self._held.lease.check()

    def tell(self) -> None:
        """Tell how many rows were finished since it was called last; what a worker lost and another did, once."""
        made = self.made  # read first: another thread may take a unit out of hand, and then count it here
        settled = made.rows + made.set_aside + made.filtered + self._rows_of_failed
        more = settled + self.rows_in_hand.copy().total() - self._told
        if more > 0 and self._on_rows is not None:
            self._told += more
            self._on_rows(more)

    def check_job(self) -> None:
        """The same, and if another job took the place of this one, by asking the store; before anything is named."""
        self._records.check_is(self._job)
        self._held.lease.confirm()

    @property
    def share(self) -> Share:
        """The share that is worked on now."""
        return self._held.lease.share

    @property
    def share_rows(self) -> tuple[int, int]:
        """Rows of the share that are committed already, and all of it."""
        rows = self._rows[self._held.units(self.share)]
        missing = self._rows[self.commits.missing(self._held.units(self.share))]
        return int(rows.sum() - missing.sum()), int(rows.sum())

    @property
    def units_left(self) -> int:
        """Units of the job that were not committed when it was last looked."""
        return self.commits.units - len(self.commits.committed)

    def _read_commits(self) -> Commits:
        """What all attempts have committed, and stands."""
        commits = read_commits(self._records.store, self._job["id"], self._rows, self._alive(), only_standing=True)
        self._aside = 0
        if self._lost:
            for record in commits.records.filter(pc.field("unit").isin(sorted(self._lost))).to_pylist():
                self.made.add(PartRecord(**record))  # all that its worker could not say any more
            self._lost.clear()
        self.tell()
        return commits

    def _check_bad_rows(self) -> None:
        """Raise `DataError` if more rows were set aside than may be; all of them are listed by then."""
        aside, most = self.commits.aside + self._aside, self._max_bad_rows
        if most is not None and aside > most:
            store, name = self._records.store, os.fspath(self._records.store)
            raise DataError(
                f"{aside:,} rows were set aside, and --max-bad-rows allows {most:,}. They are listed in "
                f"{store.path(QUARANTINE)}, which srd.quarantined({name!r}) reads. What is committed stays: the "
                "same command with a higher number goes on."
            )

    def _alive(self) -> set[str]:
        """The attempts that are at work."""
        store = self._records.store
        return {store.attempt, *self.helpers, *(name for worker in living_workers(store) for name in worker.names)}

    def _in_hand(self) -> dict[str, Any]:
        """The units that this process works on, or those that it handed out, and the attempts that work for this one.

        It is asked by another thread than those that change what it tells, which therefore is copied at once.
        """
        units, rows = self.log.in_hand or sorted(self.handed.copy()), self.rows_in_hand.copy()
        in_hand = [self._units[number] for number in rows]
        values = sum(unit.values * rows[unit.index] // max(1, unit.rows) for unit in in_hand)
        told = {"rows_in_hand": rows.total(), "values_in_hand": values}
        return {"in_hand": tuple(units[:8]), "helpers": tuple(sorted(self.helpers.copy())), **told}

    def _to_do(self, commits: Commits, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of these sorted units those that this attempt may do, and those to be done alone, in their turn."""
        missing = commits.missing(units)
        missing = missing[~self._has_failed[missing]]
        suspects = np.intersect1d(missing, list(commits.suspects)).tolist()
        safe = np.setdiff1d(missing, suspects, assume_unique=True)
        not_fatal = [unit for unit in suspects if self._sharing.retry or not commits.suspects[unit].verdict]
        return safe, np.array(sorted(not_fatal, key=lambda unit: (*commits.suspects[unit].turn, unit)), np.int64)

    def _check_nothing_is_undone(self, commits: Commits, shares: set[Share]) -> None:
        """Raise `DataError` for units of these shares that this attempt could not do; of all shares if it steals."""
        held = np.unique(np.concatenate([self._held.units(share) for share in shares]))
        missing = commits.missing(np.arange(len(self._rows)) if self._sharing.steal else held)
        failed = missing[self._has_failed[missing]]
        fatal = [] if self._sharing.retry else np.setdiff1d(np.intersect1d(missing, commits.fatal), failed).tolist()
        if len(failed) or fatal:
            options = self._job["options"]
            raise error_of_undone(self._records.store, options, self._units, commits, failed, fatal)

    def _counted(self, numbers: np.ndarray) -> np.ndarray:
        """Units that will be done now; none is done again and again."""
        self._times_done[numbers] += 1
        often = numbers[self._times_done[numbers] > ROUNDS]
        if len(often):
            raise StoppedError(
                f"Part {often[0]} was written {ROUNDS} times to {self._records.store.root} and is not "
                "there. Something removes or changes it; stop that, then start the same command again."
            )
        return numbers

    def _finish(self, commits: Commits) -> None:
        self.check_job()
        if not self._records.is_complete:
            totals = {"rows": commits.rows, "parts": commits.units, "attempts": len(commits.headers)}
            totals |= {"set_aside": commits.aside} if commits.aside else {}
            self._records.write_success(commits.to_parquet(), totals, self.check_job)

    def _take_another(self, commits: Commits) -> bool:
        """Take over a share that has units left, or wait for one; whether there is work to look for again.

        A unit that failed since this attempt began, or in one that is still at work, is waited for by nobody.
        """
        failed = commits.failed_by(commits.attempts - self._earlier)
        to_do = np.concatenate(self._to_do(commits, np.arange(len(self._rows))))
        return self._held.take_another(np.setdiff1d(to_do, failed))


def last_bound(headers: Iterable[dict[str, Any]]) -> int | None:
    """The number of bad rows that the last attempt was allowed which says one."""
    told = [header for header in headers if MAX_BAD_ROWS in header]
    bound: int | None = max(told, key=lambda header: header["started"])[MAX_BAD_ROWS] if told else None
    return bound
