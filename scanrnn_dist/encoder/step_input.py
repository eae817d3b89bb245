"""From a travelling step to the cell's input: numbers as they are, ids as one-hot vectors or rows of tables.

Runs on the device, within a step, and is differentiable in the tables. What the columns mean, and which numbers travel,
says the room `input_spec`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scanrnn_dist.encoder.cells import checked_seed
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import Category, InputSpec

STREAM = 0x7AB1E5
"""Keeps what is drawn for tables apart from what is drawn for cells, of the same seed."""


class StepInput(nnx.Module):
    """An `InputSpec` and its embedding tables.

    Args:
        spec: what a step holds.
        tables: for each column with an embedding `(ids, dimension)`; or the seed that they are drawn from.
        dtype: of the tables.

    Raises:
        ConfigError: a table is missing, surplus, misshapen or not of numbers; or a seed of more than 64 bits.
    """

    def __init__(self, spec: InputSpec, tables: Mapping[str, Any] | int, dtype: Any) -> None:
        self.spec = spec
        if isinstance(tables, Mapping):
            arrays = checked_tables(spec, tables)
        else:
            arrays = drawn_tables(spec, checked_seed(tables))
        self.tables = nnx.List([nnx.Param(jnp.asarray(array, dtype)) for array in arrays.values()])

    def __call__(self, x_t: jax.Array) -> jax.Array:
        """What travels of a step, `(in_features,)`, as what the cell gets, `(width,)`.

        An id that its column has not gives NaN: a device cannot raise, and NaN is in no feature that is right.
        """
        dtypes = [x_t.dtype, *(table[...].dtype for table in self.tables)]
        dtype = jnp.float64 if jnp.float64 in dtypes else jnp.float32
        tables, parts = iter(self.tables), []
        for index, column in enumerate(self.spec.columns):
            x = x_t[index]
            if not isinstance(column, Category):
                parts.append(x[None].astype(dtype))
            elif column.encode == "embedding":
                parts.append(_known(column, x, looked_up(next(tables)[...], x), dtype))
            else:
                parts.append(_known(column, x, jnp.arange(column.ids, dtype=jnp.int32) == x.astype(jnp.int32), dtype))
        return jnp.concatenate(parts)

    def named_tables(self) -> dict[str, nnx.Param]:
        """The tables by the names that they have in files."""
        return {f"input.{name}": table for name, table in zip(self.spec.tables, self.tables, strict=True)}


def step_input_of(input: Any, tables: Mapping[str, Any] | int, cell: Any) -> StepInput:
    """The stage before a first layer, of cells like this one; its tables are float64 where the cell's weights are."""
    if not isinstance(input, InputSpec):
        raise ConfigError(f"The input is a {type(input).__name__}; expected an InputSpec, as InputSpec.load gives.")
    if (takes := int(cell.in_features)) != input.width:
        raise ConfigError(
            f"The first layer takes {takes} numbers per step, and the input's columns give {input.width}: "
            + ", ".join(f"{column.name} {column.width}" for column in input.columns)
        )
    is_wide = getattr(cell, "param_dtype", None) == np.float64
    return StepInput(input, tables, jnp.float64 if is_wide else jnp.float32)


def looked_up(table: jax.Array, x: jax.Array) -> jax.Array:
    """The row of a table whose id is `x`, a whole number in a float; the nearest row for an id that is none of it."""
    index = jnp.clip(x.astype(jnp.int32), 0, len(table) - 1)
    return table.at[index].get(mode="promise_in_bounds")


def _known(column: Category, x: jax.Array, vector: jax.Array, dtype: Any) -> jax.Array:
    """The vector of an id; zeros for an unknown value, NaN for what is no id."""
    is_known = (x >= 0) & (x < column.ids) & (x == jnp.floor(x))
    zeros = jnp.zeros((), dtype)
    others = jnp.where(x == -1, zeros, jnp.nan) if column.unknown == "zeros" else zeros + jnp.nan
    return jnp.where(is_known, vector.astype(dtype), others)


def drawn_tables(spec: InputSpec, seed: int) -> dict[str, jax.Array]:
    """Tables of normal numbers, as in PyTorch; each depends on the seed and the name of its column alone."""
    key = jax.random.fold_in(jax.random.key(seed), STREAM)
    return {
        name: jax.random.normal(jax.random.fold_in(key, zlib.crc32(name.encode())), shape, jnp.float32)
        for name, shape in spec.tables.items()
    }


def checked_tables(spec: InputSpec, tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables in the order of the columns, if they are those that the columns ask for."""
    expected, arrived = spec.tables, {name: tuple(np.shape(table)) for name, table in tables.items()}
    wrong = [name for name in sorted(expected.keys() | arrived.keys()) if expected.get(name) != arrived.get(name)]
    if wrong:
        told = [f"{each!r}: {arrived.get(each, 'missing')}, expected {expected.get(each, 'none')}" for each in wrong]
        raise ConfigError(f"The embedding tables are not those of the input's columns: {'; '.join(told)}.")
    for name in expected:
        if not jnp.issubdtype(np.asarray(tables[name]).dtype, jnp.number):
            kind = np.asarray(tables[name]).dtype
            raise ConfigError(f"The embedding table {name!r} holds values of type {kind}; expected numbers.")
    return {name: tables[name] for name in expected}
