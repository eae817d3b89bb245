"""Keras: layers from the weights of `GRU`, `LSTM` and `SimpleRNN`, as `get_weights()` gives them or by their names.

Keras multiplies from the right as flax does. Its gates are z r h for a GRU and i f c o for an LSTM; flax has r z n and
i f g o. The bias of a GRU of `reset_after=True` is `(2, 3H)`: input bias, then recurrent bias. With `reset_after=False`
the reset gate multiplies h before the product, `n = tanh(x W_in + (r * h) W_hn + b_n)`, which is another function:
no weights make a cell of flax compute it, so it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanrnn_dist.encoder import Encoder, Layer
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.weights.cells import Direction, cell_of, kind_of, layers_of, reordered
from scanrnn_dist.weights.files import Named, Shape, Source, checked_weights, raise_if_any, read_named
from scanrnn_dist.weights.keras_files import READERS, Parts, check_settings, parts_of

NAMES = ("kernel", "recurrent_kernel", "bias")
"""Of the arrays of one direction, in the order of `get_weights()`."""
GRU_ORDER = (1, 0, 2)
"""Where r, z and n stand in z r h."""
RESET_AFTER_FALSE = (
    "it is a GRU of reset_after=False, which multiplies h by the reset gate before the matrix product; that is another "
    "function than the cells of flax and PyTorch compute. Train one of reset_after=True, the default of Keras"
)


DIRECTIONS = ("forward", "backward")
_BACKWARD = re.compile(r"backward_(layer|lstm|gru|simple_rnn)(_\d+)?").fullmatch


@dataclass(frozen=True)
class Cell:
    """The arrays of one direction of one layer, and how messages call it."""

    label: str
    arrays: Named
    kind: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """`hidden_features` and the columns of both kernels."""
        return np.shape(self.arrays["recurrent_kernel"])


def from_keras(
    source: Source | Sequence[Any],
    *,
    kind: str | None = None,
    prefix: str | Sequence[str] | None = None,
    bidirectional: bool = False,
    reset_after: bool | None = None,
    lossy_cast: bool = False,
    **options: Any,
) -> Encoder:
    """An `Encoder` with the weights of Keras layers; see `keras_layers`. `options` are those of `Encoder`."""
    layers = keras_layers(
        source, kind=kind, prefix=prefix, bidirectional=bidirectional, reset_after=reset_after, lossy_cast=lossy_cast
    )
    return Encoder(layers, **options)


def keras_layers(
    source: Source | Sequence[Any],
    *,
    kind: str | None = None,
    prefix: str | Sequence[str] | None = None,
    bidirectional: bool = False,
    reset_after: bool | None = None,
    lossy_cast: bool = False,
) -> list[Layer]:
    """The layers of a Keras `GRU`, `LSTM` or `SimpleRNN`, first layer first.

    Activations leave no trace in weights: they have to be Keras' own (tanh, and sigmoid for gates). Where a file holds
    the model's configuration too, that is checked.

    Args:
        source: the arrays of `layer.get_weights()`; or a list of such lists, a stack; or arrays by name (`kernel`,
            `recurrent_kernel`, `bias`, with any path before them), as a mapping, a `.npz` or a `.safetensors` file; or
            a file of Keras, `.weights.h5`, `.keras` or the older `.h5` (h5py has to be installed).
        kind: `gru`, `lstm` or `rnn`; told by the shapes if left out.
        prefix: with names, the path of the layer, or of every layer of a stack, first layer first; may be left out if
            there is one only.
        bidirectional: with lists, that each is of a `Bidirectional` layer: forward arrays, then backward ones. Names
            say it themselves, by `forward…` and `backward…` in their paths.
        reset_after: has to be told for a GRU without biases, whose shapes do not tell; False is refused.
        lossy_cast: round weights that float32 cannot hold.

    Raises:
        ConfigError: arrays or prefixes that can be read in several ways, or `reset_after` is needed.
        DataError: lists every weight that is missing, surplus or misshapen; or the GRU is of `reset_after=False`, or
            the prefix that of a backward cell alone.

    Example:
        >>> H, D = 4, 3
        >>> kernel, recurrent_kernel, bias = np.zeros((D, 3 * H)), np.zeros((H, 3 * H)), np.zeros((2, 3 * H))
        >>> keras_layers([kernel, recurrent_kernel, bias])[0].hidden_features
        4
    """
    if isinstance(source, Sequence) and not isinstance(source, str):
        if prefix is not None:
            raise ConfigError(f"prefix is {prefix!r}; lists of arrays have no names. Leave it out.")
        where, named = "The list", _cells_of_lists(source, bidirectional)
    else:
        expected = "the list layer.get_weights(), arrays by name, or the path of a file of model.save_weights(path)"
        arrays, where = read_named(source, READERS, expected)
        named = _cells_of_names(arrays, prefix, where)
        if bidirectional and (single := [label for layer in named if len(layer) == 1 for label in layer]):
            raise ConfigError(f"bidirectional is True, and {where} has one cell of {single[0]!r}. Leave it out.")
        if not isinstance(source, Mapping):
            check_settings(Path(source), [parts_of(cell) for layer in named for cell in layer], _cells(arrays), where)
    layers = [[_cell(label, arrays, where, kind) for label, arrays in layer.items()] for layer in named]
    _refuse_reset_before(layers, where, reset_after)
    cells = [cell for layer in layers for cell in layer]
    arrived = {f"{cell.label}{name}": array for cell in cells for name, array in cell.arrays.items()}
    weights = checked_weights(arrived, _expected(layers), where, lossy_cast=lossy_cast)
    return layers_of([cell_of(cell.kind, _direction(cell, weights)) for cell in layer] for layer in layers)


def _cells_of_lists(source: Sequence[Any], bidirectional: bool) -> list[dict[str, Named]]:
    """Per layer the arrays of one or two directions, by their labels, from one list of arrays or a list of such."""
    stack = source if source and isinstance(source[0], list | tuple) else [source]
    directions = ["forward ", "backward "] if bidirectional else [""]
    layers = []
    for number, arrays in enumerate(stack):
        each, left = divmod(len(arrays), len(directions))
        if left or each not in (2, 3):
            raise ConfigError(
                f"Layer {number} has {len(arrays)} arrays; expected kernel, recurrent_kernel and maybe bias"
                f"{' for both directions' if bidirectional else ''}. For a stack give a list of lists, for a "
                "Bidirectional layer say bidirectional=True."
            )
        named = [dict(zip(NAMES, arrays[each * i : each * (i + 1)], strict=False)) for i in range(len(directions))]
        layers.append({f"layer {number} {way}": one for way, one in zip(directions, named, strict=True)})
    return layers


def _cells_of_names(arrays: Named, prefix: str | Sequence[str] | None, where: str) -> list[dict[str, Named]]:
    """Per layer the arrays of one or two directions, by their labels; the forward one first."""
    cells = _cells(arrays)
    layers = sorted({_layer(path) for path in cells})
    if not layers:
        raise DataError(f"{where} holds no recurrent layer of Keras: no name ends in recurrent_kernel.")
    shown = ["/".join(layer) for layer in layers]
    if prefix is None:
        if len(layers) > 1:
            raise ConfigError(
                f"{where} holds several recurrent layers: {shown}. Choose one with prefix (--prefix), or name all of a "
                "stack, first layer first."
            )
        prefix = [shown[0]]
    prefixes = [prefix] if isinstance(prefix, str) else prefix
    return [_chosen(cells, parts_of(each), each, shown, where) for each in prefixes]


def _cells(arrays: Named) -> dict[Parts, Named]:
    """All cells that have a recurrent kernel, with whatever else stands beside it."""
    cells: dict[Parts, Named] = {}
    for name, array in arrays.items():
        *path, last = parts_of(name)
        cells.setdefault(tuple(path), {})[last] = array
    return {path: named for path, named in cells.items() if "recurrent_kernel" in named}


def _chosen(cells: dict[Parts, Named], prefix: Parts, given: str, shown: list[str], where: str) -> dict[str, Named]:
    """The one or two cells below a prefix."""
    below = [path for path in cells if path[: len(prefix)] == prefix]
    below.sort(key=lambda path: _direction_number(path) or 0)
    if len(below) not in (1, 2) or (len(below) == 2 and [_direction_number(path) for path in below] != [0, 1]):
        raise ConfigError(
            f"{where} has {len(below)} recurrent cells below {given!r}; expected one, or a forward and a backward one. "
            f"Choose a prefix among {shown}."
        )
    number = _direction_number(below[0])
    # A prefix that ends before the direction is named means both.
    if len(below) == 1 and number is not None and _direction_number(below[0][: len(prefix)]) is None:
        raise DataError(f"{where} has only the {DIRECTIONS[number]} cell of {given!r}.")
    if len(below) == 1 and number == 1 and _reads_backward(cells, below[0]):
        raise DataError(
            f"{where}: {given!r} is a backward cell, which reads from the end; no encoder of one direction does. "
            f"Choose a prefix among {shown}."
        )
    return {"/".join((*path, "")): cells[path] for path in below}


def _direction_number(path: Parts) -> int | None:
    """0 for a forward cell, 1 for a backward one; None for a cell that is neither."""
    found = (number for part in path for number, way in enumerate(DIRECTIONS) if part.startswith(way))
    return next(found, None)


def _reads_backward(cells: Iterable[Parts], backward: Parts) -> bool:
    """Whether a cell that is called backward is one, by Keras's own names or a forward one beside it."""
    layer = _layer(backward)
    has_forward = any(path[: len(layer)] == layer and _direction_number(path[len(layer) :]) == 0 for path in cells)
    return has_forward or _BACKWARD(backward[len(layer)]) is not None


