"""A bounded sample of the output of a job: features, and one kept column to colour them by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from scanrnn_dist.errors import ConfigError, DataError, StoppedError, some_of
from scanrnn_dist.records import (
    JobRecords,
    are_steps,
    out_features_of,
    part_names,
    read_matrices,
    read_part,
    read_part_schema,
    vector_of,
)
from scanrnn_dist.source import python_values

MOST_ROWS = 5000
MOST_PARTS = 64
MOST_PARTS_OF_STEPS = 8
"""Parts whose rows hold a vector for each step are read whole."""
MOST_REFUSED = 3
"""After so many parts in a row that a disk or a server refuses no more are asked for: each may take half a minute."""
MOST_VALUES = 20
"""A column of more different texts is not chosen by itself."""


@dataclass(frozen=True)
class Sample:
    """Some rows of the output.

    Args:
        features: `(n, out_features)`, all finite.
        parts: that they are of.
        colour: the kept column whose values colour the rows; "" for none.
        values: of that column, one for each row.
        without_features: rows that were looked at and have no features, or not finite ones.
        are_steps: whether each row of `features` is one step.
        problems: parts that could not be read, each with the reason.
    """

    features: np.ndarray
    parts: int = 0
    colour: str = ""
    values: tuple[object, ...] = ()
    without_features: int = 0
    are_steps: bool = False
    problems: tuple[str, ...] = ()


def read_sample(
    records: JobRecords, units: np.ndarray, count: int, colour: str | None, most: int = MOST_ROWS
) -> Sample:
    """The first rows of parts that are spread evenly over those that stand.

    Args:
        records: of the job.
        units: the numbers of units whose parts hold rows.
        count: units of the job.
        colour: the kept column to colour by; None for the first column of at most 20 different texts.
        most: rows at most.

    Raises:
        ConfigError: there is no such column, or it is one of lists or structs.
        StoppedError: the disk or the server gives no parts any more.
    """
    there = {name for name, _ in records.store.entries()} if len(units) else set()
    names = [name for name in part_names(units.tolist(), count) if name in there]
    problems: dict[str, str] = {}
    schema = _first_schema(records, names, problems)
    if schema is None:
        return Sample(np.zeros((0, 0)), problems=tuple(problems.values()))
    steps = are_steps(schema)
    names = _spread(names, MOST_PARTS_OF_STEPS if steps else MOST_PARTS)
    quota = -(-most // len(names))
    nothing = np.zeros((0, out_features_of(schema)))
    features, parts, refused = [nothing], 0, 0
    values = {name: list[object]() for name in _candidates(schema, colour)}
    for name in names:
        try:
            matrix, counts = _features_of(records, name, quota, steps, nothing)
            columns = _columns_of(records, name, [*values], len(counts), colour is None)
        except (DataError, StoppedError) as error:
            problems[name] = str(error)
            refused = refused + 1 if isinstance(error, StoppedError) else 0
            if refused == MOST_REFUSED:
                raise
            continue
        parts, refused = parts + 1, 0
        features.append(matrix)
        values = {
            each: [*values[each], *chain.from_iterable(map(repeat, of_rows, counts))]
            for each, of_rows in columns.items()
        }
        if colour is None:
            values = {each: told for each, told in values.items() if len(set(told[:most])) <= MOST_VALUES}
    found = np.concatenate(features)[:most]
    is_finite = np.isfinite(found).all(axis=1).reshape(-1)
    chosen = next(iter(values), "")
    told = [value for value, is_kept in zip(values.get(chosen, ()), is_finite.tolist(), strict=False) if is_kept]
    return Sample(
        found[is_finite], parts, chosen, tuple(told), int((~is_finite).sum()), steps, tuple(problems.values())
    )


def _first_schema(records: JobRecords, names: Sequence[str], problems: dict[str, str]) -> pa.Schema | None:
    """The schema of the first part that can be read, of few that are tried."""
    refused = 0
    for name in names[:5]:
        try:
            return read_part_schema(records.store, name)
        except (DataError, StoppedError) as error:
            problems[name] = str(error)
            refused += isinstance(error, StoppedError)
            if refused == MOST_REFUSED:
                raise
    return None


def _candidates(schema: pa.Schema, colour: str | None) -> list[str]:
    """The columns that may colour rows, best first."""
    if colour is None:
        return [field.name for field in schema if _is_text(field.type)]
    kept = [field.name for field in schema if not pat.is_nested(field.type)]
    if colour not in kept:
        told = f"expected one of {some_of(kept, 8)}" if kept else "it has no column that could be"
        raise ConfigError(f"--colour is {colour!r}, which is no column of single values of the output; {told}.")
    return [colour]


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pat.is_dictionary(kind) else kind
    return bool(pat.is_string(inner) or pat.is_large_string(inner) or pat.is_string_view(inner))


def _spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many of some names, from the first to the last."""
    places = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).astype(int))
    return [names[place] for place in places]


def _features_of(
    records: JobRecords, name: str, most: int, steps: bool, nothing: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """The first features of a part, `most` vectors of as many rows at most, and how many are of each of these rows."""
    found, counts, left = [nothing], list[int](), most
    for matrix in _vectors_of_rows(records, name, nothing) if steps else read_matrices(records.store, name):
        found.append(matrix[:left].copy())  # or all of a row group would stay alive
        left -= len(found[-1])
        counts += [len(found[-1])] if steps else [1] * len(found[-1])
        if not left or len(counts) >= most:
            break
    return np.concatenate(found), counts


def _vectors_of_rows(records: JobRecords, name: str, nothing: np.ndarray) -> Iterator[np.ndarray]:
    """Of each row of a part the vectors of its steps; none where its features are null."""
    for batch in read_part(records.store, name, None):
        for row in range(batch.num_rows):
            vectors = vector_of(batch, row)
            yield nothing if vectors is None else vectors


def _columns_of(
    records: JobRecords, name: str, columns: list[str], rows: int, are_few: bool
) -> dict[str, list[object]]:
    """The values of columns of the first rows of a part; with `are_few`, without columns that have too many values."""
    values, read = {column: list[object]() for column in columns}, 0
    for batch in read_part(records.store, name, columns) if columns else ():
        for column, told in [*values.items()]:
            told += python_values(batch.column(column).slice(0, rows - read))
            if are_few and len(set(told)) > MOST_VALUES:
                del values[column]
        read += batch.num_rows
        if read >= rows or not values:
            break
    return values
