"""The held share of a job: a lease with an owner and an expiry, that beats in a thread of its own.

Whoever takes a share over writes its file with the next number and removes the earlier ones; an owner whose file is
gone, tells of another or is not the last has lost the share, and stops. What stands in the file, and who counts as
alive, says `workers.py`.

A lease of a share saves double work and nothing else. Two owners of one share, after a pause of a minute or on a store
that cannot write exclusively, compute some parts twice, with the same bytes. Whoever changes more than a part
(`job/restart.py`, `job/cleaning.py`) asks for its lease again before every step.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scanrnn_dist.errors import ScanRNNError, StoppedError
from scanrnn_dist.records.workers import (
    EXPIRY_SECONDS,
    REPLACING,
    WORKING,
    Share,
    Worker,
    lease_file,
    lease_numbers,
    read_worker,
    this_machine,
    worker_bytes,
)
from scanrnn_dist.storage import Store

BEATS_PER_EXPIRY = 20
RATE_BEATS = 100
"""The rate that is told is that of the last so many beats, 5 minutes."""

logger = logging.getLogger("scanrnn_dist")


class Lease:
    """A share that is held; beats in a thread of its own until it is released.

    Others may take it `expiry_seconds` after the last beat.

    Raises:
        StoppedError: another process holds it, and was heard of while this one waited.
    """

    def __init__(self, store: Store, share: Share, expiry_seconds: float = EXPIRY_SECONDS) -> None:
        self.is_lost = False
        self._store = store
        now, pid = time.time(), os.getpid()
        host, machine = socket.gethostname(), this_machine()
        self._worker = Worker(
            store.attempt, host, pid, share, WORKING, now, now, machine=machine, expiry_seconds=expiry_seconds
        )
        self._number = _acquire(store, self._worker)
        self._history = deque([(now, 0)], maxlen=RATE_BEATS)
        self._changed = threading.Lock()
        self._released = threading.Event()
        # A daemon: a process that ends without releasing must end.
        self._thread = threading.Thread(target=self._beat_on, name="scanrnn-beat", daemon=True)
        self._thread.start()

    @property
    def share(self) -> Share:
        """Which of how many."""
        return self._worker.share

    def finished(self, rows: int, values: int) -> None:
        """Take note of rows that are finished, to be told with the next beat."""
        self._count(rows_in_hand=rows, values_in_hand=values)

    def committed(self, rows: int, values: int) -> None:
        """Take note of a unit that is committed, of whose rows `finished` was told before."""
        self._count(units=1, rows=rows, values=values, rows_in_hand=-rows, values_in_hand=-values)

    def abandoned(self, rows: int, values: int) -> None:
        """Take note of a unit that will not be committed, of so many rows of which `finished` was told before."""
        self._count(rows_in_hand=-rows, values_in_hand=-values)

    def works_on(self, in_hand: Callable[[], list[int]], helpers: Callable[[], list[str]] = list) -> None:
        """Ask these, at every beat, which units are in hand, and which attempts help."""
        self._in_hand, self._helpers = in_hand, helpers

    def check(self) -> None:
        """Raise `StoppedError` if this is known not to be the owner any more."""
        if self.is_lost:
            raise StoppedError(
                f"{_what(self.share)} of {self._store.root} is not this process's any more: it was not heard of for "
                f"{self._worker.expiry_seconds:g} s and another one took over, or its file was removed. Nothing was "
                "lost; `scanrnn status` shows who is at work."
            )

    def confirm(self) -> None:
        """The same, but asks the store: before whatever an owner must not do that has lost its share unawares."""
        self._ask()
        self.check()

    def guarded(self, step: Callable[[str], None]) -> Callable[[str], None]:
        """The step, taken by the owner alone: confirmed each time."""

        def confirmed(name: str) -> None:
            self.confirm()
            step(name)

        return confirmed

    def release(self, state: str, reason: str = "") -> None:
        """Say how it ended, and beat no more."""
        self._released.set()
        self._thread.join()
        if self._ask():
            nothing: dict[str, Any] = {"in_hand": (), "helpers": (), "rows_in_hand": 0, "values_in_hand": 0}
            self._worker = replace(self._worker, state=state, reason=reason, **nothing)
            self._write()

    _in_hand: Callable[[], list[int]] = staticmethod(list)
    _helpers: Callable[[], list[str]] = staticmethod(list)

    def _count(self, **more: int) -> None:
        with self._changed:  # values are rounded at every chunk, so those in hand may come below 0
            counts = {name: max(0, getattr(self._worker, name) + number) for name, number in more.items()}
            self._worker = replace(self._worker, **counts)

    def _beat_on(self) -> None:
        while not self._released.wait(self._worker.expiry_seconds / BEATS_PER_EXPIRY):
            try:
                if not self._ask():
                    return
                self._write()
            except (ScanRNNError, OSError) as error:
                # A lease that cannot be kept is one that others may take, which loses nothing; a store that refuses
                # everything ends the job when the next part is written.
                logger.warning("The lease of %s could not be written: %s", _what(self.share), error)

    def _ask(self) -> bool:
        """Whether this is still the owner; one that was not once never is again."""
        self.is_lost = self.is_lost or not self._is_mine()
        return not self.is_lost

    def _is_mine(self) -> bool:
        """What the store says of it."""
        told = read_worker(self._store, lease_file(self.share, self._number))
        if told is None or told.attempt != self._worker.attempt:
            return False
        # Of the whole destination: once the others may think this one dead, they do not look for its lease any more.
        is_old = time.time() - self._worker.beat > self._worker.expiry_seconds and self.share == REPLACING
        return not is_old and self._number >= max(lease_numbers(self._store, self.share), default=0)

    def _write(self) -> None:
        with self._changed:
            now, (then, values) = time.time(), self._history[0]
            done = self._worker.values + self._worker.values_in_hand
            rate = max(0, done - values) / max(now - then, 1e-9)
            self._history.append((now, done))
            self._worker = replace(self._worker, beat=now, values_per_second=rate)
            if self._worker.state == WORKING:
                in_hand, helpers = tuple(self._in_hand()[:8]), tuple(self._helpers())
                self._worker = replace(self._worker, in_hand=in_hand, helpers=helpers)
            worker = self._worker
        self._store.write(lease_file(self.share, self._number), worker_bytes(worker), durable=False)


def _acquire(store: Store, worker: Worker) -> int:
    """Make the next file of a share once nobody alive holds it; its number."""
    heard: Worker | None = None
    since = time.monotonic()
    while True:
        numbers = lease_numbers(store, worker.share)
        number = max(numbers, default=0)
        owner = read_worker(store, lease_file(worker.share, number)) if numbers else None
        is_silent = time.monotonic() - since > (owner.expiry_seconds if owner else 0)
        if owner is None or not owner.is_alive or is_silent:
            if store.create(lease_file(worker.share, number + 1), worker_bytes(worker)):
                for old in numbers:
                    store.delete(lease_file(worker.share, old))
                return number + 1
            continue
        if heard is not None and (owner.attempt, owner.beat) != (heard.attempt, heard.beat):
            raise StoppedError(
                f"{_what(worker.share)} of {store.root} is being worked on: {owner}. Leave it to that one; `scanrnn "
                "status` shows who is at work, and --shard shares a job."
            )
        if heard is None:
            what, most = _what(worker.share), owner.expiry_seconds
            logger.info("%s is held by %s; waiting for a sign of it, for up to %.0f s.", what, owner, most)
            heard = owner
        time.sleep(min(1.0, owner.expiry_seconds / BEATS_PER_EXPIRY / 4))


def _what(share: Share) -> str:
    """A share in words."""
    return "The whole" if share == REPLACING else f"Share {share[0]}/{share[1]}"
