"""What a layout is: the way from columns of a batch to steps of rows. One file per layout is written against this.

A layout says which columns it reads, and takes a batch of them apart into `Steps`: where the rows begin among the
steps, and the values of every step, not yet numbers of float32. A row that it cannot take apart becomes a `Fault`. What
is then done with faults and with values that are no finite numbers, is `taking.py`'s, for all layouts alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, counted, some_of
from scanrnn_dist.source.layouts.paths import Path, field_at, path_of, resolved
from scanrnn_dist.source.layouts.types import is_plain_number, list_value

_FEATURES_TOLD = 16
FaultKind = Literal["null_sequence", "wrong_width", "unequal_lengths"]


class Fault(NamedTuple):
    """A row that cannot be taken apart.

    Args:
        row: of the batch.
        kind: what is wrong, by the name of the policy that says what is done.
        reason: the message after the place, from "the sequence is null; expected ..." on.
        step: of the row, where the fault is in one step.
    """

    row: int
    kind: FaultKind
    reason: str
    step: int | None = None


@dataclass(frozen=True)
class Steps:
    """`N` rows of a batch taken apart into `S` steps.

    Args:
        offsets: `(N + 1,)` int64 from 0: row `i` has the steps `offsets[i]` to `offsets[i + 1]`. A row with a fault has
            none.
        values: of all steps, with nulls where there is none: one array `(S * D,)`, step after step; or `D` arrays
            `(S,)`, one for each feature, which may be of different types.
        in_features: `D`; None if no step says it: then all steps are null, and there are no values.
        faults: by their rows.
        names: of the arrays, for messages: a column, or one for each feature.
    """

    offsets: np.ndarray
    values: pa.Array | tuple[pa.Array, ...]
    in_features: int | None
    faults: tuple[Fault, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def by_feature(self) -> tuple[pa.Array, ...]:
        """The values as one array `(S,)` for each feature.

        Example:
            >>> flat = Steps(np.array([0, 2]), pa.array([1, 2, 3, 4]), 2)
            >>> [array.to_pylist() for array in flat.by_feature()]
            [[1, 3], [2, 4]]
        """
        if isinstance(self.values, tuple):
            return self.values
        count, features = len(self.values), self.in_features or 0
        if features == 1:
            return (self.values,)
        return tuple(self.values.take(pa.array(np.arange(nth, count, features))) for nth in range(features))


@dataclass(frozen=True)
class Asked:
    """What a user says of the layout; None leaves it to what the schema allows.

    Args:
        layout: its name.
        column: the column that holds the sequences.
        features: the features of a step, in order: columns, or fields within `column`.
        in_features: features per step, where the column does not say how many; of lists of numbers, which then hold
            step after step.
        group_by: columns that say which sequence a row, which is one step, belongs to.
        order_by: columns by which the steps of a sequence are ordered.
    """

    layout: str | None = None
    column: str | None = None
    features: tuple[str, ...] | None = None
    in_features: int | None = None
    group_by: tuple[str, ...] | None = None
    order_by: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Layout(ABC):
    """How sequences stand in the columns of a source.

    Its fields are some of those of `Asked`, so that one asks for a layout by what it is made of.
    """

    name: ClassVar[str]
    """What `--layout` calls it."""
    words: ClassVar[str]
    """What it is, for messages."""
    understands: ClassVar[frozenset[str]] = frozenset()
    """Extension types of its columns whose storage it knows."""

    @classmethod
    @abstractmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> Sequence[Layout]:
        """All layouts of this kind that the schema allows.

        What of `asked` is no field of the layout, or another value, is refused by `find_layout`: a candidate need not
        look at `asked` but for what it cannot find out alone. Columns that it is not asked for by name are of plain
        numbers; those that are, may hold times and texts too.

        Raises:
            LayoutError: a name that means several things.
        """

    @abstractmethod
    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        """What has to be read: whole columns, or fields within them."""

    def columns(self, schema: pa.Schema) -> tuple[str, ...]:
        """The columns that it reads, whole or in part, each a name in the schema of the source."""
        return tuple(dict.fromkeys(path[0] for path in self.leaves(schema)))

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns that say which sequence a row of the files, which is one step, belongs to; none where a row is a
        sequence."""
        return ()

    def kept(self, schema: pa.Schema, partitions: Sequence[str]) -> tuple[str, ...]:
        """The columns that are kept where nothing is said, of all columns and those of them that folders spell."""
        read = self.columns(schema)
        return tuple(name for name in schema.names if name not in read)

    @property
    @abstractmethod
    def described(self) -> str:
        """What it reads, for messages: "column 'sequence'"."""

    @abstractmethod
    def types(self, schema: pa.Schema) -> tuple[pa.DataType, ...]:
        """The types of the values of a step: one of all, or one for each feature."""

    @abstractmethod
    def width(self, schema: pa.Schema) -> int | None:
        """Features per step, `D`, where what is asked for or the types of the columns alone say it."""

    def feature_names(self, schema: pa.Schema, in_features: int) -> tuple[str, ...]:
        """The names of the features of a step: of columns or fields, or "0", "1", ... where they have none."""
        return tuple(map(str, range(in_features)))

    def others(self, schema: pa.Schema) -> Mapping[str, pa.DataType | None]:
        """What might be named as a feature and is none, of columns or of fields of its column.

        Of each the type of the values that a step would have; None where a step cannot hold such.
        """
        return {}

    @abstractmethod
    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        """Take the rows of a batch apart.

        Args:
            batch: has the columns, or of them what `leaves` says, and maybe others.
            in_features: `D` that every step must have, which is `width` where that tells; None takes that of the type,
                or of the first step.

        Raises:
            LayoutError: the columns are of types that are no such layout; its message begins after the place.
        """

    def with_width(self, in_features: int | None) -> Layout:
        """This layout with steps of so many features, where that may be asked of it; else as it is."""
        is_asked = any(field.name == "in_features" for field in fields(self))
        return replace(self, **{"in_features": in_features}) if is_asked else self

    @property
    def asked(self) -> Asked:
        """What asks for this very layout."""
        return Asked(self.name, **{field.name: getattr(self, field.name) for field in fields(self)})

    def is_asked_for(self, asked: Asked) -> bool:
        """Whether it is what is asked for, or what may be found where that is not said."""
        own = self.asked
        return all(told in (None, getattr(own, name)) for name, told in vars(asked).items())


