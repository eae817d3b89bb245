"""Does a small job in this process and counts the calls of its store, by what they are and which folder they are about.

    python -m benchmarks.scale.count_calls SRC DST          # prints a JSON object

A call is a request of a bucket at least: a read asks for the size too, a listing takes one for each thousand names.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.scale.measure import FEATURES, HIDDEN
from scanrnn_dist.api import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.storage import LocalStore

COUNTED = {
    "read": "read", "exists": "read", "version": "read", "read_version": "read", "entries": "list", "write": "write",
    "create": "write", "replace": "write", "remove": "write", "delete": "write",
}  # fmt: skip


def counted(source: str, destination: str) -> Counter[str]:
    """Calls of a whole job: "read", "write", and "list" with the folder."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def counting(kind: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            folder = (Path(given[1]).name if len(given) > 1 else "") or "parts" if kind == "list" else ""
            with lock:
                counts[f"list {folder}" if kind == "list" else kind] += 1
            return done(*given, **named)

        return call

    def with_counted(method: str, made: Callable[..., Any]) -> Callable[..., Any]:
        def make(*given: Any) -> Any:
            one = made(*given)
            setattr(one, method, counting("write", getattr(one, method)))
            return one

        return make

    with ExitStack() as patches:
        for name, kind in COUNTED.items():
            patches.enter_context(mock.patch.object(LocalStore, name, counting(kind, getattr(LocalStore, name))))
        for name, method in (("new_file", "commit"), ("log", "append")):
            patches.enter_context(mock.patch.object(LocalStore, name, with_counted(method, getattr(LocalStore, name))))
        featurize(Encoder.from_seed(0, FEATURES, HIDDEN), source, destination, rows_per_part=1)
    return counts


if __name__ == "__main__":
    print(json.dumps(counted(*sys.argv[1:3])))
