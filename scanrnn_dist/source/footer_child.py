"""The child of `footers.py`: looks at footers, and may die of one. Run as a script.

What a footer says is held against the file and itself (`parquet/`) before pyarrow sees it. One footer is looked at
after the other, so that a dead child names its file: the one that it has not answered.

Parent and child speak JSON lines: first `{"idle": ..., "work": ...}`, in seconds, then for each file `{"path": ...,
"size": ..., "tail": base64 of its last bytes, the footer and what follows}`. The child answers `{"schema": base64 of an
Arrow IPC schema, "row_groups": [[rows, bytes], ...], "values": {column: [values of each row group]}, "unreadable":
{column: reason}}`, the values for columns of lists alone, or `{"error": ...}`, or `{"stopped": ...}` if memory ran out,
which says nothing about the file. The child ends once its input ends, when it was idle for too long, or if it looked at
one footer for too long.
Not covered: the data pages, which `decode.py` checks while it reads.

Imports nothing heavier than pyarrow, 0.2 s.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections import defaultdict
from typing import Any

from scanrnn_dist.errors import StoppedError, one_line
from scanrnn_dist.source.parquet import Footer, checked_footer, out_of_memory


def answer_of(path: str, size: int, tail: bytes) -> dict[str, Any]:
    """What is said of a file, whatever it is; the parent makes it an error that names the file."""
    try:
        footer, _, schema, unreadable = checked_footer(tail, size)
        told = base64.b64encode(schema.serialize().to_pybytes()).decode()
        groups = [(group.rows, group.nbytes) for group in footer.row_groups]
        return {"schema": told, "row_groups": groups, "values": _values(footer), "unreadable": unreadable}
    except Exception as error:
        return refusal(path, error)


def refusal(path: str, error: Exception) -> dict[str, Any]:
    """The answer where a file cannot be read: what is wrong with it, or that nothing can be said of it."""
    stopped = error if isinstance(error, StoppedError) else out_of_memory(path, error)
    if stopped is not None:
        return {"stopped": str(stopped)}
    text = one_line(str(error))  # some of pyarrow's take three lines
    # A footer that contradicts itself is a `ValueError`.
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
    while True:
        _end_after(told["idle"])
        line = sys.stdin.readline()
        if not line:
            return
        _end_after(told["work"])
        asked = json.loads(line)
        answer = answer_of(asked["path"], asked["size"], base64.b64decode(asked["tail"]))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _end_after(seconds: float) -> None:
    """End this process in so many seconds, whatever it does then."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    _serve()
