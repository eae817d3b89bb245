"""Parquet footers, read in a child process that may die.

A hostile footer can abort the process that looks at it (no exception, SIGABRT), and footers lie: the child
(`footer_child.py`) dies instead, and the file is named. It looks at one footer after the other. Of local files it is
asked for one at a time, and stays for the next source until it was idle for `IDLE_SECONDS`. Of a bucket, where the way
to a file takes longer than the look at it, it is asked `AHEAD` files ahead, and reads `THREADS` at once.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa

from scanrnn_dist.errors import StoppedError

IDLE_SECONDS = 60
WORK_SECONDS = 240
"""Of one footer: a damaged one can make pyarrow go on for ever."""
THREADS = 64
"""Files of a bucket that are read at once. 200 footers of a server that waits 30 ms, twice each, took 15.4 s
one by one and 1.5 s by 64 threads, 0.5 s of them until the child was there. 400 at 500 ms: 16.8 s by 25 threads, 7.7 s
by 64, 4.4 s by 128. The look at a small one takes 0.4 ms, which more threads would soon wait for."""
AHEAD = 2 * THREADS
"""Files of a bucket that are asked for before the first is answered: so that others are read while one comes late. Of
each the child holds a footer of up to 1 MiB: 128 MiB at worst, 1 MiB where footers take 8 kB."""
CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "footer_child.py")


def read_footers(paths: Iterable[str], *, uri: str | None) -> Iterator[dict[str, Any]]:
    """What the footer of every path says, in the order of the paths.

    Args:
        paths: Parquet files, as their filesystem names them.
        uri: a URI of that filesystem, or None for local files.

    Yields:
        Per path the child's answer, with a `pa.Schema`, which lacks the unreadable columns; or `{"error": str}`, one
        line. Values are those of each row group in the columns of lists, the greatest number of a column's leaves; a
        null or an empty list counts one. After a file that ended the child, a new one goes on with the next file.

    Raises:
        StoppedError: a file could not be reached or read, for a reason that says nothing about its content.
    """
    if uri is None:
        yield from map(_told, map(_local_child().ask, paths))
        return
    child = _Child(uri)
    try:
        yield from map(_told, _asked_ahead(child, paths, AHEAD))
    finally:
        child.close()  # that of a bucket ends with its source, as access rights change


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    if "stopped" in answer:
        raise StoppedError(answer["stopped"])
    if "schema" in answer:
        answer["schema"] = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(answer["schema"])))
    return answer


class _Asked(Protocol):
    """What `_asked_ahead` needs of a child."""

    def send(self, path: str) -> None:
        """Ask for a path; begins a process if there is none. One that ended takes the request without an answer."""

    def receive(self) -> dict[str, Any] | None:
        """The answer to the first of the requests that has none; None, and no process, if it ended before that."""

    def ask(self, path: str) -> dict[str, Any]:
        """The answer to one path, where there is no other request; that the process ended is an answer too."""


def _asked_ahead(child: _Asked, paths: Iterable[str], ahead: int) -> Iterator[dict[str, Any]]:
    """The answers to paths, in their order, of which so many at most are asked ahead.

    A process that ended may have died of the first file that it had not answered, or for a reason of its own, as of
    having nothing to do. So the next process is asked for this file alone, and with the others only once it has
    answered; where it ends too, the file is why.
    """
    paths, waiting, sent = iter(paths), deque[str](), 0
    while True:
        waiting.extend(islice(paths, ahead - len(waiting)))
        if not waiting:
            return
        for path in islice(waiting, sent, None):
            child.send(path)
        answer = child.receive()
        sent = len(waiting) - 1
        if answer is None:
            answer, sent = child.ask(waiting[0]), 0
        waiting.popleft()
        yield answer


class _Child:
    """The process that looks at footers of one filesystem; begun when asked, and anew after it ended."""

    def __init__(self, uri: str | None) -> None:
        self._uri = uri
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, path: str) -> dict[str, Any]:
        """The child's answer, or what its end means."""
        with self._lock:
            was_there = self._process is not None
            try:
                answer, status = self._answer(path)
                if answer is None and was_there:  # it may have ended before, of idleness
                    answer, status = self._answer(path)
            except BaseException:  # the answer may still come, and be taken for that to another path
                self.close()
                raise
            if answer is None:
                return {"error": f"looking at its footer ended the process that did (exit status {status})"}
            return answer

    def send(self, path: str) -> None:
        """Ask for a path, without waiting for the answer."""
        self._process = self._process or _start(self._uri)
        with suppress(BrokenPipeError):
            _send(self._process, path)

    def receive(self) -> dict[str, Any] | None:
        """The answer to the first request that has none; None if the process ended."""
        return self._received()[0]

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

    def _answer(self, path: str) -> tuple[dict[str, Any] | None, int | None]:
        self.send(path)
        return self._received()

    def _received(self) -> tuple[dict[str, Any] | None, int | None]:
        """What the process says, or None and the status with which it ended."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        return (json.loads(line), None) if line.endswith("\n") else (None, self._status())


def _local_child() -> _Child:
    """The one for this machine's files, which stays; a fork of this process has its own."""
    return _child_of(os.getpid())


@lru_cache
def _child_of(pid: int) -> _Child:
    child = _Child(None)
    atexit.register(lambda: child.close() if os.getpid() == pid else None)
    return child


def _start(uri: str | None) -> subprocess.Popen[str]:
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
    _send(child, {"uri": uri, "threads": THREADS, "idle": IDLE_SECONDS, "work": WORK_SECONDS})
    return child


def _send(child: subprocess.Popen[str], message: Any) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(message) + "\n")
    child.stdin.flush()
