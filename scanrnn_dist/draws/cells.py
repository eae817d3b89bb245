"""The weights of cells of a seed, in the order in which `flax.nnx` draws them; and whether their bits are known."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np

from scanrnn_dist.draws.normal import truncated_normal
from scanrnn_dist.draws.orthogonal import orthogonal
from scanrnn_dist.draws.threefry import Key, folded, key_of

KNOWN_VERSIONS = {("0.10.2", "0.10.2", "0.12.8"), ("0.12.0.1", "0.12.0.1", "0.12.12")}
"""Of jax, jaxlib and flax, whose bits were compared; with any others JAX draws."""
_HARMLESS_FLAG = "--xla_force_host_platform_device_count="
_CONFIGURATION = {
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_random_seed_offset": 0,
    "jax_disable_jit": False,
}
"""What the bits depend on, by the names that JAX has for it, in small letters within Python and large ones outside."""
_ORDER = {
    "gru": (("dense_i.kernel", 3), ("dense_i.bias", 3), ("dense_h.kernel", 3)),
    "lstm": (("dense_i.kernel", 4), ("dense_h.kernel", 4), ("dense_h.bias", 4)),
    "rnn": (("dense_h.kernel", 1), ("dense_i.kernel", 1), ("dense_i.bias", 1)),
}
"""Of each cell its variables in the order in which they are drawn, and how many gates they have."""


def draws_as_jax() -> bool:
    """Whether the bits of `drawn_cells` are known to be those that JAX would draw on the CPU of this process."""
    return _is_known_machine() and _is_configured_as_usual()


def drawn_cells(kind: str, seed: int, sizes: Iterable[tuple[int, int]]) -> list[dict[str, np.ndarray]]:
    """The weights of cells, float32 by name, one cell after the other drawn from the streams of one seed.

    Args:
        kind: `"gru"`, `"lstm"` or `"rnn"`: `nnx.GRUCell`, `nnx.OptimizedLSTMCell`, `nnx.SimpleCell`.
        seed: of `nnx.Rngs`; a whole number of 64 bits.
        sizes: of each cell its `(in_features, hidden_features)`.

    Example:
        >>> {name: weights.shape for name, weights in drawn_cells("rnn", 0, [(2, 3)])[0].items()}
        {'dense_h.kernel': (3, 3), 'dense_i.kernel': (2, 3), 'dense_i.bias': (3,)}
    """
    key, streams = key_of(seed), count()
    return [
        {
            name: _drawn(name, folded(key, next(streams)), in_features, hidden_features, gates)
            for name, gates in _ORDER[kind]
        }
        for in_features, hidden_features in sizes
    ]


def _drawn(name: str, key: Key, in_features: int, hidden_features: int, gates: int) -> np.ndarray:
    """One variable: of the inputs LeCun's normal numbers, of the hidden state an orthogonal matrix, of biases zeros."""
    size = gates * hidden_features
    if name.endswith("bias"):
        return np.zeros(size, np.float32)
    if name == "dense_h.kernel":
        return orthogonal(key, hidden_features, size)
    deviation = np.sqrt(np.float32(1 / in_features)) / np.float32(0.87962566103423978)  # of those within -2 ... 2
    return truncated_normal(key, (in_features, size)) * deviation


@cache
def _is_known_machine() -> bool:
    """Whether versions and processor are among those that were compared."""
    versions = version("jax"), version("jaxlib"), version("flax")
    if versions not in KNOWN_VERSIONS or platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return " fma " in Path("/proc/cpuinfo").read_text() and find_spec("scipy") is not None
    except OSError:
        return False  # no Linux


def _is_configured_as_usual() -> bool:
    """Whether nothing that the bits depend on was changed, be it in the environment or in Python."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if not all(flag.startswith(_HARMLESS_FLAG) for flag in flags):
        return False
    if "jax" in sys.modules:
        config = sys.modules["jax"].config
        return all(getattr(config, name) == usual for name, usual in _CONFIGURATION.items())
    return not any(name.upper() in os.environ for name in _CONFIGURATION)
