"""Row filters in text: `label == 'walk' and n_steps > 10 and split in ('a', 'b') and not is_null(x)`.

Python's parser reads the text, and nothing of it is run: each piece is one that is known here, or an error that points
at it. What cannot be told, since a value is null, is no match. Which rows are read says `decode.py`.
"""

from __future__ import annotations

import ast
import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.errors import ConfigError, DataError, did_you_mean, one_line
from scanrnn_dist.source.layouts import storage

_Leaf = Callable[[str], Any]
"""Gives what stands for a column: an Arrow array or scalar, or an expression."""

_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal, ast.NotEq: pc.not_equal, ast.Lt: pc.less, ast.LtE: pc.less_equal, ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}  # fmt: skip
_WHOLE = pa.decimal256(20)
"""Holds all numbers of uint64 and of int64, and has room for products of their differences."""


def _difference(one: Any, other: Any) -> Any:
    """One side less the other; that of unsigned integers may be below zero."""
    kinds = [getattr(side, "type", None) for side in (one, other)]
    if None not in kinds and all(map(pa.types.is_integer, kinds)):  # no expressions
        common = _WHOLE if pa.uint64() in kinds else pa.int64()
        one, other = one.cast(common), other.cast(common)
    return pc.subtract_checked(one, other)


_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: pc.add_checked, ast.Sub: _difference, ast.Mult: pc.multiply_checked,
    ast.Div: lambda one, other: pc.divide(_as_float64(one), _as_float64(other)),
}  # fmt: skip
_MOMENTS: dict[str, Callable[[str], Any]] = {
    "timestamp": datetime.datetime.fromisoformat, "date": datetime.date.fromisoformat,
}  # fmt: skip
_CONSTANTS = {"true": True, "false": False}
_KNOWN = "names of columns, numbers, texts, comparisons, in (...), and, or, not, + - * /, is_null(x), is_valid(x), "
_KNOWN += "field('a name'), timestamp('2020-01-01'), date('2020-01-01')"


@dataclass(frozen=True)
class Filter:
    """Which rows are to be read.

    Args:
        text: as it was given.
        columns: the names in it, each a column, or a field of one behind a point.
        conditions: that must all hold, each with the names in it.
    """

    text: str
    columns: tuple[str, ...]
    conditions: tuple[tuple[ast.expr, frozenset[str]], ...]

    def of(self, schema: pa.Schema) -> tuple[str, ...]:
        """The columns of a schema that are needed; `ConfigError` for one that is not there or does not fit."""
        found = {name: _column(name, schema.names) for name in self.columns}
        for name, column in found.items():
            if column is None:
                raise ConfigError(
                    f"The filter {self.text!r} names {name!r}, which is no column of the source; expected one of "
                    f"{schema.names}.{did_you_mean(name, schema.names)} "
                    "A name that is none of Python's stands in field('...')."
                )
        columns = tuple(dict.fromkeys(name for name in found.values() if name is not None))
        try:
            # One row: of none, pyarrow does not look whether times with and without a zone meet.
            row = pa.record_batch([pa.nulls(1, schema.field(name).type) for name in columns], list(columns))
            self._mask(_leaf_of(row, {}))
        except (pa.ArrowException, TypeError) as error:
            types = ", ".join(f"{name!r} is {schema.field(name).type}" for name in columns)
            raise ConfigError(
                f"The filter {self.text!r} does not fit the columns ({types}): {one_line(str(error))}"
            ) from error
        return columns

    def may_match(self, partitions: Mapping[str, Any]) -> bool:
        """Whether a file with these values in its path can have rows that match."""
        known = [each for each, names in self.conditions if names <= partitions.keys()]
        try:
            return all(_as_mask(_value(each, self.text, lambda name: partitions[name]), 1)[0] for each in known)
        except pa.ArrowException:  # as of numbers that are too large; told where the rows are read
            return True

    def matching(self, batch: pa.RecordBatch, partitions: Mapping[str, Any], where: str) -> np.ndarray:
        """Which rows of a batch match, `(n,)` bool.

        Args:
            batch: has the columns, but those that folders spell.
            partitions: the values of these, Arrow scalars.
            where: the file and row groups, for messages.

        Raises:
            DataError: a value that cannot be computed with, such as a sum that is too large.
        """
        try:
            return _as_mask(self._mask(_leaf_of(batch, partitions)), batch.num_rows)
        except pa.ArrowException as error:
            raise DataError(f"{where.rstrip(',')}: the filter {self.text!r} fails: {one_line(str(error))}") from error

    def _mask(self, leaf: _Leaf) -> Any:
        made = [_value(each, self.text, leaf) for each, _ in self.conditions]
        for value, (each, _) in zip(made, self.conditions, strict=True):
            if not pa.types.is_boolean(value.type):
                raise _error(self.text, each, f"it is {value.type}; expected a comparison")
        whole = made[0]
        for value in made[1:]:
            whole = pc.and_kleene(whole, value)
        return whole


