"""Smaller programs for the last rows of a run, where they give the bits of the usual one.

A window takes as long with one row left as with all lanes full. On a CPU the number of blocks is an argument of the
program, and the last rows go on in one of few lanes. An accelerator's trip counts are constants, so each smaller window
is a program of its own: fewer blocks, and in the end fewer lanes. Which programs there are, and which of them is next,
is integer arithmetic; whether one gives the bits of the usual program, `same_bits.py` tries out. How rows move over,
and everything about values, is `run.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import jax

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.same_bits import gives_same_bits
from scanrnn_dist.engine.schedule import Tape
from scanrnn_dist.protocols import WindowShape

DRAIN_LANES = 8
"""Of the last rows on a CPU. A step of so many takes a fifth to a third of one of 48: 1.4 of 4.4 us at H = 32, 2.3 of
8.8 at 64, 5.4 of 27 at 128."""
LADDER = ((1, 16), (8, 8), (64, 4))
"""By how much lanes and blocks are divided on accelerators. 300,000 lognormal rows of at most 2,048 steps on 8 devices
of 4,096 lanes: occupancy 0.96 with these three, 0.94 without the second, 0.93 with an eighth of the blocks in all
lanes; with one more, of a quarter of the lanes, 0.962."""
LEAST_LANES = 8


class Worth(NamedTuple):
    """When smaller programs are worth it, by the FLOP that would be wasted on each device.

    Args:
        least: stay with the usual program where this end wastes less.
        filled: compile smaller ones once so much was wasted over all runs of this process, if rows filled a window.
        few: the same if they did not.
    """

    least: float
    filled: float
    few: float


WORTH_ON_CPU = Worth(least=2e9, filled=1.5e10, few=1.5e10)
"""15 ms, about what moving over takes; and 0.1 s, a third of compiling a program."""
WORTH_ON_ACCELERATORS = Worth(least=0, filled=2e11, few=1e13)
"""Not measured: 20 ms and 1 s of a device that does 1e13 a second. Compiling takes longer than the former, but a
compilation cache keeps the programs, and all devices of a job wait for its last rows."""

SameBits = Callable[[CompiledWindow, CompiledWindow], bool | None]


@dataclass
class Known:
    """What is known of the ends of an engine's runs; kept as long as its program.

    Args:
        wasted_flop: on each device, at all ends so far that wasted enough to count.
        same_bits: whether the program of a smaller shape gives the bits of the usual one, if it was tried.
    """

    wasted_flop: float = 0.0
    same_bits: dict[WindowShape, bool] = field(default_factory=dict)


def known_of(engine: CompiledWindow) -> Known:
    """What is known of an engine, to be added to; engines of one program share it."""
    return _KNOWN.setdefault(engine.program, Known())


_KNOWN: WeakKeyDictionary[jax.stages.Compiled, Known] = WeakKeyDictionary()


def drain_shapes(shape: WindowShape) -> list[WindowShape]:
    """On a CPU: the shape, then one of few lanes.

    It has so many blocks that a window takes as many bytes: each costs the host a few milliseconds.
    """
    few = replace(shape, lanes=DRAIN_LANES, window_blocks=shape.window_blocks * shape.lanes // DRAIN_LANES)
    return [shape, few] if shape.lanes >= 2 * DRAIN_LANES else [shape]


def smaller_shapes(shape: WindowShape) -> list[WindowShape]:
    """On accelerators: the shape, then those of smaller windows, by lanes and blocks, the most first."""
    shapes = [shape]
    for fewer_lanes, fewer_blocks in LADDER:
        lanes, blocks = shape.lanes // fewer_lanes, max(1, shape.window_blocks // fewer_blocks)
        is_new = (lanes, blocks) != (shape.lanes, shape.window_blocks)
        if is_new and (fewer_lanes == 1 or lanes >= LEAST_LANES):
            shapes.append(replace(shape, lanes=lanes, window_blocks=blocks))
    return shapes


def next_shape(shapes: Sequence[WindowShape], devices: int, waiting: int, going_on: int, left: int) -> WindowShape:
    """Of which shape the next window is, once no more rows are to come.

    The fewest lanes that hold all rows, which are all lanes while rows wait that no lane has begun; then the most
    blocks for which what is left can fill them.

    Args:
        shapes: to choose from; the first holds all rows.
        devices: that each have so many lanes.
        waiting: blocks of the rows that no lane has begun.
        going_on: rows that are in a lane.
        left: blocks of all these rows that are to be done.

    Example:
        >>> shapes = smaller_shapes(WindowShape(lanes=4096, block_steps=4, window_blocks=64))
        >>> next_shape(shapes, devices=1, waiting=0, going_on=500, left=30_000).lanes
        512
    """
    most = shapes[0].lanes
    lanes = most if waiting else min((s.lanes for s in shapes if devices * s.lanes >= going_on), default=most)
    of_lanes = sorted((shape for shape in shapes if shape.lanes == lanes), key=lambda shape: -shape.window_blocks)
    share = left // (devices * lanes)
    return next((shape for shape in of_lanes if shape.window_blocks <= share), of_lanes[-1])


def wasted_blocks(shape: WindowShape, devices: int, longest: int, left: int) -> int:
    """Blocks that would idle on each device if all that is left were run in windows of the usual shape."""
    windows = max(-(-longest // shape.window_blocks), -(-left // (devices * shape.lanes * shape.window_blocks)))
    return windows * shape.window_blocks * shape.lanes - left // devices


class SmallerPrograms:
    """The programs of one run's windows: the usual one, and smaller ones where they are worth it and give its bits.

    Args:
        engine: the usual one.
        worth: when smaller ones are worth it; what suits the devices when None.
        same_bits: tells whether two programs give the same bits; None where these weights do not show it.
    """

    def __init__(
        self, engine: CompiledWindow, worth: Worth | None = None, same_bits: SameBits = gives_same_bits
    ) -> None:
        self._usual, self._same_bits = engine, same_bits
        self._limits = worth or (WORTH_ON_ACCELERATORS if engine.is_static else WORTH_ON_CPU)
        self._shapes = (smaller_shapes if engine.is_static else drain_shapes)(engine.shape)
        self._programs = {engine.shape: engine}
        self._known = known_of(engine)
        self._is_worth: bool | None = None  # until it was decided, for the rows that are there now
        self._compilations = 0

    def compilations_since(self) -> int:
        """Compilations since this was asked last."""
        since, self._compilations = self._compilations, 0
        return since

    def rows_came(self) -> None:
        """Decide anew at the next end."""
        self._is_worth = None

    def next_engine(self, tape: Tape, steps: int) -> CompiledWindow:
        """The program of the next window, once no more rows are to come; `steps` is how many the run had so far."""
        usual = self._usual
        while True:
            given = usual.devices, tape.blocks_waiting, tape.rows_cut, tape.blocks_left
            shape = next_shape(self._shapes, *given)
            if shape == usual.shape or not self._worth(tape, steps):
                return usual
            if (program := self._program(shape)) is not None:
                return program
            self._shapes.remove(shape)

    def _worth(self, tape: Tape, steps: int) -> bool:
        """Whether smaller programs are worth compiling; decided once for the end of a run."""
        if self._is_worth is None:
            self._is_worth = self._is_enough_wasted(tape, steps)
        return self._is_worth

    def _is_enough_wasted(self, tape: Tape, steps: int) -> bool:
        usual, known, limits = self._usual, self._known, self._limits
        # On a CPU a window ends with its longest row.
        shape = usual.shape if usual.is_static else replace(usual.shape, window_blocks=1)
        blocks = wasted_blocks(shape, usual.devices, tape.longest_blocks, tape.blocks_left)
        wasted_flop = blocks * shape.block_steps * usual.flops_per_step
        if wasted_flop < limits.least:
            return False
        known.wasted_flop += wasted_flop
        has_filled = steps >= usual.lanes * usual.shape.window_steps
        return known.wasted_flop >= (limits.filled if has_filled else limits.few) or bool(known.same_bits)

    def _program(self, shape: WindowShape) -> CompiledWindow | None:
        """The program of a shape; None where it gives other bits than the usual one, or these weights do not show."""
        if shape not in self._programs and self._known.same_bits.get(shape, True):
            program = self._usual.with_shape(shape)
            self._compilations += program.compilations
            if shape not in self._known.same_bits and (found := self._same_bits(self._usual, program)) is not None:
                self._known.same_bits[shape] = found
            if self._known.same_bits.get(shape):
                self._programs[shape] = program
        return self._programs.get(shape)
