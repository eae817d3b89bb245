"""Arrays by name: read from files of several kinds, and held against the names and shapes that are expected.

No file is ever unpickled, not even one that asks for it.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax.numpy as jnp
import numpy as np

from scanrnn_dist.encoder import read_safetensors
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.kinds import check_kind

Named = dict[str, Any]
Source = str | os.PathLike[str] | Mapping[str, Any]
"""A file, or arrays by name."""
BAD_ARCHIVE = (BadZipFile, zlib.error, EOFError, RuntimeError, OSError)
"""What reading a damaged zip archive raises; `RuntimeError` where it asks for a password, or an unknown method."""
MOST_COMPRESSION = 1032
"""Bytes that deflate, of zip and HDF5, makes of one at most (https://zlib.net/zlib_tech.html)."""
Shape = tuple[int | str, ...]
"""Of an array; a word stands for a size that nothing tells, and fits none."""


def read_named(source: Source, readers: Mapping[str, Callable[[Path], Named]], expected: str) -> tuple[Named, str]:
    """Arrays by name and what to call their source in messages; a file is read by the reader of its suffix.

    A source of another kind is refused with what is `expected`.
    """
    check_kind("source", source, Mapping | str | os.PathLike, expected)
    if isinstance(source, Mapping):
        return dict(source), "The mapping"
    path = checked_file(source)
    if path.suffix not in readers:
        raise ConfigError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(sorted(readers))}.")
    return readers[path.suffix](path), str(path)


def checked_file(source: str | os.PathLike[str]) -> Path:
    """The path of a file that is there and may be read; whether its bytes are sound is another question."""
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"There is no file {path} to read weights from.")
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise StoppedError(f"{path} could not be read: {error.strerror or error}. Check its access rights.") from error
    return path


def read_tensors(path: Path) -> Named:
    """All tensors of a safetensors file."""
    return read_safetensors(path)[0]


def read_npz(path: Path) -> Named:
    """All arrays of a file written by `numpy.savez`, in its order; an array of objects is refused, as it is pickled."""
    try:
        with open(path, "rb") as opened:
            if opened.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("it holds one array without a name, as numpy.save writes it")
            opened.seek(0)
            file = np.load(opened, allow_pickle=False)
            for member in file.zip.infolist():
                with file.zip.open(member) as array:
                    _check_header(member.filename, array, path.stat().st_size)
            return {name: file[name] for name in file.files}
    except (*BAD_ARCHIVE, ValueError) as error:
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {error}") from error


def _check_header(name: str, file: Any, file_bytes: int) -> None:
    """Check what the header of a file says that `numpy.save` wrote; one of another version is left to numpy."""
    magic = file.read(np.lib.format.MAGIC_LEN)
    readers = {b"\1\0": np.lib.format.read_array_header_1_0, b"\2\0": np.lib.format.read_array_header_2_0}
    if magic[:-2] == np.lib.format.MAGIC_PREFIX and magic[-2:] in readers:
        shape, _, dtype = readers[magic[-2:]](file)
        check_size(name, shape, dtype, file_bytes)


def check_size(name: str, shape: tuple[int, ...], dtype: np.dtype, file_bytes: int) -> None:
    """Refuse an array that a file of so many bytes cannot hold, before memory is asked for it.

    Raises:
        ValueError: it cannot.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > MOST_COMPRESSION * file_bytes:
        raise ValueError(f"{name} would be {nbytes:,} bytes, which a file of {file_bytes:,} bytes cannot hold")


def flat(tree: Any, kinds: tuple[Any, ...] = (Mapping,), path: tuple[str, ...] = ()) -> Named:
    """The leaves of nested containers of these kinds, mappings or lists, by dotted names."""
    if not isinstance(tree, kinds):
        return {".".join(path): tree}
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {name: leaf for key, value in items for name, leaf in flat(value, kinds, (*path, str(key))).items()}


def optional_module(name: str, why: str) -> Any:
    """A module that is not among our dependencies, or a `ConfigError` that says what it would be needed for."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{why} needs the package {name!r}, which is not installed: pip install {name}.") from error


def checked_weights(
    arrived: Mapping[str, Any],
    expected: Mapping[str, Shape],
    where: str,
    *,
    lossy_cast: bool = False,
    dtypes: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays as float32, or as the dtypes of their names, if they are exactly those expected, by name.

    Else a `DataError` lists every name that is missing, surplus, of another shape or type, not finite, or not exact,
    which `lossy_cast` lets through.
    """
    dtypes = dict.fromkeys(expected, np.dtype(np.float32)) if dtypes is None else dtypes
    arrays = {name: np.asarray(array) for name, array in arrived.items()}
    wrong = [f"{name}: missing, expected {shape}" for name, shape in expected.items() if name not in arrays]
    wrong += [f"{name}: {array.shape}, expected none" for name, array in arrays.items() if name not in expected]
    for name, shape in expected.items():
        if name in arrays:
            wrong += [f"{name}: {fault}" for fault in _faults(arrays[name], shape, dtypes[name], lossy_cast)]
    raise_if_any(wrong, where)
    return {name: arrays[name].astype(dtypes[name]) for name in expected}


def raise_if_any(wrong: list[str], where: str) -> None:
    """One error about all that is wrong."""
    if wrong:
        raise DataError(f"{where} holds other weights than its architecture asks for: " + "; ".join(wrong) + ".")


def _faults(array: np.ndarray, shape: Shape, dtype: Any, lossy_cast: bool) -> list[str]:
    """What is wrong with one array that should be of a shape and a dtype; empty if nothing is."""
    if array.shape != shape:
        return [f"{array.shape}, expected {shape}"]
    if not jnp.issubdtype(dtype, jnp.floating):  # a cell's own counter, which no rounding makes right
        return [] if np.can_cast(array.dtype, dtype) else [f"{array.dtype}, expected {dtype}"]
    if not jnp.issubdtype(array.dtype, jnp.floating):  # numpy does not count bfloat16
        kind = array.dtype if array.dtype.names is None else array.dtype.names[0]  # of a `stand_in`
        return [f"{kind}, expected floating point, dense, of 16 bits or more"]
    with np.errstate(over="ignore"):
        rounded = array.astype(dtype)
    if not np.isfinite(rounded).all():
        return [f"holds a NaN, an infinity or a number beyond {dtype}"]
    if not lossy_cast and not np.array_equal(rounded.astype(array.dtype), array):
        return [f"{array.dtype} holds numbers that {dtype} cannot; allow rounding with lossy_cast (--lossy-cast)"]
    return []
