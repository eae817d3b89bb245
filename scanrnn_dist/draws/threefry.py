"""Random bits: Threefry-2x32 with 20 rounds, as `jax.random` uses it where `jax_threefry_partitionable` is on.

What is made of the bits is not known here.

Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3, https://doi.org/10.1145/2063384.2063405.
"""

from __future__ import annotations

import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)

Key = tuple[np.uint32, np.uint32]


def key_of(seed: int) -> Key:
    """The key of a seed, as `jax.random.key(seed)` where `jax_enable_x64` is off: its low 32 bits."""
    return np.uint32(0), np.uint32(seed & 0xFFFFFFFF)


def folded(key: Key, number: int) -> Key:
    """`jax.random.fold_in`: the key of one of many streams."""
    first, second = _threefry(key, np.zeros(1, np.uint32), np.full(1, number, np.uint32))
    return first[0], second[0]


def random_bits(key: Key, begin: int, end: int) -> np.ndarray:
    """The numbers `begin` to `end` of a key's stream, uint32; `jax.random.bits` gives them in row-major order."""
    count = np.arange(begin, end, dtype=np.uint64)
    first, second = _threefry(key, (count >> np.uint64(32)).astype(np.uint32), count.astype(np.uint32))
    return first ^ second


def _threefry(key: Key, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Twenty rounds; in every fourth the key is added, its words in turn."""
    words = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x, y = x + words[0], y + words[1]
    for turn in range(5):
        for rotation in _ROTATIONS[turn % 2]:
            x = x + y
            y = (y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))
            y ^= x
        x += words[(turn + 1) % 3]
        with np.errstate(over="ignore"):  # numpy warns of scalars that wrap, not of arrays
            y += words[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y
