"""A job whose source changed becomes the job of the source as it is now, and keeps the parts of what did not change.

The amended job is made aside, where a restart would be: its records, a copy of the commit logs under the new numbers of
the units, and, of the parts whose number is another one now, a second name of the same file (in a bucket a copy). That
touches nothing of the old job. Then it takes the old one's place at once, by `restart.publish`, and goes on as any
unfinished job does: with the units that are new or changed. Whoever dies before the place is taken has changed nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from scanrnn_dist.errors import DataError, StoppedError, counted
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.job.restart import Coming, publish, remove_restart, restart_of, spans_of, write_coming
from scanrnn_dist.records import (
    COMMITS,
    ENCODER,
    JOB,
    PLAN,
    QUARANTINE,
    RECORDS,
    RESTART,
    JobRecords,
    Lease,
    hashes_of,
    part_name,
    quarantine_name,
    read_commits,
    renumbered_logs,
)
from scanrnn_dist.source import found_again, unchanged
from scanrnn_dist.storage import Store, staged

logger = logging.getLogger("scanrnn_dist")

ACCEPTED = "accepted"
"""Of a job: which changes of its source were accepted, in words."""


def amend(records: JobRecords, lease: Lease, job: dict[str, Any], before: Plan, plan: Plan) -> dict[str, Any]:
    """Have a recorded job be the one of a new plan, of the same options; returns the record of that one.

    The lease is that of `replacing`; `StoppedError` if the file system refused, or the lease was lost.
    """
    new, store = restart_of(records), records.store
    if _is_restart(new):
        logger.warning("%s: the --restart that was begun here is removed; it was not complete.", store.root)
    remove_restart(new, lease)
    (numbers, with_aside), units = _taken_over(store, job["id"], before, plan), len(plan.units)
    changes = [*job.get(ACCEPTED, []), *before.changes_to(plan.source.files).told]
    told = {name: value for name, value in job.items() if name not in ("id", "plan")}
    told |= {"options": {**job["options"], "source": plan.named}, ACCEPTED: changes}
    plan_files = plan.to_records()
    lease.confirm()
    amended = new.create_job(told, plan_files, replaces=job["id"])
    if amended["plan"] != hashes_of(plan_files):
        raise StoppedError(f"{new.store.root} is written by another process too. Start the same command again.")
    for name, content in renumbered_logs(store, job["id"], amended["id"], numbers):
        new.store.write(name, content, check=lease.confirm)
    for old, number in numbers.items():
        names = part_name(old, len(before.units)), part_name(number, units)
        if names[0] != names[1]:
            lease.confirm()
            store.link(names[0], f"{RESTART}/{staged(names[1])}")
    lists = {quarantine_name(old, len(before.units)): quarantine_name(numbers[old], units) for old in with_aside}
    for name, new_name in lists.items():
        if name != new_name:
            lease.confirm()
            store.link(name, f"{RESTART}/{new_name}")
    for folder in ("", COMMITS, QUARANTINE):
        new.store.sync(folder)
    coming = [name for name in new.store.below(RECORDS) if name == JOB or PLAN.fullmatch(name)]
    coming += [*new.store.below(COMMITS), ENCODER, *lists.values()]
    kept = np.array(sorted(numbers.values()), np.int64)
    write_coming(new, Coming(coming, units, spans_of(kept), None, amended["id"]), lease)
    publish(records, lease)
    kept_parts, parts = f"{len(numbers):,}", counted(units, "part")
    logger.info("%s: changes of the source are accepted; %s of %s are kept.", store.root, kept_parts, parts)
    return amended


def kept_parts(records: JobRecords, job: dict[str, Any], before: Plan, plan: Plan) -> int:
    """Parts of a recorded job that `amend` would keep."""
    return len(_taken_over(records.store, job["id"], before, plan)[0])


def _is_restart(new: JobRecords) -> bool:
    """Whether there is a restart that was begun; not what is left of an amendment that never took its place."""
    try:
        job = new.find_job()
    except DataError:
        return True
    return job is not None and ACCEPTED not in job


def _taken_over(store: Store, job: str, before: Plan, plan: Plan) -> tuple[dict[int, int], list[int]]:
    """Units that stand whole and are those of the new plan too, with their numbers in it; and which set rows aside."""
    records = read_commits(store, job, before.units.rows, only_standing=True).records
    committed, lists = records["unit"].to_numpy(), store.below(QUARANTINE)
    with_aside = committed[records["aside"].to_numpy() > 0].tolist()
    cut = [unit for unit in with_aside if quarantine_name(unit, len(before.units)) not in lists]
    old = found_again(plan.units, before.units, unchanged(plan.source.files, before.source.files))
    kept = np.flatnonzero(np.isin(old, np.setdiff1d(committed, cut)) & (old >= 0))
    numbers = dict(zip(old[kept].tolist(), kept.tolist(), strict=True))
    return numbers, [unit for unit in with_aside if unit in numbers]
