"""A job that is to take the place of another one: made aside, published when it is ready.

It stands in `DST/__scanrnn/restart/`, so that the old output is whole until the new one can take its place: a restart
once it is complete; an amended job (`amend.py`) as soon as its records and the parts that it takes over stand there.
It has the layout of a destination of its own, but its parts end in `.parquet.staged`, see `store.staged`. Whoever
restarts, amends, publishes or cleans holds a lease of the destination, `REPLACING`, besides which nobody begins an
attempt there; so no two publish at once, and nobody works on what is being replaced.

Publishing may be cut short at any point, and is then done to its end by the next command on the destination: a record,
`PUBLISHING`, says what comes and what stays; every move was made or not; and what says that the new output is complete
goes last. It may also go on after a pause so long that another one ended it. So only what the new output does not name
is removed; the lease is confirmed before every step; and `job.json` is replaced early, by which a process that still
works on the old job learns of it before it names anything. In a folder what such a one had written aside by then is
removed, and cannot be named. Whatever is moved, removed or replaced is what stood there when the lease was
confirmed: who wakes later touches nothing of what another one published, or has begun to make.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, starmap
from typing import Any

import numpy as np

from scanrnn_dist.errors import DataError, ScanRNNError, StoppedError
from scanrnn_dist.records import (
    DONE,
    EXPIRY_SECONDS,
    JOB,
    PARTS,
    PLAN,
    PUBLISHING,
    RECORDS,
    REPLACING,
    RESTART,
    STOPPED,
    SUCCESS,
    HeldError,
    JobRecords,
    Lease,
    lease_names,
    living_workers,
    part_name,
    part_names,
    read_parts,
)
from scanrnn_dist.storage import ASIDE, Store, is_uri, open_store, split_query, staged

PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True)
class Coming:
    """What a destination holds once a new output has taken its place: all that is not named goes.

    Args:
        records: names of records, moved or not; also of such that stay where they are.
        units: of the new job.
        spans: `[begin, end)` of the units whose parts come, or stay.
        totals: of `_SUCCESS`; None of a job that is not complete.
        job: its id; empty where an earlier version told what comes.
    """

    records: Sequence[str]
    units: int
    spans: Sequence[tuple[int, int]]
    totals: dict[str, Any] | None
    job: str


def spans_of(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Sorted whole numbers as few `[begin, end)`."""
    begins = numbers[np.diff(numbers, prepend=-2) != 1]
    ends = numbers[np.diff(numbers, append=-2) != 1] + 1
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def restart_of(records: JobRecords, lease: Lease | None = None) -> JobRecords:
    """The records of the job that is to take the place of this one; to be worked on as long as the lease is held."""
    return JobRecords(records.store.child(RESTART), guard=None if lease is None else lease.confirm)


def records_to_read(destination: str | os.PathLike[str]) -> JobRecords:
    """The records of a destination for who changes nothing there; it may be `DST/__scanrnn/restart`, a restart's own.

    Raises:
        ConfigError: as `open_store` does, which refuses a restart's folder to all who write.
    """
    if not isinstance(destination, str | os.PathLike):
        return JobRecords(open_store(destination))
    name = os.fspath(destination)
    where, query = split_query(name if is_uri(name) else os.path.abspath(os.path.expanduser(name)))
    above = where.removesuffix(f"/{RESTART}")
    if above == where:
        return JobRecords(open_store(destination))
    return restart_of(JobRecords(open_store(above + query)))


def remove_restart(new: JobRecords, lease: Lease) -> None:
    """Remove what was to take the place of a job: its record first, so that nobody takes a part of it for all of it."""
    before: dict[str, int] = {}
    while names := new.store.below():  # once its record is gone, nobody adds to it for long
        if names == before:
            raise StoppedError(
                f"{new.store.path(min(names))} cannot be removed: it is no file that a job makes. Remove "
                f"{new.store.root} yourself, then start the same command again."
            )
        before = names
        for name in sorted(names, key=lambda name: name != JOB):
            lease.remove(f"{RESTART}/{staged(name)}")
            if name == JOB:
                new.store.sync(RECORDS)
    lease.confirm()
    new.store.delete_empty("")


def is_of_restart(root: str) -> bool:
    """Whether a store's root is that of a restart, which only the command that began it goes on with."""
    return root.endswith(f"/{RESTART}")


@contextmanager
def replacing(records: JobRecords, expiry_seconds: float = EXPIRY_SECONDS) -> Iterator[Lease]:
    """Have the destination for oneself: nobody else restarts, amends, publishes or cleans, and nobody works there.

    Raises:
        StoppedError: somebody else has it, or works there.
    """
    lease = Lease(records.store, REPLACING, expiry_seconds)
    try:
        check_idle(records)
        yield lease
    except BaseException:
        lease.release(STOPPED)
        raise
    lease.release(DONE)


