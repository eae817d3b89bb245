"""A destination that is a prefix of a bucket: an object appears with the request that completes it, whole."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.storage.filesystems import open_input_file
from scanrnn_dist.storage.protocol import Check, Log, NewFile, Store, staged, stopping, unstaged

UPLOAD_BYTES = 8 << 20
COPY_BYTES = 5 << 30
"""S3 copies no more in one request (docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html). pyarrow does not
offer its copy by ranges, so what is larger passes through this machine."""
SEGMENT_LINES = 1000
"""An object cannot grow: a log there is a row of objects of at most so many lines, and a line costs one upload of the
last of them. A million lines are a thousand objects to list."""


@dataclass(frozen=True)
class ObjectStore(Store):
    """A prefix of a bucket. Covered: a process that dies at any moment; at worst it leaves an upload that nobody sees.

    Such an upload is removed by the bucket's life-cycle rule alone. Not covered: two jobs that differ, started on one
    new prefix within a second, of which the later one stands; `job_file.py` has each look again whose job it is.
    """

    filesystem: fs.FileSystem = field(repr=False)
    prefix: str
    is_staged: bool = False
    uri: str = field(default="", repr=False)  # with all that reaching it takes, maybe an endpoint or a key: never shown

    def __fspath__(self) -> str:
        return self.uri or self.root

    def child(self, name: str) -> ObjectStore:
        return replace(self, root=self.path(name), prefix=self._key(name), is_staged=True, uri="")

    def path(self, name: str) -> str:
        return f"{self.root}/{self._stands_as(name)}" if name else self.root

    def prepare(self) -> None:
        pass  # a prefix needs no making

    def entries(self, folder: str = "") -> Iterator[tuple[str, int]]:
        for info in self._list(folder, recursive=False):
            yield self._is_called(info.base_name) + "/" * (not info.is_file), info.size or 0

    def below(self, folder: str = "") -> dict[str, int]:
        found = self._list(folder, recursive=True)
        return {self._is_called(info.path[len(self.prefix) + 1 :]): info.size for info in found if info.is_file}

    def exists(self, name: str) -> bool:
        with stopping(self.path(name), "looked at"):
            return bool(self.filesystem.get_file_info(self._key(name)).is_file)

    def read(self, name: str) -> bytes:
        with self.open_input(name) as file:
            content: bytes = file.read()
            return content

    def open_input(self, name: str) -> pa.NativeFile:
        return open_input_file(self.filesystem, self._key(name))

    def write(self, name: str, content: bytes, durable: bool = True, check: Check | None = None) -> None:
        if check is not None:
            check()
        with stopping(self.path(name)):
            self.upload(name, iter([content]))

    def create(self, name: str, content: bytes) -> bool:
        if self.exists(name):
            return False
        self.write(name, content)
        return True

    def new_file(self, name: str) -> NewFile:
        return _UploadedFile(self, name)

    def log(self, name: str) -> Log:
        return _UploadedLog(self, name)

    def move(self, old: str, new: str) -> None:
        self._copy(old, new)
        self.delete(old)

    def link(self, old: str, new: str) -> None:
        self._copy(old, new)

    def delete(self, name: str) -> None:
        if self.exists(name):
            with stopping(self.path(name)), suppress(FileNotFoundError):  # another process removed it just now
                self.filesystem.delete_file(self._key(name))

    def sync(self, folder: str = "") -> None:
        pass  # every request that was answered is durable

    def delete_below(self, folder: str) -> None:
        if self.below(folder):
            with stopping(self.path(folder)), suppress(FileNotFoundError):
                self.filesystem.delete_dir(self._key(folder))

    def upload(self, name: str, pieces: Iterator[bytes]) -> None:
        """Make an object of these pieces.

        In a thread of its own, where no signal raises: pyarrow completes an upload whose stream is left or dropped, so
        that an exception between two pieces makes half an object appear. Where a piece cannot be had, because the
        temporary file cannot be read, that object is removed at once.
        """

        def send() -> None:
            stream = self.filesystem.open_output_stream(self._key(name))
            while True:
                try:
                    piece = next(pieces, None)
                except BaseException:
                    stream.close()
                    self.filesystem.delete_file(self._key(name))
                    raise
                if piece is None:
                    break
                stream.write(piece)
            stream.close()

        with ThreadPoolExecutor(1, thread_name_prefix=f"{threading.current_thread().name}-upload") as thread:
            thread.submit(send).result()

    def _copy(self, old: str, new: str) -> None:
        with stopping(self.path(new)):
            size = self.filesystem.get_file_info(self._key(old)).size or 0
            if self.filesystem.type_name != "s3" or size <= COPY_BYTES:
                self.filesystem.copy_file(self._key(old), self._key(new))
            else:
                with self.open_input(old) as file:
                    self.upload(new, iter(lambda: file.read(UPLOAD_BYTES) or None, None))

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{self._stands_as(name)}".rstrip("/")

    def _stands_as(self, name: str) -> str:
        return staged(name) if self.is_staged else name

    def _is_called(self, name: str) -> str:
        return unstaged(name) if self.is_staged else name

    def _list(self, folder: str, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._key(folder), allow_not_found=True, recursive=recursive)
        with stopping(self.path(folder), "looked at"):
            found: list[fs.FileInfo] = self.filesystem.get_file_info(selector)
        return found


class _UploadedFile(NewFile):
    """Written to a temporary file of this machine, then uploaded at once.

    Not streamed while it is made: an error midway would make half an object appear, see `ObjectStore.upload`.
    """

    def __init__(self, bucket: ObjectStore, name: str) -> None:
        self._bucket, self._name = bucket, name
        with _on_this_machine(bucket.path(name)):
            super().__init__(tempfile.TemporaryFile(prefix="scanrnn-part-"))  # noqa: SIM115 - closed by whoever ends it

    def close(self) -> None:
        pass  # it is read once more

    def write(self, content: bytes) -> int:
        with _on_this_machine(self._bucket.path(self._name)):
            return self._file.write(content)

    def commit(self) -> None:
        with _on_this_machine(self._bucket.path(self._name)):
            self._file.seek(0)  # writes what Python still holds
        self._bucket.upload(self._name, self._pieces())
        self._file.close()

    def _pieces(self) -> Iterator[bytes]:
        with _on_this_machine(self._bucket.path(self._name)):
            while content := self._file.read(UPLOAD_BYTES):
                yield content

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
            "What was committed before is whole. Free some space there, or name another folder with TMPDIR, then start "
            "the same command again: it goes on from there."
        ) from error


class _UploadedLog(Log):
    def __init__(self, bucket: ObjectStore, name: str) -> None:
        self._bucket, self._name, self._lock = bucket, name, threading.Lock()
        self._segment, self._lines = 0, list[str]()

    def append(self, line: str, durable: bool = True) -> None:
        with self._lock:
            if len(self._lines) == SEGMENT_LINES:
                self._segment, self._lines = self._segment + 1, []
            self._lines.append(line)
            content = "".join(f"{it}\n" for it in self._lines).encode()
            self._bucket.write(f"{self._name}.{self._segment:06}.jsonl", content)

    def close(self) -> None:
        self._lines = []
