"""Layers from Keras' weights compute the equations of Keras, which `oracle` writes out in float64."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import oracle
import pytest
import safetensors.numpy
from flax import nnx
from stepping import features_of, ragged_rows, states_of

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.weights import from_keras, keras_layers

TOLERANCE = 1e-6  # the bound of the design against float64
D, H = 3, 4
GATES = {"gru": "zrn", "lstm": "ifgo", "rnn": ("",)}  # Keras writes h for n and c for g
STEPS = {"gru": oracle.gru_steps, "lstm": oracle.lstm_steps, "rnn": oracle.rnn_steps}


def keras_arrays(kind: str, in_features: int = D, *, bias: bool = True, seed: int = 0) -> list[np.ndarray]:
    """Random arrays of `get_weights()`; those of a GRU are of `reset_after=True`."""
    columns = len(GATES[kind]) * H
    shapes = [(in_features, columns), (H, columns), (2, columns) if kind == "gru" else (columns,)]
    generator = np.random.default_rng(seed)
    return [generator.uniform(-0.6, 0.6, shape).astype(np.float32) for shape in shapes[: 2 + bias]]


def letters(kind: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The same by the letters of the oracle, float64; a bias that is not there is zero."""
    kernel, recurrent = arrays[0].astype(np.float64), arrays[1].astype(np.float64)
    biases = np.zeros((2, kernel.shape[1]))
    if len(arrays) == 3:
        biases[: np.atleast_2d(arrays[2]).shape[0]] = arrays[2]
    weights = {}
    for at, gate in enumerate(GATES[kind]):
        own = slice(at * H, at * H + H)
        weights |= {f"W_i{gate}": kernel[:, own], f"W_h{gate}": recurrent[:, own]}
        weights |= {f"b_i{gate}": biases[0, own], f"b_h{gate}": biases[1, own]}
    return weights


def direction(kind: str, arrays: list[np.ndarray]) -> Any:
    return partial(STEPS[kind], letters(kind, arrays))


