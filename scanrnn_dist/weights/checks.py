"""What is wrong with a set of named arrays: missing, surplus, misshapen, of another type, not finite; all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from scanrnn_dist.errors import DataError

Shape = tuple[int | str, ...]
"""Of an array; a word stands for a size that nothing tells, and fits none."""


def checked_weights(
    arrived: Mapping[str, Any], expected: Mapping[str, Shape], where: str, *, lossy_cast: bool = False
) -> dict[str, np.ndarray]:
    """The arrays as float32, if they are exactly those expected, by name; `where` tells messages what they came from.

    Raises:
        DataError: lists every name that is missing, surplus, of another shape or type, not finite, or not exact, which
            `lossy_cast` lets through.
    """
    arrays = {name: np.asarray(array) for name, array in arrived.items()}
    wrong = [f"{name}: missing, expected {shape}" for name, shape in expected.items() if name not in arrays]
    wrong += [f"{name}: {array.shape}, expected none" for name, array in arrays.items() if name not in expected]
    for name, shape in expected.items():
        if name in arrays:
            wrong += [f"{name}: {fault}" for fault in _faults(arrays[name], shape, lossy_cast)]
    raise_if_any(wrong, where)
    return {name: arrays[name].astype(np.float32) for name in expected}


def raise_if_any(wrong: list[str], where: str) -> None:
    """One error about all that is wrong."""
    if wrong:
        raise DataError(f"{where} holds other weights than its architecture asks for: " + "; ".join(wrong) + ".")


def _faults(array: np.ndarray, shape: Shape, lossy_cast: bool) -> list[str]:
    """What is wrong with one array that should be of a shape; empty if nothing is."""
    if array.shape != shape:
        return [f"{array.shape}, expected {shape}"]
    if not jnp.issubdtype(array.dtype, jnp.floating):  # numpy does not count bfloat16
        return [f"{array.dtype}, expected floating point"]
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float32)
    if not np.isfinite(rounded).all():
        return ["holds a NaN, an infinity or a number beyond float32"]
    if not lossy_cast and not np.array_equal(rounded.astype(array.dtype), array):
        return [f"{array.dtype} holds numbers that float32 cannot; allow rounding with lossy_cast (--lossy-cast)"]
    return []
