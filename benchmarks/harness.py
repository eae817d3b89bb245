"""Timing that can be trusted: warm-up, blocking, several alternating rounds, medians with their spread, one JSON line.

Covered: what a callable takes on this machine, side by side with others in the same run. Not covered: whole processes
(use `/usr/bin/time -v`), and a machine that others are using: compare within one run, never across runs.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from benchmarks.turns import in_turns, seconds_of
from scanrnn_dist.engine import AXIS, replicated, sharded

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pyarrow", "torch", "onnxruntime", "ray")


def alternate(cases: dict[str, Callable[[], Any]], rounds: int = 7, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each case in each round, until what it gives is there."""

    def timed(run: Callable[[], Any]) -> float:
        return seconds_of(lambda: jax.block_until_ready(run()))[0]

    return in_turns({name: partial(timed, run) for name, run in cases.items()}, rounds, warmup)


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
    """What the figures are measured on, and how busy it is now: the load average of the last minute."""
    told = _processor()
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": told.get("model name") or platform.processor() or platform.machine(),
        "family_and_model": [told.get("cpu family"), told.get("model")],
        "avx512": "avx512f" in told.get("flags", "").split(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{package: found for package in PACKAGES if (found := _version(package))},
    }


def finish(name: str, results: dict[str, Any], on: dict[str, Any] | None = None) -> None:
    """Print the results as the last line, as JSON, with what they were measured on (by default this machine now)."""
    print(json.dumps({"benchmark": name, "machine": on or machine(), "results": results}))


def _version(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> dict[str, str]:
    """What Linux tells of the first core, by its names; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
