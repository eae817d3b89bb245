"""What a source holds, for somebody who meets it for the first time. Writes nothing.

Files are listed and layouts found as for a job, so what is told here is what a job would read. Of a large source some
rows are read, evenly from the whole of it, so that time and memory stay bounded; or all, where that is asked for. How
it is printed is the command line's affair, what is read of the rows `sampling.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.input_spec import Category, Column, InputSpec, Number
from scanrnn_dist.job.columns import check_used, find_sequences
from scanrnn_dist.job.lengths import Bar
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.plan import Plan, cut
from scanrnn_dist.job.sampling import WHOLE_FILES, Plain, StepsRead, read_plain, read_sequences
from scanrnn_dist.source import (
    REPLACED,
    ColumnStatistics,
    Source,
    SourceLike,
    as_flags,
    layouts_found,
    open_source,
    unmeasured,
)

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
        rows: sequences that were read; all of them, or the first ones of some row groups.
        lengths: least, median and greatest number of steps of these; None without any.
        mean: number of steps of these; None without any.
        histogram: of these, how many have from `first` to `last` steps.
        faults: how many of the rows that were read cannot be taken apart, by what is wrong.
        row_groups: that these rows are of.
        left_out: columns or fields that are neither features nor kept.
        for_input: columns or fields of times and texts that an input might name besides.
    """

    flags: str
    words: str
    described: str
    count: int
    in_features: int | None
    features: tuple[tuple[str, str], ...]
    rows: int
    lengths: tuple[int, float, int] | None
    mean: float | None
    histogram: tuple[Bar, ...]
    faults: Mapping[str, int]
    row_groups: int
    left_out: tuple[str, ...]
    for_input: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all sequences were read."""
        return self.rows == self.count


@dataclass(frozen=True)
class Measured:
    """What steps of a source hold.

    Args:
        steps: that were read.
        columns: what was measured, column by column.
        input: what to say with `--input`; None if nothing can be said, or not all steps were read.
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
            told[-1] |= {"nulls": of_it.nulls, "nans": of_it.nans}
            told[-1]["infinite"] = of_it.unusable - of_it.nulls - of_it.nans
            if not isinstance(column, Category):
                numbers = {"min": of_it.least, "max": of_it.most, "mean": of_it.mean, "std": of_it.std}
                is_told = of_it.count > 0  # JSON has no number for what overflowed
                told[-1] |= {name: value if is_told and isfinite(value) else None for name, value in numbers.items()}
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
        spelled: the columns that folders spell, as in `site=a/`.
        plain: what was read of the columns that hold one value a row.
        unreadable: columns that cannot be read, and why.
        drift: how files differ from these columns.
        left_out: files that cannot be read and were left out, and why.
        layouts: the ways in which sequences may stand in the columns, each with the flags that choose it.
        sequences: how they stand in it; None if no layout fits, or several do.
        no_layout: what there is to choose from then.
        measured: what the steps hold; None where there is no layout.
    """

    files: int
    row_groups: int
    rows: int
    nbytes: int
    first: str
    columns: tuple[tuple[str, str], ...]
    spelled: tuple[str, ...]
    plain: Plain
    unreadable: Mapping[str, str]
    drift: tuple[str, ...]
    left_out: Mapping[str, str]
    layouts: tuple[tuple[str, str], ...] = ()
    sequences: Sequences | None = None
    no_layout: str | None = None
    measured: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        told = asdict(replace(self, measured=None)) | {"measured": self.measured and self.measured.to_json()}
        told["layouts"] = [{"flags": flags, "words": words} for flags, words in self.layouts]
        if self.sequences is not None:
            told["sequences"]["is_whole"] = self.sequences.is_whole
        return told


def inspect(
    source: SourceLike,
    options: JobOptions | None = None,
    *,
    scan: bool = False,
    statistics: bool = False,
    input: InputSpec | None = None,
    memory_bytes: int | None = None,
    on_start: OnStart = lambda done, total: None,
    on_rows: OnRows = lambda rows: None,
) -> Inspection:
    """Look at a source: footers and the first rows of some row groups, or all rows, once and in bounded memory.

    Args:
        source: as of `plan_job`.
        options: what is said of the layout; of the others only `limit` and `bad_rows.unreadable_file` count.
        scan: whether to read all rows.
        statistics: the same, where one layout is needed; also makes what to say with `--input`.
        input: what to measure; None for all features.
        memory_bytes: the budget of what is held of rows, as of a job.
        on_start, on_rows: called with the sequences that are done and all, and with those read just now, if all are.

    Raises:
        ConfigError: nothing found, or a column of `input` that is not there.
        DataError: a file that cannot be read; for statistics, also a column of sequences that some files cannot give.
        LayoutError: no layout is what is asked for; or several fit, and one is needed for statistics.
    """
    options, whole = replace(options or JobOptions(), keep=()), scan or statistics
    opened = open_source(source, options.bad_rows.skips_files)
    opened = Memory(memory_bytes).bounded(opened)
    layouts = tuple(layouts_found(opened.schema, options.asked))
    try:
        layout = find_sequences(opened, options, input, takes_texts=True)
    except LayoutError as error:
        if statistics or any(value is not None for value in asdict(options.asked).values()):
            raise
        return replace(
            _of_files(opened, *read_plain(opened, whole, options.limit)), no_layout=str(error), layouts=layouts
        )
    if statistics:
        check_used(opened, options, layout, ())
    plan = cut(source, opened, layout, (), WHOLE_FILES if whole else 1, options.limit)
    if whole:
        on_start(0, plan.source.rows)
    read = read_sequences(plan, whole, input, statistics, on_rows)
    told = _of_files(opened, *read_plain(opened, whole, options.limit))
    read.row_groups = told.row_groups if whole else read.row_groups
    measured = _measured(read, input, whole)
    return replace(told, sequences=_sequences(plan, read), measured=measured, layouts=layouts)


def _of_files(source: Source, plain: Plain, refused: dict[str, str]) -> Inspection:
    """What the footers say, and what columns of one value a row hold, but for those that were refused."""
    columns = tuple((column.name, str(column.type)) for column in source.schema)
    left_out = {file.path: file.reason for file in source.left_out}
    files, groups = source.files, len(source.footer_groups.rows)
    return Inspection(
        len(files), groups, source.rows, int(np.sum(files.sizes_bytes)), files[0].path, columns,
        tuple(files.partition_schema.names), plain, {**source.unreadable, **refused}, source.drift, left_out,
    )  # fmt: skip


def _sequences(plan: Plan, read: StepsRead) -> Sequences:
    layout, schema, lengths = plan.layout, plan.source.schema, read.lengths
    features: tuple[tuple[str, str], ...] = ()
    if read.in_features is not None:
        types = [str(type) for type in layout.types(schema)]
        types = types if len(types) == read.in_features else types * read.in_features
        features = tuple(zip(layout.feature_names(schema, read.in_features), types, strict=True))
    flags = as_flags({name: value for name, value in asdict(layout.asked).items() if value is not None})
    span = (int(lengths.lengths[0]), lengths.median, int(lengths.lengths[-1])) if lengths.sequences else None
    others = {name: type for name, type in layout.others(schema).items() if name and type is not None}
    kinds = unmeasured(tuple(others), tuple(others.values())).columns if others else ()
    for_input = tuple(column.name for column in kinds if not isinstance(column, Number))
    mean = lengths.steps / lengths.sequences if lengths.sequences else None
    return Sequences(
        flags, layout.words, layout.described, plan.source.rows, read.in_features, features, read.rows, span, mean,
        lengths.bars(), dict(sorted(read.faults.items())), read.row_groups, plan.left_out, for_input,
    )  # fmt: skip


def _measured(read: StepsRead, input: InputSpec | None, whole: bool) -> Measured:
    """The statistics, and the input that they make: that which is given, or all features."""
    if read.statistics is None:
        return Measured(0, (), None, ("no step was found, so there is nothing to say of its features",))
    measured = read.statistics.measured()
    pairs = tuple(zip(measured.columns, read.statistics.columns, strict=True))
    if not whole:
        return Measured(read.lengths.steps, pairs, None)
    if input is not None:
        return Measured(read.lengths.steps, pairs, measured)
    columns, notes = _said(pairs)
    return Measured(read.lengths.steps, pairs, InputSpec(tuple(columns)) if columns else None, tuple(notes))


def _said(pairs: Sequence[tuple[Column, ColumnStatistics]]) -> tuple[list[Column], list[str]]:
    """The columns of an input that takes all features, and what it cannot take."""
    columns, notes = list[Column](), list[str]()
    for column, of_it in pairs:
        if not isinstance(column, Category):
            columns.append(column)
        elif values := tuple(sorted(value for value in of_it.distinct or () if REPLACED not in value)):
            assert of_it.distinct is not None
            unknown = "own" if of_it.nulls or len(values) < len(of_it.distinct) else column.unknown
            columns.append(replace(column, values=values, unknown=unknown))
        else:
            many = "no text" if of_it.distinct is not None else "too many different texts to list them"
            notes.append(f"{column.name!r} is left out: it holds {many}")
    return columns, notes


def _plain(values: frozenset[Any]) -> list[Any]:
    """Distinct values as JSON has them, in order; without what is no number."""
    plain = [value if isinstance(value, bool | int | str) else float(value) for value in values]
    return sorted(value for value in plain if not isinstance(value, float) or np.isfinite(value))
