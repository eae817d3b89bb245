"""Decimals of 32 to 256 bits as floats: rounded once, and whether that is exact.

A decimal is `u / 10**s`, with an integer `u` that is stored and a scale `s` of the type. It is a binary fraction
exactly where `5**s` divides `u`. Where `u` has at most 53 bits and `0 <= s <= 22`, both `u` and `10**s` are float64, so
that one division rounds correctly; the few others are computed by Python, one after the other.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa

_EXACT_SCALES = range(23)


def decimal_numbers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Decimals without nulls as float64, the nearest ones, and whether float32 holds each exactly.

    Example:
        >>> from decimal import Decimal
        >>> numbers, is_exact = decimal_numbers(pa.array([Decimal("0.50"), Decimal("0.10")]))
        >>> numbers.tolist(), is_exact.tolist()
        ([0.5, 0.1], [True, False])
    """
    scale, words = array.type.scale, _words(array)
    unscaled = words[:, 0]
    fits = (words[:, 1:] == (unscaled >> 63)[:, None]).all(axis=1) & (np.abs(unscaled) < 1 << 53)
    fits &= unscaled != np.iinfo(np.int64).min  # whose absolute value is itself
    if scale not in _EXACT_SCALES:
        fits[:] = False
    small = np.where(fits, unscaled, 0)
    numbers = small / 10.0**scale if scale in _EXACT_SCALES else np.zeros(len(array))
    with np.errstate(over="ignore"):
        is_exact = (small % 5 ** max(scale, 0) == 0) if scale in _EXACT_SCALES else np.zeros(len(array), bool)
        is_exact &= numbers.astype(np.float32) == numbers
    for place in np.flatnonzero(~fits):
        integer = int.from_bytes(words[place].astype("<i8").tobytes(), "little", signed=True)
        value = Fraction(integer) / Fraction(10) ** scale
        numbers[place] = _nearest(value)
        with np.errstate(over="ignore"):
            single = np.float32(numbers[place])
        is_exact[place] = bool(np.isfinite(single)) and Fraction(float(single)) == value
    return numbers, is_exact


def _nearest(value: Fraction) -> float:
    return value.numerator / value.denominator  # which Python rounds correctly; 256 bits do not overflow


def _words(array: pa.Array) -> np.ndarray:
    """The stored integers, `(N, words)` int64, the least significant word first."""
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1], np.int32 if width == 4 else np.int64)
    count = max(1, width // 8)
    begin = array.offset * count
    return data[begin : begin + len(array) * count].reshape(-1, count).astype(np.int64, copy=False)
