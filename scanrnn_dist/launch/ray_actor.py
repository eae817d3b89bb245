"""What runs in an actor of Ray: a worker, and what has to be said to JAX before it starts."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Answer, UnitWorker
from scanrnn_dist.observe import cpu_devices_are_chosen


class Said(NamedTuple):
    """An answer, and the warnings that the worker has given since the last one: levels and messages."""

    answer: Answer
    warnings: tuple[tuple[int, str], ...]


class Actor:
    """A worker within Ray.

    Args:
        cpus: that Ray has set aside for it.
        gpus: likewise; Ray shows it these, and no others.
    """

    def __init__(self, cpus: int, gpus: int) -> None:
        use_devices(cpus, gpus)
        self._warnings = _Kept(logging.WARNING)
        logging.getLogger("scanrnn_dist").addHandler(self._warnings)
        self._worker = UnitWorker()
        # 2 s, in all actors at the same time, while the driver is asking the first of them.
        importlib.import_module("scanrnn_dist.api")
        if gpus and importlib.import_module("jax").default_backend() == "cpu":
            raise ConfigError("Ray gave the worker a GPU, and JAX finds none. Is 'scanrnn_dist[cuda]' installed there?")

    def answer(self, question: str, *given: Any) -> Said:
        """As `UnitWorker.answer`."""
        answer = self._worker.answer(question, given)
        return Said(answer, self._warnings.taken())


def use_devices(cpus: int, gpus: int) -> None:
    """Have JAX use what Ray gave; never over what the user has set for all workers.

    Ray counts CPUs and pins nothing, so that each of many workers would take all cores of its node.
    """
    wanted = {"PJRT_NPROC": str(cpus)}
    if not cpu_devices_are_chosen():
        wanted["JAX_NUM_CPU_DEVICES"] = str(cpus)
    if not gpus:
        wanted["JAX_PLATFORMS"] = "cpu"  # else it would look for the GPUs and TPUs that others were given
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    told = os.environ.get("JAX_NUM_CPU_DEVICES")
    if told and "jax" in sys.modules:  # Ray gives actors processes in which tasks have run; their JAX has read it
        with suppress(RuntimeError):  # and it may have started: then its devices stay, which changes no bits
            sys.modules["jax"].config.update("jax_num_cpu_devices", int(told))


class _Kept(logging.Handler):
    """What was logged, until it is taken."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._messages: deque[tuple[int, str]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self._messages.append((record.levelno, record.getMessage()))

    def taken(self) -> tuple[tuple[int, str], ...]:
        """Those that came since the last time."""
        return tuple(self._messages.popleft() for _ in range(len(self._messages)))
