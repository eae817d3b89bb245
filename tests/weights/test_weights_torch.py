"""Layers from PyTorch's weights compute what PyTorch does, and state dicts that are not whole are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from stepping import TOLERANCE, features_of, ragged_rows

from scanrnn_dist.api import encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.weights import files, from_torch, keras_layers, onnx_layers, torch_layers

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> tuple[dict[str, np.ndarray], list[np.ndarray], np.ndarray]:
    """Weights, rows and features of a golden file."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        weights = {key.removeprefix("w/"): file[key] for key in file.files if key.startswith("w/")}
        return weights, np.split(file["rows"], np.cumsum(file["lengths"])[:-1]), file["features"]


def gru_state(D: int = 3, H: int = 4, seed: int = 0, **extra: np.ndarray) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = {
        "weight_ih_l0": (3 * H, D),
        "weight_hh_l0": (3 * H, H),
        "bias_ih_l0": (3 * H,),
        "bias_hh_l0": (3 * H,),
    }
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | extra


def assert_same(layers: list[Any], others: list[Any]) -> None:
    assert Encoder(layers).fingerprint == Encoder(others).fingerprint


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("torch_*.npz")))
def test_golden_files_of_pytorch(name: str) -> None:
    weights, rows, features = golden(name)
    layers = torch_layers(weights, nonlinearity="relu" if "relu" in name else "tanh")
    np.testing.assert_allclose(features_of(layers, rows), features, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(encode(Encoder(layers), rows), features, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"),
    [(2, True, False), *(pytest.param(*one, marks=pytest.mark.soak) for one in [(1, True, True), (2, False, True)])],
)
@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
def test_parity_with_packed_sequences(kind: str, num_layers: int, bidirectional: bool, bias: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    rnn = getattr(torch.nn, kind)(5, 7, num_layers=num_layers, bidirectional=bidirectional, bias=bias)
    rows = ragged_rows([1, 12, 6, 1], 5)
    packed = torch.nn.utils.rnn.pack_sequence([torch.from_numpy(row) for row in rows], enforce_sorted=False)
    with torch.no_grad():
        final = rnn(packed)[1]
    final = (final[0] if kind == "LSTM" else final)[-1 - bidirectional :]
    layers = torch_layers(rnn.state_dict(), kind=kind.lower())
    assert len(layers) == num_layers and isinstance(layers[0], tuple) == bidirectional
    wanted = final.transpose(0, 1).reshape(len(rows), -1).numpy()
    np.testing.assert_allclose(encode(Encoder(layers), rows), wanted, rtol=0, atol=TOLERANCE)


def test_the_outputs_of_all_steps_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    rnn = torch.nn.LSTM(5, 7, num_layers=2, bidirectional=True)
    rows = ragged_rows([1, 12, 6], 5)
    outputs = encode(from_torch(rnn.state_dict(), readout="steps"), rows)
    for nth, row in enumerate(rows):
        with torch.no_grad():
            wanted = rnn(torch.from_numpy(row))[0].numpy()
        np.testing.assert_allclose(outputs.row(nth), wanted, rtol=0, atol=TOLERANCE)


def test_one_gru_becomes_an_encoder() -> None:
    weights, rows, features = golden("torch_gru_no_bias")
    encoder = from_torch(weights)
    assert isinstance(encoder, Encoder)
    np.testing.assert_allclose(encode(encoder, rows), features, rtol=0, atol=TOLERANCE)


def test_biases_that_are_only_added_are_added_in_float64() -> None:
    weights, *_ = golden("torch_lstm")
    cell: Any = torch_layers(weights)[0]
    wanted = weights["bias_ih_l0"].astype(np.float64) + weights["bias_hh_l0"]
    np.testing.assert_array_equal(cell.dense_h.bias[...], wanted.astype(np.float32))
    assert isinstance(cell, nnx.OptimizedLSTMCell)


def test_a_prefix_is_found_or_chosen() -> None:
    state = {f"encoder.rnn.{name}": array for name, array in gru_state().items()}
    state["head.weight"] = np.zeros((2, 4), np.float32)
    wanted = torch_layers(gru_state())
    assert_same(torch_layers(state), wanted)
    assert_same(torch_layers(state, prefix="encoder.rnn"), wanted)
    state |= {f"decoder.{name}": array for name, array in gru_state(seed=1).items()}
    assert_same(torch_layers(state, prefix="encoder.rnn."), wanted)
    with pytest.raises(ConfigError, match=r"several RNNs; choose one with prefix .*'decoder\.', 'encoder\.rnn\.'"):
        torch_layers(state)
    with pytest.raises(ConfigError, match=r"no RNN with the prefix 'rnn'; those it has"):
        torch_layers(state, prefix="rnn")


def test_a_state_dict_within_a_checkpoint_is_found() -> None:
    assert_same(torch_layers({"epoch": 3, "state_dict": gru_state()}), torch_layers(gru_state()))


def test_everything_wrong_is_listed() -> None:
    weights, *_ = golden("torch_lstm_2_bidirectional")
    del weights["bias_hh_l1_reverse"], weights["weight_hh_l0_reverse"]
    weights["weight_ih_l1"] = weights["weight_ih_l1"].T
    weights["weight_other"] = np.zeros(3, np.float32)
    weights["bias_ih_l0"][1] = np.nan
    with pytest.raises(DataError) as caught:
        torch_layers(weights)
    for wrong in (
        "bias_hh_l1_reverse: missing, expected (16,)",
        "weight_hh_l0_reverse: missing, expected (16, 4)",
        "weight_ih_l1: (8, 16), expected (16, 8)",
        "weight_other: (3,), expected none",
        "bias_ih_l0: holds a NaN",
    ):
        assert wrong in str(caught.value)


@pytest.mark.parametrize("name", sorted(gru_state()))
def test_no_weight_can_be_left_out(name: str) -> None:
    state = gru_state()
    del state[name]
    with pytest.raises(DataError, match=f"{name}: missing"):
        torch_layers(state)


def test_a_layer_that_is_missing_in_between_is_listed() -> None:
    state = gru_state() | {f"{name[:-1]}2": array for name, array in gru_state(D=4).items()}
    with pytest.raises(DataError, match=r"weight_ih_l1: missing, expected \(12, 4\)"):
        torch_layers(state)


def test_projections_are_refused() -> None:
    with pytest.raises(DataError, match="projections"):
        torch_layers(gru_state(weight_hr_l0=np.zeros((2, 4), np.float32)))


def in_parts(how: str, torch: Any, rnn: Any) -> None:
    """Have an RNN keep its recurrent and its input weights in parts, as people do."""
    for name in ("weight_hh_l0", "weight_ih_l0"):
        if how == "weight_norm":
            torch.nn.utils.weight_norm(rnn, name)
        elif how.startswith("parametrizations.weight_norm"):
            dim = {"None": None, "1": 1}.get(how.rpartition(" ")[2], 0)
            torch.nn.utils.parametrizations.weight_norm(rnn, name, dim=dim)
        elif how == "prune":
            pytest.importorskip("torch.nn.utils.prune").random_unstructured(rnn, name, amount=0.5)
        elif how == "spectral_norm":
            torch.nn.utils.spectral_norm(rnn, name)
        elif how == "parametrizations.spectral_norm":
            torch.nn.utils.parametrizations.spectral_norm(rnn, name)
        elif how == "orthogonal":
            torch.nn.utils.parametrizations.orthogonal(rnn, name)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("how", "bias"),
    [("weight_norm", True), ("parametrizations.weight_norm", False), ("parametrizations.weight_norm None", True),
     ("parametrizations.weight_norm 1", False), ("prune", True)],
)  # fmt: skip
def test_weight_norm_and_pruning_are_computed(how: str, bias: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    rnn = torch.nn.GRU(3, 4, bias=bias)
    in_parts(how, torch, rnn)
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():  # as training would: the length is not that of the start
            if name.endswith(("_g", "original0")):
                parameter.mul_(1.5)
    model = torch.nn.ModuleDict({"rnn": rnn})
    assert "rnn.weight_hh_l0" not in model.state_dict()
    (row,) = ragged_rows([12], 3)
    with torch.no_grad():
        wanted = rnn(torch.from_numpy(row))[1].numpy()
    np.testing.assert_allclose(encode(from_torch(model.state_dict()), [row]), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", ["spectral_norm", "parametrizations.spectral_norm", "orthogonal"])
def test_other_weights_in_parts_are_refused_with_what_to_do(how: str, bias: bool) -> None:
    torch = pytest.importorskip("torch")
    rnn = torch.nn.GRU(3, 4, bias=bias)
    in_parts(how, torch, rnn)
    state = {f"rnn.{name}": tensor.numpy() for name, tensor in rnn.state_dict().items()}
    with pytest.raises(DataError, match=r"in parts.*weight_hh_l0.*model\.eval\(\).*remove_parametrizations"):
        torch_layers(state)


@pytest.mark.filterwarnings("ignore")  # what torch says about tracing
@pytest.mark.parametrize("how", ["own", "after weight norm", "traced", "weight norm"])
def test_a_module_tells_weight_norm_from_other_parametrizations_with_two_originals(how: str) -> None:
    torch = pytest.importorskip("torch")
    parametrize = torch.nn.utils.parametrize

    class Sum(torch.nn.Module):  # a scale and a matrix, as weight norm has them
        def forward(self, scale: Any, matrix: Any) -> Any:
            return scale + matrix

        def right_inverse(self, matrix: Any) -> Any:
            return torch.zeros(12, 1), matrix

    class Twice(torch.nn.Module):
        def forward(self, matrix: Any) -> Any:
            return 2 * matrix

    model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4, batch_first=True)})
    if "weight norm" in how:
        torch.nn.utils.parametrizations.weight_norm(model["rnn"], "weight_hh_l0")
    else:
        parametrize.register_parametrization(model["rnn"], "weight_hh_l0", Sum())
    if how == "after weight norm":
        parametrize.register_parametrization(model["rnn"], "weight_hh_l0", Twice())
    if how == "traced":
        model = torch.jit.trace(model["rnn"], torch.zeros(1, 5, 3))
    if how == "weight norm":
        wanted = model["rnn"].weight_hh_l0.detach().numpy()
        np.testing.assert_allclose(torch_layers(model)[0].dense_h.kernel[...].T, wanted, rtol=0, atol=TOLERANCE)
        return
    with pytest.raises(DataError, match=r"in parts.*weight_hh_l0\.original0.*remove_parametrizations"):
        from_torch(model)


