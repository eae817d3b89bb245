"""What a job would do and take, before it does it: rows, steps, work, shapes, memory. Writes nothing."""

from __future__ import annotations

import jax

from scanrnn_dist.api.computation import EncoderOnDevices
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import WINDOWS_IN_FLIGHT, native_window_bytes, why_no_native
from scanrnn_dist.job import Memory, Plan
from scanrnn_dist.observe import in_mib, usable_bytes
from scanrnn_dist.protocols import WindowShape

FEWER = "Choose fewer --lanes, --block-steps, --window-blocks or --devices."
"""What to do about windows that the memory does not hold."""


def explain(
    plan: Plan,
    computation: EncoderOnDevices,
    filter: str | None = None,
    memory: Memory = Memory(),  # noqa: B008 - frozen
) -> str:
    """What `featurize` would do with a plan on all local devices, line by line, within `memory`.

    Raises:
        DataError: the first rows cannot be read.
    """
    encoder, shape, kernel = computation.encoder, computation.shape, computation.kernel
    rows, in_features, out_features = plan.source.rows, encoder.in_features, encoder.out_features
    needed, usable = window_bytes(encoder, shape, kernel), usable_bytes()
    taken = needed + memory.budget(is_static=jax.default_backend() != "cpu")
    excess = ""
    if usable is not None and needed > usable:
        excess = f"; this process may use {in_mib(usable)}, so featurize would refuse. {FEWER}"
    steps = plan.mean_steps(in_features, encoder.input) * rows
    vector = f"fixed_size_list<float32>[{out_features}]"
    lines = {
        "source": f"{len(plan.source.files):,} files, {rows:,} rows, about {steps:,.0f} steps",
        "sequences": f"{plan.layout.described}, {in_features} features per step",
        "kept columns": ", ".join(plan.keep) or "none",
        "output": f"{len(plan.units):,} parts, features: {f'list<{vector}>' if encoder.gives_steps else vector}",
        "work": f"about {encoder.flops_per_step * steps / 1e9:,.1f} GFLOP",
        "devices": f"{jax.local_device_count()} x {jax.devices()[0].device_kind}",
        "kernel": kernel if kernel == "native" else f"xla. {why_no_native(encoder, computation.mesh)}".strip(),
        "window": f"{shape.lanes} lanes a device, {shape.window_steps} steps in blocks of {shape.block_steps}",
        "memory": f"at most about {in_mib(taken)} besides the program itself; more for a row that is larger{excess}",
    }
    lines |= _of_source(plan, filter)
    return "\n".join(f"{name + ':':14}{text}" for name, text in lines.items())


def _of_source(plan: Plan, filter: str | None) -> dict[str, str]:
    """What is to be said of the source where files differ or are left out, or where not all of its rows are read."""
    told = {"differences": "; ".join(plan.source.drift)} if plan.source.drift else {}
    if filter is not None:
        told["filter"] = f"only rows with {filter}; how many these are is not looked at here"
    if plan.limit is not None:
        told["limit"] = f"the first {plan.limit:,} rows of the source"
    if plan.source.left_out:
        first = plan.source.left_out[0]
        told["left out"] = f"{len(plan.source.left_out):,} unreadable files, the first {first.path}: {first.reason}"
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
