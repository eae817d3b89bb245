"""Which files a source is made of, in a fixed order: names, sizes and times, never their content.

Folders and globs of this machine are walked by `walking.py`, those of buckets go through `pyarrow.fs`; which names are
meant says `glob_patterns.py`, for both. What footers say is added by `source.py`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import pyarrow.compute as pc
from pyarrow import fs

from scanrnn_dist.errors import ConfigError, NothingFoundError, counted, did_you_mean
from scanrnn_dist.source.file_table import FileTable
from scanrnn_dist.source.glob_patterns import Pattern, is_marker
from scanrnn_dist.source.table_formats import check_no_tables, tables_among
from scanrnn_dist.source.walking import Entry, Walk
from scanrnn_dist.storage import at_once, is_uri, looking_at, resolve

_Found = tuple[FileTable, list[tuple[str, str]], bool]
SourceLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Listing:
    """The files of a source in their order, without partition fields, and where they are."""

    filesystem: fs.FileSystem
    files: FileTable
    repeated: list[tuple[str, str]] = field(default_factory=list)  # links to files that are there, and these


def list_source(source: SourceLike) -> Listing:
    """List the files of a source; each real file once, however many links lead to it. Raises as `open_source`."""
    check_source(source)
    if not isinstance(source, str | os.PathLike):
        return _list_files([os.fspath(item) for item in source])
    name = os.fspath(source)
    filesystem, uri, path = resolve(name)
    pattern = _pattern_of(filesystem, path, name)
    if pattern is None:
        files = FileTable.from_entries(_entries([_info(filesystem, path, name)]), path.rpartition("/")[0])
        return Listing(filesystem, files)
    files, repeated, finds_folders = (_walk if uri is None else _select)(filesystem, pattern, name)
    if not len(files):
        raise NothingFoundError(_nothing_in(pattern, name, finds_folders))
    # Arrow compares bytes of UTF-8, which gives the order of Python's strings.
    return Listing(filesystem, files.take(pc.sort_indices(files.paths).to_numpy()), repeated)


def check_source(source: Any) -> None:
    """Refuse what names no files, such as a table or a list of arrays."""
    if isinstance(source, str | os.PathLike):
        return
    is_table = isinstance(source, Mapping) or hasattr(type(source), "columns")
    is_list = isinstance(source, Iterable) and not isinstance(source, Iterator) and not is_table
    others = [type(item).__name__ for item in source if not isinstance(item, str | os.PathLike)] if is_list else []
    if others or not is_list:
        holds = f" that holds a {others[0]}" if others else ""
        raise ConfigError(
            f"The source is a {type(source).__name__}{holds}; expected Parquet files: a file, a folder, a glob or a "
            "list of files. For data in memory use encode(encoder, data)."
        )


def list_again(source: SourceLike, files: FileTable) -> FileTable:
    """The files of a source as they are now, once they were `files`; of a list, those that are still there.

    Raises as `open_source`, and `NothingFoundError` where nothing is there any more of a file, a folder, a glob or a
    list.
    """
    if isinstance(source, str | os.PathLike):
        return list_source(source).files
    filesystem, uri, _ = resolve(os.fspath(source[0]))
    infos = _each_info(filesystem, uri, files.paths.to_pylist(), repeat("the list of files"))
    now = FileTable.from_entries(_entries(infos), files.partition_base)
    if not len(now):
        raise NothingFoundError(
            f"Nothing is there of {counted(len(files), 'file')}, of which {source[0]!r} is the first."
        )
    return now


def filesystem_of(source: SourceLike) -> fs.FileSystem:
    """The filesystem that a source is on, which is not looked at; `ConfigError` for a URI that it cannot be of."""
    return resolve(os.fspath(source if isinstance(source, str | os.PathLike) else source[0]))[0]


def pattern_of(source: str) -> Pattern | None:
    """What a folder or glob means; None for a single file. Raises as `list_source`."""
    filesystem, _, path = resolve(source)
    return _pattern_of(filesystem, path, source)


def _pattern_of(filesystem: fs.FileSystem, path: str, name: str) -> Pattern | None:
    info = _info(filesystem, path, name)
    path = path.rstrip("/")
    if info.type == fs.FileType.NotFound:
        if not glob.has_magic(path):
            near = "" if is_uri(name) else _near(path)
            raise NothingFoundError(f"Nothing found at {name!r}; expected a Parquet file, a folder, or a glob.{near}")
        pattern = Pattern.of_glob(path)
        if is_uri(name) and not pattern.base and not path.startswith("/"):
            raise ConfigError(f"{name!r} leaves the bucket open; expected a glob below one bucket. Name the bucket.")
        return pattern
    # An empty object may be the marker of a folder, with others below it.
    may_be_marker = info.is_file and filesystem.type_name != "local" and not info.size
    is_folder = may_be_marker and _info(filesystem, fs.FileSelector(info.path, allow_not_found=True), name)
    return None if info.is_file and not is_folder else Pattern.everything_below(path)


def _near(path: str) -> str:
    """A question that names what stands in the same folder under a name like that of a path that is not there."""
    while not os.path.isdir(folder := os.path.dirname(path)) and folder != path:
        path = folder
    try:
        near = did_you_mean(os.path.basename(path), os.listdir(folder or "."))
    except OSError:
        return ""
    return near and f"{near} It stands in {folder or '.'}."


def _walk(filesystem: fs.FileSystem, pattern: Pattern, name: str) -> _Found:
    """What a pattern means on this machine, in any order."""
    walk = Walk(pattern, name)
    files = FileTable.from_entries(walk.entries(), pattern.base)
    check_no_tables(filesystem, os.path.realpath(pattern.base or "/"), walk.tables, files.paths)
    return files, walk.repeated, walk.finds_folders


def _select(filesystem: fs.FileSystem, pattern: Pattern, name: str) -> _Found:
    """The same in a bucket."""
    is_deep = len(pattern.parts) > 1 or "**" in pattern.parts
    found = _info(filesystem, fs.FileSelector(pattern.base, True, is_deep), name)
    files = FileTable.from_entries(_matching(found, pattern), pattern.base)
    check_no_tables(filesystem, pattern.base, tables_among(info.path for info in found), files.paths)
    return files, [], False


def _matching(found: list[fs.FileInfo], pattern: Pattern) -> Iterator[Entry]:
    """The files among what a bucket has that a pattern means, without the empty markers of folders."""
    folders = {info.path for info in found if info.type == fs.FileType.Directory}
    folder, states = None, pattern.start
    for path, size_bytes, modified_ns in _entries(found):
        above, _, name = path.rpartition("/")
        if above != folder:
            folder, states = above, pattern.states_of(above[len(pattern.base) :])
        is_empty_folder = is_marker(path, size_bytes) or (size_bytes == 0 and path in folders)
        if not is_empty_folder and pattern.ends(pattern.after(states, name)):
            yield path, size_bytes, modified_ns


def _nothing_in(pattern: Pattern, name: str, finds_folders: bool) -> str:
    if pattern.is_all:
        return (
            f"No files below the folder {name!r}; expected Parquet files (names that begin with '_' or '.' are "
            "skipped)."
        )
    hint = " Below matching folders: add '/**/*.parquet'." if finds_folders else ""
    return f"No files match the glob {name!r}.{hint}"


def _list_files(names: list[str]) -> Listing:
    if not names:
        raise ConfigError("The list of files is empty; expected at least one Parquet file.")
    filesystem, uri, _ = resolve(names[0])
    paths = list[str]()
    for name in names:
        own, _, path = resolve(name)
        if not own.equals(filesystem):
            raise ConfigError(
                f"{names[0]!r} and {name!r} are of different filesystems; expected one. Copy, or run twice."
            )
        paths.append(path)
    infos: dict[str, fs.FileInfo] = {}
    for name, path, info in zip(names, paths, _each_info(filesystem, uri, paths, names), strict=True):
        if not info.is_file:
            what, kind = "a folder", ConfigError
            if info.type == fs.FileType.NotFound:
                what, kind = ("a glob", ConfigError) if glob.has_magic(path) else ("not there", NothingFoundError)
            raise kind(f"{name!r} is {what}; expected a list of files. Name a folder or a glob alone, not in a list.")
        real = os.path.realpath(path) if uri is None else path
        if real in infos:
            raise ConfigError(f"{name!r} is named twice; expected every file once. Drop one of the two.")
        infos[real] = info
    base = os.path.commonpath([info.path.rpartition("/")[0] for info in infos.values()]).replace(os.sep, "/")
    return Listing(filesystem, FileTable.from_entries(_entries(infos.values()), base))


def _info(filesystem: fs.FileSystem, path: str | list[str] | fs.FileSelector, name: str) -> Any:
    with looking_at(name, filesystem):
        return filesystem.get_file_info(path)


def _each_info(
    filesystem: fs.FileSystem, uri: str | None, paths: list[str], names: Iterable[str]
) -> Iterator[fs.FileInfo]:
    """Of each path; of a bucket many are asked for at once, which pyarrow, given a list, does not."""
    if uri is None:
        return (_info(filesystem, path, name) for path, name in zip(paths, names, strict=False))
    return at_once(lambda asked: _info(filesystem, *asked), zip(paths, names, strict=False))


def _entries(infos: Iterable[fs.FileInfo]) -> Iterator[Entry]:
    """Path, size and time of the files among what a filesystem found."""
    return ((info.path, info.size, info.mtime_ns) for info in infos if info.is_file)
