"""Cases that take turns, so that a slow spell of the machine hits them all, and how long each takes. No JAX.

Not covered: a machine that others are using. Compare within one run, never across runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Name = TypeVar("Name")
Measured = TypeVar("Measured")


def in_turns(cases: Mapping[Name, Callable[[], Measured]], rounds: int, warmup: int = 1) -> dict[Name, list[Measured]]:
    """What each case gives, round by round, once all have been run `warmup` times."""
    for case in list(cases.values()) * warmup:
        case()
    found: dict[Name, list[Measured]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(case())
    return found


def seconds_of(work: Callable[[], Any]) -> tuple[float, float]:
    """How long it takes, by the clock and of the processors."""
    begin, begin_processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - begin_processor
