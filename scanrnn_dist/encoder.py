"""`Encoder`: a recurrent cell and its readout, one sequence in and one feature vector out, and its file.

The engine asks an encoder for three things (`initial_carry`, `step`, `readout`), each about one sequence; batches come
from `vmap`, devices from a sharding, and neither stands here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from safetensors import SafetensorError, safe_open

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.spec import MATMUL_PRECISION

FORMAT = "scanrnn_dist.encoder/1"
"""Stands in the header of an encoder file; the number rises when an older reader would misread a newer file."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_tanh": jax.nn.hard_tanh,
}
"""The activations that can be written to a file, by name."""

CELLS: dict[str, Any] = {"GRUCell": nnx.GRUCell}
"""The cells that can be written to a file, by name; each is built from `in_features`, `hidden_features` and the rest
of `Encoder.architecture`."""

NOT_DESCRIBED = {"rngs", "promote_dtype"}
"""Attributes of cells that say nothing about the features, and come and go with versions of flax."""


class Encoder(nnx.Module):
    """A recurrent cell whose final hidden state is the feature vector of a sequence.

    Args:
        cell: any `flax.nnx.RNNCellBase` on one feature axis whose carry is one array, such as
            `nnx.GRUCell(12, 64, rngs=nnx.Rngs(0))`. A cell that changes its own variables in a step is refused by JAX.

    Raises:
        ConfigError: the cell is none, or its carry is not one array.

    Example:
        >>> import numpy as np
        >>> encoder = Encoder.from_seed(seed=0, in_features=12, hidden_features=64)
        >>> encoder(np.ones((5, 12), np.float32)).shape
        (64,)
    """

    def __init__(self, cell: nnx.RNNCellBase) -> None:
        if not isinstance(cell, nnx.RNNCellBase):
            raise ConfigError(f"The cell is {type(cell).__name__}; expected a flax.nnx RNN cell such as nnx.GRUCell.")
        if not isinstance(getattr(cell, "in_features", None), int):
            raise ConfigError(
                f"{type(cell).__name__} has no whole number in_features, the features per step; give it one."
            )
        self.cell = cell
        carry = jax.eval_shape(self.initial_carry)
        if not isinstance(carry, jax.ShapeDtypeStruct):
            raise ConfigError(
                f"The carry of {type(cell).__name__} is {carry}; expected one array, as that of nnx.GRUCell."
            )

    @classmethod
    def from_seed(cls, seed: int, in_features: int, hidden_features: int) -> Encoder:
        """The GRU of `scan_rnn_forward(seed, ...)`, bit for bit: the seed alone fixes the weights."""
        for name, number in {"in_features": in_features, "hidden_features": hidden_features}.items():
            if int(number) < 1:
                raise ConfigError(f"{name} is {number}; expected 1 or more.")
        try:
            rngs = nnx.Rngs(int(seed))
        except OverflowError as error:
            raise ConfigError(f"The seed is {seed}; expected a whole number of at most 64 bits.") from error
        return cls(nnx.GRUCell(int(in_features), int(hidden_features), rngs=rngs))

    @property
    def in_features(self) -> int:
        """Features per step, `D`."""
        return int(self.cell.in_features)  # type: ignore[attr-defined]  # checked in __init__

    @property
    def out_features(self) -> int:
        """Features per sequence."""
        return int(np.prod(jax.eval_shape(lambda: self.readout(self.initial_carry())).shape))

    @property
    def flops_per_step(self) -> int:
        """Floating-point operations of the matrix products of one step: two per weight of every kernel."""
        kernels = [w for w in jax.tree.leaves(nnx.state(self, nnx.Param)) if w.ndim == 2]
        return 2 * sum(int(w.size) for w in kernels)

    def initial_carry(self) -> jax.Array:
        """The carry before the first step, `(H,)`; zeros unless the cell says otherwise."""
        return self.cell.initialize_carry((self.in_features,), rngs=nnx.Rngs(0))

    def step(self, carry: jax.Array, x_t: jax.Array) -> jax.Array:
        """The carry after one step `x_t`, `(D,)`."""
        return self.cell(carry, x_t)[0]

    def readout(self, carry: jax.Array) -> jax.Array:
        """The features, `(out_features,)`, of the final carry."""
        return carry.reshape(-1)

    def __call__(self, x: Any, seq_lengths: Any = None) -> jax.Array:
        """Features of one sequence, or of a padded batch; differentiable in the weights and in `x`.

        Args:
            x: `(T, D)`, or `(..., T, D)` with any leading batch axes.
            seq_lengths: steps to take of each sequence, of the batch axes' shape; all of them when None.

        Returns:
            `(out_features,)`, or `(..., out_features)`. Steps beyond a length change nothing.

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
        forward = self._forward
        for _ in batch:
            forward = jax.vmap(forward)
        with jax.default_matmul_precision(MATMUL_PRECISION):
            return forward(x, lengths)

    def _forward(self, x: jax.Array, length: jax.Array) -> jax.Array:
        """Features of the first `length` steps of one sequence `(T, D)`."""

        def step(carry: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            t, x_t = at
            x_t = jnp.where(t < length, x_t, 0)  # or a NaN beyond the end would reach the gradients, as 0 * NaN
            return jnp.where(t < length, self.step(carry, x_t), carry), None

        final, _ = jax.lax.scan(step, self.initial_carry(), (jnp.arange(len(x)), x))
        return self.readout(final)

    @property
    def architecture(self) -> dict[str, Any]:
        """What the cell is besides its weights, as JSON can hold it: its class and its plain attributes."""
        described: dict[str, Any] = {"cell": _cell_name(self.cell), "readout": "last"}
        for name, value in sorted(vars(self.cell).items()):
            if name[0] != "_" and name not in NOT_DESCRIBED and not isinstance(value, nnx.Module | nnx.Variable):
                described[name] = _described(value)
        return described

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over the architecture and all variables: equal when the features are to be equal.

        Where the architecture does not say everything (a cell or readout of your own, a lambda), what JAX traces of a
        step stands for it; such a fingerprint can change with the version of JAX.
        """
        digest = hashlib.sha256(json.dumps(self.architecture, sort_keys=True).encode())
        if self._why_no_file() is not None:
            digest.update(self._traced().encode())
        for name, array in sorted(self._variables().items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture and weights as one safetensors file, whole or not at all; an existing one is replaced.

        Raises:
            ConfigError: a cell, an activation or a readout that the file format does not know, or no such folder.
        """
        reason = self._why_no_file()
        if reason is not None:
            raise ConfigError(f"The encoder cannot be written to a file: {reason}")
        metadata = {"format": FORMAT, "architecture": json.dumps(self.architecture)}
        path = Path(path)
        if not path.parent.is_dir():
            raise ConfigError(f"There is no folder {path.parent} to write {path.name} to.")
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(aside, "wb") as file:
                file.write(safetensors.numpy.save(self._variables(), metadata))
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Encoder:
        """The encoder that `save` wrote.

        Raises:
            ConfigError: no such file.
            DataError: the file is no encoder, is damaged, or lacks a weight.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except FileNotFoundError as error:
            raise ConfigError(f"There is no encoder file {path}.") from error
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is not a readable safetensors file: {error}") from error
        if metadata.get("format") != FORMAT:
            raise DataError(
                f"{path} is of format {metadata.get('format')!r}; expected {FORMAT!r}, written by Encoder.save."
            )
        return _from_parts(metadata.get("architecture"), weights, str(path))

    def _variables(self) -> dict[str, np.ndarray]:
        """Every variable as a numpy array, by its dotted path within the cell."""
        leaves = nnx.to_flat_state(nnx.state(self.cell))
        return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}

    def _why_no_file(self) -> str | None:
        """Why a file could not hold all that this encoder is; None if `_build` makes the same but for the weights."""
        if type(self) is not Encoder:
            return f"{type(self).__name__} is a class of its own, and a file holds Encoder alone."
        try:
            rebuilt = _graphdef(json.dumps(self.architecture))
        except (ValueError, TypeError, KeyError) as error:
            return str(error)
        if rebuilt != nnx.split(self)[0]:
            return f"its {_cell_name(self.cell)} was changed after it was built (other layers, dtypes or attributes)."
        return None

    def _traced(self) -> str:
        """What JAX traces of the first carry, a step and the readout, the variables being arguments."""
        graphdef, variables = nnx.split(self)

        def features(variables: Any, x_t: jax.Array) -> jax.Array:
            merged = nnx.merge(graphdef, variables)
            return merged.readout(merged.step(merged.initial_carry(), x_t))

        return str(jax.make_jaxpr(features)(variables, jnp.zeros((self.in_features,))))


