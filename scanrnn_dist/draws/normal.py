"""Normal numbers with the bits of `jax.random.normal` and `jax.random.truncated_normal` as XLA compiles them for x86.

They are `sqrt(2) erfinv(u)` of a uniform `u`. XLA computes `erfinv` by polynomials in float32, whose products and sums
are fused: each rounds once (FMA). numpy has no such operation, so `_fused` makes it of float64. The order of the
operations is that of the machine code that jaxlib 0.10.2 and 0.12.0.1 make.

Source: Giles 2010, Approximating the erfinv function; the logarithm is Cephes's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from scanrnn_dist.draws.threefry import Key, random_bits

_BLOCK = 16_384
"""Numbers that are worked on at once, so that they stay in cache."""
_LOW = np.float32(-0.99999994)
"""Of `u` for all normal numbers: the float next to -1."""
_ERF_OF_2 = np.float32(0.9544997)
"""erf(2 / sqrt(2)), of which XLA's has these bits: `u` of a normal number within -2 ... 2 lies within."""
_SQRT_2 = np.float32(1.4142135)
_HALF_TIE, _BELOW_FLOAT32 = 0x10000000, 0x1FFFFFFF  # of the bits of a float64, those that a float32 has not

_LOG_A = (0x3D9021BB, 0xBDEBD1B8, 0x3DEF251A)
_LOG_B = (0xBDFE5D4F, 0x3E11E9BF, 0xBE2AAE50)
_LOG_C = (0x3E4CCEAC, 0xBE7FFFFC, 0x3EAAAAAA)
_SQRT_HALF, _LN2_LOW, _LN2_HIGH = 0x3F3504F3, 0xB95E8083, 0x3F318000
_LOG1P_SMALL = 0x3ED413CD
_LOG1P_ABOVE = (0x383DE04B, 0x3EFF40C5, 0x40D284FA, 0x41EF4B9C, 0x4273CC76, 0x426473AD, 0x41A05101)
_LOG1P_BELOW = (0x3F800000, 0x417101AD, 0x42A6185B, 0x435DC32D, 0x439A8CA3, 0x43586D8A, 0x42707982)
_NEAR = (0x32F16588, 0x34B84B36, 0xB66C7357, 0xB6935AC1, 0x396532DB, 0xBAA45408, 0xBB88E4EF, 0x3E7C8F63, 0x3FC02E2F)
_FAR = (0xB951F09B, 0x38D3B56B, 0x3AB0DC72, 0xBB70BDE7, 0x3BBC127B, 0xBBF9C5D7, 0x3C1AA57E, 0x3F8036DB, 0x40354F7E)


def normal(key: Key, shape: Sequence[int]) -> np.ndarray:
    """`jax.random.normal(key, shape)`, float32."""
    return _in_blocks(key, shape, lambda bits: _erfinv(_uniform(bits, _LOW, np.float32(1))) * _SQRT_2)


def truncated_normal(key: Key, shape: Sequence[int]) -> np.ndarray:
    """`jax.random.truncated_normal(key, -2, 2, shape)`, float32."""
    greatest = np.nextafter(np.float32(2), np.float32(0))

    def within(bits: np.ndarray) -> np.ndarray:
        return np.clip(_erfinv(_uniform(bits, -_ERF_OF_2, _ERF_OF_2)) * _SQRT_2, -greatest, greatest)

    return _in_blocks(key, shape, within)


def _in_blocks(key: Key, shape: Sequence[int], numbers: Any) -> np.ndarray:
    drawn = np.empty(int(np.prod(shape)), np.float32)
    for begin in range(0, len(drawn), _BLOCK):
        end = min(begin + _BLOCK, len(drawn))
        drawn[begin:end] = numbers(random_bits(key, begin, end))
    return drawn.reshape(shape)


def _uniform(bits: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    """Of 23 of the bits a number in 0 ... 1, and of that one in `low ... high`."""
    unit = ((bits >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    return np.maximum(low, _fused(unit, high - low, low))


def _erfinv(u: np.ndarray) -> np.ndarray:
    """The inverse of the error function, for `u` within -1 ... 1, in the order of XLA's operations."""
    log = _log1p(-(u * u))
    is_near = log > np.float32(-5)
    w = np.where(is_near, np.float32(-2.5) - log, np.sqrt(-log) - np.float32(3))
    near, far = _floats(_NEAR), _floats(_FAR)
    if is_near.all():
        return _polynomial(w, near) * u
    return _polynomial(w, [np.where(is_near, a, b) for a, b in zip(near, far, strict=True)]) * u


def _log1p(x: np.ndarray) -> np.ndarray:
    """log(1 + x) for `x` within -1 ... 0: a quotient of polynomials near 0, else the logarithm of the sum."""
    square = x * x
    quotient = _polynomial(x, _floats(_LOG1P_ABOVE)) / _polynomial(x, _floats(_LOG1P_BELOW))
    small = x + _fused(square, np.float32(-0.5), x * square * quotient)
    return np.where(-x < _float(_LOG1P_SMALL), small, _log(np.float32(1) + x))


def _log(y: np.ndarray) -> np.ndarray:
    """The natural logarithm of normal floats: of the mantissa by polynomials, and the exponent's."""
    bits = y.view(np.uint32)
    exponent = ((bits >> np.uint32(23)).astype(np.int32) - 127).astype(np.float32) + np.float32(1)
    mantissa = ((bits & np.uint32(0x807FFFFF)) | np.uint32(0x3F000000)).view(np.float32)
    is_low = mantissa < _float(_SQRT_HALF)
    exponent = exponent - is_low.astype(np.float32)
    x = (mantissa - np.float32(1)) + np.where(is_low, mantissa, np.float32(0))
    square = x * x
    cube = square * x
    a, b, c = (_polynomial(x, _floats(each)) for each in (_LOG_A, _LOG_B, _LOG_C))
    y = _fused(_fused(a, cube, b), cube, c)
    y = _fused(y, cube, exponent * _float(_LN2_LOW))
    return _fused(exponent, _float(_LN2_HIGH), _fused(square, np.float32(-0.5), x) + y)


def _polynomial(x: np.ndarray, coefficients: Sequence[Any]) -> np.ndarray:
    """Horner's scheme, the highest power first, each step fused."""
    found: np.ndarray = reduce(lambda sum_, each: _fused(sum_, x, each), coefficients)
    return found


def _fused(a: Any, b: Any, c: Any) -> np.ndarray:
    """`a b + c`, rounded once.

    In float64 the product is exact and the sum nearly: only a sum that seems to lie midway between two floats of 32
    bits, and does not, would be rounded to the wrong one.
    """
    product = np.multiply(a, b, dtype=np.float64)
    c = np.asarray(c, np.float64)
    total = product + c
    is_tie = (total.view(np.int64) & _BELOW_FLOAT32) == _HALF_TIE
    if is_tie.any():
        # What the sum lost (Knuth's TwoSum) says on which side of the middle the true one lies.
        back = total - product
        lost = (product - (total - back)) + (c - back)
        total = np.where(is_tie & (lost != 0), np.nextafter(total, np.copysign(np.inf, lost)), total)
    return total.astype(np.float32)


def _float(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


def _floats(all_bits: Sequence[int]) -> list[np.float32]:
    return [_float(bits) for bits in all_bits]
