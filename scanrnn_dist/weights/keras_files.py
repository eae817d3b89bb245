"""Arrays by name from the files that Keras writes, and what their configuration says that arrays do not.

    model.weights.h5  Keras 3, `model.save_weights`: layers/gru/cell/vars/1
    model.keras       Keras 3, `model.save`: a zip archive of a model.weights.h5 and a config.json
    model.h5          the older format of `model.save`: model_weights/gru/gru/gru_cell/recurrent_kernel

No code of a file is run: the configuration is JSON, and only looked at.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

from scanrnn_dist.errors import DataError
from scanrnn_dist.weights.files import Named, optional_module, read_npz, read_tensors

VARIABLES = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}
"""What the numbered variables of a cell are, in a `.weights.h5` file of Keras 3."""
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_OLD_ROOT = "model_weights/"
_CLASSES = {"GRU": "gru", "LSTM": "lstm", "SimpleRNN": "simple_rnn", "RNN": "rnn", "Bidirectional": "bidirectional"}
"""Recurrent layers, and what the weights' paths call the first of each class in Keras 3."""
_USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True, "merge_mode": "concat"}


def check_settings(path: Path, cells: list[str], where: str) -> None:
    """Refuse layers whose configuration, where a file has one, asks for another function than the cells compute.

    `cells` are the paths of the chosen ones. Refused are another activation than Keras' own, `go_backwards`,
    `reset_after=False` and another `merge_mode`.
    """
    layers = list(_layers(_config(path)))
    for names, reasons in layers:
        if reasons and (len(layers) == 1 or any(names & set(cell.split("/")) for cell in cells)):
            raise DataError(
                f"{where}: the layer {min(names)!r} has {', '.join(reasons)}, which the cells here do not compute. "
                "Expected a layer with the defaults of Keras."
            )


def _read_h5(path: Path) -> Named:
    """The variables of all recurrent cells of an HDF5 file of either format."""
    h5py = optional_module("h5py", f"Reading {path}")
    try:
        with h5py.File(path, "r") as file:
            return _arrays(h5py, file)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} is not a readable HDF5 file: {error}") from error


def _read_archive(path: Path) -> Named:
    """The same of a `.keras` archive."""
    if not is_zipfile(path):
        return _read_h5(path)  # Keras 2 wrote HDF5 under any name
    h5py = optional_module("h5py", f"Reading {path}")
    try:
        with ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
            return _arrays(h5py, file)
    except (OSError, RuntimeError, KeyError, BadZipFile) as error:
        raise DataError(
            f"{path} is not a readable .keras archive with a {_WEIGHTS}: {error}. Save the weights alone, with "
            f"model.save_weights('{path.stem}.weights.h5')."
        ) from error


def _arrays(h5py: Any, file: Any) -> Named:
    numbered, plain = Named(), Named()

    def visit(name: str, item: object) -> None:
        *cell, parent, last = ("", "", *name.split("/"))
        if not isinstance(item, h5py.Dataset) or "optimizer" in name.split("/")[0]:
            return
        if parent == "vars" and cell[-1] == "cell" and last in VARIABLES:
            numbered["/".join([*cell, VARIABLES[last]])] = np.asarray(item)
        elif parent != "vars":
            plain[name.removeprefix(_OLD_ROOT)] = np.asarray(item)

    file.visititems(visit)
    return numbered or plain


def _config(path: Path) -> Any:
    """The configuration of the model, None where the file has none."""
    text: Any = None
    if path.suffix == ".keras" and is_zipfile(path):
        with ZipFile(path) as archive:
            text = archive.read(_CONFIG) if _CONFIG in archive.namelist() else None
    elif path.suffix in (".h5", ".hdf5", ".keras"):
        with optional_module("h5py", f"Reading {path}").File(path, "r") as file:
            text = file.attrs.get("model_config")
    try:
        return None if text is None else json.loads(text)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} has a damaged configuration: {error}") from error


def _layers(config: Any) -> Iterator[tuple[set[str], list[str]]]:
    """Of every recurrent layer the names its weights may stand under, and what is unusual in it."""
    seen: dict[str, int] = {}
    for layer in _found(config):
        inner, name = layer.get("config") or {}, _CLASSES[layer["class_name"]]
        number = seen[name] = seen.get(name, -1) + 1
        yield {str(inner.get("name", name)), f"{name}_{number}" if number else name}, list(_unusual(inner))


def _found(tree: Any) -> Iterator[Mapping[str, Any]]:
    """The configurations of recurrent layers, in their order, none within another."""
    if isinstance(tree, list):
        for item in tree:
            yield from _found(item)
    elif isinstance(tree, dict):
        if tree.get("class_name") in _CLASSES:
            yield tree
        else:
            for item in tree.values():
                yield from _found(item)


def _unusual(config: Any, is_backward: bool = False) -> Iterator[str]:
    """What a layer, or the cell or the layers within it, has that is not the default."""
    for key, usual in _USUAL.items():
        if key in config and config[key] != usual:
            yield f"{key}={config[key]!r}"
    if bool(config.get("go_backwards", is_backward)) != is_backward:
        yield f"go_backwards={config['go_backwards']}"
    for key in ("layer", "backward_layer", "cell"):
        if isinstance(config.get(key), dict):
            yield from _unusual(config[key].get("config") or {}, is_backward=key == "backward_layer")


READERS = {".npz": read_npz, ".safetensors": read_tensors, ".h5": _read_h5, ".hdf5": _read_h5, ".keras": _read_archive}