def parsed_filter(text: str) -> Filter:
    """A filter as it is written.

    Raises:
        ConfigError: a piece that is not known; it is pointed at.

    Example:
        >>> parsed_filter("n > 10 and label == 'walk'").columns
        ('n', 'label')
    """
    try:
        tree = _tree(text.strip())
    except SyntaxError as error:
        hint = "; write == to compare" if "=" in text.replace("==", "") else ""
        raise ConfigError(
            f"The filter {text!r} cannot be understood at character {error.offset}: {error.msg}{hint}. "
            f"Known are {_KNOWN}."
        ) from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise ConfigError(f"The filter cannot be understood: {type(error).__name__}: {error}.") from None
    text = text.strip()
    conditions = tuple((each, frozenset(_names(each, text))) for each in _conjuncts(tree))
    _value(tree, text, pc.field)  # knows every piece, or raises
    return Filter(text, tuple(dict.fromkeys(_names(tree, text))), conditions)


def filter_text(given: str | pc.Expression) -> str:
    """A filter as text; `ConfigError` for an expression of pyarrow that no text of ours stands for."""
    if isinstance(given, str):
        return parsed_filter(given).text
    text = str(given)
    try:
        own = _value(_tree(text), text, pc.field)
        if isinstance(given, pc.Expression) and own.equals(given):
            return text
    except (ConfigError, SyntaxError):
        pass
    raise ConfigError(f"The filter {text} cannot be recorded; expected text, such as \"label == 'walk' and n > 10\".")


def _tree(text: str) -> ast.expr:
    """What Python's parser makes of a text, with names as they are written: it brings letters that look alike together.

    So the micro sign becomes the Greek letter, and an accent of its own becomes one with its letter.
    """
    tree = ast.parse(text, mode="eval").body
    if not text.isascii():
        for each in ast.walk(tree):
            if isinstance(each, ast.Name):
                each.id = _written(each, text)
            elif isinstance(each, ast.Attribute):
                each.attr = _written(each, text).rpartition(".")[2].strip()
    return tree


def _written(tree: ast.expr, text: str) -> str:
    return ast.get_source_segment(text, tree) or text


def _conjuncts(tree: ast.expr) -> Iterator[ast.expr]:
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        for each in tree.values:
            yield from _conjuncts(each)
    else:
        yield tree


def _names(tree: ast.expr, text: str) -> Iterator[str]:
    """The columns in it, in the order of the text."""
    if isinstance(tree, ast.Name) and tree.id.lower() not in _CONSTANTS:
        yield tree.id
    elif isinstance(tree, ast.Attribute):
        yield _dotted(tree, text)
    elif isinstance(tree, ast.Call):
        name = tree.func.id if isinstance(tree.func, ast.Name) else ""
        if name == "field":
            yield _text_in(tree, text)
        elif name not in _MOMENTS:
            for each in tree.args:
                yield from _names(each, text)
    else:
        for child in ast.iter_child_nodes(tree):
            if isinstance(child, ast.expr):
                yield from _names(child, text)


