"""What there is to read: files in a fixed order, their row groups and partition values, and the units of work.

Listing and checking only; the rows are read by `reader.py`, the footers by a child process in `footers.py`. Every path
goes through `pyarrow.fs`, so buckets work as folders do. Partition keys (`split=train/`) are taken from the folders
below what was named: below the folder, below the part of a glob before its first wildcard, below the folder that all
files of a list share; never from above it, and none for a single file.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from scanrnn_dist.dataset.filesystems import SCHEME, resolve, without_secret
from scanrnn_dist.dataset.footers import read_footers
from scanrnn_dist.errors import ConfigError, DataError

_HIDDEN = (".", "_")  # readers skip such names: .crc files, _SUCCESS, _metadata, _temporary


@dataclass(frozen=True)
class SourceFile:
    """One Parquet file, as its footer describes it.

    Args:
        path: within the filesystem of the source.
        size_bytes: of the file.
        modified_ns: nanoseconds since 1970, or None if the filesystem does not tell.
        row_groups: rows of each row group.
        row_group_bytes: uncompressed bytes of each row group, all columns.
        partitions: `(key, value)` of each partition field of the source, a null where the path has none.
    """

    path: str
    size_bytes: int
    modified_ns: int | None
    row_groups: tuple[int, ...]
    row_group_bytes: tuple[int, ...]
    partitions: tuple[tuple[str, Any], ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all row groups."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Source:
    """The files of a job in their order, with one schema: that of the files, then the partition fields."""

    filesystem: fs.FileSystem
    files: tuple[SourceFile, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Unit:
    """Row groups `row_group_begin` to `row_group_end` (exclusive) of one file: read and committed as a whole.

    `first_row` is the row of the file at which it starts.
    """

    index: int
    file: SourceFile
    row_group_begin: int
    row_group_end: int
    first_row: int
    rows: int


def open_source(source: str | PathLike[str] | Sequence[str | PathLike[str]]) -> Source:
    """List the files of a source and read their footers.

    Args:
        source: a file, a folder (with everything below it, hive partitions too; names that begin with `_` or `.` are
            skipped), a glob (`**` for any depth), or a list of files. Paths of this machine, or URIs that pyarrow
            understands (`s3://bucket/folder`; no glob there).

    Returns:
        The files: those of a folder or glob sorted by path, those of a list in its order.

    Raises:
        ConfigError: nothing found, a file named twice, or files of several filesystems.
        DataError: a file that is no sound Parquet file, or that has other columns than the first one.
        StoppedError: the server of a bucket failed for as long as it was asked.

    Example:
        >>> import pyarrow as pa, pyarrow.parquet as pq, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"sequence": [[1.0], []]}), folder + "/a.parquet")
        >>> open_source(folder).rows
        2
    """
    filesystem, uri, base, found = _list(source)
    schemas, files = [], []
    for info, footer in zip(found, read_footers([info.path for info in found], uri=uri), strict=True):
        if "error" in footer:
            reason = footer["error"].rstrip(" .\n")
            raise DataError(
                f"{info.path} cannot be read as Parquet: {reason}. Expected sound Parquet files only: "
                "remove or rewrite it, or name the others by a glob such as 'folder/**/*.parquet'."
            )
        schemas.append(_plain(footer["schema"], info.path))
        files.append((info, footer["row_groups"]))
        _check_same(schemas[0], found[0].path, schemas[-1], info.path)
    fields, values = _partitions(filesystem, base, [info.path for info in found])
    for name in fields.names:
        if name in schemas[0].names:
            raise DataError(
                f"{found[0].path} has a column {name!r} and stands in a folder '{name}=...'; expected one of them. "
                "Rename the folder, or name the files so that it is above what they share."
            )
    described = tuple(
        _source_file(info, groups, tuple((name, keys.get(name)) for name in fields.names))
        for (info, groups), keys in zip(files, values, strict=True)
    )
    return Source(filesystem, described, pa.schema([*schemas[0], *fields]))


def plan_units(source: Source, rows_per_part: int) -> tuple[Unit, ...]:
    """Cut a source into units of whole row groups with at least `rows_per_part` rows, where a file has as many left.

    A unit never spans files, and files without rows give none.

    Raises:
        ConfigError: `rows_per_part` below 1.

    Example:
        >>> file = SourceFile("a.parquet", 0, None, (10, 10, 10), (0, 0, 0))
        >>> units = plan_units(Source(fs.LocalFileSystem(), (file,), pa.schema([])), 15)
        >>> [(unit.row_group_begin, unit.row_group_end, unit.first_row, unit.rows) for unit in units]
        [(0, 2, 0, 20), (2, 3, 20, 10)]
    """
    if rows_per_part < 1:
        raise ConfigError(f"rows_per_part is {rows_per_part}; expected at least 1.")
    units: list[Unit] = []
    for file in source.files:
        begin = first_row = rows = 0
        for index, group_rows in enumerate(file.row_groups):
            rows += group_rows
            left = file.rows - first_row - rows
            # Row groups without rows at the end of a file go with the unit before them.
            if (left and rows >= rows_per_part) or (rows and index == len(file.row_groups) - 1):
                units.append(Unit(len(units), file, begin, index + 1, first_row, rows))
                begin, first_row, rows = index + 1, first_row + rows, 0
    return tuple(units)


def _list(source: Any) -> tuple[fs.FileSystem, str | None, str, list[fs.FileInfo]]:
    """Filesystem, its URI, the folder below which partition keys count, and the files in order."""
    if not isinstance(source, str | PathLike):
        return _list_files([os.fspath(item) for item in source])
    name = os.fspath(source)
    if not SCHEME.match(name) and glob.has_magic(name) and not os.path.exists(name):
        return _list_glob(name)
    filesystem, uri, path = _resolve(name)
    info = _info(filesystem, path, name)
    if info.type == fs.FileType.File:
        return filesystem, uri, path.rpartition("/")[0], [info]
    if info.type == fs.FileType.NotFound:
        hint = " Globs work on local paths only; name the folder." if glob.has_magic(name) else ""
        raise ConfigError(
            f"Nothing found at {without_secret(name)!r}; expected a Parquet file, a folder, or a glob.{hint}"
        )
    below = path.rstrip("/")
    infos = _info(filesystem, fs.FileSelector(path, recursive=True), name)
    files = [item for item in infos if item.is_file and not _hidden(item.path[len(below) :])]
    if not files:
        raise ConfigError(
            f"No files below the folder {without_secret(name)!r}; expected Parquet files "
            f"({len(infos)} entries looked at; names that begin with '_' or '.' are skipped)."
        )
    return filesystem, uri, below, sorted(files, key=lambda item: item.path)


def _list_glob(pattern: str) -> tuple[fs.FileSystem, None, str, list[fs.FileInfo]]:
    filesystem = fs.LocalFileSystem()
    pattern = os.path.abspath(os.path.expanduser(pattern)).replace(os.sep, "/")
    parts = pattern.split("/")
    base = "/".join(parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    matches = [match.replace(os.sep, "/") for match in glob.glob(pattern, recursive=True)]
    # A pattern that spells such a name out ('data/_old*/x.parquet') means it.
    spelled = any(part.startswith(_HIDDEN) for part in parts[base.count("/") + 1 :])
    paths = sorted(
        {match for match in matches if os.path.isfile(match) and (spelled or not _hidden(match[len(base) :]))}
    )
    if not paths:
        hint = " Below matching folders: add '/**/*.parquet'." if any(map(os.path.isdir, matches)) else ""
        raise ConfigError(f"No files match the glob {pattern!r} ({len(matches)} matches looked at).{hint}")
    return filesystem, None, base, filesystem.get_file_info(paths)


def _list_files(names: list[str]) -> tuple[fs.FileSystem, str | None, str, list[fs.FileInfo]]:
    if not names:
        raise ConfigError("The list of files is empty; expected at least one Parquet file.")
    filesystem, uri, _ = _resolve(names[0])
    infos: dict[str, fs.FileInfo] = {}
    for name in names:
        own, _, path = _resolve(name)
        if not own.equals(filesystem):
            raise ConfigError(
                f"{without_secret(names[0])!r} and {without_secret(name)!r} are of different filesystems; expected "
                "one. Copy, or run twice."
            )
        info = _info(own, path, name)
        if not info.is_file:
            what = "a folder" if info.type == fs.FileType.Directory else "not there"
            raise ConfigError(
                f"{without_secret(name)!r} is {what}; expected a list of files. Name a folder or a glob alone, "
                "not in a list."
            )
        if path in infos:
            raise ConfigError(
                f"{without_secret(name)!r} is named twice; expected every file once. Drop one of the two."
            )
        infos[path] = info
    folders = {path.rpartition("/")[0] for path in infos}
    return filesystem, uri, os.path.commonpath(folders).replace(os.sep, "/"), list(infos.values())


def _resolve(name: str) -> tuple[fs.FileSystem, str | None, str]:
    try:
        return resolve(name)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{without_secret(name)!r} cannot be opened: {error}. Expected a path or a URI that pyarrow understands."
        ) from error


def _info(filesystem: fs.FileSystem, path: str | fs.FileSelector, name: str) -> Any:
    try:
        return filesystem.get_file_info(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{without_secret(name)!r} cannot be looked at: {error}. Check the address and the access rights."
        ) from error


def _hidden(relative: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in relative.split("/"))


def _source_file(info: fs.FileInfo, groups: Any, partitions: tuple[tuple[str, Any], ...]) -> SourceFile:
    rows, sizes = tuple(rows for rows, _ in groups), tuple(size for _, size in groups)
    return SourceFile(info.path, info.size, info.mtime_ns, rows, sizes, partitions)


def _plain(schema: pa.Schema, path: str) -> pa.Schema:
    """Names and types alone; whether a writer declared a column required says nothing about the others."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has several columns named {twice[0]!r}; expected every name once. Rename one of them.")
    return pa.schema([pa.field(field.name, field.type) for field in schema])


