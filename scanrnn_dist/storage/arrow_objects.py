"""Objects of a store that only pyarrow speaks to, such as HDFS, or fsspec's; of any, where obstore is not installed.

No write can be conditional. What is to happen under a condition looks first and acts then: of two at once both may
succeed, and the later one stands. obstore's stores (`remote_objects.py`) know no such window.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.storage.filesystems import SteadyFile, resolve
from scanrnn_dist.storage.objects import Objects
from scanrnn_dist.threads import Threads

RENAMING = ("hdfs", "local")
"""Filesystems in which a file is renamed, by one call, and is seen under its name from its first byte on."""
UPLOAD_BYTES = 8 << 20
COPY_BYTES = 5 << 30
"""What is larger S3 copies in no single request, and pyarrow makes but one: then it passes through this machine."""


@dataclass(frozen=True)
class ArrowObjects(Objects):
    """The files of a filesystem, by their paths in it; it pickles as the URI that it was resolved from."""

    filesystem: fs.FileSystem
    uri: str = ""

    def __reduce__(self) -> Any:
        return (_resolved, (self.uri,)) if self.uri else (ArrowObjects, (self.filesystem,))

    def get(self, key: str) -> tuple[bytes, str]:
        return self.read(key), self.version(key) or ""

    def read(self, key: str) -> bytes:
        with self.open(key) as file:
            content: bytes = file.read()
            return content

    def exists(self, key: str) -> bool:
        return bool(self.filesystem.get_file_info(key).is_file)

    def open(self, key: str) -> pa.NativeFile:
        return pa.PythonFile(SteadyFile(self.filesystem, key), mode="r")

    def version(self, key: str) -> str | None:
        info = self.filesystem.get_file_info(key)
        if not info.is_file:
            return None
        if self.filesystem.type_name == "s3":  # its times are whole seconds
            with suppress(OSError), self.filesystem.open_input_stream(key) as stream:
                return str(stream.metadata().get("ETag", b""), "utf-8")
        return f"{info.size} {info.mtime_ns}"

    def files(self, folder: str, is_deep: bool) -> Iterator[tuple[str, int]]:
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=is_deep)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file or not is_deep:
                yield info.path + "/" * (not info.is_file), info.size or 0

    def put(self, key: str, content: bytes) -> None:
        self._send(key, iter([content]))

    def create(self, key: str, content: bytes) -> bool:
        if self.exists(key):
            return False
        self.put(key, content)
        return True

    def replace(self, key: str, content: bytes, version: str) -> bool:
        if self.version(key) != version:
            return False
        self.put(key, content)
        return True

    def upload(self, key: str, file: IO[bytes], size: int) -> None:
        file.seek(0)
        self._send(key, iter(lambda: file.read(UPLOAD_BYTES), b""))

    def copy(self, old: str, new: str, version: str | None = None) -> bool:
        is_it = version is None or self.version(old) == version
        if is_it and self.filesystem.type_name == "s3" and self.filesystem.get_file_info(old).size > COPY_BYTES:
            with self.open(old) as file:
                self._send(new, iter(lambda: file.read(UPLOAD_BYTES), b""))
        elif is_it:
            self.filesystem.copy_file(old, new)
        return is_it

    @property
    def renames(self) -> bool:  # type: ignore[override]
        return self.filesystem.type_name in RENAMING

    def rename(self, old: str, new: str) -> None:
        self.filesystem.create_dir(os.path.dirname(new), recursive=True)
        self.filesystem.move(old, new)

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            if self.exists(key):
                with suppress(FileNotFoundError):  # another process removed it just now
                    self.filesystem.delete_file(key)

    def delete_empty(self, folder: str) -> None:
        if not any(self.files(folder, is_deep=True)):
            with suppress(FileNotFoundError):
                self.filesystem.delete_dir(folder)

    def _send(self, key: str, pieces: Iterator[bytes]) -> None:
        """Make an object of pieces, in a thread of its own, where no signal raises.

        pyarrow completes an upload whose stream is left or dropped, so that an exception between two pieces makes half
        an object appear. Where a piece cannot be had, that object is removed at once.
        """

        def send() -> None:
            stream = self.filesystem.open_output_stream(key)
            while True:
                try:
                    piece = next(pieces, None)
                except BaseException:
                    stream.close()
                    self.filesystem.delete_file(key)
                    raise
                if piece is None:
                    break
                stream.write(piece)
            stream.close()

        with Threads(1, thread_name_prefix="scanrnn-upload") as thread:
            thread.submit(send).result()


def _resolved(uri: str) -> ArrowObjects:
    return ArrowObjects(resolve(uri)[0], uri)