def _check_lengths(lengths: jax.Array, batch: tuple[int, ...], steps: int) -> None:
    """Refuse lengths of another shape or kind, and, where they are known, of another range."""
    if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ConfigError(f"seq_lengths is {lengths.dtype}{list(lengths.shape)}; expected whole numbers {list(batch)}.")
    if not isinstance(lengths, jax.core.Tracer) and ((lengths < 0) | (lengths > steps)).any():
        raise ConfigError(f"seq_lengths reach from {lengths.min()} to {lengths.max()}; expected 0 to {steps}.")


def _cell_name(cell: nnx.RNNCellBase) -> str:
    """A cell's name in files: short for the ones of flax that a file can hold, else with its module."""
    kind = type(cell)
    return kind.__name__ if kind in CELLS.values() else f"{kind.__module__}.{kind.__qualname__}"


def _described(value: Any) -> Any:
    """A plain attribute as JSON: functions and dtypes by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for name, function in FUNCTIONS.items():
        if value is function:
            return name
    if callable(value) and hasattr(value, "__qualname__") and not isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return jnp.dtype(value).name
    except TypeError:
        return repr(value)


def _build(architecture: dict[str, Any]) -> Encoder:
    """The encoder of an architecture, with random weights; raises `ConfigError` for one that a file cannot hold."""
    if architecture["cell"] not in CELLS:
        raise ConfigError(f"the cell is {architecture['cell']!r}; a file holds only {sorted(CELLS)}.")
    for name in ("gate_fn", "activation_fn"):
        if architecture[name] not in FUNCTIONS:
            raise ConfigError(f"{name} is {architecture[name]!r}; a file holds only {sorted(FUNCTIONS)}.")
    if architecture["carry_init"] is not None:
        raise ConfigError("it has a carry_init of its own; a file holds none.")
    dtype = architecture["dtype"]
    cell = CELLS[architecture["cell"]](
        architecture["in_features"],
        architecture["hidden_features"],
        gate_fn=FUNCTIONS[architecture["gate_fn"]],
        activation_fn=FUNCTIONS[architecture["activation_fn"]],
        dtype=None if dtype is None else jnp.dtype(dtype),
        param_dtype=jnp.dtype(architecture["param_dtype"]),
        rngs=nnx.Rngs(0),
    )
    return Encoder(cell)


@lru_cache(maxsize=16)
def _graphdef(architecture: str) -> Any:
    """The structure of the encoder of an architecture, given as JSON; takes 7 ms to trace."""
    return nnx.split(nnx.eval_shape(lambda: _build(json.loads(architecture))))[0]


def _from_parts(architecture: str | None, weights: dict[str, np.ndarray], where: str) -> Encoder:
    """Build the cell of an architecture and give it its weights, all of them and of the right shapes."""
    try:
        encoder = _build(json.loads(architecture or "{}"))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{where} has a damaged or unknown architecture {architecture!r}: {error}") from error
    expected = {name: (array.shape, array.dtype) for name, array in encoder._variables().items()}
    arrived = {name: (array.shape, array.dtype) for name, array in weights.items()}
    if arrived != expected:
        wrong = [
            f"{name}: {arrived.get(name, 'missing')}, expected {expected.get(name, 'none')}"
            for name in sorted(expected.keys() | arrived.keys())
            if arrived.get(name) != expected.get(name)
        ]
        raise DataError(f"{where} holds other weights than its architecture asks for: " + "; ".join(wrong))
    state = nnx.from_flat_state([(tuple(name.split(".")), nnx.Param(jnp.asarray(w))) for name, w in weights.items()])
    nnx.update(encoder.cell, state)
    return encoder


def checked_encoder(encoder: Any) -> Encoder:
    """The `encoder`, or a `ConfigError` that says how to make one of what was given."""
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"The encoder is a {type(encoder).__name__}; expected an Encoder, such as Encoder(nnx.GRUCell(...)) or "
            "Encoder.from_seed(...)."
        )
    return encoder
