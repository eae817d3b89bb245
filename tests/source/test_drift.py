"""Files of one source that differ: what is united, that nothing is lost by it, and what is refused."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.api import featurize, verify
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import DataError
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.source import drift
from scanrnn_dist.source.bad_rows import BadRows
from scanrnn_dist.source.conform import conform, conformed, conforms
from scanrnn_dist.source.decode import Chunk, ReadOptions
from scanrnn_dist.source.filters import parsed_filter
from scanrnn_dist.source.grouped import Grouping
from scanrnn_dist.source.kept import read_kept
from scanrnn_dist.source.layouts import Asked, find_layout
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.read_ahead import read_chunks
from scanrnn_dist.source.source import Source, open_source, plan_units
from scanrnn_dist.source.unit_reader import UnitReader
from scanrnn_dist.source.united import united, with_wide_indices

SEQ = pa.list_(pa.list_(pa.float32()))

LEAVES = [
    pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float16(),
    pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
    pa.binary_view(), pa.binary(2), pa.bool_(), pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("ms", "UTC"),
    pa.time32("s"), pa.time64("us"), pa.duration("s"), pa.duration("us"), pa.date32(), pa.decimal32(4, 2),
    pa.decimal128(7, 1), pa.decimal256(40, 3), pa.null(), pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string()),
]  # fmt: skip


def field(kind: pa.DataType) -> st.SearchStrategy[pa.Field]:
    return st.booleans().map(lambda nullable: pa.field("item", kind, nullable or pa.types.is_null(kind)))


def nested(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    item = inner.flatmap(field)
    named = st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=3, unique_by=lambda pair: pair[0])
    return st.one_of(
        item.map(pa.list_), item.map(pa.large_list), item.map(lambda of: pa.list_(of, 2)), item.map(pa.list_view),
        item.map(pa.large_list_view), named.map(pa.struct),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    )  # fmt: skip


TYPES = st.recursive(st.sampled_from(LEAVES), nested, max_leaves=4)


def normal(kind: pa.DataType | None) -> str:
    """A type as text, without the order of the fields of structs."""
    if kind is None:
        return "none"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(sorted(f'{of.name}: {normal(of.type)} {of.nullable}' for of in kind))}>"
    if pa.types.is_map(kind):
        return f"map<{normal(kind.key_type)}, {normal(kind.item_type)}>"
    if pa.types.is_nested(kind):
        size = getattr(kind, "list_size", "")
        return f"{str(kind).partition('<')[0]}{size}<{normal(kind.value_type)} {kind.value_field.nullable}>"
    return str(kind)


def values_of(kind: pa.DataType, draw: Any, nullable: bool = True) -> Any:
    """A value of a type, of Python; the extremes of numbers among them."""
    types = pa.types
    if types.is_null(kind) or (nullable and draw(st.integers(0, 4)) == 0):
        return None
    if types.is_dictionary(kind):
        return values_of(kind.value_type, draw, False)
    if types.is_integer(kind):
        bits, low = kind.bit_width, -(2 ** (kind.bit_width - 1)) * types.is_signed_integer(kind)
        return draw(st.sampled_from([low, 0, 3, low + 2**bits - 1]))
    if types.is_floating(kind):
        most = np.finfo(kind.to_pandas_dtype()).max
        return draw(st.sampled_from([np.dtype(kind.to_pandas_dtype()).type(x) for x in (0.5, -2.0, most, np.inf)]))
    if types.is_decimal(kind):
        digits = draw(st.integers(-(10**kind.precision) + 1, 10**kind.precision - 1))
        return Decimal(f"{digits}E-{kind.scale}")
    if types.is_boolean(kind):
        return draw(st.booleans())
    if types.is_timestamp(kind):
        zone = datetime.UTC if kind.tz else None
        return datetime.datetime(draw(st.integers(1, 9999)), 2, 3, 4, 5, 6, tzinfo=zone)
    if types.is_time(kind):
        return datetime.time(draw(st.integers(0, 23)), 59, 58)
    if types.is_duration(kind):
        return datetime.timedelta(days=draw(st.integers(-99, 99)))
    if types.is_date(kind):
        return datetime.date(draw(st.integers(1, 9999)), 2, 3)
    if types.is_struct(kind):
        return {of.name: values_of(of.type, draw, of.nullable) for of in kind}
    if types.is_map(kind):
        return [(key, values_of(kind.item_type, draw)) for key in draw(st.lists(st.sampled_from("xyz"), unique=True))]
    if types.is_nested(kind):
        count = kind.list_size if types.is_fixed_size_list(kind) else draw(st.integers(0, 3))
        return [values_of(kind.value_type, draw, kind.value_field.nullable) for _ in range(count)]
    text = draw(st.sampled_from(["ab", "cé"] if "string" in str(kind) else ["ab", "cd"]))
    return text if "string" in str(kind) else text.encode()


def grown(value: Any, kind: pa.DataType, wanted: pa.DataType) -> Any:
    """A value as a type holds it: with the fields of structs that its own lacks, as null."""
    types = pa.types
    if value is None:
        return None
    if types.is_struct(wanted):
        own = {of.name: of.type for of in kind}
        return {of.name: grown(value.get(of.name), own.get(of.name, pa.null()), of.type) for of in wanted}
    if types.is_map(wanted):
        return [(key, grown(item, kind.item_type, wanted.item_type)) for key, item in value]
    if types.is_nested(wanted):
        return [grown(item, kind.value_type, wanted.value_type) for item in value]
    return value


@given(TYPES, TYPES, TYPES)
def test_to_unite_is_commutative_associative_and_idempotent(a: pa.DataType, b: pa.DataType, c: pa.DataType) -> None:
    assert united(a, a) == a
    both = united(a, b)
    assert normal(both) == normal(united(b, a))
    if both is None:
        return
    assert united(both, a) == both and normal(united(b, both)) == normal(both)
    others = united(b, c)
    left, right = united(both, c), None if others is None else united(a, others)
    if left is not None and right is not None:
        assert normal(left) == normal(right)


def words(index: pa.DataType, kind: pa.DataType) -> pa.DataType:
    return pa.dictionary(index, kind)


def struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int8(), pa.uint8(), pa.int16()),
        (pa.int32(), pa.uint32(), pa.int64()),
        (pa.int64(), pa.uint64(), None),
        (pa.int8(), pa.float16(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.float16(), pa.float32(), pa.float32()),
        (pa.bool_(), pa.int8(), None),
        (pa.string(), pa.string_view(), pa.large_string()),
        (pa.binary(2), pa.binary(), pa.large_binary()),
        (pa.binary(), pa.string(), None),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("s"), pa.timestamp("s", "UTC"), None),
        (pa.date32(), pa.timestamp("s"), None),
        (pa.time32("s"), pa.time32("ms"), pa.time32("ms")),
        (pa.time32("s"), pa.time64("us"), pa.time64("us")),
        (pa.duration("s"), pa.duration("us"), pa.duration("us")),
        (pa.decimal32(4, 2), pa.decimal128(7, 1), pa.decimal128(8, 2)),
        (pa.decimal128(38, 0), pa.decimal128(38, 38), pa.decimal256(76, 38)),
        (pa.decimal256(76, 0), pa.decimal256(76, 76), None),
        (words(pa.int8(), pa.string()), words(pa.int8(), pa.large_string()), words(pa.int8(), pa.large_string())),
        (words(pa.int8(), pa.string()), words(pa.int32(), pa.string()), pa.string()),
        (words(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.list_(pa.int8()), pa.large_list(pa.int16()), pa.large_list(pa.int16())),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int16(), 2), pa.list_(pa.int16(), 2)),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), pa.list_(pa.int8())),
        (pa.list_view(pa.int8()), pa.list_view(pa.int16()), pa.list_view(pa.int16())),
        (pa.list_(pa.int8()), pa.list_(pa.string()), None),
        (struct(a=pa.int8(), b=pa.null()), struct(c=pa.bool_(), a=pa.int16()),
         struct(a=pa.int16(), b=pa.null(), c=pa.bool_())),
        (struct(a=pa.int8()), struct(a=pa.string()), None),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16()), pa.map_(pa.string(), pa.int16())),
    ],
    ids=str,
)  # fmt: skip
def test_two_types_become_the_one_that_holds_both(one: pa.DataType, other: pa.DataType, both: Any) -> None:
    for found in (united(one, other), united(other, one)):
        assert normal(found) == normal(both)


@given(st.data(), TYPES, TYPES)
def test_no_value_is_lost(data: st.DataObject, a: pa.DataType, b: pa.DataType) -> None:
    for kind in [a, *(() if united(a, b) is None else [united(a, b)])]:
        values = [values_of(a, data.draw) for _ in range(5)]
        array = pa.array(values, a).slice(1)
        out = conformed(array, kind)
        out.validate(full=True)
        assert out.type == kind
        assert out.to_pylist() == [grown(value, a, kind) for value in array.to_pylist()]


@given(st.data(), TYPES)
def test_indices_of_dictionaries_have_32_bits_at_any_depth_and_nothing_else_changes(
    data: st.DataObject, kind: pa.DataType
) -> None:
    wide = with_wide_indices(kind)
    assert str(wide) == str(kind).replace("indices=int8", "indices=int32") and with_wide_indices(wide) == wide
    array = pa.array([values_of(kind, data.draw) for _ in range(5)], kind)
    assert conformed(array, wide).type == wide and conformed(array, wide).to_pylist() == array.to_pylist()
    assert conforms(kind, wide) and conforms(wide, kind)


@pytest.mark.parametrize("index", [pa.uint8(), pa.int16(), pa.uint16(), pa.uint32(), pa.int64(), pa.uint64()], ids=str)
@pytest.mark.parametrize("ordered", [False, True])
def test_indices_that_are_wide_stay(index: pa.DataType, ordered: bool) -> None:
    wide = with_wide_indices(pa.dictionary(index, pa.string(), ordered))
    assert wide == pa.dictionary(index if index.bit_width >= 32 else pa.int32(), pa.string(), ordered)


@pytest.mark.parametrize("one", LEAVES)
def test_of_every_pair_of_plain_types_no_value_is_lost(one: pa.DataType) -> None:
    some = {
        pa.bool_(): [True], pa.date32(): [datetime.date(2020, 1, 2)], pa.null(): [None], pa.binary(2): [b"ab"],
    }  # fmt: skip
    types = pa.types
    if types.is_integer(one):
        low = -(2 ** (one.bit_width - 1)) * types.is_signed_integer(one)
        values: list[Any] = [low, low + 2**one.bit_width - 1, 1]
    elif types.is_floating(one):
        values = [np.dtype(one.to_pandas_dtype()).type(x) for x in (0.1, np.finfo(one.to_pandas_dtype()).max, np.inf)]
    elif types.is_decimal(one):
        values = [Decimal(f"{10**one.precision - 1}E-{one.scale}"), Decimal(0)]
    elif types.is_temporal(one) and one not in some:
        values = [0, 1, 3000]
    else:
        values = some.get(one, [b"ab"] if "binary" in str(one) else ["ab", "", "ab"])
    array = pa.array([*values, None], one)
    for other in LEAVES:
        kind = united(one, other)
        if kind is not None:
            assert conformed(array, kind).to_pylist() == array.to_pylist(), (one, other, kind)


def write(path: Path, table: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return path


def read(source: Source, keep: list[str], **options: Any) -> list[Chunk]:
    wanted = ReadOptions(NestedLists("seq"), keep, **options)
    return list(read_chunks(source, plan_units(source, 100), wanted))


def kept(source: Source, keep: list[str]) -> list[dict[str, Any]]:
    return [row for batch in read_kept(source, plan_units(source, 100), keep) for row in batch.to_pylist()]


def test_files_that_differ_in_every_way_are_one_source(tmp_path: Path) -> None:
    rows = [[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]]
    deep = pa.list_(pa.struct([("x", pa.int8()), ("y", pa.string())]))
    wide = pa.large_list(pa.struct([("y", pa.large_string()), ("z", pa.bool_()), ("x", pa.float32())]))
    ids = pa.schema([pa.field("id", pa.int32(), nullable=False), ("seq", SEQ), ("deep", deep), ("tag", pa.string())])
    first = pa.table([[1, 2, 3], rows, [[{"x": 1, "y": "a"}], None, []], ["p", None, "q"]], schema=ids)
    write(tmp_path / "a.parquet", first)
    second = pa.table({
        "tag": pa.array(["r", "s"]).dictionary_encode(), "more": pa.array([1.5, 2.5]), "id": pa.array([4, 2**40]),
        "seq": pa.array([[[7, 8]], [[9, 1]]], pa.large_list(pa.list_(pa.int64(), 2))),
        "deep": pa.array([[{"y": "b", "z": True, "x": 0.5}], None], wide),
    })  # fmt: skip
    write(tmp_path / "b.parquet", second)
    write(tmp_path / "c.parquet", pa.table({"seq": pa.array(rows[:1], SEQ), "more": pa.nulls(1), "id": [9]}))
    source = open_source(tmp_path)
    assert source.schema.names == ["id", "seq", "deep", "tag", "more"]
    assert source.schema.field("id").type == pa.int64() and source.schema.field("tag").type == pa.string()
    assert source.schema.field("id").nullable
    got = kept(source, ["id", "deep", "tag", "more"])
    assert [row["id"] for row in got] == [1, 2, 3, 4, 2**40, 9]
    assert [row["tag"] for row in got] == ["p", None, "q", "r", "s", None]
    assert [row["more"] for row in got] == [None, None, None, 1.5, 2.5, None]
    assert [row["deep"] for row in got] == [
        [{"x": 1.0, "y": "a", "z": None}], None, [], [{"x": 0.5, "y": "b", "z": True}], None, None,
    ]  # fmt: skip
    chunks = read(source, ["id"])
    out = [chunk.sequences.row(i).tolist() for chunk in chunks for i in range(len(chunk.sequences))]
    assert out == [*rows, [[7, 8]], [[9, 1]], rows[0]]
    assert any("1 file without column 'tag'" in line for line in source.drift)
    assert any("'id' as int32: read as int64" in line for line in source.drift)


def test_a_file_without_the_sequence_column_has_null_sequences(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.table({"seq": pa.array([[[1.0]]], SEQ), "id": [1]}))
    write(tmp_path / "b.parquet", pa.table({"id": [2]}))
    with pytest.raises(DataError, match=r"b\.parquet, row group 0, row 0 .*sequence is null"):
        read(open_source(tmp_path), ["id"])


@pytest.mark.parametrize("features", [("x", "y"), ("y",)])
@pytest.mark.parametrize("is_list", [True, False], ids=["list of structs", "struct of lists"])
def test_a_field_that_a_file_lacks_is_null_there(tmp_path: Path, features: tuple[str, ...], is_list: bool) -> None:
    both, one = {"x": 1.0, "y": 2.0}, {"x": 3.0}
    rows = ([both], [one]) if is_list else tuple({name: [value] for name, value in row.items()} for row in (both, one))
    for name, row in zip("ab", rows, strict=True):
        write(tmp_path / f"{name}.parquet", pa.table({"s": [row], "id": [1]}))
    plan = plan_job(tmp_path, JobOptions(column="s", features=features))
    lists = BadRows("propagate", null_sequence="null")
    first, second = read_chunks(plan.source, plan.units, ReadOptions(plan.layout, bad_rows=lists))
    assert first.sequences.row(0).tolist() == [[both[name] for name in features]]
    # A struct of lists lacks a list there, and so the sequence is null; of a list of structs one value is.
    wanted = [[one.get(name, np.nan) for name in features]] if is_list else []
    np.testing.assert_array_equal(second.sequences.row(0), np.array(wanted, np.float32).reshape(-1, len(features)))


@pytest.mark.parametrize("is_list", [True, False], ids=["list of structs", "struct of lists"])
def test_of_a_struct_the_fields_that_are_read_are_filled_and_no_others(tmp_path: Path, is_list: bool) -> None:
    step: dict[str, Any] = {f"f{number}": float(number) for number in range(20)}
    full = step if is_list else {name: [value] for name, value in step.items()}
    some = {name: value for name, value in full.items() if name != "f3"}
    for name, kind, fields in (("a", pa.int32(), full), ("b", pa.int64(), full), ("c", pa.int64(), some)):
        table = pa.table({"s": [{"in": [fields] if is_list else fields}], "id": pa.array([1], kind)})
        write(tmp_path / f"{name}.parquet", table)
    write(tmp_path / "d.parquet", pa.table({"id": [1]}))
    source = open_source(tmp_path)
    layout = find_layout(source.schema, Asked(column="s.in", features=("f3", "f7")), where="")
    leaves, own = layout.leaves(source.schema), frozenset({"s"})
    reader = UnitReader(source, leaves, ["id"], own, Grouping(), 1 << 20)
    rows = []
    for unit in plan_units(source, 9):
        for _, batch in reader.unit_batches(unit):
            inner = batch.schema.field("s").type.field("in").type
            assert [field.name for field in (inner.value_type if is_list else inner)] == ["f3", "f7"]
            rows.append(batch["s"].to_pylist()[0])
    both, one = ({"f3": value, "f7": full["f7"]} for value in (full["f3"], None))
    assert rows == [{"in": [both] if is_list else both}] * 2 + [{"in": [one] if is_list else one}, None]


def test_a_sequence_of_events_may_go_on_in_a_file_of_other_types(tmp_path: Path) -> None:
    kinds = ((pa.int32(), pa.int64(), pa.int64()), (pa.int64(), pa.float64(), pa.int32()))
    for number, (id_type, type, time) in enumerate(kinds):
        ids, times = pa.array([1, 1 + number], id_type), pa.array([number, 2], time)
        write(tmp_path / f"{number}.parquet", pa.table({"id": ids, "x": pa.array([1, 2], type), "t": times}))
    plan = plan_job(tmp_path, JobOptions(group_by=["id"], order_by=["t"], features=["x"]))
    chunks = list(read_chunks(plan.source, plan.units, ReadOptions(plan.layout, plan.keep)))
    rows = [chunk.sequences.row(row).ravel().tolist() for chunk in chunks for row in range(len(chunk.sequences))]
    assert rows == [[1, 1, 2], [2]]
    assert [row for chunk in chunks for row in chunk.kept.to_pylist()] == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize("types", [(pa.int64(), pa.float64()), (pa.float32(), pa.int64()), (pa.uint64(), pa.float32())])
def test_wide_integers_and_floats_meet_in_sequences_alone(tmp_path: Path, types: tuple[Any, Any]) -> None:
    for name, kind in zip("ab", types, strict=True):
        column = pa.array([[[4.0, 2.0**40]]], pa.list_(pa.list_(kind)))
        write(tmp_path / f"{name}.parquet", pa.table({"seq": column, "other": column}))
    source = open_source(tmp_path)
    assert [chunk.sequences.row(0).tolist() for chunk in read(source, [])] == [[[4.0, 2.0**40]]] * 2
    assert source.rounding.keys() == {"seq", "other"}
    with pytest.raises(DataError, match=r"b\.parquet has 'other' as .* and .*a\.parquet as .* cannot be kept"):
        plan_job(tmp_path, JobOptions(column="seq"))
    assert plan_job(tmp_path, JobOptions(column="seq", keep=())).source.rows == 2


def test_a_number_of_a_sequence_is_rounded_once(tmp_path: Path) -> None:
    number = 2**60 + 2**36 + 1  # to float64 it becomes the middle of two float32, which is rounded to the even one
    write(tmp_path / "a.parquet", pa.table({"seq": pa.array([[number]], pa.list_(pa.int64()))}))
    write(tmp_path / "b.parquet", pa.table({"seq": pa.array([[0.5]], pa.list_(pa.float64()))}))
    chunk = read(open_source(tmp_path), [], lossy_cast=True)[0]
    assert chunk.sequences.values[0, 0] == np.array([number]).astype(np.float32)[0]
    with pytest.raises(DataError, match=r"a\.parquet, row group 0, row 0 .*int64 value"):
        read(open_source(tmp_path), [])


@pytest.mark.parametrize("is_list", [True, False])
def test_a_number_of_structs_in_a_sequence_is_rounded_once(tmp_path: Path, is_list: bool) -> None:
    number = 2**60 + 2**36 + 1
    for name, kind, value in (("a", pa.int64(), number), ("b", pa.float64(), 0.5)):
        value_type = kind if is_list else pa.list_(kind)
        fields = pa.struct([("x", value_type), ("y", value_type)])
        row = [{"x": value, "y": 1}] if is_list else {"x": [value], "y": [1]}
        seq = pa.array([row, None], pa.list_(fields) if is_list else fields)
        write(tmp_path / f"{name}.parquet", pa.table({"seq": seq}))
    source = open_source(tmp_path)
    layout = find_layout(source.schema, Asked(column="seq"), where="")
    bad_rows = BadRows(null_sequence="null")
    options = ReadOptions(layout, lossy_cast=True, bad_rows=bad_rows)
    chunks = list(read_chunks(source, plan_units(source, 100), options))
    rows = [chunk.sequences.row(row).tolist() for chunk in chunks for row in range(len(chunk.sequences))]
    assert rows == [[[float(np.array([number]).astype(np.float32)[0]), 1]], [], [[0.5, 1]], []]
    with pytest.raises(DataError, match=r"a\.parquet, row group 0, row 0 .*int64 value"):
        list(read_chunks(source, plan_units(source, 100), ReadOptions(layout, bad_rows=bad_rows)))


def test_a_filter_beside_a_sequence_leaves_its_numbers_as_each_file_has_them(tmp_path: Path) -> None:
    number = 2**53 + 1
    for name, kind, value in (("a", pa.int64(), number), ("b", pa.float64(), 0.5)):
        fields = pa.struct([("t", pa.list_(kind)), ("label", pa.string())])
        rows = [{"t": [value], "label": "x"}, {"t": [1], "label": "y"}]
        write(tmp_path / f"{name}.parquet", pa.table({"s": pa.array(rows, fields)}))
    source = open_source(tmp_path)
    layout = find_layout(source.schema, Asked(column="s.t"), where="")
    options = ReadOptions(layout, lossy_cast=True, filter=parsed_filter("s.label == 'x'"))
    chunks = list(read_chunks(source, plan_units(source, 100), options))
    assert [chunk.sequences.values.tolist() for chunk in chunks] == [[[float(np.float32(number))]], [[0.5]]]


def test_a_value_that_the_united_type_does_not_hold_is_an_error_with_its_place(tmp_path: Path) -> None:
    seq = pa.array([[1.0]], pa.list_(pa.float32()))
    write(tmp_path / "a.parquet", pa.table({"seq": seq, "t": pa.array([2**40], pa.timestamp("ms"))}))
    write(tmp_path / "b.parquet", pa.table({"seq": seq, "t": pa.array([1], pa.timestamp("ns"))}))
    source = open_source(tmp_path)
    columns = [batch.column("t") for batch in read_kept(source, plan_units(source, 100), ["t"])]
    assert [column.cast(pa.int64()).to_pylist() for column in columns] == [[2**40 * 10**6], [1]]
    write(tmp_path / "a.parquet", pa.table({"seq": seq, "t": pa.array([2**60], pa.timestamp("us"))}))
    with pytest.raises(DataError, match=r"a\.parquet, row group 0: 't' is timestamp\[us\].*timestamp\[ns\]"):
        kept(open_source(tmp_path), ["t"])


def test_dictionaries_stay_where_all_files_have_them(tmp_path: Path) -> None:
    seq = pa.array([[1.0], [2.0]], pa.list_(pa.float32()))
    for name, values, index in (("a", ["x", "y"], pa.int8()), ("b", ["z", "z"], pa.uint16())):
        words = pa.array(values).dictionary_encode().cast(pa.dictionary(index, pa.string()))
        write(tmp_path / f"{name}.parquet", pa.table({"seq": seq, "k": words}))
    source = open_source(tmp_path)
    assert source.schema.field("k").type == pa.dictionary(pa.int32(), pa.string()) and not source.drift
    assert [row["k"] for row in kept(source, ["k"])] == ["x", "y", "z", "z"]


def test_batches_are_cut_by_the_bytes_that_wide_indices_take(tmp_path: Path) -> None:
    rows, length = 400, 10_000
    words = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows * length) % 100, pa.int8()), [*map(str, range(100))])
    lists = pa.ListArray.from_arrays(pa.array(range(0, rows * length + 1, length), pa.int32()), words)
    pq.write_table(pa.table({"seq": [[1.0]] * rows, "k": lists}), tmp_path / "a.parquet")
    source = open_source(tmp_path)
    sizes = [batch.nbytes for batch in read_kept(source, plan_units(source, None), ["k"])]
    assert sum(sizes) > 16e6 and max(sizes) < 10e6  # about 8 MiB were asked for


def test_files_that_differ_in_their_metadata_alone_are_one_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the number of a batch; what files agree on is kept."""
    for number in range(6):
        said = {"by": "us", "batch": str(number)} if number else {"by": "us", "batch": "1", "gone": "1"}
        pq.write_table(pa.table({"id": [number], "seq": [[1.0]]}, metadata=said), tmp_path / f"{number}.parquet")
    looked_at: list[str] = []
    whole = pa.schema([("id", pa.int64()), ("seq", pa.list_(pa.float64()))])
    for module, name in ((drift, "agreed"), (drift, "foreign_extensions")):
        own = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, own=own, name=name: looked_at.append(name) or own(*given))
    source = open_source(tmp_path)
    assert source.schema == whole and source.schema.metadata == {b"by": b"us"} and not source.drift
    assert looked_at == ["foreign_extensions"] * 2


