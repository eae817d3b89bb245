"""Parquet footers, looked at in a child process that may die.

A hostile footer can abort the process that looks at it (no exception, SIGABRT), and footers lie: the child
(`footer_child.py`) dies instead, and the file is named. This process reads the last bytes of files, of a bucket many at
once; the child is given them, one file after the other. It stays for the next source until it was idle for
`IDLE_SECONDS`.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.source.footer_child import refusal
from scanrnn_dist.source.parquet import read_end, read_tail, usual_bytes
from scanrnn_dist.storage import FetchedFile, SteadyFile, at_once, open_input_file

IDLE_SECONDS = 60
WORK_SECONDS = 240
"""Of one footer: a damaged one can make pyarrow go on for ever."""
CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "footer_child.py")


def read_footers(filesystem: fs.FileSystem, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What the footer of every path says, in the order of the paths.

    Files of a bucket are opened, and up to 1 MiB of their ends are read, by as many threads as `at_once` has.

    Yields:
        Per path the child's answer, with a `pa.Schema`, which lacks the unreadable columns; or `{"error": str}`, one
        line. Values are those of each row group in the columns of lists, the greatest number of a column's leaves; a
        null or an empty list counts one. After a file that ended the child, a new one goes on with the next file.

    Raises:
        StoppedError: a file could not be reached or read, for a reason that says nothing about its content.
    """
    opened = partial(_opened, filesystem)
    found = map(opened, paths) if filesystem.type_name == "local" else at_once(opened, paths)
    for each in found:
        answer = each if isinstance(each, dict) else _answer(each)
        if "stopped" in answer:
            raise StoppedError(answer["stopped"])
        if "schema" in answer:
            answer["schema"] = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(answer["schema"])))
        yield answer


class _Opened(NamedTuple):
    """A file and its last bytes, up to 1 MiB of them."""

    path: str
    file: SteadyFile | FetchedFile
    end: bytes


def _opened(filesystem: fs.FileSystem, path: str) -> _Opened | dict[str, Any]:
    """A file that was opened; or why it was not, as the child would say it."""
    try:
        file = open_input_file(filesystem, path)
        try:
            return _Opened(path, file, read_end(file))
        except BaseException:
            file.close()
            raise
    except Exception as error:
        return refusal(path, error)


def _answer(opened: _Opened) -> dict[str, Any]:
    try:
        with closing(opened.file):
            size, tail = opened.file.size(), read_tail(opened.file, usual_bytes, opened.end)
    except Exception as error:
        return refusal(opened.path, error)
    return _child().ask(opened.path, size, tail)


class _Child:
    """The process that looks at footers; begun when asked, and anew after it ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, path: str, size: int, tail: bytes) -> dict[str, Any]:
        """The child's answer to a file of this size with these last bytes, or what its end means."""
        message = {"path": path, "size": size, "tail": base64.b64encode(tail).decode()}
        with self._lock:
            was_there = self._process is not None
            try:
                answer, status = self._asked(message)
                if answer is None and was_there:  # it may have ended before, of idleness
                    answer, status = self._asked(message)
            except BaseException:  # the answer may still come, and be taken for that to another path
                self.close()
                raise
            if answer is None:
                return {"error": f"looking at its footer ended the process that did (exit status {status})"}
            return answer

    def close(self) -> None:
        """End the process, if there is one; by its pipe alone it would go on while a fork of this process has that."""
        if self._process is not None:
            self._process.kill()
            self._status()

    def _status(self) -> int | None:
        """The exit status of the process, which has ended."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.communicate()
        return process.returncode

    def _asked(self, message: dict[str, Any]) -> tuple[dict[str, Any] | None, int | None]:
        """What the process says, or None and the status with which it ended."""
        self._process = self._process or _start()
        with suppress(BrokenPipeError):
            _send(self._process, message)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return (json.loads(line), None) if line.endswith("\n") else (None, self._status())


def _child() -> _Child:
    """The one of this process, which stays; a fork of this process has its own."""
    return _child_of(os.getpid())


@lru_cache
def _child_of(pid: int) -> _Child:
    child = _Child()
    atexit.register(lambda: child.close() if os.getpid() == pid else None)
    return child


def _start() -> subprocess.Popen[str]:
    # -P and the parent's own path: the child finds the same pyarrow, and this folder's modules shadow nothing.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path if isinstance(entry, str))
    child = subprocess.Popen(
        [sys.executable, "-P", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what a dying child says there ("terminate called ...") helps nobody
        env={**os.environ, "PYTHONPATH": path},
        encoding="utf-8",
    )
    _send(child, {"idle": IDLE_SECONDS, "work": WORK_SECONDS})
    return child


def _send(child: subprocess.Popen[str], message: Any) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(message) + "\n")
    child.stdin.flush()
