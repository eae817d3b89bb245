"""A job that is to take the place of another one: made aside, published when it is complete.

It stands in `DST/_scanrnn/restart/`, with the layout of a destination of its own, so that the old output is whole until
the new one is. Whoever restarts, publishes or cleans holds a lock of the destination, `REPLACING`, besides which nobody
begins an attempt there; so no two publish at once, and nobody works on what is being replaced.

Publishing may be cut short at any point, and is then done to its end by the next command on the destination: every move
was made or not, and what says that the new output is complete goes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from scanrnn_dist.dataset.commits import read_parts
from scanrnn_dist.dataset.local_store import ASIDE
from scanrnn_dist.dataset.manifest import JOB, PARTS, RECORDS, RESTART, SUCCESS, Manifest, part_name
from scanrnn_dist.dataset.workers import DONE, EXPIRY_SECONDS, REPLACING, STOPPED, Lock, living_workers, lock_names
from scanrnn_dist.errors import ConfigError, DataError

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
    lock.check()
    _check_idle(manifest)
    success = new.store.read(SUCCESS)
    _check_parts(manifest, new)
    store.delete(SUCCESS)
    store.sync()
    parts = new.parts_told
    names = {part_name(unit, parts) for unit in range(parts)}
    for name in sorted(names.intersection(name for name, _ in new.store.entries())):
        store.move(f"{RESTART}/{name}", name)
    for name in sorted(name for name, _ in store.entries() if PART.fullmatch(name) and name not in names):
        store.delete(name)
    store.sync()
    _replace_records(manifest, new)
    store.write(SUCCESS, success)
    store.delete_below(RESTART)
    return True


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


def _replace_records(manifest: Manifest, new: Manifest) -> None:
    """Old records go, the old job's own last; then the new ones come, the new job's own last.

    So which of the two `job.json` are there tells what a crash has left to do.
    """
    store = manifest.store
    coming = sorted(new.store.below(RECORDS), key=lambda name: (name == JOB, name))
    # In a bucket a move is a copy, then a deletion: between the two, both are the new job's, and nothing old is left.
    if JOB in coming and store.exists(JOB) and store.read(JOB) != new.store.read(JOB):
        kept = (f"{RESTART}/", f"{ASIDE}/", lock_names(REPLACING))
        for name in sorted(store.below(RECORDS), key=lambda name: (name == JOB, name)):
            if not name.startswith(kept):
                store.delete(name)
    for name in coming:
        if not name.startswith(f"{ASIDE}/"):
            store.move(f"{RESTART}/{name}", name)
