"""Who puts the units of a job through: this process, or workers that it hands them to.

`run_job` opens the job, holds its lease and says which units are next; an executor does them. Workers, on this machine
or on others, are handed units by `hand_out.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scanrnn_dist.job.attempt import Attempt
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.open_job import OpenJob
from scanrnn_dist.job.options import Handling
from scanrnn_dist.job.pipeline import Done, put_through


class Executor(Protocol):
    """Where the units of a job are worked on."""

    @property
    def at_once(self) -> int:
        """How many units it can work on so that each has a process for itself."""

    def computation(self, asked: Computation) -> Computation:
        """What the job is computed with, for `open_job`: described by whoever will compute."""

    def do(
        self,
        opened: OpenJob,
        handling: Handling,
        attempt: Attempt,
        numbers: Sequence[int],
        alone: bool,
    ) -> Done:
        """Do the units of these numbers, each in a process for itself where `alone`; `attempt` is told of each."""

    def close(self, reason: str) -> None:
        """Let go of what it works with, and say why the job ended."""


class InThisProcess:
    """The units are done here, on the devices that this process has; alone, so one at a time."""

    @property
    def at_once(self) -> int:
        """One."""
        return 1

    def computation(self, asked: Computation) -> Computation:
        """The one that is asked for."""
        self._computation = asked
        return asked

    def do(
        self,
        opened: OpenJob,
        handling: Handling,
        attempt: Attempt,
        numbers: Sequence[int],
        alone: bool,
    ) -> Done:
        """Put them through."""
        return put_through(opened, self._computation, attempt, numbers, alone)

    def close(self, reason: str) -> None:
        """Nothing is held."""
