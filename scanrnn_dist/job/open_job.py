"""Whether a destination is new, holds the same job, or must be left alone; and the plan that holds for it.

The same job is one with the same encoder, options, window and source. What must also be the same unless the user allows
otherwise is the environment: device kind, flags and versions, which may change bits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc

from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job.amend import ACCEPTED, amend
from scanrnn_dist.job.damage import damaged_parts, told_damage
from scanrnn_dist.job.differing import differing
from scanrnn_dist.job.plan import ROWS_PER_PART, Changes, Plan, SourceLike, plan_again, plan_job, with_columns
from scanrnn_dist.job.restart import finish_publishing, publish, replacing, restart_of
from scanrnn_dist.records import (
    ENCODER,
    EXPIRY_SECONDS,
    JOB,
    RECORDS,
    REPLACING,
    SUCCESS,
    JobRecords,
    hashes_of,
    living_workers,
)
from scanrnn_dist.source import pattern_of
from scanrnn_dist.storage import open_store, resolve

logger = logging.getLogger("scanrnn_dist")


def plan_for(
    destination: str | os.PathLike[str],
    source: SourceLike,
    *,
    column: str | None = None,
    keep: Sequence[str] | None = None,
    rows_per_part: int = ROWS_PER_PART,
    restart: bool = False,
    accept_changes: bool = False,
) -> Plan:
    """The plan of the job that the destination holds, if it is of the same source and options; else a new one.

    A recorded plan is read back in seconds, and no footer is looked at. Where the source changed, the new plan has the
    options of the recorded one.

    Raises:
        DataError: the source changed since the plan was recorded, parts of it are done, and it was not said that
            changes are accepted; or as `plan_job`.
        ConfigError: as `plan_job`.
    """
    options: dict[str, Any] = {"column": column, "keep": keep, "rows_per_part": rows_per_part}
    if not restart:
        records = JobRecords(open_store(destination))
        finish_publishing(records)
        job = records.find_job()
        if job is not None:
            plan = Plan.from_records(records.read_plan(job))
            if plan.is_of(source, **options):
                changes, is_begun = plan.changes(), _was_begun(records)
                if not changes:
                    return plan
                if is_begun and not accept_changes:
                    raise _changed(changes, plan, records.store.root)
                return plan_again(plan, source) if is_begun else plan_job(source, **options)
            if accept_changes and _are_lists(plan.given, source) and plan.has_options(**options):
                return plan_again(plan, source)
    return plan_job(source, **options)


def recorded_plan(destination: str | os.PathLike[str]) -> tuple[dict[str, Any], Plan]:
    """The job that a destination holds, and its plan.

    Raises:
        ConfigError: no job was ever started there.
        DataError: its records are damaged, or the source changed since the job began.
    """
    records = JobRecords(open_store(destination))
    finish_publishing(records)
    job = records.read_job()
    plan = Plan.from_records(records.read_plan(job))
    if changes := plan.changes():
        raise _changed(changes, plan, records.store.root)
    return job, plan


@dataclass(frozen=True)
class OpenJob:
    """A job that may be worked on: its records, what `job.json` says, and the plan that holds."""

    records: JobRecords
    job: dict[str, Any]
    plan: Plan


@dataclass(frozen=True)
class Wanted:
    """What a command asks for.

    Args:
        job: what the job is: its "encoder", "options", "window" and "environment".
        plan: what a new job is to do, or one whose source changed.
        allow_mixed: whether the environment may differ.
        accept_changes: whether the source may have changed.
        expiry_seconds: of the lease of who has the destination for itself.
    """

    job: dict[str, Any]
    plan: Plan
    allow_mixed: bool = False
    accept_changes: bool = False
    expiry_seconds: float = EXPIRY_SECONDS


@contextmanager
def opened_job(
    destination: str | os.PathLike[str], wanted: Wanted, *, restart: bool = False, discard: Collection[str] = ()
) -> Iterator[OpenJob]:
    """The job to work on, made if the destination is new; at the end a restart takes the place of the old output.

    A finished job of which parts are missing, or of another size than recorded, is unfinished again.

    Args:
        destination: folder or URI.
        wanted: the job.
        restart: whether to begin anew, aside, where there is a job.
        discard: names of parts that are not what they should be, to be removed first.

    Raises:
        ConfigError: it holds something else, or a job that differs, or one that is worked on and was to be restarted.
        DataError: the source changed since the job began.
        StoppedError: another process restarts, amends or cleans it; or works on it, and it was to be amended, or parts
            of it to be made again.
    """
    records = JobRecords(open_store(destination))
    was_published = finish_publishing(records)
    recorded = _found(records, restart)
    # The command whose restart was published just now, after it had died doing so, has nothing left to do.
    is_done = was_published and records.is_complete and _is_same(records, recorded, wanted)
    if not restart or recorded is None or is_done:
        opened = _open(records, recorded, wanted)
        _set_right(opened, wanted, discard)
        yield opened
        return
    if busy := [worker for worker in living_workers(records.store) if worker.share != REPLACING]:
        raise ConfigError(
            f"{records.store.root} is being worked on: {busy[0]}. Wait for it, or stop it; then --restart can begin."
        )
    with replacing(records, wanted.expiry_seconds) as lease:
        new = restart_of(records)
        yield _open(new, _restarted(new, wanted), wanted, replaces=recorded.get("id", ""))
        publish(records, lease)


def _found(records: JobRecords, restart: bool) -> dict[str, Any] | None:
    """The job that stands; to be replaced, it need not be one that can be understood."""
    try:
        return records.find_job()
    except DataError:
        if not restart:
            raise
        return {}


def _open(records: JobRecords, recorded: dict[str, Any] | None, wanted: Wanted, replaces: str = "") -> OpenJob:
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
        plan_files = wanted.plan.to_records()
        hashes, recorded = hashes_of(plan_files), records.create_job(wanted.job, plan_files, replaces)
    differences = _refused(recorded, _as_listed(records, recorded, wanted))
    if differences and not _was_begun(records):
        return _anew(records, wanted, replaces)
    if differences:
        may_differ = not _refused(recorded, replace(wanted, allow_mixed=True))
        hint = " --allow-mixed goes on all the same, with bits that may differ." if may_differ else ""
        if not _refused(recorded, _as_listed(records, recorded, replace(wanted, accept_changes=True))):
            hint += " --accept-changes does what is new or changed in the list of files, and keeps the rest."
        raise ConfigError(
            f"{records.store.root} holds a job that differs: {'; '.join(differences[:6])}. Repeat the command that "
            "began it, or choose another destination; --restart begins anew, and replaces the old output once the new "
            f"one is complete.{hint}"
        )
    if recorded["plan"] == hashes:
        return OpenJob(records, recorded, wanted.plan)
    # Made before another process recorded the job, or by the user, or of a source that changed.
    before = Plan.from_records(records.read_plan(recorded))
    is_named_so = before.given == wanted.plan.given
    changes = before.changes() if is_named_so else before.changes_to(wanted.plan.source.files)
    if is_named_so and not changes:
        return OpenJob(records, recorded, before)
    if not _was_begun(records):
        return _anew(records, wanted, replaces)
    if not wanted.accept_changes:
        raise _changed(changes, before, records.store.root)
    return _amended(records, recorded, before, wanted)


def _anew(records: JobRecords, wanted: Wanted, replaces: str) -> OpenJob:
    """The job, in the place of one of which nothing was done."""
    logger.info("%s held a job of which nothing was done yet; this one takes its place.", records.store.root)
    with replacing(records, wanted.expiry_seconds) as lease:
        for name in (ENCODER, JOB):
            lease.guarded(records.store.delete)(name)
    return _open(records, None, wanted, replaces)


def _amended(records: JobRecords, recorded: dict[str, Any], before: Plan, wanted: Wanted) -> OpenJob:
    """The job with the source as it is now; by whichever process comes first."""
    plan, root = wanted.plan, records.store.root
    changes = plan.changes()
    if changes:
        raise _changed(changes, plan, root)
    plan = replace(plan, source=with_columns(plan.source, before))
    try:
        with replacing(records, wanted.expiry_seconds) as lease:
            records.check_is(recorded)
            kept = amend(records, lease, recorded, before, plan, wanted.job["options"]["source"])
    except StoppedError:
        now = records.find_job()
        if now is None or now["id"] == recorded["id"]:
            raise
        finish_publishing(records)
        return _open(records, records.read_job(), wanted)  # another process was faster
    units = max(1, len(plan.units))
    told = "%s: changes of the source are accepted: %d of %d units are kept, %d are to be done."
    logger.info(told, root, kept, units, units - kept)
    return OpenJob(records, records.read_job(), plan)


def _set_right(opened: OpenJob, wanted: Wanted, discard: Collection[str]) -> None:
    """Have a job whose parts are not all as recorded be unfinished, without those that are to be discarded."""
    records, store = opened.records, opened.records.store

    def found() -> list[str]:
        return damaged_parts(records) if records.is_complete else []

    if not discard and not found():
        return
    try:
        with replacing(records, wanted.expiry_seconds) as lease:
            records.check_is(opened.job)
            damaged = found()
            if damaged or discard:
                logger.info("%s: %s.", store.root, told_damage(damaged, discard))
                for name in (SUCCESS, *discard):
                    lease.guarded(store.delete)(name)
                store.sync()
    except StoppedError:
        if records.is_complete or discard:
            raise
        # else another process found the same, and is at work


def check_apart(plan: Plan, destination: str | os.PathLike[str]) -> None:
    """Refuse a destination whose parts would be read as part of the source next time, or that holds its files."""
    filesystem, uri, path = resolve(os.fspath(destination))
    if not plan.source.filesystem.equals(filesystem):
        return
    real = os.path.realpath if uri is None else str
    resolved = real(path.rstrip("/"))
    folders = pc.unique(pc.replace_substring_regex(plan.source.files.paths, "/[^/]*$", "")).to_pylist()
    if any(_is_within(real(folder), resolved) for folder in folders):
        raise ConfigError(f"The destination {destination} holds files of the source; choose another.")
    pattern = pattern_of(plan.given) if isinstance(plan.given, str) else None
    if pattern is None:
        return
    for named in _between(folders, pattern.base):
        reached = real(named)  # maybe through a link, behind which the destination has another name
        if _is_within(resolved, reached):
            relative = f"{named}{resolved[len(reached.rstrip('/')) :]}"[len(pattern.base) :]
            if pattern.is_all or pattern.matches(f"{relative}/part-00000.parquet"):
                raise ConfigError(f"The destination {destination} lies within the source {plan.given}; choose another.")


def _between(folders: list[str], base: str) -> set[str]:
    """These folders, and those in which they lie, from a base on."""
    found = {base}
    for folder in folders:
        while folder not in found and len(folder) > len(base):
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _was_begun(records: JobRecords) -> bool:
    """Whether there is a part, or somebody who makes one."""
    return any(name != f"{RECORDS}/" for name, _ in records.store.entries()) or bool(living_workers(records.store))


def _restarted(new: JobRecords, wanted: Wanted) -> dict[str, Any] | None:
    """The same job, if a restart of it was begun here and its source is as it was; else nothing is left of it."""
    try:
        recorded = new.find_job()
        if recorded is not None and ACCEPTED not in recorded and _is_same(new, recorded, wanted):
            return recorded
    except DataError:
        logger.info("%s cannot be understood; the restart begins anew.", new.store.root)
    new.store.delete_below("")
    return None


def _is_same(records: JobRecords, recorded: dict[str, Any] | None, wanted: Wanted) -> bool:
    """Whether a recorded job is the one that is wanted, of a source that is as it was."""
    if not recorded or _refused(recorded, wanted):
        return False
    return not Plan.from_records(records.read_plan(recorded)).changes()


def _changed(changes: Changes, plan: Plan, root: str) -> DataError:
    """What to say of a source that changed."""
    text = f"The source changed since the job in {root} began: {'; '.join(changes.told)}."
    if not changes.is_listed:
        return DataError(f"{text} Bring it back as it was, then start the command again.")
    new = f", and {changes.new_files:,} new file{'s' * (changes.new_files != 1)}" if changes.new_files else ""
    return DataError(
        f"{text} That concerns {changes.units:,} of its {len(plan.units):,} units{new}. Start the command that made "
        "it with --accept-changes: it does exactly these again and keeps all others. A file that was only touched may "
        "get its time back by `touch -d` instead; --restart begins anew."
    )


def _are_lists(before: SourceLike, now: SourceLike) -> bool:
    """Whether both name files one by one, as a shell does that expands a glob; in another list some are new or gone."""
    return not isinstance(before, str | os.PathLike) and not isinstance(now, str | os.PathLike)


def _as_listed(records: JobRecords, recorded: Mapping[str, Any], wanted: Wanted) -> Wanted:
    """What is wanted; where changes are accepted and both sources are lists of files, not told apart by these."""
    named = recorded.get("options", {}).get("source")
    if not wanted.accept_changes or isinstance(wanted.plan.given, str) or named == wanted.job["options"]["source"]:
        return wanted
    if isinstance(Plan.from_records(records.read_plan(dict(recorded))).given, str):
        return wanted
    return replace(wanted, job={**wanted.job, "options": {**wanted.job["options"], "source": named}})


def _refused(recorded: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """What keeps a recorded job from being the one that is wanted, in words."""
    return list(differing(recorded, wanted.job, wanted.allow_mixed))
