"""Cells: drawn from a seed; what is done with one (first carry, step, hidden state); what makes a list of layers.

`encoder.py` makes a network of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scanrnn_dist.draws import drawn_cells, draws_as_jax
from scanrnn_dist.errors import ConfigError

Layer = nnx.RNNCellBase | tuple[nnx.RNNCellBase, nnx.RNNCellBase]
"""A cell, or the cells of both directions, the forward one first."""
KINDS: dict[str, Any] = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell, "rnn": nnx.SimpleCell}
"""Cells by short names."""


class Bidirectional(nnx.Module):
    """One layer of two cells: `forward` reads a sequence from its start, `backward` from its own end."""

    def __init__(self, forward: nnx.RNNCellBase, backward: nnx.RNNCellBase) -> None:
        self.forward, self.backward = forward, backward

    @property
    def in_features(self) -> int:
        """Features per step that both take."""
        return int(self.forward.in_features)  # type: ignore[attr-defined]  # checked by Encoder


def hidden_state(cell: Any, carry: Any) -> jax.Array:
    """The hidden state within a carry: `h` of an LSTM's `(c, h)`; else all that the carry holds, as one vector."""
    if isinstance(cell, nnx.LSTMCell | nnx.OptimizedLSTMCell):
        return carry[1].reshape(-1)
    return jnp.concatenate([at_least_float32(leaf.reshape(-1)) for leaf in jax.tree.leaves(carry)])


def called(cell: Any, carry: Any, x_t: jax.Array) -> Any:
    """One step of a cell; one of another `dtype` than its carry's mixes both, as flax means it to."""
    with jax.numpy_dtype_promotion("standard"):
        return cell(carry, x_t)


def chosen(condition: jax.Array, new: Any, old: Any) -> Any:
    """`new` where the condition holds, else `old`, for every array of two equal trees."""
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), new, old)


def join_directions(forward: Any, backward: Any, widths: Sequence[Sequence[int]]) -> Any:
    """Features `(..., F)` of both directions, each in parts of its `widths`: first parts, second parts, and so on."""
    parts = (jnp.split(half, np.cumsum(own)[:-1], -1) for half, own in zip((forward, backward), widths, strict=True))
    return jnp.concatenate([half for pair in zip(*parts, strict=True) for half in pair], -1)


def initial_carry(cell: Any, fill: float | None) -> Any:
    """A cell's carry before the first step."""
    options: dict[str, Any] = {}
    is_plain = type(cell) in KINDS.values() and cell.carry_init is None
    if is_plain and not _is_traced(cell) and jax.sharding.get_abstract_mesh().empty:
        # The same zeros, without the seven programs that JAX compiles for a key which nobody looks at and for zeros.
        # They lie on one device, which does not do where a mesh is set.
        options = {"rngs": _NoKeys(), "carry_init": lambda key, shape, dtype: jax.device_put(np.zeros(shape, dtype))}
    carry = cell.initialize_carry((cell.in_features,), **(options or {"rngs": nnx.Rngs(0)}))
    return carry if fill is None else jax.tree.map(lambda leaf: jnp.full_like(leaf, fill), carry)


def _is_traced(cell: Any) -> bool:
    """Whether a program is being traced of which the weights are arguments: there, zeros cost nothing."""
    one = cell.dense_h.kernel if type(cell.dense_h) is nnx.Linear else nnx.state(cell)  # of all it takes 0.2 ms to ask
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(one))


def at_least_float32(array: jax.Array) -> jax.Array:
    """float32 for whole numbers and short floats, float64 as it is."""
    return array if array.dtype == jnp.float64 else array.astype(jnp.float32)


def _name(cell: Any) -> str:
    return type(cell).__name__


def checked_layers(layers: Any) -> list[Any]:
    """Cells, or pairs of cells as `Bidirectional`; `ConfigError` if they are anything else, or a mixture."""
    is_list = isinstance(layers, Iterable) and not isinstance(layers, str | type)
    is_one = not is_list or (isinstance(layers, nnx.Module) and not isinstance(layers, Sequence))
    given = [layers] if is_one else list(layers)
    given = [(layer.forward, layer.backward) if isinstance(layer, Bidirectional) else layer for layer in given]
    pairs = [_is_pair(layer) for layer in given]
    if not given or any(pairs) != all(pairs) or any(len(layer) != 2 for layer in given if _is_pair(layer)):
        wanted = "a cell, a list of cells, or a list of pairs (forward, backward)"
        arrived = ["(" + ", ".join(map(_name, it)) + ")" if _is_pair(it) else _name(it) for it in given]
        raise ConfigError(f"The layers are [{', '.join(arrived)}]; expected {wanted}.")
    for cell in [cell for layer in given for cell in (layer if _is_pair(layer) else [layer])]:
        _check_cell(cell)
    return [Bidirectional(*layer) if _is_pair(layer) else layer for layer in given]


