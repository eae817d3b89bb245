"""The library itself: where it is, why it is not, and what it does without JAX."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

PATH = Path(__file__).parent / "cpp" / "libscanrnn.so"
OTHER_PATH = "SCANRNN_NATIVE_LIBRARY"
"""Environment variable with the path of another build, such as one with sanitizers; empty for none at all."""
LAYOUT = 2_056_080_016_024_024
"""`scanrnn_layout` in `cpp/ffi.cpp`: raised by 10**15 with each change of meaning; then the bytes of `Item`, `Queue`,
`Told`, `Layer` and `Part` in `cpp/task.h`."""


class Opened(NamedTuple):
    """The library: its path, and its functions."""

    path: Path
    functions: ctypes.CDLL


def opened() -> Opened | str:
    """The library; or why there is none, as a sentence."""
    other = os.environ.get(OTHER_PATH)
    if other == "":
        return f"The environment variable {OTHER_PATH} is empty, so no native kernel is looked for."
    return _opened(Path(other or PATH))


def copy_side_by_side(columns: Sequence[np.ndarray], values: np.ndarray) -> bool:
    """Copy `D` columns, each `(count,)` float32 and contiguous, into `values (count, D)`; False without the library."""
    library = opened()
    if isinstance(library, str):
        return False
    if any(column.shape != values.shape[:1] or column.dtype != np.float32 for column in columns):
        shapes = [(column.shape, str(column.dtype)) for column in columns]
        raise ValueError(f"The columns are {shapes}; expected float32 {values.shape[:1]} of each.")
    addresses = np.array([column.ctypes.data for column in columns], np.uint64)
    library.functions.scanrnn_side_by_side(addresses.ctypes.data, len(columns), len(values), values.ctypes.data)
    return True


@cache
def _opened(path: Path) -> Opened | str:
    if not path.exists():
        note = path.with_name("build.txt")  # of hatch_build.py
        not_built = "nobody built it; in a checkout run pip install -e . or python hatch_build.py"
        return f"There is no {path.name}: {note.read_text().strip() if note.exists() else not_built}."
    try:
        functions = ctypes.CDLL(str(path))
        functions.scanrnn_layout.restype = ctypes.c_int64
        if functions.scanrnn_layout() != LAYOUT:
            return (
                f"{path} was built from other sources than this version of the package. In a checkout run python "
                f"hatch_build.py; else install the package again, or unset {OTHER_PATH}."
            )
        functions.scanrnn_choose.restype = ctypes.c_char_p
        functions.scanrnn_packed_floats.restype = ctypes.c_int64
        functions.scanrnn_packed_floats.argtypes = [ctypes.c_void_p]
        functions.scanrnn_pack.argtypes = [ctypes.c_void_p] * 6
        functions.scanrnn_side_by_side.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        functions.scanrnn_side_by_side.restype = None
    except (OSError, AttributeError) as error:
        return f"{path.name} cannot be loaded: {error}"
    return Opened(path, functions)
