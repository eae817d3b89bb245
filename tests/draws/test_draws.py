"""Weights that numpy draws have the bits of those that JAX draws, wherever that is claimed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from scanrnn_dist.draws import drawn_cells, draws_as_jax
from scanrnn_dist.draws import normal as drawn
from scanrnn_dist.draws.orthogonal import orthogonal
from scanrnn_dist.draws.threefry import folded, key_of, random_bits
from scanrnn_dist.encoder import Encoder

KINDS: dict[str, Any] = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell, "rnn": nnx.SimpleCell}

pytestmark = pytest.mark.usefixtures("numpy_draws")


def assert_equal_bits(mine: np.ndarray, its: Any) -> None:
    its = np.asarray(its)
    assert (mine.dtype, mine.shape) == (its.dtype, its.shape)
    assert np.array_equal(mine.view(np.uint32), its.view(np.uint32))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 40))
def test_bits_of_streams(seed: int, stream: int) -> None:
    key = jax.random.fold_in(jax.random.key(seed), np.uint32(stream))
    assert_equal_bits(np.array(folded(key_of(seed), stream)), jax.random.key_data(key))
    assert_equal_bits(random_bits(folded(key_of(seed), stream), 0, 7), jax.random.bits(key, 7))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_normal_numbers(seed: int) -> None:
    shape = (5, 1001)
    assert_equal_bits(drawn.normal(key_of(seed), shape), jax.random.normal(jax.random.key(seed), shape))


def test_cells_of_two_layers() -> None:
    rngs, sizes = nnx.Rngs(3), [(4, 6), (6, 6)]
    for cell, weights in zip(
        [nnx.GRUCell(*size, rngs=rngs) for size in sizes], drawn_cells("gru", 3, sizes), strict=True
    ):
        for name, array in weights.items():
            dense, variable = name.split(".")
            assert_equal_bits(array, getattr(getattr(cell, dense), variable)[...])


def test_an_encoder_of_a_seed_is_the_one_that_flax_makes() -> None:
    drawn_here = Encoder.from_seed(3, 4, 6)
    made = Encoder(nnx.GRUCell(4, 6, rngs=nnx.Rngs(3)))
    assert nnx.split(drawn_here)[0] == nnx.split(made)[0]
    assert drawn_here.fingerprint == made.fingerprint


@pytest.mark.parametrize("name, value", [("jax_enable_x64", True), ("jax_threefry_partitionable", False)])
def test_jax_draws_where_it_was_told_to_draw_otherwise(name: str, value: Any) -> None:
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        assert not draws_as_jax()
    finally:
        jax.config.update(name, before)


def test_jax_draws_with_flags_that_may_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    assert draws_as_jax()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_cpu_enable_fast_math=true")
    assert not draws_as_jax()


@pytest.mark.soak
@pytest.mark.parametrize("draw", ["normal", "truncated_normal"])
def test_millions_of_normal_numbers(draw: str) -> None:
    shape = (1000, 1000)
    for seed in range(4):
        key = jax.random.key(seed)
        its = jax.random.normal(key, shape) if draw == "normal" else jax.random.truncated_normal(key, -2, 2, shape)
        assert_equal_bits(getattr(drawn, draw)(key_of(seed), shape), its)


@pytest.mark.soak
@pytest.mark.parametrize("rows, columns", [(1, 1), (7, 21), (96, 96), (30, 7), (128, 384)])
def test_orthogonal_matrices(rows: int, columns: int) -> None:
    for seed in range(4):
        its = nnx.initializers.orthogonal()(jax.random.key(seed), (rows, columns), jnp.float32)
        assert_equal_bits(orthogonal(key_of(seed), rows, columns), its)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 17)])
def test_cells_of_each_kind(kind: str, size: tuple[int, int]) -> None:
    for seed in (0, 1, -5, 2**31 - 1, 2**40 + 3):
        cell = KINDS[kind](*size, rngs=nnx.Rngs(seed))
        for name, array in drawn_cells(kind, seed, [size])[0].items():
            dense, variable = name.split(".")
            assert_equal_bits(array, getattr(getattr(cell, dense), variable)[...])
