"""What a job computes with, as far as it has to know. It knows no JAX, and asks only where there is work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.protocols import EngineLike, Stage

RECIPE = "recipe"
"""Of a job: how its encoder was asked for, where that tells it without drawing it."""
InFeatures = Callable[[], int]
"""Gives the features per step, `D`, of the source; may have to read a row."""


class Computation(Protocol):
    """An encoder and the devices that it runs on. Each is drawn, started or compiled when it is first asked for."""

    @property
    def stage(self) -> Stage:
        """Names the stages of reading and writing in a profiler's trace."""

    @property
    def input(self) -> InputSpec | None:
        """What a step holds, where that is more than the numbers of a source."""

    def is_known(self, job: Mapping[str, Any]) -> bool | None:
        """The same as `is_recorded`, as far as it can be told without starting devices; None where it cannot."""

    def is_recorded(self, job: Mapping[str, Any], in_features: InFeatures) -> bool:
        """Whether the job of a record is of this encoder, and of the window shape as far as one was chosen."""

    def described(self, in_features: InFeatures, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All of it that the bits of the features depend on: "encoder", "window" and "environment", for the records.

        The `RECIPE` too, where there is one. `like` is the record of a job whose window shape is to be taken.
        """

    def engine(self, own_carries: bool, keep_state: bool) -> EngineLike:
        """The compiled encoder, with `keep_state` one that gives states too; `described` was asked for before."""

    def encoder_content(self) -> bytes | None:
        """The file of the encoder; None of one that no file can hold."""
