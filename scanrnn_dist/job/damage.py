"""Which parts of a job are not what is recorded of them: missing, changed, or surplus.

At a glance by names and sizes (`damaged_parts`), which proves nothing; by their hashes (`wrong_parts`), which reads
them all. What is found is made again by the command that made it, see `open_job.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.job.continued import APPLIED, WAY_BACK
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.job.restart import PART, is_of_restart, replacing
from scanrnn_dist.records import (
    PARTS,
    SUCCESS,
    JobRecords,
    file_sha256,
    part_name,
    part_names,
    quarantine_name,
    read_parts,
    records_of_parts,
)
from scanrnn_dist.source import SKIP, Units, count_name

PROBLEMS_TOLD = 8

logger = logging.getLogger("scanrnn_dist")


def damaged_parts(records: JobRecords) -> list[str]:
    """Names of parts that are missing or of another size; of a list of parts that is none any more, the list's name."""
    try:
        _, content = records.read_success()
        listed = read_parts(content, records.store.path(PARTS))
    except DataError:
        return [PARTS]
    there, names = dict(records.store.entries()), part_names(listed["unit"].to_pylist(), len(listed))
    return [name for name, size in zip(names, listed["size_bytes"].to_pylist(), strict=True) if there.get(name) != size]


def set_right(records: JobRecords, job: dict[str, Any], discard: Collection[str], expiry_seconds: float) -> None:
    """Have a job whose parts are not all as recorded be unfinished, without those that are to be discarded."""

    def found() -> set[str]:
        return {*discard, *(damaged_parts(records) if records.is_complete else ())}

    if not found():
        return
    try:
        with replacing(records, expiry_seconds) as lease:
            records.check_is(job)
            if names := sorted(found()):
                _tell(records, names, "missing or changed, and made again")
                for name in (SUCCESS, *discard):
                    lease.remove(name)
                records.store.sync()
    except StoppedError:
        if found():
            raise
        # else another process found the same, and set it right


def remove_parts(records: JobRecords, job: dict[str, Any], names: Sequence[str], what: str) -> None:
    """Remove these parts, and no record; `what` tells what they are."""
    if not names:
        return
    with replacing(records) as lease:
        records.check_is(job)
        _tell(records, names, f"{what}, and removed")
        for name in names:
            lease.remove(name)
        records.store.sync()


def _tell(records: JobRecords, names: Sequence[str], what: str) -> None:
    """Log what these files are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "is" if len(names) == 1 else "are"
    logger.info("%s: %s%s %s %s.", records.store.root, ", ".join(names[:3]), more, verb, what)


def recorded_parts(records: JobRecords, job: dict[str, Any], units: Units) -> tuple[pa.Table, bool]:
    """What is recorded of every part, and whether these are all.

    Of an unfinished job, of the parts that stand: one that is gone is done again by the command that goes on.
    """
    rows = units.rows
    if not records.is_complete:
        listed = records_of_parts(records.store, job["id"], rows)
        there = dict(records.store.entries())
        stands = [name in there for name in part_names(listed["unit"].to_pylist(), len(rows))]
        return listed.filter(pa.array(stands, pa.bool_())), False
    totals, content = records.read_success()
    parts = read_parts(content, records.store.path(PARTS))
    recorded = parts["unit"].to_numpy()
    if not np.array_equal(recorded, np.arange(len(rows))):
        differ = np.setxor1d(recorded, np.arange(len(rows)))[:5].tolist()
        raise DataError(f"{records.store.root}: parts {differ} are missing, or are there without a reason.")
    accounted = sum(parts[name].to_numpy() for name in ("rows", "aside", "filtered"))
    if (accounted != rows).any():
        unit = int((accounted != rows).argmax())
        raise DataError(
            f"{records.store.root}: part {unit} comes from {rows[unit]} rows of the source, but {accounted[unit]} are "
            "in it, set aside, or left out by a filter."
        )
    if parts["rows"].to_numpy().sum() != totals["rows"]:
        raise DataError(f"{records.store.root}: the parts hold other rows than the {totals['rows']} of the job.")
    return parts, True


def unread_units(parts: pa.Table) -> set[int]:
    """The units that were set aside as a whole, since they could not be read."""
    name = count_name("unreadable_file", SKIP)
    is_unread = pc.match_substring(parts["counts"], json.dumps(name))
    return set(parts["unit"].filter(is_unread).to_pylist())


def check_parts(records: JobRecords, job: Mapping[str, Any], parts: pa.Table, plan: Plan, is_complete: bool) -> None:
    """Every recorded part with its hash, and no others."""
    root, wrong = records.store.root, wrong_parts(records, parts, plan.units)
    if wrong:
        told = [f"{name} {reason}" for name, reason in wrong.items()]
        more = f"; and {len(told) - PROBLEMS_TOLD} more" if len(told) > PROBLEMS_TOLD else ""
        again = "makes them again" if is_complete else "removes them, and the command that goes on makes them again"
        is_updated = job["options"].get(APPLIED) and not is_of_restart(root)
        way_out = f"The output was updated: {WAY_BACK}" if is_updated else way_to_mend(root, again)
        raise DataError(f"{root}: {'; '.join(told[:PROBLEMS_TOLD])}{more}. {way_out}.")
    surplus = surplus_files(records, plan)
    if surplus:
        ours = [name for name in surplus if PART.fullmatch(name)]
        way_out = f"{way_to_mend(root, 'removes them')}." if len(ours) == len(surplus) else "Move them elsewhere."
        raise DataError(f"{root} holds files that are not of its job: {surplus[:5]}. {way_out}")


def way_to_mend(root: str, does: str) -> str:
    """What to do about damage, of which a repair `does` something; a restart or an update is begun anew instead."""
    if is_of_restart(root):
        return f"Remove {root} and repeat the command that began it"
    return f"`scanrnn verify --repair` {does}"


def wrong_parts(records: JobRecords, parts: pa.Table, units: Units) -> dict[str, str]:
    """Parts that are not as they are recorded, and what is wrong with each."""
    store, rows, wrong = records.store, units.rows, dict[str, str]()
    there = dict(store.entries())
    for part in parts.to_pylist():
        name, listed = part_name(part["unit"], len(rows)), quarantine_name(part["unit"], len(rows))
        size = there.get(name)
        sha256 = file_sha256(store, name) if size == part["size_bytes"] else ""
        if size is None or sha256 is None:  # the latter of one that was removed since it was listed
            wrong[name] = f"is missing; expected {part['rows']} rows"
        elif sha256 != part["sha256"]:
            wrong[name] = "changed after it was written: its size or SHA-256 is not the recorded one"
        elif part["aside"] and file_sha256(store, listed) != part["aside_sha256"]:
            where = store.path(listed)
            wrong[name] = f"has a list of {part['aside']} rows set aside that is missing or changed: {where}"
    return wrong


def surplus_files(records: JobRecords, plan: Plan) -> list[str]:
    """Files that readers of data sets take for a part, whatever its ending, and that are the name of no unit's."""
    visible = {name for name in records.store.below() if not any(part[0] in "_." for part in name.split("/"))}
    units = len(plan.units)
    return sorted(visible.difference(part_names(range(units), units)))
