"""An encoder that was pickled, or copied, is the same encoder: its fingerprint, and the bits of the features."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import drawn
from flax import nnx
from test_encoders import SHAPE, D, H, made, random_rows, table_with

from scanrnn_dist.api import encode
from scanrnn_dist.encoder.encoder import Encoder
from scanrnn_dist.encoder.kept_state import StatefulEncoder
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import Category, InputSpec, Number
from scanrnn_dist.ragged import Ragged

OF_NO_FILE = ("own variables", "tree")


def of_files(*names: str) -> list[Any]:
    """The encoders that files can hold, all but these behind `-m soak`."""
    table = [pytest.param(each) if isinstance(each, str) else each for each in table_with(*names)]
    return [each for each in table if each.values[0] not in OF_NO_FILE]


def cloudpickled(encoder: Encoder) -> Any:
    cloudpickle = pytest.importorskip("cloudpickle")
    return pickle.loads(cloudpickle.dumps(encoder))


WAYS: dict[str, Callable[[Encoder], Any]] = {
    "pickle": lambda encoder: pickle.loads(pickle.dumps(encoder)),
    "cloudpickle": cloudpickled,
    "deepcopy": copy.deepcopy,
    "nnx": lambda encoder: nnx.merge(*nnx.split(nnx.clone(encoder))),
}


def with_input() -> Encoder:
    spec = InputSpec(
        (Category("word", values=("a", "b"), encode="embedding", dimension=3), Number("x", mean=1.0, std=2.0))
    )
    return Encoder.from_seed(0, None, H, input=spec)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", of_files("gru"))
def test_the_fingerprint_is_kept(name: str, way: str) -> None:
    encoder, again = made(name), WAYS[way](made(name))
    assert again.fingerprint == encoder.fingerprint
    assert type(again) is Encoder and again.architecture == encoder.architecture


def in_bfloat16() -> Encoder:
    return Encoder(drawn(nnx.GRUCell, D, H, param_dtype=jnp.bfloat16))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "make", [with_input, in_bfloat16, lambda: Encoder.from_seed(1, D, H, precision="default", initial_carry=1)]
)
def test_so_it_is_with_an_input_and_other_options(make: Callable[[], Encoder], way: str) -> None:
    encoder = make()
    again = WAYS[way](encoder)
    assert again.fingerprint == encoder.fingerprint and again.input == encoder.input


@pytest.mark.parametrize("way", ["cloudpickle", "deepcopy"])
@pytest.mark.parametrize("name", of_files("gru"))
def test_the_features_keep_their_bits(name: str, way: str) -> None:
    rows = random_rows()
    one, other = (encode(encoder, rows, window_shape=SHAPE) for encoder in (made(name), WAYS[way](made(name))))
    values = [each.values if isinstance(each, Ragged) else each for each in (one, other)]
    assert values[0].tobytes() == values[1].tobytes()


@pytest.mark.soak
@pytest.mark.parametrize("name", OF_NO_FILE)
def test_a_copy_of_a_cell_of_ones_own_is_the_same_too(name: str) -> None:
    assert copy.deepcopy(made(name)).fingerprint == made(name).fingerprint == nnx.clone(made(name)).fingerprint


def test_a_copy_has_variables_of_its_own() -> None:
    encoder = Encoder.from_seed(0, D, H)
    again = copy.deepcopy(encoder)
    kernel: Any = again.cell.dense_i.kernel
    kernel[...] = 2 * kernel[...]
    assert again.fingerprint != encoder.fingerprint == Encoder.from_seed(0, D, H).fingerprint


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: made("tree"), "the cell is .*TreeCell"),
        (lambda: StatefulEncoder(Encoder.from_seed(0, D, H)), "StatefulEncoder is a class of its own"),
        (lambda: Encoder(drawn(nnx.GRUCell, D, H, gate_fn=jax.nn.softplus)), "gate_fn is .*softplus"),
    ],
)
def test_what_no_file_can_hold_is_refused(make: Callable[[], Encoder], why: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot be pickled: .*{why}.* send a function that returns it"):
        pickle.dumps(make())


@pytest.mark.soak
def test_another_process_finds_the_same_encoder() -> None:
    encoder = Encoder.from_seed(0, D, H, num_layers=2)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).fingerprint)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, input=pickle.dumps(encoder), capture_output=True, timeout=120)
    assert run.stdout.decode().strip() == encoder.fingerprint, run.stderr


@pytest.mark.soak
def test_the_optimizer_of_a_copy_trains_the_copy() -> None:
    encoder = copy.deepcopy(Encoder.from_seed(0, D, H))
    x = np.ones((4, D), np.float32)
    gradients = nnx.grad(lambda encoder: encoder(x).sum())(encoder)
    nnx.update(encoder, jax.tree.map(lambda value, slope: value - slope, nnx.state(encoder), gradients))
    assert encoder.fingerprint != Encoder.from_seed(0, D, H).fingerprint


def test_equal_encoders_are_equal_bytes() -> None:
    assert len({pickle.dumps(Encoder.from_seed(0, 2, 3)) for _ in range(16)}) == 1
