"""`Encoder`: recurrent cells and a readout, one sequence in and one feature vector out.

The engine asks an encoder for three things (`initial_state`, `step`, `readout`), each about one sequence; batches come
from `vmap`, devices from a sharding, and neither stands here. Files are `file.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from scanrnn_dist.encoder.architecture import KINDS, describe
from scanrnn_dist.encoder.cells import (
    Bidirectional,
    at_least_float32,
    called,
    checked_layers,
    chosen,
    hidden_state,
    initial_carry,
    join_directions,
)
from scanrnn_dist.encoder.file import load_encoder, save_encoder, variables_of, why_no_file
from scanrnn_dist.encoder.readouts import STEPS, checked_readout, initial_pools, pooled, updated_pools
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.spec import MATMUL_PRECISION

PRECISIONS = ("highest", "high", "default")
Cells = nnx.RNNCellBase | Sequence[nnx.RNNCellBase] | Sequence[tuple[nnx.RNNCellBase, nnx.RNNCellBase]]


class State(NamedTuple):
    """All that is kept between two steps of a sequence: the layers' carries, variables that change, mean and max."""

    carries: tuple[Any, ...]
    variables: Any
    pools: dict[str, jax.Array]


class Encoder(nnx.Module):
    """Recurrent cells whose final hidden state, or a summary of whose outputs, is the feature vector of a sequence.

    Args:
        layers: a `flax.nnx.RNNCellBase` on one feature axis, such as `nnx.GRUCell(12, 64, rngs=nnx.Rngs(0))`; a list of
            cells, the first layer first; or a list of pairs `(forward, backward)`, for a bidirectional network, whose
            layers give `[forward, backward]` to the next one. A carry may be any pytree of arrays.
        readout: `"last"`, the final hidden state of the last layer; `"mean"` or `"max"` of its outputs; several of them
            joined by `+`; or `"steps"`, all outputs. Of an LSTM the hidden state is `h`; of another cell whose carry
            is no single array, all of the carry.
        initial_carry: what every carry is filled with before the first step; None leaves it to the cells (zeros).
        scan: `"lax"`, or `"nnx"` for cells that change variables of their own in a step (counters, statistics, dropout
            keys): every sequence then begins with the variables as they are now, and carries its own along.
        precision: of the matrix products, as `jax.default_matmul_precision` takes it.

    Raises:
        ConfigError: no cells, sizes that do not fit together, or cells that change variables where `scan` is `"lax"`.

    Example:
        >>> import numpy as np
        >>> encoder = Encoder([nnx.LSTMCell(12, 64, rngs=nnx.Rngs(0)), nnx.LSTMCell(64, 32, rngs=nnx.Rngs(1))])
        >>> encoder(np.ones((5, 12), np.float32)).shape
        (32,)
    """

    def __init__(
        self,
        layers: Cells,
        *,
        readout: str | Sequence[str] = "last",
        initial_carry: float | None = None,
        scan: Literal["lax", "nnx"] = "lax",
        precision: str = MATMUL_PRECISION,
    ) -> None:
        self.layers = nnx.List(checked_layers(layers))
        self.readout_names = checked_readout(readout)
        self.fill = None if initial_carry is None else float(initial_carry)
        self.scan, self.precision = scan, precision
        if scan not in ("lax", "nnx"):
            raise ConfigError(f"scan is {scan!r}; expected 'lax', or 'nnx' for cells that change their own variables.")
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
        self.changing: tuple[Any, ...] = ()
        self._check_dtypes()
        self._settle()

    @classmethod
    def from_seed(
        cls,
        seed: int,
        in_features: int,
        hidden_features: int,
        *,
        cell: str = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        dtype: Any = None,
        **options: Any,
    ) -> Encoder:
        """Random weights. With the defaults the GRU of `scan_rnn_forward(seed, ...)`, bit for bit.

        Args:
            seed: fixes all weights; those of the first layer do not depend on the others.
            in_features: features per step, `D`.
            hidden_features: of every cell, `H`.
            cell: `"gru"`, `"lstm"` or `"rnn"`.
            num_layers: layers, each on the outputs of the one before.
            bidirectional: whether each layer has a second cell that reads from the end.
            dtype: what is computed in; None for float32. The parameters are float32.
            options: `readout`, `initial_carry`, `scan`, `precision`, as `Encoder` takes them.

        Raises:
            ConfigError: a number below 1, an unknown cell, or a seed of more than 64 bits.
        """
        sizes = {"in_features": in_features, "hidden_features": hidden_features, "num_layers": num_layers}
        for name, number in sizes.items():
            if int(number) < 1:
                raise ConfigError(f"{name} is {number}; expected 1 or more.")
        if cell not in KINDS:
            raise ConfigError(f"The cell is {cell!r}; expected one of {', '.join(KINDS)}.")
        try:
            rngs = nnx.Rngs(int(seed))
        except OverflowError as error:
            raise ConfigError(f"The seed is {seed}; expected a whole number of at most 64 bits.") from error
        try:
            given = {} if dtype is None else {"dtype": jnp.dtype(dtype)}
        except TypeError as error:
            raise ConfigError(f"dtype is {dtype!r}; expected a float type such as 'bfloat16'.") from error
        H, width = int(hidden_features), int(in_features)
        layers: list[Any] = []
        for _ in range(int(num_layers)):
            cells = [KINDS[cell](width, H, **given, rngs=rngs) for _ in range(1 + bidirectional)]
            layers.append(tuple(cells) if bidirectional else cells[0])
            width = H * (1 + bidirectional)
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
    def pool_dtype(self) -> Any:
        """What features are: float32, or float64 where the cells compute in it."""
        return self.directions()[-1][0].output_dtype if self.is_bidirectional else self.output_dtype

    @property
    def gives_steps(self) -> bool:
        """Whether the readout is all outputs, `(T, out_features)`."""
        return self.readout_names == (STEPS,)

    @property
    def in_features(self) -> int:
        """Features per step, `D`."""
        return int(self.layers[0].in_features)

    @property
    def out_features(self) -> int:
        """Features per sequence, or per step where the readout is `"steps"`."""
        if self.is_bidirectional:
            return sum(part.out_features for part in self.directions()[-1])
        if self.gives_steps:
            return self.step_features
        return int(np.prod(jax.eval_shape(lambda: self.readout(self.initial_state())).shape))

    @property
    def readout_widths(self) -> list[int]:
        """Features of each part of the readout, of an encoder that is not bidirectional."""
        last = hidden_state(self.layers[-1], initial_carry(self.layers[-1], None)).size
        return [last if name == "last" else self.step_features for name in self.readout_names]

    @property
    def carry_features(self) -> int:
        """Numbers in the carries of all cells together: what a row of its own initial carry has, see `__call__`."""
        carries = [initial_carry(cell, None) for cell in self.cells]
        return sum(leaf.size for leaf in jax.tree.leaves(carries))

    @property
    def flops_per_step(self) -> int:
        """Floating-point operations of the matrix products of one step: two per weight of every kernel."""
        kernels = [w for w in jax.tree.leaves(nnx.state(self, nnx.Param)) if w.ndim == 2]
        return 2 * sum(int(w.size) for w in kernels)

    def initial_state(self, carry: jax.Array | None = None) -> State:
        """The state before the first step; `carry`, `(carry_features,)`, is that of the cells one after the other."""
        carries = [initial_carry(cell, self.fill) for cell in self.layers]
        if self.output_dtype == jnp.float64:  # or each step would be rounded to the parameters' dtype
            carries = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, carries)
        if carry is not None:
            with jax.numpy_dtype_promotion("standard"):  # a carry may hold several dtypes
                flat, restore = ravel_pytree(carries)
            carries = restore(carry.astype(flat.dtype))
        variables = nnx.state(self.layers, self._is_changing) if self.changing else None
        return State(tuple(carries), variables, initial_pools(self.readout_names, self.step_features, self.pool_dtype))

    def step(self, state: State, x_t: jax.Array) -> tuple[State, jax.Array]:
        """The state after one step `x_t (D,)`, and the last layer's output `(step_features,)`."""
        layers = self.layers if state.variables is None else nnx.merge(*self._split(), state.variables)
        carries, y = [], x_t
        for cell, carry in zip(layers, state.carries, strict=True):
            new, y = called(cell, carry, y)
            carries.append(jax.tree.map(lambda new, old: new.astype(old.dtype), new, carry))
        variables = None if state.variables is None else nnx.state(layers, self._is_changing)
        return State(tuple(carries), variables, updated_pools(state.pools, y)), y.reshape(-1)

    def readout(self, state: State) -> jax.Array:
        """The features, `(out_features,)`, of the final state: at least float32."""
        parts = [
            hidden_state(self.layers[-1], state.carries[-1]) if name == "last" else pooled(state.pools, name)
            for name in self.readout_names
        ]
        return jnp.concatenate([part.reshape(-1).astype(self.output_dtype) for part in parts])

    def directions(self) -> list[tuple[_Direction, _Direction]]:
        """Of a bidirectional encoder, an encoder of one cell for each direction of each layer.

        All but the last layer's give their steps, which the next layer takes.
        """
        last = len(self.layers) - 1
        pairs = []
        for index, layer in enumerate(self.layers):
            readout = self.readout_names if index == last else (STEPS,)
            pairs.append((_Direction(layer.forward, self, readout), _Direction(layer.backward, self, readout)))
        return pairs

    def __call__(self, x: Any, seq_lengths: Any = None, initial_carry: Any = None) -> jax.Array:
        """Features of one sequence, or of a padded batch; differentiable in the weights and in `x`.

        Args:
            x: `(T, D)`, or `(..., T, D)` with any leading batch axes.
            seq_lengths: steps to take of each sequence, of the batch axes' shape; all of them when None.
            initial_carry: `(..., carry_features)`, each sequence's own, the cells' one after the other; None for the
                encoder's.

        Returns:
            `(out_features,)`, or `(..., out_features)`; where the readout is `"steps"`, `(..., T, out_features)` with
            zeros beyond a length. Steps beyond a length change nothing.

        Raises:
            ConfigError: axes that do not fit, or a length that is not from 0 to `T` (not seen under jit).
        """
        x = jnp.asarray(x)
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            hint = " Is it (D, T)? Pass x.T." if x.ndim == 2 and x.shape[0] == self.in_features else ""
            raise ConfigError(f"x has shape {x.shape}; expected (..., T, {self.in_features}), features last.{hint}")
        batch = x.shape[:-2]
        lengths = jnp.full(batch, x.shape[-2]) if seq_lengths is None else jnp.asarray(seq_lengths)
        _check_lengths(lengths, batch, x.shape[-2])
        given = [x, lengths]
        if initial_carry is not None:
            given.append(jnp.asarray(initial_carry))
            if given[-1].shape != (*batch, self.carry_features):
                raise ConfigError(
                    f"initial_carry has shape {given[-1].shape}; expected {(*batch, self.carry_features)}."
                )
        forward = self._forward
        for _ in batch:
            forward = jax.vmap(forward)
        with jax.default_matmul_precision(self.precision):
            return forward(*given)

    def _forward(self, x: jax.Array, length: jax.Array, carry: jax.Array | None = None) -> jax.Array:
        """Features of the first `length` steps of one sequence `(T, D)`."""
        if self.is_bidirectional:
            return self._forward_both(x, length, carry)
        t = jnp.arange(len(x))
        x = jnp.where((t < length)[:, None], x, 0)  # or a NaN beyond the end would reach the gradients, as 0 * NaN
        if self.scan == "nnx":
            final, steps = self._nnx_scan(self.initial_state(carry), t < length, x)
        else:
            final, steps = jax.lax.scan(self._masked_step, self.initial_state(carry), (t < length, x))
        return self.readout(final) if steps is None else at_least_float32(steps)

    def _masked_step(self, state: State, at: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array | None]:
        """A step that counts only where it is real; its output only where all are read out."""
        is_real, x_t = at
        new, y = self.step(state, x_t)
        return chosen(is_real, new, state), jnp.where(is_real, y, 0) if self.gives_steps else None

    def _nnx_scan(self, state: State, is_real: jax.Array, x: jax.Array) -> tuple[State, jax.Array | None]:
        """The same by `nnx.scan`, for cells that change their own variables; those of `self` stay as they are."""
        axes: Any = nnx.StateAxes({self._is_changing: nnx.Carry, ...: None})  # type: ignore[arg-type]

        def step(layers: Any, state: State, at: tuple[jax.Array, jax.Array]) -> Any:
            return _Direction(layers, self, self.readout_names)._masked_step(state, at)

        lift = nnx.scan(step, in_axes=(axes, nnx.Carry, 0), out_axes=(nnx.Carry, 0))
        final, steps = lift(nnx.clone(self.layers), state._replace(variables=None), (is_real, x))
        return final, steps

    def _forward_both(self, x: jax.Array, length: jax.Array, carry: jax.Array | None) -> jax.Array:
        """Layer by layer: the backward cell gets the real steps in reverse, never padding first."""
        reverse = jnp.maximum(length - 1 - jnp.arange(len(x)), 0)
        y = x
        for forward, backward in self.directions():
            own: list[Any] = [None, None]
            if carry is not None:
                own = [carry[: forward.carry_features], carry[forward.carry_features :][: backward.carry_features]]
                carry = carry[forward.carry_features + backward.carry_features :]
            there, back = forward._forward(y, length, own[0]), backward._forward(y[reverse], length, own[1])
            if forward.gives_steps:
                y = jnp.concatenate([there, jnp.where((jnp.arange(len(x)) < length)[:, None], back[reverse], 0)], -1)
        return y if self.gives_steps else join_directions(forward.readout_widths, there, back)

    @property
    def architecture(self) -> dict[str, Any]:
        """What the encoder is besides its weights, as JSON can hold it."""
        layers: list[Any] = [describe(cell) for cell in self.cells]
        if self.is_bidirectional:
            layers = [{"forward": f, "backward": b} for f, b in zip(layers[::2], layers[1::2], strict=True)]
        options = {"initial_carry": self.fill, "scan": self.scan, "precision": self.precision}
        return {"layers": layers, "readout": "+".join(self.readout_names), **options}

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over the architecture and all variables: equal when the features are to be equal.

        Where the architecture does not say everything (a cell or readout of your own, a lambda), what JAX traces of a
        step stands for it; such a fingerprint can change with the version of JAX.
        """
        digest = hashlib.sha256(json.dumps(self.architecture, sort_keys=True).encode())
        if why_no_file(Encoder, self) is not None:
            digest.update(self._traced().encode())
        for name, array in sorted(variables_of(self).items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

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
        encoder: Encoder = load_encoder(Encoder, path)
        return encoder

    def _check_dtypes(self) -> None:
        """Refuse cells that compute in float64, or keep their weights in it, where JAX would round it to float32."""
        for name in ("dtype", "param_dtype"):
            given = [getattr(cell, name, None) for cell in self.cells]
            is_wide = any(dtype is not None and jnp.dtype(dtype) == np.float64 for dtype in given)
            if is_wide and not jax.config.read("jax_enable_x64"):
                raise ConfigError(f"{name} is float64, which JAX would round to float32; set JAX_ENABLE_X64=1 for it.")

    def _settle(self) -> None:
        """Trace a step once: learn the outputs' size and which variables change, and see that the sizes fit."""
        try:
            if self.is_bidirectional:
                self.directions()  # each of which learns this of its cell
            else:
                self._learn()
        except (TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"The layers do not fit together: {error}") from error

    def _learn(self) -> None:
        """Set `step_features` and `output_dtype`; refuse cells that change variables where `scan` is `"lax"`."""
        changed: list[Any] = []

        def one_step(variables: Any, x_t: jax.Array) -> jax.Array:
            layers = nnx.merge(nnx.graphdef(self.layers), variables)
            before = dict(nnx.to_flat_state(nnx.state(layers)))
            before = {path: leaf[...] for path, leaf in before.items()}
            y = x_t
            for cell in layers:
                y = called(cell, initial_carry(cell, self.fill), y)[1]
            after = nnx.to_flat_state(nnx.state(layers))
            changed.extend(path for path, leaf in after if leaf[...] is not before[path])
            return y

        x_t = jax.ShapeDtypeStruct((int(self.layers[0].in_features),), jnp.float32)
        output = jax.eval_shape(one_step, nnx.state(self.layers), x_t)
        if changed and self.scan == "lax":
            names = ", ".join(".".join(map(str, path)) for path in changed)
            raise ConfigError(
                f"The cells change variables of their own in a step: {names}. A scan over many sequences at once would "
                "mix them; pass scan='nnx' to give each sequence its own, starting from what they are now."
            )
        self.changing = tuple(changed)
        self.step_features = int(np.prod(output.shape))
        self.output_dtype = jnp.dtype(jnp.float64 if output.dtype == jnp.float64 else jnp.float32)

    def _is_changing(self, path: Any, value: Any) -> bool:
        return tuple(path) in self.changing

    def _split(self) -> tuple[Any, Any]:
        """The layers' structure, and the variables that do not change."""
        parts: Any = nnx.split(self.layers, self._is_changing, ...)
        return parts[0], parts[2]

    def _traced(self) -> str:
        """What JAX traces of a whole sequence of two steps, the variables being arguments."""
        graphdef, variables = nnx.split(self)

        def features(variables: Any, x: jax.Array) -> jax.Array:
            return nnx.merge(graphdef, variables)(x)

        return str(jax.make_jaxpr(features)(variables, jnp.zeros((2, self.in_features))))


