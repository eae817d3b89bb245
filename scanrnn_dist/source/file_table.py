"""The files of a source as columns: paths, sizes, times, and the partition values that their folders spell.

A million files take 24 bytes each and their paths; an object stands for a file only while someone looks at
it. Who lists files is `listing.py`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from scanrnn_dist.errors import DataError, check_is_text

UNKNOWN_TIME = np.iinfo(np.int64).min
"""In place of nanoseconds, where a filesystem does not tell; numpy reads it as "not a time"."""
_PIECE = 10_000
_INTEGER = re.compile("-?[0-9]+")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    path: str
    size_bytes: int
    modified_ns: int | None  # since 1970; None if the filesystem does not tell
    partitions: tuple[tuple[str, Any], ...] = ()  # the source's keys with their values, None where the path has none


@dataclass(frozen=True, eq=False)
class FileTable:
    """`N` files in their order; a sequence of `SourceFile`."""

    paths: pa.LargeStringArray  # (N,), within the filesystem of the source
    sizes_bytes: np.ndarray  # (N,) int64
    modified_ns: np.ndarray  # (N,) int64, since 1970, or `UNKNOWN_TIME`
    partition_base: str = ""  # the folder below which partition keys count
    partition_schema: pa.Schema = pa.schema([])  # noqa: RUF009  immutable
    """The partition fields; none for a listing that was not looked at for them."""

    @classmethod
    def from_entries(cls, entries: Iterable[tuple[str, int, int | None]], base: str) -> FileTable:
        """Paths, sizes and times of files, the times None where they are not told; without partition fields.

        Raises `ConfigError` for a path that is no text.
        """
        pieces, sizes_bytes, modified_ns = [], array("q"), array("q")
        entries = iter(entries)
        # In pieces: as Python objects, all at once, a million files would take more memory than all the rest.
        while piece := list(islice(entries, _PIECE)):
            pieces.append(_as_text([path for path, _, _ in piece]))
            sizes_bytes.extend(size for _, size, _ in piece)
            modified_ns.extend(UNKNOWN_TIME if time is None else time for _, _, time in piece)
        paths = pa.chunked_array(pieces, pa.large_string()).combine_chunks()
        return cls(paths, np.array(sizes_bytes, np.int64), np.array(modified_ns, np.int64), base)

    def take(self, indices: np.ndarray) -> FileTable:
        """The files of these numbers, in their order."""
        paths = self.paths.take(pa.array(indices))
        return replace(self, paths=paths, sizes_bytes=self.sizes_bytes[indices], modified_ns=self.modified_ns[indices])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> SourceFile:
        path = self.paths[index].as_py()
        modified_ns = int(self.modified_ns[index])
        known_ns = None if modified_ns == UNKNOWN_TIME else modified_ns
        return SourceFile(path, int(self.sizes_bytes[index]), known_ns, self._partitions(path))

    def __iter__(self) -> Iterator[SourceFile]:
        return (self[index] for index in range(len(self)))

    def _partitions(self, path: str) -> tuple[tuple[str, Any], ...]:
        if not self.partition_schema.names:
            return ()
        folder = path[len(self.partition_base) :].strip("/").rpartition("/")[0]
        keys = self._keys_of(folder)
        return tuple((name, keys.get(name)) for name in self.partition_schema.names)

    @cached_property
    def _keys_of(self) -> Callable[[str], dict[str, Any]]:
        return _partition_keys(self.partition_schema)


def _as_text(paths: list[str]) -> pa.Array:
    try:
        return pa.array(paths, pa.large_string())
    except UnicodeEncodeError:
        for path in paths:
            check_is_text(path)
        raise


def _partition_keys(fields: pa.Schema) -> Callable[[str], dict[str, Any]]:
    """What gives the hive partition keys of a folder, their values as of these fields."""
    import pyarrow.dataset as ds  # takes 0.2 s, with pandas, which `footer_child.py` need not wait for

    partitioning = ds.HivePartitioning(fields)
    return lambda folder: dict(ds.get_partition_keys(partitioning.parse(folder.strip("/") + "/")))


def partition_schema(filesystem: fs.FileSystem, files: FileTable) -> pa.Schema:
    """The hive partition fields below the base of `files`: those that pyarrow infers, text where a number is another.

    Text is a field of which no folder has a value, too: pyarrow, which refuses to infer it, is shown one.
    A number that is not printed as its folder spells it ("01234", "0x10", "-0") would be the same as another one.

    Raises:
        DataError: folders `key=value` that pyarrow cannot understand.
    """
    base = files.partition_base
    folders = pc.replace_substring_regex(pc.utf8_slice_codeunits(files.paths, len(base)), "[^/]*$", "")
    if not pc.any(pc.match_substring(folders, "=")).as_py():
        return pa.schema([])
    import pyarrow.dataset as ds

    options = ds.FileSystemFactoryOptions(partition_base_dir=base, partitioning=ds.HivePartitioning.discover())
    try:
        distinct = pc.unique(folders).to_pylist()
        spelled = (key.split("=", 1) for folder in distinct for key in folder.split("/") if "=" in key)
        pairs = dict.fromkeys((name, value) for name, value in spelled)
        valued = {name for name, value in pairs if value != _NO_VALUE}
        shown = [f"{base.rstrip('/')}/{name}=text/file" for name, _ in pairs if name not in valued]
        paths = [*files.paths.to_pylist(), *shown]
        factory = ds.FileSystemDatasetFactory(filesystem, paths, ds.ParquetFileFormat(), options)
        # No fragment: pyarrow would look at footers here, in this process.
        fields = factory.inspect(fragments=0)
        as_text = _partition_keys(pa.schema([(name, pa.string()) for name in fields.names]))
        numbers = {field.name for field in fields if field.type != pa.string()}
        for folder in distinct:  # all, so that none is refused later, in the middle of a job
            keys = as_text(folder)
            numbers = {name for name in numbers if _is_printed_alike(keys.get(name))}
    except pa.ArrowException as error:
        raise DataError(
            f"The folders 'key=value' below {base!r} cannot be understood: {error}. Expected hive partitions: "
            "rename them, or name the files one by one or by a glob that spells these folders out."
        ) from error
    return pa.schema([field if field.name in numbers else field.with_type(pa.string()) for field in fields])


def _is_printed_alike(text: str | None) -> bool:
    """Whether a number would be spelled as this text; None for no value."""
    return text is None or (_INTEGER.fullmatch(text) is not None and str(int(text)) == text)


def is_unchanged(filesystem: fs.FileSystem, file: SourceFile) -> bool:
    """Whether a file has the size and the time that it had when it was listed."""
    now = filesystem.get_file_info(file.path)
    same_time = file.modified_ns is None or now.mtime_ns in (None, file.modified_ns)
    return now.type == fs.FileType.File and now.size == file.size_bytes and same_time


def differences(before: FileTable, now: FileTable, most: int) -> list[str]:
    """What differs between two listings, in words: files that are gone, that are others than they were, that are new.

    The order of the files does not count. A size or a time that is another makes a file another.

    `most` of them are put into words; one line more says how many others there are.
    """
    place, same = _places(before, now), unchanged(before, now)
    stays = place >= 0
    differing, new = np.flatnonzero(same < 0), new_files(before, now)
    told = []
    for index in differing[:most]:
        is_there = f"was {_state(before, index)} and is {_state(now, place[index])}" if stays[index] else "is gone"
        told.append(f"{before.paths[index].as_py()} {is_there}")
    told += [f"{now.paths[index].as_py()} is new" for index in new[: most - len(told)]]
    others = len(differing) + len(new) - len(told)
    return told + ([f"and {others:,} more"] if others else [])


def unchanged(before: FileTable, now: FileTable) -> np.ndarray:
    """Where each file stands in a later listing, `(N,)` integers; -1 if it is gone, or of another size or time."""
    place = _places(before, now)
    stays = place >= 0
    is_same = before.sizes_bytes[stays] == now.sizes_bytes[place[stays]]
    is_same &= before.modified_ns[stays] == now.modified_ns[place[stays]]
    place[stays] = np.where(is_same, place[stays], -1)
    return place


def new_files(before: FileTable, now: FileTable) -> np.ndarray:
    """The numbers of the files that an earlier listing does not have under any size or time."""
    return np.flatnonzero(_places(now, before) < 0)


def _places(files: FileTable, among: FileTable) -> np.ndarray:
    """Where each file stands among others by its path, `(N,)` integers; -1 where it does not."""
    if files.paths.equals(among.paths):
        return np.arange(len(files))
    found = pc.index_in(files.paths, value_set=among.paths)
    return np.array(pc.fill_null(found, -1).to_numpy(zero_copy_only=False))


def _state(files: FileTable, index: Any) -> str:
    """Size and time of a file, the time as fine as it is."""
    modified_ns = int(files.modified_ns[index])
    time = str(np.datetime64(modified_ns, "ns")).replace("T", " ").rstrip("0").rstrip(".")
    when = "unknown time" if modified_ns == UNKNOWN_TIME else f"{time} UTC"
    return f"{files.sizes_bytes[index]} bytes of {when}"
