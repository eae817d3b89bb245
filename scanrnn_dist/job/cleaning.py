"""What attempts that crashed left at a destination, to be removed; nothing that a job needs, and nothing of others.

- files that were written aside and never got their name, of attempts that are not alive;
- parts, and lists of rows set aside, that no record names, where nobody is at work: a job that needs one makes it anew;
- plans that the job does not name: of another process that planned the same destination at once;
- files of processes that are not alive, once the job is complete;
- a job for a source that changed, which never took its place (`amend.py`);
- empty traces, of processes that were killed: one that crashed leaves one that tells of it;
- uploads to an S3 bucket that were begun and never completed, which nobody sees and which take room, where nobody is at
  work. On Google's and Azure's stores they go by themselves, or by a life-cycle rule.

But for the first, whoever cleans has the destination for itself meanwhile (`restart.replacing`), and does nothing where
somebody works. A restart that died while it was published is published first, to its end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from scanrnn_dist.errors import counted
from scanrnn_dist.job.amend import ACCEPTED
from scanrnn_dist.job.restart import PART, finish_publishing, is_ready, replacing, restart_of
from scanrnn_dist.observe import as_text
from scanrnn_dist.records import (
    COMMITS,
    CRASH,
    EXPIRY_SECONDS,
    PARTS,
    PLAN,
    QUARANTINE,
    RECORDS,
    REPLACING,
    RESTART,
    TABLE,
    UNITS,
    WORKERS,
    JobRecords,
    lease_names,
    living_workers,
    part_names,
    quarantine_name,
    read_commits,
    read_parts,
    read_weights,
    runs,
)
from scanrnn_dist.storage import ASIDE, Store, open_store, this_host

_ASIDE = re.compile(rf"(?:{RESTART}/)?{ASIDE}/.*\.(?P<attempt>(?P<host>[^./]+)\.(?P<pid>\d+)\.[0-9a-f]{{8}})\.tmp")


@dataclass(frozen=True)
class Cleaning:
    """What was removed, or would be: names within the destination, and bytes."""

    destination: str
    names: tuple[str, ...]
    nbytes: int
    is_done: bool

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        if not self.names:
            return f"{self.destination}: nothing to remove"
        what = f"{counted(len(self.names), 'file')}, {self.nbytes:,} bytes {'removed' if self.is_done else 'to remove'}"
        return "\n".join([f"{self.destination}: {what}", *(f"  {name}" for name in self.names)])


def clean(destination: str | os.PathLike[str], *, dry_run: bool = False) -> Cleaning:
    """Remove what crashed attempts left at a destination; on a `dry_run` only say what that would be.

    Raises:
        ConfigError: there is neither a job nor what is left of one.
        DataError: its records are damaged.
    """
    records = JobRecords(open_store(destination))
    store, new = records.store, restart_of(records)
    asides = list(_asides(store, new.store))
    job = records.find_job()
    if job is None and not any(name.startswith(f"{RECORDS}/") for name in store.below()):
        records.read_job()  # says that there is none
    is_free = job is not None and not (living_workers(store) or living_workers(new.store))
    uploads = store.unfinished() if is_free else []  # first: one that comes later is somebody's
    # Also first: a lease would need room, which a full disk has not.
    removed = _removed(store, asides, None if dry_run else store.delete)
    if is_free and dry_run:
        removed |= _removed(store, () if is_ready(records) else _unrecorded(records), None)
    elif is_free:
        finish_publishing(records)
        with replacing(records) as lease:
            removed |= _removed(store, _unrecorded(records), lease.remove)
            for upload in uploads:
                lease.confirm()
                store.abort(upload)
    return Cleaning(store.root, (*sorted(removed), *uploads), sum(removed.values()), not dry_run)


def _removed(store: Store, names: Iterable[str], delete: Callable[[str], None] | None) -> dict[str, int]:
    """Those of the names that are there, with their sizes; `delete` removes them."""
    wanted = set(names)
    there = {name: size for name, size in store.below().items() if name in wanted} if wanted else {}
    if delete is not None:
        for name in sorted(there):
            delete(name)
    return there


def _asides(store: Store, new: Store) -> Iterator[str]:
    """What was written aside by attempts that are not at work.

    One that holds no share yet is told by its process where that runs on this machine, elsewhere by the file's age.
    """
    names = [*store.below(ASIDE), *store.below(f"{RESTART}/{ASIDE}")]  # first: who begins later is not seen to live
    alive = {name for of in (store, new) for worker in living_workers(of) for name in worker.names}
    for name in names:
        match = _ASIDE.fullmatch(name)
        if match is None or match["attempt"] in alive:
            continue
        is_here = match["host"] == this_host()
        if not (runs(int(match["pid"])) if is_here else abs(store.age_seconds(name)) < EXPIRY_SECONDS):
            yield name


def _unrecorded(records: JobRecords) -> Iterator[str]:
    """Names that nobody at work and no record stands for."""
    store, job, new = records.store, records.read_job(), restart_of(records)
    new_job = new.find_job()
    if (new_job is None or ACCEPTED in new_job) and not is_ready(records):
        yield from store.below(RESTART)
    yield from (f"{COMMITS}/{name}" for name, size in store.entries(COMMITS) if name.endswith(CRASH) and not size)
    for name, _ in store.entries(RECORDS):
        match = PLAN.fullmatch(f"{RECORDS}/{name}")
        if match and not job["plan"].get(f"{match[1]}{TABLE}", "").startswith(match[2]):
            yield f"{RECORDS}/{name}"
    if records.is_complete:
        yield from (name for name in store.below(WORKERS) if not name.startswith(lease_names(REPLACING)))
    rows, _ = read_weights(records.read_plan(job, UNITS))
    lists = store.below(QUARANTINE)  # first, like the parts: one that comes later is somebody's
    parts = [name for name, _ in store.entries() if PART.fullmatch(name)]
    if records.is_complete:  # whose logs nobody needs any more
        recorded = read_parts(records.read_success()[1], store.path(PARTS))
    else:
        recorded = read_commits(store, job["id"], rows).records
    names = set(part_names(recorded["unit"].to_pylist(), len(rows)))
    yield from (name for name in parts if name not in names)
    with_aside = recorded.filter(pc.greater(recorded["aside"], 0))["unit"].to_pylist()
    listed = {quarantine_name(unit, len(rows)) for unit in with_aside}
    yield from (name for name in lists if name not in listed)
