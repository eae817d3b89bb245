"""The same made-up sequences as Parquet in every layout that jobs read, for `bench_feed.py`.

40,000 rows of 16 float32 features a step, lengths lognormal with a mean of 40: about 100 MB. As pyarrow writes by
default, snappy and dictionaries that it gives up again, in row groups of 10,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.input_spec import Category, InputSpec, Number
from scanrnn_dist.job import JobOptions

D, MEAN_STEPS, SIGMA, GROUP_ROWS = 16, 40, 0.6, 10_000
NAMES = tuple(f"x{nth:02}" for nth in range(D))
ITEMS, LOGS = 100_000, 5
INPUT = InputSpec(
    (
        Category(NAMES[0], size=ITEMS, encode="embedding", dimension=8),
        *(Number(name, log1p=True) for name in NAMES[1 : 1 + LOGS]),
        *(Number(name, mean=0.5, std=2.0) for name in NAMES[1 + LOGS :]),
    )
)
"""One id, five numbers that go through log1p, ten that are standardised."""


@dataclass(frozen=True)
class FeedSource:
    """One layout as a file.

    Args:
        path: of the file.
        options: with which a job reads it.
        columns: what pyarrow is asked for to decode the same and nothing else; None for all.
        steps: of all rows.
        input: of the encoder, if it has one.
    """

    path: Path
    options: JobOptions
    columns: tuple[str, ...]
    steps: int
    input: InputSpec | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the float32 values that travel to the engine."""
        return 4 * D * self.steps


@dataclass
class Sequences:
    """The rows: `values (S, D)` float32, and where each begins, `offsets (N + 1,)`."""

    values: np.ndarray
    offsets: np.ndarray
    columns: list[pa.Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = [pa.array(np.ascontiguousarray(column)) for column in self.values.T]

    def lists(self, values: pa.Array, each: int = 1) -> pa.ListArray:
        """A list for each row, of so many values a step."""
        return pa.ListArray.from_arrays(pa.array((self.offsets * each).astype(np.int32)), values)


def made_up(rows: int, *, is_equal: bool = False) -> Sequences:
    """So many rows, of the mean length each where they are equal."""
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(np.log(MEAN_STEPS) - SIGMA**2 / 2, SIGMA, rows)
    lengths = np.full(rows, MEAN_STEPS) if is_equal else np.maximum(1, np.rint(drawn).astype(np.int64))
    offsets = np.append(0, np.cumsum(lengths))
    return Sequences(rng.standard_normal((int(offsets[-1]), D), np.float32), offsets)


def _nested_lists(rows: Sequences) -> pa.Table:
    flat = pa.array(rows.values.reshape(-1))
    begins = pa.array(np.arange(len(rows.values) + 1, dtype=np.int32) * D)
    return pa.table({"seq": rows.lists(pa.ListArray.from_arrays(begins, flat))})


def _flat_lists(rows: Sequences) -> pa.Table:
    return pa.table({"seq": rows.lists(pa.array(rows.values.reshape(-1)), D)})


def _list_columns(rows: Sequences) -> pa.Table:
    return pa.table({name: rows.lists(column) for name, column in zip(NAMES, rows.columns, strict=True)})


def _list_of_structs(rows: Sequences) -> pa.Table:
    return pa.table({"seq": rows.lists(pa.StructArray.from_arrays(rows.columns, NAMES))})


def _struct_of_lists(rows: Sequences) -> pa.Table:
    lists = [rows.lists(column) for column in rows.columns]
    return pa.table({"seq": pa.StructArray.from_arrays(lists, NAMES)})


def _fixed_tensors(rows: Sequences) -> pa.Table:
    tensors = rows.values.reshape(-1, MEAN_STEPS, D)
    return pa.table({"seq": pa.FixedShapeTensorArray.from_numpy_ndarray(tensors)})


def _variable_tensors(rows: Sequences) -> pa.Table:
    shapes = np.stack([np.diff(rows.offsets), np.full(len(rows.offsets) - 1, D)], axis=1).astype(np.int32)
    shape = pa.FixedSizeListArray.from_arrays(pa.array(shapes.reshape(-1)), 2)
    storage = pa.StructArray.from_arrays([rows.lists(pa.array(rows.values.reshape(-1)), D), shape], ["data", "shape"])
    told = {"ARROW:extension:name": "arrow.variable_shape_tensor", "ARROW:extension:metadata": "{}"}
    schema = pa.schema([pa.field("seq", storage.type, metadata=told)])
    kind = pa.ipc.read_schema(schema.serialize()).field(0).type  # pyarrow has no function that makes one
    return pa.table({"seq": kind.wrap_array(storage)})


def _long(rows: Sequences) -> pa.Table:
    lengths = np.diff(rows.offsets)
    ids, times = np.repeat(np.arange(len(lengths)), lengths), np.arange(len(rows.values))
    return pa.table({"id": ids, "t": times, **dict(zip(NAMES, rows.columns, strict=True))})


def _input_columns(rows: Sequences) -> pa.Table:
    ids = np.random.default_rng(1).integers(0, ITEMS, len(rows.values))
    counts = [pa.array(np.exp(rows.values[:, nth])) for nth in range(1, 1 + LOGS)]
    columns = [pa.array(ids), *counts, *rows.columns[1 + LOGS :]]
    return pa.table({name: rows.lists(column) for name, column in zip(NAMES, columns, strict=True)})


_OF_COLUMN = JobOptions(column="seq", keep=())
_OF_COLUMNS = JobOptions(features=NAMES, keep=())
_LONG = JobOptions(group_by=["id"], order_by=["t"], features=NAMES, keep=())
_WRITERS: dict[str, tuple[Callable[[Sequences], pa.Table], JobOptions]] = {
    "nested lists": (_nested_lists, _OF_COLUMN),
    "flat lists": (_flat_lists, JobOptions(column="seq", in_features=D, keep=())),
    "list columns": (_list_columns, _OF_COLUMNS),
    "list of structs": (_list_of_structs, _OF_COLUMN),
    "struct of lists": (_struct_of_lists, _OF_COLUMN),
    "fixed_shape_tensor, equal lengths": (_fixed_tensors, _OF_COLUMN),
    "variable_shape_tensor": (_variable_tensors, _OF_COLUMN),
    "one step a row": (_long, _LONG),
    "list columns, input of ids and scaled numbers": (_input_columns, _OF_COLUMNS),
}
LAYOUTS = tuple(_WRITERS)


def write_source(name: str, folder: Path, rows: int) -> FeedSource:
    """The rows in one of `LAYOUTS`."""
    write, options = _WRITERS[name]
    sequences = made_up(rows, is_equal=write is _fixed_tensors)
    table, steps = write(sequences), len(sequences.values)
    path = folder / f"{LAYOUTS.index(name)}.parquet"
    pq.write_table(table, path, row_group_size=GROUP_ROWS * (MEAN_STEPS if write is _long else 1))
    columns = tuple(table.column_names)
    return FeedSource(path, options, columns, steps, INPUT if write is _input_columns else None)
