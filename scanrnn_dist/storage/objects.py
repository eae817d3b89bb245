"""The calls by which a bucket is read and changed, one method each, so that something else may stand in their place.

`bucket.py` decides which of them make a write, and in which order. Two speak to servers: `remote_objects.py`, by
obstore, to S3, Google Cloud Storage and Azure; `arrow_objects.py` to what only pyarrow knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import IO

import pyarrow as pa


class Objects(ABC):
    """Objects by their keys. What a server refuses is an `OSError`; what is not there a `FileNotFoundError`.

    A version is text that tells an object from any other that ever stands under the same key.
    """

    renames: bool = False
    """Whether `rename` is there, and what is uploaded is seen as it grows."""

    @abstractmethod
    def get(self, key: str) -> tuple[bytes, str]:
        """All of an object, and its version."""

    @abstractmethod
    def open(self, key: str) -> pa.NativeFile:
        """An object to read from at any place."""

    @abstractmethod
    def version(self, key: str) -> str | None:
        """The version of an object; None if there is none."""

    def exists(self, key: str) -> bool:
        """Whether there is an object."""
        return self.version(key) is not None

    def read(self, key: str) -> bytes:
        """All of an object."""
        return self.get(key)[0]

    @abstractmethod
    def files(self, folder: str, is_deep: bool) -> Iterator[tuple[str, int]]:
        """Keys below a folder with their bytes; unless it `is_deep`, those directly in it, folders with a slash."""

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Make an object, in place of one that stands there."""

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Make an object where none stands; whether it was, or these very bytes stand there."""

    @abstractmethod
    def replace(self, key: str, content: bytes, version: str) -> bool:
        """Make an object in place of this version alone; whether it was."""

    @abstractmethod
    def upload(self, key: str, file: IO[bytes], size: int) -> None:
        """Make an object of a file, in pieces where it is large; it appears whole, or not at all."""

    @abstractmethod
    def copy(self, old: str, new: str, version: str | None = None) -> bool:
        """Copy an object, if it is of this version; whether it was."""

    def copy_anew(self, old: str, new: str) -> bool:
        """Copy an object to where none stood when it was looked just before; whether it was.

        A copy under a condition is none that may be asked for again when its answer was lost, and not every server
        knows one.
        """
        return self.version(new) is None and self.copy(old, new)

    def rename(self, old: str, new: str) -> None:
        """Give an object another name at once, in place of what stands there."""
        raise NotImplementedError

    @abstractmethod
    def delete(self, keys: list[str]) -> None:
        """Remove objects; nothing happens to those that are not there."""

    def remove(self, key: str, version: str) -> None:
        """Remove an object if it is of this version."""
        if self.version(key) == version:
            self.delete([key])

    def delete_empty(self, folder: str) -> None:  # noqa: B027 - it is to do nothing
        """Remove what stands for a folder without objects, where something does."""

    def heeds_conditions(self, key: str, content: bytes) -> bool:
        """Whether `create` is refused where these very bytes stand; some servers pass over conditions and write."""
        return False

    def unfinished(self, folder: str) -> list[tuple[str, str]]:
        """Keys below a folder of uploads that were begun and not completed, and what `abort` takes for each."""
        return []

    def abort(self, key: str, upload: str) -> None:
        """Remove what an upload has sent so far."""
        raise NotImplementedError
