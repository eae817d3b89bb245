"""What keeps a recorded job from being the one that a command asks for, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scanrnn_dist.errors import DataError, ScanRNNError, StoppedError, counted, option_name
from scanrnn_dist.job.computation import RECIPE
from scanrnn_dist.job.continued import FIRST_DIGEST
from scanrnn_dist.job.plan import Changes, Plan
from scanrnn_dist.records import ENCODER


def differences_of(recorded: Mapping[str, Any], job: Mapping[str, Any], allow_mixed: bool) -> list[str]:
    """What keeps a recorded job from being this one, in words.

    Of encoders their fingerprint tells, their architecture only says how.
    """
    told: list[str] = []
    before, now = recorded["encoder"], job["encoder"]
    sections = ["options"] if allow_mixed else ["options", "environment"]
    if before["fingerprint"] != now["fingerprint"]:
        recipes = [it.get(RECIPE, {}) for it in (recorded, job)]
        if all("seed" in recipe for recipe in recipes):
            told += _fields(*recipes)
        told = told or list(_fields(before["architecture"], now["architecture"], "encoder."))
        prints = [it["fingerprint"][:16] for it in (before, now)]
        weights = f"the encoder's weights are others: the fingerprint was {prints[0]} and is {prints[1]}"
        told = told or [f"{weights} (the job keeps its own as {ENCODER})"]
    else:
        sections.append("window")  # that of another encoder follows from its size
    for section in sections:
        told += _fields(recorded[section], job[section])
    return told


def _fields(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The values of two JSON objects that differ, field by field and at any depth: "max_steps was None and is 7".

    Not the digest of an output's first steps, which is known only if their files were still there to be read.
    """
    for key in sorted((before.keys() | now.keys()) - {FIRST_DIGEST}):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _fields(old, new, f"{name}.")
        elif key == "layers" and old and new and len(old) == len(new):
            for nth, layers in enumerate(zip(old, new, strict=True)):
                yield from _fields(*layers, f"{name}[{nth}].")
        elif old != new:
            yield f"{option_name(name)} was {_shown(old)} and is {_shown(new)}"


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def changed_source(changes: Changes, plan: Plan, root: str) -> ScanRNNError:
    """What to say of a source that changed, that cannot be one any more, or that is not there."""
    if not changes.is_there:
        return StoppedError(
            f"The source of the job in {root} cannot be read: {'; '.join(changes.told)}. See that all its files can "
            "be reached and read, then start the same command again."
        )
    if not changes.is_listed:
        return DataError(
            f"The source of the job in {root} is not what it was: {'; '.join(changes.told)}. Set that right, then "
            "start the same command again."
        )
    text = f"The source changed since the job in {root} began: {'; '.join(changes.told)}."
    new = counted(changes.new_files, "new file") if changes.new_files else ""
    if new and not changes.units:  # a file without rows can be gone, which concerns no unit either
        return DataError(
            f"{text} All {counted(len(plan.units), 'part')} of the output stay as they are; beside them the source has "
            f"{new}. Start the command that made it with --accept-changes to add what is new and keep all the rest, or "
            "move what is new out of the source and start the same command again."
        )
    return DataError(
        f"{text} That concerns {changes.units:,} of {counted(len(plan.units), 'part')}{new and f', and {new}'}. Start "
        "the command that made it with --accept-changes: it does exactly these again and keeps all others. A file that "
        "was only touched may get its time back by `touch -d` instead; --restart begins anew."
    )
