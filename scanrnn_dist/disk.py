"""The calls by which a folder is changed, one method each, so that something else may stand in their place.

`storage/local.py` decides which of them make a write to a destination, and in which order. `whole_file` writes a single
file of this machine, such as an encoder's or a report's; `is_within` tells where one lies. This is a room of its own,
since `encoder` writes a file and must not meet the Parquet that `storage` knows.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


class Disk:
    """The operating system's calls; paths are absolute or relative to the working folder."""

    def make_folder(self, path: str) -> None:
        """Make a folder in one that stands; nothing happens if it stands too."""
        os.makedirs(path, exist_ok=True)

    def open(self, path: str) -> IO[bytes]:
        """A new, empty file to write to."""
        return open(path, "wb")

    def open_log(self, path: str) -> IO[bytes]:
        """A file to append to, without a buffer."""
        return open(path, "ab", buffering=0)

    def write(self, file: IO[bytes], content: bytes | memoryview) -> int:
        """Write to a new file; the number of bytes."""
        return file.write(content)

    def append(self, file: IO[bytes], content: bytes) -> int:
        """Append to a log; the number of bytes that it took."""
        return file.write(content)

    def begin_sync(self, file: IO[bytes], begin: int, end: int) -> None:
        """Have these bytes of a file travel to the disk, and wait for nothing; only where Linux does it.

        The advice that they are not needed any more does it. Without, `sync` takes 9 ms for 10 MB, with it 4.
        """
        if sys.platform == "linux":
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)

    def sync(self, file: IO[bytes]) -> None:
        """Make what was written to a file durable."""
        file.flush()
        os.fsync(file.fileno())

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable, where the file system can: vboxsf, 9p and old CIFS cannot."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Rename a file; what stood under the new name is replaced."""
        os.replace(old, new)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name; `FileExistsError` where that is taken."""
        os.link(old, new)

    def copy(self, old: str, new: str) -> None:
        """Copy a file, durably."""
        shutil.copyfile(old, new)
        with open(new, "rb") as file:
            os.fsync(file.fileno())

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        Path(path).unlink(missing_ok=True)

    def delete_folder(self, path: str) -> None:
        """Remove a folder that is empty; nothing happens to another one, or if there is none."""
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise


DISK = Disk()


@contextmanager
def whole_file(
    path: str | os.PathLike[str], check: Callable[[], None] = lambda: None
) -> Iterator[Callable[[bytes | memoryview], int]]:
    """Write a file beside its name, sync it, and name it at the end, so that it stands there whole or not at all.

    Args:
        path: the file; one that stands there is replaced.
        check: called before the file gets its name; where it raises, or anything else does, nothing is left.

    Returns:
        A context that gives the function that writes.

    Raises:
        OSError: the disk refuses; whoever calls says what to do about it.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.txt"
        >>> with whole_file(path) as write:
        ...     _ = write(b"all of it")
        >>> Path(path).read_text()
        'all of it'
    """
    folder, name = os.path.split(os.path.abspath(path))
    aside = os.path.join(folder, f".{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with DISK.open(aside) as file:
            yield lambda content: DISK.write(file, content)
            DISK.sync(file)
        check()
        DISK.rename(aside, os.path.join(folder, name))
        DISK.sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            DISK.delete(aside)
        raise


def place_of(path: str) -> Hashable:
    """What stands at a path, whatever its name: some file systems ignore case. Its name where nothing is there."""
    try:
        status = os.stat(path or "/")
    except OSError:
        return path
    return status.st_dev, status.st_ino


def is_within(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path of this machine is a folder, or lies in it; links are followed, and either may not be there."""
    return place_of(os.path.realpath(folder)) in places_above(os.path.realpath(path))


def places_above(path: str, place: Callable[[str], Hashable] = place_of) -> dict[Hashable, str]:
    """An absolute path and the folders that it lies in, by the place of each; and how the path goes on from there."""
    ends = [*(number for number, letter in enumerate(path) if letter == "/"), len(path)]
    return {place(path[:end]): path[end:] for end in ends}
