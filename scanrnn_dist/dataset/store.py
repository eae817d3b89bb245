"""Where the output of a job stands: a folder of this machine, or a prefix in an object store such as S3.

Both do the few things that the protocol of a job needs, each so that a process may die at any moment:

- `write`: a small file appears whole or not at all, and replaces what stood under its name.
- `create`: the same, but only where nothing stands yet. Exclusive in a folder; in an object store, which pyarrow
  cannot ask for that, a check before the write, so two at once may both succeed and the later one stands.
- `part`: a large file, written aside and named when it is whole.
- `log`: a file that grows by lines, each of which is there whole or is not counted.

What stands where, and in which order things happen, is `manifest.py`'s.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.dataset.filesystems import is_uri, resolve
from scanrnn_dist.errors import ConfigError, StoppedError

UPLOAD_BYTES = 8 << 20
SEGMENT_LINES = 1000
"""An object cannot grow: a log there is a row of objects of at most so many lines, and a line costs one upload of the
last of them. A million lines are a thousand objects to list."""

_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or raise the quota",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Make it writable",
    errno.EPERM: "Make it writable",
    errno.ENOENT: "Bring it back",
    errno.EFBIG: "Raise the limit on file sizes, or choose fewer --rows-per-part",
}


def step(kind: str, name: str) -> None:
    """Called before every step that changes a destination: where tests count, and kill.

    Args:
        kind: "open", "write", "sync", "rename", "append", "delete" or "mkdir".
        name: what it is about.
    """


class Part(Protocol):
    """A large file that is being written; a file object for pyarrow."""

    closed: bool

    def write(self, content: bytes) -> int:
        """Append."""

    def tell(self) -> int:
        """Bytes written so far."""

    def flush(self) -> None:
        """Nothing needs it."""

    def close(self) -> None:
        """Nothing appears."""

    def commit(self) -> None:
        """Make it durable, then give it its name."""

    def abandon(self) -> None:
        """Remove what stands aside."""


class Log(Protocol):
    """A file of lines that grows."""

    def append(self, line: str, durable: bool = True) -> None:
        """Add a line; with `durable` it survives a loss of power."""

    def close(self) -> None:
        """Nothing is appended any more."""


class Store(Protocol):
    """See the module; names are relative to the destination, with slashes."""

    root: str
    attempt: str

    def child(self, name: str) -> Store:
        """The store below a folder of this one."""

    def path(self, name: str) -> str:
        """A name in full, for messages."""

    def names(self, folder: str = "") -> dict[str, int]:
        """The files that stand directly in a folder, hidden ones too, with their bytes; none where there is no folder.

        Folders in it are named with a trailing slash, and have 0 bytes.
        """

    def below(self, folder: str = "") -> dict[str, int]:
        """The files below a folder at any depth, by their names from the root, with their bytes."""

    def read(self, name: str) -> bytes:
        """All of a file; `FileNotFoundError` if there is none."""

    def open_input(self, name: str) -> pa.NativeFile:
        """A file to read from at any place; `FileNotFoundError` if there is none."""

    def write(self, name: str, content: bytes, durable: bool = True) -> None:
        """Write a small file whole or not at all."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file where none stands; whether it was."""

    def part(self, name: str) -> Part:
        """Begin a large file."""

    def log(self, name: str) -> Log:
        """Begin a log of this attempt alone; its files' names begin with `name`."""

    def move(self, old: str, new: str) -> None:
        """Rename a file; what stood under the new name is replaced."""

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if there is none."""

    def delete_below(self, folder: str) -> None:
        """Remove a folder with all that is in it; nothing happens if there is none."""


def new_attempt() -> str:
    """A name for what this process does from now on, unlike any other: host, process, eight random digits."""
    host = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in socket.gethostname()) or "host"
    return f"{host}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def open_store(destination: str | os.PathLike[str], attempt: str | None = None) -> Store:
    """The store of a destination, which need not exist yet.

    Args:
        destination: a folder of this machine, or a URI that pyarrow understands.
        attempt: names what is written aside; a new one if not given.

    Raises:
        ConfigError: a URI that cannot be opened.
    """
    attempt = attempt or new_attempt()
    if not is_uri(os.fspath(destination)):
        return LocalStore(str(Path(destination).expanduser()), attempt)
    filesystem, _, path = resolve(os.fspath(destination))
    scheme = os.fspath(destination).partition("://")[0]
    # Named without what else a URI may hold: an access key, a secret, an endpoint.
    return ObjectStore(f"{scheme}://{path.rstrip('/')}", attempt, filesystem, path.rstrip("/"))


def stopped(path: str, error: OSError) -> StoppedError:
    """What a refusal of the file system becomes."""
    reason = (error.strerror or str(error)).rstrip(" .")
    remedy = _REMEDIES.get(error.errno or 0, "See to it")
    return StoppedError(
        f"{path} could not be written: {reason}. What was committed before is whole. {remedy}, then start the same "
        "command again: it goes on from there."
    )


@contextmanager
def _stopping(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise stopped(path, error if isinstance(error, OSError) else OSError(str(error))) from error


# A folder of this machine -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalStore:
    """A folder: synced files, atomic renames, exclusive links, appended logs."""

    root: str
    attempt: str

    def child(self, name: str) -> LocalStore:
        """As in `Store`."""
        return LocalStore(self.path(name), self.attempt)

    def path(self, name: str) -> str:
        """As in `Store`."""
        return os.path.join(self.root, name) if name else self.root

    def names(self, folder: str = "") -> dict[str, int]:
        """As in `Store`."""
        try:
            with os.scandir(self.path(folder)) as entries:
                return {entry.name + "/" * entry.is_dir(): _size(entry) for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def below(self, folder: str = "") -> dict[str, int]:
        """As in `Store`."""
        found: dict[str, int] = {}
        for name, size in self.names(folder).items():
            full = f"{folder}/{name}".lstrip("/")
            found |= self.below(full[:-1]) if name.endswith("/") else {full: size}
        return found

    def read(self, name: str) -> bytes:
        """As in `Store`."""
        return Path(self.path(name)).read_bytes()

    def open_input(self, name: str) -> pa.NativeFile:
        """As in `Store`."""
        return pa.OSFile(self.path(name))

    def write(self, name: str, content: bytes, durable: bool = True) -> None:
        """As in `Store`."""
        with self._aside(name, content, durable) as (aside, path):
            step("rename", name)
            os.replace(aside, path)
            if durable:
                self._sync_folder(path)

    def create(self, name: str, content: bytes) -> bool:
        """As in `Store`."""
        with self._aside(name, content, True) as (aside, path):
            step("rename", name)
            try:
                os.link(aside, path)
            except FileExistsError:
                return False
            except OSError:  # no hard links here, as on FAT: then not exclusive
                if os.path.exists(path):
                    return False
                os.rename(aside, path)
            self._sync_folder(path)
        return True

    def part(self, name: str) -> Part:
        """As in `Store`."""
        return _LocalPart(self, name)

    def log(self, name: str) -> Log:
        """As in `Store`."""
        return _LocalLog(self, f"{name}.jsonl")

    def move(self, old: str, new: str) -> None:
        """As in `Store`."""
        with _stopping(self.path(new)):
            self._make_folder(self.path(new))
            step("rename", new)
            os.replace(self.path(old), self.path(new))
            self._sync_folder(self.path(new))

    def delete(self, name: str) -> None:
        """As in `Store`."""
        with _stopping(self.path(name)):
            step("delete", name)
            Path(self.path(name)).unlink(missing_ok=True)

    def delete_below(self, folder: str) -> None:
        """As in `Store`."""
        if os.path.isdir(self.path(folder)):
            with _stopping(self.path(folder)):
                step("delete", folder)
                shutil.rmtree(self.path(folder))

    def _make_folder(self, path: str) -> None:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            step("mkdir", folder)
            os.makedirs(folder, exist_ok=True)
            self._sync_folder(folder)

    @staticmethod
    def _sync_folder(path: str) -> None:
        """Make the names in the folder of a path durable."""
        folder = os.path.dirname(path) or "."
        step("sync", folder)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def aside(self, name: str) -> str:
        """Where a file is written before it has its name; hidden from readers, and told from others' by the attempt."""
        folder, base = os.path.split(self.path(name))
        return os.path.join(folder, f".{base}.{self.attempt}.tmp")

    @contextmanager
    def _aside(self, name: str, content: bytes, durable: bool) -> Iterator[tuple[str, str]]:
        path, aside = self.path(name), self.aside(name)
        with _stopping(path):
            try:
                self._make_folder(path)
                step("open", name)
                with open(aside, "wb") as file:
                    step("write", name)
                    file.write(content)
                    file.flush()
                    if durable:
                        step("sync", name)
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
    def __init__(self, store: LocalStore, name: str) -> None:
        self._store, self._name, self._aside = store, name, store.aside(name)
        step("open", name)
        self._file = open(self._aside, "wb")  # noqa: SIM115 - closed by `commit` or `abandon`
        self.tell, self.flush, self.close = self._file.tell, self._file.flush, self._file.close

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, content: bytes) -> int:
        step("write", self._name)
        return self._file.write(content)

    def commit(self) -> None:
        self._file.flush()
        step("sync", self._name)
        os.fsync(self._file.fileno())
        self._file.close()
        path = self._store.path(self._name)
        step("rename", self._name)
        os.replace(self._aside, path)
        self._store._sync_folder(path)

    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            Path(self._aside).unlink(missing_ok=True)


