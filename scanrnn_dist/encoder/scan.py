"""An encoder over whole sequences: a scan whose state stands still beyond a sequence's end, and its `vmap` for batches.

What a step and a readout are is `encoder.py`'s, which calls this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from scanrnn_dist.encoder.cells import at_least_float32, called, chosen, hidden_state, initial_carry, join_directions
from scanrnn_dist.encoder.file import why_no_file
from scanrnn_dist.encoder.readouts import updated_pools
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.ragged import HINTS, time_first_hint


class State(NamedTuple):
    """All that is kept between two steps of a sequence: the layers' carries, variables that change, mean and max."""

    carries: tuple[Any, ...]
    variables: Any
    pools: dict[str, jax.Array]


def stepped(layers: Any, state: State, x_t: jax.Array) -> tuple[State, jax.Array]:
    """The state after one step `x_t (D,)`, and the last layer's output, flat; variables change in `layers` alone."""
    carries, y = [], x_t
    for cell, carry in zip(layers, state.carries, strict=True):
        new, y = called(cell, carry, y)
        carries.append(jax.tree.map(lambda new, old: new.astype(old.dtype), new, carry))
    return State(tuple(carries), None, updated_pools(state.pools, y)), y.reshape(-1)


def traced_step(layers: Any, fill: float | None) -> tuple[tuple[Any, Any, Any], tuple[Any, ...]]:
    """Shapes of the output, of the last hidden state and of the carries, and paths of the variables that change.

    They are those of a step from carries that are filled with `fill`. Raises `ConfigError` for complex numbers in a
    carry or in the output, whose imaginary part no feature would hold, and for a PRNG key that changes.
    """
    changed: list[Any] = []
    graphdef, variables = nnx.split(layers)

    def one_step(variables: Any, x_t: jax.Array) -> tuple[jax.Array, jax.Array, list[Any]]:
        own = nnx.merge(graphdef, variables)
        before = {path: leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(own))}
        y, carries = x_t, [initial_carry(cell, fill) for cell in own]
        for cell, carry in zip(own, carries, strict=True):
            new, y = called(cell, carry, y)
            _check_real(cell, "carry", (carry, new))
        _check_real(own[-1], "output", y)
        for path, leaf in nnx.to_flat_state(nnx.state(own)):
            if leaf[...] is not before[path]:
                _check_no_key(path, leaf[...])
                changed.append(path)
        return y, hidden_state(own[-1], carries[-1]), carries

    x_t = jax.ShapeDtypeStruct((int(layers[0].in_features),), jnp.float32)
    return jax.eval_shape(one_step, variables, x_t), tuple(changed)


def _check_real(cell: Any, what: str, arrays: Any) -> None:
    """Refuse complex arrays."""
    for array in jax.tree.leaves(arrays):
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise ConfigError(
                f"The {what} of {type(cell).__name__} is {array.dtype}; expected real numbers, as features are. Keep "
                "the real and the imaginary part as two arrays of floats."
            )


