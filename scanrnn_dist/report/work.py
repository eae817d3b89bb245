"""Where the time of attempts went, and how full the devices were, as their logs tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from scanrnn_dist.records import AttemptHistory, Took


@dataclass(frozen=True)
class Stage:
    """What the thread did that feeds the devices.

    Args:
        name: of it.
        meaning: in a few words.
        seconds: that it took.
        share: of the whole time.
    """

    name: str
    meaning: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Work:
    """Where the time of all attempts went that tell of it.

    Args:
        attempts: how many these are.
        took: by all of them together.
    """

    attempts: int = 0
    took: Took = field(default_factory=Took)

    @property
    def occupancy(self) -> float | None:
        """The share of the places for steps that held one; None if there were none."""
        return self.took.steps / self.took.positions if self.took.positions else None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What took the time, in the order in which rows go through."""
        took, total = self.took, self.took.seconds
        waits = took.read_wait_seconds, took.device_wait_seconds, took.write_wait_seconds
        own = max(0.0, total - sum(waits))
        told = (
            ("reading", "waiting for rows from the source", waits[0]),
            ("placing", "laying rows out for the devices, taking features back", own),
            ("computing", "waiting for the devices", waits[1]),
            ("writing", "waiting for the disk or the bucket", waits[2]),
        )
        return tuple(Stage(*each, each[-1] / total if total else 0.0) for each in told)

    @property
    def slowest(self) -> Stage:
        """The stage that took most."""
        return max(self.stages, key=lambda stage: stage.seconds)


def work_of(history: Iterable[AttemptHistory]) -> Work:
    """What the attempts of a job tell together.

    Example:
        >>> import numpy as np
        >>> log = AttemptHistory("h.1.ab", {}, np.zeros(0), np.zeros(0), Took(10.0, 1.0, 6.0, 1.0, 90, 100))
        >>> work = work_of([log, log])
        >>> work.slowest.name, work.slowest.seconds, work.occupancy, [round(it.share, 2) for it in work.stages]
        ('computing', 12.0, 0.9, [0.1, 0.2, 0.6, 0.1])
    """
    took = [each.took for each in history if each.took is not None]
    return Work(len(took), sum(took, Took()))