@pytest.mark.parametrize("inner", ["", "module."])
def test_weight_drop_is_not_taken_for_whole(inner: str) -> None:
    state = {f"rnns.0.{inner}{name}": array for name, array in gru_state().items()}
    state["rnns.0.weight_hh_l0_raw"] = gru_state()["weight_hh_l0"] * 2
    with pytest.raises(DataError, match=r"in parts.*rnns\.0\.weight_hh_l0_raw\..*each _raw weight under the name"):
        torch_layers(state)


def test_parts_of_another_rnn_do_not_matter_and_a_whole_weight_beside_its_parts_is_doubted() -> None:
    state = {f"a.rnn.{name}": array for name, array in gru_state().items()}
    state |= {f"b.rnn.{name}": array for name, array in gru_state(weight_hh_l0_raw=np.zeros((12, 4), "f4")).items()}
    assert_same(torch_layers(state, prefix="a.rnn"), torch_layers(gru_state()))
    with pytest.raises(DataError, match=r"in parts.*b\.rnn\.weight_hh_l0_raw"):
        torch_layers(state, prefix="b.rnn")
    g, v = np.ones((12, 1), np.float32), gru_state()["weight_hh_l0"]
    with pytest.raises(DataError, match=r"in parts.*weight_hh_l0_g, weight_hh_l0_v"):
        torch_layers(gru_state(weight_hh_l0_g=g, weight_hh_l0_v=v))


