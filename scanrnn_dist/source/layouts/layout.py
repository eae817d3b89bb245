"""What a layout is: the way from columns of a batch to steps of rows. One file per layout is written against this.

A layout says which columns it reads, and takes a batch of them apart into `Steps`: where the rows begin among the
steps, and the values of every step, not yet numbers of float32. A row that it cannot take apart becomes a `Fault`. What
is then done with faults and with values that are no finite numbers, is `taking.py`'s, for all layouts alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

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
        in_features: `D`; None if no step says it.
        faults: by their rows.
    """

    offsets: np.ndarray
    values: pa.Array | tuple[pa.Array, ...]
    in_features: int | None
    faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Asked:
    """What a user says of the layout; None leaves it to what the schema allows.

    Args:
        layout: its name.
        column: the column that holds the sequences.
        features: the features of a step, in order: columns, or fields within `column`.
        in_features: features per step, where the column does not say how many.
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

    @classmethod
    @abstractmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> Sequence[Layout]:
        """All layouts of this kind that the schema allows.

        What of `asked` is no field of the layout, or another value, is refused by `find_layout`: a candidate need not
        look at `asked` but for what it cannot find out alone.
        """

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, each a name in the schema of the source."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """What pyarrow has to read of these columns: their names, or dotted paths of fields within them."""
        return self.columns

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns that say which sequence a row of the files, which is one step, belongs to; none where a row is a
        sequence."""
        return ()

    def kept(self, names: Sequence[str], partitions: Sequence[str]) -> tuple[str, ...]:
        """The columns that are kept where nothing is said, of all columns and those of them that folders spell."""
        return tuple(name for name in names if name not in self.columns)

    @property
    @abstractmethod
    def described(self) -> str:
        """What it reads, for messages: "column 'sequence'"."""

    @abstractmethod
    def in_features(self, schema: pa.Schema) -> int | None:
        """Features per step, `D`, where the types of the columns alone say it."""

    @abstractmethod
    def steps(self, batch: pa.RecordBatch, in_features: int | None) -> Steps:
        """Take the rows of a batch apart.

        Args:
            batch: has the columns, and maybe others.
            in_features: `D` that every step must have; None takes that of the type, or of the first step.

        Raises:
            LayoutError: the columns are of types that are no such layout; its message begins after the place.
        """

    @property
    def asked(self) -> Asked:
        """What asks for this very layout."""
        return Asked(self.name, **{field.name: getattr(self, field.name) for field in fields(self)})
