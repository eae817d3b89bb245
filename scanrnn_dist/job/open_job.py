"""`open_job`: the only way to a job. It finds what stands, plans, compares, gives way, restarts, publishes.

The same job is one with the same source, options, encoder and window. What must also be the same, unless the user
allows otherwise, is the environment: device kind, flags and versions, which may change bits. Of a finished job nothing
is computed any more, so its environment does not matter; nor is JAX started or a program compiled for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from scanrnn_dist.errors import ConfigError, DataError, NothingFoundError, StoppedError, counted
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.amend import ACCEPTED, amend, kept_parts
from scanrnn_dist.job.apart import check_apart
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.continued import APPLIED, ContinuedPlan, check_is_whole
from scanrnn_dist.job.damage import damaged_parts, set_right
from scanrnn_dist.job.differences import changed_source, differences_of
from scanrnn_dist.job.in_words import command_that_continues
from scanrnn_dist.job.keeping import check_keeps
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.options import Handling, JobOptions
from scanrnn_dist.job.plan import Plan, absolute, choose, plan_again, plan_job, with_columns
from scanrnn_dist.job.restart import check_idle, check_not_replaced, finish_publishing, publish, replacing, restart_of
from scanrnn_dist.job.sorting import sorted_copy, standing_copy
from scanrnn_dist.records import (
    ENCODER,
    JOB,
    JOB_FORMAT,
    QUARANTINE,
    RECORDS,
    JobRecords,
    Lease,
    hashes_of,
    living_workers,
)
from scanrnn_dist.source import SourceLike
from scanrnn_dist.storage import is_uri, open_store

logger = logging.getLogger("scanrnn_dist")

RECIPE = "recipe"
"""Of a job: how its encoder was asked for, where that tells it without drawing it."""


@dataclass(frozen=True)
class OpenJob:
    """A job that may be worked on.

    Args:
        destination: where it stands, in full; of a restart, where it will stand.
        records, job: where it is recorded, and its record.
        plan, options: that hold for it.
        environment: that of the process, which may be another than the record's; nothing of a job that is done.
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


@dataclass(frozen=True)
class _Wanted:
    """What a command asks for."""

    root: str
    plan: Plan
    options: JobOptions
    handling: Handling
    computation: Computation
    like: Mapping[str, Any] | None = None  # the job whose window shape is to be taken

    @cached_property
    def job(self) -> dict[str, Any]:
        """What the job is, for the records; starts JAX and draws the encoder."""
        described = self.computation.described(self.in_features, self.like)
        return {"format": JOB_FORMAT, "options": self.told_options, **described}

    @property
    def told_options(self) -> dict[str, Any]:
        """The options as the records tell them."""
        return {"source": self.plan.named, **self.options.to_json(), **self.plan.told}

    def in_features(self) -> int:
        """Features per step of the rows that are read."""
        return self.plan.in_features(self.options.filter)

    def prepare(self) -> None:
        """Start, draw and compile what is computed with: what refuses does so before anything is written."""
        _ = self.job  # which draws and describes it
        engine = self.computation.engine(self.options.has_own_carries, self.options.keep_state)
        if self.computation.input is None:
            self.plan.check_width(engine.in_features)
        if engine.gives_steps:
            self.options.output.check_holds_steps()

    def opened(self, records: JobRecords, job: dict[str, Any], plan: Plan) -> OpenJob:
        """The job, to be worked on."""
        return OpenJob(self.root, records, job, plan, self.options, self.job["environment"], self.handling.memory)


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
    recorded = _recorded(records, handling)
    like = None
    if source is None:
        like = recorded = recorded or records.read_job()
        plan, options = Plan.from_records(records.read_plan(recorded)), JobOptions.from_json(recorded["options"])
        if recorded["options"].get(APPLIED):
            if handling.discard or not records.is_complete or damaged_parts(records):
                check_is_whole(recorded, records.store.root)
            yield OpenJob(records.store.root, records, recorded, plan, options, is_done=True)
            return
        if changes := plan.changes():
            raise changed_source(changes, plan, records.store.root)
    else:
        if options.sort and not isinstance(source, Plan):
            source = sorted_copy(
                source, options, destination, handling.restart, computation.input, handling.memory,
                check=lambda: _check_unread(records),
            )  # fmt: skip
        try:
            plan = _planned(records, recorded, source, options, handling, computation.input)
        except NothingFoundError:
            _check_is_there(records, recorded, source, handling)
            raise
        options = options.settled(plan.layout, plan.keep, plan.rows_per_part)
    check_keeps(options, plan.source.schema, plan.layout, plan.keep)
    if isinstance(plan, ContinuedPlan):
        like = recorded
    else:
        check_apart(plan, destination)
        like = like or (None if handling.restart else recorded)
    plan = plan.within(handling.memory)
    wanted = _Wanted(records.store.root, plan, options, handling, computation, like)
    if _is_done(records, recorded, wanted, was_published):
        yield OpenJob(wanted.root, records, recorded or {}, wanted.plan, wanted.options, is_done=True)
    elif handling.restart and recorded is not None:
        _check_idle(records)
        wanted.prepare()
        if isinstance(plan, ContinuedPlan):
            _check_goes_on(recorded, wanted)
        with replacing(records, handling.sharing.expiry_seconds) as lease:
            if isinstance(plan, ContinuedPlan):
                records.check_is({"id": plan.of_job})  # another update may have been published since it was planned
            new = restart_of(records, lease)
            yield _open(new, _restarted(new, wanted, lease), wanted, replaces=recorded.get("id", ""))
            publish(records, lease)
    else:
        opened = _open(records, recorded, wanted)
        set_right(records, opened.job, opened.plan, handling.discard, handling.sharing.expiry_seconds)
        yield opened


