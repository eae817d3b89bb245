"""What all runs have in common: how far they look ahead, and which rows they take."""

from __future__ import annotations

import numpy as np

from scanrnn_dist.engine.on_mesh import OnMesh
from scanrnn_dist.errors import DataError
from scanrnn_dist.protocols import EngineLike, RunLike
from scanrnn_dist.ragged import Ragged, checked_max_steps, time_first_hint

WINDOWS_IN_FLIGHT = 2
"""Windows sent and not fetched: one computes while the next is scheduled and sent."""
LOOK_AHEAD_BYTES = 32 << 20
"""Values of rows that wait, so that the last rows of a job can go longest first; some windows at least."""
WINDOWS_AHEAD = 2


class Emptied:
    """A run that is emptied by advancing; see `RunLike`."""

    def results(self: RunLike) -> list[np.ndarray]:
        """Advance until nothing is left; the numbers of all rows that were finished by it."""
        finished = []
        while self.is_busy:
            finished.extend(self.advance())
        return finished


def taken(
    engine: OnMesh, ragged: Ragged, max_steps: float | None, carries: np.ndarray | None, out: np.ndarray | None
) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """The rows as they go in, how many steps of each count, and where features go; see `RunLike.submit`."""
    most = checked_max_steps(max_steps)
    expected = engine.in_features
    if ragged.in_features != expected:
        hint = time_first_hint(len(ragged) > 0 and len(ragged.row(0)) == expected)
        has = f"{ragged.in_features} features per step"
        raise DataError(f"The sequences have {has}; the encoder takes {expected}.{hint}")
    check_carries(carries, (len(ragged), engine.carry_features) if engine.own_carries else None)
    if engine.gives_steps:  # outputs are kept by the positions of steps
        ragged = ragged.first_steps(most)
    lengths = ragged.lengths_within(most)
    return ragged, lengths, room_for(engine, lengths, out)


def room_for(engine: OnMesh | EngineLike, lengths: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Where the features of rows of so many steps that count are written: `out`, as of `RunLike.submit`, or new."""
    shape = int(lengths.sum()) if engine.gives_steps else len(lengths), engine.out_features
    if out is None:
        out = np.empty(shape, engine.dtype)
    assert out.shape == shape
    return out


def check_carries(carries: np.ndarray | None, expected: tuple[int, int] | None) -> None:
    """Refuse initial carries of another shape than `expected`, `(rows, carry_features)`, or None for none."""
    arrived = None if carries is None else carries.shape
    if arrived != expected:
        wanted = f"one for each of {expected[0]} rows, {expected[1]} numbers" if expected else "none"
        raise DataError(f"The initial carries are {arrived}; expected {wanted}.")