@pytest.mark.parametrize(
    "parts",
    [
        {"_g": np.ones((12, 4), "f4"), "_v": np.ones((12, 4), "f4")},
        {"_g": np.ones((5, 1), "f4"), "_v": np.ones((12, 4), "f4")},
        {"_orig": np.ones((12, 4), "f4"), "_mask": np.full((12, 4), 0.5, "f4")},
        {"_orig": np.ones((12, 4), "f4"), "_mask": np.ones((12, 1), "f4")},
        {"_orig": np.ones((12, 4), "f4")},
    ],
)
def test_parts_that_do_not_fit_a_rule_are_refused(parts: dict[str, np.ndarray]) -> None:
    state = gru_state(**{f"weight_hh_l0{part}": array for part, array in parts.items()})
    del state["weight_hh_l0"]
    with pytest.raises(DataError, match="in parts"):
        torch_layers(state)


def test_a_quantized_module_is_named_as_such() -> None:
    with pytest.raises(DataError, match="of a quantized module"):
        torch_layers({"rnn._all_weight_values.0.param": np.zeros(3)})


def test_a_kind_has_to_fit() -> None:
    assert isinstance(torch_layers(gru_state(), kind="gru")[0], nnx.GRUCell)
    with pytest.raises(DataError, match="those of kind 'gru'; expected 'lstm'"):
        torch_layers(gru_state(), kind="lstm")
    with pytest.raises(ConfigError, match="kind is 'gr'; expected one of"):
        torch_layers(gru_state(), kind="gr")
    with pytest.raises(ConfigError, match="nonlinearity is 'elu'"):
        torch_layers(gru_state(), nonlinearity="elu")
    with pytest.raises(ConfigError, match="holds a gru, which has no nonlinearity to choose; relu was given"):
        torch_layers(gru_state(), nonlinearity="relu")
    with pytest.raises(DataError, match="8 gate rows for 4 hidden features"):
        torch_layers({"weight_ih_l0": np.zeros((8, 3)), "weight_hh_l0": np.zeros((8, 4))})