class _LocalLog:
    """Appended by this attempt alone, so that a line that was cut by a crash is the file's last."""

    def __init__(self, store: LocalStore, name: str) -> None:
        self._path, self._name, self._lock = store.path(name), name, threading.Lock()
        self._is_cut = False
        with _stopping(self._path):
            store._make_folder(self._path)
            step("open", name)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
            store._sync_folder(self._path)

    def append(self, line: str, durable: bool = True) -> None:
        with self._lock, _stopping(self._path):
            if self._is_cut:
                raise OSError(errno.EIO, "an earlier line was cut short")
            step("append", self._name)
            content, before = f"{line}\n".encode(), self._file.tell()
            if self._file.write(content) != len(content):  # cut, as by a full disk or a limit on file sizes
                self._is_cut = True
                self._file.truncate(before)
                self._is_cut = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                step("sync", self._name)
                os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


# An object store -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObjectStore:
    """A prefix of a bucket: an object appears with the request that completes it, whole.

    Covered: a process that dies at any moment, at worst leaving an upload that nobody sees and that only the bucket's
    life-cycle rule removes. Not covered: two different jobs started on one new prefix within a second, of which the
    later one stands; `manifest.py` has each look again whose job it is.
    """

    root: str
    attempt: str
    filesystem: fs.FileSystem = field(repr=False)
    prefix: str

    def child(self, name: str) -> ObjectStore:
        """As in `Store`."""
        return ObjectStore(self.path(name), self.attempt, self.filesystem, self._key(name))

    def path(self, name: str) -> str:
        """As in `Store`."""
        return f"{self.root}/{name}" if name else self.root

    def names(self, folder: str = "") -> dict[str, int]:
        """As in `Store`."""
        found = self._list(folder, recursive=False)
        return {info.base_name + "/" * (not info.is_file): info.size or 0 for info in found}

    def below(self, folder: str = "") -> dict[str, int]:
        """As in `Store`."""
        found = self._list(folder, recursive=True)
        return {info.path[len(self.prefix) + 1 :]: info.size for info in found if info.is_file}

    def read(self, name: str) -> bytes:
        """As in `Store`."""
        with self.open_input(name) as file:
            content: bytes = file.read()
            return content

    def open_input(self, name: str) -> pa.NativeFile:
        """As in `Store`."""
        return self.filesystem.open_input_file(self._key(name))

    def write(self, name: str, content: bytes, durable: bool = True) -> None:
        """As in `Store`."""
        with _stopping(self.path(name)):
            step("write", name)
            self.upload(name, iter([content]))

    def create(self, name: str, content: bytes) -> bool:
        """As in `Store`."""
        with _stopping(self.path(name)):
            if self.filesystem.get_file_info(self._key(name)).is_file:
                return False
        self.write(name, content)
        return True

    def part(self, name: str) -> Part:
        """As in `Store`."""
        return _UploadedPart(self, name)

    def log(self, name: str) -> Log:
        """As in `Store`."""
        return _UploadedLog(self, name)

    def move(self, old: str, new: str) -> None:
        """As in `Store`."""
        with _stopping(self.path(new)):
            step("rename", new)
            self.filesystem.copy_file(self._key(old), self._key(new))
        self.delete(old)

    def delete(self, name: str) -> None:
        """As in `Store`."""
        with _stopping(self.path(name)):
            step("delete", name)
            if self.filesystem.get_file_info(self._key(name)).is_file:
                self.filesystem.delete_file(self._key(name))

    def delete_below(self, folder: str) -> None:
        """As in `Store`."""
        for name in self.below(folder):
            self.delete(name)

    def upload(self, name: str, pieces: Iterator[bytes]) -> None:
        """Make an object of these pieces.

        In a thread of its own, where no signal raises: pyarrow completes an upload whose stream is left or dropped, so
        that an exception between two pieces would make half an object appear.
        """

        def send() -> None:
            stream = self.filesystem.open_output_stream(self._key(name))
            for piece in pieces:
                stream.write(piece)
            stream.close()

        with ThreadPoolExecutor(1, thread_name_prefix="scanrnn-upload") as thread:
            thread.submit(send).result()

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".rstrip("/")

    def _list(self, folder: str, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._key(folder), allow_not_found=True, recursive=recursive)
        try:
            found: list[fs.FileInfo] = self.filesystem.get_file_info(selector)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(
                f"{self.path(folder)} cannot be looked at: {error}. Check the address and the access rights."
            ) from error
        return found


