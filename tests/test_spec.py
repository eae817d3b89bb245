"""`scan_rnn_forward` holds the written equations, and takes its numbers as it promises."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.spec import scan_rnn_forward

SOAK = pytest.mark.soak
TOLERANCE = 1e-6  # the bound of the design for float32 at precision "highest"; float32 has eps 1.2e-7 at |h| < 1


def sequence(T: int, D: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(T, D)).astype(np.float32)


def expected(seed: int, x: np.ndarray, H: int) -> np.ndarray:
    return oracle.gru(oracle.weights_of(nnx.GRUCell(x.shape[1], H, rngs=nnx.Rngs(seed))), x)


@pytest.mark.parametrize(
    ("seed", "T", "D", "H"),
    [
        (0, 1, 4, 16),
        (2, 100, 4, 16),
        *(pytest.param(*c, marks=SOAK) for c in [(0, 1, 1, 1), (1, 7, 3, 5), (2, 100, 12, 64), (3, 33, 40, 8)]),
    ],
)
def test_it_equals_the_written_equations(seed: int, T: int, D: int, H: int) -> None:
    x = sequence(T, D)
    features = scan_rnn_forward(seed, x, H, T)
    assert features.shape == (H,) and features.dtype == jnp.float32
    np.testing.assert_allclose(features, expected(seed, x, H), rtol=0, atol=TOLERANCE)


def test_errors_do_not_grow_with_the_length() -> None:
    x = sequence(10_000, 4)
    np.testing.assert_allclose(scan_rnn_forward(5, x, 16, 10_000), expected(5, x, 16), rtol=0, atol=TOLERANCE)


def test_features_are_the_same_bits_where_jax_has_float64() -> None:
    x = sequence(50, 4)
    wanted = np.asarray(scan_rnn_forward(0, x, 16, 50))
    with jax.enable_x64(True):
        for given in (x, x.astype(float)):
            for features in (scan_rnn_forward(0, given, 16, 50), Encoder.from_seed(0, 4, 16)(given)):
                assert features.dtype == np.float32
                np.testing.assert_array_equal(np.asarray(features).view(np.uint32), wanted.view(np.uint32))


@SOAK
def test_a_process_whose_jax_has_float64_draws_and_computes_the_same() -> None:
    script = (
        "import numpy as np\nfrom scanrnn_dist import scan_rnn_forward\n"
        f"print(np.asarray(scan_rnn_forward(0, np.array({sequence(9, 4).tolist()}), 16, 9)).tobytes().hex())"
    )
    env = {**os.environ, "JAX_ENABLE_X64": "1"}
    told = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True, text=True)
    assert told.stdout.strip() == np.asarray(scan_rnn_forward(0, sequence(9, 4), 16, 9)).tobytes().hex()


def test_only_the_first_T_steps_count() -> None:
    x = sequence(20, 4)
    spoiled = x.copy()
    spoiled[6:] = np.nan
    np.testing.assert_array_equal(scan_rnn_forward(0, spoiled, 16, 6), scan_rnn_forward(0, x[:6], 16, 6))


def test_seed_hidden_and_T_may_be_floats() -> None:
    x = sequence(9, 4)
    np.testing.assert_array_equal(scan_rnn_forward(2.0, x, 16.0, 5.9), scan_rnn_forward(2, x, 16, 5))


def test_T_beyond_the_end_takes_all_of_x() -> None:
    x = sequence(9, 4)
    np.testing.assert_array_equal(scan_rnn_forward(0, x, 16, 1000), scan_rnn_forward(0, x, 16, 9))


@pytest.mark.parametrize("steps", [0, 5])
def test_no_steps_give_zeros(steps: int) -> None:
    np.testing.assert_array_equal(scan_rnn_forward(0, sequence(steps, 4), 16, 0), np.zeros(16, np.float32))


def test_another_seed_gives_other_features() -> None:
    x = sequence(9, 4)
    assert not np.array_equal(scan_rnn_forward(0, x, 16, 9), scan_rnn_forward(1, x, 16, 9))


@SOAK  # one compilation for each operation
@pytest.mark.parametrize("T", [0, 3])
def test_it_needs_no_jit(T: int) -> None:
    x = sequence(3, 3)
    with jax.disable_jit():
        features = scan_rnn_forward(0, x, 4, T)
    np.testing.assert_allclose(features, expected(0, x[:T], 4), rtol=0, atol=TOLERANCE)


def test_sequences_may_be_shared_out_over_devices() -> None:
    x, rows = np.stack([sequence(5, 4), sequence(5, 4) / 2]), P("data")
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    forward = jax.shard_map(lambda x: scan_rnn_forward(0, x[0], 16, 5)[None], mesh=mesh, in_specs=rows, out_specs=rows)
    for found, row in zip(jax.jit(forward)(x), x, strict=True):
        np.testing.assert_allclose(found, expected(0, row, 16), rtol=0, atol=TOLERANCE)


def test_a_negative_T_is_refused() -> None:
    with pytest.raises(ValueError, match="T is -1; expected the number of steps"):
        scan_rnn_forward(0, sequence(9, 3), 4, -1)


@pytest.mark.parametrize("shape", [(3,), (2, 9, 3)])
def test_other_than_two_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected one sequence"):
        scan_rnn_forward(0, np.zeros(shape, np.float32), 4, 2)
