"""Which parts of a job are not what is recorded of them: missing, changed, or surplus.

At a glance by names and sizes (`damaged_parts`), which proves nothing; by their hashes (`wrong_parts`), which reads
them all. What is found is made again by the command that made it, see `opening.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.dataset.commits import read_commits, read_parts
from scanrnn_dist.dataset.manifest import PARTS, Manifest, part_name
from scanrnn_dist.dataset.plan import Plan
from scanrnn_dist.dataset.restart import PART
from scanrnn_dist.dataset.units import part_rows
from scanrnn_dist.dataset.writer import file_sha256
from scanrnn_dist.errors import DataError

PROBLEMS_TOLD = 8


def damaged_parts(manifest: Manifest) -> list[str]:
    """Names of parts that are missing or of another size; of a list of parts that is none any more, the list's name."""
    try:
        _, content = manifest.read_success()
        records = read_parts(content, manifest.store.path(PARTS))
    except DataError:
        return [PARTS]
    sizes = dict(manifest.store.entries())
    names = (part_name(unit, len(records)) for unit in records["unit"].to_pylist())
    return [
        name for name, size in zip(names, records["size_bytes"].to_pylist(), strict=True) if sizes.get(name) != size
    ]


def told_damage(damaged: Collection[str], discarded: Collection[str] = ()) -> str:
    """What is done about parts that are missing or changed, in words."""
    names = sorted({*damaged, *discarded})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'} missing or changed, and made again"


def recorded_parts(manifest: Manifest, job: dict[str, Any], plan: Plan) -> tuple[pa.Table, bool]:
    """What is recorded of every part, and whether these are all.

    Of an unfinished job, of the parts that stand: one that is gone is done again by the command that goes on.
    """
    rows = part_rows(plan.units)
    if not manifest.is_complete:
        records, there = read_commits(manifest.store, job["id"], rows).records, dict(manifest.store.entries())
        stands = [part_name(unit, len(rows)) in there for unit in records["unit"].to_pylist()]
        return records.filter(pa.array(stands, pa.bool_())), False
    totals, content = manifest.read_success()
    parts = read_parts(content, manifest.store.path(PARTS))
    recorded = parts["unit"].to_numpy()
    if not np.array_equal(recorded, np.arange(len(rows))):
        differ = np.setxor1d(recorded, np.arange(len(rows)))[:5].tolist()
        raise DataError(f"{manifest.store.root}: units {differ} have no part, or a surplus one.")
    if rows.sum() != totals["rows"]:
        raise DataError(f"{manifest.store.root}: the parts hold other rows than the {totals['rows']} of the job.")
    return parts, True


def check_parts(manifest: Manifest, parts: pa.Table, plan: Plan, is_complete: bool) -> None:
    """Every recorded part with its hash, and no others."""
    root, wrong = manifest.store.root, wrong_parts(manifest, parts, plan)
    if wrong:
        told = [f"{name} {reason}" for name, reason in wrong.items()]
        more = f"; and {len(told) - PROBLEMS_TOLD} more" if len(told) > PROBLEMS_TOLD else ""
        again = "makes them again" if is_complete else "removes them, and the command that goes on makes them again"
        raise DataError(f"{root}: {'; '.join(told[:PROBLEMS_TOLD])}{more}. `scanrnn verify --repair` {again}.")
    surplus = surplus_files(manifest, plan)
    if surplus:
        ours = [name for name in surplus if PART.fullmatch(name)]
        way_out = "`scanrnn verify --repair` removes them." if len(ours) == len(surplus) else "Move them elsewhere."
        raise DataError(f"{root} holds files that no unit made: {surplus[:5]}. {way_out}")


def wrong_parts(manifest: Manifest, parts: pa.Table, plan: Plan) -> dict[str, str]:
    """Parts that are not as they are recorded, and what is wrong with each."""
    store, rows, wrong = manifest.store, part_rows(plan.units), dict[str, str]()
    there = dict(store.entries())
    for part in parts.to_pylist():
        name = part_name(part["unit"], len(rows))
        if name not in there:
            wrong[name] = f"is missing; expected {part['rows']} rows"
            continue
        is_as_recorded = part["rows"] == rows[part["unit"]] and there[name] == part["size_bytes"]
        if not is_as_recorded or file_sha256(store, name) != part["sha256"]:
            wrong[name] = "changed after it was written: its size or SHA-256 is not the recorded one"
    return wrong


def surplus_files(manifest: Manifest, plan: Plan) -> list[str]:
    """Files that readers of data sets take for a part, whatever its ending, and that are the name of no unit's."""
    visible = {name for name in manifest.store.below() if not any(part[0] in "_." for part in name.split("/"))}
    units = len(part_rows(plan.units))
    return sorted(visible - {part_name(unit, units) for unit in range(units)})
