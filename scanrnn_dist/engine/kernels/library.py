"""The native kernel's library: whether it is there, for which instruction set, and its functions.

What it is asked to do stands in `native/cpp/task.h`; who asks, in `engine/native.py`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import numpy as np

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.native import Opened, opened

TARGET = "scanrnn_rows"
"""The kernel's name among JAX's FFI targets."""
CELLS = {"GRUCell": 0, "LSTMCell": 1, "OptimizedLSTMCell": 1, "SimpleCell": 2}
"""Cells of flax that the kernel knows, by the numbers of `Cell` in `native/cpp/task.h`."""


@dataclass(frozen=True)
class Library:
    """The loaded library.

    Args:
        instructions: the instruction set that it uses, `"avx2"`, `"avx512"` or `"neon"`; the bits do not depend on it.
        path: of the library.
        functions: of the library.
    """

    instructions: str
    path: Path
    functions: ctypes.CDLL

    def packed(self, cell: int, wi: np.ndarray, bi: np.ndarray, wh: np.ndarray, bh: np.ndarray) -> np.ndarray:
        """A layer's weights as the kernel reads them.

        Args:
            cell: a number of `CELLS`.
            wi: `(in_features, gates * hidden)` float32; `bi (gates * hidden,)`, `wh (hidden, gates * hidden)` and
                `bh (gates * hidden,)` likewise.

        Returns:
            `(packed floats,)` float32.
        """
        layer = np.array([cell, len(wi), len(wh)], np.int64)
        out = np.empty(self.functions.scanrnn_packed_floats(layer.ctypes.data), np.float32)
        given = [np.ascontiguousarray(array, np.float32) for array in (wi, bi, wh, bh)]
        self.functions.scanrnn_pack(layer.ctypes.data, *(array.ctypes.data for array in given), out.ctypes.data)
        return out


def loaded() -> Library | str:
    """The library, with JAX told of its kernel; or why there is none, as a sentence."""
    library = opened()
    return library if isinstance(library, str) else _loaded(library)


def native_library() -> Library:
    """The library, which must be there."""
    library = loaded()
    if isinstance(library, str):
        raise not_to_be_had(library)
    return library


def not_to_be_had(why: str) -> ConfigError:
    """What to say to whoever asks for the native kernel where it cannot be used; `why` is a sentence."""
    return ConfigError(f"There is no native kernel here. {why} Leave out --kernel (kernel=), or choose 'xla'.")


@cache
def _loaded(library: Opened) -> Library | str:
    path, functions = library
    chosen = functions.scanrnn_choose(b"").decode()  # the widest of the processor
    if not chosen:
        return "The processor has none of the vector instructions that it is written for (AVX2 with FMA, or NEON)."
    try:
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(functions.scanrnn_rows), platform="cpu")
    except (AttributeError, RuntimeError) as error:  # the last of a jaxlib with another FFI
        return f"{path.name} cannot be loaded: {error}"
    return Library(chosen, path, functions)
