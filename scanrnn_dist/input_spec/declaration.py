"""`InputSpec`: the columns of a step in their order, read from TOML and JSON and written as JSON.

What a column may be is `columns.py`'s.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from scanrnn_dist.errors import ConfigError, some_of
from scanrnn_dist.input_spec.columns import (
    UNKNOWN_ID,
    Category,
    Column,
    Number,
    Time,
    column_of,
    is_embedding,
    plain_of,
)


@dataclass(frozen=True)
class InputSpec:
    """What a step holds: columns, in the order in which the cell gets them.

    Args:
        columns: each a `Number`, a `Category` or a `Time`; one name may come twice, as hour and weekday of one time.

    Raises:
        ConfigError: no columns, or two embedding tables of one name.

    Example:
        >>> spec = InputSpec((Category("item", size=100, encode="embedding", dimension=8), Number("dwell")))
        >>> spec.in_features, spec.width  # numbers that travel, numbers that the cell gets
        (2, 9)
        >>> InputSpec.from_json(spec.to_json()) == spec
        True
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        """Check the columns together."""
        object.__setattr__(self, "columns", tuple(self.columns))
        for column in self.columns:
            if not isinstance(column, Number | Category | Time):
                raise ConfigError(f"A column of an InputSpec is {column!r}; expected a Number, a Category or a Time.")
        if not self.columns:
            raise ConfigError("An InputSpec has no columns; expected one or more.")
        tables = [column.name for column in self.columns if is_embedding(column)]
        if len(set(tables)) < len(tables):
            twice = next(name for name in tables if tables.count(name) > 1)
            raise ConfigError(f"Column {twice!r} has two embedding tables; expected one for each name.")

    @cached_property
    def _hash(self) -> int:
        return hash(self.columns)

    def __hash__(self) -> int:
        """That of the columns, computed once: JAX asks often, and a vocabulary may have a million values."""
        return self._hash

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys(column.name for column in self.columns))

    @property
    def in_features(self) -> int:
        """Numbers of a step that travel: one per column."""
        return len(self.columns)

    @property
    def width(self) -> int:
        """Numbers of a step that the cell gets."""
        return sum(column.width for column in self.columns)

    @property
    def places(self) -> tuple[slice, ...]:
        """Where each column stands in what the cell gets."""
        ends = np.cumsum([0, *(column.width for column in self.columns)]).tolist()
        return tuple(slice(begin, end) for begin, end in pairwise(ends))

    @property
    def tables(self) -> dict[str, tuple[int, int]]:
        """The shape of every embedding table, `(ids, dimension)`, by column."""
        columns = [column for column in self.columns if is_embedding(column)]
        return {column.name: (column.ids, column.width) for column in columns}

    def first_wrong_id(self, values: np.ndarray) -> tuple[int, str] | None:
        """The first step of travelling values `(S, in_features)` with an id that its column has not, and what is wrong.

        A NaN is left to who judges numbers. None if there is no such step.

        Example:
            >>> InputSpec((Category("item", size=3),)).first_wrong_id(np.float32([[2], [3]]))
            (1, "column 'item' has the id 3; expected a whole number from 0 to 2")
        """
        found = []
        for index, column in enumerate(self.columns):
            if isinstance(column, Category):
                ids, takes_unknown = values[:, index], column.unknown == "zeros"
                is_id = (ids >= 0) & (ids < column.ids) & (ids == np.floor(ids)) | np.isnan(ids)
                wrong = ~(is_id | (ids == UNKNOWN_ID)) if takes_unknown else ~is_id
                if wrong.any():
                    step = int(wrong.argmax())
                    zeros = f", or {UNKNOWN_ID:.0f} for an unknown value" if takes_unknown else ""
                    wanted = f"expected a whole number from 0 to {column.ids - 1}{zeros}"
                    found.append((step, f"column {column.name!r} has the id {ids[step]:g}; {wanted}"))
        return min(found, default=None)

    def drawn(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Random travelling values, `(*shape, in_features)` float32: normal numbers, and ids that there are."""
        values = rng.standard_normal((*shape, self.in_features), np.float32)
        for index, column in enumerate(self.columns):
            if isinstance(column, Category):
                values[..., index] = rng.integers(0, column.ids, shape)
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in a TOML file; what is left at its default is left out."""
        return {"column": [plain_of(column) for column in self.columns]}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict())

    def to_toml(self) -> str:
        """`to_dict` as TOML, which `load` reads back.

        Example:
            >>> print(InputSpec((Number('a"b', mean=0.5), Category("c", values=("x", "y")))).to_toml())
            [[column]]
            name = "a\\"b"
            kind = "number"
            mean = 0.5
            <BLANKLINE>
            [[column]]
            name = "c"
            kind = "category"
            values = ["x", "y"]
            <BLANKLINE>
        """
        tables = (
            "".join(["[[column]]\n", *(f"{key} = {_toml(value)}\n" for key, value in plain_of(column).items())])
            for column in self.columns
        )
        return "\n".join(tables)

    @staticmethod
    def from_json(text: str) -> InputSpec:
        """The `InputSpec` that `to_json` wrote; `ConfigError` for anything else."""
        try:
            return InputSpec.from_dict(json.loads(text))
        except ConfigError:
            raise
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"The input is no JSON: {error}.") from error

    @staticmethod
    def from_dict(given: Any) -> InputSpec:
        """An `InputSpec` of plain values, as in a TOML file.

        Raises:
            ConfigError: names the column and the key that is wrong.

        Example:
            >>> InputSpec.from_dict({"column": [{"name": "x", "kind": "number"}]}).names
            ('x',)
        """
        if not isinstance(given, Mapping) or set(given) != {"column"} or not isinstance(given["column"], Sequence):
            found = some_of(sorted(map(str, given)), 4) if isinstance(given, Mapping) else type(given).__name__
            raise ConfigError(f"An input holds {found}; expected nothing but tables [[column]].")
        return InputSpec(tuple(column_of(number, each) for number, each in enumerate(given["column"], 1)))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> InputSpec:
        """The `InputSpec` of a TOML file (`--input`).

        Raises:
            ConfigError: no such file, no TOML, or a column that means nothing; names the file.
        """
        try:
            with open(path, "rb") as file:
                return InputSpec.from_dict(tomllib.load(file))
        except OSError as error:
            raise ConfigError(f"The input file {path} cannot be read: {error.strerror or error}.") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        except (ValueError, RecursionError) as error:  # beside what tomllib says, bytes, and numbers of 5,000 digits
            raise ConfigError(f"{path} is no TOML that can be read: {error}.") from error


def _toml(value: Any) -> str:
    """A value as TOML has it: as JSON, but without surrogates, and with codes for the letters 127 to 159."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return re.sub(r"[\x7f-\x9f]", lambda letter: f"\\u{ord(letter[0]):04x}", json.dumps(value, ensure_ascii=False))
