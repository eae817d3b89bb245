"""All besides the encoder and the data that may change bits: device kind, flags, compiler options, versions."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from scanrnn_dist.engine.mesh import device_kind


def environment_of(mesh: Mesh, kernel: str) -> dict[str, Any]:
    """What may differ from one attempt at a job to the next only where the user allows it, as JSON can hold it.

    The compiler's options do not matter to the native kernel: its bits are the same on each kind of CPU.
    """
    return {
        "device_kind": device_kind(mesh),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": {} if kernel == "native" else compiler_options(mesh),
        "versions": _versions(),
        "kernel": kernel,
    }


def compiler_options(mesh: Mesh) -> dict[str, str | bool]:
    """Options for the compiler, of the window program alone; nothing that `XLA_FLAGS` speaks of.

    Where a CPU has AVX-512, XLA does not use its whole width by itself: 512 bits are 8 % faster at H = 512, 16 % at 128
    and 23 % at 32. No other option changed more than the noise, fast math and oneDNN included.
    """
    option = "xla_cpu_prefer_vector_width"
    if device_kind(mesh) != "cpu" or option in os.environ.get("XLA_FLAGS", "") or not _has_avx512():
        return {}
    return {option: "512"}


@cache
def _has_avx512() -> bool:
    try:
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False  # no Linux: XLA's own choice


@cache
def _versions() -> dict[str, str]:
    """Of all that may change bits."""
    return {package: version(package) for package in ("scanrnn_dist", "jax", "jaxlib", "flax", "numpy", "pyarrow")}
