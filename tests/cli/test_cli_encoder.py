"""`scanrnn encoder`: what it writes loads again, what it prints is the file, and what does not belong is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from cells import drawn
from flax import nnx
from sources import SHAPE, D, command_line_in_this_process, features_of, mesh_of, random_rows, write_source

from scanrnn_dist.api import encode
from scanrnn_dist.cli.app import run
from scanrnn_dist.cli.computation import AskedComputation
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import DataError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.weights import torch_layers

GOLDEN = Path(__file__).parents[1] / "golden"


def weights_file(tmp_path: Path) -> Path:
    """A state dict of a GRU without biases, as PyTorch would name it in a model."""
    with np.load(GOLDEN / "torch_gru_no_bias.npz") as file:
        arrays = {f"encoder.rnn.{key.removeprefix('w/')}": file[key] for key in file.files if key.startswith("w/")}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def succeeds(*arguments: Any) -> None:
    assert run(["encoder", *map(str, arguments)]) == 0


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What is printed of a wrong usage."""
    assert run(["encoder", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_make_writes_the_encoder_of_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "e\x1b[2J.safetensors"
    succeeds("make", "--in-features", 3, "--hidden", 5, "--seed", 7, out)
    assert Encoder.load(out).fingerprint == Encoder.from_seed(7, 3, 5).fingerprint
    printed = capsys.readouterr().out
    assert "e\\x1b[2J.safetensors: GRU" in printed and "\x1b" not in printed


def test_a_file_that_is_replaced_while_a_command_begins_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, first = tmp_path / "e.safetensors", Encoder.from_seed(0, 2, 3)
    first.save(file)
    asked = AskedComputation(file, None, None, {}, None)
    Encoder.from_seed(1, 2, 3).save(file)
    assert asked.recipe["file_sha256"] != hashlib.sha256(file.read_bytes()).hexdigest()
    command_line_in_this_process(monkeypatch, columns=120)
    assert asked.on_devices(lambda: 2).encoder.fingerprint == first.fingerprint


def test_make_takes_every_option_of_an_encoder(tmp_path: Path) -> None:
    out = tmp_path / "e.safetensors"
    shape = ("--in-features", 3, "--hidden", 5, "--cell", "lstm", "--num-layers", 2, "--bidirectional")
    succeeds("make", *shape, "--readout", "mean+max", "--initial-carry", 0.5, "--dtype", "bfloat16", "--precision",
             "high", "--scan", "nnx", out)  # fmt: skip
    wanted = Encoder.from_seed(
        0, 3, 5, cell="lstm", num_layers=2, bidirectional=True, readout="mean+max", initial_carry=0.5,
        dtype="bfloat16", precision="high", scan="nnx",
    )  # fmt: skip
    assert Encoder.load(out).fingerprint == wanted.fingerprint


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--dtype", "float33", "dtype is 'float33'; expected a float type"),
        ("--dtype", "float64", "set JAX_ENABLE_X64=1"),
        ("--scan", "loop", "scan is 'loop'; expected 'lax'"),
        ("--precision", "most", "precision is 'most'; expected one of highest"),
        ("--readout", "first", "readout is 'first'; expected one or several of last, mean, max"),
        ("--initial-carry", "nan", "initial_carry is nan; expected a number."),
    ],
)
def test_make_refuses_what_no_encoder_is(
    option: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--in-features", 3, "--hidden", 5, option, value)
    assert message in refusal(capsys, "make", tmp_path / "e.safetensors", *given)
    assert not list(tmp_path.iterdir())


@pytest.mark.soak
def test_float64_is_made_where_jax_has_it(tmp_path: Path) -> None:
    words = ("encoder", "make", "--in-features", "3", "--hidden", "5", "--dtype", "float64", tmp_path / "e.safetensors")
    env = {**os.environ, "JAX_ENABLE_X64": "1"}
    subprocess.run([sys.executable, "-m", "scanrnn_dist", *words], env=env, check=True)
    with jax.enable_x64(True):
        wanted = Encoder.from_seed(0, 3, 5, dtype="float64")
        assert Encoder.load(tmp_path / "e.safetensors").fingerprint == wanted.fingerprint


TOML = """
[[column]]
name = "item_id"
kind = "category"
values = [3, 1, 4, 15, 9, 2, 6]
encode = "embedding"
dimension = 2
unknown = "own"

[[column]]
name = "dwell"
kind = "number"
log1p = true
"""


def test_make_takes_an_input_and_inspect_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, out = tmp_path / "spec.toml", tmp_path / "e.safetensors"
    spec.write_text(TOML)
    succeeds("make", "--input", spec, "--hidden", 5, "--seed", 7, out)
    wanted = Encoder.from_seed(7, None, 5, input=InputSpec.load(spec))
    assert Encoder.load(out).fingerprint == wanted.fingerprint
    capsys.readouterr()
    succeeds("inspect", out)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        "GRU of 1 layer, 5 hidden features, 2 features per step -> 5 features, 151 weights",
        "input:",
        "1. item_id category, values 7, 3 to 6, encode embedding, dimension 2, unknown own",
        "2. dwell number, log1p True",
    ]
    assert "input.item_id [8, 2]" in lines and not [line for line in lines if line.startswith("input.column")]
    succeeds("inspect", out, "--json")
    assert json.loads(capsys.readouterr().out)["architecture"]["input"] == InputSpec.load(spec).to_dict()