def is_ready(records: JobRecords) -> bool:
    """Whether a new output is to take the place of this one, and maybe began to."""
    new = restart_of(records)
    # A success without a job is what one wrote that slept while its restart was removed.
    return (new.is_complete and new.store.exists(JOB)) or new.store.exists(PUBLISHING)


def check_not_ready(records: JobRecords, then: str) -> None:
    """Raise `StoppedError` where a new output is to take the place of this one; `then` is what to do afterwards."""
    if is_ready(records):
        raise StoppedError(
            f"{records.store.root} is being replaced by a new output, or that was cut short. `scanrnn clean`, or the "
            f"command that replaces it, ends that; then {then}."
        )


def finish_publishing(records: JobRecords) -> bool:
    """Publish what is ready, as where the process died that did; whether there was something, whoever published it."""
    if not is_ready(records):
        if restart_of(records).is_complete:
            records.find_job()  # which may be that of another version, moved by it
        return False
    try:
        with replacing(records) as lease:
            publish(records, lease)
    except StoppedError as error:
        if isinstance(error, HeldError):
            wait_until_free(records, EXPIRY_SECONDS)
        if is_ready(records):
            raise
        # else another process published it meanwhile
    return True


def write_coming(new: JobRecords, coming: Coming, lease: Lease) -> None:
    """Say that a new output is ready to take its place.

    Written aside, then moved, also in a bucket: whoever publishes or removes this output meanwhile removes what stands
    aside, so who wakes after that has nothing left to move.
    """
    aside = new.store.aside_name(PUBLISHING)
    new.store.write(aside, json.dumps(asdict(coming)).encode(), check=lease.confirm)
    lease.confirm()
    new.store.move(aside, PUBLISHING)
    new.store.sync(RECORDS)


def publish(records: JobRecords, lease: Lease) -> bool:
    """Put a new output that is ready in the place of the old one; the lease is that of `replacing`. Whether one was.

    Raises:
        DataError: parts of the new output are missing.
        StoppedError: the file system refused, or the lease was lost.
    """
    if not is_ready(records):
        return False
    new, store = restart_of(records), records.store
    job = new.find_job() or records.find_job()  # its record was moved already; either refuses one of another version
    lease.confirm()
    check_idle(records)
    coming = _told(new)
    listed = _list_of_parts(new, coming, lease)
    _check_parts(records, new, listed, has_begun=coming is not None)
    coming = coming or _tell(new, lease)
    if not _is_of(job, coming) and not _is_of(records.find_job(), coming):
        remove_restart(new, lease)  # which somebody began to do while another one told what comes
        return False
    delete = lease.remove
    delete(SUCCESS)
    store.sync()
    for name in filter(PLAN.fullmatch, coming.records):
        _take(new, store, lease, name)
    _take_job(new, store, lease, coming)
    for name in store.below(ASIDE):
        if f".{store.attempt}." not in name:
            delete(name)
    parts = set(part_names(chain.from_iterable(starmap(range, coming.spans)), coming.units))
    for name in sorted(parts.intersection(name for name, _ in new.store.entries())):
        _take(new, store, lease, name)
    there = {name for name, _ in store.entries() if PART.fullmatch(name)}
    if coming.totals is not None and (missing := sorted(parts - there)):
        lease.confirm()  # or another process ended it, and others go on
        raise _incomplete(new, missing[0])
    for name in sorted(there - parts):
        delete(name)
    for name in coming.records:
        if name != JOB and (name != PARTS or listed is not None):
            _take(new, store, lease, name)
    kept = (f"{RESTART}/", f"{ASIDE}/", lease_names(REPLACING))
    for name in sorted(set(store.below(RECORDS)) - set(coming.records)):
        if not name.startswith(kept):
            delete(name)
    for folder in {"", *(name.rpartition("/")[0] for name in coming.records)}:
        store.sync(folder)
    if coming.totals is not None:
        records.write_totals(coming.totals, lease.confirm)
    last = [f"{RESTART}/{SUCCESS}", f"{RESTART}/{PUBLISHING}"]  # as long as they stand, it is not done
    left = store.below(RESTART)
    for name in [*sorted(left.keys() - set(last)), *(name for name in last if name in left)]:
        delete(name)
    lease.confirm()
    store.delete_empty(RESTART)
    return True


def _is_of(job: dict[str, Any] | None, coming: Coming) -> bool:
    """Whether a record is that of the job that comes, as far as it was told."""
    return not coming.job or (job is not None and job["id"] == coming.job)


