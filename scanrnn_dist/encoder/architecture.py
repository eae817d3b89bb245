"""What a cell is besides its weights: a description that JSON can hold, and the cell that it describes.

An encoder file carries such descriptions; nothing in it is code. What `describe` gives for a cell of another class, or
for one with functions of its own, says enough to tell two apart, but `build` refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from scanrnn_dist.errors import ConfigError

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_tanh": jax.nn.hard_tanh,
}
"""The activations that can be written to a file, by name."""
CELLS: dict[str, Any] = {
    "GRUCell": nnx.GRUCell,
    "LSTMCell": nnx.LSTMCell,
    "OptimizedLSTMCell": nnx.OptimizedLSTMCell,
    "SimpleCell": nnx.SimpleCell,
}
"""The cells that can be written to a file, by name."""
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Of an object, as Python writes it where there is no better name."""


def describe(cell: nnx.RNNCellBase) -> dict[str, Any]:
    """The class and the plain attributes of a cell; `recurrent_bias` where a GRU was given one."""
    described: dict[str, Any] = {"cell": cell_name(cell)}
    for name, value in sorted(vars(cell).items()):
        # Neither rngs nor the promote_dtype that flax gives says anything of the features; they come and go.
        is_silent = name[0] == "_" or name == "rngs" or value is promote_dtype
        if not is_silent and not isinstance(value, nnx.Module | nnx.Variable):
            described[name] = _plain(value)
    if isinstance(cell, nnx.GRUCell):
        described["recurrent_bias"] = getattr(cell.dense_h, "bias", None) is not None
    return described


def build(description: dict[str, Any]) -> nnx.RNNCellBase:
    """The cell of a description, its weights zeros; raises `ConfigError` for one that no file can hold."""
    kind = description["cell"]
    if kind not in CELLS:
        raise ConfigError(f"the cell is {kind!r}; a file holds only {sorted(CELLS)}.")
    if description["carry_init"] is not None:
        raise ConfigError("it has a carry_init of its own; a file holds none.")
    if "promote_dtype" in description:
        raise ConfigError("it has a promote_dtype of its own; a file holds none.")
    options: dict[str, Any] = {}
    for name in {"gate_fn", "activation_fn"} & description.keys():
        if description[name] not in FUNCTIONS:
            raise ConfigError(f"{name} is {description[name]!r}; a file holds only {sorted(FUNCTIONS)}.")
        options[name] = FUNCTIONS[description[name]]
    if "residual" in description:
        options["residual"] = bool(description["residual"])
    for name in ("dtype", "param_dtype"):
        options[name] = None if description[name] is None else jnp.dtype(description[name])
    zeros = nnx.initializers.zeros_init()  # not every initializer can draw every dtype, and other weights follow
    options |= {"kernel_init": zeros, "recurrent_kernel_init": zeros}
    cell = CELLS[kind](description["in_features"], description["hidden_features"], **options, rngs=nnx.Rngs(0))
    return with_recurrent_bias(cell, kernel_init=zeros) if description.get("recurrent_bias") else cell


def with_recurrent_bias(
    cell: nnx.GRUCell, rngs: nnx.Rngs | None = None, kernel_init: Callable[..., Any] | None = None
) -> nnx.GRUCell:
    """The GRU with biases `b_hr, b_hz, b_hn` (zeros at first) beside its recurrent weights, which are drawn anew.

    The equations are then those of PyTorch, Keras (`reset_after=True`) and ONNX (`linear_before_reset=1`):
    `n = tanh(W_in x + b_in + r * (W_hn h + b_hn))`. The cell is changed in place and returned.
    """
    H = cell.hidden_features
    cell.dense_h = nnx.Linear(
        H, 3 * H, use_bias=True, dtype=cell.dtype, param_dtype=cell.param_dtype, promote_dtype=cell.promote_dtype,
        kernel_init=kernel_init or nnx.initializers.orthogonal(), rngs=rngs or nnx.Rngs(0),
    )  # fmt: skip
    return cell


def cell_name(cell: nnx.RNNCellBase) -> str:
    """A cell's name in files: short for the ones of flax that a file can hold, else with its module."""
    kind = type(cell)
    return kind.__name__ if kind in CELLS.values() else f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    """A plain attribute as JSON: functions and dtypes by name, arrays by their dtypes, numbers of numpy as Python's."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if known := [name for name, function in FUNCTIONS.items() if value is function]:
        return known[0]
    if callable(value) and hasattr(value, "__qualname__") and not isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, set | frozenset):  # in another process, texts come in another order
        return sorted(map(_shown, value))
    if isinstance(value, jax.Array | np.ndarray):  # whose numbers are among the variables
        return value.dtype.name
    try:
        return jnp.dtype(value).name
    except (TypeError, ValueError):  # the latter of a dict, and of an object whose `dtype` is none of numpy's
        return _shown(value)


def _shown(value: Any) -> str:
    """An object as Python writes it, without its address, which another process would not have."""
    return ADDRESS.sub("", repr(value))
