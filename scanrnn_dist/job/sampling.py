"""Rows of a source for somebody who looks at it: the first ones of some row groups, or all. Nothing is refused of them.

What is told of them says `inspection.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from scanrnn_dist.errors import DataError, UnreadableError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.lengths import LengthCounts
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.source import (
    MOST_DISTINCT,
    KeptReader,
    Source,
    StepReader,
    Steps,
    StepStatistics,
    Unit,
    Units,
    limited,
    plan_units,
    read_kept,
    read_steps,
    unmeasured,
)

SAMPLE_ROWS, SAMPLE_GROUPS = 10_000, 16
"""So many rows are looked at, the first ones of so many row groups, evenly taken from the whole source."""
_SAMPLE_STEPS = 10_000_000
"""Steps after which no more rows are looked at."""
_SAMPLE_BYTES = 2 << 20
WHOLE_FILES = 2**62
"""Rows of a unit, so that each file is read in one go."""
_MOST_KEPT = 200_000
"""Distinct values that are kept of all features together: some 20 MB."""


@dataclass
class StepsRead:
    """What was read of the steps so far."""

    statistics: StepStatistics | None = None
    in_features: int | None = None
    rows: int = 0
    row_groups: int = 0
    lengths: LengthCounts = field(default_factory=LengthCounts)
    faults: Counter[str] = field(default_factory=Counter)


@dataclass
class Plain:
    """What was read of the columns that hold one value a row.

    Args:
        rows: that were read.
        nulls: of these, by column.
        nans: of these, by column of floats.
        is_whole: whether these are all rows, or all within the limit.
    """

    rows: int
    nulls: dict[str, int]
    nans: dict[str, int]
    is_whole: bool = False


def read_sequences(
    plan: Plan, whole: bool, input: InputSpec | None, distinct: bool, on_rows: Callable[[int], None]
) -> StepsRead:
    """Read sequences of a plan, whose units are row groups unless all are read, and measure them.

    Args:
        plan: of the source.
        whole: whether to read all.
        input: what to measure; None for all features.
        distinct: whether to keep the different values of features, if they are few.
        on_rows: called with the number of sequences that were read just now, if all are.
    """
    read, schema, layout = StepsRead(), plan.source.schema, plan.layout
    read.in_features = layout.width(schema)
    if input is not None or read.in_features is not None:
        read.statistics = _begun(plan, read.in_features or 0, input, distinct)
    for steps in read_steps(plan.source, plan.units, layout) if whole else _firsts(plan, read):
        read.in_features = read.in_features or steps.in_features
        read.lengths.add(_lengths_of(steps))
        read.faults.update(fault.kind for fault in steps.faults)
        read.rows += len(steps)
        if read.in_features is not None and steps.in_features is not None:
            names = layout.feature_names(schema, read.in_features)
            read.statistics = read.statistics or _begun(plan, read.in_features, input, distinct)
            read.statistics.add(dict(zip(names, steps.by_feature(), strict=True)), steps.offsets)
        if whole:
            on_rows(len(steps))
        del steps  # or it would stay alive while the next one is decoded
    return read


def read_lengths(plan: Plan) -> StepsRead:
    """Read the lengths of some sequences, the first ones of some of a plan's units, and nothing else of them."""
    read = StepsRead()
    for steps in _firsts(plan, read):
        read.lengths.add(_lengths_of(steps))
        read.rows += len(steps)
    return read


def _lengths_of(steps: Steps) -> np.ndarray:
    """Of the sequences that are such: a null has no length."""
    return np.delete(np.diff(steps.offsets), [fault.row for fault in steps.faults])


def read_plain(source: Source, whole: bool, limit: int | None = None) -> tuple[Plain, dict[str, str]]:
    """Read the columns that hold one value a row, and count what is missing in them.

    Returns also the columns that cannot be read in their type in all files, with the reasons, by which a job refuses to
    keep them.
    """
    source = limited(source, limit)
    spelled = source.files.partition_schema.names
    unread = {*spelled, *source.unreadable}
    kept = [field.name for field in source.schema if _is_plain(field.type) and field.name not in unread]
    try:
        return _counted(source, kept, whole), {}
    except UnreadableError:
        raise
    except DataError:  # one by one
        found, refused = Plain(0, {}, {}), dict[str, str]()
        for name in kept:
            try:
                own = _counted(source, [name], whole)
            except DataError as error:
                refused[name] = str(error)
            else:
                found = Plain(own.rows, found.nulls | own.nulls, found.nans | own.nans, own.is_whole)
        if len(refused) == len(kept) > 1:
            raise
        return found, refused


