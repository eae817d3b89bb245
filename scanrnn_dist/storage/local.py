"""A destination that is a folder: synced files, atomic renames, exclusive links, appended logs.

What a store promises stands in `protocol.py`; the calls that change a folder in the room `disk`.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from scanrnn_dist.disk import DISK, Disk
from scanrnn_dist.storage.protocol import Check, Log, NewFile, Store, staged, stopping, unstaged

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_MISSING = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class LocalStore(Store):
    """A folder, changed by the calls of `disk` alone."""

    is_staged: bool = False
    disk: Disk = field(default=DISK, repr=False)

    def child(self, name: str) -> LocalStore:
        return replace(self, root=self.path(name), is_staged=True)

    def path(self, name: str) -> str:
        return os.path.join(self.root, staged(name) if self.is_staged else name) if name else self.root

    def prepare(self) -> None:
        with stopping(self.root):
            self._make(self.root)

    def entries(self, folder: str = "") -> Iterator[tuple[str, int]]:
        with stopping(self.path(folder), "read"):
            try:
                found = os.scandir(self.path(folder))
            except _MISSING:
                return
            with found:
                for entry in found:
                    name = unstaged(entry.name) if self.is_staged else entry.name
                    yield name + "/" * entry.is_dir(), _size(entry)

    def below(self, folder: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        for name, size in self.entries(folder):
            full = f"{folder}/{name}".lstrip("/")
            found |= self.below(full[:-1]) if name.endswith("/") else {full: size}
        return found

    def exists(self, name: str) -> bool:
        with stopping(self.path(name), "read"):
            try:
                return stat.S_ISREG(os.stat(self.path(name)).st_mode)
            except _MISSING:
                return False

    def read(self, name: str) -> bytes:
        with stopping(self.path(name), "read", but=_MISSING):
            return Path(self.path(name)).read_bytes()

    def open_input(self, name: str) -> pa.NativeFile:
        with stopping(self.path(name), "read", but=_MISSING):
            return pa.OSFile(self.path(name))

    def write(self, name: str, content: bytes, check: Check | None = None) -> None:
        with self._aside(name, content, True) as (aside, path):
            self._name(aside, path, True, check)

    def _name(self, aside: str, path: str, durable: bool, check: Check | None) -> None:
        """Give a file its name, after a check."""
        if check is not None:
            check()
        self.disk.rename(aside, path)
        if durable:
            self.disk.sync_folder(os.path.dirname(path))

    def create(self, name: str, content: bytes) -> bool:
        with self._aside(name, content, True) as (aside, path):
            is_made = self._named_anew(aside, path)
            if is_made:
                self.disk.sync_folder(os.path.dirname(path))
            with suppress(OSError):
                self.disk.delete(aside)
        return is_made

    def version(self, name: str) -> str | None:
        with stopping(self.path(name), "read"):
            try:
                return _version(os.stat(self.path(name)))
            except _MISSING:
                return None

    def read_version(self, name: str) -> tuple[bytes, str]:
        with stopping(self.path(name), "read", but=_MISSING), open(self.path(name), "rb") as file:
            return file.read(), _version(os.fstat(file.fileno()))

    def replace(self, name: str, content: bytes, version: str, durable: bool = True) -> bool:
        with self._aside(name, content, durable) as (aside, path):
            if self.version(name) != version:
                self.disk.delete(aside)
                return False
            self._name(aside, path, durable, None)
        return True

    def remove(self, name: str, version: str) -> None:
        if self.version(name) == version:
            self.delete(name)

    def new_file(self, name: str) -> NewFile:
        return _AsideFile(self, name)

    def log(self, name: str) -> Log:
        return _LocalLog(self, f"{name}.jsonl")

    def move(self, old: str, new: str, version: str | None = None) -> None:
        if version is not None and self.version(old) != version:
            return
        with stopping(self.path(new)):
            self.make_folder_of(self.path(new))
            self.disk.rename(self.path(old), self.path(new))

    def link(self, old: str, new: str) -> None:
        with stopping(self.path(new)):
            self.make_folder_of(self.path(new))
            try:
                self.disk.link(self.path(old), self.path(new))
            except OSError as error:
                if isinstance(error, FileNotFoundError | FileExistsError) or error.errno in _NO_ROOM:
                    raise
                if os.path.exists(self.path(new)):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
                self.disk.copy(self.path(old), self.path(new))  # no hard links here, as on FAT

    def delete(self, name: str) -> None:
        with stopping(self.path(name)):
            self.disk.delete(self.path(name))

    def sync(self, folder: str = "") -> None:
        with suppress(FileNotFoundError), stopping(self.path(folder), but=(FileNotFoundError,)):
            self.disk.sync_folder(self.path(folder))

    def delete_empty(self, folder: str) -> None:
        with stopping(self.path(folder)):
            for path, _, _ in os.walk(self.path(folder), topdown=False):
                self.disk.delete_folder(path)

    def age_seconds(self, name: str) -> float:
        try:
            return time.time() - os.stat(self.path(name)).st_mtime
        except OSError:
            return math.inf

    def aside(self, name: str) -> str:
        """The path of `aside_name`, in a folder that is there."""
        path = self.path(self.aside_name(name))
        self.make_folder_of(path)
        return path

    def make_folder_of(self, path: str) -> None:
        """Make the folder that a path is in, below the destination."""
        if not os.path.isdir(self.root):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.root)
        self._make(os.path.dirname(path))

    def _make(self, folder: str) -> None:
        if not os.path.isdir(folder):
            above = os.path.dirname(os.path.abspath(folder))
            self._make(above)  # one by one, so that each name is durable
            self.disk.make_folder(folder)
            self.disk.sync_folder(above)

    def _named_anew(self, aside: str, path: str) -> bool:
        """Give a file its name unless that is taken; whether it has it."""
        try:
            self.disk.link(aside, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            if os.path.exists(path):  # no hard links here, as on FAT: then not exclusive
                return False
            self.disk.rename(aside, path)
        return True

    @contextmanager
    def _aside(self, name: str, content: bytes, durable: bool) -> Iterator[tuple[str, str]]:
        path = self.path(name)
        with stopping(path):
            aside = self.aside(name)
            try:
                self.make_folder_of(path)
                with self.disk.open(aside) as file:
                    self.disk.write(file, content)
                    if durable:
                        self.disk.sync(file)
                yield aside, path
            except BaseException:
                with suppress(OSError):
                    self.disk.delete(aside)
                raise


def _version(stat: os.stat_result) -> str:
    """A file that is written aside and renamed has another number or another time."""
    return f"{stat.st_ino} {stat.st_mtime_ns} {stat.st_size}"


def _size(entry: os.DirEntry[str]) -> int:
    """Bytes of a file; 0 of one that was renamed since it was listed."""
    try:
        return 0 if entry.is_dir() else entry.stat().st_size
    except FileNotFoundError:
        return 0


class _AsideFile(NewFile):
    def __init__(self, folder: LocalStore, name: str) -> None:
        self._folder, self._path, self._aside = folder, folder.path(name), folder.aside(name)
        self._disk = folder.disk
        folder.make_folder_of(self._path)
        super().__init__(self._disk.open(self._aside))
        self._begun = 0  # bytes that are on their way

    def begin_sync(self) -> None:
        begin, self._begun = self._begun, self._file.tell()
        self._disk.begin_sync(self._file, begin, self._begun)

    def write(self, content: bytes | memoryview) -> int:
        return self._disk.write(self._file, content)

    def commit(self, check: Check | None = None) -> None:
        self._disk.sync(self._file)
        self._file.close()
        self._folder._name(self._aside, self._path, True, check)

    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._disk.delete(self._aside)


class _LocalLog(Log):
    """Appended by this attempt alone, so that a line that was cut by a crash is the file's last."""

    def __init__(self, folder: LocalStore, name: str) -> None:
        self._path, self._disk, self._lock = folder.path(name), folder.disk, threading.Lock()
        self._is_cut = False
        with stopping(self._path):
            folder.make_folder_of(self._path)
            self._file = self._disk.open_log(self._path)
            self._disk.sync_folder(os.path.dirname(self._path))

    def append(self, line: str, durable: bool = True) -> None:
        with self._lock, stopping(self._path):
            if self._is_cut:
                raise OSError(errno.EIO, "an earlier line was cut short")
            content, before = f"{line}\n".encode(), self._file.tell()
            if self._disk.append(self._file, content) != len(content):  # cut, as by a full disk or a limit on sizes
                self._is_cut = True
                self._file.truncate(self._file.seek(before))  # else the next line is thought to begin further on
                self._is_cut = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                self._disk.sync(self._file)

    def close(self) -> None:
        self._file.close()
