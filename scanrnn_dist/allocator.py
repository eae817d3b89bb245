"""Where pyarrow takes memory from in processes that are there for jobs alone. It must be told before it is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

VARIABLE = "ARROW_DEFAULT_MEMORY_POOL"
"""By which pyarrow is told."""
_GIVES_BACK = {"JE_ARROW_MALLOC_CONF": "dirty_decay_ms:100,muzzy_decay_ms:0"}
"""jemalloc gives back what nobody took for 100 ms. With pyarrow's 1000 ms a row of 1,000,000 steps in a job with
`--memory 64MiB` takes 305 MiB instead of 211, and W2 54 instead of 40. At once, with 0, W1 takes 20 % more processor
time; with 50 or 100, jobs of W1 and W2 take 2 % more to 2 % less."""


def allocator_of_jobs(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the environment of such a process needs besides; nothing where the user chose.

    jemalloc, which pyarrow brings along on Linux and macOS. mimalloc, its default, gives memory back that a job takes
    again at once: jobs of W1, W2, W3 and W5 of the benchmarks took 2 to 7 % more processor time on two cores with
    AVX-512 (as much on two without), and 23 to 54 MiB more memory, by the medians of four processes each that took
    turns. `pyarrow.set_memory_pool` is no way to it: what is read of files still comes from the other allocator, which
    nobody then asks to give back. The row of 1,000,000 steps took 388 MiB so.

    Example:
        >>> allocator_of_jobs({"ARROW_DEFAULT_MEMORY_POOL": "system"})
        {}
    """
    if VARIABLE in environment or sys.platform not in ("linux", "darwin"):
        return {}
    return {VARIABLE: "jemalloc"} | {name: told for name, told in _GIVES_BACK.items() if name not in environment}
