"""Every layout and dtype of the features gives back what was written; what cannot be written is refused by its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records import Output, PartFile, part_schema, read_features, read_matrices, read_part_schema
from scanrnn_dist.records.output import CODECS, DTYPES, LAYOUTS, are_steps, feature_names, out_features_of, value_dtype
from scanrnn_dist.storage import LocalStore

KEPT = pa.schema([("id", pa.int64())])
HALF_MAX = 65504


def kept_of(rows: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(rows), pa.int64())], schema=KEPT)


def write_part(folder: Path, output: Output, *batches: Any, steps: bool = False, dtype: Any = np.float32) -> LocalStore:
    """`a.parquet` of batches, each `(features, is_null)`."""
    store = LocalStore(str(folder), "host.1.00000000")
    size = batches[0][0].values.shape[1] if steps else batches[0][0].shape[1]
    schema = part_schema(KEPT, size, {"made": "by a test"}, steps, dtype, output)
    with PartFile(store, "a.parquet", schema, output) as part:
        for features, is_null in batches:
            rows = len(features.offsets) - 1 if steps else len(features)
            part.write(kept_of(rows), features, is_null)
        part.commit()
    return store


def assert_same(found: np.ndarray | None, expected: np.ndarray | None) -> None:
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS), dtype=st.sampled_from([None, *DTYPES]), size=st.sampled_from([1, 3, 11]),
    made=st.sampled_from([np.float32, np.float64]), group=st.sampled_from([1, 4 << 20]),
    batches=st.lists(st.lists(st.booleans(), max_size=5), min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_what_was_written_is_read_back_rounded_once(
    tmp_path_factory: pytest.TempPathFactory, layout: str, dtype: str | None, size: int, made: Any, group: int,
    batches: list[list[bool]], seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    given_rows = [(rng.normal(size=(len(nulls), size)).astype(made), np.array(nulls, bool)) for nulls in batches]
    for features, is_null in given_rows:
        features[is_null] = 1e9  # whatever is given for them
    output = Output(layout, dtype, row_group_bytes=group)
    store = write_part(tmp_path_factory.mktemp("part"), output, *given_rows, dtype=made)
    stored = np.dtype(dtype or made)
    expected = [
        None if null else row.astype(stored)
        for features, nulls in given_rows
        for row, null in zip(features, nulls, strict=True)
    ]
    for found, row in zip(read_features(store, "a.parquet", np.arange(len(expected))), expected, strict=True):
        assert_same(found, row)
    matrix = np.concatenate([np.zeros((0, size), stored), *read_matrices(store, "a.parquet")])
    nan = np.full(size, np.nan, stored)
    assert_same(matrix, np.array([nan if row is None else row for row in expected], stored).reshape(-1, size))
    schema = read_part_schema(store, "a.parquet")
    assert (out_features_of(schema), value_dtype(schema), are_steps(schema)) == (size, stored, False)
    assert all(schema.field(name).nullable for name in feature_names(schema))
    assert pq.read_table(store.path("a.parquet"))["id"].to_pylist() == [
        i for nulls in batches for i in range(len(nulls))
    ]


@settings(max_examples=30, deadline=None)
@given(
    layout=st.sampled_from(["fixed_size_list", "list"]), dtype=st.sampled_from([None, "float16"]),
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_features_of_steps_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, layout: str, dtype: str | None, lengths: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    is_null = (rng.random(len(lengths)) < 0.3) & (np.array(lengths) == 0)
    features = Ragged.from_sequences([rng.normal(size=(length, 3)).astype(np.float32) for length in lengths])
    store = write_part(tmp_path_factory.mktemp("part"), Output(layout, dtype), (features, is_null), steps=True)
    found = read_features(store, "a.parquet", np.arange(len(lengths)))
    for row, null in enumerate(is_null):
        assert_same(found[row], None if null else features.row(row).astype(dtype or np.float32))
    assert are_steps(read_part_schema(store, "a.parquet"))


def test_columns_of_features_sort_as_the_features_do() -> None:
    for size in (1, 9, 10, 11, 100, 101):
        schema = part_schema(KEPT, size, {}, output=Output("columns"))
        names = feature_names(schema)
        assert schema.names == ["id", *names] and sorted(names) == names and len(names) == size
    assert names[7] == "feature_007"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_types_are_those_that_the_layout_names(layout: str) -> None:
    field = part_schema(KEPT, 3, {}, output=Output(layout, "float16")).field(1)
    value = pa.float16()
    expected = {
        "fixed_size_list": pa.list_(value, 3),
        "list": pa.list_(value),
        "columns": value,
        "tensor": pa.fixed_shape_tensor(value, [3]),
    }
    assert field.type == expected[layout]


def test_a_kept_column_may_be_named_as_a_feature_where_features_have_a_column_of_their_own(tmp_path: Path) -> None:
    kept = pa.schema([("feature_0", pa.int64())])
    schema = part_schema(kept, 2, {})
    store = LocalStore(str(tmp_path), "host.1.00000000")
    with PartFile(store, "a.parquet", schema) as part:
        part.write(pa.record_batch([pa.array([7])], schema=kept), np.float32([[1, 2]]))
        part.commit()
    assert_same(read_features(store, "a.parquet", np.array([0]))[0], np.float32([1, 2]))
    Output("list").check_keeps(["feature_0"])
    with pytest.raises(ConfigError, match="A kept column is named 'feature_0'"):
        Output("columns").check_keeps(["id", "feature_0"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_kept_columns_are_written_however_they_are_named(tmp_path: Path, layout: str, codec: str | None) -> None:
    """Parquet writes a field `b` of a struct `a` as a column `a.b`, and pyarrow is told of columns by such names."""
    kept = pa.record_batch({
        "a.b": [1, 2], "a": [{"b": "x"}, {"b": "y"}], "c": [["x"], []], "c.list.element": [1, 2],
        "features.name": ["x", "y"], "features.id": [1, 2], "features.list.element": ["x", "y"], "state": ["x", "y"],
    })  # fmt: skip
    output = Output(layout, compression=codec)
    schema = part_schema(kept.schema, 2, {}, output=output)
    store = LocalStore(str(tmp_path), "host.1.00000000")
    with PartFile(store, "a.parquet", schema, output) as part:
        part.write(kept, np.float32([[1, 2], [3, 4]]))
        part.commit()
    path = store.path("a.parquet")
    assert pq.read_table(path).select(kept.schema.names).to_pylist() == kept.to_pylist()
    assert_same(read_features(store, "a.parquet", np.array([1]))[0], np.float32([3, 4]))
    group = pq.read_metadata(path).row_group(0)
    assert {group.column(number).compression for number in range(len(kept.schema))} == {"ZSTD"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", [None, *CODECS])
def test_a_codec_packs_all_columns_and_none_named_only_the_kept_ones(
    tmp_path: Path, layout: str, codec: str | None
) -> None:
    store = write_part(tmp_path, Output(layout, compression=codec), (np.ones((4, 3), np.float32), None))
    group = pq.read_metadata(store.path("a.parquet")).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    is_split = ["BYTE_STREAM_SPLIT" in column.encodings for column in columns[1:]]
    assert is_split == [codec not in (None, "none")] * len(is_split)
    found = [group.column(index).compression.lower().split("_")[0] for index in range(group.num_columns)]
    names = {None: ("zstd", "uncompressed"), "none": ("uncompressed", "uncompressed")}.get(codec, (codec, codec))
    assert found == [names[0], *[names[1]] * (3 if layout == "columns" else 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_number_that_overflows_is_refused_with_its_row_and_never_becomes_infinite(
    tmp_path: Path, layout: str
) -> None:
    good, bad = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    good[1] = HALF_MAX + 15, np.inf  # rounds down to the greatest; and what is infinite already stays so
    bad[1, 1] = -HALF_MAX - 16
    with pytest.raises(
        DataError, match=r"a\.parquet, row 4: feature 1 is -65520; expected at most 65504 .*output-dtype"
    ):
        write_part(tmp_path, Output(layout, "float16"), (good, None), (bad, None))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    store = write_part(tmp_path, Output(layout, "float16"), (good, None))
    assert_same(read_features(store, "a.parquet", np.array([1]))[0], np.float16([HALF_MAX, np.inf]))


def test_an_overflow_within_steps_names_the_row(tmp_path: Path) -> None:
    features = Ragged.from_sequences([np.zeros((2, 1)), np.zeros((0, 1)), np.float32([[0], [1e6]])])
    with pytest.raises(DataError, match="row 2: feature 0 is 1e"):
        write_part(tmp_path, Output(dtype="float16"), (features, None), steps=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layout": "lists"}, "layout is 'lists'; expected one of fixed_size_list, list, columns, tensor"),
        ({"dtype": "float64"}, "dtype is 'float64'; expected one of float16, float32"),
        ({"compression": "brotli"}, "compression is 'brotli'; expected one of none, zstd, snappy, gzip, lz4"),
        ({"row_group_bytes": 0}, "row_group_bytes is 0; expected 1 to"),
    ],
)
def test_an_option_that_there_is_none_of_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Output(**options)


@pytest.mark.parametrize("layout", ["columns", "tensor"])
def test_a_layout_of_one_vector_per_row_holds_no_steps(layout: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{layout}.* the readout 'steps' gives one per step; choose 'fixed_size_list'"
    ):
        part_schema(KEPT, 3, {}, steps=True, output=Output(layout))


def test_a_list_of_another_length_is_no_matrix(tmp_path: Path) -> None:
    schema = part_schema(KEPT, 2, {}, output=Output("list"))
    table = pa.table({"id": [0, 1], "features": pa.array([[1, 2], [3]], pa.list_(pa.float32()))}).cast(schema)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: a row does not have 2 features"):
        list(read_matrices(LocalStore(str(tmp_path), "host.1.00000000"), "a.parquet"))
