"""Kept columns are held against the source bit by bit, whatever their type, and their schema is carried over."""

# ruff: noqa: E501 - the table of pairs

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import categories, encoder_of, featurize, random_rows

from scanrnn_dist.api import verify
from scanrnn_dist.job import JobOptions
from scanrnn_dist.job.kept_columns import differing
from scanrnn_dist.job.plan import plan_job
from scanrnn_dist.records import part_schema
from scanrnn_dist.source import open_source

NAN = float("nan")
TENSOR = pa.fixed_shape_tensor(pa.float32(), [2, 2], permutation=[1, 0])
PAIRS = {
    "float": ([NAN, 0.0, None, 1.0], [NAN, -0.0, 2.0, 1.0], pa.float64()),
    "half": ([NAN, 0.0, None, 1.0], [NAN, -0.0, 2.0, 1.0], pa.float16()),
    "bool": ([True, False, None, True], [True, True, False, True], pa.bool_()),
    "text": (["a", "b", None, ""], ["a", "c", "", ""], pa.string()),
    "large text": (["a", "b", None, ""], ["a", "c", "", ""], pa.large_string()),
    "view": (["a", "b", None, ""], ["a", "c", "", ""], pa.string_view()),
    "bytes view": ([b"a", b"b", None, b""], [b"a", b"c", b"", b""], pa.binary_view()),
    "fixed bytes": ([b"abc", b"abd", None, b"abc"], [b"abc", b"abe", b"abc", b"abc"], pa.binary(3)),
    "nanoseconds": ([2**62, 1, None, 7], [2**62, 2, 1, 7], pa.timestamp("ns")),
    "unknown zone": ([1, 1, None, 7], [1, 2, 1, 7], pa.timestamp("us", tz="Foo/Bar")),
    "far date": ([2**30, 1, None, 7], [2**30, 2, 1, 7], pa.date32()),
    "decimal": ([Decimal(1), Decimal(2), None, Decimal(4)], [Decimal(1), Decimal(3), Decimal(1), Decimal(4)], pa.decimal128(30, 1)),
    "wide decimal": ([Decimal(1), Decimal(2), None, Decimal(4)], [Decimal(1), Decimal(3), Decimal(1), Decimal(4)], pa.decimal256(60, 1)),
    "lists": ([[NAN, 1.0], [1.0], None, []], [[NAN, 1.0], [1.0, 2.0], [], []], pa.list_(pa.float32())),
    "values of lists": ([[NAN, 1.0], [1.0], None, []], [[NAN, 1.0], [-1.0], [], []], pa.list_(pa.float32())),
    "list view": ([[NAN, 1.0], [1.0], None, []], [[NAN, 1.0], [-1.0], [], []], pa.list_view(pa.float32())),
    "lists of texts": ([["a"], ["b"], None, ["c"]], [["a"], ["b", "b"], ["b"], ["c"]], pa.list_(pa.string())),
    "fixed lists": ([[NAN, 1.0], [0.0, 1.0], None, [1.0, 2.0]], [[NAN, 1.0], [-0.0, 1.0], [0.0, 0.0], [1.0, 2.0]], pa.list_(pa.float32(), 2)),
    "struct": ([{"x": NAN}, {"x": 0.0}, None, {"x": None}], [{"x": NAN}, {"x": -0.0}, {"x": None}, {"x": None}], pa.struct([("x", pa.float64())])),
    "map": ([[("a", NAN)], [("b", 1.0)], None, []], [[("a", NAN)], [("b", 2.0)], [], []], pa.map_(pa.string(), pa.float64())),
    "keys of a map": ([[("a", NAN)], [("b", 1.0)], None, []], [[("a", NAN)], [("c", 1.0)], [], []], pa.map_(pa.string(), pa.float64())),
    "deep": ([[{"x": [NAN]}], [{"x": [1.0]}], None, []], [[{"x": [NAN]}], [{"x": [2.0]}], [], []], pa.list_(pa.struct([("x", pa.list_(pa.float64()))]))),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_what_differs_is_found_in_any_type_and_slice(kind: str) -> None:
    ones, others, type = PAIRS[kind]
    if kind == "half":
        ones, others = ([x if x is None else np.float16(x) for x in values] for values in (ones, others))
    one, other = pa.array(ones, type), pa.array(others, type)
    assert differing(one, other).tolist() == [False, True, True, False]
    assert not differing(one, pa.array(ones, type)).any()
    for begin in range(4):
        expected = [False, True, True, False][begin:]
        assert differing(one.slice(begin), other.slice(begin)).tolist() == expected
        assert differing(one.slice(begin), pa.array(others[begin:], type)).tolist() == expected
        assert not differing(one.slice(begin), pa.array(ones[begin:], type)).any()
    assert differing(one.slice(0, 0), other.slice(0, 0)).tolist() == []


def test_what_stands_under_a_null_does_not_count() -> None:
    mask = pa.array([True, False])
    values = [pa.array([x, 1.0], pa.float64()) for x in (5.0, 6.0)]
    for make in (
        lambda array: pa.StructArray.from_arrays([array], ["x"], mask=mask),
        lambda array: pa.FixedSizeListArray.from_arrays(array, 1, mask=mask),
        lambda array: pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), array, mask=mask),
    ):
        one, other = map(make, values)
        assert not differing(one, other).any()
    cut = pa.ListArray.from_arrays(pa.array([0, 0, 1], pa.int32()), values[0].slice(1), mask=mask)
    long = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), values[0], mask=mask)
    assert not differing(cut, long).any()


