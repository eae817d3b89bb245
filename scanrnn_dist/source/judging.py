"""What becomes of the rows of a batch, as rule after rule of `taking.py` is applied; and what is wrong with a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import DataError, LayoutError
from scanrnn_dist.input_spec import Category, InputSpec, Number, Time
from scanrnn_dist.source.bad_rows import ERROR, INITIAL_CARRY, SKIP, TRUNCATE, BadRows, count_name
from scanrnn_dist.source.layouts import Steps, in_words
from scanrnn_dist.source.set_aside import SetAside
from scanrnn_dist.source.step_input import SAY_UNKNOWN, StepInputs, apply_input, plain, unscaled

Where = Callable[[int], str]
"""Says of a row where it stands, for messages: file, row group, row."""
Reason = Callable[[int], tuple[str, int | None]]
"""Says of a row what is wrong with it, and at which of its steps, if it is one."""


class Judged:
    """What becomes of the rows of a batch, as rule after rule is applied."""

    def __init__(self, rows: int, bad_rows: BadRows, where: Where) -> None:
        self.bad_rows, self.where = bad_rows, where
        self.is_aside, self.is_null = np.zeros(rows, bool), np.zeros(rows, bool)
        self.aside: list[SetAside] = []
        self.counts = Counter[str]()

    @property
    def is_in(self) -> np.ndarray:
        """The rows that are neither set aside nor null."""
        return ~(self.is_aside | self.is_null)

    def count(self, policy: str, count: int) -> None:
        """Take note that the choice of a policy was applied so often."""
        if count:
            self.counts[count_name(policy, getattr(self.bad_rows, policy))] += count

    def judge(self, policy: str, rows: np.ndarray, reason: Reason) -> None:
        """Apply a policy to rows, each once; `reason` says what is wrong with one of them, and at which step.

        Raises:
            LayoutError: steps of another width, under "error".
            DataError: others under "error".
        """
        choice = getattr(self.bad_rows, policy)
        if choice == ERROR and len(rows):
            why, step = reason(int(rows[0]))
            at = "" if step is None else f", step {step}"
            kind = LayoutError if policy == "wrong_width" else DataError
            raise kind(f"{self.where(int(rows[0]))}{at}: {why}").under(policy)
        if choice == SKIP:
            for row in rows.tolist():
                self.aside.append(SetAside(row, policy, *reason(row)))
            self.is_aside[rows] = True
        elif choice not in (INITIAL_CARRY, TRUNCATE):
            self.is_null[rows] = True
        self.count(policy, len(rows))


@dataclass(frozen=True)
class _Steps:
    """Steps of a batch, and where they stand."""

    steps: Steps

    def row_of(self, step: int | np.ndarray) -> np.ndarray:
        """The row that a step of the batch is of."""
        return np.searchsorted(self.steps.offsets, step, side="right") - 1

    def place(self, where: Where, step: int) -> str:
        """Where a step of the batch stands."""
        row = int(self.row_of(step))
        return f"{where(row)}, step {step - int(self.steps.offsets[row])}"


@dataclass(frozen=True)
class NamedInput:
    """What of a step travels, and the names of the features that a layout gives."""

    spec: InputSpec
    names: tuple[str, ...]

    def fields(self, steps: Steps) -> dict[str, pa.Array]:
        """The features by their names; nulls where no step tells how many there are."""
        given = dict(zip(self.names, steps.by_feature(), strict=False))
        return given or {name: pa.nulls(int(steps.offsets[-1])) for name in self.spec.names}

    def applied(self, steps: Steps, lossy_cast: bool) -> StepInputs:
        """What travels of each step; raises `ConfigError` and `LayoutError` as `apply_input`."""
        return apply_input(self.spec, self.fields(steps), steps.offsets, lossy_cast=lossy_cast)


@dataclass(frozen=True)
class StepsAsInputs(_Steps):
    """The steps as they travel, to say what is wrong with one."""

    named: NamedInput
    inputs: StepInputs

    @property
    def values(self) -> np.ndarray:
        """What travels, `(S, W)` float32."""
        return self.inputs.values

    def check_refusals(self, where: Where) -> None:
        """Refuse, by a `DataError`, the first value that may not travel."""
        first = min(self.inputs.refusals, key=lambda refusal: refusal.step, default=None)
        if first is not None:
            raise DataError(f"{self.place(where, first.step)}: {first.reason}")

    def wrong_at(self, step: int) -> str:
        """What is wrong with a step that has a bad value."""
        column = self.named.spec.columns[int(np.isfinite(self.values[step]).argmin())]
        value = self._given(column.name, step)
        if isinstance(column, Category):
            return f"column {column.name!r} is {value}; expected a category. {SAY_UNKNOWN}, or drop the step."
        told, expected = value, "a finite number"
        if value != "null":
            told, expected = self._no_number(column, step, value)
        return f"column {column.name!r} is {told}; expected {expected}. Fill it or drop the step."

    def _no_number(self, column: Number | Time, step: int, value: str) -> tuple[str, str]:
        """Why a value that is there is no finite number as it travels, and what was expected."""
        row = int(self.row_of(step))
        begin, end = self.steps.offsets[row : row + 2].tolist()
        of_row = plain(self._fields[column.name].slice(begin, end - begin))
        number = float(unscaled(column, of_row, np.array([0, end - begin]))[step - begin])
        told = f"{value} ({column.give} {number})" if isinstance(column, Time) else value
        if not np.isfinite(number):
            return f"{told}, which is no finite number", "a finite number"
        if column.log1p and number <= -1:
            return f"{told}, of which log1p gives no finite number", "a number above -1"
        scaled = " once it is scaled" if column.changes_numbers else ""
        return f"{told}, which is too large for float32{scaled}", "a smaller number"

    def check_fills(self, bad: np.ndarray, choice: str, where: Where) -> None:
        """Refuse, by a `DataError`, to fill categories, of which 0 is one; `bad` says where bad values are."""
        of_category = [isinstance(column, Category) for column in self.named.spec.columns]
        steps = np.flatnonzero(bad[:, of_category].any(axis=1))
        if len(steps):
            step, nth = int(steps[0]), int((bad[steps[0]] & of_category).argmax())
            name = self.named.spec.columns[nth].name
            raise DataError(
                f"{self.place(where, step)}: column {name!r} is {self._given(name, step)}, and --bad-value {choice} "
                f"does not fill categories. {SAY_UNKNOWN}, or choose --bad-value skip or drop-step."
            )

    def _given(self, name: str, step: int) -> str:
        """The value of a column at a step, in words."""
        return in_words(self._fields[name], step)

    @cached_property
    def _fields(self) -> dict[str, pa.Array]:
        return self.named.fields(self.steps)  # may copy all values; asked once for each row that is set aside


@dataclass(frozen=True)
class StepsAsGiven(_Steps):
    """The steps as the layout gave them, to say what is wrong with one."""

    in_features: int
    values: np.ndarray
    nulls: np.ndarray

    def check_fills(self, bad: np.ndarray, choice: str, where: Where) -> None:
        """All of them are numbers, which can be filled."""

    def missing(self, null: int) -> str:
        """What is missing at a null, given by its place in the flat order of values."""
        step = null // self.in_features
        every = np.arange(step * self.in_features, (step + 1) * self.in_features)
        if self.in_features > 1 and np.isin(every, self.nulls).all():
            return "the timestep is null; expected a list of numbers. Fill it or drop the step."
        return "a value is null; expected a number. Fill it or drop the step."

    def wrong_at(self, step: int) -> str:
        """What is wrong with a step that has a bad value."""
        feature = int(np.isfinite(self.values[step]).argmin())
        flat = step * self.in_features + feature
        nth = int(np.searchsorted(self.nulls, flat))
        if nth < len(self.nulls) and self.nulls[nth] == flat:
            return self.missing(flat)
        array = self.steps.values
        value = array[flat] if isinstance(array, pa.Array) else array[feature][step]
        number = float(value.as_py())
        told = f"{number} (too large for float32)" if np.isfinite(number) else f"{number}"
        return (
            f"feature {feature} is {told}; expected a finite number. Clean the data: a recurrent cell would carry it "
            "through all later steps."
        )