def _told(new: JobRecords) -> Coming | None:
    """What comes, as it was recorded; None of a restart that nobody began to publish."""
    try:
        told = json.loads(new.store.read(PUBLISHING))
        spans = [(begin, end) for begin, end in told["spans"]]
        return Coming(told["records"], told["units"], spans, told["totals"], told.get("job", ""))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{new.store.path(PUBLISHING)} is damaged: {error}") from error


def _tell(new: JobRecords, lease: Lease) -> Coming:
    """Record that all of a restart comes."""
    totals = new.read_totals()
    names = sorted(name for name in new.store.below(RECORDS) if not name.startswith(f"{ASIDE}/"))
    if JOB not in names or (job := new.find_job()) is None:
        raise StoppedError(f"{new.store.root} was published by another process. Start the same command again.")
    coming = Coming(names, totals["parts"], [(0, totals["parts"])], totals, job["id"])
    write_coming(new, coming, lease)
    return coming


def _take(new: JobRecords, store: Store, lease: Lease, name: str) -> None:
    """Give a file of the new output its place, unless that was done, or it stands there."""
    version = new.store.version(name)
    lease.confirm()
    if version is not None:
        store.move(f"{RESTART}/{staged(name)}", name, version)


def _take_job(new: JobRecords, store: Store, lease: Lease, coming: Coming) -> None:
    """The same for `job.json`, by which all others learn of it: in place of the record that is there, no later one.

    Not of another job than what comes, whose process slept until this one's was moved; it is removed with what is left.
    """
    try:
        record = new.store.read(JOB)
    except FileNotFoundError:
        return
    if not _is_of(json.loads(record), coming):
        return
    version = store.version(JOB)
    lease.confirm()
    is_made = store.replace(JOB, record, version) if version else store.create(JOB, record)
    if not is_made and store.read(JOB) != record:
        raise StoppedError(f"{store.path(JOB)} was written by another process. Start the same command again.")
    lease.remove(f"{RESTART}/{JOB}")


def check_idle(
    records: JobRecords, error: type[ScanRNNError] = StoppedError, then: str = "then start the same command again"
) -> None:
    """Refuse to replace what somebody works on."""
    for worker in living_workers(records.store):
        if worker.share != REPLACING:
            raise error(f"{records.store.root} is being worked on: {worker}. Wait for it, or stop it, {then}.")


def check_not_replaced(records: JobRecords) -> None:
    """Raise `StoppedError` while somebody restarts, amends or cleans it."""
    for worker in living_workers(records.store, REPLACING):
        raise StoppedError(
            f"{records.store.root} is being restarted, amended or cleaned: {worker}. Wait for it, or stop it."
        )


def wait_until_free(records: JobRecords, seconds: float) -> None:
    """Wait while somebody restarts, amends or cleans it; `StoppedError` once it lasted longer than that."""
    until = time.monotonic() + seconds
    while living_workers(records.store, REPLACING):
        if time.monotonic() > until:
            check_not_replaced(records)
        time.sleep(0.2)


def _list_of_parts(new: JobRecords, told: Coming | None, lease: Lease) -> bytes | None:
    """The list of a restart's parts; None where it has its place already, and of an amended job, which has none.

    A list that the totals do not tell of is that of another restart, whose process slept until this one's was moved.
    """
    if told is None:
        try:
            return new.read_success()[1]
        except DataError:
            lease.confirm()  # or another process published it just now
            raise
    try:
        content = new.store.read(PARTS)
    except FileNotFoundError:
        return None
    is_its_own = told.totals is not None and hashlib.sha256(content).hexdigest() == told.totals["parts_sha256"]
    return content if is_its_own else None


def _check_parts(records: JobRecords, new: JobRecords, listed: bytes | None, has_begun: bool) -> None:
    """See that all parts of a restart stand, here or there, before anything of the old output goes."""
    if listed is None:  # and so all parts were moved; or an amended job's, which need not be whole
        return
    # Once it began, some have their place already; before that, what stands there are parts of the old output.
    aside, there = dict(records.store.entries(RESTART)), dict(records.store.entries()) if has_begun else {}
    parts = read_parts(listed, new.store.path(PARTS))
    for unit, size in zip(parts["unit"].to_pylist(), parts["size_bytes"].to_pylist(), strict=True):
        name = part_name(unit, len(parts))
        if aside.get(staged(name), there.get(name)) != size:
            raise _incomplete(new, name)


def _incomplete(new: JobRecords, name: str) -> DataError:
    """A part of a new output is not as it was recorded."""
    return DataError(
        f"{new.store.path(name)} is missing or changed, so the new output does not take the place of the old one. "
        f"Remove {new.store.root} and repeat the command that began it."
    )
