"""Timing that can be trusted: warm-up, blocking, several alternating rounds, medians with their spread, one JSON line.

Covered: what a callable takes on this machine, side by side with others in the same run. Not covered: whole processes
(use `/usr/bin/time -v`), and a machine that others are using: compare within one run, never across runs.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from scanrnn_dist.engine import AXIS, replicated, sharded


def alternate(cases: dict[str, Callable[[], Any]], rounds: int = 7, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each case in each round; the cases take turns, so that a slow spell of the machine hits them all."""
    for run in list(cases.values()) * warmup:
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def rate(seconds: list[float], gflop: float) -> dict[str, float]:
    """GFLOP/s of a piece of work of `gflop`: median, worst and best round."""
    median = gflop / statistics.median(seconds)
    return {"median": round(median, 1), "min": round(gflop / max(seconds), 1), "max": round(gflop / min(seconds), 1)}


def gemm_case(mesh: Mesh, size: int = 2048) -> tuple[Callable[[], Any], float]:
    """A float32 matrix product on all devices, by XLA, and its GFLOP: the rate that this machine can reach."""
    rng = np.random.default_rng(0)
    devices = mesh.shape[AXIS]
    a = jax.device_put(rng.standard_normal((devices, size // devices, size), np.float32), sharded(mesh))
    b = jax.device_put(rng.standard_normal((size, size), np.float32), replicated(mesh))
    data, same = PartitionSpec(AXIS), PartitionSpec()

    def per_device(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.dot(a[0], b, precision="highest")[None]

    product = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=(data, same), out_specs=data))
    return lambda: product(a, b), 2 * (size // devices * devices) * size**2 / 1e9


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{package: version(package) for package in ("jax", "jaxlib", "flax", "numpy", "pyarrow")},
    }


def finish(name: str, results: dict[str, Any]) -> None:
    """Print the results as the last line, as JSON."""
    print(json.dumps({"benchmark": name, "machine": machine(), "results": results}))


def _processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
