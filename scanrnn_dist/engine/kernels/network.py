"""An encoder as the native kernel takes it: sizes, packed weights and the first state; or why it takes none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from scanrnn_dist.encoder import Encoder, StatefulEncoder, is_plain
from scanrnn_dist.engine.kernels.library import CELLS, Library
from scanrnn_dist.errors import ConfigError

AS_IT_IS, ZERO_WITHOUT_STEPS, COUNT = range(3)
"""How a part of the features is read of a state; `Read` in `native/cpp/task.h`."""


@dataclass(frozen=True, eq=False)
class Network:
    """An encoder for the kernel.

    Args:
        plan: whole numbers, in the order in which `native/cpp/ffi.cpp` reads them.
        weights: `(floats,)`, packed.
        first_state: `(S,)`, the carries of all layers, then mean and maximum as far as the readout has them.
        counts_steps: whether what a row brings ends with the count of its steps so far, as two numbers.
    """

    plan: tuple[int, ...]
    weights: np.ndarray
    first_state: np.ndarray
    counts_steps: bool


def why_not(encoder: Encoder) -> str:
    """Why the native kernel does not take an encoder, as a clause; nothing if it does."""
    if encoder.is_bidirectional:
        return " ".join({why for pair in encoder.directions() for part in pair if (why := why_not(part))})
    if not is_plain(encoder):
        return "its class has a step or a readout of its own"
    if encoder.step_input is not None:
        return "it turns the columns of a step into numbers first (input)"
    if encoder.scan != "lax" or encoder.pool_dtype != np.float32:
        return "its cells change variables of their own" if encoder.scan != "lax" else "it computes in float64"
    if why := next((why for cell in encoder.cells if (why := _why_not_cell(cell))), ""):
        return why
    carries = jax.tree.leaves(encoder.initial_state().carries)  # of any dtype, where there is a carry_init
    odd = [f"{carry.dtype}{list(carry.shape)}" for carry in carries if carry.dtype != np.float32 or carry.ndim != 1]
    return f"its carry is {odd[0]}, and the kernel keeps vectors of float32" if odd else ""


def _why_not_cell(cell: Any) -> str:
    name = type(cell).__name__
    if type(cell) not in (nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.SimpleCell):
        return f"it has a {name}, and the kernel knows {', '.join(CELLS)}"
    if getattr(cell, "gate_fn", jax.nn.sigmoid) is not jax.nn.sigmoid or cell.activation_fn is not jax.numpy.tanh:
        return f"its {name} has other activations than sigmoid and tanh"
    if getattr(cell, "residual", False):
        return f"its {name} is residual"
    linears = _linears(cell)
    width = cell.hidden_features * {"GRUCell": 3, "OptimizedLSTMCell": 4}.get(name, 1)
    for nth, linear in enumerate(linears):
        if type(linear) is not nnx.Linear or not _is_plain_product(linear):
            return f"its {name} has products of its own"
        if linear.kernel[...].dtype != np.float32 or linear.dtype not in (None, np.float32):
            return f"its {name} does not compute in float32"
        takes = cell.in_features if nth < len(linears) // 2 else cell.hidden_features
        if linear.kernel.shape != (takes, width) or (linear.bias is not None and linear.bias.shape != (width,)):
            return f"its {name} has weights of other shapes than flax makes"
    return ""


def _is_plain_product(linear: nnx.Linear) -> bool:
    """Whether a layer multiplies as flax does by default, in float32."""
    return (
        linear.dot_general is jax.lax.dot_general
        and linear.promote_dtype is promote_dtype
        and linear.preferred_element_type in (None, np.float32)
        and _is_usual(linear.precision)
    )


def _is_usual(precision: Any) -> bool:
    """Whether it is a `Precision`, or one for each factor: on a CPU all are the same; algorithms are none."""
    try:
        for each in precision if isinstance(precision, tuple) else (precision,):
            if each is not None:
                jax.lax.Precision(each)
    except ValueError:
        return False
    return True


def _linears(cell: Any) -> list[Any]:
    if isinstance(cell, nnx.LSTMCell):
        return [cell.ii, cell.if_, cell.ig, cell.io, cell.hi, cell.hf, cell.hg, cell.ho]
    return [cell.dense_i, cell.dense_h]


def network_of(encoder: Encoder, library: Library) -> Network:
    """An encoder of one direction for the kernel, which takes it (`why_not`)."""
    layers, weights, state = [], [], 0
    for cell in encoder.cells:
        kind = CELLS[type(cell).__name__]
        given = _weights(cell)
        layers.append((kind, len(given[0]), len(given[2])))
        weights.append(library.packed(kind, *given))
        state += len(given[2]) * (2 if kind == CELLS["LSTMCell"] else 1)
    hidden = layers[-1][2]
    at = {"last": state - hidden}
    for name in ("mean", "max"):
        if name in encoder.readout_names:
            at[name], state = state, state + hidden
    has_pools = len(at) > 1
    reads = {"last": AS_IT_IS, "mean": ZERO_WITHOUT_STEPS, "max": ZERO_WITHOUT_STEPS}
    parts = [(reads[name], at[name], hidden) for name in encoder.readout_names if name in at]
    keeps_state = isinstance(encoder, StatefulEncoder)
    if keeps_state:
        parts += [(AS_IT_IS, 0, state), *([(COUNT, 0, 2)] if has_pools else [])]
    carry = min(encoder.carry_features, state)
    features = sum(size for _, _, size in parts)
    sizes = (len(layers), len(parts), state, features, carry, at.get("mean", -1), at.get("max", -1))
    first = encoder.initial_state()
    pools = [first.pools[name] for name in ("mean", "max") if name in first.pools]
    leaves = [np.asarray(leaf, np.float32).reshape(-1) for leaf in (*jax.tree.leaves(first.carries), *pools)]
    first_state = np.concatenate(leaves)
    written = hidden if encoder.gives_steps else features
    if (encoder.out_features, len(first_state)) != (written, state):  # or it would read and write beyond its buffers
        raise ConfigError(
            f"The layers do not fit together: the encoder says {encoder.out_features} features and a state of "
            f"{len(first_state)}, and its layers give {written} and {state}. Build another Encoder of them."
        )
    plan = (*sizes, *np.ravel(layers).tolist(), *np.ravel(parts).astype(int).tolist())
    return Network(plan, np.concatenate(weights), first_state, keeps_state and has_pools)


def _weights(cell: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of a cell, `wi, bi, wh, bh`, the gates one after the other along the last axis; zeros where it has no bias."""
    linears = _linears(cell)
    of_input, of_hidden = linears[: len(linears) // 2], linears[len(linears) // 2 :]

    def joined(parts: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        kernels = [np.asarray(each.kernel[...]) for each in parts]
        biases = [
            np.zeros(kernel.shape[1], np.float32) if each.bias is None else np.asarray(each.bias[...])
            for each, kernel in zip(parts, kernels, strict=True)
        ]
        return np.concatenate(kernels, axis=1), np.concatenate(biases)

    return (*joined(of_input), *joined(of_hidden))