def assert_computes(layers: list[Any], written: list[list[Any]]) -> None:
    rows = ragged_rows([1, 12, 5], D)
    wanted = np.stack([oracle.features(written, row.astype(np.float64)) for row in rows])
    np.testing.assert_allclose(features_of(layers, rows), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", sorted(GATES))
def test_one_layer_has_the_equations_of_keras(kind: str, bias: bool) -> None:
    arrays = keras_arrays(kind, bias=bias)
    assert_computes(keras_layers(arrays, kind=kind, reset_after=True), [[direction(kind, arrays)]])


@pytest.mark.parametrize("kind", sorted(GATES))
def test_bidirectional_stacks(kind: str) -> None:
    first = [keras_arrays(kind, seed=1), keras_arrays(kind, seed=2)]
    second = [keras_arrays(kind, 2 * H, seed=3), keras_arrays(kind, 2 * H, seed=4)]
    layers = keras_layers([first[0] + first[1], second[0] + second[1]], bidirectional=True)
    assert_computes(layers, [[direction(kind, arrays) for arrays in layer] for layer in (first, second)])


def test_a_stack_may_be_of_several_kinds() -> None:
    gru, lstm = keras_arrays("gru"), keras_arrays("lstm", H, seed=1)
    layers = keras_layers([gru, lstm])
    assert_computes(layers, [[direction("gru", gru)], [direction("lstm", lstm)]])
    assert [type(layer) for layer in layers] == [nnx.GRUCell, nnx.OptimizedLSTMCell]


def test_one_gru_becomes_an_encoder() -> None:
    arrays = keras_arrays("gru")
    (row,) = ragged_rows([9], D)
    wanted = oracle.gru(letters("gru", arrays), row)
    np.testing.assert_allclose(from_keras(arrays)(row), wanted, rtol=0, atol=TOLERANCE)


def test_vectors_of_keras(shared_data: Path) -> None:
    cases = json.loads((shared_data / "gru_vectors" / "keras_gru_golden.json").read_text())["cases"]
    for case in cases:
        x, units = np.asarray(case["x"], np.float32), np.shape(case["expected_final_h"])[1]
        kernel = np.full((x.shape[2], 3 * units), case["kernel_const"], np.float32)
        recurrent = np.full((units, 3 * units), case["recurrent_const"], np.float32)
        bias = np.full((2, 3 * units), [[case["input_bias_const"]], [case["recurrent_bias_const"]]], np.float32)
        (cell,) = keras_layers([kernel, recurrent, bias])
        with jax.default_matmul_precision("highest"):
            final = [states_of(cell, row, np.float32(h))[-1] for row, h in zip(x, case["h0"], strict=True)]
        tolerance = case["source_tolerance"]["atol"]  # as many digits as were published
        np.testing.assert_allclose(final, case["expected_final_h"], rtol=0, atol=tolerance)


# Names


def named(path: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{path}{name}": array for name, array in zip(("kernel", "recurrent_kernel", "bias"), arrays, strict=False)}


@pytest.mark.parametrize("path", ["", "gru/gru_cell/", "model.gru."])
def test_names_at_any_path(path: str) -> None:
    arrays = keras_arrays("gru")
    model = named(path, arrays) | {"dense/kernel": np.zeros((4, 2)), "dense/bias": np.zeros(2)}
    assert_computes(keras_layers(model), [[direction("gru", arrays)]])
    assert_computes(keras_layers({f"{name}:0": array for name, array in model.items()}), [[direction("gru", arrays)]])


def test_names_of_stacks_and_directions() -> None:
    arrays = [keras_arrays("lstm", seed=1), keras_arrays("lstm", seed=2), keras_arrays("gru", 2 * H, seed=3)]
    model = named("bi/backward_lstm/lstm_cell/", arrays[1]) | named("bi/forward_lstm/lstm_cell/", arrays[0])
    both = [direction("lstm", arrays[0]), direction("lstm", arrays[1])]
    assert_computes(keras_layers(model), [both])
    model |= named("gru/gru_cell/", arrays[2])
    assert_computes(keras_layers(model, prefix="bi"), [both])
    assert_computes(keras_layers(model, prefix="bi/forward_lstm"), [both[:1]])
    for prefix in ("bi/backward_lstm", "bi/backward_lstm/lstm_cell"):
        with pytest.raises(DataError, match=rf"'{prefix}' is a backward cell, .* Choose a prefix among \['bi', "):
            keras_layers(model, prefix=prefix)
    with pytest.raises(ConfigError, match=r"several recurrent layers: \['bi', 'gru/gru_cell'\]"):
        keras_layers(model)
    with pytest.raises(ConfigError, match="has 0 recurrent cells below 'gr'"):
        keras_layers(model, prefix="gr")
    with pytest.raises(ConfigError, match=r"bidirectional is True, and .* has one cell of 'gru/gru_cell/'. Leave it"):
        keras_layers(model, prefix=["bi", "gru"], bidirectional=True)
    assert_computes(keras_layers(model, prefix="bi", bidirectional=True), [both])
    with pytest.raises(ConfigError, match="prefix is 'bi'; lists of arrays have no names"):
        keras_layers(arrays[0], prefix="bi")
    layers = keras_layers(model, prefix=["bi", "gru"])
    assert isinstance(layers[0], tuple) and isinstance(layers[1], nnx.GRUCell)
    assert layers[1].in_features == 2 * H
    for name in [name for name in model if "backward" in name]:
        del model[name]
    with pytest.raises(DataError, match="has only the forward cell of 'bi'"):
        keras_layers(model, prefix="bi")
    with pytest.raises(DataError, match="'backward_lstm' is a backward cell"):
        keras_layers(named("backward_lstm/", arrays[1]), prefix="backward_lstm")
    plain = keras_layers(named("backward_net/lstm/lstm_cell/", arrays[1]), prefix="backward_net/lstm")
    assert_computes(plain, [both[1:]])


def test_npz_and_safetensors_files(tmp_path: Path) -> None:
    arrays = keras_arrays("gru")
    np.savez(tmp_path / "gru.npz", **named("gru/", arrays))
    safetensors.numpy.save_file(named("gru/", arrays), tmp_path / "gru.safetensors")
    for name in ("gru.npz", "gru.safetensors"):
        assert_computes(keras_layers(tmp_path / name), [[direction("gru", arrays)]])


@pytest.mark.parametrize("content", ["noise", "objects", "one array"])
def test_damaged_or_pickled_npz_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "gru.npz"
    if content == "noise":
        path.write_bytes(b"PK\x03\x04" + bytes(64))
    elif content == "one array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    else:
        np.savez(path, kernel=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"gru\.npz is not a readable \.npz file of plain arrays"):
        keras_layers(path)


@pytest.mark.parametrize("kind", ["npz", "one array", "h5", "keras"])
def test_a_file_that_claims_more_than_it_can_hold_is_damaged(kind: str, tmp_path: Path) -> None:
    header, h5 = io.BytesIO(), io.BytesIO()
    array = {"descr": "<f4", "fortran_order": False, "shape": (1 << 21, 1 << 20)}
    np.lib.format.write_array_header_1_0(header, array)
    with pytest.importorskip("h5py").File(h5, "w") as file:
        file.create_dataset("layers/gru/cell/vars/0", array["shape"], "f4", chunks=(8, 8))
    path = tmp_path / ("gru.npz" if kind == "one array" else f"gru.{kind}")
    if kind in ("npz", "keras"):
        with zipfile.ZipFile(path, "w") as archive:
            name, content = ("kernel.npy", header) if kind == "npz" else ("model.weights.h5", h5)
            archive.writestr(name, content.getvalue())
    else:
        path.write_bytes((h5 if kind == "h5" else header).getvalue())
    said = "holds one array" if kind == "one array" else "would be 8,796,093,022,208 bytes, which a file of"
    with pytest.raises(DataError, match=said):
        keras_layers(path)


@pytest.mark.parametrize("places", [100, pytest.param(800, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", ["savez", "savez_compressed", "keras", "keras_compressed"])
def test_an_archive_with_any_byte_changed_is_read_or_told_as_damaged(kind: str, places: int, tmp_path: Path) -> None:
    path, arrays = tmp_path / ("m.keras" if "keras" in kind else "gru.npz"), keras_arrays("gru")
    if "keras" in kind:
        compression = zipfile.ZIP_DEFLATED if kind == "keras_compressed" else zipfile.ZIP_STORED
        write_archive(path, {"gru": arrays}, [layer_config()], compression)
    else:
        getattr(np, kind)(path, **named("gru/", arrays))
    good, told = path.read_bytes(), 0
    for place in range(0, len(good), 1 + len(good) // places):
        path.write_bytes(good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :])
        try:
            keras_layers(path, reset_after=True)
        except DataError:
            told += 1
    assert told


def test_h5_files(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    arrays = keras_arrays("gru")
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        for number, array in enumerate(arrays):
            file[f"layers/gru/cell/vars/{number}"] = array
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = np.zeros((4, 2)), np.zeros(2)
    assert_computes(keras_layers(tmp_path / "model.weights.h5"), [[direction("gru", arrays)]])


def layer_config(name: str = "gru", class_name: str = "GRU", **changed: Any) -> dict[str, Any]:
    own = {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False, "reset_after": True}
    return {"class_name": class_name, "config": {"name": name, **own, **changed}, "name": name}


def write_legacy(path: Path, layers: dict[str, list[np.ndarray]], configs: list[Any], suffix: str = "") -> None:
    """What `model.save("m.h5")` writes; Keras 2 ends the names of variables in ":0"."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": configs}})
        for name, arrays in layers.items():
            for array_name, array in named(f"{name}/{name}/gru_cell/", arrays).items():
                file[f"model_weights/{array_name}{suffix}"] = array
                file[f"optimizer_weights/Adam/m/{array_name}{suffix}"] = array * 0
        file["model_weights/dense/dense/kernel"] = np.zeros((4, 2))


def write_archive(
    path: Path, layers: dict[str, list[np.ndarray]], configs: list[Any], compression: int = zipfile.ZIP_STORED
) -> None:
    """What `model.save("m.keras")` writes."""
    h5py = pytest.importorskip("h5py")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, arrays in layers.items():
            for number, array in enumerate(arrays):
                file[f"layers/{name}/cell/vars/{number}"] = array
        file["optimizer/vars/0"] = np.zeros(3)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": configs}}))
        archive.writestr("model.weights.h5", content.getvalue())


@pytest.mark.parametrize("suffix", ["", ":0"])
def test_h5_files_of_the_older_format(suffix: str, tmp_path: Path) -> None:
    arrays = keras_arrays("gru")
    write_legacy(tmp_path / "m.h5", {"gru": arrays}, [layer_config()], suffix)
    for prefix in (None, "gru"):
        assert_computes(keras_layers(tmp_path / "m.h5", prefix=prefix), [[direction("gru", arrays)]])


def test_keras_archives(tmp_path: Path) -> None:
    arrays, path = keras_arrays("gru"), tmp_path / "m.keras"
    write_archive(path, {"gru": arrays}, [layer_config("encoder")])
    assert_computes(keras_layers(path), [[direction("gru", arrays)]])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"m\.keras is not a readable"):
        keras_layers(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(
        DataError, match=r"\.keras archive with a model\.weights\.h5.*model\.save_weights\('m\.weights\.h5'\)"
    ):
        keras_layers(path)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"activation": "relu"}, "activation='relu'"),
        ({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation='hard_sigmoid'"),
        ({"go_backwards": True}, "go_backwards=True"),
        ({"reset_after": False}, "reset_after=False"),
    ],
)
@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_what_the_configuration_says_and_weights_do_not_is_checked(
    kind: str, changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path, write = tmp_path / f"m.{kind}", write_legacy if kind == "h5" else write_archive
    layers = {"gru": keras_arrays("gru"), "gru_1": keras_arrays("gru", seed=1)}
    write(path, layers, [layer_config("gru"), layer_config("gru_1", **changed)])
    assert_computes(keras_layers(path, prefix="gru" if kind == "h5" else "layers/gru"),
                    [[direction("gru", layers["gru"])]])  # fmt: skip
    with pytest.raises(DataError, match=f"the layer 'gru_1' has {says}, which the cells here do not compute"):
        keras_layers(path, prefix="gru_1" if kind == "h5" else "layers/gru_1")


def nested(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Functional", "name": name, "config": {"name": name, "layers": list(layers)}}


@pytest.mark.parametrize("changed", [{"activation": "relu"}, {"go_backwards": True}])
def test_layers_of_a_model_within_the_model_are_checked(changed: dict[str, Any], tmp_path: Path) -> None:
    path, inner = tmp_path / "m.keras", "functional/layers/gru"
    arrays = {"gru": keras_arrays("gru"), inner: keras_arrays("gru", seed=1)}
    write_archive(path, arrays, [layer_config("outer"), nested("model", layer_config("inner", **changed))])
    assert_computes(keras_layers(path, prefix="layers/gru"), [[direction("gru", arrays["gru"])]])
    with pytest.raises(DataError, match="the layer 'inner' has "):
        keras_layers(path, prefix=f"layers/{inner}")
    # The other way round: what is unusual outside does not speak for what is inside, which Keras calls "gru" too.
    write_archive(path, arrays, [layer_config("outer", **changed), nested("model", layer_config("gru"))])
    assert_computes(keras_layers(path, prefix=f"layers/{inner}"), [[direction("gru", arrays[inner])]])
    with pytest.raises(DataError, match="the layer 'outer' has "):
        keras_layers(path, prefix="layers/gru")


def test_each_model_within_the_model_numbers_its_layers_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    paths = ["functional/layers/gru", "functional_1/layers/gru", "functional_1/layers/gru_1"]
    unusual = layer_config("c", activation="relu")
    configs = [nested("one", layer_config("a")), nested("two", layer_config("b"), unusual)]
    arrays = {path: keras_arrays("gru", seed=seed) for seed, path in enumerate(paths)}
    write_archive(path, arrays, configs)
    for name in paths[:2]:
        assert_computes(keras_layers(path, prefix=f"layers/{name}"), [[direction("gru", arrays[name])]])
    with pytest.raises(DataError, match="the layer 'c' has activation='relu'"):
        keras_layers(path, prefix=f"layers/{paths[2]}")


def test_layers_of_a_model_within_the_model_are_checked_in_the_older_format(tmp_path: Path) -> None:
    h5py, path = pytest.importorskip("h5py"), tmp_path / "m.h5"
    arrays = {"outer/outer": keras_arrays("gru"), "model/gru": keras_arrays("gru", seed=1)}
    config = nested("all", layer_config("outer"), nested("model", layer_config("gru", activation="relu")))
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        for name, own in arrays.items():
            for array_name, array in named(f"{name}/gru_cell/", own).items():
                file[f"model_weights/{array_name}"] = array
    assert_computes(keras_layers(path, prefix="outer"), [[direction("gru", arrays["outer/outer"])]])
    with pytest.raises(DataError, match="the layer 'gru' has activation='relu'"):
        keras_layers(path, prefix="model")


def test_an_unusual_layer_that_is_not_found_may_be_the_chosen_one(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    arrays = {"gru": keras_arrays("gru"), "own_block/rnn": keras_arrays("gru", seed=1)}
    block = {"class_name": "OwnBlock", "config": {"name": "block", "layer": layer_config("x", activation="relu")}}
    write_archive(path, arrays, [layer_config("gru"), block])  # the block calls its layer "rnn", its config "layer"
    assert_computes(keras_layers(path, prefix="layers/gru"), [[direction("gru", arrays["gru"])]])
    with pytest.raises(DataError, match="the layer 'x' has activation='relu'"):
        keras_layers(path, prefix="layers/own_block")


def test_both_directions_are_looked_at(tmp_path: Path) -> None:
    from scanrnn_dist.weights.keras_files import _layers

    def reasons(**config: Any) -> list[str]:
        ((_, found),) = _layers([layer_config("bi", "Bidirectional", **config)])
        return found

    both = {"layer": layer_config(), "backward_layer": layer_config(go_backwards=True)}
    assert reasons(merge_mode="concat", **both) == []
    assert reasons(merge_mode="sum", **both) == ["merge_mode='sum'"]
    assert reasons(layer=layer_config(activation="relu")) == ["activation='relu'"]
    assert reasons(layer=both["layer"], backward_layer=layer_config()) == ["go_backwards=False"]


def test_each_of_stacked_cells_is_looked_at(tmp_path: Path) -> None:
    h5py, path, arrays = pytest.importorskip("h5py"), tmp_path / "m.h5", keras_arrays("gru")
    for activation in ("tanh", "relu"):
        cells = [layer_config("a", "GRUCell"), layer_config("b", "GRUCell", activation=activation)]
        stacked = {"class_name": "StackedRNNCells", "config": {"name": "stacked", "cells": cells}}
        config = {"class_name": "RNN", "config": {"name": "rnn", "cell": stacked}}
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": [config]}})
            for name, array in named("model_weights/rnn/rnn/b/", arrays).items():
                file[name] = array
        if activation == "tanh":
            assert_computes(keras_layers(path), [[direction("gru", arrays)]])
    with pytest.raises(DataError, match="the layer 'rnn' has activation='relu'"):
        keras_layers(path)


def test_a_cell_of_a_class_of_ones_own_is_refused(tmp_path: Path) -> None:
    path, arrays = tmp_path / "m.keras", {"rnn": keras_arrays("rnn", bias=False), "gru": keras_arrays("gru")}
    cell = {"module": None, "class_name": "MinimalRNNCell", "config": {"name": "c", "units": H}}
    own = {"module": "keras.layers", "class_name": "RNN", "config": {"name": "own", "cell": cell}}
    write_archive(path, arrays, [own, layer_config()])
    assert_computes(keras_layers(path, prefix="layers/gru"), [[direction("gru", arrays["gru"])]])
    told = r"the layer 'own' has a cell of the class 'MinimalRNNCell', .* from_keras\(layer\.get_weights\(\)\)"
    with pytest.raises(DataError, match=told):
        keras_layers(path, prefix="layers/rnn")
    for module in ("__main__", "keras_cells"):  # of a class of one's own under the name of Keras'
        cell |= {"module": module, "class_name": "GRUCell"}
        write_archive(path, arrays, [own, layer_config()])
        with pytest.raises(DataError, match="a cell of the class 'GRUCell'"):
            keras_layers(path, prefix="layers/rnn")


@pytest.mark.parametrize(("kind", "class_name"), [("keras", "MyGRU"), ("h5", "mine>MyGRU")])
def test_a_layer_of_a_class_of_ones_own_is_refused(kind: str, class_name: str, tmp_path: Path) -> None:
    path, arrays, write = tmp_path / f"m.{kind}", keras_arrays("gru"), write_legacy if kind == "h5" else write_archive
    own = layer_config("my_gru", class_name, recurrent_initializer={}, activation="relu")
    write(path, {"my_gru": arrays, "gru": arrays}, [own, layer_config()])
    prefix = "" if kind == "h5" else "layers/"
    assert_computes(keras_layers(path, prefix=f"{prefix}gru"), [[direction("gru", arrays)]])
    with pytest.raises(DataError, match=f"the layer 'my_gru' has the class '{class_name}', activation='relu', which"):
        keras_layers(path, prefix=f"{prefix}my_gru")


def test_a_bidirectional_layer_of_a_class_of_ones_own_is_refused(tmp_path: Path) -> None:
    h5py, path = pytest.importorskip("h5py"), tmp_path / "m.h5"
    config = layer_config("bi", "MyBidirectional", merge_mode="sum", layer=layer_config())  # older files say no more
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": [config]}})
        for seed, way in enumerate(("forward", "backward")):
            for name, array in named(
                f"model_weights/bi/bi/{way}_gru/gru_cell/", keras_arrays("gru", seed=seed)
            ).items():
                file[name] = array
    with pytest.raises(DataError, match="the layer 'bi' has the class 'MyBidirectional', merge_mode='sum', which"):
        keras_layers(path)


def test_stacked_cells_of_keras_3_are_layers(tmp_path: Path) -> None:
    h5py, path, stack = pytest.importorskip("h5py"), tmp_path / "m.weights.h5", "layers/rnn/cell/cells"
    cells = [keras_arrays("gru"), keras_arrays("gru", H, seed=1)]
    with h5py.File(path, "w") as file:
        for name, arrays in zip(("gru_cell", "gru_cell_1"), cells, strict=True):
            for number, array in enumerate(arrays):
                file[f"{stack}/{name}/vars/{number}"] = array
        for number, array in enumerate(keras_arrays("gru", seed=2)):
            file[f"layers/gru/cell/vars/{number}"] = array
    with pytest.raises(ConfigError, match=rf"several .*'layers/gru/cell', '{stack}/gru_cell', '{stack}/gru_cell_1'"):
        keras_layers(path)
    layers = keras_layers(path, prefix=[f"{stack}/gru_cell", f"{stack}/gru_cell_1"])
    assert_computes(layers, [[direction("gru", arrays)] for arrays in cells])


def test_the_file_that_was_found(shared_data: Path) -> None:
    pytest.importorskip("h5py")
    path = shared_data / "found" / "keras_legacy.h5"
    if not path.is_file():
        pytest.skip(f"There is no {path}.")
    (cell,) = keras_layers(path)
    assert (cell.in_features, cell.hidden_features) == (3, 5)


def test_without_h5py_its_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "model.weights.h5").touch()
    with pytest.raises(ConfigError, match="needs the package 'h5py', which is not installed"):
        keras_layers(tmp_path / "model.weights.h5")


# What is refused


def test_a_gru_that_resets_before_the_product_is_refused() -> None:
    kernel, recurrent, bias = keras_arrays("gru")
    with pytest.raises(
        DataError, match=r"bias has shape \(12,\); expected \(2, 12\): it is a GRU of reset_after=False"
    ):
        keras_layers([kernel, recurrent, bias[0]])
    with pytest.raises(DataError, match="reset_after=False"):
        keras_layers([kernel, recurrent], reset_after=False)
    with pytest.raises(ConfigError, match="whose shapes do not tell its equations: say reset_after=True"):
        keras_layers([kernel, recurrent])


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_lists_of_another_length_are_refused(count: int) -> None:
    arrays = (keras_arrays("gru") * 2)[:count]
    with pytest.raises(ConfigError, match=f"has {count} arrays; expected kernel, recurrent_kernel"):
        keras_layers(arrays)


def test_a_model_is_no_source() -> None:
    with pytest.raises(ConfigError, match=r"source is <object .*; expected the list layer\.get_weights\(\)"):
        keras_layers(object())  # type: ignore[arg-type]


def test_two_layers_in_one_list_are_not_taken_for_directions() -> None:
    with pytest.raises(ConfigError, match="For a stack give a list of lists"):
        keras_layers(keras_arrays("gru") + keras_arrays("gru", H))


def test_everything_wrong_is_listed() -> None:
    forward, backward = named("forward/", keras_arrays("gru")), named("backward/", keras_arrays("gru"))
    model = forward | backward
    del model["backward/bias"]
    model["forward/kernel"] = model["forward/kernel"][:, 1:]
    model["forward/moving_mean"] = np.zeros(3)
    with pytest.raises(DataError) as caught:
        keras_layers(model)
    for wrong in ("backward/bias: missing, expected (2, 12)", "forward/kernel: (3, 11)", "moving_mean: (3,), expected"):
        assert wrong in str(caught.value)


def test_layers_that_do_not_follow_one_another_are_refused() -> None:
    with pytest.raises(DataError, match=r"layer 1 kernel: \(5, 12\), expected \(4, 12\)"):
        keras_layers([keras_arrays("gru"), keras_arrays("gru", 5)])


def test_a_kind_has_to_fit() -> None:
    with pytest.raises(DataError, match="those of kind 'gru'; expected 'lstm'"):
        keras_layers(keras_arrays("gru"), kind="lstm")
    with pytest.raises(DataError, match="no recurrent layer of Keras"):
        keras_layers({"dense/kernel": np.zeros((3, 4))})
    with pytest.raises(DataError, match=r"recurrent_kernel: \(4,\), expected \(hidden"):
        keras_layers([np.zeros((3, 4)), np.zeros(4)])
