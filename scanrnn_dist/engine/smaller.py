"""Smaller windows for accelerators, which run every block of a window: fewer blocks, and in the end fewer lanes.

On a CPU the number of blocks is an argument of the program, and `drain.py` has the last rows go on in few lanes. An
accelerator's trip counts are constants, so each smaller window is a program of its own, and there are few. Which ones,
and which of them is next, is integer arithmetic; whether one gives the bits of the usual program is tried out, as in
`drain.py`, since nobody promises it. When rows move over, and everything about values, is `run.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.drain import Known, gives_same_bits, known_of
from scanrnn_dist.engine.schedule import Tape
from scanrnn_dist.protocols import WindowShape

LADDER = ((1, 16), (8, 8), (64, 4))
"""By how much lanes and blocks are divided. 300,000 lognormal rows of at most 2,048 steps on 8 devices of 4,096 lanes:
occupancy 0.96 with these three, 0.94 without the second, 0.93 with an eighth of the blocks in all lanes; with one more,
of a quarter of the lanes, 0.962."""
LEAST_LANES = 8
WORTH_FLOP = 2e11
"""Compile smaller programs once so much was wasted on each device by runs whose rows fill a window. Not measured: 20 ms
of a device that does 1e13 a second. Compiling takes longer, but a compilation cache keeps the programs, and all devices
of a job wait for its last rows."""
WORTH_FLOP_OF_FEW = 1e13
"""The same, counted over all runs of this process, where rows do not fill a window: a second."""

SameBits = Callable[[CompiledWindow, CompiledWindow], bool]


def smaller_shapes(shape: WindowShape) -> list[WindowShape]:
    """The shape, then those of the smaller windows, by lanes and blocks, the most first."""
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
    return max(0, windows * shape.window_blocks * shape.lanes - left // devices)


class SmallerWindows:
    """The programs of one run's windows: the usual one, and smaller ones where they are worth it and give its bits.

    Args:
        engine: the usual one.
        worth_flop, worth_flop_of_few: see `WORTH_FLOP`.
        same_bits: tells whether two programs give the same bits.
    """

    def __init__(
        self,
        engine: CompiledWindow,
        worth_flop: float = WORTH_FLOP,
        worth_flop_of_few: float = WORTH_FLOP_OF_FEW,
        same_bits: SameBits = gives_same_bits,
    ) -> None:
        self._usual, self._same_bits = engine, same_bits
        self._worth_flop, self._worth_flop_of_few = worth_flop, worth_flop_of_few
        self._shapes = smaller_shapes(engine.shape)
        self._programs = {engine.shape: engine}
        self._known: Known = known_of(engine)
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
            usual = self._usual
            blocks = wasted_blocks(usual.shape, usual.devices, tape.longest_blocks, tape.blocks_left)
            self._known.wasted_flop += blocks * usual.shape.block_steps * usual.flops_per_step
            filled = steps >= usual.lanes * usual.shape.window_steps
            least = self._worth_flop if filled else self._worth_flop_of_few
            self._is_worth = self._known.wasted_flop >= least or bool(self._known.smaller)
        return self._is_worth

    def _program(self, shape: WindowShape) -> CompiledWindow | None:
        """The program of a shape; None where it gives other bits than the usual one."""
        if shape not in self._programs and self._known.smaller.get(shape, True):
            program = self._usual.with_shape(shape)
            self._compilations += program.compilations
            if shape not in self._known.smaller:
                self._known.smaller[shape] = self._same_bits(self._usual, program)
            if self._known.smaller[shape]:
                self._programs[shape] = program
        return self._programs.get(shape)
