"""Cells with random weights that numpy draws.

To draw those of one cell, flax has JAX compile 14 programs for each size: a quarter of the CPU time of tests/encoder.
Tests that need flax's own weights, such as those of a seed, make their cells by flax or by `Encoder.from_seed`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

from scanrnn_dist.encoder import Encoder

Cell = TypeVar("Cell", bound=nnx.RNNCellBase)


def drawn(kind: type[Cell], in_features: int, hidden_features: int, seed: int = 0, **options: Any) -> Cell:
    """A cell of the kind with normal weights of this seed, scaled as flax scales them; the biases are zero."""
    rng = np.random.default_rng(seed)

    def normal(key: Any, shape: tuple[int, ...], dtype: Any, **_: Any) -> jax.Array:
        return jax.device_put((rng.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype))

    def zeros(key: Any, shape: tuple[int, ...], dtype: Any, **_: Any) -> jax.Array:
        return jax.device_put(np.zeros(shape, dtype))

    inits = {"kernel_init": normal, "recurrent_kernel_init": normal, "bias_init": zeros}
    return kind(in_features, hidden_features, **inits, **options, rngs=nnx.Rngs(seed))


def not_for_a_file(in_features: int, hidden_features: int, seed: int = 0) -> Encoder:
    """An encoder that no file holds, since its GRU was changed after it was built; its programs are those of a GRU."""
    cell: Any = drawn(nnx.GRUCell, in_features, hidden_features, seed)
    cell.note = "mine"
    return Encoder(cell)


QUICKLY = {"xla_backend_optimization_level": 0}
"""Options of `jax.jit` for programs that few rows go through: compiled in half of the time."""


@partial(jax.jit, static_argnums=0, compiler_options=QUICKLY)
def _features(graphdef: Any, variables: Any, *given: Any) -> jax.Array:
    return nnx.merge(graphdef, variables)(*given)


def at_once(encoder: Encoder, *given: Any) -> jax.Array:
    """What the encoder gives, to hold something against: by one program."""
    return _features(*nnx.split(encoder), *given)


class Scaled(nnx.SimpleCell):
    """A cell with a weight `(1,)` or `(in_features,)`, of which no attribute tells the shape and the dtype."""

    def __init__(self, *args: Any, scale: jax.Array, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = nnx.Param(scale)

    def __call__(self, carry: Any, inputs: Any) -> Any:
        """One step on the scaled inputs."""
        return super().__call__(carry, inputs * self.scale[...])


class Gain:
    """A number that stands in an ordinary object, where flax does not see it change."""

    factor = 1.0


class Configured(nnx.SimpleCell):
    """A cell that computes with an object of somebody's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = Gain()

    def __call__(self, carry: Any, inputs: Any) -> Any:
        """One step on the inputs times the gain."""
        return super().__call__(carry, inputs * self.gain.factor)
