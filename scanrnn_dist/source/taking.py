"""Steps of rows to a `Ragged`, by the rules for rows and values that are not what they should be.

What a layout made of a batch comes in; what a recurrent cell may be fed goes out. Layouts are in `layouts/`, the
choices in `bad_rows.py`, what becomes of a row in `judging.py`, how values are mended in `mending.py`. Rules apply in
this order: rows that cannot be taken apart, bad values, rows without steps, rows that are too short, or too long.

Where nothing is bad, that costs a sum over the values and a look at the lengths: 14 - 23 ms for 100 MB of float32 in
chunks of 2 MB, as without these rules (best of 15, 2 busy cores).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import DataError, LayoutError, counted
from scanrnn_dist.ragged import Ragged, compact, joined
from scanrnn_dist.source.bad_rows import (
    DROP_STEP,
    ERROR,
    FORWARD_FILL,
    INITIAL_CARRY,
    PROPAGATE,
    SKIP,
    ZERO,
    BadRows,
    Lengths,
)
from scanrnn_dist.source.judging import Judged, NamedInput, StepsAsGiven, StepsAsInputs, Where
from scanrnn_dist.source.layouts import EXPECTED_EXACT, Steps, float32_of, is_string, layout_of_column, picked_rows
from scanrnn_dist.source.mending import forward_filled, without_steps, zero_filled
from scanrnn_dist.source.set_aside import SetAside

_MENDED: dict[str, Callable[[Ragged, np.ndarray], Ragged]] = {
    DROP_STEP: without_steps,
    ZERO: zero_filled,
    FORWARD_FILL: forward_filled,
}
_Given = TypeVar("_Given")


@dataclass(frozen=True)
class Taken:
    """Rows as the engine takes them.

    Args:
        sequences: of the `n` rows that became sequences.
        kept: `(n,)` int64, which rows of the batch these are, rising.
        is_null: `(n,)` bool, whose features are null, and which have no steps here; None if there are none.
        aside: the rows that are set aside, by their rows.
        counts: how often each choice was applied: of "bad_value zero" values, of "null_sequence skip" rows.
    """

    sequences: Ragged
    kept: np.ndarray
    is_null: np.ndarray | None = None
    aside: tuple[SetAside, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def take(
    steps: Steps,
    in_features: int,
    bad_rows: BadRows,
    lossy_cast: bool,
    where: Where,
    lengths: Lengths = Lengths(),  # noqa: B008 - frozen
    named: NamedInput | None = None,
) -> Taken:
    """The rows of a batch, cast to float32 and checked; a view of Arrow's buffer where that is possible.

    Args:
        steps: of the batch.
        in_features: `D`.
        bad_rows: what is done with rows that are not what they should be.
        lossy_cast: whether numbers may be rounded to float32; otherwise only values that float32 holds exactly pass.
        where: says where a row of the batch stands.
        lengths: how many steps of a row count. Rows that are cut at their tail keep it: that is left to the engine.
        named: what of a step travels, where that is not its numbers as they are; the rules then apply to what travels.

    Raises:
        LayoutError: a step of another width, under "error".
        DataError: a number that float32 does not hold; or what is not as it should be, under "error".
    """
    judged = Judged(len(steps), bad_rows, where)
    faults, rows_of = {fault.row: (fault.reason, fault.step) for fault in steps.faults}, dict[str, list[int]]()
    for fault in steps.faults:
        rows_of.setdefault(fault.kind, []).append(fault.row)
    for kind, rows in rows_of.items():  # by their first rows, so that the first error is the one that is raised
        judged.judge(kind, np.array(rows), faults.__getitem__)
    source: StepsAsGiven | StepsAsInputs
    if named is None:
        values, nulls, inexact = placed(float32_of, steps, in_features, where=where)
        source = StepsAsGiven(steps, in_features, values, nulls)
        if inexact is not None and not lossy_cast:
            step, _, became = inexact
            raise DataError(f"{source.place(where, step)}: {became}; {EXPECTED_EXACT}.")
    else:
        source = StepsAsInputs(steps, named, placed(named.applied, steps, lossy_cast, where=where))
        source.check_refusals(where)
        values = source.values
    ragged = _with_good_values(Ragged(values, steps.offsets), source, judged)
    counted = _of_good_lengths(ragged, lengths, judged)
    return _laid_out(ragged, counted, lengths, judged)


def to_ragged(
    column: pa.Array | pa.ChunkedArray,
    *,
    in_features: int | None = None,
    lossy_cast: bool = False,
    nonfinite: Literal["error", "propagate"] = "error",
    where: Where,
) -> Ragged:
    """The sequences of an Arrow array, in any layout of one column; a view of float32 lists that are one chunk.

    Args:
        column: `N` rows; of extension types tensors, and those whose storage is the sequence.
        in_features: `D` that every step must have; None takes it from the type or from the first step.
        lossy_cast: whether numbers may be rounded to float32.
        nonfinite: what is done with a null, a NaN or an infinity.
        where: says where a row of `column` stands.

    Returns:
        A `Ragged` of `N` rows; an empty list becomes a row of 0 steps.

    Raises:
        LayoutError: another layout, another number of features than expected, or one that nobody knows.
        DataError: as `take`.
    """
    # Chunk by chunk, as `combine_chunks` refuses lists of 2^31 values in all.
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    layout = placed(layout_of_column, column.type, "sequences", where=where)
    fixed = layout.width(pa.schema([("sequences", column.type)]))
    if fixed is not None and in_features not in (None, fixed):
        told = f"{counted(fixed, 'feature')} a step"
        raise LayoutError(f"{where(0)}: the column is {column.type}, {told}; expected {in_features}.")
    width, given, first_row = in_features, [], 0
    for chunk in [chunk for chunk in chunks if len(chunk)] or [pa.nulls(0, column.type)]:
        batch, place = pa.RecordBatch.from_arrays([chunk], ["sequences"]), _from(first_row, where)
        steps = placed(layout.steps, batch, width, where=place)
        width = steps.in_features or width
        given.append((steps, batch, place))
        first_row += len(chunk)
    if width is None:
        raise unknown_width(where(0), f"{column.type}", len(column))
    parts = []
    for steps, batch, place in given:
        if steps.in_features is None:  # the chunk stands before the first step that tells
            steps = placed(layout.steps, batch, width, where=place)
        parts.append(take(steps, width, BadRows(nonfinite), lossy_cast, place).sequences)
    return parts[0] if len(parts) == 1 else joined(parts, width)


def _from(first_row: int, where: Where) -> Where:
    """Says where a row stands of those from `first_row` on."""
    return lambda row: where(first_row + row)


def sequence_columns(schema: pa.Schema) -> list[str]:
    """The names of the columns that could each be the sequences.

    Example:
        >>> sequence_columns(pa.schema({"id": pa.int64(), "seq": pa.list_(pa.list_(pa.float32()))}))
        ['seq']
    """
    return [field.name for field in schema if _is_sequence(field)]


def _is_sequence(field: pa.Field, widths: Container[int | None] | None = None) -> bool:
    """Whether a column could be the sequences, if `widths` are given with so many features per step by its type."""
    try:
        layout = layout_of_column(field.type, field.name)
    except LayoutError:
        return False
    schema = pa.schema([field])
    return not any(map(is_string, layout.types(schema))) and (widths is None or layout.width(schema) in widths)


def placed(do: Callable[..., _Given], *given: object, where: Where) -> _Given:
    """What a layout does, its errors with the place in front."""
    try:
        return do(*given)
    except LayoutError as error:
        raise LayoutError(f"{where(0)}: {error}") from error


def unknown_width(place: str, what: str, rows: int) -> LayoutError:
    """What to say of rows whose width nobody knows, without steps or with null ones alone."""
    return LayoutError(
        f"{place}: none of the {rows} rows has a step that is not null, and {what} does not say how many features a "
        "step has; expected at least one such step. Choose an encoder, which tells how many."
    )


def is_fixed_lists(field: pa.Field) -> bool:
    """Whether a column may hold what `fixed_lists` takes, as far as its type says it."""
    return _is_sequence(field, widths=(None, 1))


def fixed_lists(
    batch: pa.RecordBatch,
    column: str,
    size: int,
    *,
    lossy_cast: bool,
    where: Where,
    left_out: np.ndarray | None = None,
) -> np.ndarray:
    """A column of lists of `size` numbers as `(n, size)` float32.

    Args:
        batch: of `n` rows.
        column: its name.
        size: of each list.
        lossy_cast: whether numbers may be rounded to float32.
        where: says where a row of `batch` stands.
        left_out: `(n,)` bool, the rows whose lists are not looked at, and become zeros; None for none.

    Raises:
        DataError: a list that is null, of another size, or with a number that is null or not finite; or one that
            float32 does not hold exactly, unless it may be rounded.
    """
    if left_out is not None:
        rows, lists = np.flatnonzero(~left_out), np.zeros((batch.num_rows, size), np.float32)
        if len(rows):
            lists[rows] = fixed_lists(
                picked_rows(batch.select([column]), rows), column, size, lossy_cast=lossy_cast,
                where=lambda row: where(int(rows[row])),
            )  # fmt: skip
        return lists
    given = batch.column(column)
    if given.null_count:
        row = given.is_null().index(True).as_py()
        raise DataError(f"{where(row)}: {column!r} is null; expected a list of {size} numbers.")
    return _of_size(given, column, size, lossy_cast, where)


def _of_size(given: pa.Array, column: str, size: int, lossy_cast: bool, where: Where) -> np.ndarray:
    """Lists of `size` numbers, none of them null, as `(n, size)` float32; raises as `fixed_lists`."""

    def in_column(row: int) -> str:
        return f"{where(row)}, column {column!r}"

    lists = to_ragged(given, in_features=1, lossy_cast=lossy_cast, where=in_column)
    wrong = lists.lengths != size
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{where(row)}: {column!r} holds {lists.lengths[row]} numbers; expected {size}.")
    return lists.values[lists.offsets[0] : lists.offsets[-1]].reshape(-1, size)


def _with_good_values(ragged: Ragged, source: StepsAsGiven | StepsAsInputs, judged: Judged) -> Ragged:
    """The rows, bad values mended as is asked for; rows with one are set aside, or raise, where that is."""
    first = ragged.first_nonfinite()
    if first is None:
        return ragged
    choice, offsets = judged.bad_rows.bad_value, ragged.offsets
    if choice == ERROR:
        step = int(offsets[first[0]]) + first[1]
        raise DataError(f"{source.place(judged.where, step)}: {source.wrong_at(step)}").under("bad_value")
    bad = ~np.isfinite(ragged.values)
    if choice == SKIP:
        steps = np.flatnonzero(bad.any(axis=1))
        rows, nth = np.unique(source.row_of(steps), return_index=True)
        first_bad = dict(zip(rows.tolist(), steps[nth].tolist(), strict=True))
        judged.judge(
            "bad_value", rows, lambda row: (source.wrong_at(first_bad[row]), first_bad[row] - int(offsets[row]))
        )
        return ragged
    if choice in (ZERO, FORWARD_FILL):
        source.check_fills(bad, choice, judged.where)
    judged.count("bad_value", int(bad.any(axis=1).sum() if choice == DROP_STEP else bad.sum()))
    return ragged if choice == PROPAGATE else _MENDED[choice](ragged, bad)


def _of_good_lengths(ragged: Ragged, lengths: Lengths, judged: Judged) -> np.ndarray:
    """The steps of each row, `(N,)`, once those of unwanted lengths are judged."""
    steps, most = ragged.lengths, lengths.max_steps

    def apply(policy: str, is_wrong: np.ndarray, expected: str) -> None:
        if is_wrong.any() and len(rows := np.flatnonzero(is_wrong & judged.is_in)):
            judged.judge(policy, rows, lambda row: (f"the sequence has {steps[row]} steps; expected {expected}.", None))

    # "initial-carry" lets a row through, which may then be too short: it is counted for the one that it ends at.
    is_empty = steps == 0
    if judged.bad_rows.empty_sequence == INITIAL_CARRY and lengths.min_steps:
        is_empty = np.zeros(len(steps), bool)
    apply("empty_sequence", is_empty, "at least one")
    apply("too_short", steps < lengths.min_steps, f"at least {lengths.min_steps}, as min_steps says")
    if most is not None:
        apply("too_long", steps > most, f"at most {most}, as max_steps says")
    return steps


def _laid_out(ragged: Ragged, steps: np.ndarray, lengths: Lengths, judged: Judged) -> Taken:
    """The rows that are left, one after the other; a view where no steps are left out between them."""
    kept, begins, counts = np.arange(len(steps)), ragged.offsets[:-1], dict(judged.counts)
    is_null, most = None, lengths.max_steps
    is_tail = most is not None and lengths.truncate == "tail" and bool((steps > most).any())
    if not (judged.aside or is_tail or judged.is_null.any()):
        return Taken(ragged, kept, counts=counts)
    if judged.is_null.any():
        is_null, steps = judged.is_null, np.where(judged.is_null, 0, steps)
    if is_tail and most is not None:
        begins, steps = begins + np.maximum(steps - most, 0), np.minimum(steps, most)
    if judged.aside:
        kept = np.flatnonzero(~judged.is_aside)
        begins, steps = begins[kept], steps[kept]
        is_null = None if is_null is None or not is_null[kept].any() else is_null[kept]
    return Taken(compact(ragged.values, begins, steps), kept, is_null, tuple(sorted(judged.aside)), counts)
