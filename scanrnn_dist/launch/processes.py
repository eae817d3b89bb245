"""A process per device of this machine, or per share of its cores: a pool of workers that are children of this process.

One Python process is unlikely to feed eight accelerators. Children and parent speak by a pipe each, `child.py` is their
other end. A child sees its own devices alone; this process needs none, and starts no JAX.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from scanrnn_dist.allocator import allocator_of_jobs
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Answer, HandOut, WorkerDied
from scanrnn_dist.observe import (
    MEMORY_SHARE,
    SHOWN,
    available_cores,
    check_cpus_compute,
    cpu_devices_are_chosen,
    usable_bytes,
)

OF_DRIVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that go to the whole group of processes: the driver heeds them, and tells its workers."""


class ProcessExecutor(HandOut):
    """Workers that are processes of this machine.

    On a machine with NVIDIA GPUs, each process sees one of them. Elsewhere each gets an even share of the cores, and
    has one CPU device per core of it; fewer where a quota of time allows fewer cores, and as many as `XLA_FLAGS` or
    `JAX_NUM_CPU_DEVICES` say.

    Args:
        processes: how many; the number of GPUs, and 1 where there are none, if None.
        devices: CPU devices of each process; one per core of its share when None.

    Raises:
        ConfigError: fewer than 1; or `devices` where there are GPUs, or beside one of these variables.

    Example:
        >>> ProcessExecutor(2).at_once
        2
    """

    def __init__(self, processes: int | None = None, devices: int | None = None) -> None:
        super().__init__(ProcessPool(processes if processes is not None else max(1, len(visible_gpus())), devices))


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that a process started here may use, as `CUDA_VISIBLE_DEVICES` names them; JAX is not started.

    None where JAX has no plugin for them, or is told to use another platform.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    has_plugin = any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13, 14))
    if not has_plugin or (platforms and not {"cuda", "gpu"} & set(platforms.split(","))):
        return []
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name for name in told.split(",") if name and name != "-1"]
    return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]


class ProcessPool:
    """The processes, as `HandOut` asks them; for the arguments see `ProcessExecutor`."""

    has_own_processes = True

    def __init__(self, processes: int, devices: int | None) -> None:
        if processes < 1:
            raise ConfigError(f"processes is {processes}; expected 1 or more.")
        self.count, self._devices = processes, devices
        self._devices_are_chosen = cpu_devices_are_chosen(devices)
        usable = usable_bytes()
        self.memory_bytes = None if usable is None else max(1, usable // MEMORY_SHARE // processes)
        self._gpus = visible_gpus()
        check_cpus_compute(devices, "gpu" if self._gpus else "cpu")
        self._children: dict[int, tuple[subprocess.Popen[bytes], Connection, int]] = {}
        self._started = 0

    def start(self) -> int:
        """Begin a child, in the place of one that ended, if one did; its number."""
        places = {place for *_, place in self._children.values()}
        place = next(place for place in range(len(places) + 1) if place not in places)
        ours, theirs = Pipe()
        # As for the child that reads footers: the same modules, by the parent's own path.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path if isinstance(entry, str))
        json = ["json"] if SHOWN.as_json else []
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_DRIVER)  # the child inherits it, and imports in peace
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "scanrnn_dist.launch.child", str(theirs.fileno()), *json],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **allocator_of_jobs(), "PYTHONPATH": path, **self._environment(place)},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        if cores := self._cores(place):
            os.sched_setaffinity(child.pid, cores)  # before it has imported what sizes its pools of threads by it
        self._started += 1
        self._children[self._started] = child, ours, place
        return self._started

    def ask(self, worker: int, question: str, *given: Any) -> None:
        """Send a question; that a child is dead, `wait` tells."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._children[worker][1].send((question, given))

    def wait(self, seconds: float | None = None) -> tuple[int, Answer | WorkerDied] | None:
        """The next answer of any child, or its death."""
        by_pipe = {pipe: worker for worker, (_, pipe, _) in self._children.items()}
        ready = wait(list(by_pipe), seconds)
        if not ready:
            return None
        worker = by_pipe[ready[0]]  # type: ignore[index]
        try:
            return worker, self._children[worker][1].recv()
        except (EOFError, OSError):  # the latter in the midst of an answer
            status = self._end(worker)
            how = f"killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
            return worker, WorkerDied(f"process {self._pid} was {how}" if status < 0 else f"process {self._pid} {how}")

    def stop(self, worker: int) -> None:
        """End a child."""
        if worker in self._children:
            self._children[worker][0].kill()
            self._end(worker)

    def _end(self, worker: int) -> int:
        """Wait for a child whose end of the pipe is closed, or that was killed; its exit status."""
        child, pipe, _ = self._children.pop(worker)
        pipe.close()
        self._pid = child.pid
        return child.wait()

    def _environment(self, place: int) -> dict[str, str]:
        """What the child at a place is told of its devices."""
        if self._gpus:
            return {"CUDA_VISIBLE_DEVICES": self._gpus[place % len(self._gpus)]}
        if self._devices_are_chosen:
            return {}
        return {"JAX_NUM_CPU_DEVICES": str(self._devices or max(1, len(self._share(place, range(available_cores())))))}

    def _cores(self, place: int) -> list[int]:
        """The cores of the child at a place; none where they are not shared out: for GPUs, or too few of them."""
        if self._gpus or not hasattr(os, "sched_getaffinity"):
            return []
        return list(self._share(place, sorted(os.sched_getaffinity(0))))

    def _share(self, place: int, cores: Sequence[int]) -> Sequence[int]:
        return cores[place * len(cores) // self.count : (place + 1) * len(cores) // self.count]
