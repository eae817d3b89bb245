"""Arrays by name from the files that Keras writes, and what their configuration says that arrays do not.

    model.weights.h5  Keras 3, `model.save_weights`: layers/gru/cell/vars/1, layers/rnn/cell/cells/gru_cell/vars/1
    model.keras       Keras 3, `model.save`: a zip archive of a model.weights.h5 and a config.json
    model.h5          the older format of `model.save`: model_weights/gru/gru/gru_cell/recurrent_kernel

No code of a file is run: the configuration is JSON, and only looked at.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile, is_zipfile

import numpy as np

from scanrnn_dist.errors import DataError
from scanrnn_dist.weights.files import BAD_ARCHIVE, Named, check_size, optional_module, read_npz, read_tensors

VARIABLES = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}
"""What the numbered variables of a cell are, in a `.weights.h5` file of Keras 3."""
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_OLD_ROOT = "model_weights/"
_CLASSES = {"GRU", "LSTM", "SimpleRNN", "RNN", "Bidirectional"}
"""Recurrent layers."""
_CELLS = {"GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"}
_PACKAGES = {"keras", "keras_core", "tf_keras", "tensorflow"}
"""What layers of Keras' own come from, in its several editions."""
_USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True, "merge_mode": "concat"}


Parts = tuple[str, ...]
"""A path, such as that of `gru_1/gru_cell/kernel`."""


def parts_of(name: str) -> Parts:
    """A path taken apart at slashes and dots, without the `:0` of older versions."""
    return tuple(part for part in re.split(r"[/.]", re.sub(r":\d+$", "", name)) if part)


class Place(NamedTuple):
    """Where the configuration has a layer, by which its weights are found."""

    path: Parts  # in files of Keras 3, such as that of layers/functional/layers/gru_1
    names: Parts  # in the older format: the layer's own name, after those of the layers that it stands in

    def holds(self, cell: Parts) -> bool:
        """Whether a cell with this path is the layer's."""
        outer, *_, own = *self.names, self.names[-1]
        is_named = cell[:1] == (outer,) and (len(self.names) == 1 or own in cell[1:])
        return is_named or cell[: len(self.path)] == self.path


def check_settings(path: Path, chosen: Collection[Parts], cells: Collection[Parts], where: str) -> None:
    """Refuse layers whose configuration, where a file has one, asks for another function than the cells compute.

    Given are the paths of the chosen cells, and of all of the file. Refused are classes of one's own, another
    activation than Keras' own, `go_backwards`, `reset_after=False` and another `merge_mode`. A chosen cell whose layer
    is not found may be that of any layer whose cells are not found.
    """
    layers = list(_layers(_config(path)))
    is_unknown = any(not any(place.holds(cell) for place, _ in layers) for cell in chosen)
    for place, reasons in layers:
        is_lost = is_unknown and not any(place.holds(cell) for cell in cells)
        if reasons and (len(layers) == 1 or is_lost or any(place.holds(cell) for cell in chosen)):
            raise DataError(
                f"{where}: the layer {place.names[-1]!r} has {', '.join(reasons)}, which the cells here do not "
                "compute. Expected a layer of Keras with its defaults. If it computes what such a layer does, give its "
                "arrays alone, in Python: from_keras(layer.get_weights())."
            )


def _read_h5(path: Path) -> Named:
    """The variables of all recurrent cells of an HDF5 file of either format."""
    h5py = optional_module("h5py", f"Reading {path}")
    try:
        with h5py.File(path, "r") as file:
            return _arrays(h5py, file, path.stat().st_size)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} is not a readable HDF5 file: {error}") from error


def _read_archive(path: Path) -> Named:
    """The same of a `.keras` archive."""
    if not is_zipfile(path):
        return _read_h5(path)  # Keras 2 wrote HDF5 under any name
    h5py = optional_module("h5py", f"Reading {path}")
    try:
        with ZipFile(path) as archive:
            content = archive.read(_WEIGHTS)
        with h5py.File(io.BytesIO(content), "r") as file:
            return _arrays(h5py, file, len(content))
    except (*BAD_ARCHIVE, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable .keras archive with a {_WEIGHTS}: {error}. Save the weights alone, with "
            f"model.save_weights('{path.stem}.weights.h5')."
        ) from error


