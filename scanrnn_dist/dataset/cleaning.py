"""What attempts that crashed left at a destination, to be removed; nothing that a job needs, and nothing of others.

- files that were written aside and never got their name, of attempts that are not alive;
- parts that were named and never recorded, where nobody is at work: the job would write them anew;
- plans that no job names: of two processes that planned one destination at once, or of one that died before its job
  was recorded;
- files of processes that are not alive, once the job is complete.

Uploads to an object store that were begun and never completed are visible to nobody, pyarrow included: a life-cycle
rule of the bucket removes them.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from scanrnn_dist.dataset.commits import read_commits
from scanrnn_dist.dataset.destination import open_store
from scanrnn_dist.dataset.local_store import ASIDE
from scanrnn_dist.dataset.manifest import RECORDS, RESTART, Manifest, part_name
from scanrnn_dist.dataset.plan_records import read_weights
from scanrnn_dist.dataset.workers import WORKERS, Worker, read_workers, runs

_ASIDE = re.compile(rf"^{ASIDE}/.*\.(?P<host>[^/]*)\.(?P<pid>\d+)\.[0-9a-f]{{8}}\.tmp$")
_PART = re.compile(r"part-\d+\.parquet")


@dataclass(frozen=True)
class Cleaning:
    """What was removed, or would be: names within the destination, and bytes."""

    destination: str
    names: tuple[str, ...]
    nbytes: int
    is_done: bool

    def __str__(self) -> str:
        if not self.names:
            return f"{self.destination}: nothing to remove"
        head = f"{self.destination}: {len(self.names)} files, {self.nbytes:,} bytes"
        return "\n".join(
            [f"{head} {'removed' if self.is_done else 'to remove'}", *(f"  {name}" for name in self.names)]
        )


def clean(destination: str | os.PathLike[str], *, dry_run: bool = False) -> Cleaning:
    """Remove what crashed attempts left.

    Args:
        destination: folder or URI.
        dry_run: whether only to say what would be removed.

    Raises:
        ConfigError: there is neither a job nor what is left of one.
        DataError: its records are damaged.
    """
    store = open_store(destination)
    sizes = store.below()
    manifest = Manifest(store)
    if not any(name.startswith(f"{RECORDS}/") for name in sizes):
        manifest.read_job()
    roots = [manifest]
    if any(name.startswith(f"{RESTART}/") for name in sizes):
        roots.append(Manifest(store.child(RESTART)))
    names = sorted(f"{root.store.root}/{name}" for root in roots for name in _left(root))
    relative = tuple(dict.fromkeys(name.removeprefix(f"{store.root}/") for name in names))
    for name in () if dry_run else relative:
        store.delete(name)
    return Cleaning(store.root, relative, sum(sizes.get(name, 0) for name in relative), not dry_run)


def _left(manifest: Manifest) -> Iterator[str]:
    """Names of what may go, of one job."""
    store, workers = manifest.store, read_workers(manifest.store)
    alive = [worker for worker in workers if worker.is_alive]
    names = [name for name in store.below() if not name.startswith(f"{RESTART}/")]
    for name in names:
        match = _ASIDE.search(name)
        if match and not _is_of_living(match, name, alive):
            yield name
    job = manifest.find_job()
    for name in names:
        if re.fullmatch(rf"{RECORDS}/(files|units)-[0-9a-f]{{16}}\.parquet", name):
            stem, _, digest = name.removeprefix(f"{RECORDS}/").removesuffix(".parquet").partition("-")
            if job is None or not job["plan"][f"{stem}.parquet"].startswith(digest):
                yield name
    if job is None or alive:
        return
    if manifest.is_complete:
        yield from (name for name in names if name.startswith(f"{WORKERS}/") and name.endswith(".json"))
        return
    rows, _ = read_weights(manifest.read_plan(job))
    commits = read_commits(store, rows)
    recorded = {part_name(unit, commits.units) for unit in commits.committed.tolist()}
    yield from (name for name in names if _PART.fullmatch(name) and name not in recorded)


def _is_of_living(match: re.Match[str], name: str, alive: list[Worker]) -> bool:
    """Whether the attempt that a name tells is at work; of this machine also one that holds no share yet."""
    if any(name.endswith(f".{worker.attempt}.tmp") for worker in alive):
        return True
    is_here = match["host"].endswith(socket.gethostname())
    return is_here and runs(int(match["pid"]))
