"""What a job would find at its destination, for those who ask beforehand. Writes nothing."""

from __future__ import annotations

import os
from typing import Any

from scanrnn_dist.errors import NothingFoundError, StoppedError, counted
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.amend import kept_parts
from scanrnn_dist.job.apart import check_apart
from scanrnn_dist.job.columns import choose
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.damage import damaged_parts
from scanrnn_dist.job.differences import changed_source
from scanrnn_dist.job.keeping import check_keeps
from scanrnn_dist.job.options import Handling, JobOptions
from scanrnn_dist.job.plan import Plan, plan_again, plan_job
from scanrnn_dist.job.sorting import standing_copy
from scanrnn_dist.job.wanted import (
    Wanted,
    check_is_there,
    check_no_work,
    check_not_updated,
    is_done,
    leave_to_sort,
    recorded_job,
    refusal,
    was_begun,
    what_differs,
)
from scanrnn_dist.records import JobRecords
from scanrnn_dist.source import SourceLike
from scanrnn_dist.storage import is_uri, open_store


def plan_for(
    destination: str | os.PathLike[str] | None,
    source: SourceLike,
    options: JobOptions,
    handling: Handling,
    input: InputSpec | None,
) -> Plan:
    """The plan of a source for a destination, which may hold a job of it that was begun; writes nothing.

    Raises:
        ConfigError, DataError: as `plan_job`.
        StoppedError: nothing is there of the source any more, as `open_job` would say it.
    """
    try:
        return plan_job(source, options, input)
    except NothingFoundError:
        if destination is not None:
            records = JobRecords(open_store(destination))
            check_is_there(records, records.find_job(), source, handling)
        raise


def standing_job(destination: str | os.PathLike[str], handling: Handling) -> dict[str, Any] | None:
    """The record of the job that a command would go on with, if there is one; raises as `check_destination`."""
    return None if handling.restart else recorded_job(JobRecords(open_store(destination)), handling)


def sorted_source(
    destination: str | os.PathLike[str] | None,
    source: SourceLike,
    options: JobOptions,
    handling: Handling,
    input: InputSpec | None,
) -> str | None:
    """The sorted copy that a job with `--sort` would read; None where it would be made first. Writes nothing.

    Raises:
        ConfigError, DataError, StoppedError: what `open_job` would refuse, as far as it can be told before rows are
            sorted.
    """
    if destination is None:
        choose(source, options, input)
        return None
    records = JobRecords(open_store(destination))
    recorded = recorded_job(records, handling)
    may_replace = leave_to_sort(records, recorded, handling)
    copy = standing_copy(source, options, destination, input, may_replace)
    if copy is None:
        if recorded is None:
            records.check_is_free()
        _check_may_write(records.store.root)
    return copy


def check_destination(
    destination: str | os.PathLike[str], plan: Plan, options: JobOptions, handling: Handling, computation: Computation
) -> tuple[str, bool]:
    """What a job would find at its destination, in words, and whether nothing is left to do; writes nothing.

    Raises:
        ConfigError, DataError, StoppedError: the destination holds what `open_job` would refuse.
    """
    records = JobRecords(open_store(destination))
    asked, options = options, options.settled(plan.layout, plan.keep, plan.rows_per_part)
    check_keeps(options, plan.source.schema, plan.layout, plan.keep)
    check_apart(plan.given, plan.source, destination)
    recorded = recorded_job(records, handling)
    if recorded is None:
        records.check_is_free()
        _check_may_write(records.store.root)
        return "new: nothing is there yet", False
    if handling.restart:
        check_no_work(records)
        _check_may_write(records.store.root)
        return "holds a job; the new output replaces it once it is complete", False
    check_not_updated(records, recorded)
    before = Plan.read(records, recorded)
    if before.has_options(asked):  # what the first steps of the source tell, was told when the job began
        options = asked.settled(before.layout, before.keep, before.rows_per_part)
    is_named_so = before.given == plan.given  # else that differs
    changes = None
    if is_named_so or handling.accept_changes:
        changes = before.changes() if is_named_so else before.changes_to(plan.source.files)
        changes = changes if changes and was_begun(records) else None
        if changes and not (handling.accept_changes and changes.is_listed):
            raise changed_source(changes, before, records.store.root)
    wanted = Wanted(records.store.root, plan, options, handling, computation, recorded)
    done = "holds this same job, finished; there would be nothing to do", True
    if is_done(records, recorded, wanted, was_published=False):
        return done
    differences = what_differs(records, recorded, wanted, handling.allow_mixed, handling.accept_changes)
    if differences and was_begun(records):
        raise refusal(records, recorded, wanted, differences)
    damaged = damaged_parts(records) if records.is_complete else []
    if records.is_complete and not (changes or damaged):
        return done
    _check_may_write(records.store.root)
    if changes:
        again = plan_again(before, plan.given, options)
        kept, parts = kept_parts(records, recorded, before, again), counted(len(again.units), "part")
        return f"holds this job of the source as it was; {kept:,} of {parts} would be kept", False
    if damaged:
        parts = counted(len(damaged), "part")
        return f"holds this same job, finished; {parts}, missing or changed, will be made again", False
    return "holds this same job, unfinished; featurize would continue it", False


def _check_may_write(root: str) -> None:
    """Refuse a folder of this machine in which nothing may be made; a bucket tells it only when it is written to."""
    if is_uri(root):
        return
    folder = os.path.abspath(root)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        remedy = "Make it writable, or choose another destination."
        raise StoppedError(f"{root} could not be written: {folder} is not writable. {remedy}")
