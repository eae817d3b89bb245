"""A job that is to take the place of another one: made aside, published when it is complete.

It stands in `DST/__scanrnn/restart/`, so that the old output is whole until the new one is. It has the layout of a
destination of its own, but its parts end in `.parquet.staged`, see `store.staged`. Whoever restarts, publishes or
cleans holds a lock of the destination, `REPLACING`, besides which nobody begins an attempt there; so no two publish at
once, and nobody works on what is being replaced.

Publishing may be cut short at any point, and is then done to its end by the next command on the destination: every move
was made or not, and what says that the new output is complete goes last. It may also go on after a pause so long that
another one ended it. So only what the new output does not name is removed, by a list that is made first; the lock is
confirmed before every step; and `job.json` is replaced early, by which a process that still works on the old job learns
of it before it names anything. In a folder what such a one had written aside by then is removed, and cannot be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scanrnn_dist.dataset.commits import read_parts
from scanrnn_dist.dataset.local_store import ASIDE
from scanrnn_dist.dataset.manifest import JOB, PARTS, PLAN, RECORDS, RESTART, SUCCESS, Manifest, part_name
from scanrnn_dist.dataset.store import Store, staged
from scanrnn_dist.dataset.workers import DONE, EXPIRY_SECONDS, REPLACING, STOPPED, Lock, living_workers, lock_names
from scanrnn_dist.errors import ConfigError, DataError, StoppedError

_COMING = "coming"
"""Of the totals of a restart that is being published: the names of its records, moved or not."""
PART = re.compile(r"part-\d{5,}\.parquet")


def restart_of(manifest: Manifest) -> Manifest:
    """The records of the job that is to take the place of this one."""
    return Manifest(manifest.store.child(RESTART))


@contextmanager
def replacing(manifest: Manifest, expiry_seconds: float = EXPIRY_SECONDS) -> Iterator[Lock]:
    """Have the destination for oneself: nobody else restarts, publishes or cleans, and nobody works there.

    Raises:
        StoppedError: somebody else has it.
        ConfigError: somebody works there.
    """
    lock = Lock(manifest.store, REPLACING, expiry_seconds)
    try:
        _check_idle(manifest)
        yield lock
    except BaseException:
        lock.release(STOPPED)
        raise
    lock.release(DONE)


def finish_publishing(manifest: Manifest) -> bool:
    """Publish a restart that is complete, as where the process died that did; whether there was one."""
    if not restart_of(manifest).is_complete:
        return False
    with replacing(manifest) as lock:
        return publish(manifest, lock)


def publish(manifest: Manifest, lock: Lock) -> bool:
    """Put a complete restart in the place of the old output; the lock is that of `replacing`. Whether it was complete.

    Raises:
        DataError: parts of the new output are missing.
        StoppedError: the file system refused, or the lock was lost.
    """
    new, store = restart_of(manifest), manifest.store
    if not new.is_complete:
        return False
    if new.find_job() is None:  # its record was moved already; either refuses a restart of another version
        manifest.find_job()
    lock.confirm()
    _check_idle(manifest)
    _check_parts(manifest, new)
    totals, coming = _begun(new, lock)
    delete, take = lock.guarded(store.delete), lock.guarded(lambda name: _take(new, store, name))
    delete(SUCCESS)
    store.sync()
    for name in [*filter(PLAN.fullmatch, coming), JOB]:
        take(name)
    for name in store.below(ASIDE):
        if f".{store.attempt}." not in name:
            delete(name)
    names = {part_name(unit, totals["parts"]) for unit in range(totals["parts"])}
    for name in sorted(names.intersection(name for name, _ in new.store.entries())):
        take(name)
    for name in sorted(name for name, _ in store.entries() if PART.fullmatch(name) and name not in names):
        delete(name)
    for name in coming:
        take(name)
    kept = (f"{RESTART}/", f"{ASIDE}/", lock_names(REPLACING))
    for name in sorted(set(store.below(RECORDS)) - set(coming)):
        if not name.startswith(kept):
            delete(name)
    for folder in {"", *(name.rpartition("/")[0] for name in coming)}:
        store.sync(folder)
    manifest.write_totals(totals, lock.confirm)
    told = f"{RESTART}/{SUCCESS}"
    for name in sorted(store.below(RESTART), key=lambda name: name == told):
        delete(name)
    lock.guarded(store.delete_below)(RESTART)
    return True


def _begun(new: Manifest, lock: Lock) -> tuple[dict[str, Any], list[str]]:
    """The totals of a complete restart, and the names of its records, also of those that were moved already."""
    totals = new.read_totals()
    if _COMING not in totals:
        names = sorted(name for name in new.store.below(RECORDS) if not name.startswith(f"{ASIDE}/"))
        if JOB not in names:
            raise StoppedError(f"{new.store.root} was published by another process. Start the same command again.")
        totals[_COMING] = names
        new.write_totals(totals, lock.confirm)
    coming = totals.pop(_COMING)
    return totals, coming


def _take(new: Manifest, store: Store, name: str) -> None:
    """Give a file of the restart its place, unless that was done."""
    if new.store.exists(name):
        store.move(f"{RESTART}/{staged(name)}", name)


def _check_idle(manifest: Manifest) -> None:
    """Refuse to replace what somebody works on."""
    for worker in living_workers(manifest.store):
        if worker.share != REPLACING:
            raise ConfigError(f"{manifest.store.root} is being worked on: {worker}. Wait for it, or stop it.")


def _check_parts(manifest: Manifest, new: Manifest) -> None:
    """See that all parts of the new output stand, here or there, before anything of the old one goes."""
    if not new.store.exists(PARTS):  # moved already, and so were all parts
        return
    stand = dict(manifest.store.entries()) | dict(new.store.entries())
    records = read_parts(new.store.read(PARTS), new.store.path(PARTS))
    for unit, size in zip(records["unit"].to_pylist(), records["size_bytes"].to_pylist(), strict=True):
        name = part_name(unit, len(records))
        if stand.get(name) != size:
            raise DataError(
                f"{new.store.path(name)} is missing or changed, so the new output does not take the place of the old "
                f"one. Remove {new.store.root} and begin with --restart again."
            )
