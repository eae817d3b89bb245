"""`StatefulEncoder`: an encoder whose features are followed by its state, to go on with when later steps come.

The state is one vector of the features' dtype, which holds every number of it exactly: the carries of the cells one
after the other, then what the readouts `mean` and `max` keep. Where it is written, and found again, is not known here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from scanrnn_dist.encoder.encoder import Encoder, own_methods
from scanrnn_dist.encoder.scan import State
from scanrnn_dist.errors import ConfigError

COUNT_BASE = 4096
"""The count of steps, up to 2**31, is kept as two whole numbers below 2**24, which float32 holds exactly."""


class StatefulEncoder(Encoder):
    """An encoder that gives its features and then its state, and begins from such a state where it is given one.

    Args:
        encoder: whose weights and options it shares.

    Raises:
        ConfigError: an encoder of a class with a step, a readout or a first state of its own; or one whose state after
            a step says nothing of the features after later ones (bidirectional, or all steps), or not all of it (times
            as differences to the step before), or does not fit into one vector (variables that change, carries that are
            no floats).

    Example:
        >>> import numpy as np
        >>> encoder = StatefulEncoder(Encoder.from_seed(0, in_features=2, hidden_features=3))
        >>> x = np.ones((5, 2), np.float32)
        >>> begun = encoder(x[:3])
        >>> bool((encoder(x[3:], initial_carry=begun[3:]) == encoder(x)).all())
        True
    """

    state_features: int
    """Numbers of the state; they stand last in the features."""

    def __init__(self, encoder: Encoder) -> None:
        if own := own_methods(encoder):
            raise ConfigError(
                f"{type(encoder).__name__} has methods of its own, {', '.join(sorted(own))}, with which no state is "
                "kept; expected a class that leaves them to Encoder."
            )
        self.layers, self.step_input = nnx.List(list(encoder.layers)), encoder.step_input
        self.readout_names, self.fill = encoder.readout_names, encoder.fill
        self.scan, self.precision = encoder.scan, encoder.precision
        if encoder.is_bidirectional or encoder.gives_steps:
            what = "reads each sequence from its end too" if encoder.is_bidirectional else "gives the outputs of steps"
            raise ConfigError(f"The encoder {what}, so a sequence cannot be continued; expected one that does not.")
        columns = encoder.input.columns if encoder.input is not None else ()
        if differences := [each.name for each in columns if getattr(each, "give", None) == "difference"]:
            raise ConfigError(
                f"Column {differences[0]!r} of the encoder's input gives the difference to the step before, which the "
                "state of a sequence does not hold, so it cannot be continued; expected an input without differences."
            )
        self._settle()
        if self.changing:
            raise ConfigError("The cells change variables of their own, which the state of a sequence does not hold.")
        if self.pool_dtype != np.float32:
            raise ConfigError("The encoder computes in float64, and states are handed on as float32.")
        state = jax.eval_shape(super().initial_state)
        for leaf in jax.tree.leaves(state.carries):
            if not _holds(self.pool_dtype, leaf.dtype):
                raise ConfigError(f"A carry is {leaf.dtype}; expected floats, which {self.pool_dtype.name} holds.")
        self.state_features = self.carry_features = int(jax.eval_shape(self._vector, state).size)

    @property
    def first_state(self) -> np.ndarray:
        """The vector `(state_features,)` of the state before the first step."""
        return np.asarray(self._vector(self.initial_state()))

    def initial_state(self, carry: jax.Array | None = None) -> State:
        """The state before the first step; that of a vector `(state_features,)`, if there is one."""
        state = super().initial_state()
        if carry is None:
            return state
        with jax.numpy_dtype_promotion("standard"):  # a carry may hold several dtypes
            flat, restore = ravel_pytree(state.carries)
        given, pools, begin = carry.astype(self.pool_dtype), dict[str, jax.Array](), flat.size
        for name in ("mean", "max"):
            if name in state.pools:
                pools[name], begin = given[begin : begin + self.step_features], begin + self.step_features
        if state.pools:
            high, low = given[begin:].astype(jnp.int32)
            pools["count"] = high * COUNT_BASE + low
        ordered = {name: pools[name] for name in state.pools}
        return State(restore(given[: flat.size].astype(flat.dtype)), None, ordered)

    def readout(self, state: State) -> jax.Array:
        """The features, then the state."""
        return jnp.concatenate([super().readout(state), self._vector(state)])

    def _vector(self, state: State) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):
            parts = [ravel_pytree(state.carries)[0].astype(self.pool_dtype)]
        parts += [state.pools[name] for name in ("mean", "max") if name in state.pools]
        if state.pools:
            parts.append(jnp.stack(jnp.divmod(state.pools["count"], COUNT_BASE)).astype(self.pool_dtype))
        return jnp.concatenate(parts)


def _holds(wide: Any, dtype: Any) -> bool:
    """Whether every float of a dtype is one of another."""
    return bool(jnp.issubdtype(dtype, jnp.floating) and jnp.promote_types(wide, dtype) == np.dtype(wide))


def is_plain(encoder: Encoder) -> bool:
    """Whether an encoder's steps and readouts are those of `Encoder`, not of a class of somebody's own."""
    return isinstance(encoder, StatefulEncoder) or not own_methods(encoder)
