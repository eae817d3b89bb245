"""`open_job`: the only way to a job. It finds what stands, plans, compares, gives way, restarts, publishes.

The same job is one with the same source, options, encoder and window. What must also be the same, unless the user
allows otherwise, is the environment: devices, flags and versions, which may change bits. Of a finished job nothing
is computed any more, so its environment does not matter; nor is JAX started or a program compiled for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.amend import ACCEPTED, amend
from scanrnn_dist.job.apart import check_apart
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.continued import APPLIED, ContinuedPlan, check_is_whole
from scanrnn_dist.job.damage import damaged_parts, set_right
from scanrnn_dist.job.differences import changed_source, differences_of
from scanrnn_dist.job.keeping import check_keeps
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.options import Handling, JobOptions
from scanrnn_dist.job.plan import Plan, with_columns
from scanrnn_dist.job.restart import (
    finish_publishing,
    publish,
    remove_restart,
    replacing,
    restart_of,
    wait_until_free,
)
from scanrnn_dist.job.sorting import sorted_copy
from scanrnn_dist.job.wanted import (
    Wanted,
    check_no_work,
    check_nothing_waits,
    fate_of,
    has_parts,
    is_done,
    leave_to_sort,
    planned,
    recorded_job,
)
from scanrnn_dist.records import (
    ENCODER,
    JOB,
    PARTS,
    QUARANTINE,
    HeldError,
    JobRecords,
    Lease,
)
from scanrnn_dist.source import SourceLike, check_source
from scanrnn_dist.storage import open_store

logger = logging.getLogger("scanrnn_dist")


@dataclass(frozen=True)
class OpenJob:
    """A job that may be worked on.

    Args:
        destination: where it stands, in full; of a restart, where it will stand.
        records, job: where it is recorded, and its record.
        plan, options: that hold for it.
        environment: that of the process, which may be another than the record's; nothing of a job that is done.
        memory: what it may hold of rows.
        is_done: whether it was found finished, so that nothing was prepared to compute with.
    """

    destination: str
    records: JobRecords
    job: dict[str, Any]
    plan: Plan
    options: JobOptions
    environment: dict[str, Any] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    is_done: bool = False


@contextmanager
def open_job(
    destination: str | os.PathLike[str],
    source: SourceLike | Plan | None,
    options: JobOptions,
    handling: Handling,
    computation: Computation,
) -> Iterator[OpenJob]:
    """The job to work on, made if the destination is new; at the end a restart takes the place of the old output.

    A finished job of which parts are missing, or of another size than recorded, is unfinished again.

    Args:
        destination: folder or URI.
        source: what to read; None to go on with the job that stands there, as its records tell it, options too.
        options: of the job.
        handling: what may be done with a job that stands there.
        computation: of the job; asked for nothing where there is nothing to do.

    Raises:
        ConfigError: it holds something else, or a job that differs, or one that is worked on and was to be restarted;
            or options that do not fit the source.
        DataError: the source cannot be read, or it changed since the job began.
        StoppedError: another process restarts, amends or cleans it; or works on it, and it was to be amended, or parts
            of it to be made again.
    """
    records = JobRecords(open_store(destination))
    was_published = finish_publishing(records)
    recorded = recorded_job(records, handling)
    if source is None:
        recorded = recorded or records.read_job()
        if not handling.discard:
            check_nothing_waits(records)
        plan, options = _as_recorded(records, recorded, handling)
        if recorded["options"].get(APPLIED):
            yield OpenJob(records.store.root, records, recorded, plan, options, is_done=True)
            return
    else:
        plan, options, recorded = _as_asked(
            destination, records, recorded, source, options, handling, computation.input
        )
    check_keeps(options, plan.source.schema, plan.layout, plan.keep)
    is_continued = isinstance(plan, ContinuedPlan)
    if not is_continued:
        check_apart(plan.given, plan.source, destination)
    like = recorded if source is None or is_continued or not handling.restart else None
    plan = plan.within(handling.memory)
    wanted = Wanted(records.store.root, plan, options, handling, computation, like)
    if is_done(records, recorded, wanted, was_published):
        yield OpenJob(wanted.root, records, recorded or {}, wanted.plan, wanted.options, is_done=True)
    elif handling.restart and recorded is not None:
        with _restarted_job(records, recorded, wanted) as opened:
            yield opened
    else:
        opened = _found_or_recorded(records, recorded, wanted)
        set_right(records, opened.job, handling.discard, handling.sharing.expiry_seconds)
        yield opened


def _as_recorded(records: JobRecords, recorded: dict[str, Any], handling: Handling) -> tuple[Plan, JobOptions]:
    """The plan and the options that the records tell; refused where the job cannot go on with them alone."""
    plan, options = Plan.read(records, recorded), JobOptions.from_json(recorded["options"])
    if recorded["options"].get(APPLIED):
        if handling.discard or not records.is_complete or damaged_parts(records):
            check_is_whole(recorded, records.store.root)
    elif changes := plan.changes():
        raise changed_source(changes, plan, records.store.root)
    return plan, options


def _as_asked(
    destination: str | os.PathLike[str],
    records: JobRecords,
    recorded: dict[str, Any] | None,
    source: SourceLike | Plan,
    options: JobOptions,
    handling: Handling,
    input: InputSpec | None,
) -> tuple[Plan, JobOptions, dict[str, Any] | None]:
    """The plan of a source, which is sorted first where that is asked for, and the options with what it settles.

    And the job that stands once it is planned, which may take minutes.
    """
    if isinstance(source, Plan):
        return source, options.settled(source.layout, source.keep, source.rows_per_part), recorded
    check_source(source)
    if options.sort:
        may_replace = leave_to_sort(records, recorded, handling)
        source = sorted_copy(source, options, destination, input, handling.memory, may_replace)
    while True:
        try:
            plan = planned(records, recorded, source, options, handling, input)
            break
        except (ConfigError, DataError, StoppedError):
            if (now := _successor(records, recorded)) is None:
                raise
            recorded = now
    recorded = _successor(records, recorded) or recorded
    return plan, options.settled(plan.layout, plan.keep, plan.rows_per_part), recorded


def _successor(records: JobRecords, recorded: dict[str, Any] | None) -> dict[str, Any] | None:
    """The job that another process put in the place of the recorded one meanwhile; None if none did."""
    now = records.find_job() if recorded else None
    if not recorded or now is None or now["id"] == recorded["id"]:
        return None
    finish_publishing(records)
    return records.read_job()


@contextmanager
def _restarted_job(records: JobRecords, recorded: dict[str, Any], wanted: Wanted) -> Iterator[OpenJob]:
    """The job, made anew aside; at the end it takes the place of the old output."""
    check_no_work(records)
    wanted.prepare()
    plan = wanted.plan
    if isinstance(plan, ContinuedPlan):
        _check_goes_on(recorded, wanted)
    with replacing(records, wanted.handling.sharing.expiry_seconds) as lease:
        if isinstance(plan, ContinuedPlan):
            records.check_is({"id": plan.of_job})  # another update may have been published since it was planned
        new = restart_of(records, lease)
        yield _found_or_recorded(new, _begun_restart(new, wanted, lease), wanted, replaces=recorded.get("id", ""))
        publish(records, lease)


def _to_work_on(records: JobRecords, recorded: dict[str, Any], wanted: Wanted, plan: Plan) -> OpenJob:
    """The job, to be worked on."""
    environment, memory = wanted.job["environment"], wanted.handling.memory
    return OpenJob(wanted.root, records, recorded, plan, wanted.options, environment, memory)


def _check_goes_on(recorded: dict[str, Any], wanted: Wanted) -> None:
    """Refuse to go on from states that another encoder or environment made."""
    like = {**recorded, "options": wanted.job["options"]}
    if differences := differences_of(like, wanted.job, wanted.handling.allow_mixed):
        raise ConfigError(
            f"{wanted.root} cannot be continued: {'; '.join(differences[:6])}. Continue it where it was made, with the "
            "same encoder; --allow-mixed goes on in another environment, with bits that may differ."
        )


def _found_or_recorded(
    records: JobRecords, recorded: dict[str, Any] | None, wanted: Wanted, replaces: str = ""
) -> OpenJob:
    """The job that is recorded, if it is this one, or this one, recorded now.

    Of processes that start together one records or amends the job. The others look again, and go on with it.
    """
    if recorded is None:
        try:
            records.check_is_free()
        except ConfigError:
            recorded = records.find_job()  # begun, since it was looked for, by another process
            if recorded is None:
                raise
    if recorded is None:
        wanted.prepare()
        recorded = records.create_job(wanted.job, wanted.plan_files, replaces)
    try:
        what, plan = fate_of(records, recorded, wanted)
        if what == "goes on":
            return _to_work_on(records, recorded, wanted, plan)
        if what == "amended":
            return _amended(records, recorded, plan, wanted)
        now = _anew(records, recorded, wanted, replaces)
    except HeldError:
        wait_until_free(records, wanted.handling.sharing.expiry_seconds)
        now = recorded
    except (ConfigError, DataError, StoppedError):
        if (found := _successor(records, recorded)) is None:
            raise
        now = found
    return _found_or_recorded(records, now, wanted, replaces)


def _anew(records: JobRecords, recorded: dict[str, Any], wanted: Wanted, replaces: str) -> dict[str, Any]:
    """The record of the job in the place of one of which nothing was done; of that one if it was begun by now."""
    wanted.prepare()
    if (now := _successor(records, recorded)) is not None:
        return now
    with replacing(records, wanted.handling.sharing.expiry_seconds) as lease:
        records.check_is(recorded)
        if has_parts(records):
            return recorded
        for name in (*records.store.below(QUARANTINE), ENCODER, PARTS, JOB):
            lease.remove(name)
        logger.info("%s held a job of which nothing was done yet; this one takes its place.", records.store.root)
        return records.create_job(wanted.job, wanted.plan_files, replaces)


def _amended(records: JobRecords, recorded: dict[str, Any], before: Plan, wanted: Wanted) -> OpenJob:
    """The job with the source as it is now; by whichever process comes first."""
    plan = wanted.plan
    if changes := plan.changes():
        raise changed_source(changes, plan, wanted.root)
    plan = replace(plan, source=with_columns(plan.source, before))
    with replacing(records, wanted.handling.sharing.expiry_seconds) as lease:
        records.check_is(recorded)
        amended = amend(records, lease, recorded, before, plan)
    return _to_work_on(records, amended, wanted, plan)


def _begun_restart(new: JobRecords, wanted: Wanted, lease: Lease) -> dict[str, Any] | None:
    """The same job, if a restart of it was begun here and its source is as it was; else nothing is left of it."""
    try:
        recorded = new.find_job()
        if recorded is not None and ACCEPTED not in recorded:
            is_same = not differences_of(recorded, wanted.job, wanted.handling.allow_mixed)
            is_same = is_same and (
                wanted.has_plan_of(recorded) or (not wanted.plan.told and not Plan.read(new, recorded).changes())
            )
            if is_same:
                new.read_plan(recorded)  # raises if it does not stand
                return recorded
    except DataError:
        logger.info("%s cannot be understood; the restart begins anew.", new.store.root)
        recorded = None
    if recorded is not None:
        logger.info("%s is of another job, or of a source that changed since; the restart begins anew.", new.store.root)
    remove_restart(new, lease)
    return None