def test_what_float32_cannot_hold_is_rounded_only_if_told() -> None:
    state = {name: array.astype(np.float64) + 1e-12 for name, array in gru_state().items()}
    with pytest.raises(DataError, match="float64 holds numbers that float32 cannot"):
        torch_layers(state)
    assert_same(torch_layers(state, lossy_cast=True), torch_layers(gru_state()))
    with pytest.raises(DataError, match="bias_ih_l0: int32, expected floating point"):
        torch_layers(gru_state(bias_ih_l0=np.zeros(12, np.int32)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_weights_are_held_exactly(dtype: Any) -> None:
    state = {name: array.astype(dtype) for name, array in gru_state().items()}
    assert_same(torch_layers(state), torch_layers({name: array.astype(np.float32) for name, array in state.items()}))


def test_safetensors_files(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({f"rnn.{name}": array for name, array in gru_state().items()}, path)
    assert_same(torch_layers(path), torch_layers(gru_state()))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"model\.safetensors is not a readable safetensors file"):
        torch_layers(path)


@pytest.mark.parametrize("source", ["mapping", "pt", "safetensors"])
def test_a_tensor_that_numpy_cannot_hold_matters_only_where_it_is_a_weight(source: str, tmp_path: Path) -> None:
    torch, path = pytest.importorskip("torch"), tmp_path / f"m.{source}"
    bias = torch.ones(12)
    odd = {"scaled": (bias.to(torch.float8_e4m3fn), r"(torch\.float8_e4m3fn|F8_E4M3)")}
    if source != "safetensors":  # which knows no sparse ones
        odd["adjacency"] = (bias.to_sparse(), r"torch\.float32 torch\.sparse_coo on cpu")

    def read(model: dict[str, Any]) -> Any:
        if source == "mapping":
            return torch_layers(model)
        save = torch.save if source == "pt" else pytest.importorskip("safetensors.torch").save_file
        save(model, path)
        return torch_layers(path)

    rnn = {f"rnn.{name}": torch.from_numpy(array) for name, array in gru_state().items()}
    assert_same(read(rnn | {name: tensor for name, (tensor, _) in odd.items()}), torch_layers(gru_state()))
    for tensor, told in odd.values():
        with pytest.raises(DataError, match=rf"bias_hh_l0: {told}.*, expected floating point, dense, of 16 bits"):
            read(rnn | {"rnn.bias_hh_l0": tensor})


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no file"):
        torch_layers(tmp_path / "model.pt")
    (tmp_path / "model.zip").touch()
    with pytest.raises(ConfigError, match=r"ends in '\.zip'; expected one of .*\.safetensors"):
        torch_layers(tmp_path / "model.zip")
    with pytest.raises(DataError, match=r"no weights of an nn\.GRU.*it holds head\.weight"):
        torch_layers({"head.weight": np.zeros(3)})


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.npz", "model.onnx", "model.keras"])
def test_a_file_that_may_not_be_read_is_no_damaged_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / name).touch()
    monkeypatch.setattr(files, "open", denied, raising=False)
    read: Any = {".npz": keras_layers, ".keras": keras_layers, ".onnx": onnx_layers}.get(
        Path(name).suffix, torch_layers
    )
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    with pytest.raises(StoppedError, match=rf"{name} could not be read: Permission denied\. Check its access rights"):
        read(tmp_path / name)


def test_torch_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in gru_state().items()}
    torch.save({"epoch": 1, "model": tensors}, tmp_path / "model.ckpt")
    assert_same(torch_layers(tmp_path / "model.ckpt"), torch_layers(gru_state()))
    narrow = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    torch.save(narrow, tmp_path / "narrow.pt")
    wanted = {name: tensor.to(torch.float32).numpy() for name, tensor in narrow.items()}
    assert_same(torch_layers(tmp_path / "narrow.pt"), torch_layers(wanted))


