"""What an attempt says that did all but some units: where these stand, why they are left, and what to do."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from scanrnn_dist.errors import UndoneError, one_line
from scanrnn_dist.job.continued import reads_sorted_copy
from scanrnn_dist.job.restart import is_of_restart
from scanrnn_dist.records import Commits
from scanrnn_dist.source import Units
from scanrnn_dist.storage import Store

FLAG = re.compile(r" \(--[a-z-]+\)$")
"""At the end of a reason: a flag by which such rows need not fail their unit."""
OTHERWISE = {
    "--lossy-cast": ("round numbers that float32 does not hold", "--lossy-cast"),
    "--keep": ("leave columns out", "another --keep"),
}
"""Flags that a reason may name, by which files may stay as they are: what each does, and how it is given."""
MOST_TOLD = 20
"""Places that a message names; all of them are in the records."""


def error_of_undone(
    store: Store, options: Mapping[str, Any], units: Units, commits: Commits, failed: np.ndarray, fatal: list[int]
) -> UndoneError:
    """The one error for all units that an attempt left: those whose data failed, and those that end their process."""
    told = [_of_failed(store, options, commits, failed)] if len(failed) else []
    told += [_of_fatal(units, commits, fatal)] if fatal else []
    return UndoneError("\n".join(told))


def _of_failed(store: Store, options: Mapping[str, Any], commits: Commits, failed: np.ndarray) -> str:
    at = np.searchsorted(commits.failed, failed[:MOST_TOLD])
    places = [f"  {reason}" for reason in commits.failures["reason"].take(at).to_pylist()]
    if len(failed) > MOST_TOLD:
        places.append(f"  and {len(failed) - MOST_TOLD:,} more")
    head = f"{len(failed):,} of {commits.units:,} parts could not be made; all others of this share are done."
    listed = f"`scanrnn status --json {shlex.quote(os.fspath(store))}` lists one place for each of these parts"
    named = [{flag for flag in OTHERWISE if flag in place} for place in places[:MOST_TOLD]]
    told = [] if all(named) else [_way_to_mend(store, options)]
    otherwise = [
        f"To {what}, run the command that began the job, with {by}."
        for flag, (what, by) in OTHERWISE.items()
        if any(flag in flags for flags in named)
    ]
    told += otherwise
    told.append(f"{listed}; a part may hold more bad rows.")
    has_policy = any(FLAG.search(place) for place in places)
    if has_policy:
        told.append("To do something else with such rows, set the flag in parentheses to skip or to another choice.")
    if (has_policy and len(commits.records)) or (otherwise and (len(commits.records) or reads_sorted_copy(options))):
        told.append("That is another job, so add --restart.")
    return "\n".join([head, *places, " ".join(told)])


def _way_to_mend(store: Store, options: Mapping[str, Any]) -> str:
    """What to do about bad rows."""
    if reads_sorted_copy(options):
        return (
            "These places are in the sorted copy of the source. Mend the source itself, then run the command that "
            "began the job, with --restart: it sorts the source anew."
        )
    again = "the command that began the job, with --accept-changes: it redoes only what holds their rows"
    if is_of_restart(store.root):
        again = "the same command again: the restart begins anew, with the files as they are then"
    return f"Mend these files, then run {again}."


def _of_fatal(units: Units, commits: Commits, fatal: list[int]) -> str:
    unit = units[fatal[0]]
    more = f" The same holds for parts {fatal[1:8]}." if len(fatal) > 1 else ""
    return (
        f"The rows of part {unit.index} end the process that computes them: {commits.suspects[unit.index].verdict}. "
        f"They are {one_line(unit.span)} {unit.rows} rows, {unit.nbytes:,} bytes decoded.{more} All others of "
        "this share are done. The cause may be a page that crashes the decoder, or a row that needs more memory than "
        "there is. Write the file again or find more memory, then run the same command with --retry."
    )
