"""The held share of a job: a lease with an owner and an expiry, that beats in a thread of its own.

Whoever takes a share over writes its file with the next number and removes the earlier ones; an owner whose file is
gone, tells of another or is not the last has lost the share, and stops. What stands in the file, and who counts as
alive, says `workers.py`.

A lease of a share saves double work and nothing else. Two owners of one share, after a pause of a minute, compute some
parts twice, with the same bytes. Whoever changes more than a part (`job/restart.py`, `job/cleaning.py`) asks for its
lease again before every step, and removes what it saw before it asked, nothing that another one put there since.

A beat replaces the file that was read just before, so one that comes late, when the destination was removed and begun
anew, writes nothing: exactly so in a bucket, but for a renaming in a folder.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from scanrnn_dist.errors import ScanRNNError, StoppedError
from scanrnn_dist.records.workers import (
    EXPIRY_SECONDS,
    REPLACING,
    STOPPED,
    WORKING,
    Share,
    Worker,
    lease_file,
    leases,
    read_worker_version,
    this_machine,
    worker_bytes,
)
from scanrnn_dist.storage import Store

BEATS_PER_EXPIRY = 20
SILENT_BEATS = 3
"""So many beats of an owner on another machine are missed, by one's own clock, before its old beat is believed: clocks
differ."""
RATE_BEATS = 100
"""The rate that is told is that of the last so many beats, 5 minutes."""

logger = logging.getLogger("scanrnn_dist")


class HeldError(StoppedError):
    """Another process works on the share."""


class Lease:
    """A share that is held; beats in a thread of its own until it is released.

    Others may take it `expiry_seconds` after the last beat.

    Raises:
        HeldError: another process holds it, and was heard of while this one waited.
    """

    def __init__(self, store: Store, share: Share, expiry_seconds: float = EXPIRY_SECONDS) -> None:
        self.is_lost = False
        self._store = store
        now, pid = time.time(), os.getpid()
        host, machine = socket.gethostname(), this_machine()
        self._worker = Worker(
            store.attempt, host, pid, share, WORKING, now, now, machine=machine, expiry_seconds=expiry_seconds
        )
        self._number, self._worker, earlier = _acquire(store, self._worker)
        self._history = deque([(self._worker.beat, 0)], maxlen=RATE_BEATS)
        self._changed = threading.Lock()
        self._released = threading.Event()
        # A daemon: a process that ends without releasing must end.
        self._thread = threading.Thread(target=self._beat_on, name="scanrnn-beat", daemon=True)
        self._thread.start()
        try:
            for name, version in earlier.items():  # which may take longer than others wait for a beat
                store.remove(name, version)
        except BaseException:
            with suppress(StoppedError):
                self.release(STOPPED)
            raise

    @property
    def share(self) -> Share:
        """Which of how many."""
        return self._worker.share

    def committed(self, rows: int, values: int) -> None:
        """Take note of a unit that is committed, to be told with the next beat."""
        with self._changed:
            was = self._worker
            self._worker = replace(was, units=was.units + 1, rows=was.rows + rows, values=was.values + values)

    def works_on(self, in_hand: Callable[[], dict[str, Any]]) -> None:
        """Ask this, at every beat, for what `Worker` tells of units in hand, and of helpers."""
        self._in_hand = in_hand

    def check(self) -> None:
        """Raise `StoppedError` if this is known not to be the owner any more."""
        if self.is_lost:
            raise StoppedError(
                f"{_what(self.share)} of {self._store.root} is not this process's any more: it was silent for "
                f"{self._worker.expiry_seconds:g} s and another one took over, or its lock was removed. Nothing was "
                "lost; `scanrnn status` shows who is at work."
            )

    def confirm(self) -> None:
        """The same, but asks the store: before whatever an owner must not do that has lost its share unawares."""
        self._ask()
        self.check()

    def remove(self, name: str) -> None:
        """Remove a file that stands there while this is the owner; what another one puts there later stays."""
        version = self._store.version(name)
        self.confirm()
        if version is not None:
            self._store.remove(name, version)

    def release(self, state: str, reason: str = "") -> None:
        """Say how it ended, and beat no more."""
        self._released.set()
        self._thread.join()
        if version := self._ask():
            nothing: dict[str, Any] = {"in_hand": (), "helpers": (), "rows_in_hand": 0, "values_in_hand": 0}
            self._worker = replace(self._worker, state=state, reason=reason, **nothing)
            self._write(version)

    _in_hand: Callable[[], dict[str, Any]] = staticmethod(dict)

    def _beat_on(self) -> None:
        while not self._released.wait(self._worker.expiry_seconds / BEATS_PER_EXPIRY):
            try:
                if not self.beat():
                    return
            except (ScanRNNError, OSError) as error:
                # A lease that cannot be kept is one that others may take, which loses nothing; a store that refuses
                # everything ends the job when the next part is written.
                logger.warning("The lease of %s could not be written: %s", _what(self.share), error)

    def beat(self) -> bool:
        """Say that this process is alive, as the thread does every few seconds; whether it is still the owner."""
        version = self._ask()
        if version is not None:
            self._write(version)
        return version is not None

    def _ask(self) -> str | None:
        """The version of its file if this is still the owner; one that was not once never is again."""
        version = None if self.is_lost else self._version()
        self.is_lost = version is None
        return version

    def _version(self) -> str | None:
        """The same, as the store says."""
        # In this order: who takes a share over makes the next file, then removes the earlier ones, the oldest first.
        # Two questions, not a list of all workers at every beat of each of them.
        if self._store.exists(lease_file(self.share, self._number + 1)):
            return None
        told, version = read_worker_version(self._store, lease_file(self.share, self._number))
        # One that is not to be understood is being written by the other thread: nobody else writes this file.
        if told is not None and told.attempt != self._worker.attempt:
            return None
        # Of the whole destination: once the others may think this one dead, they do not look for its lease any more.
        is_old = time.time() - self._worker.beat > self._worker.expiry_seconds and self.share == REPLACING
        return None if is_old else version or None

    def _write(self, version: str) -> None:
        with self._changed:
            if self._worker.state == WORKING:
                self._worker = replace(self._worker, **self._in_hand())
            now, (then, values) = time.time(), self._history[0]
            done = self._worker.values + self._worker.values_in_hand
            rate = max(0, done - values) / max(now - then, 1e-9)
            self._history.append((now, done))
            worker = self._worker = replace(self._worker, beat=now, values_per_second=rate)
        # Where it is not replaced, it is not this one's any more: the next question tells.
        self._store.replace(lease_file(self.share, self._number), worker_bytes(worker), version, durable=False)


def _acquire(store: Store, worker: Worker) -> tuple[int, Worker, dict[str, str]]:
    """Make the next file of a share once nobody alive holds it; its number, the worker as of then, earlier files."""
    heard: Worker | None = None
    since = time.monotonic()
    while True:
        numbers = sorted(number for share, number in leases(store) if share == worker.share)
        number = max(numbers, default=0)
        owner, version = read_worker_version(store, lease_file(worker.share, number)) if numbers else (None, "")
        # One that is not to be understood may be in the midst of a beat.
        patience_seconds = _patience_seconds(owner) if owner else _silence_seconds(worker) if version else 0.0
        if time.monotonic() - since >= patience_seconds:
            earlier = {name: store.version(name) for name in (lease_file(worker.share, old) for old in numbers)}
            now = time.time()  # it may have waited for as long as it takes to count as dead
            worker = replace(worker, started=now, beat=now)
            if store.create(lease_file(worker.share, number + 1), worker_bytes(worker)):
                return number + 1, worker, {name: seen for name, seen in earlier.items() if seen is not None}
            continue
        if heard and owner and (owner.attempt, owner.beat) != (heard.attempt, heard.beat):
            raise HeldError(
                f"{_what(worker.share)} of {store.root} is being worked on: {owner}. Wait for it, or stop it; "
                "`scanrnn status` shows who is at work. With --shard several processes share a job."
            )
        if heard is None and owner is not None:
            what = _what(worker.share)
            logger.info("%s is held by %s; waiting for a sign of it, for up to %.0f s.", what, owner, patience_seconds)
            heard = owner
        time.sleep(min(1.0, (owner or worker).expiry_seconds / BEATS_PER_EXPIRY / 4))


def _patience_seconds(owner: Worker) -> float:
    """For how long a sign of an owner is waited for."""
    if owner.is_alive:
        return owner.expiry_seconds
    is_here = owner.machine == this_machine()
    return 0.0 if owner.state != WORKING or is_here else _silence_seconds(owner)


def _silence_seconds(of: Worker) -> float:
    return SILENT_BEATS * of.expiry_seconds / BEATS_PER_EXPIRY


def _what(share: Share) -> str:
    """A share in words."""
    return "The whole" if share == REPLACING else f"Share {share[0]}/{share[1]}"
