"""Rows that are set aside: the table of them, where they stand, why they are left out, and their kept columns.

Who decides is `taking.py`; where the table is kept says `records/quarantine.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import one_line
from scanrnn_dist.source.layouts import picked_rows
from scanrnn_dist.source.units import Unit

_PLACE = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("row_group", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("file_row", pa.int64(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("step", pa.int64()),
        pa.field("rows", pa.int64(), nullable=False),
    ]
)


class SetAside(NamedTuple):
    """A row that is set aside.

    Args:
        row: of the batch.
        policy: by which.
        reason: what is wrong with it.
        step: of the row, where one step is wrong.
    """

    row: int
    policy: str
    reason: str
    step: int | None = None


def aside_schema(kept: pa.Schema) -> pa.Schema:
    """Of the table: the place, the policy, the reason, how many rows, then the kept columns.

    A kept column of the name of one of the others has "kept." in front. It may be null, in the line of many rows.

    Example:
        >>> aside_schema(pa.schema([("id", pa.int64()), ("row", pa.int64())])).names[5:]
        ['reason', 'step', 'rows', 'id', 'kept.row']
    """
    taken = {*_PLACE.names, *kept.names}
    columns = []
    for field in kept:
        name = field.name
        while name in _PLACE.names or (name != field.name and name in taken):
            name = f"kept.{name}"
        columns.append(field.with_name(name).with_nullable(True))
        taken.add(name)
    return pa.schema([*_PLACE, *columns])


def aside_batch(unit: Unit, numbers: np.ndarray, rows: Sequence[SetAside], kept: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of a batch, whose rows have these numbers in a unit, with those of its kept columns."""
    places = [unit.place(int(numbers[each.row])) for each in rows]
    group, row, file_row = (np.array(numbers, np.int64) for numbers in zip(*places, strict=True))
    own = [
        pa.array([unit.file.path] * len(rows)), pa.array(group), pa.array(row), pa.array(file_row),
        pa.array([each.policy for each in rows]), pa.array([each.reason for each in rows]),
        pa.array([each.step for each in rows], pa.int64()), pa.array([1] * len(rows), pa.int64()),
    ]  # fmt: skip
    columns = picked_rows(kept, np.array([each.row for each in rows])).columns
    return pa.RecordBatch.from_arrays([*own, *columns], schema=aside_schema(kept.schema))


def unread_batch(unit: Unit, reason: str, kept: pa.Schema) -> pa.RecordBatch:
    """One line for all rows of a unit that cannot be read, however many a footer says they are."""
    schema, (group, row, file_row) = aside_schema(kept), unit.place(0)
    told = f"all {unit.rows:,} rows of {unit.span} are set aside: {one_line(reason)}"
    own = [unit.file.path, group, row, file_row, "unreadable_file", told, None, unit.rows]
    columns = [pa.array([value], field.type) for value, field in zip(own, schema, strict=False)]
    columns += [pa.nulls(1, field.type) for field in list(schema)[len(own) :]]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