def test_files_that_agree_are_handed_on_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", pa.table({"seq": pa.array([[1.0]], pa.list_(pa.float32())), "id": [1]}))
    monkeypatch.setattr("scanrnn_dist.source.unit_reader.conform", None)
    assert len(read(open_source(tmp_path), ["id"])) == 1
    array = pa.array([1, 2])
    batch = conform(pa.record_batch({"x": array}), [pa.field("x", pa.int64())], "", frozenset())
    assert batch.column(0).buffers()[1].address == array.buffers()[1].address


def test_files_and_row_groups_without_rows_take_part_in_the_schema(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32())
    write(tmp_path / "a.parquet", pa.table({"seq": pa.array([], kind), "id": pa.array([], pa.int8())}))
    write(tmp_path / "b.parquet", pa.table({"seq": pa.array([[1.0]], kind), "id": pa.array([7], pa.int16())}))
    empty = pa.table({"seq": pa.array([], kind), "id": pa.nulls(0), "new": pa.array([], pa.string())})
    with pq.ParquetWriter(tmp_path / "c.parquet", empty.schema) as writer:
        writer.write_table(empty)
        writer.write_table(empty)
    source = open_source(tmp_path)
    assert source.schema.field("id").type == pa.int16() and kept(source, ["id", "new"]) == [{"id": 7, "new": None}]


