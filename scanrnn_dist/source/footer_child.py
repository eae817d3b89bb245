"""The child of `footers.py`: looks at footers, and may die of one. Run as a script.

What a footer says is held against the file and itself (`parquet/`) before pyarrow sees it. Whatever its file, a footer
is looked at by the main thread, one after the other in the order of the requests, so that a dead child names its file:
the first that it had not answered. Of a bucket, threads open the files and read their last bytes ahead, which are not
looked into before it is their turn.

Parent and child speak JSON lines: first `{"uri": ..., "threads": ..., "idle": ..., "work": ...}` (a null URI for local
files, and seconds), then a path per line; for each the child answers `{"schema": base64 of an Arrow IPC schema,
"row_groups": [[rows, bytes], ...], "values": {column: [values of each row group]}, "unreadable": {column: reason}}`,
the values for columns of lists alone, or `{"error": ...}`, or `{"stopped": ...}` if the file could not be reached or
memory ran out, which says nothing about it. The child ends once its input ends, when it was idle for too long, or if it
looked at one footer for too long.
Not covered: the data pages, which `decode.py` checks while it reads.

Imports nothing heavier than pyarrow, 0.2 s.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import sys
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import StoppedError, one_line
from scanrnn_dist.source.parquet import Ahead, CheckedFile, Footer, read_ahead
from scanrnn_dist.source.unit_reader import out_of_memory
from scanrnn_dist.storage import resolve

REACH_SECONDS = 600
"""Until a file that does not come is one that could not be reached; the retries of a bucket take less."""


def answer_of(filesystem: Any, path: str, ahead: Ahead | None = None) -> dict[str, Any]:
    """What is said of a file, whatever it is; the parent makes it an error that names the file."""
    try:
        # A footer that contradicts itself is a `ValueError`.
        file = CheckedFile(filesystem, path, columns=(), ahead=ahead)
        file.close()
        schema = base64.b64encode(file.schema_arrow.serialize().to_pybytes()).decode()
        groups = [(group.rows, group.nbytes) for group in file.footer.row_groups]
        return {"schema": schema, "row_groups": groups, "values": _values(file.footer), "unreadable": file.unreadable}
    except Exception as error:
        return _refusal(path, error)


def _refusal(path: str, error: Exception) -> dict[str, Any]:
    stopped = error if isinstance(error, StoppedError) else out_of_memory(path, error)
    if stopped is not None:
        return {"stopped": str(stopped)}
    text = one_line(str(error))  # some of pyarrow's take three lines
    return {"error": text if type(error) is ValueError else f"{type(error).__name__}: {text}"}


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
    """Answer until the parent closes the pipe."""
    told = json.loads(sys.stdin.readline())
    if told["uri"] is None:
        _serve_one_by_one(told)
    else:
        pa.set_io_thread_count(told["threads"])  # pyarrow has as many connections to S3; with its 25 half as fast
        _serve_ahead(resolve(told["uri"])[0], told)


def _serve_one_by_one(told: dict[str, Any]) -> None:
    filesystem = fs.LocalFileSystem()
    while True:
        _end_after(told["idle"])
        line = sys.stdin.readline()
        if not line:
            return
        _end_after(told["work"])
        _say(answer_of(filesystem, json.loads(line)))


def _serve_ahead(filesystem: fs.FileSystem, told: dict[str, Any]) -> None:
    """The same with files read ahead: as many as the parent asks for, `threads` of them at once.

    Requests are read by a thread of their own, whether or not answers are taken. So a parent that writes some always
    comes to read an answer, however long both are. For that the main thread waits without an end.
    """
    asked: queue.SimpleQueue[tuple[str, Future[Ahead]]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(filesystem, told["threads"], asked), daemon=True).start()
    while True:
        _end_after(told["idle"])
        path, ahead = asked.get()
        _end_after(0)
        try:
            came = ahead.result(REACH_SECONDS)
        except TimeoutError:
            answer = {"stopped": f"{path} did not come in {REACH_SECONDS} s. Check the network, then run again."}
        except Exception as error:
            answer = _refusal(path, error)
        else:
            _end_after(told["work"])
            answer = answer_of(filesystem, path, came)
            _end_after(0)
        _say(answer)


def _read_requests(
    filesystem: fs.FileSystem, threads: int, asked: queue.SimpleQueue[tuple[str, Future[Ahead]]]
) -> None:
    """Have threads read ahead what the parent asks for; whoever closes the pipe wants no answer any more."""
    pool = ThreadPoolExecutor(threads)
    for line in sys.stdin:
        path = json.loads(line)
        asked.put((path, pool.submit(read_ahead, filesystem, path)))
    os._exit(0)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _end_after(seconds: float) -> None:
    """End this process in so many seconds, whatever it does then; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    _serve()
