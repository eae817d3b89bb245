"""Layers from ONNX nodes compute what ONNX Runtime does, and nodes that no cell can be are refused."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from stepping import TOLERANCE, features_of, ragged_rows, states_of

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.weights import from_onnx, onnx_layers
from scanrnn_dist.weights.onnx import layer_of
from scanrnn_dist.weights.onnx_graph import Node

GOLDEN = Path(__file__).parents[1] / "golden"
D, H = 3, 4
GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("onnx_*.npz")))
def test_golden_files_of_onnx_runtime(name: str) -> None:
    _, kind, direction = name.split("_")
    node = Node(kind.upper(), "n", {"direction": direction, "linear_before_reset": 1}, (), ())
    with np.load(GOLDEN / f"{name}.npz") as file:
        weights = {f"{node.label} {key}": file[f"w/{key}"] for key in "WRB"}
        rows, features = np.split(file["rows"], np.cumsum(file["lengths"])[:-1]), file["features"]
    np.testing.assert_allclose(features_of([layer_of(node, weights)], rows), features, rtol=0, atol=TOLERANCE)


def test_vectors_of_onnx_runtime(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "gru_vectors" / "onnxruntime_gru_linear_before_reset.json").read_text())
    hidden, features = vectors["H"], vectors["D"]
    node = Node("GRU", "n", {"linear_before_reset": 1}, (), ())
    weights = {
        f"{node.label} W": np.reshape(np.float32(vectors["W"]), (1, 3 * hidden, features)),
        f"{node.label} R": np.reshape(np.float32(vectors["R"]), (1, 3 * hidden, hidden)),
        f"{node.label} B": np.concatenate([np.float32(vectors["Wb"]), np.zeros(3 * hidden, np.float32)])[None],
    }
    cell = layer_of(node, weights)
    for case in vectors["cases"]:
        for x, length, h, wanted in zip(
            np.float32(case["x"]), case["seq_lens"], np.float32(case["h0"]), case["expected_final_h"], strict=True
        ):
            with jax.default_matmul_precision("highest"):
                final = np.concatenate([h[None], states_of(cell, x[:length], h)])[-1]
            np.testing.assert_allclose(final, wanted, rtol=0, atol=TOLERANCE)


# From here on with the package onnx


def recurrent(kind: str, x: str, name: str, *, in_features: int = D, both: bool = False, **options: Any) -> Any:
    """A node and its weights; `without` leaves weights out, `inputs` are names of further inputs."""
    onnx = pytest.importorskip("onnx")
    without, inputs = options.pop("without", ()), options.pop("inputs", ())
    ways, rows = 1 + both, GATES[kind] * H
    shapes = {"W": (ways, rows, in_features), "R": (ways, rows, H), "B": (ways, 2 * rows)}
    generator = np.random.default_rng(len(name))
    weights = [
        onnx.numpy_helper.from_array(generator.uniform(-0.6, 0.6, shape).astype(np.float32), f"{name}.{key}")
        for key, shape in shapes.items()
        if key not in without
    ]
    given = ["" if key in without else f"{name}.{key}" for key in shapes]
    options = {"hidden_size": H, "direction": "bidirectional" if both else "forward"} | options
    if kind == "GRU":
        options.setdefault("linear_before_reset", 1)
    outputs = [f"{name}.Y", f"{name}.Y_h"]
    return onnx.helper.make_node(kind, [x, *given, *inputs], outputs, name=name, **options), weights


def save(path: Path, parts: list[Any], outputs: list[str], nodes: tuple[Any, ...] = ()) -> Path:
    """Write a model of recurrent nodes and further nodes, in this order of use."""
    onnx = pytest.importorskip("onnx")
    real = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node for part in parts for node in (part if isinstance(part, list) else [part[0]])] + list(nodes),
        "test",
        [onnx.helper.make_tensor_value_info("x", real, ["t", "b", D])],
        [onnx.helper.make_tensor_value_info(name, real, None) for name in outputs],
        [tensor for part in parts if not isinstance(part, list) for tensor in part[1]],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def operator(kind: str, inputs: list[str], output: str, **attributes: Any) -> list[Any]:
    return [pytest.importorskip("onnx").helper.make_node(kind, inputs, [output], **attributes)]


def constant(name: str, values: Any) -> list[Any]:
    onnx = pytest.importorskip("onnx")
    return operator("Constant", [], name, value=onnx.numpy_helper.from_array(np.asarray(values)))


def runtime_features(path: Path, output: str, rows: list[np.ndarray]) -> np.ndarray:
    """The last state of each row, one row at a time: Y_h is (directions, 1, H)."""
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.stack([session.run([output], {"x": row[:, None]})[0][:, 0].reshape(-1) for row in rows])


@pytest.mark.parametrize("without", [(), ("B",)])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", sorted(GATES))
def test_parity_of_one_node(kind: str, both: bool, without: tuple[str, ...], tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [recurrent(kind, "x", "n", both=both, without=without)], ["n.Y_h"])
    rows = ragged_rows([1, 12, 5], D)
    wanted = runtime_features(path, "n.Y_h", rows)
    np.testing.assert_allclose(features_of(onnx_layers(path), rows), wanted, rtol=0, atol=TOLERANCE)


def stacked(path: Path, kind: str, both: bool, between: list[Any] | None = None) -> Path:
    """Two nodes, the second fed by the first through what PyTorch writes, or through other operators."""
    if between is None and both:
        between = [
            operator("Transpose", ["a.Y"], "turned", perm=[0, 2, 1, 3]),
            constant("shape", [0, 0, -1]),
            operator("Reshape", ["turned", "shape"], "between"),
        ]
    elif between is None:
        between = [constant("axes", [1]), operator("Squeeze", ["a.Y", "axes"], "between")]
    second = recurrent(kind, "between", "second", in_features=(1 + both) * H, both=both)
    return save(path, [recurrent(kind, "x", "a", both=both), *between, second], ["second.Y_h"])


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", sorted(GATES))
def test_parity_of_a_stack(kind: str, both: bool, tmp_path: Path) -> None:
    path = stacked(tmp_path / "m.onnx", kind, both)
    rows = ragged_rows([1, 12, 5], D)
    layers = onnx_layers(path)
    assert len(layers) == 2
    wanted = runtime_features(path, "second.Y_h", rows)
    np.testing.assert_allclose(features_of(layers, rows), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "both"),
    [
        *(("GRU", False), ("GRU", True), ("LSTM", True), ("RNN", True)),
        *(pytest.param(kind, False, marks=pytest.mark.soak) for kind in ("LSTM", "RNN")),
    ],
)
def test_what_pytorch_exports(kind: str, both: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    rnn = getattr(torch.nn, kind)(D, H, num_layers=2, bidirectional=both, batch_first=True)
    path, x = tmp_path / "m.onnx", torch.randn(2, 6, D)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of itself
        axes = {"x": {0: "batch", 1: "time"}}
        torch.onnx.export(rnn, (x,), str(path), input_names=["x"], dynamic_axes=axes, dynamo=False)
    with torch.no_grad():
        final = rnn(x)[1]
    final = (final[0] if kind == "LSTM" else final)[-1 - both :].transpose(0, 1).reshape(2, -1).numpy()
    np.testing.assert_allclose(features_of(onnx_layers(path), list(x.numpy())), final, rtol=0, atol=TOLERANCE)


def test_one_gru_becomes_an_encoder(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [recurrent("GRU", "x", "n")], ["n.Y_h"])
    (row,) = ragged_rows([9], D)
    np.testing.assert_allclose(from_onnx(path)(row), runtime_features(path, "n.Y_h", [row])[0], rtol=0, atol=TOLERANCE)


# Which nodes


def batch_before_time() -> list[Any]:
    turned = operator("Transpose", ["a.Y"], "turned", perm=[2, 0, 1, 3])
    return [turned, constant("shape", [0, 0, -1]), operator("Reshape", ["turned", "shape"], "between")]


def rows_mixed_up() -> list[Any]:
    return [constant("shape", [0, -1, 2 * H]), operator("Reshape", ["a.Y", "shape"], "between")]


def something_else() -> list[Any]:
    return [
        constant("shape", [0, 0, -1]),
        operator("Relu", ["a.Y"], "r"),
        operator("Reshape", ["r", "shape"], "between"),
    ]


@pytest.mark.parametrize("between", [batch_before_time, rows_mixed_up, something_else])
def test_nodes_that_may_be_no_stack_have_to_be_named(between: Any, tmp_path: Path) -> None:
    path = stacked(tmp_path / "m.onnx", "GRU", True, between())
    with pytest.raises(ConfigError, match=r"not known to be one stack: \['a', 'second'\]"):
        onnx_layers(path)
    assert len(onnx_layers(path, node=["a", "second"])) == 2
    assert len(onnx_layers(path, node="a")) == 1
    with pytest.raises(ConfigError, match=r"no recurrent node 'b'; those it has: \['a', 'second'\]"):
        onnx_layers(path, node="b")
    with pytest.raises(DataError, match=r"GRU node 'a' W: \(2, 12, 3\), expected \(2, 12, 8\)"):
        onnx_layers(path, node=["second", "a"])


# What is refused


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("GRU", {"linear_before_reset": 0}, "linear_before_reset is 0"),
        ("GRU", {"clip": 3.0}, r"clip is 3\.0"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, r"activations are \['HardSigmoid', 'Tanh'\]; expected"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations are"),
        ("LSTM", {"input_forget": 1}, "input_forget couples"),
        ("GRU", {"direction": "reverse"}, "direction is 'reverse'; expected one of"),
        ("GRU", {"activation_alpha": [0.5]}, "activation_alpha is"),
        ("GRU", {"inputs": ("", "h0")}, r"initial_h \('h0'\) is not known to be zero"),
        ("LSTM", {"inputs": ("", "", "", "P")}, r"peepholes P \('P'\)"),
    ],
)
def test_what_a_cell_cannot_say_is_refused(kind: str, options: Any, reason: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [recurrent(kind, "x", "n", **options)], ["n.Y_h"])
    with pytest.raises(DataError, match=rf"{kind} node 'n': {reason}"):
        onnx_layers(path)


def test_activations_that_are_the_usual_ones_and_states_of_zeros_pass(tmp_path: Path) -> None:
    zeros = [constant("h0", np.zeros((1, 1, H), np.float32)), constant("shape", [1, 2, H])]
    zeros.append(operator("Expand", ["h0", "shape"], "h"))
    node = recurrent("GRU", "x", "n", activations=["Sigmoid", "tanh"], inputs=("", "h"))
    assert len(onnx_layers(save(tmp_path / "m.onnx", [*zeros, node], ["n.Y_h"]))) == 1


def test_nodes_without_names_are_called_by_the_outputs_that_they_have(tmp_path: Path) -> None:
    nodes = [recurrent("GRU", "x", name) for name in "ab"]
    for node, _ in nodes:
        node.name = node.output[0] = ""  # nothing reads Y
    path = save(tmp_path / "m.onnx", nodes, ["a.Y_h", "b.Y_h"])
    with pytest.raises(ConfigError, match=r"not known to be one stack: \['a.Y_h', 'b.Y_h'\]"):
        onnx_layers(path)
    assert len(onnx_layers(path, node=["b.Y_h"])) == 1


def test_missing_misshapen_and_computed_weights_are_refused(tmp_path: Path) -> None:
    node, weights = recurrent("GRU", "x", "n", hidden_size=5)
    with pytest.raises(DataError, match=r"n' W: \(1, 12, 3\), expected \(1, 15, 3\); .*R: .*B: \(1, 24\), expected"):
        onnx_layers(save(tmp_path / "m.onnx", [(node, weights)], ["n.Y_h"]))
    with pytest.raises(DataError, match=r"R of GRU node 'n' .* is an input of the graph; expected a constant"):
        onnx_layers(save(tmp_path / "m.onnx", [(node, weights[:1] + weights[2:])], ["n.Y_h"]))
    missing = recurrent("GRU", "x", "n", without=("R",))
    with pytest.raises(DataError, match="GRU node 'n' R: missing"):
        onnx_layers(save(tmp_path / "m.onnx", [missing], ["n.Y_h"]))


def test_files_that_are_none(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(ConfigError, match="There is no file"):
        onnx_layers(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(DataError, match="is not a readable ONNX file"):
        onnx_layers(tmp_path / "m.onnx")
    path = save(tmp_path / "m.onnx", [operator("Relu", ["x"], "y")], ["y"])
    with pytest.raises(DataError, match="no GRU, LSTM or RNN node; its operators are Relu"):
        onnx_layers(path)


def test_a_model_is_no_path() -> None:
    with pytest.raises(ConfigError, match=r"expected the path of a \.onnx file; onnx\.save\(model, path\) writes one"):
        onnx_layers(object())  # type: ignore[arg-type]


def test_without_onnx_its_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="needs the package 'onnx', which is not installed"):
        onnx_layers(tmp_path / "m.onnx")


def test_a_graph_with_many_paths_to_one_value_is_looked_at_once(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    zeros = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "h0")
    joined = [operator("Concat", [f"h{nth}"] * 2, f"h{nth + 1}", axis=0) for nth in range(32)]
    node, weights = recurrent("GRU", "x", "r", inputs=("", "h32"))
    path = save(tmp_path / "a.onnx", [*joined, (node, [*weights, zeros])], ["r.Y"])
    assert len(onnx_layers(path)) == 1
