"""Embedding tables by the names that a framework gave them: which array belongs to which column of an input.

An `nn.Embedding` of PyTorch is one array `(ids, dimension)` whose name ends in `weight`; the row of a `padding_idx` is
one like the others.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping

import numpy as np

from scanrnn_dist.errors import ConfigError, DataError, some_of
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.weights.files import Named, checked_weights


def table_names(named: Named, spec: InputSpec, told: Mapping[str, str], others: Collection[str], where: str) -> Named:
    """The name of the array of each embedding column.

    Args:
        named: all arrays.
        spec: the input, whose columns say the shapes.
        told: names by column, for those that shapes do not tell; with or without `.weight` at their ends.
        others: names that are no tables, such as those of the recurrent network.
        where: the source, for messages.

    Raises:
        ConfigError: a column without a table, an array that is not there, or several that a column could have.
    """
    tables = spec.tables
    if surplus := sorted(told.keys() - tables.keys()):
        has = f"those of the input are {sorted(tables)}"
        raise ConfigError(f"{surplus[0]!r} is no column with an embedding; {has}. See --embedding / embeddings.")
    shapes = {name: tuple(getattr(array, "shape", ())) for name, array in named.items()}  # a list of tensors has none
    found = {name: shape for name, shape in shapes.items() if name not in others and len(shape) == 2}
    shown = some_of([f"{name} {shape}" for name, shape in found.items()], 8)
    chosen: Named = {}
    for column, shape in tables.items():
        if column in told:
            names = [name for name in (told[column], f"{told[column]}.weight") if name in found][:1]
            if not names:
                raise ConfigError(f"{where} holds no table {told[column]!r} for column {column!r}; it holds {shown}.")
        else:
            names = [name for name, its in found.items() if its == shape and name.endswith("weight")]
        if len(names) != 1:
            fault = f"holds several tables {shape}: {names}" if names else f"holds no table {shape}; it holds {shown}"
            by = f"--embedding {shlex.quote(f'{column}=NAME')} / embeddings"
            raise ConfigError(f"{where} {fault}. Say which belongs to column {column!r} by {by}.")
        chosen[column] = names[0]
    if twice := [
        name for column, name in chosen.items() if column not in told and list(chosen.values()).count(name) > 1
    ]:
        raise ConfigError(
            f"{where} holds the table {twice[0]!r}, which several columns could have. Say it by --embedding."
        )
    return chosen


def tables_of(named: Named, names: Named, spec: InputSpec, where: str, lossy_cast: bool) -> dict[str, np.ndarray]:
    """The tables by column, float32; a `DataError` for another shape, or for what float32 does not hold."""
    tables = {}
    for column, name in names.items():
        expected = {name: spec.tables[column]}
        try:
            tables[column] = checked_weights({name: named[name]}, expected, where, lossy_cast=lossy_cast)[name]
        except DataError as error:
            rows = 'the input counts one row for each id, and one more with unknown = "own"'
            raise DataError(f"Column {column!r}: {error} A table is (ids, dimension); {rows}.") from error
    return tables
