"""What `scanrnn encoder` prints of an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scanrnn_dist.cli.printing import indented, print_result

if TYPE_CHECKING:
    from scanrnn_dist.encoder import Encoder

MOST_VALUES = 6
"""Of a vocabulary that are printed."""


@dataclass(frozen=True)
class _Description:
    """What an encoder is: what it computes, its cells, options and input, and the shapes of its parameters."""

    summary: str
    architecture: dict[str, Any]
    in_features: int
    out_features: int
    parameters: dict[str, list[int]]
    fingerprint: str

    def __str__(self) -> str:
        from scanrnn_dist.weights import flat

        summary = self.summary
        lines = [summary[:1].upper() + summary[1:]]
        architecture = dict(self.architecture)
        columns = architecture.pop("input", {"column": []})["column"]
        sections = [
            ("cells:", {name: _cell_line(cell) for name, cell in _cells(architecture.pop("layers"))}),
            ("options:", flat(architecture, (dict, list))),
            ("parameters:", self.parameters),
        ]
        if columns:
            sections.insert(
                0, ("input:", {f"{n}. {each['name']}": _column_line(each) for n, each in enumerate(columns, 1)})
            )
        for title, values in sections:
            width = max(map(len, values), default=0)
            lines += [title, indented("\n".join(f"{name:{width}}  {value}" for name, value in values.items()))]
        return "\n".join([*lines, f"fingerprint: {self.fingerprint}"])


def print_encoder(encoder: Encoder, as_json: bool) -> None:
    """Print what an encoder is, or JSON of it."""
    from scanrnn_dist.encoder import in_words

    sizes = encoder.in_features, encoder.out_features
    told = _Description(in_words(encoder), encoder.architecture, *sizes, _shapes(encoder), encoder.fingerprint)
    print_result(told, as_json)


def _shapes(encoder: Encoder) -> dict[str, list[int]]:
    """The shapes of all parameters by name."""
    import numpy as np
    from flax import nnx

    from scanrnn_dist.encoder import value_of

    leaves = nnx.to_flat_state(nnx.state(encoder, nnx.Param))
    shapes = {".".join(map(str, path)): list(np.shape(value_of(leaf))) for path, leaf in leaves if path[0] == "layers"}
    return shapes | {
        f"input.{name}": list(shape) for name, shape in (encoder.input.tables if encoder.input else {}).items()
    }


def _column_line(column: dict[str, Any]) -> str:
    """What a person reads of a column of an input: `category, size 100000, encode embedding, dimension 32`."""
    values = column.get("values", [])
    long = {"values": f"{len(values):,}, {values[0]!r} to {values[-1]!r}"} if len(values) > MOST_VALUES else {}
    told = [f"{key} {value}" for key, value in (column | long).items() if key not in ("name", "kind")]
    return ", ".join([column["kind"], *told])


def _cells(layers: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The descriptions of all cells, by the names that begin those of their parameters."""
    for number, layer in enumerate(layers):
        if "forward" not in layer:
            yield f"layers.{number}", layer
        else:
            yield from ((f"layers.{number}.{way}", layer[way]) for way in ("forward", "backward"))


def _cell_line(cell: dict[str, Any]) -> str:
    """What a person reads of a cell: `GRUCell, activation_fn tanh, ...`; what is not set is left out."""
    told = [f"{key} {value}" for key, value in cell.items() if key != "cell" and value not in (None, False)]
    return ", ".join([cell["cell"], *told])
