"""What is asked of an ONNX graph: its recurrent nodes, which feeds which, and which values are constant or zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.weights.files import optional_module

KINDS = ("GRU", "LSTM", "RNN")
PLAIN = ("Identity", "Dropout", "Cast")
"""Operators that leave the axes of their first input as they are; a dropout does nothing when a model is used."""
KEEP_ZEROS = (*PLAIN, "Expand", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Tile", "Gather")
"""Operators that make zeros of a first input of zeros."""
LONGEST_PATH = 32
"""Operators between two nodes that are followed; exporters write one to four."""


@dataclass(frozen=True)
class Node:
    """A recurrent node: its operator, its attributes as plain values, and the names of its inputs and outputs."""

    kind: str
    name: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.kind} node {self.name!r}"

    @property
    def direction(self) -> str:
        """`forward`, `bidirectional` or `reverse`."""
        return str(self.attributes.get("direction", "forward"))

    def input(self, number: int) -> str:
        """The name of an input; empty if it was left out."""
        return self.inputs[number] if number < len(self.inputs) else ""


class Graph:
    """An `onnx.GraphProto`, and what messages call it."""

    def __init__(self, graph: Any, where: str) -> None:
        self._onnx = optional_module("onnx", f"Reading {where}")
        self.where = where
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output if output}
        self._zeros: dict[str, bool] = {}
        self.nodes = [self._node(a) for a in graph.node if a.op_type in KINDS and a.domain in ("", "ai.onnx")]
        if not self.nodes:
            kinds = sorted({node.op_type for node in graph.node})
            raise DataError(f"{where} holds no GRU, LSTM or RNN node; its operators are {', '.join(kinds) or 'none'}.")

    def named(self, name: str) -> Node:
        """The recurrent node of a name."""
        if found := [node for node in self.nodes if node.name == name]:
            return found[0]
        raise ConfigError(f"{self.where} has no recurrent node {name!r}; those it has: {self._names()}.")

    def chain(self) -> list[Node]:
        """All recurrent nodes, each fed by the one before; a `ConfigError` if the graph does not make that certain."""
        before = {node.name: self._fed_by(node) for node in self.nodes}
        first = [node for node in self.nodes if before[node.name] is None]
        chain = first[:1]
        while chain and len(first) == 1:
            after = [node for node in self.nodes if before[node.name] == chain[-1].name]
            if len(after) != 1:
                break
            chain += after
        if len(chain) != len(self.nodes):
            raise ConfigError(
                f"{self.where} has several recurrent nodes that are not known to be one stack: {self._names()}. Choose "
                "one with node (--node), or name all of the stack, first layer first."
            )
        return chain

    def constant(self, value: str, what: str) -> np.ndarray:
        """A value as an array; refused if the graph computes it."""
        tensor = self._tensor(value)
        if tensor is None:
            producer = self._producers.get(value)
            made = "is an input of the graph" if producer is None else f"is computed by {producer.op_type}"
            raise DataError(
                f"{self.where}: {what} ({value!r}) {made}; expected a constant. Export the model with its weights "
                "within and with constants folded."
            )
        return np.asarray(self._onnx.numpy_helper.to_array(tensor))

    def is_zero(self, value: str, depth: int = 0) -> bool:
        """Whether a value is known to be all zeros, whatever the inputs of the graph are."""
        if value not in self._zeros:  # each is looked at once, though many paths may lead to it
            self._zeros[value] = self._is_zero(value, depth)
        return self._zeros[value]

    def _is_zero(self, value: str, depth: int) -> bool:
        tensor, producer = self._tensor(value), self._producers.get(value)
        if tensor is not None:
            return not self._onnx.numpy_helper.to_array(tensor).any()
        if producer is None or depth > LONGEST_PATH:
            return False
        if producer.op_type == "ConstantOfShape":
            filling = self._attributes(producer).get("value")
            return filling is None or not self._onnx.numpy_helper.to_array(filling).any()
        if producer.op_type == "Concat":
            return all(self.is_zero(each, depth + 1) for each in producer.input)
        return producer.op_type in KEEP_ZEROS and self.is_zero(producer.input[0], depth + 1)

    def _fed_by(self, node: Node) -> str | None:
        """The name of the recurrent node whose output is the input of this one, its directions side by side.

        Walks back from the input to an output Y, then forward again with the names of Y's axes through each operator.
        """
        path: list[Any] = []
        value = node.inputs[0]
        by_output = {node.outputs[0]: node for node in self.nodes if node.outputs[0]}
        while value not in by_output:
            producer = self._producers.get(value)
            followed = (*PLAIN, "Transpose", "Reshape", "Squeeze")
            if producer is None or producer.op_type not in followed or len(path) == LONGEST_PATH:
                return None
            path.append(producer)
            value = producer.input[0]
        feeding = by_output[value]
        axes = "btdh" if feeding.attributes.get("layout", 0) else "tdbh"
        for operator in reversed(path):
            axes = self._axes_after(operator, axes, one_way=feeding.direction == "forward")
        wanted = "bth" if node.attributes.get("layout", 0) else "tbh"
        return feeding.name if axes == wanted else None

    def _axes_after(self, operator: Any, axes: str, *, one_way: bool) -> str:
        """The axes (t, b, d for direction, h) after an operator; empty where they cannot be told."""
        if operator.op_type in PLAIN:
            return axes
        if operator.op_type == "Transpose":
            order = self._attributes(operator).get("perm", range(len(axes))[::-1])
            return "".join(axes[place] for place in order) if len(order) == len(axes) else ""
        if operator.op_type == "Squeeze":
            places = self._squeezed(operator)
            left = "".join(axis for place, axis in enumerate(axes) if place not in places)
            return left if one_way and left == axes.replace("d", "") else ""
        shape = self._tensor(operator.input[1])
        rank = 3 if shape is None else self._onnx.numpy_helper.to_array(shape).size
        merges = axes[2:] == "dh" or (one_way and "d" in axes and axes[-1:] == "h")
        return axes.replace("d", "") if rank == 3 and len(axes) == 4 and merges else ""

    def _squeezed(self, operator: Any) -> list[int]:
        """The axes that a Squeeze removes, given as an attribute by older models and as an input by newer ones."""
        given = self._attributes(operator).get("axes")
        if given is None and len(operator.input) > 1 and (tensor := self._tensor(operator.input[1])) is not None:
            given = self._onnx.numpy_helper.to_array(tensor).reshape(-1)
        return [int(place) % 4 for place in (() if given is None else given)]

    def _tensor(self, value: str) -> Any:
        """The tensor of a constant; None for a value that is computed or comes from outside."""
        for _ in range(LONGEST_PATH):
            producer = self._producers.get(value)
            if value in self._initializers or producer is None or producer.op_type != "Identity":
                break
            value = producer.input[0]
        if value in self._initializers:
            return self._initializers[value]
        return self._attributes(producer).get("value") if producer and producer.op_type == "Constant" else None

    def _node(self, node: Any) -> Node:
        attributes = {name: _text(value) for name, value in self._attributes(node).items()}
        name = node.name or next(filter(None, node.output), "")
        return Node(node.op_type, name, attributes, tuple(node.input), tuple(node.output))

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {attribute.name: self._onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

    def _names(self) -> list[str]:
        return [node.name for node in self.nodes]


def _text(value: Any) -> Any:
    """Bytes, and lists of them, as text; anything else as it is."""
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value
