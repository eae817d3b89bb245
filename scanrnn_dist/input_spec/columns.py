"""The columns of an `InputSpec`, each a frozen dataclass that checks itself, and how each is read and written.

Between data and encoder a step travels as one float32 per column: a number, or the id of a category. Ids are whole
numbers, which float32 holds up to 2**24; `UNKNOWN_ID` stands for an unknown value that becomes zeros.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.plain import take_plain

MOST_IDS = 2**24
"""float32 holds every whole number up to here."""
UNKNOWN_ID = -1.0
"""Travels for an unknown value under `unknown="zeros"`."""
ENCODINGS = ("one-hot", "embedding")
UNKNOWNS = ("error", "zeros", "own")
GIVES = ("difference", "hour", "weekday")
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
"""Nanoseconds of the units of a difference."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What is done with a number, in float64 and in this order: log1p, then `(x - mean) / std`, then clipping."""

    log1p: bool = False
    mean: float | None = None
    std: float | None = None
    clip: tuple[float, float] | None = None

    @property
    def changes_numbers(self) -> bool:
        """Whether anything is done at all."""
        return self.log1p or (self.mean, self.std, self.clip) != (None, None, None)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers `(S,)` float64, scaled; a NaN or an infinity becomes a NaN, which no clipping hides."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            x = np.log1p(numbers) if self.log1p else numbers
            is_finite = np.isfinite(x)
            x = x if is_finite.all() else np.where(is_finite, x, np.nan)
            x = x if self.mean is None else x - self.mean
            x = x if self.std is None else np.divide(x, self.std, out=None if x is numbers else x)
            return x if self.clip is None else np.clip(x, *self.clip)

    def _check_scaling(self, name: str) -> None:
        _check(isinstance(self.log1p, bool), name, "log1p", self.log1p, "true or false")
        for key in ("mean", "std"):
            value = getattr(self, key)
            _check(value is None or _is_number(value), name, key, value, "a finite number")
        _check(self.std is None or self.std > 0, name, "std", self.std, "a number above 0")
        if self.clip is not None:
            is_pair = isinstance(self.clip, list | tuple) and len(self.clip) == 2 and all(map(_is_number, self.clip))
            _check(is_pair and self.clip[0] <= self.clip[1], name, "clip", self.clip, "two numbers, [low, high]")
            object.__setattr__(self, "clip", tuple(map(float, self.clip)))
        for key in ("mean", "std"):
            if getattr(self, key) is not None:
                object.__setattr__(self, key, float(getattr(self, key)))


@dataclass(frozen=True)
class Number(Scaling):
    """A column of numbers; see `Scaling` for what may be done with them.

    Example:
        >>> Number("dwell", log1p=True, mean=2.0, std=0.5, clip=(-4, 4)).width
        1
    """

    kind: ClassVar = "number"
    width: ClassVar = 1
    ids: ClassVar = 0
    name: str

    def __post_init__(self) -> None:
        """Raises `ConfigError` for values that mean nothing."""
        take_plain(self)
        _check_name(self.name)
        self._check_scaling(self.name)


@dataclass(frozen=True)
class Time(Scaling):
    """A column of times, of which each step gets one number.

    Args:
        name: the column's.
        give: `"difference"` to the step before, 0 at the first step; `"hour"` of the day, from 0 to 24 as a fraction;
            or `"weekday"`, Monday 0. The last two are local where the column has a time zone.
        unit: of a difference: ns, us, ms, s, min, h or d. A column of plain numbers is taken to be in it already.
    """

    kind: ClassVar = "time"
    width: ClassVar = 1
    ids: ClassVar = 0
    name: str
    give: str = "difference"
    unit: str = "s"

    def __post_init__(self) -> None:
        """Raises `ConfigError` for values that mean nothing."""
        take_plain(self)
        _check_name(self.name)
        _check(self.give in GIVES, self.name, "give", self.give, f"one of {', '.join(GIVES)}")
        _check(
            isinstance(self.unit, str) and self.unit in UNITS,
            self.name,
            "unit",
            self.unit,
            f"one of {', '.join(UNITS)}",
        )
        self._check_scaling(self.name)


