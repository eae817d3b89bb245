"""How the opponents read: row groups decoded ahead by threads, as many at once as are sorted together (a *span*).

Sequences are nested lists, or in long format: one step a row, the steps of a key one after the other. Then they are
taken apart where the key changes, which is as fast as numpy gets it; only steps that are not in order are sorted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

READERS = 2
SEQUENCE, KEY, TIME = "sequence", "id", "t"
"""The column of nested lists; those of the long format, whose other columns are the features of a step."""
CACHED_STEPS = 8192
"""Of so many steps at once the feature columns are put side by side: they stay in the cache."""

Part = TypeVar("Part")


class Rows(NamedTuple):
    """Rows in memory: row `i` is `values[offsets[i]:offsets[i + 1]]`, of `values (S, D)` float32."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every row."""
        return np.diff(self.offsets)


class Steps(NamedTuple):
    """Steps in long format: keys `(S,)`, times `(S,)`, values `(S, D)` float32."""

    keys: np.ndarray
    times: np.ndarray
    values: np.ndarray


def is_long(schema: pa.Schema) -> bool:
    """Whether each row of the file is one step."""
    return SEQUENCE not in schema.names


def read_spans(source: Path, look_ahead_mb: int) -> Iterator[tuple[Rows, pa.Table]]:
    """The file's sequences in order, with what is kept of them, as many at once as fill the look-ahead."""
    least = int(0.9 * look_ahead_mb * 2**20)
    return (long_spans if is_long(pq.read_schema(source)) else nested_spans)(source, least)


def decoded_ahead(source: Path, decode: Callable[[Path, int], Part]) -> Iterator[Part]:
    """Each row group, decoded some way ahead by threads."""
    groups = pq.ParquetFile(source).num_row_groups
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[Part]] = deque()
        following = iter(range(groups))
        for _ in range(groups):
            while len(ahead) < 2 * READERS and (group := next(following, None)) is not None:
                ahead.append(pool.submit(decode, source, group))
            yield ahead.popleft().result()


def nested_spans(source: Path, least: int) -> Iterator[tuple[Rows, pa.Table]]:
    """Spans of at least so many bytes of nested lists."""
    parts: list[tuple[Rows, pa.Table]] = []
    for part in decoded_ahead(source, decode_lists):
        parts.append(part)
        if sum(rows.values.nbytes for rows, _ in parts) >= least:
            yield joined(parts)
            parts = []
    if parts:
        yield joined(parts)


def decode_lists(source: Path, group: int) -> tuple[Rows, pa.Table]:
    """A row group's sequences and its other columns."""
    table = pq.ParquetFile(source).read_row_group(group, use_threads=False)
    return rows_of(table[SEQUENCE]), table.drop([SEQUENCE])


def rows_of(column: pa.ChunkedArray) -> Rows:
    """The sequences of a `list<list<float>>` column, without a copy where it is one chunk."""
    outer = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    offsets = outer.offsets.to_numpy().astype(np.int64)
    inner = outer.values.slice(offsets[0], offsets[-1] - offsets[0])
    values = inner.flatten().to_numpy()
    return Rows(values.reshape(len(inner), -1), offsets - offsets[0])


def joined(parts: list[tuple[Rows, pa.Table]]) -> tuple[Rows, pa.Table]:
    """Several row groups as one."""
    if len(parts) == 1:
        return parts[0]
    begins = np.cumsum([0, *(len(rows.values) for rows, _ in parts)])
    offsets = [rows.offsets[1:] + begin for (rows, _), begin in zip(parts, begins, strict=False)]
    values = np.concatenate([rows.values for rows, _ in parts])
    return Rows(values, np.concatenate([[0], *offsets])), pa.concat_tables([table for _, table in parts])


def long_spans(source: Path, least: int) -> Iterator[tuple[Rows, pa.Table]]:
    """Spans of at least so many bytes of the long format; the last key may go on in the next row group, so it waits."""
    parts: list[Steps] = []
    for part in decoded_ahead(source, decode_steps):
        parts.append(part)
        if sum(steps.values.nbytes for steps in parts) >= least:
            steps = joined_steps(parts)
            others = np.flatnonzero(steps.keys != steps.keys[-1])
            whole = int(others[-1]) + 1 if len(others) else 0
            if whole:
                yield sequences_of(Steps(*(column[:whole] for column in steps)))
            parts = [Steps(*(column[whole:].copy() for column in steps))]
    if parts:
        yield sequences_of(joined_steps(parts))


def decode_steps(source: Path, group: int) -> Steps:
    """A row group's steps."""
    return steps_of(pq.ParquetFile(source).read_row_group(group, use_threads=False))


def steps_of(table: pa.Table) -> Steps:
    """The steps of a table in long format."""
    columns = {name: table[name].to_numpy() for name in table.column_names}
    keys, times = columns.pop(KEY), columns.pop(TIME)
    values = np.empty((len(keys), len(columns)), np.float32)
    for begin in range(0, len(keys), CACHED_STEPS):
        some = slice(begin, begin + CACHED_STEPS)
        for nth, column in enumerate(columns.values()):
            values[some, nth] = column[some]
    return Steps(keys, times, values)


def joined_steps(parts: list[Steps]) -> Steps:
    """Several row groups as one."""
    return parts[0] if len(parts) == 1 else Steps(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def sequences_of(steps: Steps) -> tuple[Rows, pa.Table]:
    """Steps whose equal keys stand together, as sequences in the order of their times; and the table of the keys."""
    is_first = np.append(True, steps.keys[1:] != steps.keys[:-1])
    values = steps.values
    if not (is_first[1:] | (steps.times[1:] >= steps.times[:-1])).all():
        values = values[np.lexsort((steps.times, np.cumsum(is_first)))]
    begins = np.flatnonzero(is_first)
    return Rows(values, np.append(begins, len(values))), pa.table({KEY: steps.keys[begins]})
