"""Sequences in long format: a row of the files is one step, an event; id columns say which sequence it belongs to.

Where sequences begin, and which files go on with one, is learnt once by `groups.py`; `grouped.py` hands on batches of
whole sequences, one row each, in which every feature is a list. So all that is done with rows, is done with sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, did_you_mean
from scanrnn_dist.source.layouts.keys import is_comparable
from scanrnn_dist.source.layouts.layout import Asked, NamedFeatures, Steps
from scanrnn_dist.source.layouts.lists import alike_taken_apart
from scanrnn_dist.source.layouts.paths import Path
from scanrnn_dist.source.layouts.types import described, is_plain_number, is_value, value_type

STEPS = "\0"
"""Before the name of a feature: the column of its lists, beside a kept column that may have the same name."""


@dataclass(frozen=True)
class Long(NamedFeatures):
    """One step a row: rows with the same ids, one after the other, are a sequence.

    Args:
        group_by: the id columns.
        features: the columns of numbers that make a step, in order.
        order_by: the columns that order the steps of a sequence, the first one deciding first; steps that are equal in
            all of them keep the order of the files, and so do all steps without such columns.

    Example:
        >>> batch = pa.record_batch({"\\0x": pa.array([[1.0, 2.0], []]), "\\0y": pa.array([[5, 6], []])})
        >>> steps = Long(("id",), ("x", "y"), ("t",)).steps(batch, None)
        >>> steps.offsets.tolist(), [values.to_pylist() for values in steps.values]
        ([0, 2, 2], [[1.0, 2.0], [5, 6]])
    """

    name: ClassVar[str] = "long"
    words: ClassVar[str] = "one step a row"
    group_by: tuple[str, ...]
    features: tuple[str, ...]
    order_by: tuple[str, ...] | None = None

    @classmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> list[Long]:
        """The one that is asked for: nothing but the user can say which columns are ids.

        Raises:
            ConfigError: ids, an order or features are named that are not there, or not of types that may be such.
        """
        if asked.group_by is None:
            return []
        if asked.column is not None:
            raise ConfigError("--column names lists, and --group-by says that a row is one step; expected one of them.")
        ids, order = tuple(asked.group_by), tuple(asked.order_by or ())
        numbers = [field.name for field in schema if is_plain_number(field.type) and field.name not in (*ids, *order)]
        features = tuple(numbers if asked.features is None else asked.features)
        if not ids or not features:
            what = "id column in --group-by" if not ids else "column of numbers that could be a feature"
            raise ConfigError(f"There is no {what}; expected at least one (columns: {described(schema)}).")
        for flag, names, is_such, expected in (
            ("group-by", ids, is_comparable, "numbers, text, times or bytes"),
            ("order-by", order, is_comparable, "numbers, text, times or bytes"),
            ("features", features, is_value, "numbers"),
        ):
            for name in names:
                if len(schema.get_all_field_indices(name)) != 1:
                    near = did_you_mean(name, schema.names)
                    raise ConfigError(
                        f"--{flag}: there is no column {name!r}; the source has {described(schema)}.{near}"
                    )
                if not is_such(schema.field(name).type):
                    kind = schema.field(name).type
                    raise ConfigError(f"--{flag}: column {name!r} is {kind}; expected a column of {expected}.")
        return [cls(ids, features, order or None)]

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        return tuple((name,) for name in dict.fromkeys((*self.group_by, *(self.order_by or ()), *self.features)))

    @property
    def ids(self) -> tuple[str, ...]:
        return self.group_by

    @property
    def described(self) -> str:
        ids = ", ".join(map(repr, self.group_by))
        return f"the steps grouped by {ids}, columns {self.features_told}"

    def kept(self, schema: pa.Schema, partitions: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.group_by, *partitions)))

    @staticmethod
    def value_of(type: pa.DataType) -> pa.DataType | None:
        return value_type(type)

    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        lists = alike_taken_apart([batch.column(STEPS + name) for name in self.features])
        return Steps(np.asarray(lists[0][0]), tuple(values for _, values in lists), len(self.features))