def _check_no_key(path: tuple[Any, ...], array: jax.Array) -> None:
    """Refuse a PRNG key, of which numpy holds no copies for the engine."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        name = ".".join(map(str, path))
        raise ConfigError(
            f"The cells change a PRNG key in a step: {name}. Expected numbers: keep "
            "jax.random.key_data(key) in the variable, and call jax.random.wrap_key_data on it in the step."
        )


def variables_at(paths: tuple[Any, ...]) -> Callable[[Any, Any], bool]:
    """A filter, as nnx takes them, for the variables at these paths."""
    return lambda path, value: tuple(path) in paths


def batch_features(kind: type, encoder: Any, x: Any, seq_lengths: Any, carries: Any) -> jax.Array:
    """Features of one sequence or a padded batch; see `Encoder.__call__`, whose class is `kind`.

    By a program that is compiled once for each shape. Where JAX traces the call, its program is part of another one;
    what a cell of somebody's own computes with may change between two calls.
    """
    x = _floats("x", x, encoder.pool_dtype)
    if x.ndim < 2 or x.shape[-1] != encoder.in_features:
        hint = time_first_hint(x.ndim == 2 and len(x) == encoder.in_features)
        raise ConfigError(f"x has shape {x.shape}; expected (..., T, {encoder.in_features}), features last.{hint}")
    batch = x.shape[:-2]
    lengths: Any = x.shape[-2]
    if seq_lengths is not None:
        told = _as_given(seq_lengths)
        _check_lengths(told, batch, x.shape[-2])
        lengths = jnp.asarray(told, jnp.result_type(int))  # T may be more than a narrow dtype holds
    carry = None if carries is None else _floats("initial_carry", carries, encoder.pool_dtype)
    wanted = (*batch, encoder.carry_features)
    if carry is not None and carry.shape != wanted:
        raise ConfigError(f"initial_carry has shape {carry.shape}; expected {wanted}.")
    graphdef, variables = nnx.split(encoder)
    is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((variables, x, lengths, carry)))
    if is_traced or why_no_file(kind, encoder) is not None:
        return _batch_features(encoder, x, lengths, carry)
    return _compiled_features(graphdef, variables, x, lengths, carry)


def _batch_features(encoder: Any, x: jax.Array, lengths: Any, carry: jax.Array | None) -> jax.Array:
    """Features of a batch, or of one sequence, whose shapes fit together."""
    batch_axes = x.ndim - 2
    axes = (0, 0 if jnp.ndim(lengths) else None, None if carry is None else 0)
    features: Callable[..., jax.Array] = partial(_vmapped, batch_axes, axes)
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit in sharding.mesh.axis_types:  # or a scan's first state would have to be sharded as x is
        out = NamedSharding(sharding.mesh, P(*sharding.spec[:batch_axes]))
        features = jax.sharding.auto_axes(features, out_sharding=out)
    with jax.default_matmul_precision(encoder.precision):
        return features(encoder, x, lengths, carry)


@partial(jax.jit, static_argnums=0)
def _compiled_features(graphdef: Any, variables: Any, *given: Any) -> jax.Array:
    return _batch_features(nnx.merge(graphdef, variables), *given)


def _vmapped(times: int, axes: tuple[int | None, ...], encoder: Any, *given: Any) -> jax.Array:
    """Features of a batch with so many batch axes; `axes` says which of `given` have them."""
    features: Callable[..., jax.Array] = partial(sequence_features, encoder)
    for _ in range(times):
        features = jax.vmap(features, axes)
    return features(*given)


def _as_given(given: Any) -> jax.Array | np.ndarray:
    """An array of JAX if any of what is given is one, or says how to become one, as arrays on a GPU do.

    Else one of numpy, where JAX would make 1 of 2**32 + 1.
    """
    is_of_jax = any(isinstance(each, jax.Array) for each in jax.tree.leaves(given))
    is_of_jax |= hasattr(given, "__jax_array__") or hasattr(given, "__cuda_array_interface__")
    return jnp.asarray(given) if is_of_jax else np.asanyarray(given)  # JAX refuses masks


def _floats(name: str, given: Any, dtype: Any) -> jax.Array:
    """Numbers as floats of a dtype; `ConfigError` for what is none."""
    array = _as_given(given)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        hint = HINTS.get(getattr(array.dtype, "kind", ""), "")
        raise ConfigError(f"{name} is of dtype {array.dtype}; expected numbers.{hint}")
    return jnp.asarray(array, dtype)


def sequence_features(encoder: Any, x: jax.Array, length: Any, carry: jax.Array | None = None) -> jax.Array:
    """Features of the first `length` steps of one sequence `(T, D)`."""
    if encoder.is_bidirectional:
        return _both_directions(encoder, x, length, carry)
    t = jnp.arange(len(x))
    x = jnp.where((t < length)[:, None], x, 0)  # or a NaN beyond the end would reach the gradients, as 0 * NaN
    state = _varying(encoder.initial_state(carry), encoder, x, length, carry)
    if not len(x):  # which `scan` refuses under `disable_jit`
        none = jnp.zeros((0, encoder.out_features), encoder.pool_dtype)
        return none if encoder.gives_steps else encoder.readout(state)
    final, steps = jax.lax.scan(lambda state, at: _masked_step(encoder, state, *at), state, (t < length, x))
    return encoder.readout(final) if steps is None else at_least_float32(steps)


def _varying(state: State, encoder: Any, *given: Any) -> State:
    """The state; within `jax.shard_map` it varies over the axes over which what is given does, as after a step."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return state
    of_each = [jnp.zeros_like(leaf, bool, ()) for leaf in jax.tree.leaves((nnx.state(encoder), given))]
    return chosen(reduce(jnp.logical_or, of_each), state, state)


def _masked_step(encoder: Any, state: State, is_real: jax.Array, x_t: jax.Array) -> tuple[State, jax.Array | None]:
    """A step that counts only where it is real; its output only where all are read out."""
    new, y = encoder.step(state, x_t)
    return chosen(is_real, new, state), jnp.where(is_real, y, 0) if encoder.gives_steps else None


def _both_directions(encoder: Any, x: jax.Array, length: Any, carry: jax.Array | None) -> jax.Array:
    """Layer by layer: the backward cell gets the real steps in reverse, never padding first."""
    reverse = jnp.maximum(length - 1 - jnp.arange(len(x)), 0)
    y = x
    for forward, backward in encoder.directions():
        own: list[Any] = [None, None]
        if carry is not None:
            own = [carry[: forward.carry_features], carry[forward.carry_features :][: backward.carry_features]]
            carry = carry[forward.carry_features + backward.carry_features :]
        there = sequence_features(forward, y, length, own[0])
        back = sequence_features(backward, y[reverse], length, own[1])
        if forward.gives_steps:
            y = jnp.concatenate([there, jnp.where((jnp.arange(len(x)) < length)[:, None], back[reverse], 0)], -1)
    if encoder.gives_steps:
        return y
    return join_directions(there, back, (forward.readout_widths, backward.readout_widths))


def _check_lengths(lengths: jax.Array | np.ndarray, batch: tuple[int, ...], steps: int) -> None:
    """Refuse lengths of another shape or kind, and, where they are known, of another range."""
    if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ConfigError(f"seq_lengths is {lengths.dtype}{list(lengths.shape)}; expected whole numbers {list(batch)}.")
    if isinstance(lengths, jax.core.Tracer):
        return
    known = np.asarray(lengths)  # JAX would cast `steps` to a narrow dtype of the lengths
    if ((known < 0) | (known > steps)).any():
        raise ConfigError(f"seq_lengths reach from {known.min()} to {known.max()}; expected 0 to {steps}.")
