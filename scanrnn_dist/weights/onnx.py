"""ONNX: layers from the GRU, LSTM and RNN nodes of a `.onnx` file.

ONNX multiplies from the left, so kernels are transposed; its gates are z r h for a GRU and i o f c for an LSTM, where
flax has r z n and i f g o. B holds the input biases, then the recurrent ones. A GRU of `linear_before_reset=0`
multiplies h by the reset gate before the product; that is another function than flax's, so it is refused. What else a
node can say and a cell cannot (clipping, other activations, peepholes, coupled gates, a first state that is not zero)
is refused too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanrnn_dist.encoder import Encoder, Layer
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.kinds import check_kind
from scanrnn_dist.weights.cells import GATES, Direction, cell_of, layers_of, reordered
from scanrnn_dist.weights.files import Named, Shape, checked_file, checked_weights, optional_module
from scanrnn_dist.weights.onnx_graph import Graph, Node

ORDER = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}
"""Where flax's gates stand among those of ONNX."""
ACTIVATIONS = {"GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh"), "RNN": ("tanh",)}
"""What a node has unless it says otherwise, per direction."""
WAYS = {"forward": 1, "bidirectional": 2}


def from_onnx(
    path: str | os.PathLike[str], *, node: str | Sequence[str] | None = None, lossy_cast: bool = False, **options: Any
) -> Encoder:
    """An `Encoder` with the weights of nodes of an ONNX file; see `onnx_layers`. `options` are those of `Encoder`."""
    return Encoder(onnx_layers(path, node=node, lossy_cast=lossy_cast), **options)


def onnx_layers(
    path: str | os.PathLike[str], *, node: str | Sequence[str] | None = None, lossy_cast: bool = False
) -> list[Layer]:
    """The layers that the GRU, LSTM and RNN nodes of a file make, first layer first.

    What the graph does before the first and after the last of them is not looked at.

    Args:
        path: a `.onnx` file; the package onnx has to be installed.
        node: the name of the node to take, or of all nodes of a stack, first layer first. May be left out if there is
            one only, or if the graph leads the output of each to the next by nothing but transpositions and reshapes.
        lossy_cast: round weights that float32 cannot hold.

    Raises:
        ConfigError: no such file or node, nodes to choose from, or the package onnx is missing.
        DataError: the file is damaged, a node is of a kind that no cell can be, or weights are missing or misshapen.
    """
    check_kind("path", path, str | os.PathLike, "the path of a .onnx file; onnx.save(model, path) writes one")
    graph = _read_graph(Path(path))
    names = [node] if isinstance(node, str) else node
    nodes = graph.chain() if names is None else [graph.named(name) for name in names]
    refusals = [f"{one.label}: {reason}" for one in nodes for reason in _refusals(one, graph)]
    if refusals:
        raise DataError(f"{path} holds what no cell of flax computes: " + "; ".join(refusals) + ".")
    arrived = {f"{one.label} {name}": array for one in nodes for name, array in _arrays(one, graph).items()}
    weights = checked_weights(arrived, _expected(nodes, graph), str(path), lossy_cast=lossy_cast)
    return [layer_of(one, weights) for one in nodes]


def _read_graph(path: Path) -> Graph:
    """The graph of a file, weights kept in files beside it included."""
    onnx = optional_module("onnx", f"Reading {path}")
    checked_file(path)
    try:
        return Graph(onnx.load(path).graph, str(path))
    except Exception as error:  # protobuf has errors of its own, by its version and backend
        if isinstance(error, (ConfigError, DataError)):
            raise
        raise DataError(f"{path} is not a readable ONNX file: {error}") from error


def _refusals(node: Node, graph: Graph) -> list[str]:
    """Why a node cannot become a cell: all reasons."""
    said, reasons = node.attributes, []
    if node.direction not in WAYS:
        reasons.append(f"direction is {node.direction!r}; expected one of {sorted(WAYS)}")
    if node.kind == "GRU" and not said.get("linear_before_reset", 0):
        reasons.append(
            "linear_before_reset is 0: the reset gate multiplies h before the matrix product, which is another "
            "function; only 1 can be imported (PyTorch exports it)"
        )
    if "clip" in said:
        reasons.append(f"clip is {said['clip']}; cells do not clip")
    if said.get("input_forget", 0):
        reasons.append("input_forget couples the gates")
    if _activations(node) is None:
        reasons.append(f"activations are {said['activations']}; expected {list(ACTIVATIONS[node.kind])} per direction")
    for name in ("activation_alpha", "activation_beta"):
        if said.get(name):
            reasons.append(f"{name} is {said[name]}; cells scale no activation")
    for name, number in {"initial_h": 5, "initial_c": 6, "peepholes P": 7}.items():
        value = node.input(number)
        if value and not graph.is_zero(value):
            reasons.append(f"{name} ({value!r}) is not known to be zero; expected none, or a constant of zeros")
    return reasons


def _activations(node: Node) -> tuple[str, ...] | None:
    """The activations of each direction, if a cell can have them: the usual ones, or relu for a plain RNN."""
    usual, ways = ACTIVATIONS[node.kind], WAYS.get(node.direction, 1)
    given = tuple(name.lower() for name in node.attributes.get("activations", usual * ways))
    possible = [usual, ("relu",)] if node.kind == "RNN" else [usual]
    return next((each for each in possible if given == each * ways), None)


def _arrays(node: Node, graph: Graph) -> Named:
    """W, R and, if there is one, B."""
    names = {name: node.input(number) for number, name in ((1, "W"), (2, "R"), (3, "B"))}
    return {name: graph.constant(value, f"{name} of {node.label}") for name, value in names.items() if value}


def _expected(nodes: list[Node], graph: Graph) -> dict[str, Shape]:
    """Names and shapes of whole nodes, each of which takes what the one before gives."""
    expected: dict[str, Shape] = {}
    D: Any = None
    for node in nodes:
        arrays = _arrays(node, graph)
        W, R = np.shape(arrays.get("W", ())), np.shape(arrays.get("R", ()))
        H: Any = node.attributes.get("hidden_size", R[2] if len(R) == 3 else "hidden_size")
        rows: Any = GATES[node.kind.lower()] * H if isinstance(H, int) else "gates * hidden_size"
        if D is None:
            D = W[2] if len(W) == 3 else "in_features"
        ways = WAYS[node.direction]
        expected[f"{node.label} W"] = (ways, rows, D)
        expected[f"{node.label} R"] = (ways, rows, H)
        if "B" in arrays:
            expected[f"{node.label} B"] = (ways, 2 * rows if isinstance(rows, int) else rows)
        D = ways * H if isinstance(H, int) else H
    return expected


def layer_of(node: Node, weights: dict[str, np.ndarray]) -> Layer:
    """The cell or the pair of cells of a node; `weights` are `LABEL W`, `LABEL R` and maybe `LABEL B`."""
    order, activations = ORDER[node.kind], _activations(node) or ()
    W, R, B = weights[f"{node.label} W"], weights[f"{node.label} R"], weights.get(f"{node.label} B")
    cells = []
    for way in range(WAYS[node.direction]):
        b_i, b_h = (None, None) if B is None else (reordered(half, order, 0) for half in np.split(B[way], 2))
        direction = Direction(reordered(W[way], order, 0).T, reordered(R[way], order, 0).T, b_i, b_h)
        cells.append(cell_of(node.kind.lower(), direction, activations[0]))
    return layers_of([cells])[0]