def _value(tree: ast.expr, text: str, leaf: _Leaf) -> Any:
    """What a piece comes to: an array, a scalar or an expression."""
    if isinstance(tree, ast.BoolOp):
        combine = pc.and_kleene if isinstance(tree.op, ast.And) else pc.or_kleene
        values = [_value(each, text, leaf) for each in tree.values]
        whole = values[0]
        for value in values[1:]:
            whole = combine(whole, value)
        return whole
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        return pc.invert(_value(tree.operand, text, leaf))
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return pc.negate_checked(_value(tree.operand, text, leaf))
    if isinstance(tree, ast.BinOp) and type(tree.op) in _ARITHMETIC:
        return _ARITHMETIC[type(tree.op)](*_alike(_value(tree.left, text, leaf), _value(tree.right, text, leaf)))
    if isinstance(tree, ast.Compare):
        return _comparison(tree, text, leaf)
    if isinstance(tree, ast.Call):
        return _call(tree, text, leaf)
    if isinstance(tree, ast.Attribute):
        return leaf(_dotted(tree, text))
    if isinstance(tree, ast.Name):
        constant = _CONSTANTS.get(tree.id.lower())
        return leaf(tree.id) if constant is None else _constant(constant, leaf)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, bool | int | float | str):
        try:
            return _constant(tree.value, leaf)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            raise _error(text, tree, "it is too large, or no text") from None
    raise _error(text, tree, "it is not known here")


def _constant(value: Any, leaf: _Leaf) -> Any:
    is_large = isinstance(value, int) and value >= 2**63
    made = _comparable(pa.scalar(value, pa.uint64()) if is_large else pa.scalar(value))
    return pc.scalar(made) if leaf is pc.field else made


def _comparable(value: Any) -> Any:
    """An array or scalar in a type that pyarrow compares with others of its kind.

    Times with a zone become those of UTC, the same moments: units differ only within one zone. float16 becomes float32.
    """
    kind = value.type
    if pa.types.is_dictionary(kind) and pa.types.is_float16(kind.value_type):
        value = value.dictionary_decode()
        kind = value.type
    if pa.types.is_float16(kind):
        return value.cast(pa.float32())
    if _zone(kind) not in ("", "UTC"):
        return value.cast(pa.timestamp(kind.unit, "UTC"))
    return value


def _zone(kind: pa.DataType) -> str:
    """The zone of a type of times; empty of one without, and of others."""
    return (kind.tz or "") if pa.types.is_timestamp(kind) else ""


def _check_zones(one: Any, other: Any) -> None:
    """Raise a `TypeError` that says what to write where a time with a zone meets one without."""
    kinds = [getattr(side, "type", None) for side in (one, other)]
    are_times = all(kind is not None and pa.types.is_timestamp(kind) for kind in kinds)
    if not are_times or bool(_zone(kinds[0])) == bool(_zone(kinds[1])):
        return
    written = next((side for side in (other, one) if isinstance(side, pa.Scalar)), None)
    if written is None:
        remedy = ""
    elif _zone(written.type):
        remedy = " Leave out its Z or offset."
    else:
        remedy = " End the time with Z, or an offset such as +02:00."
    raise TypeError(f"a time without a zone is compared with one that has a zone.{remedy}")


def _comparison(tree: ast.Compare, text: str, leaf: _Leaf) -> Any:
    """One comparison, or a chain of them."""
    whole, left = None, tree.left
    for kind, right in zip(tree.ops, tree.comparators, strict=True):
        for side in (left, right):
            if (isinstance(side, ast.Constant) and side.value is None) or _is_name(side, "null", "none"):
                raise _error(text, tree, "nothing is equal to null; write is_null(x) or is_valid(x)")
        if isinstance(kind, ast.In | ast.NotIn):
            made = _membership(_value(left, text, leaf), right, text, leaf)
            made = pc.invert(made) if isinstance(kind, ast.NotIn) else made
        elif type(kind) in _COMPARISONS:
            made = _COMPARISONS[type(kind)](*_compared(_value(left, text, leaf), _value(right, text, leaf)))
        else:
            raise _error(text, tree, "`is` is not known here; write is_null(x) or is_valid(x)")
        whole, left = made if whole is None else pc.and_kleene(whole, made), right
    return whole


def _compared(one: Any, other: Any) -> tuple[Any, Any]:
    """Two sides of a comparison; a `TypeError` for times that cannot be compared."""
    _check_zones(one, other)
    return _alike(one, other)


