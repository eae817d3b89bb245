"""Every layout of the same rows gives the same `Ragged`; everything else is refused with its place named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanrnn_dist.errors import ConfigError, DataError, LayoutError
from scanrnn_dist.source.layouts.find import LAYOUTS, find_layout, layout_of, register_layout
from scanrnn_dist.source.layouts.layout import Asked
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.layouts.types import fixed_in_features
from scanrnn_dist.source.taking import fixed_lists, to_ragged

NUMBERS = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int16(), pa.int32(), pa.int64()]
NUMBERS += [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
LISTS = [pa.list_, pa.large_list]
SEQ = pa.list_(pa.list_(pa.float32()))


def where(row: int) -> str:
    return f"a.parquet, row {row}"


def find_column(schema: pa.Schema, column: str | None) -> str:
    """The one column of the layout that is found."""
    (name,) = find_layout(schema, Asked(column=column), where="a.parquet").columns(schema)
    return name


def rows_of(ragged: Any) -> list[Any]:
    return [ragged.row(index).tolist() for index in range(len(ragged))]


@st.composite
def rows_and_type(draw: st.DrawFn) -> tuple[list[Any], int, pa.DataType]:
    """Random rows (values that all number types hold), their D, and one of the supported types for them."""
    in_features = draw(st.integers(1, 4))
    fixed_steps = draw(st.none() | st.integers(0, 3))
    steps = st.integers(0, 5) if fixed_steps is None else st.just(fixed_steps)
    value = st.integers(0, 100).map(float)
    step = st.lists(value, min_size=in_features, max_size=in_features)
    rows = draw(st.lists(steps.flatmap(lambda n: st.lists(step, min_size=n, max_size=n)), max_size=6))
    inner = draw(
        st.sampled_from([*LISTS, lambda item: pa.list_(item, in_features), None if in_features == 1 else pa.list_])
    )
    outers = LISTS if fixed_steps is None else [*LISTS, lambda item: pa.list_(item, fixed_steps)]
    number = draw(st.sampled_from(NUMBERS))
    return rows, in_features, draw(st.sampled_from(outers))(number if inner is None else inner(number))


@settings(max_examples=100, deadline=None)
@given(rows_and_type(), st.data())
def test_every_layout_gives_the_same_ragged(case: Any, data: Any) -> None:
    rows, in_features, type = case
    flat = pa.types.is_integer(type.value_type) or pa.types.is_floating(type.value_type)
    dtype = np.dtype((type.value_type if flat else type.value_type.value_type).to_pandas_dtype()).type
    stored = [[dtype(step[0]) if flat else [dtype(value) for value in step] for step in row] for row in rows]
    array = pa.array(stored, type)
    # A slice in front of and behind which other rows stand, cut into chunks at random.
    begin = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(begin, len(rows)))
    cut = data.draw(st.integers(begin, end))
    whole = to_ragged(array[begin:end], in_features=in_features, where=where)
    assert rows_of(whole) == rows[begin:end]
    assert whole.values.dtype == np.float32 and whole.in_features == in_features
    chunked = pa.chunked_array([array[begin:cut], array[cut:end]], type)
    assert rows_of(to_ragged(chunked, in_features=in_features, where=where)) == rows[begin:end]
    if any(rows[begin:end]):
        assert rows_of(to_ragged(chunked, where=where)) == rows[begin:end]


@pytest.mark.parametrize("type", [SEQ, pa.list_(pa.list_(pa.float32(), 2)), pa.large_list(pa.list_(pa.float32()))])
def test_float32_is_a_view_of_the_arrow_buffer(type: pa.DataType) -> None:
    array = pa.array([[[1, 2]], [[3, 4], [5, 6]], [[7, 8]]], type)
    ragged = to_ragged(array[1:], where=where)
    assert ragged.values.ctypes.data == array.values.values.buffers()[1].address + 2 * 4
    assert rows_of(ragged) == [[[3, 4], [5, 6]], [[7, 8]]]


def test_what_stands_outside_a_slice_is_not_looked_at() -> None:
    array = pa.array([None, [[1.0], None], [[2.0], [3.0]], [[np.nan]], [[1.0, 2.0]]], SEQ)
    assert rows_of(to_ragged(array[2:3], where=where)) == [[[2], [3]]]


def test_a_tensor_of_one_axis_is_a_step() -> None:
    tensor = pa.fixed_shape_tensor(pa.float32(), [2])
    steps = pa.ExtensionArray.from_storage(tensor, pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2)))
    array = pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), steps)
    assert fixed_in_features(array.type) == 2
    assert rows_of(to_ragged(array[1:], where=where)) == [[[3, 4], [5, 6]]]


class Foreign(pa.ExtensionType):
    """A type that nobody registered: what it means only its owner knows."""

    def __init__(self, storage: pa.DataType) -> None:
        super().__init__(storage, "somebody.tensor")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"[5, 3]"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Foreign:
        return cls(storage)


def marked(type: pa.DataType, name: str) -> pa.Field:
    """A field as Parquet gives it back where nobody registered the extension type."""
    return pa.field("seq", type, metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": "[5, 3]"})


INNER = pa.list_(pa.float32())
NESTED = pa.list_(INNER)
FOREIGN_FIELDS = [
    marked(pa.large_list(pa.float32()), "ray.data.arrow_tensor_v2"),
    marked(pa.list_(pa.float32(), 6), "daft.super_extension"),
    pa.field("seq", pa.list_(marked(INNER, "somebody.tensor"))),
    pa.field("seq", pa.list_(pa.list_(marked(pa.float32(), "somebody.half")))),
    pa.field("seq", Foreign(NESTED)),
    pa.field("seq", pa.list_(Foreign(INNER))),
    pa.field("seq", pa.list_(pa.list_(pa.bool8()))),
    pa.field("seq", pa.list_(pa.opaque(INNER, "tensor", "somebody"))),
    pa.field("seq", pa.fixed_shape_tensor(pa.float32(), [2, 3, 4])),
    pa.field("seq", pa.list_(pa.fixed_shape_tensor(pa.float32(), [2, 3]))),
    pa.field("seq", pa.list_(pa.struct([marked(pa.float32(), "somebody.half")]))),
    pa.field("seq", pa.struct([marked(pa.list_(pa.float32()), "somebody.half")])),
]


@pytest.mark.parametrize("field", FOREIGN_FIELDS, ids=str)
def test_an_extension_type_that_nobody_understands_is_refused_at_every_level(field: pa.Field) -> None:
    with pytest.raises(LayoutError, match=r"extension type '[a-z_.0-9]*', which is not understood.*docs/data.md"):
        find_column(pa.schema([field]), "seq")


@pytest.mark.parametrize("field", FOREIGN_FIELDS[2:], ids=str)
def test_arrays_of_extension_types_are_refused_too(field: pa.Field) -> None:
    with pytest.raises(LayoutError, match=r"row 0: the column is .* which is not understood"):
        to_ragged(pa.nulls(0, field.type), in_features=2, where=where)


@pytest.mark.parametrize("name", ["awkward", "datasets.features.features.Array2DExtensionType"])
def test_extension_types_whose_storage_is_the_sequence_are_taken(name: str) -> None:
    schema = pa.schema([marked(pa.list_(marked(INNER, name)), name)])
    assert find_column(schema, None) == "seq"


def test_a_foreign_column_beside_a_list_is_not_passed_over() -> None:
    schema = pa.schema([FOREIGN_FIELDS[0], ("label", INNER)])
    with pytest.raises(LayoutError, match="may hold its sequences in 3 ways"):
        find_column(schema, None)


@pytest.mark.parametrize(
    ("type", "shown", "hint"),
    [
        (pa.list_(pa.struct([("x", pa.string())])), "struct<x: string>", "Name its fields of numbers with --features"),
        (pa.struct([("x", pa.float32())]), "struct<x: float", "Make lists of numbers of its fields"),
        (pa.list_(pa.list_(pa.binary())), "binary", "Make numbers of each binary"),
        (pa.list_(NESTED), "list<element: list", "Make one list of the numbers of each step"),
        (pa.string(), "string", "Make lists of numbers of it"),
        (pa.decimal128(9, 2), "decimal128", "--group-by and --order-by"),
    ],
    ids=str,
)
def test_a_column_that_is_no_sequence_is_shown_with_the_way_out(type: pa.DataType, shown: str, hint: str) -> None:
    schema = pa.schema([("id", pa.int64()), ("points", type)])
    for column, way in (("points", hint), (None, "--group-by and --order-by")):
        with pytest.raises(LayoutError) as caught:
            find_column(schema, column)
        text = str(caught.value)
        assert shown.replace("element", "item") in text.replace("element", "item") and way in text
        page = "docs/layouts.md, 'Long format'" if "--group-by" in text else "docs/data.md, 'Recipes'"
        assert f"({page})" in text and "\n" not in text


@pytest.mark.parametrize(
    ("rows", "type", "place"),
    [
        ([[[1.0]], None], SEQ, "row 1: the sequence is null"),
        ([[[1.0, 2.0]], [[2.0, 3.0], None]], SEQ, "row 1, step 1: the timestep is null"),
        ([[], [[1.0, 2.0], [3.0, None]]], SEQ, "row 1, step 1: a value is null"),
        ([[1.0], [2.0, None]], pa.list_(pa.float32()), "row 1, step 1: a value is null"),
        ([[], [[1.0, 2.0], [3.0, np.nan]]], SEQ, "row 1, step 1: feature 1 is nan"),
        ([[[1.0, -np.inf]]], SEQ, "row 0, step 0: feature 1 is -inf"),
        ([[[1.0, 2.0]], [[1.0, 2.0], [3.0]]], SEQ, "row 1, step 1: 1 features; expected 2, as in"),
        ([[[1]], [[1], [2**24 + 1]]], pa.list_(pa.list_(pa.int64())), "row 1, step 1: int64 value 16777217 would"),
        ([[[2**63 - 1]]], pa.list_(pa.list_(pa.int64())), "would become .* --lossy-cast / lossy_cast=True"),
        ([[[2**64 - 1]]], pa.list_(pa.list_(pa.uint64())), "would become"),
        ([[[-(2**31) + 1]]], pa.list_(pa.list_(pa.int32())), "would become"),
        ([[[0.5]], [[0.1]]], pa.list_(pa.list_(pa.float64())), "row 1, step 0: float64 value 0.1 would become"),
        ([[[1e300]]], pa.list_(pa.list_(pa.float64())), "would become inf"),
    ],
)
def test_bad_rows_are_named(rows: Any, type: pa.DataType, place: str) -> None:
    # A cast that leaves the integer type gives another number on every processor; none may be relied on.
    with np.errstate(invalid="raise"), pytest.raises(DataError, match=place):
        to_ragged(pa.array(rows, type), where=where)
    chunked = pa.chunked_array([pa.array(rows[:1], type), pa.array(rows[1:], type)])
    with pytest.raises(DataError, match=place):
        to_ragged(chunked, where=where)


@pytest.mark.parametrize("value", [2**24 + 2, -(2**63), 2**62, 2**24])
def test_integers_that_float32_holds_pass(value: int) -> None:
    ragged = to_ragged(pa.array([[[value]]], pa.list_(pa.list_(pa.int64()))), where=where)
    assert int(ragged.values[0, 0]) == value


def test_chunks_may_hold_more_values_than_the_offsets_of_one_list_count() -> None:
    huge = pa.ListArray.from_arrays(pa.array([0, 2**31 - 1], pa.int32()), pa.nulls(2**31 - 1))
    column = pa.chunked_array([pa.array([[], [None]], huge.type), huge])
    with pytest.raises(DataError, match=r"row 1, step 0: .* null"):
        to_ragged(column, where=where)


def test_lossy_cast_rounds_but_does_not_overflow() -> None:
    type = pa.list_(pa.list_(pa.float64()))
    ragged = to_ragged(pa.array([[[0.1]]], type), lossy_cast=True, where=where)
    assert ragged.values[0, 0] == np.float32(0.1)
    with pytest.raises(DataError, match=r"feature 0 is 1e\+300 \(too large for float32\)"):
        to_ragged(pa.array([[[1e300]]], type), lossy_cast=True, where=where)
    both = to_ragged(pa.array([[[np.nan], [1e300]]], type), lossy_cast=True, nonfinite="propagate", where=where)
    assert np.isnan(both.values[0, 0]) and np.isinf(both.values[1, 0])


@pytest.mark.parametrize("in_features", [None, 3])
def test_time_last_is_named(in_features: int | None) -> None:
    rows = [np.ones((3, 5)).tolist(), np.ones((3, 4)).tolist()]
    with pytest.raises(LayoutError, match=r"look like \(D, T\); expected is \(T, D\)"):
        to_ragged(pa.array(rows, SEQ), in_features=in_features, where=where)


def test_time_last_is_not_blamed_for_other_mistakes() -> None:
    with pytest.raises(LayoutError) as caught:
        to_ragged(pa.array([[[1.0, 2.0]] * 4, [[1.0, 2.0]] * 7], SEQ), in_features=3, where=where)
    assert "(D, T)" not in str(caught.value) and "row 0, step 0: 2 features; expected 3" in str(caught.value)


def test_empty_rows_take_their_features_from_what_is_known() -> None:
    assert to_ragged(pa.array([[], []], SEQ), in_features=4, where=where).values.shape == (0, 4)
    assert to_ragged(pa.array([[]], pa.list_(pa.list_(pa.float32(), 3))), where=where).values.shape == (0, 3)
    assert len(to_ragged(pa.chunked_array([], SEQ), in_features=4, where=where)) == 0
    with pytest.raises(LayoutError, match="does not say how many features"):
        to_ragged(pa.array([[], []], SEQ), where=where)
    with pytest.raises(LayoutError, match="0 features"):
        to_ragged(pa.array([[[]]], SEQ), where=where)
    with pytest.raises(LayoutError, match="1 feature"):
        to_ragged(pa.array([[]], pa.list_(pa.float32())), in_features=2, where=where)


@pytest.mark.parametrize("rows", [[], [[], []], [[[1.0] * 6], []]])
def test_a_type_that_fixes_other_features_is_refused_whatever_the_rows_are(rows: list[list[list[float]]]) -> None:
    column = pa.array(rows, pa.list_(pa.list_(pa.float32(), 6)))
    told = r"row 0.*: the column is list<.*\[6\]>, 6 features a step; expected"
    with pytest.raises(LayoutError, match=f"{told} 12"):
        to_ragged(column, in_features=12, where=where)
    with pytest.raises(LayoutError, match=f"{told} 1"):
        fixed_lists(pa.record_batch({"carry": column}), "carry", 0, lossy_cast=False, where=where)
    assert to_ragged(column, in_features=6, where=where).values.shape[1] == 6


def test_null_steps_before_the_first_that_tells_the_features_are_told_as_such() -> None:
    chunks = pa.chunked_array([[[None, None], []], [[[1.0, 2.0]]]], SEQ)
    with pytest.raises(DataError, match="row 0, step 0: the timestep is null"):
        to_ragged(chunks, where=where)
    ragged = to_ragged(chunks, nonfinite="propagate", where=where)
    np.testing.assert_array_equal(ragged.values, [[np.nan] * 2, [np.nan] * 2, [1, 2]])
    assert ragged.lengths.tolist() == [2, 0, 1]
    with pytest.raises(LayoutError, match="none of the 2 rows has a step that is not null, and list"):
        to_ragged(chunks.chunk(0), where=where)


@pytest.mark.parametrize("item", [pa.binary(), pa.month_day_nano_interval(), pa.map_(pa.int8(), pa.int8()), SEQ])
def test_other_items_are_refused(item: pa.DataType) -> None:
    for type in (pa.list_(item), pa.list_(pa.list_(item))):
        assert fixed_in_features(type) is None
        with pytest.raises(LayoutError, match="expected a list of float"):
            to_ragged(pa.nulls(1, type), where=where)


def test_the_sequence_column_is_never_guessed() -> None:
    one = pa.schema([("id", pa.int64()), ("seq", SEQ), ("tags", pa.list_(pa.string()))])
    assert find_column(one, None) == "seq"
    assert find_column(one, "seq") == "seq"
    with pytest.raises(LayoutError) as caught:
        find_column(one, "id")
    assert str(caught.value) == (
        "column 'id' of a.parquet is int64; expected a list of float. One step per row? Say so with --group-by and "
        "--order-by (docs/layouts.md, 'Long format'). Or choose another: --column seq (a list for each row)."
    )
    with pytest.raises(ConfigError, match="no column 'nope'"):
        find_column(one, "nope")
    with pytest.raises(LayoutError, match=r"in 2 ways.* --column seq .* or --column 'my list' \("):
        find_column(one.append(pa.field("my list", pa.list_(pa.int8()))), None)
    with pytest.raises(LayoutError, match="2 columns 'seq'"):
        find_column(one.append(pa.field("seq", SEQ)), "seq")
    with pytest.raises(LayoutError, match="no column of sequences"):
        find_column(pa.schema([("id", pa.int64())]), None)


def test_the_flags_of_one_step_a_row_name_columns_with_commas_as_one() -> None:
    with pytest.raises(LayoutError, match=r"""such as --group-by '"a,b"' --order-by '"the time, s"' \("""):
        find_column(pa.schema([("a,b", pa.int64()), ("the time, s", pa.int64())]), None)


def test_a_layout_may_be_defined_again_and_is_told_of_where_it_is_not_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def defined(qualname: str) -> type[NestedLists]:
        return type("Own", (NestedLists,), {"name": "own", "__qualname__": qualname})

    monkeypatch.setitem(LAYOUTS, "own", NestedLists)  # so that what is registered below goes with the test
    monkeypatch.delitem(LAYOUTS, "own")
    with pytest.raises(ConfigError, match=r"layout 'own', which is not registered in this process. Import the module"):
        layout_of(Asked("own", "x"))
    for _ in range(2):
        again = register_layout(defined("Own"))
    assert type(layout_of(Asked("own", "x"))) is again
    with pytest.raises(ConfigError, match="There is a layout 'own' already"):
        register_layout(defined("Another"))
