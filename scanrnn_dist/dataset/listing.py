"""Which files a source is made of, in a fixed order: names, sizes and times, never their content.

Every path goes through `pyarrow.fs`, so buckets work as folders do. What footers say is added by `source.py`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from scanrnn_dist.dataset.files import Files
from scanrnn_dist.dataset.filesystems import is_uri, resolve
from scanrnn_dist.errors import ConfigError

SourceLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_HIDDEN = (".", "_")  # readers skip such names: .crc files, _SUCCESS, _metadata, _temporary
_HIDDEN_PART = "(^|/)[._]"


@dataclass(frozen=True)
class Listing:
    """The files of a source, without partition fields, and where they are; `uri` is None for this machine."""

    filesystem: fs.FileSystem
    uri: str | None
    files: Files


def list_source(source: SourceLike) -> Listing:
    """List the files of a source, as `open_source` takes it.

    Raises:
        ConfigError: nothing found, a file named twice, or files of several filesystems.
    """
    if not isinstance(source, str | os.PathLike):
        return _list_files([os.fspath(item) for item in source])
    name = os.fspath(source)
    if not is_uri(name) and glob.has_magic(name) and not os.path.exists(name):
        return _list_glob(name)
    return _list_one(name)


def list_again(source: SourceLike, files: Files) -> Files:
    """The files of a source as they are now, once they were `files`; of a list, those that are still there.

    Raises:
        ConfigError: of a file, a folder or a glob nothing is there, or its filesystem cannot be reached.
    """
    if isinstance(source, str | os.PathLike):
        return list_source(source).files
    infos = _info(filesystem_of(source), files.paths.to_pylist(), "the list of files")
    return Files.from_entries(_entries(infos), files.partition_base)


def filesystem_of(source: SourceLike) -> fs.FileSystem:
    """The filesystem that a source is on, which is not looked at.

    Raises:
        ConfigError: a URI that pyarrow does not understand.
    """
    return resolve(os.fspath(source if isinstance(source, str | os.PathLike) else source[0]))[0]


def _list_one(name: str) -> Listing:
    """A file, or all below a folder."""
    filesystem, uri, path = resolve(name)
    info = _info(filesystem, path, name)
    if info.type == fs.FileType.File:
        return Listing(filesystem, uri, Files.from_entries(_entries([info]), path.rpartition("/")[0]))
    if info.type == fs.FileType.NotFound:
        hint = " Globs work on local paths only; name the folder." if glob.has_magic(name) else ""
        raise ConfigError(f"Nothing found at {name!r}; expected a Parquet file, a folder, or a glob.{hint}")
    below = path.rstrip("/")
    is_local = filesystem.type_name == "local"
    files = Files.from_entries(_walk(below or "/", name) if is_local else _select(filesystem, path, name), below)
    hidden = pc.match_substring_regex(pc.utf8_slice_codeunits(files.paths, len(below)), _HIDDEN_PART)
    # Arrow compares bytes of UTF-8, which gives the order of Python's strings.
    order = pc.sort_indices(files.paths).to_numpy()
    order = order[~hidden.to_numpy(zero_copy_only=False)[order]]
    if not len(order):
        raise ConfigError(
            f"No files below the folder {name!r}; expected Parquet files "
            f"({len(files)} looked at; names that begin with '_' or '.' are skipped)."
        )
    return Listing(filesystem, uri, files.take(order))


def _select(filesystem: fs.FileSystem, path: str, name: str) -> Iterator[tuple[str, int, int | None]]:
    """Every file below a folder, in any order."""
    return _entries(_info(filesystem, fs.FileSelector(path, recursive=True), name))


def _walk(folder: str, name: str) -> Iterator[tuple[str, int, int | None]]:
    """The same on this machine; pyarrow's takes 0.5 kB per file, and both a second or so per 300,000."""
    folders = [folder]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.path)
                    elif entry.is_file():
                        stat = entry.stat()
                        yield entry.path.replace(os.sep, "/"), stat.st_size, stat.st_mtime_ns
    except OSError as error:
        raise ConfigError(f"{name!r} cannot be looked at: {error}. Check the access rights.") from error


def _list_glob(pattern: str) -> Listing:
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
    return Listing(filesystem, None, Files.from_entries(_entries(filesystem.get_file_info(paths)), base))


def _list_files(names: list[str]) -> Listing:
    if not names:
        raise ConfigError("The list of files is empty; expected at least one Parquet file.")
    filesystem, uri, _ = resolve(names[0])
    infos: dict[str, fs.FileInfo] = {}
    for name in names:
        own, _, path = resolve(name)
        if not own.equals(filesystem):
            raise ConfigError(
                f"{names[0]!r} and {name!r} are of different filesystems; expected one. Copy, or run twice."
            )
        info = _info(own, path, name)
        if not info.is_file:
            what = "a folder" if info.type == fs.FileType.Directory else "not there"
            raise ConfigError(
                f"{name!r} is {what}; expected a list of files. Name a folder or a glob alone, not in a list."
            )
        if path in infos:
            raise ConfigError(f"{name!r} is named twice; expected every file once. Drop one of the two.")
        infos[path] = info
    base = os.path.commonpath({path.rpartition("/")[0] for path in infos}).replace(os.sep, "/")
    return Listing(filesystem, uri, Files.from_entries(_entries(infos.values()), base))


def _info(filesystem: fs.FileSystem, path: str | list[str] | fs.FileSelector, name: str) -> Any:
    try:
        return filesystem.get_file_info(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{name!r} cannot be looked at: {error}. Check the address and the access rights.") from error


def _entries(infos: Iterable[fs.FileInfo]) -> Iterator[tuple[str, int, int | None]]:
    """Path, size and time of the files among what a filesystem found."""
    return ((info.path, info.size, info.mtime_ns) for info in infos if info.is_file)


def _hidden(relative: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in relative.split("/"))
