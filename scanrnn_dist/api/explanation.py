"""What a job would do and take, before it does it: rows, steps, work, time, shapes, memory. Writes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from scanrnn_dist.api.computation import EncoderOnDevices
from scanrnn_dist.api.tuning import measure
from scanrnn_dist.encoder import Encoder, StatefulEncoder
from scanrnn_dist.engine import WINDOWS_IN_FLIGHT, native_window_bytes, why_no_native, window_shape_for
from scanrnn_dist.errors import counted
from scanrnn_dist.job import Foreseen, JobOptions, Memory, Plan, left_out_in_words
from scanrnn_dist.observe import as_text, available_cores, in_mib, usable_bytes
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records import STATE, features_in_words
from scanrnn_dist.source import Filter

FEWER = "Choose fewer --lanes, --block-steps, --window-blocks or --devices."
"""What to do about windows that the memory does not hold."""
_MEASURED_FLOPS = 4e9
"""What a measurement computes: a tenth of a second on two cores, and less than the compilation on anything faster."""
_MEASURED_STEPS, _MOST_CHUNKS = 300_000, 2_000
_READ_BYTES_A_SECOND = 0.8e9
"""Of decoding, which runs beside the computation: `source/decode.py`."""
_START_SECONDS = 1.0
"""Of a process before its first row: imports, plan, compilation. `tests/cli/test_start.py` has what it consists of."""

_PART_SECONDS = 0.004
"""Of opening a file and naming a part: `scanrnn featurize` of 1,000 files of 50 rows each took 5.8 s on two cores."""

_LANES_OF_USUAL, _OF_USABLE = 16, 4
"""What is warned of: so many times the usual lanes, and windows that take such a part of the memory."""


@dataclass(frozen=True)
class Explanation:
    """What a job would do: as lines that people read, and as numbers.

    Args:
        lines: a text for each name.
        numbers: `rows`, `steps`, `seconds` and so on; None where one is not known.
        refusal: why featurize would refuse to begin; empty if it would not.
    """

    lines: Mapping[str, str]
    numbers: Mapping[str, Any]
    refusal: str = ""

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        return "\n".join(f"{name + ':':14}{text}" for name, text in self.lines.items())

    def to_json(self) -> dict[str, Any]:
        """Numbers and lines, as JSON has them."""
        return {**self.numbers, "told": dict(self.lines)}


def explain(
    plan: Plan,
    computation: EncoderOnDevices,
    options: JobOptions,
    memory: Memory,
    foreseen: Foreseen,
    gflops: float | None = None,
) -> Explanation:
    """What `featurize` would do with a plan on all local devices, within `memory`.

    Args:
        plan: of the job.
        computation: its encoder and devices.
        options: of the job.
        memory: the budget.
        foreseen: what was read of its rows.
        gflops: what was measured by `measured_gflops`; None tells no time.

    Raises:
        ConfigError: an encoder whose features, or states, the output cannot hold.
    """
    encoder, shape, kernel = computation.encoder, computation.shape, computation.kernel
    rows, in_features, out_features = plan.source.rows, encoder.in_features, encoder.out_features
    needed, usable = window_bytes(encoder, shape, kernel), usable_bytes()
    taken = needed + memory.budget(is_static=jax.default_backend() != "cpu")
    refusal = ""
    if usable is not None and needed > usable:
        refusal = f"this process may use {in_mib(usable)}, so featurize would refuse. {FEWER}"
    gflop = encoder.flops_per_step * foreseen.steps / 1e9
    columns = features_in_words(options.output, out_features, encoder.pool_dtype, encoder.gives_steps)
    if options.keep_state:
        columns = f"{STATE}: fixed_size_list<float32>[{StatefulEncoder(encoder).state_features}], {columns}"
    about = "" if foreseen.whole and not foreseen.failed else "about "
    lines = {
        "source": f"{counted(len(plan.source.files), 'file')}, {counted(rows, 'row')}, "
        f"{about}{foreseen.steps:,.0f} steps",
        "sequences": f"{plan.layout.described}, {in_features} features per step",
        "kept columns": ", ".join(plan.keep) or "none",
        "output": f"{counted(len(plan.units), 'part')}, {columns}",
        "work": f"{about}{gflop:,.1f} GFLOP" if gflop >= 1 else f"{about}{gflop:.2g} GFLOP",
    }
    if plan.left_out:
        lines["left out"] = left_out_in_words(plan.left_out)
    seconds = None if gflops is None else _seconds(gflop / gflops, foreseen.nbytes, len(plan.units))
    if seconds is not None:
        lines["time"] = (
            f"about {_duration(seconds)}, if one process does all: {gflops:,.1f} GFLOP/s, measured here on its first "
            "rows; reading and writing run at the same time"
        )
    why_not_native = why_no_native(encoder, computation.mesh)
    lines |= {
        "devices": f"{jax.local_device_count()} x {jax.devices()[0].device_kind}",
        "kernel": kernel if kernel == "native" else f"xla. {why_not_native}".removesuffix(". "),
        "shape": f"{shape.lanes:,} rows side by side a device, in blocks of {counted(shape.block_steps, 'step')}; "
        f"{counted(shape.window_blocks, 'block')} a call",
        "memory": f"at most about {in_mib(taken)} besides the program itself (about 300 MiB); more for a row that is "
        f"larger{f'; {refusal}' if refusal else ''}",
    }
    lines |= _of_source(plan, options.matching)
    numbers = {
        "files": len(plan.source.files), "rows": rows, "steps": round(foreseen.steps), "parts": len(plan.units),
        "in_features": in_features, "out_features": out_features, "gflop": gflop, "gflops": gflops,
        "seconds": seconds, "memory_bytes": taken, "kernel": kernel,
    }  # fmt: skip
    return Explanation(lines, numbers, refusal)


def doubts(computation: EncoderOnDevices, sizes: Mapping[str, int], devices: int | None) -> list[str]:
    """What to warn of before a job begins: sizes that were chosen, and fit, but make no sense on these devices."""
    encoder, mesh, shape, kernel = computation.encoder, computation.mesh, computation.shape, computation.kernel
    told = []
    usual = window_shape_for(encoder, mesh, kernel=kernel).lanes
    needed, usable, count = window_bytes(encoder, shape, kernel), usable_bytes(), jax.local_device_count()
    if "lanes" in sizes and shape.lanes > _LANES_OF_USUAL * usual:
        told.append(
            f"--lanes {shape.lanes:,} has each device compute so many rows side by side, where {usual:,} suit it. With "
            f"fewer than {shape.lanes * count:,} rows most of its work is for nothing."
        )
    if sizes and usable is not None and needed > usable // _OF_USABLE:
        told.append(f"Windows of this shape take {in_mib(needed)} of the {in_mib(usable)} that this process may use.")
    cores = available_cores()
    if devices is not None and jax.default_backend() == "cpu" and devices > cores:
        told.append(
            f"--devices {devices:,} on {cores:,} cores: each device has threads and memory of its own, and more "
            "devices than cores make nothing faster."
        )
    return told


def measured_gflops(computation: EncoderOnDevices, sample: list[Ragged]) -> float | None:
    """Useful GFLOP/s on these rows, repeated until they are work enough; compiles. None without a step."""
    steps = sum(int(chunk.lengths.sum()) for chunk in sample)
    if not steps:
        return None
    wanted = min(_MEASURED_STEPS, _MEASURED_FLOPS / computation.encoder.flops_per_step)
    rounds = math.ceil(wanted / steps)
    repeated = (sample * min(rounds, max(1, _MOST_CHUNKS // len(sample))))[: max(len(sample), _MOST_CHUNKS)]
    kernel = computation.kernel
    return measure(computation.encoder, repeated, computation.mesh, [computation.fit()], 1, kernel)[0].gflops


def _seconds(computing: float, nbytes: float, parts: int) -> float:
    """How long one process takes: the slowest of computing, reading and naming parts, and its start."""
    return _START_SECONDS + max(computing, nbytes / _READ_BYTES_A_SECOND, _PART_SECONDS * parts)


def _duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> _duration(7.2), _duration(250), _duration(9000), _duration(4e5)
        ('7 s', '4 min', '2.5 h', '4.6 days')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.1f} days"


def _of_source(plan: Plan, matches: Filter | None) -> dict[str, str]:
    """What is to be said of the source where files differ or are left out, or where not all of its rows are read."""
    told = {"differences": "; ".join(plan.source.drift)} if plan.source.drift else {}
    if matches is not None:
        told["filter"] = f"only rows with {matches.text}; how many these are is known once all were read"
    if plan.limit is not None:
        told["limit"] = f"the first {plan.limit:,} rows of the source"
    if plan.source.left_out:
        first = plan.source.left_out[0]
        told["unreadable"] = (
            f"{counted(len(plan.source.left_out), 'file')}, left out; the first is {first.path}: {first.reason}"
        )
    return told


def window_bytes(encoder: Encoder, shape: WindowShape, kernel: str) -> int:
    """What the windows in flight take of this machine's memory: what goes in, and on CPU what is emitted.

    The native kernel reads values where they stand, and gives one vector a row.
    """
    if kernel == "native":
        return WINDOWS_IN_FLIGHT * jax.local_device_count() * native_window_bytes(encoder, shape)
    blocks = jax.local_device_count() * shape.lanes * shape.window_blocks
    emitted = encoder.out_features * (shape.block_steps if encoder.gives_steps else 1)
    is_here = jax.default_backend() == "cpu"  # a GPU or TPU emits to its own memory
    numbers = blocks * (shape.block_steps * encoder.in_features + emitted * is_here)
    programs = len(encoder.cells) if encoder.is_bidirectional else 1
    return WINDOWS_IN_FLIGHT * 4 * numbers * programs