def _check_same(first: pa.Schema, first_path: str, other: pa.Schema, path: str) -> None:
    """Refuse columns that only one of two files has, or that differ in type; their order may differ."""
    if sorted(first.names) == sorted(other.names) and all(
        other.field(field.name).type == field.type for field in first
    ):
        return
    had, has = {field.name: field.type for field in first}, {field.name: field.type for field in other}
    differences = [f"{name!r} is missing" for name in had if name not in has]
    differences += [f"{name!r} is there in addition" for name in has if name not in had]
    differences += [
        f"{name!r} is {has[name]}, not {had[name]}" for name in had if name in has and has[name] != had[name]
    ]
    text = "; ".join(differences[:4]) + (f"; and {len(differences) - 4} more" if len(differences) > 4 else "")
    raise DataError(
        f"{path} has other columns than {first_path}: {text}. Expected the same names and types in every file: "
        "rewrite one of them, or run on each kind alone."
    )


def _partitions(filesystem: fs.FileSystem, base: str, paths: list[str]) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """The hive partition fields that pyarrow infers below `base`, and the values for each path."""
    relative = [path[len(base) :].strip("/") for path in paths]
    if not any("=" in path.rpartition("/")[0] for path in relative):
        return pa.schema([]), [{} for _ in paths]
    options = ds.FileSystemFactoryOptions(partition_base_dir=base, partitioning=ds.HivePartitioning.discover())
    try:
        factory = ds.FileSystemDatasetFactory(filesystem, paths, ds.ParquetFileFormat(), options)
        # No fragment: pyarrow would look at footers here, in this process.
        fields = factory.inspect(fragments=0)
        partitioning = ds.HivePartitioning(fields)
        folders = (path.rpartition("/")[0] for path in relative)
        return fields, [ds.get_partition_keys(partitioning.parse(folder + "/")) for folder in folders]
    except pa.ArrowException as error:
        raise DataError(
            f"The folders 'key=value' below {base!r} cannot be understood: {error}. Expected hive partitions: "
            "rename them, or name the files one by one or by a glob that spells these folders out."
        ) from error