@dataclass(frozen=True)
class Category:
    """A column of categories, each a vector of its own: one-hot, or a row of a table that belongs to the encoder.

    Args:
        name: the column's.
        values: the categories, integers or strings; the first has the id 0.
        size: in place of `values`: the column holds ids, from 0 to `size - 1`.
        encode: `"one-hot"` or `"embedding"`.
        dimension: numbers in each row of an embedding table.
        unknown: what a null or another value becomes: `"error"`; `"zeros"`, a vector of zeros; or `"own"`, one more id
            for all of them, after the others.

    Example:
        >>> Category("colour", values=("red", "blue"), unknown="own").width
        3
    """

    kind: ClassVar = "category"
    name: str
    values: tuple[int, ...] | tuple[str, ...] | None = None
    size: int | None = None
    encode: str = "one-hot"
    dimension: int | None = None
    unknown: str = "error"

    def __post_init__(self) -> None:
        """Raises `ConfigError` for values that mean nothing."""
        take_plain(self)
        name = self.name
        _check_name(name)
        _check(self.encode in ENCODINGS, name, "encode", self.encode, f"one of {', '.join(ENCODINGS)}")
        _check(self.unknown in UNKNOWNS, name, "unknown", self.unknown, f"one of {', '.join(UNKNOWNS)}")
        if (self.values is None) == (self.size is None):
            given = "neither" if self.size is None else "both"
            raise ConfigError(f"Column {name!r}: {given} of values and size was given; expected one of them.")
        if self.values is not None:
            object.__setattr__(self, "values", _checked_values(name, self.values))
        else:
            _check(_is_count(self.size), name, "size", self.size, "a whole number of 1 or more")
        if self.ids > MOST_IDS:
            raise ConfigError(
                f"Column {name!r} has {self.ids:,} ids; expected at most {MOST_IDS:,}, since ids travel as float32. "
                "Join rare values, for example by a hash."
            )
        if self.encode == "embedding":
            _check(_is_count(self.dimension), name, "dimension", self.dimension, "a whole number of 1 or more")
        else:
            _check(
                self.dimension is None, name, "dimension", self.dimension, "none, as one-hot vectors have their size"
            )

    @property
    def known(self) -> int:
        """Values that are known."""
        return len(self.values) if self.values is not None else int(self.size or 0)

    @property
    def ids(self) -> int:
        """Ids there are: one for each value, and one for all others under `unknown="own"`."""
        return self.known + (self.unknown == "own")

    @property
    def width(self) -> int:
        """Numbers that the cell gets of it."""
        return self.dimension if self.dimension is not None else self.ids


Column = Number | Category | Time
KINDS: dict[str, Any] = {"number": Number, "category": Category, "time": Time}


def is_embedding(column: Any) -> bool:
    """Whether a column has a table."""
    return isinstance(column, Category) and column.encode == "embedding"


def column_of(number: int, given: Any) -> Column:
    """One column of plain values."""
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ConfigError(f'Column {number} of the input has no name; expected name = "..." as in the data.')
    options = dict(given)
    name, kind = options["name"], options.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        told = "no kind" if kind is None else f"the kind {kind!r}"
        raise ConfigError(f"Column {name!r} has {told}; expected one of {', '.join(KINDS)}.")
    fields = [field.name for field in dataclasses.fields(KINDS[kind])]
    if surplus := sorted(options.keys() - set(fields)):
        expected = ", ".join(["kind", *sorted(fields)])
        raise ConfigError(f"Column {name!r} has the key {surplus[0]!r}; a column of kind {kind} takes {expected}.")
    for key in {"clip", "values"} & options.keys():
        _check(isinstance(options[key], list | tuple), name, key, options[key], "a list")
        options[key] = tuple(options[key])
    return KINDS[kind](**options)


def plain_of(column: Column) -> dict[str, Any]:
    """One column as plain values, without those left at their defaults."""
    plain: dict[str, Any] = {"name": column.name, "kind": column.kind}
    for field in dataclasses.fields(column):
        value = getattr(column, field.name)
        if field.name != "name" and value != field.default:
            plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain


def _checked_values(name: str, values: Any) -> tuple[Any, ...]:
    """A vocabulary: integers, or strings, none of them twice."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    _check(is_list and len(values) > 0, name, "values", values, "a list of one value or more")
    kinds = {type(value) for value in values}
    if len(kinds) > 1 or not kinds <= {int, str}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ConfigError(f"Column {name!r}: values are of {found}; expected all integers or all strings.")
    if len(set(values)) < len(values):
        seen: set[Any] = set()
        twice = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
        raise ConfigError(f"Column {name!r}: values hold {twice!r} twice; expected each once.")
    for value in values if kinds == {str} else ():
        _check_is_text(value)
    return tuple(values)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"A column of the input has the name {name!r}; expected a text.")
    _check_is_text(name)


def _check_is_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"The input holds the text {text!a}, which is not UTF-8; expected one that is.") from error


def _check(is_right: bool, name: str, key: str, value: Any, expected: str) -> None:
    if not is_right:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise ConfigError(f"Column {name!r}: {key} is {shown}; expected {expected}.")


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
