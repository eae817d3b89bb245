"""A destination that is a folder: synced files, atomic renames, exclusive links, appended logs."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from scanrnn_dist.storage import protocol as store
from scanrnn_dist.storage.protocol import Check, Log, Part, staged, stopping, unstaged

ASIDE = "__scanrnn/aside"
"""The folder of what has no name yet, in the same file system, so that it is named by a rename."""


@dataclass(frozen=True)
class LocalStore:
    """A folder: synced files, atomic renames, exclusive links, appended logs."""

    root: str
    attempt: str
    is_staged: bool = False

    def child(self, name: str) -> LocalStore:
        """As in `Store`."""
        return LocalStore(self.path(name), self.attempt, is_staged=True)

    def path(self, name: str) -> str:
        """As in `Store`."""
        return os.path.join(self.root, staged(name) if self.is_staged else name) if name else self.root

    def prepare(self) -> None:
        """As in `Store`."""
        with stopping(self.root):
            self._make(self.root)

    def entries(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """As in `Store`."""
        with stopping(self.path(folder), "read"):
            try:
                found = os.scandir(self.path(folder))
            except (FileNotFoundError, NotADirectoryError):
                return
            with found:
                for entry in found:
                    name = unstaged(entry.name) if self.is_staged else entry.name
                    yield name + "/" * entry.is_dir(), _size(entry)

    def below(self, folder: str = "") -> dict[str, int]:
        """As in `Store`."""
        found: dict[str, int] = {}
        for name, size in self.entries(folder):
            full = f"{folder}/{name}".lstrip("/")
            found |= self.below(full[:-1]) if name.endswith("/") else {full: size}
        return found

    def exists(self, name: str) -> bool:
        """As in `Store`."""
        with stopping(self.path(name), "read"):
            try:
                return stat.S_ISREG(os.stat(self.path(name)).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def read(self, name: str) -> bytes:
        """As in `Store`."""
        with stopping(self.path(name), "read", but=(FileNotFoundError, NotADirectoryError)):
            return Path(self.path(name)).read_bytes()

    def open_input(self, name: str) -> pa.NativeFile:
        """As in `Store`."""
        with stopping(self.path(name), "read", but=(FileNotFoundError, NotADirectoryError)):
            return pa.OSFile(self.path(name))

    def write(self, name: str, content: bytes, durable: bool = True, check: Check | None = None) -> None:
        """As in `Store`."""
        with self._aside(name, content, durable) as (aside, path):
            if check is not None:
                check()
            store.step("rename", name)
            os.replace(aside, path)
            if durable:
                self.sync_folder(path)

    def create(self, name: str, content: bytes) -> bool:
        """As in `Store`."""
        with self._aside(name, content, True) as (aside, path):
            store.step("rename", name)
            try:
                os.link(aside, path)
            except FileExistsError:
                return False
            except OSError:  # no hard links here, as on FAT: then not exclusive
                if os.path.exists(path):
                    return False
                os.rename(aside, path)
            self.sync_folder(path)
        return True

    def part(self, name: str) -> Part:
        """As in `Store`."""
        return _LocalPart(self, name)

    def log(self, name: str) -> Log:
        """As in `Store`."""
        return _LocalLog(self, f"{name}.jsonl")

    def move(self, old: str, new: str) -> None:
        """As in `Store`."""
        with stopping(self.path(new)):
            self.make_folder(self.path(new))
            store.step("rename", new)
            os.replace(self.path(old), self.path(new))

    def link(self, old: str, new: str) -> None:
        """As in `Store`."""
        with stopping(self.path(new)):
            self.make_folder(self.path(new))
            store.step("link", new)
            try:
                os.link(self.path(old), self.path(new))
            except FileNotFoundError:
                raise
            except OSError:  # no hard links here, as on FAT
                shutil.copyfile(self.path(old), self.path(new))
                with open(self.path(new), "rb") as file:
                    os.fsync(file.fileno())

    def delete(self, name: str) -> None:
        """As in `Store`."""
        with stopping(self.path(name)):
            store.step("delete", name)
            Path(self.path(name)).unlink(missing_ok=True)

    def sync(self, folder: str = "") -> None:
        """As in `Store`."""
        with stopping(self.path(folder)):
            self.sync_folder(self.path(f"{folder}/x".lstrip("/")))

    def delete_below(self, folder: str) -> None:
        """As in `Store`."""
        if os.path.isdir(self.path(folder)):
            with stopping(self.path(folder)):
                store.step("delete", folder)
                shutil.rmtree(self.path(folder))

    def make_folder(self, path: str) -> None:
        """Make the folder that a path is in, below the destination."""
        if not os.path.isdir(self.root):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.root)
        self._make(os.path.dirname(path))

    def _make(self, folder: str) -> None:
        if not os.path.isdir(folder):
            self._make(os.path.dirname(os.path.abspath(folder)))  # one by one, so that each name is durable
            store.step("mkdir", folder)
            os.makedirs(folder, exist_ok=True)
            self.sync_folder(folder)

    @staticmethod
    def sync_folder(path: str) -> None:
        """Make the names in the folder of a path durable."""
        folder = os.path.dirname(path) or "."
        store.step("sync", folder)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def aside(self, name: str) -> str:
        """Where a file is written before it has its name: where no reader looks, told from others' by the attempt."""
        path = self.path(f"{ASIDE}/{name.replace('/', '-')}.{self.attempt}.tmp")
        self.make_folder(path)
        return path

    @contextmanager
    def _aside(self, name: str, content: bytes, durable: bool) -> Iterator[tuple[str, str]]:
        path = self.path(name)
        with stopping(path):
            aside = self.aside(name)
            try:
                self.make_folder(path)
                store.step("open", name)
                with open(aside, "wb") as file:
                    store.step("write", name)
                    file.write(content)
                    file.flush()
                    if durable:
                        store.step("sync", name)
                        os.fsync(file.fileno())
                yield aside, path
            finally:
                with suppress(OSError):
                    Path(aside).unlink(missing_ok=True)


