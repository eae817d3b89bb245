"""Arrays by name from files of several kinds. No file is ever unpickled, not even one that asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from scanrnn_dist.encoder import read_safetensors
from scanrnn_dist.errors import ConfigError, DataError, StoppedError

Named = dict[str, Any]
Source = str | os.PathLike[str] | Mapping[str, Any]
"""A file, or arrays by name."""


def read_named(source: Source, readers: Mapping[str, Callable[[Path], Named]]) -> tuple[Named, str]:
    """Arrays by name and what to call their source in messages; a file is read by the reader of its suffix."""
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
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (BadZipFile, OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {error}") from error


def flat(tree: Any, kinds: tuple[Any, ...] = (Mapping,), path: tuple[str, ...] = ()) -> Named:
    """The leaves of nested containers of these kinds, mappings or lists, by dotted names.

    Example:
        >>> flat({"rnn": {"bias": 1}, "sizes": [2, 3]})
        {'rnn.bias': 1, 'sizes': [2, 3]}
    """
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
