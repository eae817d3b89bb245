"""Whether a destination is new, holds the same job, or must be left alone; and the plan that holds for it.

The same job is one with the same encoder, options, window and source. What must also be the same unless the user allows
otherwise is the environment: device kind, flags and versions, which may change bits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from scanrnn_dist.dataset.destination import open_store
from scanrnn_dist.dataset.filesystems import resolve
from scanrnn_dist.dataset.listing import pattern_of
from scanrnn_dist.dataset.manifest import ENCODER, JOB, RECORDS, Manifest
from scanrnn_dist.dataset.plan import ROWS_PER_PART, Plan, SourceLike, plan_job
from scanrnn_dist.dataset.plan_records import hashes_of
from scanrnn_dist.dataset.restart import finish_publishing, publish, replacing, restart_of
from scanrnn_dist.dataset.workers import EXPIRY_SECONDS, living_workers
from scanrnn_dist.errors import ConfigError, DataError

logger = logging.getLogger("scanrnn_dist")


def plan_for(
    destination: str | os.PathLike[str],
    source: SourceLike,
    *,
    column: str | None = None,
    keep: Sequence[str] | None = None,
    rows_per_part: int = ROWS_PER_PART,
    restart: bool = False,
) -> Plan:
    """The plan of the job that the destination holds, if it is of the same source and options; else a new one.

    A recorded plan is read back in seconds, and no footer is looked at.

    Raises:
        DataError: the source changed since the plan was recorded; or as `plan_job`.
        ConfigError: as `plan_job`.
    """
    if not restart:
        manifest = Manifest(open_store(destination))
        finish_publishing(manifest)
        job = manifest.find_job()
        if job is not None:
            plan = Plan.from_records(manifest.read_plan(job))
            if plan.is_of(source, column, keep, rows_per_part):
                _check_unchanged(plan, manifest.store.root)
                return plan
    return plan_job(source, column=column, keep=keep, rows_per_part=rows_per_part)


@dataclass(frozen=True)
class OpenJob:
    """A job that may be worked on: its records, what `job.json` says, and the plan that holds."""

    manifest: Manifest
    job: dict[str, Any]
    plan: Plan


@contextmanager
def opened_job(
    destination: str | os.PathLike[str],
    job: dict[str, Any],
    plan: Plan,
    *,
    allow_mixed: bool = False,
    restart: bool = False,
    expiry_seconds: float = EXPIRY_SECONDS,
) -> Iterator[OpenJob]:
    """The job to work on, made if the destination is new; at the end a restart takes the place of the old output.

    Args:
        destination: folder or URI.
        job: what the job is: its "encoder", "options", "window" and "environment".
        plan: what a new job is to do.
        allow_mixed: whether the environment may differ.
        restart: whether to begin anew, aside, where there is a job.
        expiry_seconds: of the lock of a restart.

    Raises:
        ConfigError: it holds something else, or a job that differs, or one that is worked on and was to be restarted.
        DataError: the source changed since the job began.
        StoppedError: another process restarts or cleans it.
    """
    manifest = Manifest(open_store(destination))
    was_published = finish_publishing(manifest)
    recorded = _found(manifest, restart)
    # The command whose restart was published just now, after it had died doing so, has nothing left to do.
    is_done = was_published and recorded is not None and not list(_differing(recorded, job, allow_mixed))
    if not restart or recorded is None or is_done:
        yield _open(manifest, recorded, job, plan, allow_mixed)
        return
    with replacing(manifest, expiry_seconds) as lock:
        new = restart_of(manifest)
        yield _open(new, _restarted(new, job, allow_mixed), job, plan, allow_mixed, replaces=recorded.get("id", ""))
        publish(manifest, lock)


def _found(manifest: Manifest, restart: bool) -> dict[str, Any] | None:
    """The job that stands; to be replaced, it need not be one that can be understood."""
    try:
        return manifest.find_job()
    except DataError:
        if not restart:
            raise
        return {}


def _open(
    manifest: Manifest,
    recorded: dict[str, Any] | None,
    job: dict[str, Any],
    plan: Plan,
    allow_mixed: bool,
    replaces: str = "",
) -> OpenJob:
    """The job that is recorded, if it is this one, or this one, recorded now."""
    hashes = plan.recorded
    if recorded is None:
        try:
            manifest.check_is_free()
        except ConfigError:
            recorded = manifest.find_job()  # begun, since it was looked for, by another process
            if recorded is None:
                raise
    if recorded is None:
        records = plan.to_records()
        hashes, recorded = hashes_of(records), manifest.create_job(job, records, replaces)
    differences = list(_differing(recorded, job, allow_mixed))
    if differences and not _was_begun(manifest):
        logger.info("%s held a job of which nothing was done yet; this one takes its place.", manifest.store.root)
        _forget(manifest)
        return _open(manifest, None, job, plan, allow_mixed, replaces)
    if differences:
        may_differ = not list(_differing(recorded, job, allow_mixed=True))
        hint = " --allow-mixed goes on all the same, with bits that may differ." if may_differ else ""
        raise ConfigError(
            f"{manifest.store.root} holds a job that differs: {'; '.join(differences[:6])}. Repeat the command that "
            "began it, or choose another destination; --restart begins anew, and replaces the old output once the new "
            f"one is complete.{hint}"
        )
    if recorded["plan"] != hashes:  # made before another process recorded the job, or by the user
        plan = Plan.from_records(manifest.read_plan(recorded))
        _check_unchanged(plan, manifest.store.root)
    return OpenJob(manifest, recorded, plan)


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


def _was_begun(manifest: Manifest) -> bool:
    """Whether there is a part, or somebody who makes one."""
    return any(name != f"{RECORDS}/" for name, _ in manifest.store.entries()) or bool(living_workers(manifest.store))


def _forget(manifest: Manifest) -> None:
    """Remove a job of which nothing was done."""
    with replacing(manifest) as lock:
        for name in (ENCODER, JOB):
            lock.guarded(manifest.store.delete)(name)


def _restarted(manifest: Manifest, job: Mapping[str, Any], allow_mixed: bool) -> dict[str, Any] | None:
    """The same job, if a restart of it was begun here and its source is as it was; else nothing is left of it."""
    recorded = manifest.find_job()
    is_same = recorded is not None and not list(_differing(recorded, job, allow_mixed))
    if recorded is not None and is_same and not Plan.from_records(manifest.read_plan(recorded)).source_changes():
        return recorded
    manifest.store.delete_below("")
    return None


def _check_unchanged(plan: Plan, root: str) -> None:
    changes = plan.source_changes()
    if changes:
        raise DataError(
            f"The source changed since the job in {root} began: {'; '.join(changes)}. Bring it back as it was and "
            "start the same command again, or begin anew with --restart."
        )


def _differing(recorded: Mapping[str, Any], job: Mapping[str, Any], allow_mixed: bool) -> Iterator[str]:
    """What differs, in words. Of encoders their fingerprint tells, their architecture only says how."""
    sections = ["options"] if allow_mixed else ["options", "environment"]
    before, now = recorded.get("encoder", {}), job["encoder"]
    if before.get("fingerprint") != now["fingerprint"]:
        others = list(_others("encoder.", before.get("architecture", {}), now["architecture"]))
        prints = [str(it.get("fingerprint"))[:16] for it in (before, now)]
        weights = f"the encoder's weights are others: the fingerprint was {prints[0]} and is {prints[1]}"
        yield from others or [f"{weights} (the job keeps its own as {ENCODER})"]
    else:
        sections.append("window")  # that of another encoder follows from its size
    for section in sections:
        yield from _others("", recorded.get(section, {}), job[section])


def _others(prefix: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The values that differ, at any depth."""
    for key in sorted(before.keys() | now.keys()):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _others(f"{name}.", old, new)
        elif key == "layers" and old and new and len(old) == len(new):
            for nth, layers in enumerate(zip(old, new, strict=True)):
                yield from _others(f"{name}[{nth}].", *layers)
        elif old != new:
            yield f"{name} was {old!r} and is {new!r}"
