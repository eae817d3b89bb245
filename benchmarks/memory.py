"""What a process and those that it started take: memory while a piece of work runs, cores while none does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

EVERY_SECONDS = 0.01


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def family_mib(pid: int) -> float:
    """Their proportional set size: pages that several of them share count once."""
    total = 0
    for process in family(pid):
        with suppress(OSError, psutil.NoSuchProcess), open(f"/proc/{process.pid}/smaps_rollup") as lines:
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def peak_memory(pid: int, work: Callable[[], Any]) -> float:
    """The most MiB that a process and its descendants held while `work` ran, looked at every 10 ms."""
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(EVERY_SECONDS):
            peak = max(peak, family_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return round(peak, 1)


def busy_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of processes that run, to 10 ms."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def idle_cores(pid: int, seconds: float = 0.5) -> float:
    """Cores that a process and its descendants keep busy while nothing is asked of them."""
    before = busy_seconds(family(pid))
    time.sleep(seconds)
    return round((busy_seconds(family(pid)) - before) / seconds, 3)