class NamedFeatures(Layout):
    """A layout whose features have names, of columns or fields."""

    features: tuple[str, ...]

    def types(self, schema: pa.Schema) -> tuple[pa.DataType, ...]:
        fields = self.fields(schema)
        return tuple(self.value_of(field_at(fields, path_of(fields, name)).type) for name in self.features)

    def width(self, schema: pa.Schema) -> int:
        return len(self.features)

    def feature_names(self, schema: pa.Schema, in_features: int) -> tuple[str, ...]:
        return self.features

    @property
    def features_told(self) -> str:
        """The first features, for messages."""
        return some_of([*map(repr, self.features)], _FEATURES_TOLD)

    def others(self, schema: pa.Schema) -> dict[str, pa.DataType | None]:
        fields = self.fields(schema)
        read = {*self.ids, *(path_of(fields, name)[0] for name in self.features)}
        return {field.name: self.value_of(field.type) for field in fields if field.name not in read}

    def fields(self, schema: pa.Schema) -> pa.Schema | pa.StructType:
        """The columns, or the fields of its column, among which its features are."""
        return schema

    @staticmethod
    def value_of(type: pa.DataType) -> pa.DataType | None:
        """The type of the values of a step that such a column or field gives; None if it is no feature."""
        return list_value(type)

    @classmethod
    def fitting(cls, fields: pa.Schema | pa.StructType, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        """The features that are asked for, or all of plain numbers; none where one that is asked for is no feature."""
        if asked is None:
            types = ((field.name, cls.value_of(field.type)) for field in fields)
            return tuple(name for name, type in types if type is not None and is_plain_number(type))
        paths = [resolved(fields, name) for name in asked]
        fits = all(path is not None and cls.value_of(field_at(fields, path).type) is not None for path in paths)
        return asked if fits else ()


def check_width(layout: Layout, schema: pa.Schema, in_features: int) -> None:
    """Raise a `ConfigError` if the columns' types say that no step has as many features as an encoder takes."""
    width = layout.width(schema)
    if width in (None, in_features):
        return
    raise ConfigError(
        f"The encoder takes {counted(in_features, 'feature')} per step; there are {width} in {layout.described}. "
        "Choose another --encoder, or other --features."
    )
