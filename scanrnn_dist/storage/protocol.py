"""What a job asks of the place where its output stands: a folder of this machine or a prefix of a bucket.

Both (`local.py`, `bucket.py`) do these few things so that a process may die at any moment. What stands where, and in
which order things happen, is for `records`; which of the two a destination is, `open.py` tells.
"""

from __future__ import annotations

import errno
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from scanrnn_dist.errors import StoppedError

_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or raise the quota",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Correct the access rights",
    errno.EPERM: "Correct the access rights",
    errno.ENOENT: "It is not there, or the folder that it belongs in: bring that back, or choose another place",
    errno.EFBIG: "Raise the limit on file sizes, or choose fewer --rows-per-part",
}

Check = Callable[[], None]
"""Raises if the writer has lost its right to write."""

RECORDS = "__scanrnn"
"""The folder within a destination for all that is no part of the output.

Hugging Face `datasets` passes over folders that begin with two underscores, most other readers over one."""
ASIDE = f"{RECORDS}/aside"
"""The folder of what has no name yet, in the same file system, so that it is named by a rename."""
_PART, _STAGED = ".parquet", ".staged"


def staged(name: str) -> str:
    """What a file of a restart is called until it takes its place: no reader may take its parts for rows.

    Example:
        >>> staged("part-00000.parquet"), unstaged("part-00000.parquet.staged"), staged("_SUCCESS")
        ('part-00000.parquet.staged', 'part-00000.parquet', '_SUCCESS')
    """
    return f"{name}{_STAGED}" if name.endswith(_PART) else name


def unstaged(name: str) -> str:
    """The name that a file of a restart will have."""
    return name.removesuffix(_STAGED) if name.endswith(f"{_PART}{_STAGED}") else name


