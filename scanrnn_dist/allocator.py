"""Where pyarrow takes memory from in processes that are there for jobs alone. It must be told before it is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

VARIABLE = "ARROW_DEFAULT_MEMORY_POOL"
"""By which pyarrow is told."""


def allocator_of_jobs(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the environment of such a process needs besides; nothing where the user chose.

    jemalloc, which pyarrow brings along on Linux and macOS. mimalloc, its default, gives memory back that a job takes
    again at once: jobs of W1, W2, W3 and W5 of the benchmarks took 2 to 7 % more processor time on two cores with
    AVX-512 (as much on two without), and 23 to 54 MiB more memory, by the medians of four processes each that took
    turns. `pyarrow.set_memory_pool` is no way to it: what is read of files still comes from the other allocator, which
    nobody then asks to give back. A row of 1,000,000 steps took 388 MiB so, and takes 271.

    Example:
        >>> allocator_of_jobs({"ARROW_DEFAULT_MEMORY_POOL": "system"})
        {}
    """
    has_one = sys.platform in ("linux", "darwin")
    return {VARIABLE: "jemalloc"} if has_one and VARIABLE not in environment else {}