def _is_pair(layer: Any) -> bool:
    return isinstance(layer, Sequence) and not isinstance(layer, str)


def _check_cell(cell: Any) -> None:
    """Refuse what is no cell, and a cell of somebody's own that lacks what every cell needs."""
    name = _name(cell)
    if not isinstance(cell, nnx.RNNCellBase):
        hint = ""
        if isinstance(cell, str):
            name = repr(cell)
            hint = " Encoder.from_seed(seed, in_features, hidden_features, cell=...) takes a name."
        elif type(cell).__module__.partition(".")[0] == "torch":
            name = f"{name} of PyTorch"
            hint = " scanrnn_dist.weights.from_torch(module) makes an Encoder of an nn.GRU, nn.LSTM or nn.RNN."
        raise ConfigError(f"The cell is {name}; expected a flax.nnx RNN cell such as nnx.GRUCell.{hint}")
    if not isinstance(getattr(cell, "in_features", None), int | np.integer):
        raise ConfigError(f"{name} has no whole number in_features, the features per step; give it one.")
    for method in ("initialize_carry(input_shape, rngs)", "__call__(carry, inputs)"):
        own = method.partition("(")[0]
        if getattr(type(cell), own) is getattr(nnx.RNNCellBase, own):
            raise ConfigError(f"{name} has no {method}; give it one.")


def checked_seed(seed: Any) -> int:
    """A seed as a number, `int(seed)` as in the specification, or a `ConfigError` for what is none."""
    try:
        number = int(seed)
    except (TypeError, ValueError, OverflowError):
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise ConfigError(f"The seed is {seed!r}; expected a whole number of at most 64 bits.")
    return number


def seeded_layers(
    seed: int, in_features: int, hidden_features: int, cell: str, num_layers: int, bidirectional: bool, dtype: Any
) -> list[Any]:
    """Cells, or pairs `(forward, backward)`; for the arguments and what is raised see `Encoder.from_seed`."""
    sizes = {"in_features": in_features, "hidden_features": hidden_features, "num_layers": num_layers}
    for name, number in sizes.items():
        if int(number) < 1:
            raise ConfigError(f"{name} is {number}; expected 1 or more.")
    if cell not in KINDS:
        raise ConfigError(f"The cell is {cell!r}; expected one of {', '.join(KINDS)}.")
    seed = checked_seed(seed)
    try:
        given = {} if dtype is None else {"dtype": jnp.dtype(dtype)}
    except TypeError as error:
        raise ConfigError(f"dtype is {dtype!r}; expected a float type such as 'bfloat16'.") from error
    H, directions = int(hidden_features), 1 + bool(bidirectional)
    widths = [int(in_features)] + [H * directions] * (int(num_layers) - 1)
    shapes = [(width, H) for width in widths for _ in range(directions)]
    cells = _drawn_cells(cell, seed, shapes, given)
    return cells if not bidirectional else list(zip(cells[::2], cells[1::2], strict=True))


def _drawn_cells(kind: str, seed: int, sizes: list[tuple[int, int]], given: dict[str, Any]) -> list[Any]:
    """Cells with the weights that flax draws of a seed; by numpy where that is known to give the same bits.

    JAX compiles 14 programs to draw those of one cell, which takes 0.6 s; numpy takes 3 ms at H = 64.
    """
    is_on_cpu = jax.default_backend() == "cpu" and getattr(jax.config, "jax_default_device", None) is None
    if not (is_on_cpu and draws_as_jax()):
        rngs = nnx.Rngs(seed)
        return [KINDS[kind](*size, **given, rngs=rngs) for size in sizes]
    cells = []
    for size, weights in zip(sizes, drawn_cells(kind, seed, sizes), strict=True):
        init = partial(_next_of, iter(weights.values()))
        inits = {"kernel_init": init, "recurrent_kernel_init": init, "bias_init": init}
        cells.append(KINDS[kind](*size, **given, **inits, rngs=_NoKeys()))
    return cells


class _NoKeys:
    """In the place of `nnx.Rngs` where no key is needed: a cell asks for one of each variable, and of its carry."""

    def params(self) -> None:
        """No key."""

    def __call__(self) -> None:
        """No key."""


def _next_of(weights: Iterator[np.ndarray], key: None, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """An initialiser that gives weights which were drawn already, in the order in which the cell asks."""
    array = next(weights)
    if array.shape != tuple(shape) or array.dtype != dtype:
        raise ValueError(f"The cell asks for weights {dtype}{shape}, and {array.dtype}{array.shape} were drawn.")
    return jax.device_put(array)  # `asarray` and `array` compile a program for each shape