def test_dictionaries_are_compared_by_their_values() -> None:
    def array(indices: list[int | None], values: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(values, pa.string()))

    one = array([0, 1, None, 2], ["a", "b", "a"])
    assert not differing(one, array([1, 0, None, 1], ["b", "a"])).any()
    assert differing(one, array([1, 1, 0, None], ["b", "a"])).tolist() == [False, True, True, True]
    assert differing(array([None, None], []), array([None, 0], ["a"])).tolist() == [False, True]
    assert not differing(array([None], []), array([None], [])).any()


def test_extension_types_are_compared_by_their_storage() -> None:
    rows = [pa.array([[1, 2, 3, 4], [1, 2, 3, x], None], pa.list_(pa.float32(), 4)) for x in (NAN, 4.0)]
    one, other = (pa.ExtensionArray.from_storage(TENSOR, storage) for storage in rows)
    assert not differing(one, one).any()
    assert differing(one, other).tolist() == [False, True, False]


def write(path: Path, fields: list[pa.Field], metadata: dict[str, str] | None = None) -> None:
    fields = [*fields, pa.field("sequence", pa.list_(pa.float32()))]
    rows = [[1] * 2] * (len(fields) - 1)
    arrays = [pa.array(values, field.type) for values, field in zip([*rows, [[1.0], []]], fields, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata)), path)


def output_schema(source: Any, keep: list[str] | None = None) -> pa.Schema:
    return part_schema(
        plan_job(source, JobOptions(column="sequence", keep=keep)).kept_schema, 3, {"scanrnn_dist": "{}"}
    )


def test_fields_keep_what_every_file_says_of_them(tmp_path: Path) -> None:
    said = {"ARROW:extension:name": "ours", "ARROW:extension:metadata": "m", "unit": "m/s"}
    required = pa.field("x", pa.int64(), nullable=False, metadata={**said, "PARQUET:field_id": "7"})
    write(tmp_path / "a.parquet", [required])
    field = output_schema(tmp_path).field("x")
    assert not field.nullable
    assert field.metadata == required.metadata
    plan = plan_job(tmp_path, JobOptions(column="sequence"))
    assert plan.from_records(plan.to_records()).kept_schema.equals(plan.kept_schema, check_metadata=True)
    write(tmp_path / "b.parquet", [pa.field("x", pa.int64(), metadata={**said, "unit": "km/h"})])
    field = output_schema(tmp_path).field("x")
    assert field.nullable
    assert set(field.metadata) == {b"ARROW:extension:name", b"ARROW:extension:metadata"}


