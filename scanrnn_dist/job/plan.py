"""What a job would do, before it does it: source, sequence column, kept columns, units. Writes nothing.

Files are listed and layouts judged by `source/`, columns chosen by `columns.py`, records encoded by
`records/plan_file.py`; the plan is carried out by whoever made it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError, NothingFoundError, one_line
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.columns import check_used, choose, kept_by_default, left_out
from scanrnn_dist.job.first_rows import layout_with_width
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.protocols import Stage
from scanrnn_dist.records import Facts, JobRecords, hashes_of, read_records, write_records
from scanrnn_dist.source import (
    UNKNOWN_TIME,
    FileTable,
    Layout,
    LeftOut,
    Prefetched,
    ReadOptions,
    Source,
    SourceLike,
    Unit,
    Units,
    conforms,
    differences,
    filesystem_of,
    find_starts,
    layout_of,
    limited,
    list_again,
    new_files,
    open_source,
    pattern_of,
    plan_units,
    read_chunks,
    unchanged,
)
from scanrnn_dist.storage import is_uri

logger = logging.getLogger("scanrnn_dist")

_CHANGES_TOLD = 5


@dataclass(frozen=True)
class Changes:
    """What became of the files of a plan since it was made.

    Args:
        told: in words, a line for each of the first few files and one for all others; none if nothing changed.
        units: of the plan, whose file is gone or another.
        new_files: that the plan does not have.
        is_listed: whether the source could be listed at all.
        is_there: whether anything is there of it.
    """

    told: tuple[str, ...]
    units: int = 0
    new_files: int = 0
    is_listed: bool = True
    is_there: bool = True

    def __bool__(self) -> bool:
        return bool(self.told)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a job would do.

    Args:
        given: the source as it was named, absolute.
        source: its files.
        units: which rows make which part.
        layout: how its sequences stand in its columns.
        keep: the columns to carry along.
        rows_per_part: what the units were cut by, if it was said.
        limit: of the source the first so many rows are there; None for all.
        recorded: SHA-256 of the records that it was read from, by their names; None of one that was made anew.
    """

    given: str | list[str]
    source: Source
    units: Units
    layout: Layout
    keep: tuple[str, ...]
    rows_per_part: int | None
    limit: int | None = None
    recorded: Mapping[str, str] | None = None

    @property
    def kept_schema(self) -> pa.Schema:
        """The kept columns as they will stand in the output, with the metadata of the source."""
        schema = self.source.schema
        return pa.schema([schema.field(name) for name in self.keep], schema.metadata)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The columns or fields that are neither features nor kept, where nobody said so."""
        return left_out(self.source, self.layout, self.keep)

    @property
    def named(self) -> str:
        """The source as the records name it: of many files, which the plan lists, the first, a number and a hash."""
        if isinstance(self.given, str):
            return self.given
        digest = hashlib.sha256("\0".join(self.given).encode()).hexdigest()[:16]
        return f"{self.given[0]} and {len(self.given) - 1} other files ({digest})"

    @property
    def names_files(self) -> bool:
        """Whether its files were named one by one, as a shell does with a glob: several, or one."""
        paths = self.source.files.paths
        return not isinstance(self.given, str) or (len(paths) == 1 and self.given.endswith(paths[0].as_py()))

    def may_become(self, source: SourceLike) -> bool:
        """Whether a shell may have made both of one glob: lists of files, one of which may be a single file.

        Two single files are two sources.
        """
        if isinstance(source, str | os.PathLike):
            return not isinstance(self.given, str) and pattern_of(os.fspath(source)) is None
        return self.names_files

    @property
    def told(self) -> dict[str, Any]:
        """What the options of the job's record say of it besides."""
        return {}

    def chunks(
        self,
        units: Iterable[Unit],
        reading: ReadOptions,
        *,
        prefetch_bytes: int,
        stage: Stage,
        on_chunk: Callable[[], None] | None,
    ) -> Prefetched:
        """The rows of some of its units, as `read_chunks` gives them with `keep_going`."""
        return read_chunks(
            self.source, units, reading, prefetch_bytes=prefetch_bytes, stage=stage, keep_going=True, on_chunk=on_chunk
        )

    def is_of(self, source: SourceLike, options: JobOptions) -> bool:
        """Whether `plan_job` with these arguments would give this plan, if the source is as it was."""
        return self.given == absolute(source) and self.has_options(options)

    def has_options(self, options: JobOptions) -> bool:
        """Whether `plan_job` with these options, of whatever source with these columns, would choose the same."""
        everything = kept_by_default(self.source, self.layout, options)
        return (
            self.layout.is_asked_for(options.asked)
            and self.keep == (everything if options.keep is None else options.keep)
            and self.rows_per_part == options.rows_per_part
            and self.limit == options.limit
            and (not self.source.left_out or options.bad_rows.skips_files)
        )

    def to_records(self) -> dict[str, bytes]:
        """The plan as the content of files by their names: what must be the same for a rerun to be the same job.

        Plans that are equal have equal records, byte for byte, with the same version of pyarrow.
        """
        left_out = tuple((file.path, file.size_bytes, file.modified_ns, file.reason) for file in self.source.left_out)
        facts = Facts(
            self.given, self.layout.asked, self.keep, self.rows_per_part, self.source.schema, self.limit, left_out
        )
        return write_records(facts, self.units)

    @classmethod
    def read(cls, records: JobRecords, job: dict[str, Any]) -> Plan:
        """The plan that a job's records hold. Raises as `read_plan` and `from_records`."""
        return cls.from_records(records.read_plan(job))

    @classmethod
    def from_records(cls, records: Mapping[str, bytes]) -> Plan:
        """The plan of which these are the records; neither a file nor a footer of the source is looked at.

        Raises:
            ConfigError: the URI of the source is none that this pyarrow understands.
            DataError: a record of another format.
        """
        facts, units = read_records(records)
        rows, left_out = int(units.rows.sum()), tuple(LeftOut(*told) for told in facts.left_out)
        source = Source(filesystem_of(facts.given), units.files, facts.schema, rows, left_out=left_out)
        layout = layout_of(facts.asked)
        return cls(facts.given, source, units, layout, facts.keep, facts.rows_per_part, facts.limit, hashes_of(records))

    def within(self, memory: Memory, is_static: bool = False) -> Plan:
        """The plan whose source is read within a budget, of a job on accelerators if `is_static`."""
        return replace(self, source=memory.bounded(self.source, is_static))

    def changes(self) -> Changes:
        """What differs from the plan now in the names, sizes and times of the source's files."""
        try:
            now = list_again(self.given, self.source.files)
        except (ConfigError, DataError) as error:
            told = f"it cannot be listed again: {one_line(str(error)).rstrip(' .')}"
            is_there = not isinstance(error, NothingFoundError)
            return Changes((told,), len(self.units), is_listed=False, is_there=is_there)
        return self.changes_to(now)

    def changes_to(self, now: FileTable) -> Changes:
        """The same for files that were listed by now."""
        before, now = self.source.files, _without(now, self.source.left_out)
        units = int((unchanged(before, now)[self.units.file] < 0).sum())
        return Changes(tuple(differences(before, now, most=_CHANGES_TOLD)), units, len(new_files(before, now)))