def _arrays(h5py: Any, file: Any, file_bytes: int) -> Named:
    numbered, plain = Named(), Named()

    def visit(name: str, item: object) -> None:
        *cell, parent, last = ("", "", *name.split("/"))
        if not isinstance(item, h5py.Dataset) or "optimizer" in name.split("/")[0]:
            return
        check_size(name, item.shape or (), item.dtype, file_bytes)
        is_cell = cell[-1] == "cell" or cell[-3:-1] == ["cell", "cells"]  # the second: of RNN([cell, cell])
        if parent == "vars" and is_cell and last in VARIABLES:
            numbered["/".join([*cell, VARIABLES[last]])] = np.asarray(item)
        elif parent != "vars":
            plain[name.removeprefix(_OLD_ROOT)] = np.asarray(item)

    file.visititems(visit)
    return numbered or plain


def _config(path: Path) -> Any:
    """The configuration of the model, None where the file has none."""
    text: Any = None
    try:
        if path.suffix == ".keras" and is_zipfile(path):
            with ZipFile(path) as archive:
                text = archive.read(_CONFIG) if _CONFIG in archive.namelist() else None
        elif path.suffix in (".h5", ".hdf5", ".keras"):
            with optional_module("h5py", f"Reading {path}").File(path, "r") as file:
                text = file.attrs.get("model_config")
        return None if text is None else json.loads(text)
    except (*BAD_ARCHIVE, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} has a damaged configuration: {error}") from error


def _layers(config: Any) -> Iterator[tuple[Place, list[str]]]:
    """Of every recurrent layer the place, and what is unusual in it."""
    for place, layer in _found(config, Place((), ())):
        yield place, list(_unusual(layer))


def _found(tree: Any, place: Place) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """The configurations of recurrent layers, in their order, none within another, and where each stands."""
    if isinstance(tree, list):
        counts: Counter[str] = Counter()  # Keras 3 numbers the layers of each list anew, by their classes
        for item in tree:
            name = _snake_case(item["class_name"]) if _is_layer(item) else ""
            number = counts[name]
            counts[name] += 1
            step = (f"{name}_{number}" if number else name,) if name else ()
            yield from _found(item, Place(place.path + step, place.names))
    elif isinstance(tree, dict):
        if place.path and _is_layer(tree):  # the outermost one is the model
            name = tree["config"].get("name", tree.get("name", place.path[-1]))
            place = Place(place.path, place.names + parts_of(str(name)))
        if _is_recurrent(tree):
            yield place if place.names else Place(place.path, ("",)), tree
            return
        for key, item in tree.items():
            is_own = key == "config" and "class_name" in tree
            yield from _found(item, place if is_own else Place((*place.path, key), place.names))


def _is_layer(tree: Any) -> bool:
    return isinstance(tree, dict) and isinstance(tree.get("class_name"), str) and isinstance(tree.get("config"), dict)


def _snake_case(name: str) -> str:
    """What Keras 3 makes of the name of a class: `simple_rnn` of `SimpleRNN`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_recurrent(tree: Mapping[str, Any]) -> bool:
    """Whether it is a recurrent layer, by its class or by what only such a one is configured with."""
    config = tree["config"] if _is_layer(tree) else {}
    is_bidirectional = "merge_mode" in config and _is_layer(config.get("layer"))
    is_like_one = "recurrent_initializer" in config or _is_layer(config.get("cell")) or is_bidirectional
    return is_like_one or tree.get("class_name") in _CLASSES


def _is_of_keras(layer: Mapping[str, Any]) -> bool:
    """Whether a layer or cell is of a class of Keras' own; a file of the older format may say no module."""
    package = str(layer.get("module", "keras")).split(".")[0]
    return layer["class_name"] in _CLASSES | _CELLS and package in _PACKAGES


def _unusual(layer: Mapping[str, Any], part: str = "") -> Iterator[str]:
    """What a layer, or the cells or the layers within it, has that is not the default; a `part` is of another layer."""
    config, is_backward = layer.get("config") or {}, part == "backward_layer"
    if not _is_of_keras(layer):
        yield f"{f'a {part} of ' if part else ''}the class {layer['class_name']!r}"
    for key, usual in _USUAL.items():
        if key in config and config[key] != usual:
            yield f"{key}={config[key]!r}"
    if bool(config.get("go_backwards", is_backward)) != is_backward:
        yield f"go_backwards={config['go_backwards']}"
    stacked = config.get("cells")
    within = [("cell", cell) for cell in stacked] if isinstance(stacked, list) else []
    within += [(key, config.get(key)) for key in ("layer", "backward_layer", "cell")]
    for key, inner in within:
        if _is_layer(inner):
            yield from _unusual(inner, key)


READERS = {".npz": read_npz, ".safetensors": read_tensors, ".h5": _read_h5, ".hdf5": _read_h5, ".keras": _read_archive}
