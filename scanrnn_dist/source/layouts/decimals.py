"""Decimals of 32 to 256 bits as float32: rounded once, and whether that is exact.

A decimal is `u / 10**s`, with an integer `u` that is stored and a scale `s` of the type. It is a binary fraction
exactly where `5**s` divides `u`. Where `u` has at most 53 bits and `0 <= s <= 22`, both `u` and `10**s` are float64, so
that one division rounds correctly; the few others are computed by Python, one after the other. So are those that the
division rounds to the middle of two float32, since that says no more which of these is nearer.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf, nextafter

import numpy as np
import pyarrow as pa

_EXACT_SCALES = range(23)
_LOW_BITS, _MIDDLE = (1 << 29) - 1, 1 << 28
"""The bits of float64 for which float32 has no room, and what they are in the middle of two float32."""


def decimal_numbers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Decimals without nulls as float32, the nearest ones, and whether each is held exactly.

    Example:
        >>> from decimal import Decimal
        >>> numbers, is_exact = decimal_numbers(pa.array([Decimal("0.50"), Decimal("0.10")]))
        >>> numbers.tolist(), is_exact.tolist()
        ([0.5, 0.10000000149011612], [True, False])
    """
    scale, words = array.type.scale, _words(array)
    unscaled = words[:, 0]
    fits = (words[:, 1:] == (unscaled >> 63)[:, None]).all(axis=1) & (np.abs(unscaled) < 1 << 53)
    fits &= unscaled != np.iinfo(np.int64).min  # whose absolute value is itself
    if scale not in _EXACT_SCALES:
        fits[:] = False
    small = np.where(fits, unscaled, 0)
    if scale in _EXACT_SCALES:
        wide, is_binary = small / 10.0**scale, small % 5**scale == 0
    else:
        wide, is_binary = np.zeros(len(array)), np.zeros(len(array), bool)
    is_middle = wide.view(np.int64) & _LOW_BITS == _MIDDLE
    for place in np.flatnonzero(~fits | (is_middle & ~is_binary)):
        integer = int.from_bytes(words[place].astype("<i8").tobytes(), "little", signed=True)
        value = Fraction(integer) / Fraction(10) ** scale
        wide[place] = _odd(value)
        is_binary[place] = Fraction(wide[place]) == value
    with np.errstate(over="ignore"):
        numbers = wide.astype(np.float32)
    return numbers, is_binary & (numbers == wide)


def _odd(value: Fraction) -> float:
    """A number as float64; where that is not exact, of the two around it the one whose last bit is odd.

    Rounded to fewer bits, it becomes what the number itself does. Source: Boldo, Melquiond, When double rounding is
    odd, 2005.
    """
    near = value.numerator / value.denominator  # which Python rounds correctly; 256 bits do not overflow
    if Fraction(near) == value or np.float64(near).view(np.int64) & 1:
        return near
    return nextafter(near, inf if value > Fraction(near) else -inf)


def _words(array: pa.Array) -> np.ndarray:
    """The stored integers, `(N, words)` int64, the least significant word first."""
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1], np.int32 if width == 4 else np.int64)
    count = max(1, width // 8)
    begin = array.offset * count
    return data[begin : begin + len(array) * count].reshape(-1, count).astype(np.int64, copy=False)