def _recorded(records: JobRecords, handling: Handling) -> dict[str, Any] | None:
    """The job of a destination, if there is one; empty if it is to be replaced and cannot be understood."""
    try:
        return records.find_job()
    except DataError:
        if not handling.restart:
            raise
        return {}


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
            _check_is_there(records, records.find_job(), source, handling)
        raise


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
    recorded = _recorded(records, handling)
    copy = standing_copy(source, options, destination, handling.restart, input, lambda: _check_unread(records))
    if copy is None:
        if recorded is None:
            records.check_is_free()
        _check_may_write(records.store.root)
    return copy


def check_destination(
    destination: str | os.PathLike[str], plan: Plan, options: JobOptions, handling: Handling, computation: Computation
) -> str:
    """What a job would find at its destination, in words; writes nothing.

    Raises:
        ConfigError, DataError, StoppedError: the destination holds what `open_job` would refuse.
    """
    records = JobRecords(open_store(destination))
    asked, options = options, options.settled(plan.layout, plan.keep, plan.rows_per_part)
    check_keeps(options, plan.source.schema, plan.layout, plan.keep)
    check_apart(plan, destination)
    recorded = _recorded(records, handling)
    if recorded is None:
        records.check_is_free()
        _check_may_write(records.store.root)
        return "new: nothing is there yet"
    if handling.restart:
        _check_idle(records)
        _check_may_write(records.store.root)
        return "holds a job; the new output replaces it once it is complete"
    _check_not_updated(records, recorded)
    before = Plan.from_records(records.read_plan(recorded))
    if before.has_options(asked):  # what the first steps of the source tell, was told when the job began
        options = asked.settled(before.layout, before.keep, before.rows_per_part)
    is_named_so = before.given == plan.given  # else that differs
    changes = None
    if _was_begun(records) and (is_named_so or handling.accept_changes):
        changes = before.changes() if is_named_so else before.changes_to(plan.source.files)
        if changes and not (handling.accept_changes and changes.is_listed):
            raise changed_source(changes, before, records.store.root)
    wanted = _Wanted(records.store.root, plan, options, handling, computation, recorded)
    done = "holds this same job, finished; there would be nothing to do"
    if _is_done(records, recorded, wanted, was_published=False):
        return done
    differences = _differences(records, recorded, wanted, handling.allow_mixed, handling.accept_changes)
    if differences and _was_begun(records):
        raise _refusal(records, recorded, wanted, differences)
    damaged = damaged_parts(records) if records.is_complete else []
    if records.is_complete and not (changes or damaged):
        return done
    _check_may_write(records.store.root)
    if changes:
        again = plan_again(before, plan.given, options)
        kept, parts = kept_parts(records, recorded, before, again), counted(len(again.units), "part")
        return f"holds this job of the source as it was; {kept:,} of {parts} would be kept"
    if damaged:
        return f"holds this same job, finished; {counted(len(damaged), 'part')}, missing or changed, will be made again"
    return "holds this same job, unfinished; featurize would continue it"


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


def _check_not_updated(records: JobRecords, recorded: dict[str, Any]) -> None:
    """Refuse to go on with an output that updates have continued: it is no longer that of one source."""
    if recorded["options"].get(APPLIED):
        root = records.store.root
        raise ConfigError(
            f"{root} was continued by scanrnn update, so it is not the output of this source alone. To add steps, "
            f"update it again; what was stopped goes on with {command_that_continues(root)}. Or choose another "
            "destination; --restart begins anew, without what updates added."
        )