def _layer(path: Parts) -> Parts:
    """The path of a cell up to where its direction is named."""
    return path[: next((at for at, part in enumerate(path) if part.startswith(DIRECTIONS)), None)]


def _cell(label: str, arrays: Named, where: str, told: str | None) -> Cell:
    """One direction, its kind told by its recurrent kernel."""
    shape = np.shape(arrays["recurrent_kernel"])
    if len(shape) != 2:
        raise_if_any([f"{label}recurrent_kernel: {shape}, expected (hidden, gates * hidden)"], where)
    hidden_features, columns = shape
    return Cell(label, arrays, kind_of(columns, hidden_features, f"{where}, {label}".rstrip(" ,"), told))


def _refuse_reset_before(layers: list[list[Cell]], where: str, reset_after: bool | None) -> None:
    """Refuse GRUs of `reset_after=False`, by the word of the user or by the shape of their biases."""
    for cells in layers:
        if cells[0].kind != "gru":
            continue
        biases = [np.shape(cell.arrays["bias"]) for cell in cells if "bias" in cell.arrays]
        label, flat = f"{where}, {cells[0].label}".rstrip(" ,/"), [bias for bias in biases if len(bias) == 1]
        if reset_after is False or flat:
            shape = f" its bias has shape {flat[0]}; expected (2, {flat[0][0]}):" if flat else ""
            raise DataError(f"{label} cannot be imported:{shape} {RESET_AFTER_FALSE}.")
        if not biases and reset_after is None:
            raise ConfigError(
                f"{label} is a GRU without bias, whose shapes do not tell its equations: say reset_after=True "
                "(--reset-after) if that is how its layer was made."
            )


