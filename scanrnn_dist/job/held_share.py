"""The share of a job's units that a process holds: its own one first, then those of others that stopped or never began.

How a lease is taken and kept stands in `lease.py`, which units make a share in `shares.py`; what is left to do in one
says `attempt.py`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.job.options import Sharing
from scanrnn_dist.job.restart import check_not_replaced, wait_until_free
from scanrnn_dist.job.shares import share_of_units
from scanrnn_dist.records import (
    DONE,
    REPLACING,
    STOPPED,
    HeldError,
    JobRecords,
    Lease,
    Share,
    Worker,
    read_workers,
)

logger = logging.getLogger("scanrnn_dist")


class HeldShare:
    """The share whose `lease` this process has, until it takes another one.

    Args:
        records: of the job.
        values: of each unit of the job.
        sharing: which share is the own one, and whether those of others may be taken.

    Raises:
        HeldError: another process works on the share.
        StoppedError: another process restarts, amends or cleans the job.
    """

    def __init__(self, records: JobRecords, values: np.ndarray, sharing: Sharing) -> None:
        self._records, self._values, self._sharing = records, values, sharing
        # Of one who waits for work; longer each time, since a look at a million units takes seconds.
        self._pause_seconds = 0.2
        self._owners: dict[int, np.ndarray] = {}  # by the count of shares, the share of each unit
        self.lease = self._first_lease()

    def units(self, share: Share) -> np.ndarray:
        """The numbers of the units of any share, sorted."""
        index, count = share
        return np.flatnonzero(self._owners_among(count) == index - 1)

    def works_on(self, in_hand: Callable[[], dict[str, Any]]) -> None:
        """What this lease and each later one asks, as `Lease.works_on`."""
        self._in_hand = in_hand
        self.lease.works_on(in_hand)

    def take_another(self, left: np.ndarray) -> bool:
        """Take over a share that has some of these units and nobody alive; waits while somebody works on one that has.

        Whether there is work to look for again. Shares that nobody ever began come last.
        """
        if not self._sharing.steal:
            return False
        counts = dict[int, np.ndarray]()  # by the count of shares, how many of these units each has

        def has_work(share: Share) -> bool:
            index, count = share
            if count not in counts:
                counts[count] = np.bincount(self._owners_among(count)[left], minlength=count)
            return bool(counts[count][index - 1])

        unfinished = [worker for worker in self._others(self.lease.share) if has_work(worker.share)]
        for worker in unfinished:
            if not worker.is_alive:
                return self._steal(worker.share, f"from {worker}")
        for share in self._not_begun():
            if has_work(share):
                return self._steal(share, "which nobody has begun")
        if unfinished:
            self._pause()
        return bool(unfinished)

    def _owners_among(self, count: int) -> np.ndarray:
        """The share, from 0 on, of each unit of the job, among so many shares."""
        if count not in self._owners:
            self._owners[count] = share_of_units(self._values, count)
        return self._owners[count]

    def _first_lease(self) -> Lease:
        """That of the own share; or, where another process took that over before this one came, of one that is free."""
        try:
            return self._lease_of(self._sharing.share)
        except HeldError:
            lease = self._free_lease() if self._sharing.steal else None
            if lease is None:
                raise
            return lease

    def _free_lease(self) -> Lease | None:
        """That of a share that nobody alive has: of one that stopped, was never begun, or is done; None if none is."""
        gone = [worker for worker in self._others(REPLACING) if not worker.is_alive]
        left, done = ([it.share for it in gone if (it.state == DONE) == is_done] for is_done in (False, True))
        for share in [*left, *self._not_begun(), *done]:
            with suppress(HeldError):  # another one was faster
                return self._lease_of(share)
        return None

    def _lease_of(self, share: Share) -> Lease:
        """That of a share of a job that nobody has all of; who does looks for leases after it took its own.

        One who has all of it is waited for a while, since another share may only look there whether anything is to be
        mended; without a lease, which would stop that one.
        """
        until = time.monotonic() + self._sharing.expiry_seconds / 4
        while True:
            lease = Lease(self._records.store, share, self._sharing.expiry_seconds)
            try:
                check_not_replaced(self._records)
                return lease
            except BaseException as error:
                lease.release(STOPPED)
                if not isinstance(error, StoppedError):
                    raise
            wait_until_free(self._records, until - time.monotonic())

    def _others(self, own: Share) -> list[Worker]:
        """The present owner of every other share that ever had one."""
        return [worker for worker in read_workers(self._records.store) if worker.share not in (own, REPLACING)]

    def _not_begun(self) -> list[Share]:
        """The shares that never had an owner, in random order: many who come at once mostly take different ones."""
        count, seen = self._sharing.share[1], {worker.share for worker in read_workers(self._records.store)}
        free = [(k, count) for k in range(1, count + 1) if (k, count) not in seen]
        return random.sample(free, len(free))

    def _steal(self, share: Share, whose: str) -> bool:
        self.lease.release(DONE)
        logger.info("Taking over share %d/%d, %s.", *share, whose)
        taken: Lease | None = None
        with suppress(HeldError):  # another one was faster
            taken = self._lease_of(share)
        while taken is None and (taken := self._free_lease()) is None:
            self._pause()  # all others have one; what they end is free
        self.lease = taken
        self.lease.works_on(self._in_hand)
        return True

    def _pause(self) -> None:
        self._pause_seconds = min(1.5 * self._pause_seconds, self._sharing.expiry_seconds / 4)
        time.sleep(self._pause_seconds)
