"""The same rows in every layout: Arrow columns made of plain Python rows, with nulls, slices and offsets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

Row = list[list[float | None] | None] | None
"""A sequence: steps, of which some may be null, as may values."""
LISTS = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view]
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
DECIMALS = [pa.decimal32(9, 3), pa.decimal64(18, 2), pa.decimal128(38, 20), pa.decimal256(76, 30)]
TIMES = [pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.date32(), pa.time32("ms"), pa.duration("s")]
SHARED = [pa.float32(), pa.float64(), pa.int16(), pa.int64(), pa.bool_()]
"""Types that DuckDB and polars have too."""
NAMES = ["x", "y.z", "a/b", "ü", "p.q.r"]


@dataclass(frozen=True)
class Case:
    """Rows to be stored.

    Args:
        rows: the sequences.
        in_features: `D`.
        types: of the values, one for each feature.
        is_arrow: whether pyarrow writes them, which has more types and lists than others.
    """

    rows: list[Row]
    in_features: int
    types: list[pa.DataType]
    is_arrow: bool


@dataclass(frozen=True)
class Stored:
    """Columns that hold the rows of a case, and what finds them."""

    columns: dict[str, pa.Array]
    asked: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn, is_arrow: bool = True) -> Case:
    """Random rows: numbers that all of their types hold."""
    in_features = draw(st.integers(1, 4))
    pool = [*INTEGERS, *FLOATS, *DECIMALS, *TIMES, pa.bool_()] if is_arrow else SHARED
    if draw(st.booleans()):
        pool = FLOATS + DECIMALS if is_arrow else SHARED[:2]
    types = draw(st.lists(st.sampled_from(pool), min_size=in_features, max_size=in_features))
    number: st.SearchStrategy[float] = st.integers(0, 1 if pa.bool_() in types else 100).map(float)
    if set(types) <= {*FLOATS, *DECIMALS}:
        number = st.integers(-800, 800).map(lambda n: n / 4)
    null_values, null_steps, null_rows = (draw(st.sampled_from([False, False, True])) for _ in range(3))
    value = st.one_of(st.none(), number, number, number) if null_values else number
    step: st.SearchStrategy[Any] = st.lists(value, min_size=in_features, max_size=in_features)
    step = st.one_of(st.none(), step, step, step) if null_steps else step
    row: st.SearchStrategy[Any] = st.lists(step, max_size=5)
    row = st.one_of(st.none(), row, row, row, row) if null_rows else row
    return Case(draw(st.lists(row, min_size=1, max_size=12)), in_features, types, is_arrow)


def array(draw: st.DrawFn, rows: list[Any], type: pa.DataType) -> pa.Array:
    """The rows as an array that is a slice of a longer one."""
    before, after = (draw(st.integers(0, 2)) for _ in range(2))
    filling = [row for row in rows if row is not None][:1] or [None]
    whole = pa.array([*filling * before, *rows, *filling * after], type)
    return whole[before : before + len(rows)]


def value(number: float | None, type: pa.DataType) -> Any:
    """A number as pyarrow takes it for a type."""
    if number is None:
        return None
    if pa.types.is_decimal(type):
        return Decimal(number)
    if pa.types.is_boolean(type):
        return bool(number)
    return np.float16(number) if type == pa.float16() else number if pa.types.is_floating(type) else int(number)


def values(case: Case, step: list[float | None] | None, types: list[pa.DataType]) -> list[Any]:
    """The values of a step; nulls of a null one."""
    return [value(number, type) for number, type in zip(step or [None] * case.in_features, types, strict=True)]


def list_kind(draw: st.DrawFn, case: Case) -> Callable[[Any], pa.DataType]:
    return draw(st.sampled_from(LISTS if case.is_arrow else LISTS[:1]))


def one_type(case: Case) -> list[pa.DataType]:
    """The first type whose values all features may have."""
    order = [pa.bool_(), *TIMES, *INTEGERS, *DECIMALS, *FLOATS]
    return [max(case.types, key=order.index)] * case.in_features


def map_rows(case: Case, change: Callable[[list[Any]], Any]) -> list[Any]:
    return [None if row is None else change(row) for row in case.rows]


def nested_lists(draw: st.DrawFn, case: Case) -> Stored:
    types = one_type(case)
    has_null_steps = any(None in row for row in case.rows if row is not None)
    # What DuckDB 2.0.1 writes of null arrays in lists, pyarrow 26 cannot read, and says so.
    is_fixed = draw(st.booleans()) and (case.is_arrow or not has_null_steps)
    inner = pa.list_(types[0], case.in_features) if is_fixed else list_kind(draw, case)(types[0])
    stored = map_rows(case, lambda row: [None if step is None else values(case, step, types) for step in row])
    return Stored({"seq": array(draw, stored, list_kind(draw, case)(inner))}, {"column": "seq"})


def nested_within_structs(draw: st.DrawFn, case: Case) -> Stored:
    types, name = one_type(case), draw(st.sampled_from(NAMES))
    stored = map_rows(case, lambda row: {"b": {name: [None if s is None else values(case, s, types) for s in row]}})
    inner = pa.struct([("c", pa.string()), (name, pa.list_(list_kind(draw, case)(types[0])))])
    return Stored({"a": array(draw, stored, pa.struct([("b", inner)]))}, {"column": f"a.b.{name}"})


def flat_lists(draw: st.DrawFn, case: Case) -> Stored:
    types = one_type(case)
    stored = map_rows(case, lambda row: [number for step in row for number in values(case, step, types)])
    asked = {"in_features": case.in_features, "column": "flat"}
    return Stored({"flat": array(draw, stored, list_kind(draw, case)(types[0]))}, asked)


def feature_lists(case: Case, nth: int) -> list[Any]:
    return map_rows(case, lambda row: [values(case, step, case.types)[nth] for step in row])


def list_columns(draw: st.DrawFn, case: Case) -> Stored:
    names = draw(st.permutations(NAMES))[: case.in_features]
    columns = {
        name: array(draw, feature_lists(case, nth), list_kind(draw, case)(case.types[nth]))
        for nth, name in enumerate(names)
    }
    order = draw(st.permutations(names))
    return Stored({name: columns[name] for name in order}, {"features": names})


def struct_of_lists(draw: st.DrawFn, case: Case) -> Stored:
    names = draw(st.permutations(NAMES))[: case.in_features]
    lists = [feature_lists(case, nth) for nth in range(case.in_features)]
    order = draw(st.permutations(range(case.in_features)))
    type = pa.struct([("other", pa.string()), *((names[nth], list_kind(draw, case)(case.types[nth])) for nth in order)])
    is_null_struct = draw(st.booleans())
    stored = [
        None
        if case.rows[row] is None and is_null_struct
        else {"other": "o", **{name: lists[nth][row] for nth, name in enumerate(names)}}
        for row in range(len(case.rows))
    ]
    return Stored({"events": array(draw, stored, type)}, {"column": "events", "features": names})


def list_of_structs(draw: st.DrawFn, case: Case) -> Stored:
    names = draw(st.permutations(NAMES))[: case.in_features]
    order = draw(st.permutations(range(case.in_features)))
    is_deep = draw(st.booleans())
    inner = pa.struct([("other", pa.string()), *((names[nth], case.types[nth]) for nth in order)])
    step_type = pa.struct([("label", pa.string()), ("deep", inner)]) if is_deep else inner

    def struct(step: list[float | None] | None) -> Any:
        if step is None:
            return None
        own = {"other": "o", **dict(zip(names, values(case, step, case.types), strict=True))}
        return {"label": "l", "deep": own} if is_deep else own

    stored = map_rows(case, lambda row: [struct(step) for step in row])
    features = [f"deep.{name}" for name in names] if is_deep else names
    asked = {"column": "pulses", "features": features}
    return Stored({"pulses": array(draw, stored, list_kind(draw, case)(step_type))}, asked)


def variable_tensors(draw: st.DrawFn, case: Case) -> Stored:
    types, is_transposed = one_type(case), draw(st.booleans())

    def tensor(row: list[Any]) -> dict[str, Any]:
        steps = [values(case, step, types) for step in row]
        shape = [len(row), case.in_features]
        if is_transposed:
            return {"data": [step[nth] for nth in range(case.in_features) for step in steps], "shape": shape[::-1]}
        return {"data": [number for step in steps for number in step], "shape": shape}

    storage = pa.struct([("data", pa.list_(types[0])), ("shape", pa.list_(pa.int32(), 2))])
    uniform = f'"uniform_shape":[{f"{case.in_features},null" if is_transposed else f"null,{case.in_features}"}]'
    told = [uniform] * draw(st.booleans()) + ['"permutation":[1,0]'] * is_transposed
    metadata = {
        "ARROW:extension:name": "arrow.variable_shape_tensor",
        "ARROW:extension:metadata": "{" + ",".join(told) + "}",
    }
    schema = pa.schema([pa.field("tensors", storage, metadata=metadata)])
    type = pa.ipc.read_schema(schema.serialize()).field(0).type  # which pyarrow has no function for
    return Stored({"tensors": type.wrap_array(array(draw, map_rows(case, tensor), storage))}, {})


def fixed_tensors(draw: st.DrawFn, case: Case) -> Stored | None:
    lengths = {len(row) for row in case.rows if row is not None}
    if len(lengths) != 1 or not max(lengths):
        return None
    types, is_transposed = one_type(case), draw(st.booleans())
    (steps,) = lengths
    shape, permutation = ([case.in_features, steps], [1, 0]) if is_transposed else ([steps, case.in_features], None)

    def flat(row: list[Any]) -> list[Any]:
        rows = [values(case, step, types) for step in row]
        return [number for line in (zip(*rows, strict=True) if is_transposed else rows) for number in line]

    stored = array(draw, map_rows(case, flat), pa.list_(types[0], steps * case.in_features))
    type = pa.fixed_shape_tensor(types[0], shape, permutation=permutation)
    return Stored({"tensors": pa.ExtensionArray.from_storage(type, stored)}, {"column": "tensors"})


EVERYWHERE = [nested_lists, nested_within_structs, flat_lists, list_columns, struct_of_lists, list_of_structs]
LAYOUTS: list[Callable[..., Stored | None]] = [*EVERYWHERE, variable_tensors, fixed_tensors]
