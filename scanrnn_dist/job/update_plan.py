"""What an update would do: which rows of an output have new steps, which ids are new, and which rows stay set aside.

For that the old output is read once, batch by batch. `continued.py` then makes the rows.
"""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import DataError
from scanrnn_dist.job.continued import ContinuedPlan, FirstSource, check_types
from scanrnn_dist.job.new_steps import NewSteps, keys_of, told_key
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.ragged import running_sums
from scanrnn_dist.records import part_names, quarantine_name, read_part, read_quarantine
from scanrnn_dist.source import ERROR, ROWS_PER_PART, SKIP, FileTable, Source, Units, count_name, picked_rows
from scanrnn_dist.storage import Store


def continued_plan(
    store: Store,
    of_job: str,
    parts: pa.Table,
    new_plan: Plan,
    new: NewSteps,
    applied: tuple[str, ...],
    first: FirstSource,
    empty_sequence: str,
) -> ContinuedPlan:
    """What an update of an output would do.

    Args:
        store: where the output stands.
        of_job: the id of its job.
        parts: the records of its parts. Rows that were set aside had no steps.
        new_plan: of the source of the new steps.
        new: the new steps.
        applied: digests of all that was applied before.
        first: what the output began with.
        empty_sequence: what is done with a new id that has no steps.

    Raises:
        DataError: a part that cannot be read, other types than the new steps have, an id that stands twice, or a new
            one without steps under "error".
    """
    rows_of = dict(zip(part_names(parts["unit"].to_pylist(), len(parts)), parts["rows"].to_pylist(), strict=True))
    names = tuple(name for name, rows in rows_of.items() if rows)
    is_there = np.zeros(len(new), bool)
    order = tuple(name for name in new.first.schema.names if name in new_plan.keep)
    found = tuple(_continued_rows(store, name, new, order, is_there) for name in names)
    lists, aside, is_listed = _lists(store, parts, new_plan.kept_schema, new, is_there.copy())
    begun, counts = np.flatnonzero(~is_there & ~is_listed), dict(new.counts)
    lengths = new.lengths_of(begun)
    empty = begun[lengths == 0]
    if len(empty):
        counts[count_name("empty_sequence", empty_sequence)] = len(empty)
    if empty_sequence == ERROR and len(empty):
        raise DataError(
            f"{told_key(new.kept, new.ids, int(empty[0]))} is a new id without steps; expected at least one "
            "(--empty-sequence error). Leave the row out of the source."
        )
    if empty_sequence == SKIP:
        begun, lengths, aside = begun[lengths > 0], lengths[lengths > 0], aside + len(empty)
    else:
        empty = empty[:0]
    most = new_plan.rows_per_part or ROWS_PER_PART
    joined = min(len(begun), max(0, most - rows_of[names[-1]])) if names else 0
    steps = [int(new.lengths_of(ours).sum()) for _, ours in found]
    units = _units(store, new_plan, [rows_of[name] for name in names], names, steps, lengths, joined, aside)
    source = Source(new_plan.source.filesystem, units.files, new_plan.source.schema, int(units.rows.sum()))
    base = {name: getattr(new_plan, name) for name in ("given", "layout", "keep", "rows_per_part")}
    return ContinuedPlan(
        source=source, units=units, new=new, store=store, names=names, found=found, begun=begun, joined=joined,
        aside=aside, lists=tuple(lists), old_units=len(parts), empty=empty, counts=counts,
        applied=(*applied, new.digest), of_job=of_job, first=first, **base,
    )  # fmt: skip