def test_make_wants_the_features_per_step_or_an_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, out = tmp_path / "spec.toml", tmp_path / "e.safetensors"
    assert "Neither --in-features nor --input was given" in refusal(capsys, "make", "--hidden", 5, out)
    spec.write_text(TOML.replace("log1p", "log2p"))
    told = refusal(capsys, "make", "--input", spec, "--hidden", 5, out)
    assert f"{spec}: Column 'dwell' has the key 'log2p'" in told.replace("\n", " ")
    spec.write_text(TOML)
    told = refusal(capsys, "make", "--input", spec, "--in-features", 3, "--hidden", 5, out)
    assert "in_features is 3, and input has 2 columns" in told
    spec.write_text(TOML.replace("dimension = 2", "dimension = 1000000000000"))
    assert "embedding tables of the input" in refusal(capsys, "make", "--input", spec, "--hidden", 5, out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["torch_lstm_2_bidirectional", "torch_gru", "torch_rnn_tanh"])
def test_what_is_converted_featurizes(name: str, tmp_path: Path) -> None:
    with np.load(GOLDEN / f"{name}.npz") as file:
        weights = {key.removeprefix("w/"): file[key] for key in file.files if key.startswith("w/")}
        rows, wanted = np.split(file["rows"], np.cumsum(file["lengths"])[:-1]), file["features"]
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    succeeds("convert", tmp_path / "model.safetensors", tmp_path / "e.safetensors", "--from", "torch")
    features = encode(Encoder.load(tmp_path / "e.safetensors"), rows, mesh=mesh_of(1), window_shape=SHAPE)
    np.testing.assert_allclose(features, wanted, rtol=0, atol=2e-6)


def test_convert_from_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = weights_file(tmp_path), tmp_path / "e.safetensors"
    succeeds("convert", source, out, "--from", "torch", "--kind", "gru", "--prefix", "encoder.rnn")
    told = capsys.readouterr().out
    assert told.startswith(f"Wrote {out}: GRU of 1 layer, ") and f"scanrnn encoder inspect {out}" in told
    assert Encoder.load(out).fingerprint == Encoder(torch_layers(source)[0]).fingerprint


def test_convert_from_keras(tmp_path: Path) -> None:
    np.savez(tmp_path / "gru.npz", kernel=np.ones((3, 15), "f4"), recurrent_kernel=np.ones((5, 15), "f4"))
    succeeds("convert", tmp_path / "gru.npz", tmp_path / "e.safetensors", "--from", "keras", "--reset-after")
    assert Encoder.load(tmp_path / "e.safetensors").in_features == 3


