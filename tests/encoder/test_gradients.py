"""Gradients through the step loop: finite differences in float64, and padded batches against single sequences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import drawn
from flax import nnx
from jax.flatten_util import ravel_pytree

from scanrnn_dist.encoder.encoder import Encoder

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


def cells(kinds: str, D: int, H: int, **dtypes: Any) -> list[nnx.RNNCellBase]:
    """One cell per digit of `kinds`, an index of `CELLS`, each on the outputs of the one before."""
    return [drawn(CELLS[int(k)], H if i else D, H, seed=i, **dtypes) for i, k in enumerate(kinds)]


MODULES: dict[str, Callable[..., Any]] = {
    **{f"scan {kind.__name__}": lambda *a, i=i, **k: StepLoop(*cells(str(i), *a, **k)) for i, kind in enumerate(CELLS)},
    **{kind.__name__: lambda *a, i=i, **k: Encoder(cells(str(i), *a, **k)) for i, kind in enumerate(CELLS)},
    "stack": lambda *a, **k: Encoder(cells("021", *a, **k), readout="last+mean+max"),
    "bidirectional": lambda *a, **k: Encoder([tuple(cells(kind, *a, **k)[0] for kind in "02")], readout="last+mean"),
    "nnx scan": lambda *a, **k: Encoder(cells("01", *a, **k), scan="nnx"),
}
SOAK, SWEEP = pytest.mark.soak, pytest.mark.sweep
ENCODERS = [name for name in MODULES if not name.startswith("scan ")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "SimpleCell" else SOAK if n == "bidirectional" else SWEEP) for n in MODULES],
)
@pytest.mark.usefixtures("compiled_quickly")
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    with jax.enable_x64(True):
        module = MODULES[name](D, H, dtype=jnp.float64, param_dtype=jnp.float64)
        graphdef, weights, rest = nnx.split(module, nnx.Param, ...)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(T, D)))
        at, unravel = ravel_pytree((weights, x))

        @jax.jit
        @jax.value_and_grad
        def loss(flat: jax.Array) -> jax.Array:
            weights, x = unravel(flat)
            features = nnx.merge(graphdef, weights, rest)(x)
            return jnp.dot(features, jnp.arange(1.0, 1.0 + features.size))

        at = np.asarray(at)
        gradient = np.asarray(loss(at)[1])
        steps = EPSILON * np.eye(at.size)
        wanted = np.array([float(loss(at + step)[0]) - float(loss(at - step)[0]) for step in steps]) / (2 * EPSILON)
    assert gradient.dtype == np.float64 and np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "SimpleCell" else SOAK if n == "stack" else SWEEP) for n in ENCODERS]
)
@pytest.mark.usefixtures("compiled_quickly")
def test_the_gradient_of_a_padded_batch_is_the_sum_of_those_of_its_sequences(name: str) -> None:
    encoder = MODULES[name](3, 5)
    rng = np.random.default_rng(0)
    lengths = np.array([4, 0, 4], np.int32)
    x = rng.standard_normal((3, 6, 3), np.float32)
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    mix = rng.standard_normal((3, encoder.out_features), np.float32)

    @nnx.jit
    @functools.partial(nnx.grad, argnums=(0, 1))
    def of_batch(encoder: Encoder, x: jax.Array) -> jax.Array:
        return (encoder(x, lengths) * mix).sum()

    @nnx.jit
    @functools.partial(nnx.grad, argnums=(0, 1))
    def of_row(encoder: Encoder, x: jax.Array, mix: jax.Array) -> jax.Array:
        return jnp.dot(encoder(x), mix)

    of_weights, of_x = jax.device_get(of_batch(encoder, x))
    summed = [np.zeros(of_weight.shape) for of_weight in jax.tree.leaves(of_weights)]
    for row, length in enumerate(lengths):
        assert not of_x[row, length:].any()
        if not length:
            continue  # its features are the first carry, whatever the weights
        weights, single = jax.device_get(of_row(encoder, x[row, :length], mix[row]))
        summed = [a + b for a, b in zip(summed, jax.tree.leaves(weights), strict=True)]
        np.testing.assert_allclose(of_x[row, :length], single, rtol=0, atol=SUM_TOLERANCE)
    for of_weight, wanted in zip(jax.tree.leaves(of_weights), summed, strict=True):
        np.testing.assert_allclose(of_weight, wanted, rtol=0, atol=SUM_TOLERANCE)
