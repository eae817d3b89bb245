"""Which window shape suits this machine and this data: the engine, measured on a sample of the data's own rows.

One number of the shape after the other is varied, the fastest kept. Rounds alternate between the candidates, so that a
machine that slows down slows all of them, and medians are compared. The rows stand in memory and come in chunks, as in
a job; reading and writing are not measured.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.engine import (
    build_engine,
    checked_mesh,
    chosen_kernel,
    fitting_shape,
    known_kind,
    refusal,
    window_shape_for,
)
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Plan
from scanrnn_dist.observe import as_text
from scanrnn_dist.protocols import EngineLike, WindowShape
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source import BadRows, ReadOptions, read_chunks

LANES = {"cpu": (16, 32, 48, 64, 96, 128), "gpu": (1024, 2048, 4096, 8192), "tpu": (512, 1024, 2048, 4096)}
NATIVE_LANES = (8, 16, 24, 32, 48)
BLOCK_STEPS = (1, 2, 4, 8)
WINDOW_BLOCKS = (0.25, 0.5, 1, 2)
"""Of those of the shape it starts from."""
SAMPLE_ROWS = {"cpu": 20_000, "gpu": 320_000, "tpu": 320_000}
SAMPLE_BYTES = {"cpu": 64 << 20, "gpu": 1 << 30, "tpu": 1 << 30}
SAMPLE_FLOPS = {"cpu": 4e11, "gpu": 4e14, "tpu": 4e14}
"""A sample is no larger than any of the three; on CPU a round of it takes a second or two."""
SAMPLE_UNITS = 8
"""Parts of the source that it is taken from, since files are often ordered by something."""
CHUNK_BYTES = 1 << 20
ROUNDS = 7
LEAST_GAIN = 0.02
"""What a candidate has to be faster by than the shape it is to replace, and in every round but one: the same shape,
measured three times on a busy machine, gave 240, 229 and 251 GFLOP/s."""


@dataclass(frozen=True)
class Measured:
    """One window shape: useful GFLOP/s of every round, and occupancy."""

    shape: WindowShape
    rounds: tuple[float, ...]
    occupancy: float

    @property
    def gflops(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    def gain_over(self, other: Measured) -> float:
        """By how much it is faster, round by round; 0 if that is within the noise."""
        ratios = [mine / its for mine, its in zip(self.rounds, other.rounds, strict=True)]
        gain = statistics.median(ratios) - 1
        return gain if gain > LEAST_GAIN and sum(ratio > 1 for ratio in ratios) >= len(ratios) - 1 else 0.0

    def __str__(self) -> str:
        shape = f"{self.shape.lanes:5}  {self.shape.block_steps:11}  {self.shape.window_blocks:13}"
        return f"{shape}  {self.gflops:7.1f}  ({min(self.rounds):.1f} - {max(self.rounds):.1f})  {self.occupancy:.1%}"


@dataclass(frozen=True)
class Tuning:
    """What was measured on a sample of so many rows, in the order of measuring, and the best shape."""

    rows: int
    steps: int
    measured: tuple[Measured, ...]
    best: WindowShape
    gain: float

    @property
    def flags(self) -> str:
        """The best shape, for the command line."""
        best = self.best
        return f"--lanes {best.lanes} --block-steps {best.block_steps} --window-blocks {best.window_blocks}"

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows of the source, {self.steps:,} steps; GFLOP/s useful: median (range)"]
        lines.append("  lanes  block steps  window blocks  GFLOP/s  (range)  real steps")
        lines += [f"{'*' if measured.shape == self.best else ' '} {measured}" for measured in self.measured]
        if len({measured.shape for measured in self.measured}) > 1:
            worth = f"{self.gain:.0%} faster than" if self.gain else "no other was clearly faster than"
            lines.append(f"best: {self.flags} ({worth} the shape it started from)")
        return "\n".join(lines)


def measure(
    encoder: Encoder,
    sample: Sequence[Ragged],
    mesh: Mesh,
    shapes: Sequence[WindowShape],
    rounds: int = ROUNDS,
    kernel: str | None = None,
) -> list[Measured]:
    """The engine with every shape on the same rows, in alternating rounds after one that does not count."""
    engines = [build_engine(encoder, mesh, shape, kernel=kernel) for shape in shapes]
    occupancies = [_run(engine, sample)[1] for engine in engines]
    seconds: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, times in zip(engines, seconds, strict=True):
            times.append(_run(engine, sample)[0])
    gflop = encoder.flops_per_step * _steps(sample) / 1e9
    return [
        Measured(shape, tuple(gflop / elapsed for elapsed in times), occupancy)
        for shape, times, occupancy in zip(shapes, seconds, occupancies, strict=True)
    ]


def tune(
    encoder: Encoder,
    sample: Sequence[Ragged],
    mesh: Mesh | None = None,
    start: WindowShape | None = None,
    *,
    candidates: dict[str, tuple[int, ...]] | None = None,
    rounds: int = ROUNDS,
    kernel: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tuning:
    """Vary lanes, then block steps, then window blocks, from the shape `start` on, and keep what is faster.

    Args:
        encoder: cell and readout.
        sample: rows to measure with, from `read_sample`.
        mesh: the devices; all local ones when None.
        start: what suits the device kind when None.
        candidates: what to try for each number of a shape, in the order in which they are settled; none of an empty
            dict, which measures `start` alone; what suits the device kind when None.
        rounds: of every shape.
        kernel: what computes, as `featurize` takes it.
        say: called with a line before each of the three.

    Example:
        >>> import numpy as np
        >>> rows = Ragged.from_sequences([np.ones((steps, 2)) for steps in range(9)])
        >>> tuning = tune(Encoder.from_seed(0, 2, 3), [rows], rounds=1)
        >>> tuning.rows, tuning.best in [measured.shape for measured in tuning.measured]
        (9, True)
    """
    mesh = checked_mesh(mesh)
    kernel = chosen_kernel(checked_encoder(encoder), mesh, kernel)
    best = start or fitting_shape(encoder, mesh, window_shape_for(encoder, mesh, kernel=kernel))
    measured: list[Measured] = []
    gain = 1.0
    if candidates is None:
        blocks = tuple(max(1, int(best.window_blocks * factor)) for factor in WINDOW_BLOCKS)
        candidates = {"lanes": LANES[known_kind(mesh)], "block_steps": BLOCK_STEPS, "window_blocks": blocks}
        if kernel == "native":  # to which blocks mean nothing
            candidates = {"lanes": NATIVE_LANES, "window_blocks": blocks}
    if not candidates:
        measured = measure(encoder, sample, mesh, [best], rounds, kernel)
    for field, values in candidates.items():
        all_shapes = {best, *(dataclasses.replace(best, **{field: value}) for value in values)}
        named, shapes = field.replace("_", " "), []
        for shape in sorted(all_shapes, key=lambda shape: int(getattr(shape, field))):
            if shape != best and (said := refusal(encoder, mesh, shape)):
                say(f"{named}: {getattr(shape, field)} do not fit the memory of the devices: {said}")
            else:
                shapes.append(shape)
        say(f"{named}: {', '.join(str(getattr(shape, field)) for shape in shapes)}")
        found = measure(encoder, sample, mesh, shapes, rounds, kernel)
        current = next(one for one in found if one.shape == best)
        fastest = max(found, key=lambda one: one.gain_over(current))
        if fastest.gain_over(current):
            best, gain = fastest.shape, gain * (1 + fastest.gain_over(current))
        measured += found
    return Tuning(sum(map(len, sample)), _steps(sample), tuple(measured), best, gain - 1)


def read_sample(plan: Plan, encoder: Encoder, mesh: Mesh | None = None) -> list[Ragged]:
    """Rows from up to `SAMPLE_UNITS` parts of the source, the first ones of each, in chunks; within the bounds above.

    Raises:
        ConfigError: the source has no steps.
        DataError: data that is not what it should be.
    """
    kind = known_kind(checked_mesh(mesh))
    flop_bytes = int(SAMPLE_FLOPS[kind] / encoder.flops_per_step) * 4 * encoder.in_features
    units = list(plan.units.select(range(0, len(plan.units), -(-len(plan.units) // SAMPLE_UNITS) or 1)))
    share = max(1, len(units))
    most_rows, most_bytes = SAMPLE_ROWS[kind] // share, min(SAMPLE_BYTES[kind], flop_bytes) // share
    sample: list[Ragged] = []
    options = ReadOptions(
        plan.layout, in_features=encoder.in_features, input=encoder.input, lossy_cast=True,
        bad_rows=BadRows("propagate", null_sequence="skip", unequal_lengths="skip"),
        chunk_bytes=min(CHUNK_BYTES, max(1, most_bytes)),
    )  # fmt: skip
    for unit in units:
        rows, nbytes = 0, 0
        with closing(read_chunks(plan.source, [unit], options, prefetch_bytes=1)) as chunks:
            for chunk in chunks:
                taken = chunk.sequences.slice(0, most_rows - rows)
                sample.append(taken)
                rows, nbytes = rows + len(taken), nbytes + int(taken.lengths.sum()) * 4 * encoder.in_features
                if rows >= most_rows or nbytes >= most_bytes:
                    break
    if not _steps(sample):
        raise ConfigError("The source has no steps in its first rows: there is nothing to measure with.")
    return sample


def _run(engine: EngineLike, sample: Sequence[Ragged]) -> tuple[float, float]:
    """Featurize a sample; the seconds that it took, and the occupancy."""
    begin = time.perf_counter()
    with closing(engine.run()) as run:
        for chunk in sample:
            run.submit(chunk)
            while not run.wants_rows and run.has_window:
                run.advance(more=True)
        run.results()
    return time.perf_counter() - begin, run.statistics.occupancy


def _steps(sample: Sequence[Ragged]) -> int:
    return sum(int(chunk.lengths.sum()) for chunk in sample)
