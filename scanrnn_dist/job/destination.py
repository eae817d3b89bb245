"""What a job would find at its destination, for those who ask beforehand. Writes nothing."""

from __future__ import annotations

import os
from typing import Any

from scanrnn_dist.errors import StoppedError, counted
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.amend import kept_parts
from scanrnn_dist.job.apart import check_apart
from scanrnn_dist.job.columns import choose
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.damage import damaged_parts
from scanrnn_dist.job.keeping import check_keeps
from scanrnn_dist.job.options import Handling, JobOptions
from scanrnn_dist.job.plan import Plan, plan_job
from scanrnn_dist.job.sorting import standing_copy
from scanrnn_dist.job.wanted import Wanted, check_no_work, fate_of, is_done, leave_to_sort, planned, recorded_job
from scanrnn_dist.records import JobRecords
from scanrnn_dist.source import SourceLike
from scanrnn_dist.storage import is_uri, open_store

Standing = tuple[JobRecords, dict[str, Any] | None]
"""The records at a destination, and the job that stands there, if there is one."""


def standing_at(destination: str | os.PathLike[str] | None, handling: Handling) -> Standing | None:
    """What stands at a destination; None where none is named. Raises as `recorded_job`."""
    if destination is None:
        return None
    records = JobRecords(open_store(destination))
    return records, recorded_job(records, handling)


def plan_for(
    standing: Standing | None, source: SourceLike, options: JobOptions, handling: Handling, input: InputSpec | None
) -> Plan:
    """The plan of a source for a destination; raises as `planned`."""
    if standing is None:
        return plan_job(source, options, input)
    return planned(*standing, source, options, handling, input)


def sorted_source(
    standing: Standing | None, source: SourceLike, options: JobOptions, handling: Handling, input: InputSpec | None
) -> str | None:
    """The sorted copy that a job with `--sort` would read; None where it would be made first. Writes nothing.

    Raises:
        ConfigError, DataError, StoppedError: what `open_job` would refuse, as far as it can be told before rows are
            sorted.
    """
    if standing is None:
        choose(source, options, input)
        return None
    records, recorded = standing
    may_replace = leave_to_sort(records, recorded, handling)
    copy = standing_copy(source, options, records.store, input, may_replace)
    if copy is None:
        if recorded is None:
            records.check_is_free()
        _check_may_write(records.store.root)
    return copy


def check_destination(
    standing: Standing, plan: Plan, options: JobOptions, handling: Handling, computation: Computation
) -> tuple[str, bool]:
    """What a job with a plan of `plan_for` would find at its destination, in words, and whether nothing is left to do.

    Writes nothing.

    Raises:
        ConfigError, DataError, StoppedError: the destination holds what `open_job` would refuse.
    """
    records, recorded = standing
    root, options = records.store.root, options.settled(plan.layout, plan.keep, plan.rows_per_part)
    check_keeps(options, plan.source.schema, plan.layout, plan.keep)
    check_apart(plan.given, plan.source, records.store)
    if recorded is None:
        records.check_is_free()
        _check_may_write(root)
        return "new: nothing is there yet", False
    if handling.restart:
        check_no_work(records)
        _check_may_write(root)
        return "holds a job; the new output replaces it once it is complete", False
    wanted = Wanted(root, plan, options, handling, computation, recorded)
    done = "holds this same job, finished; there would be nothing to do", True
    if is_done(records, recorded, wanted, was_published=False):
        return done
    what, before = fate_of(records, recorded, wanted)
    damaged = damaged_parts(records) if records.is_complete else []
    if what == "goes on" and records.is_complete and not damaged:
        return done
    _check_may_write(root)
    if what == "anew":
        return "holds a job without parts; this one would take its place", False
    if what == "amended":
        kept, parts = kept_parts(records, recorded, before, plan), counted(len(plan.units), "part")
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