def test_a_folder_key_may_be_missing_or_be_a_number_in_some_folders_alone(tmp_path: Path) -> None:
    table = pa.table({"seq": pa.array([[1.0]], pa.list_(pa.float32()))})
    for name in ("k=01/p=1/a", "k=2/p=2/b", "k=x/c", "d"):
        write(tmp_path / f"{name}.parquet", table)
    source = open_source(tmp_path)
    assert source.schema.field("k").type == pa.string() and source.schema.field("p").type == pa.int32()
    got = [(row["k"], row["p"]) for row in kept(source, ["k", "p"])]
    assert sorted(got, key=str) == sorted([("01", 1), ("2", 2), ("x", None), (None, None)], key=str)


@pytest.mark.parametrize("is_deep", [False, True])
def test_extensions_that_nobody_knows_are_kept_with_their_metadata(tmp_path: Path, is_deep: bool) -> None:
    said = {b"ARROW:extension:name": b"who.knows", b"ARROW:extension:metadata": b"{}"}
    inner = pa.field("v", pa.int32(), metadata=said)
    known = pa.field("k", pa.struct([inner])) if is_deep else inner.with_name("k")
    values: list[Any] = [{"v": 1}] if is_deep else [1]
    seq = pa.array([[1.0]], pa.list_(pa.float32()))
    schema = pa.schema([("seq", pa.list_(pa.float32())), known])
    write(tmp_path / "a.parquet", pa.table([seq, pa.array(values, known.type)], schema=schema))
    write(tmp_path / "b.parquet", pa.table([pa.array(values, known.type), seq], schema=pa.schema([known, schema[0]])))
    write(tmp_path / "c.parquet", pa.table({"seq": seq}))
    source = open_source(tmp_path)
    field = source.schema.field("k")
    assert ((field.type.field("v") if is_deep else field).metadata or {}).items() >= said.items()
    assert [row["k"] for row in kept(source, ["k"])] == [values[0], values[0], None]
    written = tmp_path / "out" / "x.parquet"
    batches = [*read_kept(source, plan_units(source, 9), ["k"])]
    write(written, pa.Table.from_batches(batches))
    again = pq.read_schema(written).field("k")
    assert ((again.type.field("v") if is_deep else again).metadata or {}).items() >= said.items()


