"""A destination that is a prefix of a bucket: an object appears with the request that completes it, whole."""

from __future__ import annotations

import errno
import io
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO

import pyarrow as pa

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.storage.asking import at_once
from scanrnn_dist.storage.filesystems import split_query
from scanrnn_dist.storage.objects import Objects
from scanrnn_dist.storage.protocol import Check, Log, NewFile, Store, staged, stopping, unstaged

SEGMENT_LINES = 1000
"""An object cannot grow: a log there is a row of objects of at most so many lines, and a line costs one upload of the
last of them. A million lines are a thousand objects to list."""
AT_ONCE_BYTES = 8 << 20
"""What is no larger goes up in one request, which may have a condition; obstore has none for an upload in pieces."""
FEW = 4
"""So many are read one after the other, without threads."""
TRIES = 5
UNFINISHED = " (unfinished upload "
"""Comes between the name and the number of an upload that nobody completed, in what `unfinished` tells."""


@dataclass(frozen=True)
class ObjectStore(Store):
    """A prefix of a bucket. Covered: a process that dies at any moment; at worst it leaves an upload that nobody sees.

    What is created, replaced or removed under a condition is as exact as the server of `objects` is.
    """

    objects: Objects = field(repr=False)
    prefix: str
    is_staged: bool = False
    uri: str = field(default="", repr=False)  # with all that reaching it takes, as an endpoint: for commands alone

    def __fspath__(self) -> str:
        return self.uri or self.root

    def child(self, name: str) -> ObjectStore:
        where, query = split_query(os.fspath(self))
        uri = f"{where}/{name}{query}"
        return replace(self, root=self.path(name), prefix=self._key(name), is_staged=True, uri=uri)

    def path(self, name: str) -> str:
        return f"{self.root}/{self._stands_as(name)}" if name else self.root

    def prepare(self) -> None:
        pass  # a prefix needs no making

    def entries(self, folder: str = "") -> Iterator[tuple[str, int]]:
        with stopping(self.path(folder), "looked at"):
            for key, size in self.objects.files(self._key(folder), is_deep=False):
                slash = "/" * key.endswith("/")
                yield self._is_called(key.rstrip("/").rpartition("/")[2]) + slash, size

    def below(self, folder: str = "") -> dict[str, int]:
        begin = len(self.prefix) + bool(self.prefix)  # and the slash
        with stopping(self.path(folder), "looked at"):
            found = self.objects.files(self._key(folder), is_deep=True)
            return {self._is_called(key[begin:]): size for key, size in found}

    def exists(self, name: str) -> bool:
        with stopping(self.path(name), "looked at"):
            return self.objects.exists(self._key(name))

    def version(self, name: str) -> str | None:
        with stopping(self.path(name), "looked at"):
            return self.objects.version(self._key(name))

    def read(self, name: str) -> bytes:
        with stopping(self.path(name), "read", but=(FileNotFoundError,)):
            return self.objects.read(self._key(name))

    def read_each(self, names: Sequence[str]) -> Iterator[bytes | None]:
        return at_once(self._read_if_there, names) if len(names) > FEW else super().read_each(names)

    def read_version(self, name: str) -> tuple[bytes, str]:
        with stopping(self.path(name), "read", but=(FileNotFoundError,)):
            return self.objects.get(self._key(name))

    def open_input(self, name: str) -> pa.NativeFile:
        with stopping(self.path(name), "read", but=(FileNotFoundError,)):
            return self.objects.open(self._key(name))

    def write(self, name: str, content: bytes, check: Check | None = None) -> None:
        with stopping(self.path(name)):
            if check is not None:
                check()
            # In one request it might take longer than a request may; in place it might be seen, or left, half written.
            if len(content) > AT_ONCE_BYTES or self.objects.renames:
                self.upload(name, io.BytesIO(content), len(content), check)
            elif check is None:
                self.objects.put(self._key(name), content)
            else:
                self._put_checked(name, content, check)

    def create(self, name: str, content: bytes) -> bool:
        with stopping(self.path(name)):
            if self.objects.renames:
                return self._put_aside(name, content, None)
            return self.objects.create(self._key(name), content)

    def is_exact(self, name: str, content: bytes) -> bool:
        with stopping(self.path(name)):
            return self.objects.heeds_conditions(self._key(name), content)

    def replace(self, name: str, content: bytes, version: str, durable: bool = True) -> bool:
        with stopping(self.path(name)):
            if self.objects.renames and durable:  # what need not be durable, a beat, must never be missing meanwhile
                return self._put_aside(name, content, version)
            return self.objects.replace(self._key(name), content, version)

    def new_file(self, name: str) -> NewFile:
        return _UploadedFile(self, name)

    def log(self, name: str) -> Log:
        return _UploadedLog(self, name)

    def move(self, old: str, new: str, version: str | None = None) -> None:
        with stopping(self.path(new)):
            if self.objects.renames:
                if version is None or self.objects.version(self._key(old)) == version:
                    self.objects.rename(self._key(old), self._key(new))
            elif version is None:
                self.objects.copy(self._key(old), self._key(new))
                self.objects.delete([self._key(old)])
            elif self.objects.copy(self._key(old), self._key(new), version):
                self.objects.remove(self._key(old), version)

    def link(self, old: str, new: str) -> None:
        with stopping(self.path(new)):
            if not self.objects.copy_anew(self._key(old), self._key(new)):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def delete(self, name: str) -> None:
        with stopping(self.path(name)):
            self.objects.delete([self._key(name)])

    def remove(self, name: str, version: str) -> None:
        with stopping(self.path(name)):
            self.objects.remove(self._key(name), version)

    def sync(self, folder: str = "") -> None:
        pass  # every request that was answered is durable

    def delete_empty(self, folder: str) -> None:
        with stopping(self.path(folder)):
            self.objects.delete_empty(self._key(folder))

    def unfinished(self) -> list[str]:
        begin = len(self.prefix) + bool(self.prefix)  # and the slash
        with stopping(self.root, "looked at"):
            found = self.objects.unfinished(self.prefix)
        return [f"{key[begin:]}{UNFINISHED}{upload})" for key, upload in found]

    def abort(self, upload: str) -> None:
        name, _, number = upload.rpartition(UNFINISHED)
        with stopping(self.path(name), "removed"):
            self.objects.abort(f"{self.prefix}/{name}".lstrip("/"), number[:-1])

    def upload(self, name: str, file: IO[bytes], size: int, check: Check | None = None) -> None:
        """Make an object of a file; no signal raises midway, since who calls waits outside of Python.

        A small one is put where nothing stands, or in place of what stood there when it was checked.
        """
        if self.objects.renames:
            with self._aside(name, file, size) as aside:
                if check is not None:
                    check()
                self.objects.rename(aside, self._key(name))
        elif size > AT_ONCE_BYTES:
            self.objects.upload(self._key(name), file, size)
        else:
            file.seek(0)
            self._put_checked(name, file.read(), check)

    @contextmanager
    def _aside(self, name: str, file: IO[bytes], size: int) -> Iterator[str]:
        """Upload a file that is then renamed; the key under which it stands until then."""
        aside = self._key(self.aside_name(name))
        try:
            self.objects.upload(aside, file, size)
            yield aside
        except BaseException:
            with suppress(OSError):
                self.objects.delete([aside])
            raise

    def _put_aside(self, name: str, content: bytes, version: str | None) -> bool:
        """Have a small file renamed in place of this version, or of none, alone; whether it was."""
        with self._aside(name, io.BytesIO(content), len(content)) as aside:
            is_it = self.objects.version(self._key(name)) == version
            if is_it:
                self.objects.rename(aside, self._key(name))
            else:
                self.objects.delete([aside])
        return is_it

    def _put_checked(self, name: str, content: bytes, check: Check | None) -> None:
        key = self._key(name)
        if self.objects.create(key, content):
            return
        for _ in range(TRIES):
            version = self.objects.version(key)
            if check is not None:
                check()
            is_put = self.objects.replace(key, content, version) if version else self.objects.create(key, content)
            if is_put:
                return
        raise StoppedError(f"{self.path(name)} is written by other processes too. Start the same command again.")

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self.prefix, self._stands_as(name))))

    def _stands_as(self, name: str) -> str:
        return staged(name) if self.is_staged else name

    def _is_called(self, name: str) -> str:
        return unstaged(name) if self.is_staged else name