@pytest.mark.parametrize("origin", ["orbax", "safetensors"])
def test_convert_a_state_into_an_architecture(origin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained, source = Encoder.from_seed(1, 3, 5), tmp_path / "state.safetensors"
    state = nnx.state(trained.cell)
    if origin == "orbax":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(source, state)
    else:
        arrays = {".".join(path): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}
        safetensors.numpy.save_file(arrays, source)
    like, out = tmp_path / "like.safetensors", tmp_path / "e.safetensors"
    succeeds("make", "--in-features", 3, "--hidden", 5, like)
    succeeds("convert", source, out, "--from", origin, "--like", like)
    assert Encoder.load(out).fingerprint == trained.fingerprint
    another = tmp_path / "f.safetensors"
    assert "give the architecture with --like FILE" in refusal(capsys, "convert", source, another, "--from", origin)


def test_an_encoder_file_is_replaced_only_if_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = weights_file(tmp_path), tmp_path / "e.safetensors"
    out.write_bytes(b"mine")
    for command in (["make", "--in-features", 3, "--hidden", 5], ["convert", source, "--from", "torch"]):
        assert "e.safetensors is there already. Choose another name, or" in refusal(capsys, *command, out)
        assert out.read_bytes() == b"mine"
    out.unlink()
    out.symlink_to(tmp_path / "nowhere")
    assert "is there already" in refusal(capsys, "make", "--in-features", 3, "--hidden", 5, out)
    succeeds("make", "--in-features", 3, "--hidden", 5, out, "--force")
    assert Encoder.load(out).in_features == 3


def test_inspect_says_what_is_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, path = Encoder.from_seed(7, 3, 5), tmp_path / "e.safetensors"
    encoder.save(path)
    succeeds("inspect", path, "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["fingerprint"] == encoder.fingerprint
    assert printed["architecture"] == json.loads(json.dumps(encoder.architecture))
    assert sorted(printed["parameters"].values()) == [[3, 15], [5, 15], [15]]
    assert (printed["in_features"], printed["out_features"]) == (3, 5)
    succeeds("inspect", path)
    text = capsys.readouterr().out
    assert text.startswith("GRU of 1 layer, 5 hidden features, 3 features per step -> 5 features, 135 weights\n")
    cell = "layers.0  GRUCell, activation_fn tanh, gate_fn sigmoid, hidden_features 5, in_features 3"
    assert cell in text and len(text.splitlines()) < 15
    assert "dense_h.kernel" in text and f"fingerprint: {encoder.fingerprint}" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "torch", "--node", "a", "--reset-after"], "--from torch takes no --node, --reset-after"),
        (["--from", "onnx", "--prefix", "a"], "--from onnx takes no --prefix"),
        (["--from", "torch", "--prefix", "a", "--prefix", "b"], "--prefix was given 2 times"),
        (["--from", "torch", "--prefix", "b"], "no RNN with the prefix 'b'"),
    ],
)
def test_options_that_do_not_belong_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, "convert", weights_file(tmp_path), tmp_path / "e.safetensors", *options)


def test_only_encoder_files_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "make", "--in-features", 3, "--hidden", 5, tmp_path / "e.pt")
    assert "ends in '.pt'; an encoder file ends in .safetensors" in message


def test_weights_of_bfloat16_featurize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, cell = random_rows([3, 5]), drawn(nnx.GRUCell, D, 4, param_dtype=jnp.bfloat16)
    Encoder(cell).save(tmp_path / "e.safetensors")
    source, out = write_source(tmp_path / "in.parquet", rows), tmp_path / "out"
    command_line_in_this_process(monkeypatch, columns=120)
    assert run(["featurize", str(source), str(out), "--encoder", str(tmp_path / "e.safetensors")]) == 0
    np.testing.assert_array_equal(features_of(out), encode(Encoder(cell), rows))


def test_the_command_that_a_refusal_names_makes_the_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = weights_file(tmp_path)
    with pytest.raises(DataError) as raised:
        Encoder.load(source)
    command = shlex.split(str(raised.value).partition("Convert them first: ")[2])
    assert command[0] == "scanrnn" and run(command[1:]) == 0
    assert Encoder.load(command[4]).fingerprint == Encoder(torch_layers(source)[0]).fingerprint
