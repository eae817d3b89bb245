"""`Encoder`: recurrent cells and a readout, one sequence in and one feature vector out.

The engine asks an encoder for three things (`initial_state`, `step`, `readout`), each about one sequence. Whole
sequences and batches are `scan.py`'s, random weights `cells.py`'s, files `file.py`'s; devices are not known here.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from scanrnn_dist.encoder.architecture import describe
from scanrnn_dist.encoder.cells import Bidirectional, Layer, checked_layers, hidden_state, initial_carry, seeded_layers
from scanrnn_dist.encoder.file import (
    encoder_content,
    encoder_of_content,
    fingerprint_of,
    load_encoder,
    save_encoder,
    value_of,
)
from scanrnn_dist.encoder.readouts import STEPS, checked_readout, initial_pools, pooled
from scanrnn_dist.encoder.scan import State, batch_features, stepped, traced_step, variables_at
from scanrnn_dist.encoder.step_input import StepInput, step_input_of
from scanrnn_dist.encoder.words import SignatureOfInit, in_words
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.spec import MATMUL_PRECISION

PRECISIONS = ("highest", "high", "default")


class Encoder(nnx.Module):
    """Recurrent cells whose final hidden state, or a summary of whose outputs, is the feature vector of a sequence.

    Args:
        layers: a `flax.nnx.RNNCellBase` on one feature axis, such as `nnx.GRUCell(12, 64, rngs=nnx.Rngs(0))`; a list of
            cells, the first layer first; or a list of pairs `(forward, backward)`, for a bidirectional network, whose
            layers give `[forward, backward]` to the next one. A carry may be any pytree of arrays but complex ones.
        readout: `"last"`, the final hidden state of the last layer; `"mean"` or `"max"` of its outputs; several of them
            joined by `+`; or `"steps"`, all outputs. Of an LSTM the hidden state is `h`; of another cell whose carry
            is no single array, all of the carry.
        initial_carry: what every carry is filled with before the first step; None leaves it to the cells (zeros).
        scan: `"lax"`, or `"nnx"` for cells that change variables of their own in a step (counters, statistics, the
            count of a dropout key): every sequence then begins with the variables as they are now, and carries its own
            along.
        precision: of the matrix products, as `jax.default_matmul_precision` takes it.
        input: what a step holds, where that is more than the numbers that the first layer takes. A step then travels as
            one number per column, ids among them, and becomes the cell's input within `step`.
        tables: for each column of `input` with an embedding its table `(ids, dimension)`; or the seed of random ones.

    Raises:
        ConfigError: no cells, sizes that do not fit together, complex outputs or carries, cells that change variables
            where `scan` is `"lax"` or change a PRNG key, or a subclass with a method that nobody would call:
            `initial_state`, `step` or `readout` where there are two directions, `readout` where it is `"steps"`.

    Example:
        >>> import numpy as np
        >>> encoder = Encoder([nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), nnx.GRUCell(4, 4, rngs=nnx.Rngs(1))])
        >>> encoder(np.ones((5, 3), np.float32)).shape
        (4,)
    """

    __signature__ = SignatureOfInit()
    pool_dtype: Any
    """Of the features: float32, or float64 where the cells compute in it."""
    carry_features: int
    """Numbers in the carries of all cells together: what a row of its own initial carry has, see `__call__`."""
    flops_per_step: int
    """Floating-point operations of the matrix products of one step: two per weight of every kernel, at least 1."""
    step_features: int
    """Of the last layer's output at each step, where there is one direction."""
    readout_widths: tuple[int, ...]
    """Features of each part of the readout."""
    built_shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """Of all variables, by path, when these numbers were learned."""

    def __init__(
        self,
        layers: nnx.RNNCellBase | Sequence[Layer],
        *,
        readout: str | Sequence[str] = "last",
        initial_carry: float | None = None,
        scan: Literal["lax", "nnx"] = "lax",
        precision: str = MATMUL_PRECISION,
        input: InputSpec | None = None,
        tables: Mapping[str, Any] | int = 0,
    ) -> None:
        self.layers = nnx.List(checked_layers(layers))
        if input is None and isinstance(tables, Mapping):
            raise ConfigError(f"tables of {sorted(tables)} were given without an input; give it, by input=.")
        self.step_input = None if input is None else step_input_of(input, tables, self.cells[0])
        self.readout_names = checked_readout(readout)
        if initial_carry is not None and np.ndim(initial_carry):
            raise ConfigError(
                f"initial_carry has the shape {np.shape(initial_carry)}; expected one number, which fills every carry. "
                "Carries of rows go to encode(initial_carry=)."
            )
        self.fill = None if initial_carry is None else float(initial_carry)
        if self.fill is not None and np.isnan(self.fill):
            raise ConfigError("initial_carry is nan; expected a number.")
        self.scan, self.precision = scan, precision
        if scan not in ("lax", "nnx"):
            raise ConfigError(f"scan is {scan!r}; expected 'lax', or 'nnx' for cells that change their own variables.")
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
        self._check_own_methods()
        self._check_dtypes()
        try:
            self._settle()
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The layers do not fit together: {error}") from error

    @classmethod
    def from_seed(
        cls,
        seed: int,
        in_features: int | None,
        hidden_features: int,
        *,
        cell: str = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        dtype: Any = None,
        input: InputSpec | None = None,
        **options: Any,
    ) -> Encoder:
        """Random weights. With the defaults the GRU of `scan_rnn_forward(seed, ...)`, bit for bit.

        Args:
            seed: fixes all weights; those of the first layer do not depend on the others.
            in_features: features per step, `D`; may be None where `input` says them.
            hidden_features: of every cell, `H`.
            cell: `"gru"`, `"lstm"` or `"rnn"`.
            num_layers: layers, each on the outputs of the one before.
            bidirectional: whether each layer has a second cell that reads from the end.
            dtype: what is computed in; None for float32. The parameters are float32.
            input: what a step holds, as `Encoder` takes it. The cells' weights do not depend on its tables.
            options: `readout`, `initial_carry`, `scan`, `precision`, as `Encoder` takes them; and `tables`, which are
                random without it.

        Raises:
            ConfigError: a number below 1, an unknown cell, or a seed of more than 64 bits.
        """
        if input is not None:
            if in_features not in (None, input.in_features):
                raise ConfigError(f"in_features is {in_features}, and input has {input.in_features} columns; give one.")
            in_features, options = input.width, {"tables": seed, **options, "input": input}
        elif in_features is None:
            raise ConfigError("in_features is None; expected the features per step, or an input that says them.")
        layers = seeded_layers(seed, in_features, hidden_features, cell, num_layers, bidirectional, dtype)
        return cls(layers, **options)

    @property
    def cell(self) -> Any:
        """The cell of an encoder that has only one."""
        if len(self.layers) != 1 or self.is_bidirectional:
            raise ConfigError(f"The encoder has {len(self.cells)} cells; see layers.")
        return self.layers[0]

    @property
    def cells(self) -> list[Any]:
        """All cells: layer by layer, forward before backward."""
        if not self.is_bidirectional:
            return list(self.layers)
        return [cell for layer in self.layers for cell in (layer.forward, layer.backward)]

    @property
    def is_bidirectional(self) -> bool:
        """Whether every layer reads from both ends."""
        return isinstance(self.layers[0], Bidirectional)

    @property
    def gives_steps(self) -> bool:
        """Whether the readout is all outputs, `(T, out_features)`."""
        return self.readout_names == (STEPS,)

    @property
    def input(self) -> InputSpec | None:
        """What a step holds; None where it is the numbers that the first layer takes."""
        return None if self.step_input is None else self.step_input.spec

    @property
    def in_features(self) -> int:
        """Features per step, `D`; where there is an `input`, the numbers that travel, one per column."""
        return int(self.layers[0].in_features) if self.step_input is None else self.step_input.spec.in_features

    @property
    def out_features(self) -> int:
        """Features per sequence, or per step where the readout is `"steps"`."""
        if "readout" not in own_methods(self):
            return sum(self.readout_widths)
        return int(jax.eval_shape(lambda: self.readout(self.initial_state())).size)

    def initial_state(self, carry: jax.Array | None = None) -> State:
        """The state before the first step; `carry`, `(carry_features,)`, is that of the cells one after the other."""
        carries = [initial_carry(cell, self.fill) for cell in self.layers]
        if self.pool_dtype == jnp.float64:  # or each step would be rounded to the parameters' dtype
            carries = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, carries)
        if carry is not None:
            with jax.numpy_dtype_promotion("standard"):  # a carry may hold several dtypes
                flat, restore = ravel_pytree(carries)
            carries = restore(carry.astype(flat.dtype))
        variables = nnx.state(self.layers, variables_at(self.changing)) if self.changing else None
        return State(tuple(carries), variables, initial_pools(self.readout_names, self.step_features, self.pool_dtype))

    def step(self, state: State, x_t: jax.Array) -> tuple[State, jax.Array]:
        """The state after one step `x_t (D,)`, and the last layer's output `(step_features,)`."""
        x_t = x_t if self.step_input is None else self.step_input(x_t)
        if state.variables is None:
            return stepped(self.layers, state, x_t)
        is_changing = variables_at(self.changing)
        parts: Any = nnx.split(self.layers, is_changing, ...)  # structure, what changes, the rest
        layers = nnx.merge(parts[0], parts[2], state.variables)
        new, y = stepped(layers, state, x_t)
        return new._replace(variables=nnx.state(layers, is_changing)), y

    def readout(self, state: State) -> jax.Array:
        """The features, `(out_features,)`, of the final state: at least float32."""
        parts = [
            hidden_state(self.layers[-1], state.carries[-1]) if name == "last" else pooled(state.pools, name)
            for name in self.readout_names
        ]
        return jnp.concatenate([part.reshape(-1).astype(self.pool_dtype) for part in parts])

    def directions(self) -> list[tuple[_Direction, _Direction]]:
        """Of a bidirectional encoder, an encoder of one cell for each direction of each layer."""
        # All but the last layer's give their steps, which the next layer takes.
        readouts = [(STEPS,)] * (len(self.layers) - 1) + [self.readout_names]
        inputs = [self.step_input] + [None] * (len(self.layers) - 1)
        return [
            (_Direction(layer.forward, self, readout, own), _Direction(layer.backward, self, readout, own))
            for layer, readout, own in zip(self.layers, readouts, inputs, strict=True)
        ]

    def __call__(self, x: Any, seq_lengths: Any = None, initial_carry: Any = None) -> jax.Array:
        """Features of one sequence, or of a padded batch; differentiable in the weights and in `x`.

        Args:
            x: `(T, D)`, or `(..., T, D)` with any leading batch axes; numbers of any type but complex ones, taken as
                floats of the features' dtype. The batch may be sharded over a mesh.
            seq_lengths: steps to take of each sequence, of the batch axes' shape; all of them when None.
            initial_carry: `(..., carry_features)`, each sequence's own, the cells' one after the other; None for the
                encoder's.

        Returns:
            `(out_features,)`, or `(..., out_features)`; where the readout is `"steps"`, `(..., T, out_features)` with
            zeros beyond a length. Steps beyond a length change nothing.

        Raises:
            ConfigError: axes that do not fit, no real numbers, or a length that is not from 0 to `T` (not seen under
                jit).
        """
        return batch_features(Encoder, self, x, seq_lengths, initial_carry)

    @property
    def architecture(self) -> dict[str, Any]:
        """What the encoder is besides its weights, as JSON can hold it."""
        layers: list[Any] = [describe(cell) for cell in self.cells]
        if self.is_bidirectional:
            layers = [{"forward": f, "backward": b} for f, b in zip(layers[::2], layers[1::2], strict=True)]
        options: dict[str, Any] = {"initial_carry": self.fill, "scan": self.scan, "precision": self.precision}
        if self.input is not None:
            options["input"] = self.input.to_dict()
        return {"layers": layers, "readout": "+".join(self.readout_names), **options}

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over the architecture and all variables: equal when the features are to be equal.

        Where the architecture does not say everything (a cell or readout of your own, a lambda), what JAX traces of a
        step stands for it; such a fingerprint can change with the version of JAX. What a callback to Python does is not
        traced, so it does not tell such encoders apart.
        """
        return fingerprint_of(Encoder, self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture and weights as one safetensors file, whole or not at all; an existing one is replaced.

        Raises:
            ConfigError: a cell, an activation or a readout that the file format does not know, or no such folder.
        """
        save_encoder(Encoder, self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Encoder:
        """The encoder of a file that `save` wrote.

        Raises:
            ConfigError: no such file.
            DataError: it is none, is damaged, or its weights are not those of its architecture.
        """
        return load_encoder(Encoder, path)

    def __repr__(self) -> str:
        """What it is, in one line; `nnx.display(encoder)` shows every array."""
        return f"{type(self).__name__}({in_words(self)})"

    def __str__(self) -> str:
        """The same line."""
        return repr(self)

    def __reduce__(self) -> tuple[Callable[[bytes], Encoder], tuple[bytes]]:
        """Travel as the content of a file, so that a pickled encoder keeps its fingerprint and the bits of features.

        Pickled attribute by attribute, it would not: pickle refuses `jax.nn.sigmoid`, cloudpickle makes another one.

        Raises:
            ConfigError: an encoder that no file can hold.
        """
        try:
            return _of_content, (encoder_content(Encoder, self),)
        except ConfigError as error:
            raise ConfigError(
                f"The encoder cannot be pickled: it travels as the content of a file. {error} Build it in the process "
                "that uses it: send a function that returns it."
            ) from error

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Encoder:
        """A copy with variables of its own; functions, such as activations, stay the same ones."""
        graphdef, state = nnx.split(self)
        copied: Encoder = nnx.merge(graphdef, copy.deepcopy(state, memo))
        return copied

    def _check_own_methods(self) -> None:
        """Refuse methods of a subclass that nobody would call."""
        own = own_methods(self)
        for what, is_so, not_called in (
            ("bidirectional layers", self.is_bidirectional, own),
            ("readout='steps'", self.gives_steps, own & {"readout"}),
        ):
            if is_so and not_called:
                raise ConfigError(
                    f"{type(self).__name__} has methods of its own that do not go with {what}: "
                    f"{', '.join(sorted(not_called))}. Leave out one of the two."
                )

    def _check_dtypes(self) -> None:
        """Refuse cells that compute in float64, or keep their weights in it, where JAX would round it to float32."""
        for name in ("dtype", "param_dtype"):
            given = [getattr(cell, name, None) for cell in self.cells]
            is_wide = any(dtype is not None and jnp.dtype(dtype) == np.float64 for dtype in given)
            if is_wide and not jax.config.read("jax_enable_x64"):
                raise ConfigError(f"{name} is float64, which JAX would round to float32; set JAX_ENABLE_X64=1 for it.")

    def _settle(self) -> None:
        """Learn once, by a traced step, what is then asked for often: sizes, dtype, and which variables change."""
        leaves = jax.tree.leaves(nnx.state(self.layers))  # also of variables that are no `nnx.Param`: frozen ones
        kernels = [w for w in leaves if np.ndim(w) == 2 and jnp.issubdtype(w.dtype, jnp.floating)]
        self.flops_per_step = max(1, 2 * sum(int(w.size) for w in kernels))  # which divides
        self.changing: tuple[Any, ...] = ()
        self.built_shapes = _shapes_of(self)
        if self.is_bidirectional:
            directions = self.directions()
            gets = self.layers[0].in_features
            for number, pair in enumerate(directions):
                takes = [part.cell.in_features for part in pair]
                if takes != [gets, gets]:
                    raise ValueError(f"the cells of layer {number} take {takes} features per step, and get {gets}.")
                gets = sum(part.step_features for part in pair)
            self.pool_dtype = directions[-1][0].pool_dtype
            widths = [part.readout_widths for part in directions[-1]]
            self.readout_widths = tuple(map(sum, zip(*widths, strict=True)))
            self.carry_features = sum(part.carry_features for pair in directions for part in pair)
            return
        (output, hidden, carries), self.changing = traced_step(self.layers, self.fill)
        if self.changing and self.scan == "lax":
            names = ", ".join(".".join(map(str, path)) for path in self.changing)
            raise ConfigError(
                f"The cells change variables of their own in a step: {names}. A scan over many sequences at once would "
                "mix them; pass scan='nnx' to give each sequence its own, starting from what they are now."
            )
        self.step_features, self.carry_features = output.size, sum(leaf.size for leaf in jax.tree.leaves(carries))
        self.pool_dtype = jnp.dtype(jnp.float64 if output.dtype == jnp.float64 else jnp.float32)
        self.readout_widths = tuple(hidden.size if name == "last" else output.size for name in self.readout_names)


def _of_content(content: bytes) -> Encoder:
    """The encoder that was pickled."""
    return encoder_of_content(Encoder, content)


class _Direction(Encoder):
    """One cell of another encoder, with its options; what was checked there is not checked again."""

    def __init__(self, cell: Any, of: Encoder, readout: tuple[str, ...], step_input: StepInput | None) -> None:
        self.layers, self.step_input = nnx.List([cell]), step_input
        self.readout_names, self.fill, self.scan, self.precision = readout, of.fill, of.scan, of.precision
        self._settle()


def own_methods(encoder: Encoder) -> set[str]:
    """Which of the three methods that the engine calls are of a class of somebody's own, not of `Encoder`."""
    names = ("initial_state", "step", "readout")
    return {name for name in names if getattr(type(encoder), name) is not getattr(Encoder, name)}


def checked_encoder(encoder: Any) -> Encoder:
    """The `encoder`, or a `ConfigError` that says how to make one of what was given.

    Variables may have got other values since it was built, but no other shapes: its sizes would no longer be theirs.
    """
    if not isinstance(encoder, Encoder):
        wanted = "an Encoder, such as Encoder(nnx.GRUCell(...)) or Encoder.from_seed(...)"
        raise ConfigError(f"The encoder is a {type(encoder).__name__}; expected {wanted}.")
    now = dict(_shapes_of(encoder))
    for name, shape in encoder.built_shapes:
        if now.get(name) != shape:
            raise ConfigError(
                f"The layers do not fit together: {name} had the shape {shape} when the encoder was built, and has "
                f"{now.get(name)}; expected the same shape. Build another Encoder for weights of other sizes."
            )
    return encoder


def _shapes_of(encoder: Encoder) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Of all variables, by path."""
    leaves = nnx.to_flat_state(nnx.state(encoder))
    return tuple((".".join(map(str, path)), np.shape(value_of(leaf))) for path, leaf in leaves)
