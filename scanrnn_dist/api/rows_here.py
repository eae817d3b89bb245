"""Rows that are all in memory, through an engine: what `encode` and `BatchFeaturizer` have in common.

Rows that come from files are `job/in_order.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from scanrnn_dist.protocols import EngineLike, RunLike
from scanrnn_dist.ragged import FeatureRows, Ragged, cut, row_pieces

OPEN_WINDOWS = 2
"""Where an engine keeps outputs of steps between layers, it has the rows of so many windows at most. Of 300,000 steps,
two layers of 256 in both directions on two cores, encoding then holds 73 MiB; 106 with 4, 387 with all rows at once.
Occupancy is 0.93 instead of 0.96 for rows of only three windows."""
OPEN_WINDOWS_STATIC = 16
"""The same where windows take as long when they are not full, as of `job/in_order.py`."""


@dataclass(frozen=True)
class Rows:
    """Rows that are numbered on from the last ones, with the initial carry of each where they bring one."""

    sequences: Ragged
    carries: np.ndarray | None = None


def features_of_rows(
    engine: EngineLike,
    batches: Sequence[Rows],
    max_steps: int | None,
    tell: Callable[[int], None] | None = None,
) -> np.ndarray | Ragged:
    """The features of all rows of the batches, one after the other; `tell` is told how many more are finished."""
    lengths = np.concatenate([np.empty(0, np.int64), *(rows.sequences.lengths_within(max_steps) for rows in batches)])
    features = FeatureRows(len(lengths), engine.out_features, engine.dtype, lengths if engine.gives_steps else None)
    keeps_steps = engine.kept_step_bytes > 0 and all(_is_whole(engine, rows) for rows in batches)
    of_batches = _in_pieces if keeps_steps else _at_once
    with closing(engine.run()) as run:
        for finished in of_batches(engine, run, batches, max_steps, features):
            if tell is not None:
                tell(len(finished))
    return features.result


def _is_whole(engine: EngineLike, rows: Rows) -> bool:
    """Whether the carries are as many as they should be; what is not whole is for the engine to refuse."""
    return rows.carries is None or rows.carries.shape == (len(rows.sequences), engine.carry_features)


def _at_once(
    engine: EngineLike, run: RunLike, batches: Sequence[Rows], max_steps: int | None, features: FeatureRows
) -> Iterator[np.ndarray]:
    """Hand over all rows, of which the longest go first, where they stand."""
    begin = 0
    for rows in batches:
        end = begin + len(rows.sequences)
        run.submit(rows.sequences, max_steps, rows.carries, features.out(begin, end))
        begin = end
    while run.is_busy:
        yield from run.advance()


def _in_pieces(
    engine: EngineLike, run: RunLike, batches: Sequence[Rows], max_steps: int | None, features: FeatureRows
) -> Iterator[np.ndarray]:
    """Hand over about a window of rows after the other, while those that are not finished are few."""
    window_steps = engine.devices * engine.shape.lanes * engine.shape.window_steps
    most_steps = window_steps * (OPEN_WINDOWS_STATIC if engine.is_static else OPEN_WINDOWS)
    pieces = [piece for rows in batches for piece in _pieces(rows, max_steps, window_steps)]
    firsts = np.cumsum([0, *(len(piece.sequences) for piece in pieces)])
    left, steps = np.diff(firsts), [_cost(piece, max_steps).sum() for piece in pieces]
    open_steps = taken = 0
    while taken < len(pieces) or run.is_busy:
        while taken < len(pieces) and run.wants_rows and (not open_steps or open_steps + steps[taken] <= most_steps):
            piece = pieces[taken]
            out = features.out(firsts[taken], firsts[taken + 1])
            run.submit(cut(piece.sequences), max_steps, piece.carries, out)
            open_steps += steps[taken]
            taken += 1
        for finished in run.advance(taken < len(pieces) and run.has_window):
            numbers, counts = np.unique(np.searchsorted(firsts, finished, side="right") - 1, return_counts=True)
            left[numbers] -= counts
            open_steps -= sum(steps[number] for number in numbers if left[number] == 0)
            yield finished


def _pieces(rows: Rows, max_steps: int | None, piece_steps: int) -> Iterator[Rows]:
    """Rows of so many steps, or one row of more, after the other."""
    for begin, end in row_pieces(_cost(rows, max_steps), piece_steps):
        carries = None if rows.carries is None else rows.carries[begin:end]
        yield Rows(rows.sequences.slice(begin, end), carries)


def _cost(rows: Rows, max_steps: int | None) -> np.ndarray:
    """Steps of each row that count; a row without steps is something too."""
    return np.maximum(1, rows.sequences.lengths_within(max_steps))
