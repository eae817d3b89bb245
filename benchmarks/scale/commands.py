"""Commands in fresh processes, and what they took: seconds, processor seconds, and how busy others kept the machine.

Covered: several commands at once, one of which may be killed. Not covered: memory, which a job's own report tells.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scale.costs import Cost

SCANRNN = (sys.executable, "-m", "scanrnn_dist")


@dataclass(frozen=True)
class Took:
    """What some commands that were started at once took together, and how many cores others kept busy meanwhile."""

    cost: Cost
    others: float
    output: str  # of the first of them
    own_cpu: float = 0.0  # processor seconds of the first of them without its children; Linux only
    killed_after: float | None = None  # seconds until one of them was killed


def run(*commands: Sequence[str], kill: Callable[[], bool] | None = None) -> Took:
    """Start these commands at once and wait for all.

    Args:
        commands: each with its arguments.
        kill: asked again and again from the start on; once it says so, the last command gets SIGKILL.

    Raises:
        AssertionError: one of them did not end as it should, or none was left to be killed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        busy, begin = _busy_seconds(), time.perf_counter()
        started = [
            subprocess.Popen(command, stdout=output if number == 0 else subprocess.DEVNULL, stderr=errors)
            for number, command in enumerate(commands)
        ]
        left, cpu, own_cpu, killed_after = {process.pid: process for process in started}, 0.0, 0.0, None
        while left:
            if kill is not None and killed_after is None and kill():
                left[started[-1].pid].send_signal(signal.SIGKILL)
                killed_after = time.perf_counter() - begin
            first, waits = next(iter(left)), kill is None or killed_after is not None
            if os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT | (0 if waits else os.WNOHANG)) is None:
                left = dict([*list(left.items())[1:], *list(left.items())[:1]])  # ask the next one
                time.sleep(0.01)
                continue
            if first == started[0].pid:
                own_cpu = _own_seconds(first)
            pid, status, used = os.wait4(first, 0)
            process = left.pop(pid)
            cpu += used.ru_utime + used.ru_stime
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begin
        others = max(0.0, (_busy_seconds() - busy - cpu) / wall)
        expected = [0] * len(started) if killed_after is None else [0] * (len(started) - 1) + [-signal.SIGKILL]
        errors.seek(0)
        assert [process.returncode for process in started] == expected, (commands, errors.read()[-2000:])
        assert kill is None or killed_after is not None, "it ended before it was to be killed"
        output.seek(0)
        return Took(Cost(cpu, wall), others, output.read(), own_cpu, killed_after)


def _own_seconds(pid: int) -> float:
    """Processor seconds of a process that ended and was not waited for yet, without its children; 0 but on Linux."""
    with suppress(OSError):
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _busy_seconds() -> float:
    """Processor seconds that this machine was busy since it began, or taken from it by its host; 0 but on Linux."""
    with suppress(OSError):
        first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
        user, nice, system, _idle, _waits, irq, softirq, stolen = map(int, first)
        return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")
    return 0.0