class _Direction(Encoder):
    """Some cells of another encoder, with its options; what was checked there is not checked again."""

    def __init__(self, cells: Any, of: Encoder, readout: tuple[str, ...]) -> None:
        self.layers = cells if isinstance(cells, nnx.List) else nnx.List([cells])
        self.readout_names, self.fill, self.scan, self.precision = readout, of.fill, of.scan, of.precision
        self.changing = ()
        if isinstance(cells, nnx.List):
            self.step_features, self.output_dtype = of.step_features, of.output_dtype
        else:
            self._learn()


def _check_lengths(lengths: jax.Array, batch: tuple[int, ...], steps: int) -> None:
    """Refuse lengths of another shape or kind, and, where they are known, of another range."""
    if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ConfigError(f"seq_lengths is {lengths.dtype}{list(lengths.shape)}; expected whole numbers {list(batch)}.")
    if not isinstance(lengths, jax.core.Tracer) and ((lengths < 0) | (lengths > steps)).any():
        raise ConfigError(f"seq_lengths reach from {lengths.min()} to {lengths.max()}; expected 0 to {steps}.")


def checked_encoder(encoder: Any) -> Encoder:
    """The `encoder`, or a `ConfigError` that says how to make one of what was given."""
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"The encoder is a {type(encoder).__name__}; expected an Encoder, such as Encoder(nnx.GRUCell(...)) or "
            "Encoder.from_seed(...)."
        )
    return encoder