def _counted(source: Source, kept: Sequence[str], whole: bool) -> Plain:
    """What is missing in these columns."""
    floats = [name for name in kept if pat.is_floating(source.schema.field(name).type)]
    found = Plain(0, dict.fromkeys(kept, 0), dict.fromkeys(floats, 0))
    for batch in _batches_of(source, kept, whole, found) if kept else ():
        found.rows += batch.num_rows
        for name in kept:
            found.nulls[name] += batch.column(name).null_count
        for name in floats:
            found.nans[name] += pc.sum(pc.is_nan(batch.column(name))).as_py() or 0
        del batch  # or it would stay alive while the next one is decoded
    found.is_whole = found.rows == source.rows
    return found


def _begun(plan: Plan, in_features: int, input: InputSpec | None, distinct: bool) -> StepStatistics:
    """Statistics of what an input names, or of all features."""
    if input is None:
        names, schema = plan.layout.feature_names(plan.source.schema, in_features), plan.source.schema
        types = plan.layout.types(schema)
        input = unmeasured(names, types if len(types) == in_features else types * in_features)
    most = max(16, min(MOST_DISTINCT, _MOST_KEPT // max(1, len(input.columns))))
    return StepStatistics(input, most if distinct else 0)


def _firsts(plan: Plan, read: StepsRead) -> Iterator[Any]:
    """Steps of the first rows of some row groups; `read` tells how many rows were read."""
    # Of wide steps larger batches: each costs 30 us a feature.
    chunk_bytes = _SAMPLE_BYTES * min(8, 1 + (read.in_features or 0) // 256)
    with closing(StepReader(plan.source, plan.layout, chunk_bytes)) as reader:
        for unit, left in _spread(plan.units, lambda: read.rows):
            steps_left = -(-(_SAMPLE_STEPS - read.lengths.steps) // SAMPLE_GROUPS)
            with closing(reader.batches(unit)) as batches:
                for steps in batches:
                    steps = _first_rows(steps, left)
                    left, steps_left = left - len(steps), steps_left - int(steps.offsets[-1])
                    yield steps
                    if left <= 0 or steps_left <= 0:
                        break
            read.row_groups += 1


def _batches_of(source: Source, names: Sequence[str], whole: bool, found: Plain) -> Iterator[pa.RecordBatch]:
    """These columns of all rows, or of the first ones of some row groups; `found` tells how many rows were read."""
    if whole:
        yield from read_kept(source, plan_units(source, WHOLE_FILES), names)
        return
    with closing(KeptReader(source, names)) as reader:
        for unit, left in _spread(plan_units(source, 1), lambda: found.rows):
            with closing(reader.batches(unit)) as batches:
                for batch in batches:
                    batch = batch.slice(0, left)
                    left -= batch.num_rows
                    yield batch
                    if left <= 0:
                        break


def _spread(units: Units, read: Callable[[], int]) -> Iterator[tuple[Unit, int]]:
    """Some units, taken evenly, those of the fewest rows first; and of each how many rows are to be read now.

    What a small one does not have is left to the larger ones.
    """
    count = len(units)
    chosen = np.unique(np.linspace(0, count - 1, min(SAMPLE_GROUPS, count)).astype(int))
    chosen = chosen[np.argsort(units.rows[chosen], kind="stable")]
    for place, unit in enumerate(units.select(chosen.tolist())):
        left = SAMPLE_ROWS - read()
        if left <= 0:
            return
        yield unit, -(-left // (len(chosen) - place))


def _first_rows(steps: Any, rows: int) -> Any:
    """The first rows of a batch of steps."""
    if rows >= len(steps):
        return steps
    end = int(steps.offsets[rows])
    values = steps.values
    values = (
        tuple(array.slice(0, end) for array in values)
        if isinstance(values, tuple)
        else values.slice(0, end * (steps.in_features or 0))
    )
    faults = tuple(fault for fault in steps.faults if fault.row < rows)
    return replace(steps, offsets=steps.offsets[: rows + 1], values=values, faults=faults)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column of this type holds one value a row that is no large blob."""
    kind = kind.value_type if pat.is_dictionary(kind) else kind
    blobs = (pat.is_binary, pat.is_large_binary, pat.is_binary_view, pat.is_fixed_size_binary)
    return not (pat.is_nested(kind) or any(is_it(kind) for is_it in blobs) or isinstance(kind, pa.BaseExtensionType))
