"""Folders that are tables of Delta Lake, Hudi or Iceberg: their files hold rows that were deleted or replaced.

Which files of such a table are live stands in its log alone. So what lies in one is refused, unless the files are named
one by one. `listing.py` asks, of every folder that it lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from scanrnn_dist.errors import ConfigError

LOGS = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
"""Folders that a table has at its root, and what keeps it."""
ICEBERG_FOLDER, ICEBERG_NAMES = "metadata", (".metadata.json", ".metadata.json.gz")
"""The same of Iceberg, and how the files in that folder end that make it one."""

_WAYS = {
    "Delta Lake": "deltalake lists them: DeltaTable({root!r}).file_uris()",
    "Iceberg": "pyiceberg lists them: [task.file.file_path for task in table.scan().plan_files()]",
    "Hudi": "The package hudi reads what is live: HudiTableBuilder.from_base_uri({root!r}).build().read_snapshot()",
}


def tables_among(paths: Iterable[str]) -> dict[str, str]:
    """Roots of the tables that the paths of files and folders show, and what keeps each."""
    roots = {}
    for path in paths:
        if path.endswith(ICEBERG_NAMES):
            folder = path.rpartition("/")[0]
            if folder.rpartition("/")[2] == ICEBERG_FOLDER:
                roots[folder.rpartition("/")[0]] = "Iceberg"
        elif "_delta_log" in path or ".hoodie" in path:
            names = path.split("/")
            index = next((index for index, name in enumerate(names) if name in LOGS), None)
            if index is not None:
                roots["/".join(names[:index])] = LOGS[names[index]]
    return roots


def check_no_tables(filesystem: fs.FileSystem, folder: str, roots: dict[str, str], paths: pa.LargeStringArray) -> None:
    """Refuse a folder in which files were found, if it is or lies in a table, or if they lie in one with such a root.

    Raises `ConfigError`.
    """
    for above in _upwards(folder) if len(paths) else ():
        # Who may read a folder need not see what it lies in; then no table is seen there either.
        with suppress(OSError, pa.ArrowException):
            for root, kind in _tables_at(filesystem, above).items():
                raise _refusal(root, kind)
    for root, kind in sorted(roots.items()):
        if pc.any(pc.starts_with(paths, f"{root}/")).as_py():
            raise _refusal(root, kind)


def _tables_at(filesystem: fs.FileSystem, folder: str) -> dict[str, str]:
    """The table whose root a folder is, if it is one."""
    names = []
    for info in filesystem.get_file_info([f"{folder}/{name}" for name in (*LOGS, ICEBERG_FOLDER)]):
        if info.type == fs.FileType.Directory:
            is_iceberg = info.base_name == ICEBERG_FOLDER
            inside = filesystem.get_file_info(fs.FileSelector(info.path)) if is_iceberg else [info]
            names += [f"{info.base_name}/{item.base_name}" for item in inside]
    return tables_among(f"{folder}/{name}" for name in names)


def _refusal(root: str, kind: str) -> ConfigError:
    return ConfigError(
        f"{root} is a table of {kind}, whose folders also hold files of rows that were deleted or replaced; expected "
        f"plain Parquet files, or the live files one by one. {_WAYS[kind].format(root=root)} (docs/data.md, 'Recipes')."
    )


def _upwards(folder: str) -> Iterator[str]:
    """A folder and those that it lies in; of a bucket none above it."""
    while folder.strip("/"):
        yield folder
        folder = os.path.dirname(folder)
