"""Writes the golden files beside it: weights, rows, and what PyTorch or ONNX Runtime makes of them.

    python tests/golden/make_golden.py

With them the base suite checks parity where neither is installed. Each `.npz` holds `rows` (all rows, one after the
other), `lengths`, `features`, and the weights under `w/`, by the names of their framework.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

HERE = Path(__file__).parent
IN_FEATURES, HIDDEN = 3, 4
LENGTHS = [5, 1, 3]

TORCH = {
    "torch_gru": ("GRU", {}),
    "torch_gru_no_bias": ("GRU", {"bias": False}),
    "torch_gru_2_bidirectional": ("GRU", {"num_layers": 2, "bidirectional": True}),
    "torch_lstm": ("LSTM", {}),
    "torch_lstm_no_bias": ("LSTM", {"bias": False}),
    "torch_lstm_2_bidirectional": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "torch_rnn_tanh": ("RNN", {}),
    "torch_rnn_relu_2": ("RNN", {"num_layers": 2, "nonlinearity": "relu"}),
}
ONNX = {
    "onnx_gru_forward": ("GRU", "forward"),
    "onnx_gru_bidirectional": ("GRU", "bidirectional"),
    "onnx_lstm_forward": ("LSTM", "forward"),
    "onnx_lstm_bidirectional": ("LSTM", "bidirectional"),
    "onnx_rnn_forward": ("RNN", "forward"),
}
GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def rows_of(generator: np.random.Generator) -> list[np.ndarray]:
    return [generator.normal(size=(length, IN_FEATURES)).astype(np.float32) for length in LENGTHS]


def write(name: str, rows: list[np.ndarray], features: np.ndarray, weights: dict[str, np.ndarray]) -> None:
    named = {f"w/{key}": value for key, value in weights.items()}
    np.savez_compressed(
        HERE / f"{name}.npz", rows=np.concatenate(rows), lengths=np.array(LENGTHS), features=features, **named
    )


def torch_case(name: str, kind: str, options: dict) -> None:
    torch.manual_seed(len(name))
    rnn = getattr(torch.nn, kind)(IN_FEATURES, HIDDEN, **options)
    rows = rows_of(np.random.default_rng(len(name)))
    packed = torch.nn.utils.rnn.pack_sequence([torch.from_numpy(row) for row in rows], enforce_sorted=False)
    with torch.no_grad():
        final = rnn(packed)[1]
    final = final[0] if kind == "LSTM" else final
    directions = 2 if options.get("bidirectional") else 1
    features = final[-directions:].transpose(0, 1).reshape(len(rows), -1).numpy()
    write(name, rows, features, {key: value.numpy() for key, value in rnn.state_dict().items()})


def onnx_case(name: str, kind: str, direction: str) -> None:
    generator = np.random.default_rng(len(name))
    ways, gates = 1 + (direction == "bidirectional"), GATES[kind] * HIDDEN
    shapes = {"W": (ways, gates, IN_FEATURES), "R": (ways, gates, HIDDEN), "B": (ways, 2 * gates)}
    weights = {key: generator.uniform(-0.6, 0.6, shape).astype(np.float32) for key, shape in shapes.items()}
    rows = rows_of(generator)
    padded = np.zeros((max(LENGTHS), len(rows), IN_FEATURES), np.float32)
    for at, row in enumerate(rows):
        padded[: len(row), at] = row
    attributes = {"hidden_size": HIDDEN, "direction": direction} | ({"linear_before_reset": 1} if kind == "GRU" else {})
    node = helper.make_node(kind, ["x", "W", "R", "B", "lengths"], ["", "h"], **attributes)
    graph = helper.make_graph(
        [node],
        "golden",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, padded.shape),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, [len(rows)]),
        ],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, [ways, len(rows), HIDDEN])],
        [onnx.numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    final = session.run(["h"], {"x": padded, "lengths": np.array(LENGTHS, np.int32)})[0]
    write(name, rows, final.transpose(1, 0, 2).reshape(len(rows), -1), weights)


if __name__ == "__main__":
    for name, (kind, options) in TORCH.items():
        torch_case(name, kind, options)
    for name, (kind, direction) in ONNX.items():
        onnx_case(name, kind, direction)