def _expected(layers: list[list[Cell]]) -> dict[str, Shape]:
    """Names and shapes of whole layers, each of which takes what the one before gives."""
    expected: dict[str, Shape] = {}
    D: int | str | None = None
    for cells in layers:
        has_bias = any("bias" in cell.arrays for cell in cells)
        if D is None:
            kernel = np.shape(cells[0].arrays.get("kernel", ()))
            D = kernel[0] if len(kernel) == 2 else "in_features"
        for cell in cells:
            hidden_features, columns = cell.sizes
            expected[f"{cell.label}kernel"] = (D, columns)
            expected[f"{cell.label}recurrent_kernel"] = (hidden_features, columns)
            if has_bias:
                expected[f"{cell.label}bias"] = (2, columns) if cell.kind == "gru" else (columns,)
        D = sum(cell.sizes[0] for cell in cells)
    return expected


def _direction(cell: Cell, weights: Mapping[str, np.ndarray]) -> Direction:
    """The weights of a cell in flax's gate order."""
    W_i, W_h = weights[f"{cell.label}kernel"], weights[f"{cell.label}recurrent_kernel"]
    bias = weights.get(f"{cell.label}bias")
    if cell.kind != "gru":
        return Direction(W_i, W_h, b_i=bias)
    W_i, W_h = reordered(W_i, GRU_ORDER, 1), reordered(W_h, GRU_ORDER, 1)
    b_i, b_h = (None, None) if bias is None else reordered(bias, GRU_ORDER, 1)
    return Direction(W_i, W_h, b_i, b_h)
