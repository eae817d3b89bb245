"""Parquet footers, read in a child process that may die.

A hostile footer can abort the process that looks at it (no exception, SIGABRT), and footers lie: the child dies
instead. What they say is held against the file and itself (`parquet/`) before pyarrow sees it. One child reads
all footers of a source, one after the other, so that a dead child names its file. It runs this file as a script,
imports nothing heavier than pyarrow (0.2 s), and stays for the next source until it was idle for `IDLE_SECONDS`.

Parent and child speak JSON lines: first `{"uri": ...}` (null for local files), then a path per line; for each the child
answers `{"schema": base64 of an Arrow IPC schema, "row_groups": [[rows, bytes], ...], "values": {column: [values of
each row group]}, "unreadable": {column: reason}}`, the values for columns of lists alone, or `{"error": ...}`, or
`{"stopped": ...}` if the file could not be reached, which says nothing about it.
Not covered: the data pages, which `decode.py` checks while it reads. A footer that takes `WORK_SECONDS` ends the child.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import StoppedError, one_line
from scanrnn_dist.source.parquet import CheckedFile, Footer
from scanrnn_dist.storage import resolve

IDLE_SECONDS = 60
WORK_SECONDS = 240
"""Of one footer: a damaged one can make pyarrow go on for ever. A bucket's retries take less."""


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
    child = _local_child() if uri is None else _Child(uri)
    try:
        for path in paths:
            answer = child.ask(path)
            if "stopped" in answer:
                raise StoppedError(answer["stopped"])
            if "schema" in answer:
                answer["schema"] = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(answer["schema"])))
            yield answer
    finally:
        if uri is not None:
            child.close()


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
            answer, status = self._answer(path)
            if answer is None and was_there:  # it may have ended before, of idleness
                answer, status = self._answer(path)
            if answer is None:
                return {"error": f"looking at its footer ended the process that did (exit status {status})"}
            return answer

    def close(self) -> int | None:
        """End the process, if there is one, by closing its pipe; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.communicate()
        return process.returncode

    def _answer(self, path: str) -> tuple[dict[str, Any] | None, int | None]:
        """What the process says, or None and the status with which it ended."""
        self._process = self._process or _start(self._uri)
        assert self._process.stdout is not None
        try:
            _send(self._process, path)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return (json.loads(line), None) if line.endswith("\n") else (None, self.close())


@lru_cache
def _local_child() -> _Child:
    """The one for this machine's files, which stays; that of a bucket ends with its source, as access rights change."""
    child = _Child(None)
    atexit.register(child.close)
    return child


def _start(uri: str | None) -> subprocess.Popen[str]:
    # -P and the parent's own path: the child finds the same pyarrow, and this folder's modules shadow nothing.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    child = subprocess.Popen(
        [sys.executable, "-P", os.path.abspath(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what a dying child says there ("terminate called ...") helps nobody
        env={**os.environ, "PYTHONPATH": path},
        encoding="utf-8",
    )
    _send(child, {"uri": uri})
    return child


def _send(child: subprocess.Popen[str], message: Any) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(message) + "\n")
    child.stdin.flush()


def _values(footer: Footer) -> dict[str, list[int]]:
    """Values of every row group in each column that is repeated: the greatest number among its leaves."""
    names, own = footer.names, defaultdict(list)
    for number, leaf in enumerate(footer.leaves):
        if leaf.max_repetition > 0:
            own[names[leaf.column]].append(number)
    return {
        name: [max(group.chunks[leaf].values for leaf in leaves) for group in footer.row_groups]
        for name, leaves in own.items()
    }


def _serve() -> None:
    """The child: answer until the parent closes the pipe."""
    uri = json.loads(sys.stdin.readline())["uri"]
    filesystem = fs.LocalFileSystem() if uri is None else resolve(uri)[0]
    while line := _next_line():
        sys.stdout.write(json.dumps(_answer(filesystem, json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(filesystem: Any, path: str) -> dict[str, Any]:
    """What the child says of a file, whatever it is; the parent makes it an error that names the file."""
    try:
        file = CheckedFile(filesystem, path, columns=())  # a footer that contradicts itself is a `ValueError`
        file.close()
        schema = base64.b64encode(file.schema_arrow.serialize().to_pybytes()).decode()
        groups = [(group.rows, group.nbytes) for group in file.footer.row_groups]
        return {"schema": schema, "row_groups": groups, "values": _values(file.footer), "unreadable": file.unreadable}
    except StoppedError as error:
        return {"stopped": str(error)}
    except Exception as error:
        text = one_line(str(error))  # some of pyarrow's take three lines
        return {"error": text if type(error) is ValueError else f"{type(error).__name__}: {text}"}


def _next_line() -> str:
    """The next request, or nothing once the pipe is closed; waiting for too long, or working, ends the process."""
    can_expire = hasattr(signal, "alarm")
    if can_expire:
        signal.alarm(IDLE_SECONDS)
    line = sys.stdin.readline()
    if can_expire:
        signal.alarm(WORK_SECONDS)
    return line


if __name__ == "__main__":
    _serve()
