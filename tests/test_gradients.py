"""Gradients through the step loop: finite differences in float64, and padded batches against single sequences."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from scanrnn_dist.encoder import Encoder

D, H, T = 2, 3, 6
EPSILON = 1e-5
TOLERANCE = 1e-8
"""Of central differences in float64: EPSILON ** 2 times a third derivative, and 1e-16 / EPSILON of rounding; each is
near 1e-10 for values and derivatives near 1."""
SUM_TOLERANCE = 2e-5
"""Gradients here are below 10 and sum some hundred float32 terms, each right to 1e-7 of itself."""


class StepLoop(nnx.Module):
    """A cell with a carry of any kind in a scan over time: `(T, D)` in, all of the final carry out."""

    def __init__(self, cell: nnx.RNNCellBase) -> None:
        self.cell = cell

    def __call__(self, x: jax.Array) -> jax.Array:
        final, _ = jax.lax.scan(self.cell, self.cell.initialize_carry((x.shape[-1],), rngs=nnx.Rngs(0)), x)
        return jnp.concatenate(jax.tree.leaves(final))


CELLS = [nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.SimpleCell]
ENCODER_CELLS = [nnx.GRUCell]
"""The cells whose gradients are also taken through `Encoder`; add those that it takes."""

LOOPS = [pytest.param(StepLoop, cell, id=f"scan-{cell.__name__}") for cell in CELLS]
LOOPS += [pytest.param(Encoder, cell, id=f"encoder-{cell.__name__}") for cell in ENCODER_CELLS]


@pytest.mark.parametrize(("loop", "cell"), LOOPS)
def test_gradients_are_those_of_finite_differences(
    loop: Callable[[nnx.RNNCellBase], nnx.Module], cell: type[nnx.RNNCellBase]
) -> None:
    with jax.enable_x64(True):
        module = loop(cell(D, H, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
        graphdef, weights, rest = nnx.split(module, nnx.Param, ...)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(T, D)))
        at, unravel = ravel_pytree((weights, x))

        @jax.jit
        def loss(flat: jax.Array) -> jax.Array:
            weights, x = unravel(flat)
            features = nnx.merge(graphdef, weights, rest)(x)
            return jnp.dot(features, jnp.arange(1.0, 1.0 + features.size))

        gradient = np.asarray(jax.grad(loss)(at))
        steps = EPSILON * np.eye(at.size)
        wanted = np.array([(loss(at + step) - loss(at - step)) / (2 * EPSILON) for step in steps])
    assert gradient.dtype == np.float64 and np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("cell", ENCODER_CELLS)
def test_the_gradient_of_a_padded_batch_is_the_sum_of_those_of_its_sequences(cell: type[nnx.RNNCellBase]) -> None:
    encoder = Encoder(cell(3, 5, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    lengths = np.array([9, 0, 1, 4], np.int32)
    x = rng.standard_normal((4, 9, 3), np.float32)
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    mix = jnp.asarray(rng.standard_normal((4, 5), np.float32))

    def batch_loss(encoder: Encoder, x: jax.Array) -> jax.Array:
        return (encoder(x, lengths) * mix).sum()

    def row_loss(encoder: Encoder, x: jax.Array, row: int) -> jax.Array:
        return jnp.dot(encoder(x), mix[row])

    of_weights, of_x = nnx.grad(batch_loss, argnums=(0, 1))(encoder, jnp.asarray(x))
    summed = np.zeros(ravel_pytree(of_weights)[0].shape)
    for row, length in enumerate(lengths):
        sequence = jnp.asarray(x[row, :length])
        weights, single = nnx.grad(lambda e, s, row=row: row_loss(e, s, row), argnums=(0, 1))(encoder, sequence)
        summed += ravel_pytree(weights)[0]
        np.testing.assert_allclose(of_x[row, :length], single, rtol=0, atol=SUM_TOLERANCE)
        assert not np.asarray(of_x[row, length:]).any()
    np.testing.assert_allclose(ravel_pytree(of_weights)[0], summed, rtol=0, atol=SUM_TOLERANCE)