def test_schema_metadata_is_cut_to_what_is_true_of_the_output(tmp_path: Path) -> None:
    label = {"names": ["no", "yes"], "_type": "ClassLabel"}
    number = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    hugging = {"info": {"features": {"x": label, "y": label, "sequence": number}}, "fingerprint": "of this file"}
    geo = {"primary_column": "x", "columns": {"x": {"encoding": "WKB", "bbox": [0, 0, 1, 1]}, "y": {}}}
    metadata = {
        "huggingface": json.dumps(hugging),
        "geo": json.dumps(geo),
        "org.apache.spark.sql.parquet.row.metadata": '{"type": "struct", "fields": []}',
        "origin": "site 7",
        "of one file": "a",
    }
    fields = [pa.field("x", pa.int64()), pa.field("y", pa.int64())]
    write(tmp_path / "a.parquet", fields, metadata)
    hugging["fingerprint"], geo["columns"]["x"]["bbox"] = "of another", [5, 5, 6, 6]  # type: ignore[index]
    changed = {"huggingface": json.dumps(hugging), "geo": json.dumps(geo), "of one file": "b"}
    write(tmp_path / "b.parquet", fields, {**metadata, **changed})
    read = output_schema(tmp_path, ["x"]).metadata
    assert sorted(read) == [b"geo", b"huggingface", b"origin", b"scanrnn_dist"]
    features = json.loads(read[b"huggingface"])["info"]["features"]
    assert features["x"] == label and set(features) == {"x", "features"}
    assert features["features"]["length"] == 3
    assert json.loads(read[b"geo"])["columns"] == {"x": {"encoding": "WKB"}}
    assert b"geo" not in output_schema(tmp_path, ["y"]).metadata


def test_metadata_that_nobody_understands_is_not_carried(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [], {"pandas": "no JSON", "huggingface": "[]", "geo": "{}"})
    assert set(output_schema(tmp_path).metadata) == {b"scanrnn_dist"}


def test_the_names_of_a_source_are_those_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [pa.field("x", pa.int8()), pa.field("y", pa.int8())])
    write(tmp_path / "b.parquet", [pa.field("y", pa.int8()), pa.field("x", pa.int8())])
    assert open_source(tmp_path).schema.names == ["x", "y", "sequence"]


CATEGORIES = {
    "flat": categories,
    "ordered": lambda begin, end: categories(begin, end, ordered=True),
    "in a struct": lambda begin, end: pa.StructArray.from_arrays([categories(begin, end)], ["name"]),
    "in lists": lambda begin, end: pa.ListArray.from_arrays(offsets(end - begin), categories(begin, end)),
    "in fixed lists": lambda begin, end: pa.FixedSizeListArray.from_arrays(categories(begin, end), 1),
    "in maps": lambda begin, end: pa.MapArray.from_arrays(
        offsets(end - begin), pa.array(range(begin, end)), categories(begin, end)
    ),
}


def offsets(count: int) -> pa.Array:
    return pa.array(range(count + 1), pa.int32())


@pytest.mark.parametrize("kind", CATEGORIES)
def test_a_row_group_may_have_more_categories_than_the_indices_of_the_source_can_tell_apart(
    tmp_path: Path, kind: str
) -> None:
    make, sequences = CATEGORIES[kind], pa.array([row.tolist() for row in random_rows([2] * 100)])
    tables = [pa.table({"kind": make(begin, begin + 100), "sequence": sequences}) for begin in (0, 100)]
    with pq.ParquetWriter(tmp_path / "in.parquet", tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    featurize(tmp_path / "in.parquet", tmp_path / "out")
    part = pq.ParquetFile(tmp_path / "out/part-00000.parquet")
    assert part.num_row_groups == 1 and str(part.schema_arrow.field("kind").type).count("indices=int32") == 1
    assert part.read(["kind"])["kind"].to_pylist() == [row for table in tables for row in table["kind"].to_pylist()]
    assert verify(tmp_path / "out", sample=9).rows_compared == 200


@pytest.mark.parametrize(("sort", "ordered"), [(False, False), (True, True)], ids=["in any order", "sorted, ordered"])
def test_a_sequence_may_go_through_files_with_other_categories(tmp_path: Path, sort: bool, ordered: bool) -> None:
    if sort:
        pytest.importorskip("duckdb")
    (tmp_path / "in").mkdir()
    for number, begin in enumerate((0, 99)):
        columns = {"id": range(begin, begin + 100), "t": [number] * 100, "x": [0.5] * 100}
        table = pa.table({**columns, "kind": categories(begin, begin + 100, ordered)})
        pq.write_table(table, tmp_path / f"in/{number}.parquet")
    encoder, long = encoder_of(in_features=1), {"group_by": ["id"], "order_by": ["t"], "features": ["x"]}
    featurize(tmp_path / "in", tmp_path / "out", encoder, keep=["id", "kind"], sort=sort, **long)
    table = pq.read_table(tmp_path / "out")
    found = zip(table["id"].to_pylist(), table["kind"].to_pylist(), strict=True)
    assert sorted(found) == [(number, f"k{number}") for number in range(199)]
    assert verify(tmp_path / "out", sample=9).rows_compared == 199