def _check_idle(records: JobRecords) -> None:
    """Refuse a restart while somebody works on the job."""
    check_idle(records, ConfigError, "then --restart can begin")


def _check_unread(records: JobRecords) -> None:
    """Refuse to replace the sorted copy of a source while somebody may read it: a job at work, or a restart of it."""
    _check_idle(records)
    check_not_replaced(records)


def _check_goes_on(recorded: dict[str, Any], wanted: _Wanted) -> None:
    """Refuse to go on from states that another encoder or environment made."""
    like = {**recorded, "options": wanted.job["options"]}
    if differences := differences_of(like, wanted.job, wanted.handling.allow_mixed):
        raise ConfigError(
            f"{wanted.root} cannot be continued: {'; '.join(differences[:6])}. Continue it where it was made, with the "
            "same encoder; --allow-mixed goes on in another environment, with bits that may differ."
        )


def _planned(
    records: JobRecords,
    recorded: dict[str, Any] | None,
    source: SourceLike | Plan,
    options: JobOptions,
    handling: Handling,
    input: InputSpec | None,
) -> Plan:
    """The recorded plan, if it is of this source and these options; else a new one.

    A recorded plan is read back in seconds, and no footer is looked at. Where the source changed, the new plan has the
    options of the recorded one.
    """
    if isinstance(source, Plan):
        return source
    if recorded and not handling.restart:
        _check_not_updated(records, recorded)
        plan = Plan.from_records(records.read_plan(recorded))
        if plan.is_of(source, options):
            changes, is_begun = plan.changes(), _was_begun(records)
            if not changes:
                return plan
            if is_begun and not (handling.accept_changes and changes.is_listed):
                raise changed_source(changes, plan, records.store.root)
            return plan_again(plan, source, options) if is_begun else plan_job(source, options, input)
        are_lists = not isinstance(plan.given, str) and not isinstance(source, str | os.PathLike)
        if handling.accept_changes and are_lists and plan.has_options(options):  # a shell has expanded a glob
            return plan_again(plan, source, options)
    return plan_job(source, options, input)


def _check_is_there(
    records: JobRecords, recorded: dict[str, Any] | None, source: SourceLike | Plan, handling: Handling
) -> None:
    """Raise `StoppedError` where a job was begun of a source of which nothing is there any more.

    A list of files may be named by a glob now: a shell gives one as it is where it finds nothing.
    """
    if isinstance(source, Plan) or not recorded or handling.restart or not _was_begun(records):
        return
    plan = Plan.from_records(records.read_plan(recorded))
    may_be_named_so = plan.given == absolute(source) or not isinstance(plan.given, str)
    if may_be_named_so and (changes := plan.changes()) and not changes.is_there:
        raise changed_source(changes, plan, records.store.root)


def _is_done(records: JobRecords, recorded: dict[str, Any] | None, wanted: _Wanted, was_published: bool) -> bool:
    """Whether all that is wanted stands: the job is finished, its source is as it was, and so are its parts.

    Also of a restart whose command died while it was published, and which was ended just now.
    """
    handling = wanted.handling
    if not recorded or handling.discard or (handling.restart and not was_published) or not records.is_complete:
        return False
    if recorded.get("options") != wanted.told_options:
        return False
    is_planned_so = wanted.plan.recorded == recorded["plan"]  # and was held against the source
    if not is_planned_so and Plan.from_records(records.read_plan(recorded)).changes():
        return False
    return wanted.computation.is_recorded(recorded, wanted.in_features) and not damaged_parts(records)


def _open(records: JobRecords, recorded: dict[str, Any] | None, wanted: _Wanted, replaces: str = "") -> OpenJob:
    """The job that is recorded, if it is this one, or this one, recorded now."""
    if recorded is None:
        try:
            records.check_is_free()
        except ConfigError:
            recorded = records.find_job()  # begun, since it was looked for, by another process
            if recorded is None:
                raise
    hashes = wanted.plan.recorded
    if recorded is None:
        wanted.prepare()
        plan_files = wanted.plan.to_records()
        hashes, recorded = hashes_of(plan_files), records.create_job(wanted.job, plan_files, replaces)
    handling = wanted.handling
    if differences := _differences(records, recorded, wanted, handling.allow_mixed, handling.accept_changes):
        if not _was_begun(records):
            return _anew(records, wanted, replaces)
        raise _refusal(records, recorded, wanted, differences)
    if recorded["plan"] == (hashes or hashes_of(wanted.plan.to_records())):
        return wanted.opened(records, recorded, wanted.plan)
    # Made before another process recorded the job, or by the user, or of a source that changed.
    before = Plan.from_records(records.read_plan(recorded))
    is_named_so = before.given == wanted.plan.given
    changes = before.changes() if is_named_so else before.changes_to(wanted.plan.source.files)
    if is_named_so and not changes:
        return wanted.opened(records, recorded, before)
    if not _was_begun(records):
        return _anew(records, wanted, replaces)
    if not handling.accept_changes:
        raise changed_source(changes, before, records.store.root)
    return _amended(records, recorded, before, wanted)