def _alike(one: Any, other: Any) -> tuple[Any, Any]:
    """Two sides in types that pyarrow brings together; of others it refuses the numbers that do not fit.

    Integers that meet floats become float64, the nearest one; uint64 that meets signed integers meets them as decimals.
    """
    sides, kinds = [one, other], [getattr(side, "type", None) for side in (one, other)]
    if None in kinds:  # expressions
        return one, other
    are_integers = [pa.types.is_integer(kind) for kind in kinds]
    if all(are_integers) and pa.uint64() in kinds and kinds[0] != kinds[1]:
        small = next((side for side in sides if isinstance(side, pa.Int64Scalar) and side.as_py() >= 0), None)
        common = _WHOLE if small is None else pa.uint64()
        return one.cast(common), other.cast(common)
    if any(are_integers) and any(pa.types.is_floating(kind) for kind in kinds):
        return _as_float64(one), _as_float64(other)
    return one, other


def _as_float64(value: Any) -> Any:
    """Numbers as float64; integers beyond 2^53 are rounded, as a safe cast refuses to."""
    return value.cast(pa.float64(), safe=False)


def _membership(value: Any, among: ast.expr, text: str, leaf: _Leaf) -> Any:
    """Whether a value is one of some; null of a null."""
    if not isinstance(among, ast.Tuple | ast.List | ast.Set) or not among.elts:
        raise _error(text, among, "expected values in brackets, such as ('a', 'b')")
    made = [pc.equal(*_compared(value, _value(each, text, leaf))) for each in among.elts]
    whole = made[0]
    for each in made[1:]:
        whole = pc.or_kleene(whole, each)
    return whole


def _call(tree: ast.Call, text: str, leaf: _Leaf) -> Any:
    name = tree.func.id if isinstance(tree.func, ast.Name) else ""
    if name == "field":
        return leaf(_text_in(tree, text))
    if name in _MOMENTS:
        try:
            return _constant(_MOMENTS[name](_text_in(tree, text)), leaf)
        except ValueError as error:
            raise _error(text, tree, f"{error}") from None
    if name in ("is_null", "is_valid") and len(tree.args) == 1 and not tree.keywords:
        of = _value(tree.args[0], text, leaf)
        return pc.is_null(of) if name == "is_null" else pc.is_valid(of)
    raise _error(text, tree, "it is not known here")


def _text_in(tree: ast.Call, text: str) -> str:
    """The only argument of a call, a text."""
    argument = tree.args[0] if len(tree.args) == 1 and not tree.keywords else None
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        raise _error(text, tree, "expected one text in quotes within the brackets")
    return argument.value


def _dotted(tree: ast.expr, text: str) -> str:
    if isinstance(tree, ast.Attribute):
        return f"{_dotted(tree.value, text)}.{tree.attr}"
    if isinstance(tree, ast.Name):
        return tree.id
    raise _error(text, tree, "expected a name before the point")


def _is_name(tree: ast.expr, *names: str) -> bool:
    return isinstance(tree, ast.Name) and tree.id.lower() in names


def _column(name: str, columns: list[str]) -> str | None:
    """The column that a name is of: itself, or the one before a point."""
    if name in columns:
        return name
    ends = [index for index, letter in enumerate(name) if letter == "."]
    return next((name[:end] for end in reversed(ends) if name[:end] in columns), None)


def _leaf_of(batch: pa.RecordBatch, partitions: Mapping[str, Any]) -> _Leaf:
    def leaf(name: str) -> Any:
        if name in partitions:
            return partitions[name]
        column = _column(name, batch.schema.names)
        assert column is not None, "the names were checked"
        array = batch.column(column)
        for field in name[len(column) + 1 :].split(".") if name != column else ():
            array = pc.struct_field(array, field)
        # Not what an extension stores: a UUID's bytes are never equal to a text.
        return array if isinstance(array, pa.ExtensionArray) else _comparable(storage(array))

    return leaf


def _as_mask(value: Any, rows: int) -> np.ndarray:
    """An array or scalar of truth as `(rows,)` bool; null is no match."""
    if isinstance(value, pa.Scalar):
        return np.full(rows, bool(value.as_py()))
    return np.asarray(value.fill_null(False).to_numpy(zero_copy_only=False))


def _error(text: str, tree: ast.expr, reason: str) -> ConfigError:
    return ConfigError(
        f"The filter {text!r} cannot be understood at character {tree.col_offset + 1}, {_written(tree, text)!r}: "
        f"{reason}. Known are {_KNOWN}."
    )