class _UploadedPart:
    """Written to a temporary file of this machine, then uploaded at once.

    Not streamed while it is made: an error midway would make half a part appear, see `ObjectStore.upload`.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._name = store, name
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="scanrnn-part-")  # noqa: SIM115 - closed by whoever ends it
        self.tell, self.flush, self.close = self._file.tell, self._file.flush, lambda: None

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, content: bytes) -> int:
        return self._file.write(content)

    def commit(self) -> None:
        self._file.seek(0)
        step("open", self._name)
        self._store.upload(self._name, self._pieces())
        self._file.close()

    def _pieces(self) -> Iterator[bytes]:
        while content := self._file.read(UPLOAD_BYTES):
            step("write", self._name)
            yield content
        step("rename", self._name)

    def abandon(self) -> None:
        self._file.close()


class _UploadedLog:
    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._name, self._lock = store, name, threading.Lock()
        self._segment, self._lines = 0, list[str]()

    def append(self, line: str, durable: bool = True) -> None:
        with self._lock:
            if len(self._lines) == SEGMENT_LINES:
                self._segment, self._lines = self._segment + 1, []
            self._lines.append(line)
            self._store.write(f"{self._name}.{self._segment:06}.jsonl", "".join(f"{it}\n" for it in self._lines).encode())

    def close(self) -> None:
        self._lines = []


