"""What the halves of the package know of one another: an engine, its runs, and the numbers that pass between them.

One half computes and knows no Parquet (`engine/`), the other reads and writes data sets and knows no JAX (`source/`,
`records/`, `job/`). Both are written against this file, which knows neither; `api/` brings them together. Another
engine (a kernel, a device, a direction) is another class that keeps these promises.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from scanrnn_dist.kinds import check_kinds
from scanrnn_dist.plain import take_plain
from scanrnn_dist.ragged import Ragged

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Numbers = TypeVar("_Numbers", bound="DataclassInstance")

Stage = Callable[[str], AbstractContextManager[Any]]
"""Takes the name of a stage of the work; within the context that it gives, the stage runs. A profiler's trace shows
these names; `contextlib.nullcontext` names nothing."""


@dataclass(frozen=True)
class WindowShape:
    """The shape of one window of the compiled program, the same for the whole job.

    Args:
        lanes: lanes per device.
        block_steps: steps per block, the grain at which a row starts and ends.
        window_blocks: blocks per lane and window, `K`.
    """

    lanes: int
    block_steps: int
    window_blocks: int

    def __post_init__(self) -> None:
        take_plain(self)
        check_kinds(self)

    @property
    def window_steps(self) -> int:
        """Steps per lane and window."""
        return self.block_steps * self.window_blocks


@dataclass
class Statistics:
    """What a run did: rows, real steps, positions of all windows, compilations, and seconds spent waiting."""

    rows: int = 0
    steps: int = 0
    positions: int = 0
    windows: int = 0
    compilations: int = 0
    device_wait_seconds: float = 0.0

    @property
    def occupancy(self) -> float:
        """Positions that did useful work, of all positions; 1 if there were none."""
        return self.steps / self.positions if self.positions else 1.0

    def __add__(self, other: Statistics) -> Statistics:
        """Of two runs, one after the other."""
        return added(self, other)


def added(mine: _Numbers, its: _Numbers) -> _Numbers:
    """Two of the same, all of whose fields are numbers, added field by field; `astuple` would copy each deeply."""
    return type(mine)(*(getattr(mine, field.name) + getattr(its, field.name) for field in fields(mine)))


class RunLike(Protocol):
    """One stream of rows through an engine; rows are numbered from 0 in the order in which they are submitted."""

    @property
    def statistics(self) -> Statistics:
        """What was done so far."""

    @property
    def wants_rows(self) -> bool:
        """Whether the look-ahead has room for more rows."""

    @property
    def has_window(self) -> bool:
        """Whether enough rows wait to be sent to the devices, as long as more are to come."""

    @property
    def is_idle(self) -> bool:
        """Whether the devices have nothing to do."""

    @property
    def is_busy(self) -> bool:
        """Whether submitted rows are not finished yet."""

    def submit(
        self,
        ragged: Ragged,
        max_steps: float | None = None,
        carries: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> None:
        """Add rows, numbered on from the last; the longest go first.

        Args:
            ragged: the rows.
            max_steps: how many steps of each row count, the first so many; None for all.
            carries: `(n, carry_features)`, every row's own initial carry, where the engine expects them.
            out: where the features of these rows are written, `(n, out_features)` of the engine's dtype, or, where the
                readout is all steps, `(steps, out_features)` of those that count; each vector in one piece, all
                batches of a run with the same strides. When None, nobody gets them.

        Raises:
            DataError: another number of features than the encoder takes, or other carries than the engine expects.
            ConfigError: `max_steps` below 0.
        """

    def advance(self, more: bool = False) -> list[np.ndarray]:
        """Send one window, if rows wait; fetch what has to be fetched before the next one.

        The numbers `(n,)` of rows whose features now stand where they belong, window by window, in no order.

        With `more`, rows are still to come: a window is sent if they fill it (`has_window`), and the last ones are not
        waited for.
        """

    def results(self) -> list[np.ndarray]:
        """Advance until nothing is left; the numbers of all rows that were finished by it."""

    def close(self) -> None:
        """Let go of the devices; what was submitted and is not finished is lost."""


class EngineLike(Protocol):
    """One encoder compiled for some devices: what may be asked of it, whatever computes behind it."""

    in_features: int
    """Features per step that it takes."""
    out_features: int
    """Features per sequence that it gives, or per step where it gives those of all steps."""
    carry_features: int
    """Numbers of a row's own initial carry; 0 where rows bring none."""
    dtype: np.dtype
    """Of the features."""
    state_features: int
    """Numbers of the state that stand last among the features, and that every row then brings one of; else 0."""
    first_state: np.ndarray
    """`(state_features,)`, the state before the first step: the carries, then what else there is."""
    gives_steps: bool
    """Whether the outputs of all steps are given, not one vector per sequence."""
    flops_per_step: int
    """Floating-point operations of one step of one row."""
    kept_step_bytes: int
    """Of outputs that a run keeps between layers, for each step of an unfinished row; 0 where it keeps none."""
    devices: int
    """How many share the rows."""
    is_static: bool
    """Whether a window takes as long with few rows as with many, so that rows that fill it are worth their memory."""
    shape: WindowShape
    """Of its windows."""
    kernel: str
    """What computes, `"native"` or `"xla"`; the bits of features differ between the two."""

    def run(self, memory_bytes: int | None = None) -> RunLike:
        """Begin a stream of rows; those that wait to fill large windows hold `memory_bytes`, a share when None."""
