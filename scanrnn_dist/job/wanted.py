"""What a command asks for, held against the job that stands at its destination. Writes nothing.

It decides what becomes of that job (`fate_of`). `open_job.py` does it, and `destination.py` tells it beforehand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

from scanrnn_dist.errors import ConfigError, DataError, NothingFoundError, StoppedError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.amend import ACCEPTED
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.continued import APPLIED
from scanrnn_dist.job.damage import damaged_parts
from scanrnn_dist.job.differences import changed_source, differences_of
from scanrnn_dist.job.first_rows import in_features_of
from scanrnn_dist.job.in_words import command_that_continues, way_to_continue
from scanrnn_dist.job.options import Handling, JobOptions
from scanrnn_dist.job.plan import Plan, absolute, plan_again, plan_job
from scanrnn_dist.job.restart import check_idle, check_not_replaced, restart_of
from scanrnn_dist.records import JOB_FORMAT, REPLACING, JobRecords, hashes_of, living_workers
from scanrnn_dist.source import SourceLike, check_width
from scanrnn_dist.storage import Store


@dataclass(frozen=True)
class Wanted:
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

    @cached_property
    def plan_files(self) -> Mapping[str, bytes]:
        """The records of the plan, by their names, as this process writes them."""
        return self.plan.to_records()

    def has_plan_of(self, recorded: Mapping[str, Any]) -> bool:
        """Whether a job has this plan, by the records that it was read from or that this process writes of it."""
        return recorded["plan"] == self.plan.recorded or recorded["plan"] == hashes_of(self.plan_files)

    def in_features(self) -> int:
        """Features per step of the rows that are read."""
        return self._width

    @cached_property
    def _width(self) -> int:
        return in_features_of(self.plan, self.options.matching)

    def prepare(self) -> None:
        """Start, draw and compile what is computed with: what refuses does so before anything is written."""
        _ = self.job  # which draws and describes it
        engine = self.computation.engine(self.options.has_own_carries, self.options.keep_state)
        if self.computation.input is None:
            check_width(self.plan.layout, self.plan.source.schema, engine.in_features)
        if engine.gives_steps:
            self.options.output.check_holds_steps()


class Fate(NamedTuple):
    """What becomes of a job that stands.

    Args:
        what: it goes on, another one takes its place since nothing of it was done, or its source is amended.
        plan: that the job has, or, of one made anew, gets.
    """

    what: Literal["goes on", "anew", "amended"]
    plan: Plan


def recorded_job(records: JobRecords, handling: Handling) -> dict[str, Any] | None:
    """The job of a destination, if there is one; empty if it is to be replaced and cannot be understood."""
    try:
        return records.find_job()
    except DataError:
        if not handling.restart:
            raise
        return {}


def planned(
    records: JobRecords,
    recorded: dict[str, Any] | None,
    source: SourceLike,
    options: JobOptions,
    handling: Handling,
    input: InputSpec | None,
) -> Plan:
    """The recorded plan, if it is of this source and these options; else a new one.

    A recorded plan is read back in seconds, and no footer is looked at. Where the source changed, the new plan has the
    options of the recorded one.

    Raises:
        ConfigError: updates have continued the job, or as `plan_job`.
        DataError: the source changed, which was not accepted, or as `plan_job`.
        StoppedError: a job was begun of a source of which nothing is there any more.
    """
    try:
        if recorded and not handling.restart:
            check_not_updated(records, recorded)
            plan = Plan.read(records, recorded)
            if plan.is_of(source, options):
                if not (changes := plan.changes()):
                    return plan
                is_begun = was_begun(records)
                if is_begun and not (handling.accept_changes and changes.is_listed):
                    raise changed_source(changes, plan, records.store.root)
                return plan_again(plan, source, options) if is_begun else plan_job(source, options, input)
            if handling.accept_changes and plan.has_options(options) and plan.may_become(source):
                return plan_again(plan, source, options)
        return plan_job(source, options, input)
    except NothingFoundError:
        _check_is_there(records, recorded, source, handling)
        raise


def fate_of(records: JobRecords, recorded: dict[str, Any], wanted: Wanted) -> Fate:
    """What becomes of the recorded job.

    Raises:
        ConfigError: a job was begun that differs.
        DataError: a job was begun of a source that changed, which was not accepted.
    """
    handling = wanted.handling
    if differences := what_differs(records, recorded, wanted, handling.allow_mixed, handling.accept_changes):
        if was_begun(records):
            raise refusal(records, recorded, wanted, differences)
        return Fate("anew", wanted.plan)
    if wanted.has_plan_of(recorded):
        return Fate("goes on", wanted.plan)
    # Made before another process recorded the job, or by the user, or of a source that changed.
    before = Plan.read(records, recorded)
    is_named_so = before.given == wanted.plan.given
    changes = before.changes() if is_named_so else before.changes_to(wanted.plan.source.files)
    if is_named_so and not changes:
        return Fate("goes on", before)
    if not was_begun(records):
        return Fate("anew", wanted.plan)
    if not handling.accept_changes:
        raise changed_source(changes, before, records.store.root)
    return Fate("amended", before)


def is_done(records: JobRecords, recorded: dict[str, Any] | None, wanted: Wanted, was_published: bool) -> bool:
    """Whether all that is wanted stands: the job is finished, its source is as it was, and so are its parts.

    Also of a restart whose command died while it was published, and which was ended just now.
    """
    handling = wanted.handling
    if not recorded or handling.discard or (handling.restart and not was_published) or not records.is_complete:
        return False
    if recorded["options"] != wanted.told_options:
        return False
    is_planned_so = wanted.plan.recorded == recorded["plan"]  # and was held against the source
    if not is_planned_so and Plan.read(records, recorded).changes():
        return False
    return wanted.computation.is_recorded(recorded, wanted.in_features) and not damaged_parts(records)


def what_differs(
    records: JobRecords, recorded: dict[str, Any], wanted: Wanted, allow_mixed: bool, accept_changes: bool
) -> list[str]:
    """What keeps the recorded job from being the wanted one: where changes are accepted, no other list of files."""
    options = wanted.told_options
    if accept_changes and Plan.read(records, recorded).may_become(wanted.plan.given):
        options["source"] = recorded["options"]["source"]
    return differences_of(recorded, {**wanted.job, "options": options}, allow_mixed)


def refusal(records: JobRecords, recorded: dict[str, Any], wanted: Wanted, differences: list[str]) -> ConfigError:
    """What to say of a job that differs, and of the flags that would help."""
    hint, handling = "", wanted.handling
    if not what_differs(records, recorded, wanted, True, handling.accept_changes):
        hint = " --allow-mixed goes on all the same, with bits that may differ."
    if not what_differs(records, recorded, wanted, handling.allow_mixed, True):
        hint += " --accept-changes does what is new or changed in the list of files, and keeps the rest."
    return _differing(records.store, differences, hint)


def leave_to_sort(
    records: JobRecords, recorded: dict[str, Any] | None, handling: Handling
) -> Callable[[], None] | None:
    """What is called before the sorted copy of a source is replaced; None where it may not be.

    Raises:
        ConfigError: a job was begun with the source as it is, or updates have continued it.
    """
    if handling.restart:
        return partial(_check_unread, records)
    if recorded:
        check_not_updated(records, recorded)
        if not recorded["options"].get("sort") and was_begun(records):
            raise _differing(records.store, ["sort was False and is True"])
    return None


def _differing(store: Store, differences: list[str], hint: str = "") -> ConfigError:
    return ConfigError(
        f"{store.root} holds a job that differs: {'; '.join(differences[:6])}. Repeat the command that "
        f"began it, or {command_that_continues(os.fspath(store))}; or choose another destination. --restart begins "
        f"anew, and replaces the old output once the new one is complete.{hint}"
    )


def check_nothing_waits(records: JobRecords) -> None:
    """Raise `StoppedError` where an update or a restart was begun: the records of the output do not go on with it."""
    new = restart_of(records)
    job = new.find_job()
    if job is not None and ACCEPTED not in job:
        check_not_replaced(records)
        what = "an update" if job["options"].get(APPLIED) else "a restart"
        raise StoppedError(
            f"In {records.store.root} {what} was begun and is not finished, and resume does not go on with that. "
            f"Continue with: {way_to_continue(new, job)}. Or remove {new.store.root} to give it up."
        )


def was_begun(records: JobRecords) -> bool:
    """Whether there is a part, or somebody who makes one."""
    return any(worker.share != REPLACING for worker in living_workers(records.store)) or has_parts(records)


def has_parts(records: JobRecords) -> bool:
    """Whether anything stands there beside records."""
    return any(records.beside())


def check_not_updated(records: JobRecords, recorded: dict[str, Any]) -> None:
    """Refuse to go on with an output that updates have continued: it is no longer that of one source."""
    if recorded["options"].get(APPLIED):
        root = records.store.root
        raise ConfigError(
            f"{root} was continued by scanrnn update, so it is not the output of this source alone. To add steps, "
            "update it again, also where an update was stopped. Or choose another destination; --restart begins anew, "
            "without what updates added."
        )


def _check_is_there(
    records: JobRecords, recorded: dict[str, Any] | None, source: SourceLike, handling: Handling
) -> None:
    """Raise `StoppedError` where a job was begun of a source of which nothing is there any more.

    A list of files may be named by a glob now: a shell gives one as it is where it finds nothing.
    """
    if not recorded or handling.restart or not was_begun(records):
        return
    plan = Plan.read(records, recorded)
    may_be_named_so = plan.given == absolute(source) or plan.names_files
    if may_be_named_so and (changes := plan.changes()) and not changes.is_there:
        raise changed_source(changes, plan, records.store.root)


def _check_unread(records: JobRecords) -> None:
    """Refuse to replace the sorted copy of a source while somebody may read it: a job at work, or a restart of it."""
    check_no_work(records)
    check_not_replaced(records)


def check_no_work(records: JobRecords) -> None:
    """Refuse a restart while somebody works on the job."""
    check_idle(records, ConfigError, "then --restart can begin")
