"""Which columns of a source a job reads and keeps: those of its sequences, of its filter and those to carry along.

Files and footers are opened by `source/`, which also says what a layout may be; a plan is cut by `plan.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError, did_you_mean, some_of
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.keeping import check_keeps
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.records import FEATURES, STATE
from scanrnn_dist.source import (
    Asked,
    Layout,
    Source,
    SourceLike,
    find_layout,
    layout_of_input,
    open_source,
    types_within,
)

_TOLD = 8


def choose(source: SourceLike, options: JobOptions, input: InputSpec | None) -> tuple[Source, Layout, tuple[str, ...]]:
    """A source, opened; how sequences stand in it, and what is kept. Raises as `plan_job`."""
    opened = open_source(source, options.bad_rows.skips_files)
    where = opened.files[0].path
    layout = find_sequences(opened, options, input)
    everything = kept_by_default(opened, layout, options)
    keep = everything if options.keep is None else tuple(options.keep)
    order = layout.asked.order_by or ()
    if options.keep_state and not set(order) <= set(keep):
        raise ConfigError(
            f"With --keep-state, the columns of --order-by are kept, since they tell which steps are later: add "
            f"{', '.join(name for name in order if name not in keep)} to --keep."
        )
    for name in keep:
        if name in opened.rounding:
            raise DataError(
                f"{opened.rounding[name]}: float64 cannot hold all integers of 64 bits, so the column cannot be kept. "
                "Write one of the files anew with the other's type, or choose others with --keep."
            )
        if name not in opened.schema.names:
            near = did_you_mean(name, opened.schema.names)
            raise ConfigError(f"There is no column {name!r} to keep in {where}; it has {opened.schema.names}.{near}")
        type = opened.schema.field(name).type
        if any(pa.types.is_fixed_size_list(kind) and kind.list_size == 0 for kind in types_within(type)):
            raise DataError(
                f"Column {name!r} holds lists of the fixed size 0 ({type}). pyarrow writes them so that they cannot be "
                "read again, so the column cannot be kept. Choose others with --keep."
            )
        if name == FEATURES or (name == STATE and options.keep_state):
            raise ConfigError(
                f"A kept column is named {name!r}, as an output column; rename it, or choose with --keep."
            )
    check_keeps(options, opened.schema, layout, keep)
    check_used(opened, options, layout, keep)
    return opened, layout, keep


def find_sequences(
    opened: Source, options: JobOptions, input: InputSpec | None, *, takes_texts: bool = False
) -> Layout:
    """How sequences stand in an opened source; where nothing is said of their features, those that the input names come
    first. Texts are taken with an input, or where `takes_texts` says so. Raises as `plan_job`."""
    is_said = options.features is not None or options.column is not None  # within which an input names fields
    _check_readable(opened, options if input is None or is_said else replace(options, features=input.names))

    def find(asked: Asked) -> Layout:
        return find_layout(
            _for_sequences(opened, replace(options, features=asked.features)), asked, where=opened.files[0].path,
            extensions=opened.extensions, takes_texts=takes_texts or input is not None,
        )  # fmt: skip

    return find(options.asked) if input is None else layout_of_input(find, options.asked, opened.schema, input)


def kept_by_default(source: Source, layout: Layout, options: JobOptions) -> tuple[str, ...]:
    """The columns that are kept where nothing is said; with states, those that tell which steps are later, too.

    Of a source that is to be sorted, none that only folders spell: its copy has no folders.
    """
    order = (layout.asked.order_by or ()) if options.keep_state else ()
    folders = () if options.sort else source.files.partition_schema.names
    return tuple(dict.fromkeys((*layout.kept(source.schema, folders), *order)))


def left_out(source: Source, layout: Layout, keep: tuple[str, ...]) -> tuple[str, ...]:
    """The columns, or fields of the column of sequences, that are neither features nor kept, where nobody said so."""
    column, others = layout.asked.column, layout.others(source.schema)
    kept = {*keep, *layout.kept(source.schema, source.files.partition_schema.names)}
    if column is not None:  # then these are its fields
        return () if kept & {*layout.columns(source.schema)} else tuple(others)
    return tuple(name for name in others if name not in kept)


def left_out_in_words(names: Sequence[str]) -> str:
    """What is said of such."""
    return f"{some_of(names, _TOLD)} (named by none of --features, --input and --keep)"


def _for_sequences(source: Source, options: JobOptions) -> pa.Schema:
    """The columns among which those of the sequences are looked for.

    Not what folders spell, and where one step is a row not what is kept, one value a sequence; unless it is asked for.
    """
    told = (options.features, options.group_by, options.order_by)
    named = {options.column, *(name for names in told for name in names or ())}
    others = {*source.files.partition_schema.names, *((options.group_by and options.keep) or ())} - named
    return pa.schema([field for field in source.schema if field.name not in others])


def _check_readable(source: Source, options: JobOptions) -> None:
    """Refuse to go on without a column that was asked for, or to drop one in silence where all are kept."""
    filtered = options.matching.columns if options.matching else None
    told = (options.features, options.group_by, options.order_by, options.keep, filtered)
    named = {options.column or "", *(name for names in told for name in names or ())}
    for name in source.unreadable:
        # Of what no file can give, no schema tells whether a name with a point is of a field.
        is_named = any(f"{other}.".startswith(f"{name}.") for other in named if other not in source.schema.names)
        if is_named or name in named or (options.keep is None and options.group_by is None):
            raise _cannot_be_read(source, name, options.column)


def check_used(source: Source, options: JobOptions, layout: Layout, keep: tuple[str, ...]) -> None:
    """Refuse a filter that does not fit, and a column that is used and that some files cannot give."""
    used = {*layout.columns(source.schema), *keep}
    if options.matching is not None:
        used |= {*options.matching.of(source.schema)}
    for name in source.unreadable:
        if name in used:
            raise _cannot_be_read(source, name, options.column)


def _cannot_be_read(source: Source, name: str, column: str | None) -> DataError:
    others = [other for other in source.schema.names if other not in (column, *source.unreadable)]
    instance = f", for instance {others[0]!r}" if others else ""
    return DataError(
        f"Column {name!r} cannot be read: {source.unreadable[name]}. Go on without it by naming the columns to keep, "
        f"with --keep{instance}, and others for the sequences and the filter; or write the column as another type."
    )
