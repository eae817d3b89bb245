"""Which arrays of a Keras model belong to which layer, by paths such as `gru_1/gru_cell/kernel`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.weights.files import Named

Parts = tuple[str, ...]
Cells = dict[Parts, Named]
"""Arrays by their last name, by the path of their cell."""

DIRECTIONS = ("forward", "backward")


def cells_by_name(arrays: Named, prefix: str | Sequence[str] | None, where: str) -> list[dict[str, Named]]:
    """Per layer the arrays of one or two directions, by their labels; the forward one first."""
    cells = _cells(arrays)
    layers = sorted({_layer(path) for path in cells})
    shown = ["/".join(layer) for layer in layers]
    if not layers:
        raise DataError(f"{where} holds no recurrent layer of Keras: no name ends in recurrent_kernel.")
    if prefix is None:
        if len(layers) > 1:
            raise ConfigError(
                f"{where} holds several recurrent layers: {shown}. Choose one with prefix (--prefix), or name all of a "
                "stack, first layer first."
            )
        prefix = [shown[0]]
    prefixes = [prefix] if isinstance(prefix, str) else prefix
    return [_chosen(cells, _parts(each), each, shown, where) for each in prefixes]


def _cells(arrays: Named) -> Cells:
    """All cells that have a recurrent kernel, with whatever else stands beside it."""
    cells: Cells = {}
    for name, array in arrays.items():
        *path, last = _parts(name)
        cells.setdefault(tuple(path), {})[last] = array
    return {path: named for path, named in cells.items() if "recurrent_kernel" in named}


def _chosen(cells: Cells, prefix: Parts, given: str, shown: list[str], where: str) -> dict[str, Named]:
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
    return {"/".join((*path, "")): cells[path] for path in below}


def _direction_number(path: Parts) -> int | None:
    """0 for a forward cell, 1 for a backward one; None for a cell that is neither."""
    for part in path:
        for number, direction in enumerate(DIRECTIONS):
            if part.startswith(direction):
                return number
    return None


def _layer(path: Parts) -> Parts:
    """The path of a cell up to where its direction is named."""
    for at, part in enumerate(path):
        if part.startswith(DIRECTIONS):
            return path[:at]
    return path


def _parts(name: str) -> Parts:
    """A path taken apart at slashes and dots, without the `:0` of older versions."""
    return tuple(part for part in re.split(r"[/.]", re.sub(r":\d+$", "", name)) if part)
