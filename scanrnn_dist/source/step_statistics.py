"""What the columns of an `InputSpec` hold, measured in one pass: the statistics that standardisation wants.

Batches come one after the other and need not fit into memory together; statistics of shares can be merged. Means and
squared distances from them are merged by Chan's formula, so that columns far from zero keep their digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.input_spec import Category, InputSpec, Number, Time
from scanrnn_dist.source.layouts import python_values
from scanrnn_dist.source.step_input import check_columns, check_type, decoded, plain, unscaled

MOST_DISTINCT = 1000
"""Distinct values that are kept of a column, if nothing else was asked for."""


@dataclass(frozen=True)
class ColumnStatistics:
    """What one column holds.

    Args:
        count: values that count: finite numbers, or categories that are not null.
        unusable: nulls, NaNs and infinities.
        nulls, nans: how many of these are nulls, and how many NaNs; the others are infinite, as a number may be made by
            log1p.
        mean: of numbers, after log1p where the column asks for it, before any other scaling.
        m2: sum of the squared distances from the mean.
        least: the least number; infinity without any.
        most: the greatest number; minus infinity without any.
        distinct: the values that occur; None where there are too many, or where they are times.
    """

    count: int = 0
    unusable: int = 0
    mean: float = 0.0
    m2: float = 0.0
    least: float = np.inf
    most: float = -np.inf
    distinct: frozenset[Any] | None = frozenset()
    nulls: int = 0
    nans: int = 0

    @property
    def std(self) -> float:
        """Standard deviation of the numbers, of all and not of a sample: their squared distances divided by `count`."""
        if not self.count or self.is_constant:
            return 0.0
        return float(np.sqrt(self.m2 / self.count))

    @property
    def is_constant(self) -> bool:
        """Whether there are numbers, all of them the same; their `mean` may be rounded then, and `m2` not be 0."""
        return self.least == self.most

    def merged(self, other: ColumnStatistics, most_distinct: int = MOST_DISTINCT) -> ColumnStatistics:
        """Of the values of both.

        Source: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
        """
        count = self.count + other.count
        distance = other.mean - self.mean
        share = other.count / count if count else 0.0
        distinct = None if self.distinct is None or other.distinct is None else self.distinct | other.distinct
        return ColumnStatistics(
            count,
            self.unusable + other.unusable,
            self.mean + distance * share,
            self.m2 + other.m2 + distance * distance * self.count * share,
            min(self.least, other.least),
            max(self.most, other.most),
            distinct if distinct is None or len(distinct) <= most_distinct else None,
            self.nulls + other.nulls,
            self.nans + other.nans,
        )


class StepStatistics:
    """The statistics of every column of an `InputSpec`, batch by batch.

    Args:
        spec: the columns.
        most_distinct: distinct values that are kept of each; 0 for none.

    Example:
        >>> statistics = StepStatistics(InputSpec((Number("x"),)))
        >>> statistics.add({"x": pa.array([1.0, 3.0])}, np.array([0, 2]))
        >>> statistics.columns[0].mean, statistics.columns[0].std
        (2.0, 1.0)
    """

    def __init__(self, spec: InputSpec, most_distinct: int = MOST_DISTINCT) -> None:
        self.spec, self._most_distinct = spec, most_distinct
        self.columns = [ColumnStatistics() for _ in spec.columns]

    def add(self, fields: Mapping[str, pa.Array], offsets: np.ndarray) -> None:
        """Count in a batch, given as to `apply_input`; raises what that raises."""
        check_columns(self.spec, fields)
        for index, column in enumerate(self.spec.columns):
            array, before = plain(fields[column.name]), self.columns[index]
            if isinstance(column, Category):
                check_type(column, array.type)
                new = ColumnStatistics(len(array) - array.null_count, array.null_count)
            else:
                numbers = unscaled(column, array, offsets)
                with np.errstate(invalid="ignore", divide="ignore"):
                    new = _of_numbers(np.log1p(numbers) if column.log1p else numbers)
            is_time = isinstance(column, Time) and not pa.types.is_floating(array.type)
            # Of times the differences count: where one is null, that to the next one is null too.
            nulls = new.unusable if is_time else array.null_count
            new = replace(new, nulls=nulls, nans=max(0, new.nans - nulls))
            wants = self._most_distinct > 0 and before.distinct is not None and not isinstance(column, Time)
            new = replace(new, distinct=self._distinct(array) if wants else None)
            self.columns[index] = before.merged(new, self._most_distinct)

    def measured(self) -> InputSpec:
        """The `InputSpec` with the mean and the standard deviation of every number and time that has neither.

        A column without a finite value keeps its numbers as they are, and so does one whose deviation is too large for
        float64; one whose values are all the same is centred.
        """
        columns = []
        for column, of_it in zip(self.spec.columns, self.columns, strict=True):
            mean = of_it.least if of_it.is_constant else of_it.mean
            has_both = of_it.count > 0 and bool(np.isfinite([mean, of_it.std]).all())
            if isinstance(column, Number | Time) and column.mean is None and column.std is None and has_both:
                column = replace(column, mean=mean, std=of_it.std or None)
            columns.append(column)
        return InputSpec(tuple(columns))

    def _distinct(self, array: pa.Array) -> frozenset[Any] | None:
        """The values of a batch, if they are not too many."""
        array = decoded(array)
        if pa.types.is_decimal32(array.type) or pa.types.is_decimal64(array.type):
            array = array.cast(pa.decimal128(array.type.precision, array.type.scale))
        some = pc.unique(array[: 2 * self._most_distinct])  # all of 10,000,000 floats take 2 s
        if len(some) > self._most_distinct + 2:  # a null and a NaN besides
            return None
        values = pc.unique(array).drop_null()
        if len(values) > self._most_distinct + 1:
            return None
        distinct = frozenset(value for value in python_values(values) if value == value)  # NaNs are as many as batches
        return distinct if len(distinct) <= self._most_distinct else None


def _of_numbers(numbers: np.ndarray) -> ColumnStatistics:
    """Of one batch of numbers."""
    finite = numbers[np.isfinite(numbers)]
    nans = int(np.isnan(numbers).sum()) if len(finite) < len(numbers) else 0
    if not len(finite):
        return ColumnStatistics(unusable=len(numbers), nans=nans)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the greatest there are
        mean = float(finite.mean())
        m2 = float(np.square(finite - mean).sum())
    return ColumnStatistics(
        len(finite), len(numbers) - len(finite), mean, m2, float(finite.min()), float(finite.max()), None, nans=nans
    )