class Trap:
    """Would leave a mark if it were unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("write", ["torch", "pickle", "noise"])
def test_pickled_objects_are_never_built(write: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path, mark = tmp_path / "model.pt", tmp_path / "mark"
    if write == "torch":
        torch.save({"model": Trap(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Trap(mark)}, protocol=2) if write == "pickle" else b"\xff" * 64)
    with pytest.raises(DataError, match=r"Save\s+model\.state_dict\(\)"):
        torch_layers(path)
    assert not mark.exists()


def test_without_torch_its_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "model.pt").touch()
    with pytest.raises(ConfigError, match="needs the package 'torch', which is not installed"):
        torch_layers(tmp_path / "model.pt")


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN tanh", "RNN relu"])
def test_a_module_says_all_that_it_is(kind: str) -> None:
    torch = pytest.importorskip("torch")
    name, _, nonlinearity = kind.partition(" ")
    options = {"nonlinearity": nonlinearity} if nonlinearity else {}
    module = getattr(torch.nn, name)(3, 4, num_layers=2, bidirectional=True, batch_first=True, **options)
    model = torch.nn.ModuleDict({"embed": torch.nn.Linear(3, 3), "rnn": module})
    rows = ragged_rows([5], 3)
    output = module(torch.from_numpy(rows[0])[None])[0][0].detach().numpy()
    wanted = np.concatenate([output[-1, :4], output[0, 4:]])  # the last state of each direction
    encoder = from_torch(module)
    np.testing.assert_allclose(encode(encoder, rows)[0], wanted, rtol=0, atol=TOLERANCE)
    for source in (model, module.to(torch.float64).float()):
        assert from_torch(source).fingerprint == encoder.fingerprint
    assert (
        Encoder(torch_layers(module.state_dict(), nonlinearity=nonlinearity or None)).fingerprint == encoder.fingerprint
    )


@pytest.mark.parametrize("prefix", ["", "rnn"])
def test_modules_within_an_rnn_are_not_its_weights(prefix: str) -> None:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.GRU):
        def __init__(self) -> None:
            super().__init__(3, 4)
            self.head, self.second = torch.nn.Linear(4, 2), torch.nn.GRU(4, 4)

    net = Net()
    wanted = torch_layers({name: tensor for name, tensor in net.state_dict().items() if "." not in name})
    assert_same(torch_layers(torch.nn.ModuleDict({"rnn": net}) if prefix else net, prefix=prefix), wanted)
    del net.second
    assert_same(torch_layers(net.state_dict()), wanted)
    torch.nn.utils.parametrizations.weight_norm(net, "weight_hh_l0")
    np.testing.assert_allclose(torch_layers(net)[0].dense_h.kernel[...], wanted[0].dense_h.kernel[...], atol=TOLERANCE)


def test_a_module_that_is_taken_for_a_cell_is_to_be_converted() -> None:
    torch = pytest.importorskip("torch")
    for given in (torch.nn.GRU(3, 4), [torch.nn.GRU(3, 4)]):
        with pytest.raises(
            ConfigError, match=r"The cell is GRU of PyTorch; .* scanrnn_dist\.weights\.from_torch\(module\)"
        ):
            Encoder(given)


def test_what_a_module_says_is_not_overruled() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ConfigError, match=r"'tanh', and that of The module RNN is 'relu'\. Leave"):
        from_torch(torch.nn.RNN(3, 4, nonlinearity="relu"), nonlinearity="tanh")
    with pytest.raises(DataError, match=r"The module Linear holds no weights of an nn\.GRU"):
        from_torch(torch.nn.Linear(3, 4))
    with pytest.raises(ConfigError, match="several RNNs; choose one with prefix"):
        from_torch(torch.nn.ModuleList([torch.nn.GRU(3, 4), torch.nn.GRU(3, 4)]))


@pytest.mark.parametrize("prefix", ["first", "second"])
def test_an_rnn_of_two_names_says_its_nonlinearity_by_both(prefix: str) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    model.first = model.second = torch.nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
    rows = ragged_rows([5], 3)
    wanted = model.first(torch.from_numpy(rows[0])[None])[1][0].detach().numpy()
    np.testing.assert_allclose(encode(from_torch(model, prefix=prefix), rows), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore")  # what torch says about tracing
def test_a_traced_rnn_is_asked_for_its_nonlinearity() -> None:
    torch = pytest.importorskip("torch")
    rows = ragged_rows([5], 3)
    steps = torch.from_numpy(rows[0])[None]
    module = torch.nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
    traced = torch.jit.trace(module, steps)
    with pytest.raises(ConfigError, match=r"does not say the nonlinearity of its RNN.*Say nonlinearity='tanh' or"):
        from_torch(traced)
    encoder = from_torch(traced, nonlinearity="relu")
    wanted = module(steps)[1][0].detach().numpy()
    np.testing.assert_allclose(encode(encoder, rows), wanted, rtol=0, atol=TOLERANCE)
    from_torch(torch.jit.trace(torch.nn.GRU(3, 4, batch_first=True), steps))  # it has none


def test_a_file_of_a_whole_model_is_refused_in_a_few_words(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.GRU(2, 3), tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"not the model; .* It holds an object of torch\.nn\.modules\.rnn\.GRU\.$"):
        from_torch(tmp_path / "model.pt")