def _continued_rows(
    store: Store, name: str, new: NewSteps, order: tuple[str, ...], is_there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a part that have new steps, rising, and which new rows these are."""
    begin, hits, path = 0, [(np.zeros(0, np.int64), np.zeros(0, np.int64))], store.path(name)
    for batch in read_part(store, name, [*new.ids, *order]):
        check_types(batch.schema, new.kept.schema, (*new.ids, *order), path)
        rows = new.rows_of(batch)
        _check_is_later(batch, rows, new, order)
        _check_once(rows[rows >= 0], is_there, path)
        hit = np.flatnonzero(new.lengths_of(rows))
        hits.append((begin + hit, rows[hit]))
        begin += batch.num_rows
    old, ours = map(np.concatenate, zip(*hits, strict=True))
    return old, ours


def _lists(
    store: Store, parts: pa.Table, kept: pa.Schema, new: NewSteps, is_there: np.ndarray
) -> tuple[list[tuple[int, np.ndarray]], int, np.ndarray]:
    """Of each list of rows set aside its unit and the lines that leave it; how many lines stay, and which new rows."""
    lists, stay, stays = [], 0, np.zeros(len(new), bool)
    for unit in parts["unit"].filter(pc.greater(parts["aside"], 0)).to_pylist():
        path, leaving, begin = store.path(quarantine_name(unit, len(parts))), [np.zeros(0, np.int64)], 0
        for batch in read_quarantine(store, unit, len(parts)):
            old = pa.RecordBatch.from_arrays(batch.columns[-len(kept) :], kept.names)
            check_types(old.schema, kept, tuple(kept.names), path)
            rows = new.rows_of(old)
            steps = new.lengths_of(rows)
            _check_once(rows[steps > 0], is_there, path)
            stays[rows[(rows >= 0) & (steps == 0)]] = True
            leaving.append(begin + np.flatnonzero(steps))
            begin += batch.num_rows
        lists.append((unit, np.concatenate(leaving)))
        stay += begin - len(lists[-1][1])
    return lists, stay, stays


def _check_once(rows: np.ndarray, is_there: np.ndarray, path: str) -> None:
    """Refuse new rows whose ids stand twice in the output, and take note of them."""
    if is_there[rows].any() or len(np.unique(rows)) < len(rows):
        raise DataError(f"{path} has an id that stands twice in the output; expected each once.")
    is_there[rows] = True


def _units(
    store: Store,
    new_plan: Plan,
    rows: list[int],
    names: tuple[str, ...],
    steps: list[int],
    lengths: np.ndarray,
    joined: int,
    aside: int,
) -> Units:
    """A unit for each old part, of its rows and maybe some that begin; then units of those that begin, `lengths` each.

    The last one is of the rows that are set aside, if any are. The parts stand in for files, and what they have of rows
    that begin for a row group more.
    """
    most, alone = new_plan.rows_per_part or ROWS_PER_PART, len(lengths) - joined
    begun = [min(most, alone - at) for at in range(0, alone, most)]
    bounds = running_sums(np.array([joined, *begun], np.int64))
    weights = [int(lengths[begin:end].sum()) for begin, end in pairwise(bounds)] + ([0] if aside else [])
    begun += [aside] if aside else []
    groups = [[count] for count in [*rows, *begun]]
    if joined:
        groups[len(rows) - 1].append(joined)
        steps = [*steps[:-1], steps[-1] + weights[0]]
    entries = [(store.path(name), 0, None) for name in names]
    entries += [(new_plan.named, 0, None)] if begun else []
    in_unit = np.array([sum(counts) for counts in groups], np.int64)
    return Units(
        FileTable.from_entries(entries, ""), np.minimum(np.arange(len(groups)), len(names)).astype(np.int32),
        running_sums(np.array([len(counts) for counts in groups])), np.array([*chain.from_iterable(groups)], np.int64),
        np.zeros(len(groups), np.int64), in_unit + np.array([*steps, *weights[1:]], np.int64),
    )  # fmt: skip


def _check_is_later(batch: pa.RecordBatch, rows: np.ndarray, new: NewSteps, order: tuple[str, ...]) -> None:
    """Refuse new steps that do not come after the last one of their sequence."""
    hit = np.flatnonzero(rows >= 0)
    if not order or not len(hit):
        return
    last = picked_rows(batch.select([*dict.fromkeys((*new.ids, *order))]), hit)
    first = picked_rows(new.first, rows[hit])
    for nth, (before, after) in enumerate(zip(keys_of(last, order), keys_of(first, order), strict=True)):
        if not after > before:
            raise DataError(
                f"{told_key(last, new.ids, nth)}: the first new step has {told_key(first, order, nth)}; expected one "
                f"that comes after {told_key(last, order, nth)}, the last one that was applied. Leave out steps that "
                "were applied."
            )