def test_a_job_over_files_that_differ_goes_on_with_changed_ones_and_is_verified(tmp_path: Path) -> None:
    source, out, encoder = tmp_path / "in", tmp_path / "out", Encoder.from_seed(0, 1, 2)
    seq = pa.array([[1.0], [2.0, 3.0]], pa.list_(pa.float32()))
    wide = pa.array([[1], [2, 3]], pa.large_list(pa.float64()))
    write(source / "a.parquet", pa.table({"seq": seq, "id": pa.array([1, 2], pa.int8()), "k": ["x", None]}))
    write(source / "b.parquet", pa.table({"id": pa.array([3, 2**40]), "seq": wide}))
    assert featurize(encoder, source, out).rows == 4 and featurize(encoder, source, out).parts == 0
    table = pq.read_table(out)
    assert table["features"].to_pylist()[:2] == table["features"].to_pylist()[2:]
    assert table["id"].to_pylist() == [1, 2, 3, 2**40] and table["k"].to_pylist() == ["x", None, None, None]
    assert verify(out).rows_compared == 4
    write(source / "c.parquet", pa.table({"seq": seq, "id": pa.array([5, 6], pa.int16())}))  # conforms as it is
    assert featurize(encoder, source, out, accept_changes=True).parts == 1
    assert pq.read_table(out)["id"].to_pylist() == [1, 2, 3, 2**40, 5, 6] and verify(out).rows_compared == 6
    write(source / "d.parquet", pa.table({"seq": seq, "id": [7, 8], "new": [0, 0]}))  # would change the schema
    with pytest.raises(DataError, match="'new' was not there and is int64"):
        featurize(encoder, source, out, accept_changes=True)
    write(source / "d.parquet", pa.table({"seq": seq, "id": [7, 8], "k": pa.array(["y", "z"], pa.large_string())}))
    with pytest.raises(DataError, match="'k' was string and is large_string"):
        featurize(encoder, source, out, accept_changes=True)
