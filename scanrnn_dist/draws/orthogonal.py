"""Orthogonal matrices as `jax.nn.initializers.orthogonal` makes them: the Q of a matrix of normal numbers.

The factors are LAPACK's, of the library that scipy ships. jaxlib calls that one, too, so their bits are equal.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np

from scanrnn_dist.draws.normal import normal
from scanrnn_dist.draws.threefry import Key

_NAME = "scipy.linalg.cython_lapack"


def orthogonal(key: Key, rows: int, columns: int) -> np.ndarray:
    """A matrix `(rows, columns)`, float32, whose shorter side's vectors are orthonormal."""
    wide = rows < columns
    drawn = normal(key, (columns, rows) if wide else (rows, columns))
    q, diagonal = _qr(drawn)
    signed = q * np.sign(diagonal)
    return np.ascontiguousarray(signed.T if wide else signed)


def _qr(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q `(m, n)` and the diagonal of R, of a matrix of at least as many rows as columns."""
    m, n = matrix.shape
    a, tau = np.asfortranarray(matrix), np.empty(n, np.float32)
    _call("sgeqrf", (m, n), a, tau)
    diagonal = np.diagonal(a).copy()
    _call("sorgqr", (m, n, n), a, tau)
    return a, diagonal


def _call(name: str, sizes: tuple[int, ...], a: np.ndarray, tau: np.ndarray) -> None:
    """Call a function of LAPACK in place, with the workspace that it asks for, as jaxlib does."""
    function, info = _function(name), ctypes.c_int(0)
    size = np.empty(1, np.float32)
    for work, length in ((size, -1), (None, 0)):
        if work is None:
            length = int(size[0])
            work = np.empty(length, np.float32)
        integers = [ctypes.byref(ctypes.c_int(each)) for each in (*sizes, len(a))]
        function(*integers[:-1], a.ctypes, integers[-1], tau.ctypes, work.ctypes, ctypes.byref(ctypes.c_int(length)),
                 ctypes.byref(info))  # fmt: skip
    if info.value:
        raise RuntimeError(f"LAPACK's {name} refused its argument {-info.value}.")


@cache
def _function(name: str) -> Any:
    """A function of scipy's LAPACK."""
    capsule = _lapack().__pyx_capi__[name]
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(pointer_of(capsule, name_of(capsule)))


def _lapack() -> Any:
    """scipy's LAPACK, without the rest of `scipy.linalg`, whose import takes 0.12 s and this 0.03."""
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    scipy = find_spec("scipy")
    folder = Path(scipy.origin or "").parent / "linalg" if scipy is not None else Path()
    for file in (folder / f"cython_lapack{suffix}" for suffix in EXTENSION_SUFFIXES):
        if file.exists():
            loader = ExtensionFileLoader(_NAME, str(file))
            module = module_from_spec(spec_from_loader(_NAME, loader))  # type: ignore[arg-type]  # of a loader
            loader.exec_module(module)
            return module
    from scipy.linalg import cython_lapack  # type: ignore[import-untyped]  # scipy tells no types

    return cython_lapack