def plan_job(source: SourceLike, options: JobOptions | None = None, input: InputSpec | None = None) -> Plan:
    """List a source, find its sequence column and cut it into units; writes nothing, so it does not sort either.

    Raises:
        ConfigError: nothing found, or a column to keep that is not there or may not be kept.
        DataError: an unreadable file, files of different schemas, or no column that holds sequences.
    """
    options = options or JobOptions()
    plan = cut(source, *choose(source, options, input), options.rows_per_part, options.limit)
    logger.debug("The layout is %s: %s, in %s.", plan.layout.name, plan.layout.words, plan.layout.described)
    return plan if input is None else replace(plan, layout=layout_with_width(plan, options.matching, input))


def plan_again(before: Plan, source: SourceLike, options: JobOptions) -> Plan:
    """A plan with the options of an earlier one, which are among these, of its source as it is now.

    Raises:
        ConfigError: nothing found.
        DataError: an unreadable file or column, or other columns than before.
    """
    opened = with_columns(open_source(source, options.bad_rows.skips_files), before)
    check_used(opened, options, before.layout, before.keep)
    return cut(source, opened, before.layout, before.keep, before.rows_per_part, before.limit)


def with_columns(source: Source, before: Plan) -> Source:
    """The source with its schema as an earlier plan has it; `DataError` if that names other columns or types.

    A file may lack a column or have a narrower type, as files of one source may, where the types stay as they were.
    The order of columns, and what writers note beside them, stays as it was: so parts that were made before and after
    are of one schema.
    """
    was, now = ({field.name: field.type for field in schema} for schema in (before.source.schema, source.schema))
    differ = [name for name in was | now if name not in was or name not in now or not conforms(now[name], was[name])]
    if differ:
        ends = [(name, was.get(name, "not there"), now.get(name, "gone")) for name in differ[:4]]
        told = "; ".join(f"{name!r} was {old} and is {new}" for name, old, new in ends)
        raise DataError(
            f"The columns of the source changed: {told}. Only files may change, not their columns: bring them back, "
            "choose another destination, or begin anew with --restart."
        )
    return replace(source, schema=before.source.schema)


def cut(
    source: SourceLike,
    opened: Source,
    layout: Layout,
    keep: tuple[str, ...],
    rows_per_part: int | None,
    limit: int | None,
) -> Plan:
    """An opened source, cut into units."""
    opened = limited(opened, limit)
    starts = find_starts(opened, layout) if layout.ids else None
    units = plan_units(opened, rows_per_part, layout.columns(opened.schema), starts)
    # The units say all that is needed of row groups; a row is what a unit counts.
    planned = replace(opened, row_groups=None, rows=int(units.rows.sum()))
    return Plan(absolute(source), planned, units, layout, keep, rows_per_part, limit)


def _without(files: FileTable, left_out: tuple[LeftOut, ...]) -> FileTable:
    """The files but those that were left out and are as they were then."""
    if not left_out:
        return files
    gone = {file.path: (file.size_bytes, UNKNOWN_TIME if file.modified_ns is None else file.modified_ns)
            for file in left_out}  # fmt: skip
    seen = zip(files.paths.to_pylist(), files.sizes_bytes.tolist(), files.modified_ns.tolist(), strict=True)
    stays = [number for number, (path, size, time) in enumerate(seen) if gone.get(path) != (size, time)]
    return files.take(np.array(stays, np.int64))


def absolute(source: SourceLike) -> str | list[str]:
    """The source as it was named, so that it can be found from another folder."""
    if isinstance(source, str | os.PathLike):
        return str(source) if is_uri(str(source)) else os.path.abspath(os.path.expanduser(source))
    return [str(absolute(name)) for name in source]
