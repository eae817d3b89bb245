"""Who is at work at a job, and on which share of it, as the files of their leases tell.

    DST/__scanrnn/workers/2-of-16.000003.json      share 2 of 16, held by its third owner

The owner writes the file anew every few seconds; with it goes how far it is, for `scanrnn status`. One that ended says
so. One that died is told by its process where that ran on this machine, elsewhere by the age of its last beat. How a
share is taken, held and lost says `lease.py`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from scanrnn_dist.records.names import WORKERS
from scanrnn_dist.storage import Store

EXPIRY_SECONDS = 60.0
"""A lease whose owner has not written it for so long is free: a pause of a shared filesystem or a swapping machine is
shorter, and a person waits so long for the job of another machine that died."""
READINGS = 5
_LEASE = re.compile(r"(\d+)-of-(\d+)\.(\d+)\.json")
_KINDS: dict[Any, Any] = {"str": str, "int": int, "float": float}
WORKING, STOPPED, DONE = "working", "stopped", "done"

Share = tuple[int, int]
"""`(k, n)`: the k-th of n shares, counted from 1."""
REPLACING: Share = (0, 0)
"""In place of a share: the whole destination, see `job/restart.py`."""


@dataclass(frozen=True)
class Worker:
    """The owner of a share as its file tells."""

    attempt: str
    host: str
    pid: int  # of its process there
    share: Share
    state: str  # "working"; "stopped" before all was done; or "done"
    started: float  # seconds since 1970
    beat: float  # when it last wrote, seconds since 1970
    expiry_seconds: float = EXPIRY_SECONDS  # how long after its beat it counts as dead
    units: int = 0  # committed by it
    rows: int = 0  # of these units
    values: int = 0  # of these units, what steps are weighed by
    rows_in_hand: int = 0  # that are finished, of units that are not committed
    values_in_hand: int = 0  # of these rows, about
    values_per_second: float = 0.0  # finished of late
    machine: str = ""  # what knows of its process, see `this_machine`
    in_hand: tuple[int, ...] = ()  # units that it began and has not committed, some of them
    reason: str = ""  # why it stopped, where it could say so
    helpers: tuple[str, ...] = ()  # attempts of processes that it hands its units to

    @property
    def is_alive(self) -> bool:
        """Whether it works, as far as can be told: of this machine's processes for certain."""
        # A clock that is ahead of this one by more than the expiry is as little to be believed as an old beat.
        if self.state != WORKING or abs(time.time() - self.beat) > self.expiry_seconds:
            return False
        return self.machine != this_machine() or runs(self.pid)

    @property
    def names(self) -> tuple[str, ...]:
        """The attempts that work on its share: its own, and those that help."""
        return (self.attempt, *self.helpers)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, last heard of {max(0, time.time() - self.beat):.0f} s ago"


def read_workers(store: Store, of: Share | None = None) -> list[Worker]:
    """The present owner of every share that ever had one, or of this one."""
    newest = dict(sorted(leases(store)))  # of each share the last one stays
    workers = (read_worker(store, lease_file(*it)) for it in newest.items() if of is None or it[0] == of)
    return [worker for worker in workers if worker is not None]


def living_workers(store: Store, of: Share | None = None) -> list[Worker]:
    """Those of them that are at work."""
    return [worker for worker in read_workers(store, of) if worker.is_alive]


def lease_names(share: Share) -> str:
    """What the names of all lease files of a share begin with."""
    return f"{WORKERS}/{share[0]}-of-{share[1]}."


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
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's
    return True


def lease_file(share: Share, number: int) -> str:
    """The file of a share's owner of a number."""
    return f"{lease_names(share)}{number:06}.json"


def leases(store: Store) -> Iterator[tuple[Share, int]]:
    """Share and number of each owner whose file is there."""
    for name, _ in store.entries(WORKERS):
        if match := _LEASE.fullmatch(name):
            index, count, number = map(int, match.groups())
            yield (index, count), number


def read_worker(store: Store, name: str) -> Worker | None:
    """The owner that a file tells of; None if it was removed meanwhile, or is not to be understood."""
    return read_worker_version(store, name)[0]


def read_worker_version(store: Store, name: str) -> tuple[Worker | None, str]:
    """The same, and the version of its file, which is empty if there is none.

    On what only pyarrow speaks to, a file that is written anew while it is read comes cut.
    """
    version = ""
    for _ in range(READINGS):
        try:
            content, version = store.read_version(name)
        except FileNotFoundError:
            return None, ""
        worker = _understood(content)
        if worker is not None:
            return worker, version
        time.sleep(0.01)
    return None, version


def _understood(content: bytes) -> Worker | None:
    try:
        told: dict[str, Any] = json.loads(content)
        first, count = map(int, told["share"])
        plain = {field.name: _KINDS[field.type](told[field.name]) for field in fields(Worker) if field.type in _KINDS}
        in_hand, helpers = tuple(map(int, told["in_hand"])), tuple(map(str, told["helpers"]))
        return Worker(**plain, share=(first, count), in_hand=in_hand, helpers=helpers)
    except (ValueError, TypeError, KeyError):
        return None


def worker_bytes(worker: Worker) -> bytes:
    """What its file holds."""
    return json.dumps(asdict(worker)).encode()