class _UploadedFile(NewFile):
    """Written to a temporary file of this machine, then uploaded.

    Not streamed while it is made: an error midway would make half an object appear to some, see `arrow_objects.py`.
    """

    def __init__(self, bucket: ObjectStore, name: str) -> None:
        self._bucket, self._name = bucket, name
        with _on_this_machine(bucket.path(name)):
            super().__init__(tempfile.TemporaryFile(prefix="scanrnn-part-"))  # noqa: SIM115 - closed by whoever ends it

    def write(self, content: bytes | memoryview) -> int:
        with _on_this_machine(self._bucket.path(self._name)):
            return self._file.write(content)

    def commit(self, check: Check | None = None) -> None:
        with _on_this_machine(self._bucket.path(self._name)):
            size = self._file.seek(0, os.SEEK_END)  # writes what Python still holds
        if check is not None:
            check()
        self._bucket.upload(self._name, self._file, size, check)
        self._file.close()

    def abandon(self) -> None:
        with suppress(OSError):  # of what Python still holds, which is not wanted
            self._file.close()


@contextmanager
def _on_this_machine(path: str) -> Iterator[None]:
    """A refusal of the temporary folder is told as its own, not as one of the bucket."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")
        reason = (error.strerror or str(error)).rstrip(" .")
        raise StoppedError(
            f"{path} could not be kept in the temporary folder {folder} of this machine until its upload: {reason}. "
            "What was saved before stays saved. Free some space there, or name another folder with TMPDIR, then start "
            "the same command again: it goes on from there."
        ) from error


class _UploadedLog(Log):
    def __init__(self, bucket: ObjectStore, name: str) -> None:
        self._bucket, self._name, self._lock = bucket, name, threading.Lock()
        self._segment, self._lines, self._is_closed = 0, list[str](), False

    def append(self, line: str, durable: bool = True) -> None:
        with self._lock:
            if self._is_closed:
                raise ValueError(f"the log {self._name} is closed")
            if len(self._lines) == SEGMENT_LINES:
                self._segment, self._lines = self._segment + 1, []
            self._lines.append(line)
            content = "".join(f"{it}\n" for it in self._lines).encode()
            self._bucket.write(f"{self._name}.{self._segment:06}.jsonl", content)

    def close(self) -> None:
        with self._lock:
            self._lines, self._is_closed = [], True