def _anew(records: JobRecords, wanted: _Wanted, replaces: str) -> OpenJob:
    """The job, in the place of one of which nothing was done."""
    wanted.prepare()
    with replacing(records, wanted.handling.sharing.expiry_seconds) as lease:
        is_begun = _has_parts(records)  # by now: it was looked before anything kept others from it
        for name in () if is_begun else (*records.store.below(QUARANTINE), ENCODER, JOB):
            lease.remove(name)
    if is_begun:
        return _open(records, records.find_job(), wanted, replaces)
    logger.info("%s held a job of which nothing was done yet; this one takes its place.", records.store.root)
    return _open(records, None, wanted, replaces)


def _amended(records: JobRecords, recorded: dict[str, Any], before: Plan, wanted: _Wanted) -> OpenJob:
    """The job with the source as it is now; by whichever process comes first."""
    plan = wanted.plan
    if changes := plan.changes():
        raise changed_source(changes, plan, wanted.root)
    plan = replace(plan, source=with_columns(plan.source, before))
    try:
        with replacing(records, wanted.handling.sharing.expiry_seconds) as lease:
            records.check_is(recorded)
            amend(records, lease, recorded, before, plan)
    except StoppedError:
        now = records.find_job()
        if now is None or now["id"] == recorded["id"]:
            raise
        finish_publishing(records)
        return _open(records, records.read_job(), wanted)  # another process was faster
    return wanted.opened(records, records.read_job(), plan)


def _restarted(new: JobRecords, wanted: _Wanted, lease: Lease) -> dict[str, Any] | None:
    """The same job, if a restart of it was begun here and its source is as it was; else nothing is left of it."""
    try:
        recorded = new.find_job()
        if recorded is not None and ACCEPTED not in recorded:
            is_same = not differences_of(recorded, wanted.job, wanted.handling.allow_mixed)
            is_same = is_same and (
                recorded["plan"] == hashes_of(wanted.plan.to_records())
                or (not wanted.plan.told and not Plan.from_records(new.read_plan(recorded)).changes())
            )
            if is_same:
                return recorded
    except DataError:
        logger.info("%s cannot be understood; the restart begins anew.", new.store.root)
    while new.store.below():  # once its record is gone, nobody adds to it for long
        lease.guarded(new.store.delete)(JOB)
        lease.guarded(new.store.delete_below)("")
    return None


def _was_begun(records: JobRecords) -> bool:
    """Whether there is a part, or somebody who makes one."""
    return bool(living_workers(records.store)) or _has_parts(records)


def _has_parts(records: JobRecords) -> bool:
    return any(name != f"{RECORDS}/" for name, _ in records.store.entries())


def _differences(
    records: JobRecords, recorded: dict[str, Any], wanted: _Wanted, allow_mixed: bool, accept_changes: bool
) -> list[str]:
    """What keeps the recorded job from being the wanted one: where changes are accepted, no other list of files."""
    options, is_list = wanted.told_options, not isinstance(wanted.plan.given, str)
    if accept_changes and is_list and not isinstance(Plan.from_records(records.read_plan(recorded)).given, str):
        options["source"] = recorded.get("options", {}).get("source")
    return differences_of(recorded, {**wanted.job, "options": options}, allow_mixed)


def _refusal(records: JobRecords, recorded: dict[str, Any], wanted: _Wanted, differences: list[str]) -> ConfigError:
    """What to say of a job that differs, and of the flags that would help."""
    hint, handling = "", wanted.handling
    if not _differences(records, recorded, wanted, True, handling.accept_changes):
        hint = " --allow-mixed goes on all the same, with bits that may differ."
    if not _differences(records, recorded, wanted, handling.allow_mixed, True):
        hint += " --accept-changes does what is new or changed in the list of files, and keeps the rest."
    return ConfigError(
        f"{records.store.root} holds a job that differs: {'; '.join(differences[:6])}. Repeat the command that "
        f"began it, or {command_that_continues(records.store.root)}; or choose another destination. --restart begins "
        f"anew, and replaces the old output once the new one is complete.{hint}"
    )
