"""Who is at work at a job, and on which share of it: a lease per share, with an owner and an expiry.

    DST/__scanrnn/workers/2-of-16.000003.json      share 2 of 16, held by its third owner

The owner writes the file anew every few seconds; with it goes how far it is, for `scanrnn status`. One that ended says
so. One that died is told by its process where that ran on this machine, elsewhere by the age of its last beat. Whoever
takes a share over writes the file with the next number and removes the earlier ones; an owner whose file is gone, tells
of another or is not the last has lost the share, and stops.

A lease of a share saves double work and nothing else. Two owners of one share, after a pause of a minute or on a store
that cannot write exclusively, compute some parts twice, with the same bytes. Whoever changes more than a part
(`restart.py`, `clean.py`) asks for its lease again before every step.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from scanrnn_dist.errors import ScanRNNError, StoppedError
from scanrnn_dist.records.job_file import RECORDS
from scanrnn_dist.storage import Store

WORKERS = f"{RECORDS}/workers"
EXPIRY_SECONDS = 60.0
"""A lease whose owner has not written it for so long is free: a pause of a shared filesystem or a swapping machine is
shorter, and a person waits so long for the job of another machine that died."""
BEATS_PER_EXPIRY = 20
READINGS = 5
RATE_BEATS = 100
"""The rate that is told is that of the last so many beats, 5 minutes."""
WORKING, STOPPED, DONE = "working", "stopped", "done"

logger = logging.getLogger("scanrnn_dist")

Share = tuple[int, int]
"""`(k, n)`: the k-th of n shares, counted from 1."""
REPLACING: Share = (0, 0)
"""In place of a share: the whole destination, see `restart.py`."""


@dataclass(frozen=True)
class Worker:
    """The owner of a share as its file tells.

    Args:
        attempt: its name.
        host: where it runs.
        pid: its process there.
        machine: what knows of that process, see `this_machine`.
        share: which of how many.
        state: "working"; "stopped" before all was done; or "done".
        started: seconds since 1970.
        beat: when it last wrote, seconds since 1970.
        expiry_seconds: how long after its beat it counts as dead.
        units: committed by it.
        rows: of these units.
        values: of these units, what steps are weighed by.
        rows_in_hand: that are finished, of units that are not committed.
        values_in_hand: of these rows, about.
        values_per_second: finished of late.
        in_hand: units that it began and has not committed, some of them.
        reason: why it stopped, where it could say so.
    """

    attempt: str
    host: str
    pid: int
    share: Share
    state: str
    started: float
    beat: float
    expiry_seconds: float = EXPIRY_SECONDS
    units: int = 0
    rows: int = 0
    values: int = 0
    rows_in_hand: int = 0
    values_in_hand: int = 0
    values_per_second: float = 0.0
    machine: str = ""
    in_hand: tuple[int, ...] = ()
    reason: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether it works, as far as can be told: of this machine's processes for certain."""
        # A clock that is ahead of this one by more than the expiry is as little to be believed as an old beat.
        if self.state != WORKING or abs(time.time() - self.beat) > self.expiry_seconds:
            return False
        return self.machine != this_machine() or runs(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, last heard of {max(0, time.time() - self.beat):.0f} s ago"


def read_workers(store: Store) -> list[Worker]:
    """The present owner of every share that ever had one."""
    newest: dict[str, tuple[int, str]] = {}
    for name, _ in store.entries(WORKERS):
        share, number = _parsed(name)
        if share and number > newest.get(share, (0, ""))[0]:
            newest[share] = number, name
    workers = (_read(store, f"{WORKERS}/{name}") for _, name in sorted(newest.values(), key=lambda it: it[1]))
    return [worker for worker in workers if worker is not None]


def living_workers(store: Store) -> list[Worker]:
    """Those of them that are at work."""
    return [worker for worker in read_workers(store) if worker.is_alive]


def lease_names(share: Share) -> str:
    """What the names of all lease files of a share begin with."""
    return f"{WORKERS}/{share[0]}-of-{share[1]}."


class Lease:
    """A share that is held; beats in a thread of its own until it is released.

    Args:
        store: the destination.
        share: which of how many.
        expiry_seconds: how long after the last beat others may take it.

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
        with self._changed:
            w = self._worker
            self._worker = replace(w, rows_in_hand=w.rows_in_hand + rows, values_in_hand=w.values_in_hand + values)

    def committed(self, rows: int, values: int) -> None:
        """Take note of a unit that is committed, of whose rows `finished` was told before."""
        with self._changed:
            w = self._worker
            w = replace(w, units=w.units + 1, rows=w.rows + rows, values=w.values + values)
            left = max(0, w.values_in_hand - values)  # it is rounded at every chunk
            self._worker = replace(w, rows_in_hand=w.rows_in_hand - rows, values_in_hand=left)

    def abandoned(self, rows: int, values: int) -> None:
        """Take note of a unit that will not be committed, of so many rows of which `finished` was told before."""
        with self._changed:
            w = self._worker
            left = max(0, w.values_in_hand - values)
            self._worker = replace(w, rows_in_hand=w.rows_in_hand - rows, values_in_hand=left)

    def works_on(self, in_hand: Callable[[], list[int]]) -> None:
        """Ask this, at every beat, which units are in hand."""
        self._in_hand = in_hand

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
            nothing: dict[str, Any] = {"in_hand": (), "rows_in_hand": 0, "values_in_hand": 0}
            self._worker = replace(self._worker, state=state, reason=reason, **nothing)
            self._write()

    _in_hand: Callable[[], list[int]] = staticmethod(list)

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
        told = _read(self._store, _file(self.share, self._number))
        if told is None or told.attempt != self._worker.attempt:
            return False
        # Of the whole destination: once the others may think this one dead, they do not look for its lease any more.
        is_old = time.time() - self._worker.beat > self._worker.expiry_seconds and self.share == REPLACING
        return not is_old and self._number >= max(_numbers(self._store, self.share), default=0)

    def _write(self) -> None:
        with self._changed:
            now, (then, values) = time.time(), self._history[0]
            done = self._worker.values + self._worker.values_in_hand
            rate = max(0, done - values) / max(now - then, 1e-9)
            self._history.append((now, done))
            in_hand = tuple(self._in_hand()[:8])
            self._worker = replace(self._worker, beat=now, values_per_second=rate, in_hand=in_hand)
            worker = self._worker
        self._store.write(_file(self.share, self._number), _content(worker), durable=False)


def _acquire(store: Store, worker: Worker) -> int:
    """Make the next file of a share once nobody alive holds it; its number."""
    heard: Worker | None = None
    since = time.monotonic()
    while True:
        numbers = _numbers(store, worker.share)
        number = max(numbers, default=0)
        owner = _read(store, _file(worker.share, number)) if numbers else None
        is_silent = time.monotonic() - since > (owner.expiry_seconds if owner else 0)
        if owner is None or not owner.is_alive or is_silent:
            if store.create(_file(worker.share, number + 1), _content(worker)):
                for old in numbers:
                    store.delete(_file(worker.share, old))
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


def _file(share: Share, number: int) -> str:
    return f"{lease_names(share)}{number:06}.json"


def _parsed(name: str) -> tuple[str, int]:
    """Share and number of a file's name; nothing and 0 if it is another's."""
    share, _, rest = name.partition(".")
    number = rest.removesuffix(".json")
    return (share, int(number)) if "-of-" in share and number.isdigit() and rest.endswith(".json") else ("", 0)


def _numbers(store: Store, share: Share) -> list[int]:
    wanted = f"{share[0]}-of-{share[1]}"
    return [number for name, number in (_parsed(name) for name, _ in store.entries(WORKERS)) if name == wanted]


def _read(store: Store, name: str) -> Worker | None:
    """The owner that a file tells of; None if it was removed meanwhile, or is not to be understood.

    In a bucket a file that is written anew between the question for its size and its reading comes cut.
    """
    for _ in range(READINGS):
        try:
            content = store.read(name)
        except FileNotFoundError:
            return None
        worker = _understood(content)
        if worker is not None:
            return worker
        time.sleep(0.01)
    return None


def _understood(content: bytes) -> Worker | None:
    try:
        told: dict[str, Any] = json.loads(content)
        first, count = map(int, told["share"])
        kinds: dict[str, Any] = dict.fromkeys(("attempt", "host", "machine", "state", "reason"), str)
        kinds |= dict.fromkeys(("pid", "units", "rows", "values", "rows_in_hand", "values_in_hand"), int)
        kinds |= dict.fromkeys(("started", "beat", "expiry_seconds", "values_per_second"), float)
        checked = {field: kind(told[field]) for field, kind in kinds.items() if field in told}
        return Worker(**checked, share=(first, count), in_hand=tuple(map(int, told["in_hand"])))
    except (ValueError, TypeError, KeyError):
        return None


def _content(worker: Worker) -> bytes:
    return json.dumps(asdict(worker)).encode()


@cache
def this_machine() -> str:
    """Where a process number means the same process: this boot of this machine, and on Linux this container.

    Not the host's name, which containers may share.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def runs(pid: int) -> bool:
    """Whether a process of this machine runs; one that died and was not waited for does not."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