class NewFile(ABC):
    """A large file that is being written, into `file` until `commit`; without that nothing appears."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def begin_sync(self) -> None:  # noqa: B027 - where nothing can be begun
        """Have what was written so far become durable meanwhile, so that `commit` has less to wait for."""

    @abstractmethod
    def write(self, content: bytes | memoryview) -> int:
        """Append."""

    @abstractmethod
    def commit(self, check: Check | None = None) -> None:
        """Make it durable, then give it its name; `check` is called just before that.

        In a bucket it takes the place of nothing that came after the check, if it is small enough for one request.
        """

    @abstractmethod
    def abandon(self) -> None:
        """Remove what stands aside."""


class Log(ABC):
    """A file of lines that grows."""

    @abstractmethod
    def append(self, line: str, durable: bool = True) -> None:
        """Add a line; with `durable` it survives a loss of power."""

    @abstractmethod
    def close(self) -> None:
        """Append no more: from now on a line is a `ValueError`."""


@dataclass(frozen=True)
class Store(os.PathLike[str]):
    """A destination, for one attempt at a job; names in it are relative, with slashes.

    It may be given wherever the path or the URI of a destination may.
    """

    root: str  # the destination, for messages; `os.fspath` gives it for commands
    attempt: str  # names what this process writes

    def __fspath__(self) -> str:
        """The destination as a command takes it, with what reaching it takes besides its name."""
        return self.root

    def __str__(self) -> str:
        return self.root

    @abstractmethod
    def child(self, name: str) -> Store:
        """The store of a restart below a folder of this one; there `*.parquet` files stand under `staged` names."""

    @abstractmethod
    def path(self, name: str) -> str:
        """A name in full, for messages."""

    def aside_name(self, name: str) -> str:
        """What a file is called before it has its name: where no reader looks, told from others' by the attempt."""
        return f"{ASIDE}/{name.replace('/', '-')}.{self.attempt}.tmp"

    @abstractmethod
    def prepare(self) -> None:
        """Make the destination, once: one that vanishes later, as when it is unmounted, is missed, not made anew."""

    @abstractmethod
    def entries(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """The files that stand directly in a folder, hidden ones too, with their bytes; none where there is no folder.

        Folders in it are named with a trailing slash, and have 0 bytes. One after the other: there may be a million.
        """

    @abstractmethod
    def below(self, folder: str = "") -> dict[str, int]:
        """The files below a folder at any depth, by their names from the root, with their bytes."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file stands under a name."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All of a file; `FileNotFoundError` if there is none."""

    def read_each(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """All of each file, in this order; None if there is none. A bucket is asked for many at once."""
        return map(self._read_if_there, names)

    def _read_if_there(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self.read(name)
        return None

    @abstractmethod
    def open_input(self, name: str) -> pa.NativeFile:
        """A file to read from at any place; `FileNotFoundError` if there is none."""

    @abstractmethod
    def write(self, name: str, content: bytes, check: Check | None = None) -> None:
        """Write a small file whole or not at all, in place of what stood there; `check` is called just before that.

        In a bucket, with a check, it takes the place of nothing that came after it, if it is small enough for one
        request.
        """

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a small file where none stands; whether it was. Of two at once one succeeds.

        Not on what only pyarrow speaks to: there both may, and the later one stands.
        """

    def is_exact(self, name: str, content: bytes) -> bool:
        """Whether of two that create a file at once one succeeds; tried with one that stands, and these bytes of it."""
        return True

    @abstractmethod
    def version(self, name: str) -> str | None:
        """What tells the file under a name from any other that ever stands there; None if there is none."""

    @abstractmethod
    def read_version(self, name: str) -> tuple[bytes, str]:
        """All of a file, and its version; `FileNotFoundError` if there is none."""

    @abstractmethod
    def replace(self, name: str, content: bytes, version: str, durable: bool = True) -> bool:
        """Write a small file in place of this version alone; whether it was.

        Exact in a bucket, by a condition that the server holds. A folder is looked at just before the renaming.
        """

    @abstractmethod
    def remove(self, name: str, version: str) -> None:
        """Remove a file if it is of this version; as exact as `replace`, but for Google's and Azure's buckets.

        There, and wherever a server does not heed such a condition, it is looked at just before.
        """

    @abstractmethod
    def new_file(self, name: str) -> NewFile:
        """Begin a large file, which has its name once it is whole."""

    @abstractmethod
    def log(self, name: str) -> Log:
        """Begin a log of this attempt alone, in files whose names begin with `name`; a cut line does not count."""

    @abstractmethod
    def move(self, old: str, new: str, version: str | None = None) -> None:
        """Rename a file, if it is of this version; what stood under the new name is replaced."""

    @abstractmethod
    def link(self, old: str, new: str) -> None:
        """Have the content of a file stand under a second name too, where nothing stands yet; not always whole at once.

        A hard link where there are such, else a copy: renaming or replacing one of the two leaves the other as it is.
        `StoppedError` if something stands.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if there is none."""

    @abstractmethod
    def sync(self, folder: str = "") -> None:
        """Make durable what was moved into or deleted from a folder; nothing happens if there is none."""

    @abstractmethod
    def delete_empty(self, folder: str) -> None:
        """Remove a folder in which no file is left, and never a file."""

    def age_seconds(self, name: str) -> float:
        """How long ago a file was written, by this machine's clock; endless where that is not told."""
        return math.inf

    def unfinished(self) -> list[str]:
        """Uploads that were begun and neither completed nor aborted, in words that `abort` takes."""
        return []

    def abort(self, upload: str) -> None:
        """Remove what an upload has sent, which takes room and is seen by nobody."""
        raise NotImplementedError


@contextmanager
def stopping(path: str, what: str = "written", but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Whatever the file system refuses inside, but for some errors, becomes a `StoppedError` that names the path."""
    try:
        yield
    except but:
        raise
    except (OSError, pa.ArrowException) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(" .")
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0, "See to it")
        raise StoppedError(
            f"{path} could not be {what}: {reason}. What was saved before stays saved. {remedy}, then start the same "
            "command again: it goes on from there."
        ) from error