def _size(entry: os.DirEntry[str]) -> int:
    """Bytes of a file; 0 of one that was renamed since it was listed."""
    try:
        return 0 if entry.is_dir() else entry.stat().st_size
    except FileNotFoundError:
        return 0


class _LocalPart:
    def __init__(self, folder: LocalStore, name: str) -> None:
        self._folder, self._name, self._aside = folder, name, folder.aside(name)
        store.step("open", name)
        self._file = open(self._aside, "wb")  # noqa: SIM115 - closed by `commit` or `abandon`
        self.tell, self.flush, self.close = self._file.tell, self._file.flush, self._file.close

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, content: bytes) -> int:
        store.step("write", self._name)
        return self._file.write(content)

    def commit(self) -> None:
        self._file.flush()
        store.step("sync", self._name)
        os.fsync(self._file.fileno())
        self._file.close()
        path = self._folder.path(self._name)
        store.step("rename", self._name)
        os.replace(self._aside, path)
        self._folder.sync_folder(path)

    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            Path(self._aside).unlink(missing_ok=True)


class _LocalLog:
    """Appended by this attempt alone, so that a line that was cut by a crash is the file's last."""

    def __init__(self, folder: LocalStore, name: str) -> None:
        self._path, self._name, self._lock = folder.path(name), name, threading.Lock()
        self._is_cut = False
        with stopping(self._path):
            folder.make_folder(self._path)
            store.step("open", name)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
            folder.sync_folder(self._path)

    def append(self, line: str, durable: bool = True) -> None:
        with self._lock, stopping(self._path):
            if self._is_cut:
                raise OSError(errno.EIO, "an earlier line was cut short")
            store.step("append", self._name)
            content, before = f"{line}\n".encode(), self._file.tell()
            if self._file.write(content) != len(content):  # cut, as by a full disk or a limit on file sizes
                self._is_cut = True
                self._file.truncate(before)
                self._is_cut = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                store.step("sync", self._name)
                os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
