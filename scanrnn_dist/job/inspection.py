"""What a source holds, for somebody who meets it for the first time. Writes nothing.

Files are listed and layouts found as for a job, so what is told here is what a job would read. How it is printed is the
command line's affair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.input_spec import Category, Column, InputSpec
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.plan import Plan, cut, find_sequences
from scanrnn_dist.source import (
    MOST_DISTINCT,
    ColumnStatistics,
    Source,
    SourceLike,
    StepStatistics,
    as_flags,
    open_source,
    read_steps,
    unmeasured,
)

SAMPLE_ROWS = 10_000
"""First rows whose lengths are told."""
_SAMPLE_STEPS = 10_000_000
"""Steps after which no more rows are looked at for that."""
_WHOLE_FILES = 2**62
"""Rows of a unit, so that each file is read in one go."""
_MOST_KEPT = 200_000
"""Distinct values that are kept of all features together: some 20 MB."""

OnStart = Callable[[int, int], None]
OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Sequences:
    """How sequences stand in a source, and how long they are.

    Args:
        flags: that choose this very layout.
        words: what the layout is.
        described: the columns that it reads.
        count: sequences of the source.
        in_features: features of a step; None if that is not known.
        features: names and types, of all features; one type where all have the same.
        rows: first sequences that were looked at.
        lengths: least, median and greatest number of steps of these; None without any.
        faults: how many of the rows that were looked at cannot be taken apart, by what is wrong.
    """

    flags: str
    words: str
    described: str
    count: int
    in_features: int | None
    features: tuple[tuple[str, str], ...]
    rows: int
    lengths: tuple[int, float, int] | None
    faults: Mapping[str, int]


@dataclass(frozen=True)
class Measured:
    """What the steps of a source hold.

    Args:
        steps: there are.
        columns: what was measured, column by column.
        input: what to say with `--input`; None if nothing can be said.
        notes: what it leaves out, and why.
    """

    steps: int
    columns: tuple[tuple[Column, ColumnStatistics], ...]
    input: InputSpec | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        told = []
        for column, of_it in self.columns:
            told.append({"name": column.name, "kind": column.kind, "count": of_it.count, "unusable": of_it.unusable})
            if not isinstance(column, Category):
                numbers = {"min": of_it.least, "max": of_it.most, "mean": of_it.mean, "std": of_it.std}
                told[-1] |= {name: value if of_it.count else None for name, value in numbers.items()}
            told[-1]["values"] = None if of_it.distinct is None else _plain(of_it.distinct)
        input = None if self.input is None else self.input.to_dict()
        return {"steps": self.steps, "columns": told, "input": input, "notes": list(self.notes)}


@dataclass(frozen=True)
class Inspection:
    """What a source holds.

    Args:
        files, row_groups, rows, nbytes: of the source, its files as they are stored.
        first: path of the first file.
        columns: names and types, also of columns that folders spell.
        unreadable: columns that cannot be read, and why.
        drift: how files differ from these columns.
        left_out: files that cannot be read and were left out, and why.
        sequences: how sequences stand in it; None if none or several layouts fit.
        no_layout: what there is to choose from then.
        measured: what the steps hold, if that was asked for.
    """

    files: int
    row_groups: int
    rows: int
    nbytes: int
    first: str
    columns: tuple[tuple[str, str], ...]
    unreadable: Mapping[str, str]
    drift: tuple[str, ...]
    left_out: Mapping[str, str]
    sequences: Sequences | None = None
    no_layout: str | None = None
    measured: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        measured = None if self.measured is None else self.measured.to_json()
        return asdict(replace(self, measured=None)) | {"measured": measured}


@dataclass
class _Read:
    """What was read of the steps so far."""

    statistics: StepStatistics | None = None
    in_features: int | None = None
    rows: int = 0
    steps: int = 0
    first: list[np.ndarray] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)


def inspect(
    source: SourceLike,
    options: JobOptions | None = None,
    *,
    statistics: bool = False,
    input: InputSpec | None = None,
    memory_bytes: int | None = None,
    on_start: OnStart = lambda done, total: None,
    on_rows: OnRows = lambda rows: None,
) -> Inspection:
    """Look at a source: footers and some first rows, or with `statistics` all steps, once and in bounded memory.

    Args:
        source: as of `plan_job`.
        options: what is said of the layout; of the others only `limit` and `bad_rows.unreadable_file` count.
        statistics: whether to measure what the steps hold.
        input: what to measure; None for all features. Only with `statistics`.
        memory_bytes: the budget of what is held of rows, as of a job.
        on_start, on_rows: called with the sequences that are done and all, and with those read just now, if all are.

    Raises:
        ConfigError: nothing found, or a column of `input` that is not there.
        DataError: a file that cannot be read.
        LayoutError: no layout is what is asked for; or several fit, and one is needed for statistics.
    """
    options = replace(options or JobOptions(), keep=())
    opened = open_source(source, options.bad_rows.unreadable_file == "skip")
    opened = Memory(memory_bytes).bounded(opened)
    told = _of_files(opened)
    try:
        layout = find_sequences(opened, options, input, takes_texts=True)
    except LayoutError as error:
        if statistics or any(value is not None for value in asdict(options.asked).values()):
            raise
        return replace(told, no_layout=str(error))
    plan = cut(source, opened, layout, (), _WHOLE_FILES, options.limit)
    if statistics:
        on_start(0, plan.source.rows)
    read = _read(plan, statistics, input, on_rows)
    measured = _measured(read, input) if statistics else None
    return replace(told, sequences=_sequences(plan, read), measured=measured)


def _of_files(source: Source) -> Inspection:
    """What the footers say."""
    assert source.row_groups is not None, "a source whose footers were read"
    columns = tuple((column.name, str(column.type)) for column in source.schema)
    left_out = {file.path: file.reason for file in source.left_out}
    files, groups = source.files, len(source.row_groups.rows)
    nbytes = int(np.sum(files.sizes_bytes))
    return Inspection(
        len(files), groups, source.rows, nbytes, files[0].path, columns, source.unreadable, source.drift, left_out
    )


def _read(plan: Plan, whole: bool, input: InputSpec | None, on_rows: OnRows) -> _Read:
    """Read the first rows, or the whole of a source and measure it."""
    read, schema, layout = _Read(), plan.source.schema, plan.layout
    read.in_features = layout.width(schema)
    if whole and (input is not None or read.in_features is not None):
        read.statistics = _begun(plan, read.in_features or 0, input)
    with closing(read_steps(plan.source, plan.units, layout)) as batches:
        for steps in batches:
            read.in_features = read.in_features or steps.in_features
            lengths = np.delete(np.diff(steps.offsets), [fault.row for fault in steps.faults])
            if (left := SAMPLE_ROWS - sum(map(len, read.first))) > 0:
                read.first.append(lengths[:left])
            read.faults.update(fault.kind for fault in steps.faults)
            read.rows, read.steps = read.rows + len(steps), read.steps + int(lengths.sum())
            if not whole:
                if read.rows >= SAMPLE_ROWS or read.steps >= _SAMPLE_STEPS:
                    break
                continue
            if read.in_features is not None and steps.in_features is not None:
                names = layout.feature_names(schema, read.in_features)
                read.statistics = read.statistics or _begun(plan, read.in_features, input)
                read.statistics.add(dict(zip(names, steps.by_feature(), strict=True)), steps.offsets)
            on_rows(len(steps))
            del steps  # or it would stay alive while the next one is decoded
    return read


def _begun(plan: Plan, in_features: int, input: InputSpec | None) -> StepStatistics:
    """Statistics of what an input names, or of all features."""
    if input is None:
        names, schema = plan.layout.feature_names(plan.source.schema, in_features), plan.source.schema
        types = plan.layout.types(schema)
        input = unmeasured(names, types if len(types) == in_features else types * in_features)
    most = max(16, min(MOST_DISTINCT, _MOST_KEPT // max(1, len(input.columns))))
    return StepStatistics(input, most)


def _sequences(plan: Plan, read: _Read) -> Sequences:
    layout, schema = plan.layout, plan.source.schema
    features: tuple[tuple[str, str], ...] = ()
    if read.in_features is not None:
        types = [str(type) for type in layout.types(schema)]
        types = types if len(types) == read.in_features else types * read.in_features
        features = tuple(zip(layout.feature_names(schema, read.in_features), types, strict=True))
    first = np.concatenate(read.first) if read.first else np.zeros(0, np.int64)
    lengths = (int(first.min()), float(np.median(first)), int(first.max())) if len(first) else None
    flags = as_flags({name: value for name, value in asdict(layout.asked).items() if value is not None})
    return Sequences(
        flags, layout.words, layout.described, plan.source.rows, read.in_features, features, len(first), lengths,
        dict(sorted(read.faults.items())),
    )  # fmt: skip


def _measured(read: _Read, input: InputSpec | None) -> Measured:
    """The statistics, and the input that they make: that which is given, or all features."""
    if read.statistics is None:
        return Measured(0, (), None, ("no step was found, so there is nothing to say of its features",))
    measured = read.statistics.measured()
    pairs = tuple(zip(measured.columns, read.statistics.columns, strict=True))
    if input is not None:
        return Measured(read.steps, pairs, measured)
    columns, notes = _said(pairs)
    return Measured(read.steps, pairs, InputSpec(tuple(columns)) if columns else None, tuple(notes))


def _said(pairs: Sequence[tuple[Column, ColumnStatistics]]) -> tuple[list[Column], list[str]]:
    """The columns of an input that takes all features, and what it cannot take."""
    columns, notes = list[Column](), list[str]()
    for column, of_it in pairs:
        if not isinstance(column, Category):
            columns.append(column)
        elif of_it.distinct:
            columns.append(replace(column, values=tuple(sorted(of_it.distinct))))
        else:
            many = "no text" if of_it.distinct is not None else "too many different texts to list them"
            notes.append(f"{column.name!r} is left out: it holds {many}")
    return columns, notes


def _plain(values: frozenset[Any]) -> list[Any]:
    """Distinct values as JSON has them, in order; without what is no number."""
    plain = [value if isinstance(value, bool | int | str) else float(value) for value in values]
    return sorted(value for value in plain if not isinstance(value, float) or np.isfinite(value))
