"""All besides the encoder and the data that may change bits: devices, flags, compiler options, versions."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from scanrnn_dist.engine.mesh import device_kind
from scanrnn_dist.errors import one_line

_VECTORS = ("avx512f", "avx2", "avx", "sve", "asimd")
"""Of x86 and of ARM, as Linux names them, the widest first; programs for other ones may add in another order."""


def environment_of(mesh: Mesh, kernel: str) -> dict[str, Any]:
    """What may differ from one attempt at a job to the next only where the user allows it, as JSON can hold it.

    The device's model and the compiler's options do not matter to the native kernel: its bits are the same on each CPU.
    """
    of_compiler = {} if kernel == "native" else {"device_model": device_model(mesh)}
    if device_kind(mesh) != "cpu":  # whose compilers are packages of their own, as libtpu is
        told = one_line(mesh.devices.flat[0].client.platform_version)
        of_compiler |= {"platform_version": told, "libtpu_init_args": os.environ.get("LIBTPU_INIT_ARGS", "")}
    return {
        "device_kind": device_kind(mesh),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": {} if kernel == "native" else compiler_options(mesh),
        "versions": _versions(),
        "kernel": kernel,
        **of_compiler,
    }


def device_model(mesh: Mesh) -> str:
    """What XLA compiles for: a CPU's architecture and widest vectors, `"x86_64 avx2"`; an accelerator's own name."""
    if device_kind(mesh) == "cpu":
        return f"{platform.machine()} {_widest_vectors()}".rstrip()
    return ", ".join(sorted({str(device.device_kind) for device in mesh.devices.flat}))


def compiler_options(mesh: Mesh) -> dict[str, str | bool]:
    """Options for the compiler, of the window program alone; nothing that `XLA_FLAGS` speaks of.

    Where a CPU has AVX-512, XLA does not use its whole width by itself: 512 bits are 8 % faster at H = 512, 16 % at 128
    and 23 % at 32. No other option changed more than the noise, fast math and oneDNN included.
    """
    option = "xla_cpu_prefer_vector_width"
    if device_kind(mesh) != "cpu" or option in os.environ.get("XLA_FLAGS", "") or _widest_vectors() != "avx512f":
        return {}
    return {option: "512"}


@cache
def _widest_vectors() -> str:
    """The CPU's name for them; empty where it is not told."""
    try:
        told = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""  # no Linux: XLA's own choice
    return next((name for name in _VECTORS if name in told), "")


@cache
def _versions() -> dict[str, str]:
    """Of all that may change bits."""
    return {package: version(package) for package in ("scanrnn_dist", "jax", "jaxlib", "flax", "numpy", "pyarrow")}
