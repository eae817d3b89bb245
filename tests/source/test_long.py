"""Long format: rows of files are steps; whole sequences come out, however row groups and files cut them."""

from __future__ import annotations

import datetime
import decimal
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import ODD, SOME
from pyarrow import fs

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.input_spec import Category, InputSpec, Number
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.source import ReadOptions, groups, read_chunks, read_steps
from scanrnn_dist.source.layouts import changes, comparable, differ, hashes, picked, rise
from scanrnn_dist.source.layouts.keys import is_comparable
from scanrnn_dist.source.unit_reader import UnitReader

KEYS: dict[str, list[Any]] = {
    "int64": [3, 4, 9, 10, 11, 12, 20, 21],
    "uint8": [0, 1, 2, 3, 4, 5, 6, 255],
    "string": ["", "a", "aa", "b", "c\0", "d", "é", "z" * 40],
    "date32[day]": [datetime.date(2020, 1, day) for day in range(1, 9)],
    "timestamp[us]": [datetime.datetime(1960, 1, day) for day in range(1, 9)],
    "decimal128(9, 2)": [decimal.Decimal(f"{number}.25") for number in range(8)],
    "decimal32(5, 2)": [decimal.Decimal(f"{number}.25") for number in range(-4, 4)],
    "decimal64(12, 2)": [decimal.Decimal(f"{number}.25") for number in range(-4, 4)],
    "halffloat": [-1.5, -0.25, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    "double": [-1.5, -0.25, 0.0, 1.0, 2.0, 3.0, 4.0, 5e300],
    "bool": [False, True],
    "string_view": ["", "a", "aa", "b", "c\0", "d", "é", "z" * 40],
    "binary": [b"", b"\0", b"\0\0", b"a", b"b", b"c", b"d", b"e"],
    "fixed_size_binary[2]": [bytes([number, 7]) for number in range(8)],
    "dictionary<values=string, indices=int32, ordered=0>": ["k", "l", "m", "n", "o", "p", "q", "r"],
}
TYPES = {
    str(kind): kind
    for kind in (
        pa.int64(), pa.uint8(), pa.string(), pa.date32(), pa.timestamp("us"), pa.decimal128(9, 2), pa.float64(),
        pa.decimal32(5, 2), pa.decimal64(12, 2), pa.float16(),
        pa.bool_(), pa.binary(), pa.binary(2), pa.dictionary(pa.int32(), pa.string()), pa.string_view(),
    )
}  # fmt: skip


def write_events(folder: Path, table: pa.Table, cuts: list[int], row_group_size: int) -> Path:
    """The rows of a table in files, cut before these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (begin, end) in enumerate(pairwise([0, *sorted(cuts), len(table)])):
        pq.write_table(table.slice(begin, end - begin), folder / f"{number:02}.parquet", row_group_size=row_group_size)
    return folder


def events_of(lengths: list[int], keys: list[Any], kind: pa.DataType, seed: int = 0) -> pa.Table:
    """Events of sequences with these lengths and keys; `t` in no order, with ties."""
    rng, count = np.random.default_rng(seed), sum(lengths)
    return pa.table(
        {
            "x": pa.array(rng.normal(size=count).astype(np.float32)),
            "id": pa.array([key for key, length in zip(keys, lengths, strict=True) for _ in range(length)], kind),
            "t": pa.array(rng.integers(0, 5, count)),
            "y": pa.array(rng.integers(-100, 100, count).astype(np.int16)),
        }
    )


def rebuilt(rows: list[dict[str, Any]], ids: list[str], order: list[str], features: list[str]) -> dict[Any, Any]:
    """Sequences by their keys, in plain Python."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in ids), []).append(row)
    return {
        key: [[row[name] for name in features] for row in sorted(rows, key=lambda row: [row[name] for name in order])]
        for key, rows in found.items()
    }


def read(plan: Plan, chunk_bytes: int = 1 << 20, units: Any = None) -> tuple[list[Any], list[list[list[float]]]]:
    """Keys and sequences of all units in order; each chunk says what it holds."""
    options = ReadOptions(plan.layout, plan.keep, lossy_cast=True, chunk_bytes=chunk_bytes)
    keys, sequences = [], []
    for chunk in read_chunks(plan.source, plan.units if units is None else units, options):
        assert chunk.rows == len(chunk.sequences) == chunk.kept.num_rows
        keys += [tuple(row.values()) for row in chunk.kept.to_pylist()]
        sequences += [chunk.sequences.row(row).tolist() for row in range(len(chunk.sequences))]
    return keys, sequences


def planned(source: Any, **options: Any) -> Plan:
    return plan_job(source, JobOptions(**{"group_by": ["id"], "order_by": ["t"], **options}))


def check(plan: Plan, rows: list[dict[str, Any]], chunk_bytes: int = 1 << 20) -> None:
    layout = plan.layout.asked
    assert layout.group_by and layout.features
    expected = rebuilt(rows, [*layout.group_by], [*(layout.order_by or ())], [*layout.features])
    keys, sequences = read(plan, chunk_bytes)
    assert keys == list(expected)
    for sequence, its in zip(sequences, expected.values(), strict=True):
        assert np.array_equal(sequence, np.array(its, np.float32))


@settings(max_examples=10)
@given(data=st.data())
def test_however_files_and_row_groups_cut_them_sequences_are_those_of_plain_python(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(KEYS)), "type of the ids")
    keys = data.draw(st.permutations(KEYS[name]) if data.draw(st.booleans()) else st.just(KEYS[name]), "keys")
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=len(keys)), "lengths")
    table = events_of(lengths, keys[: len(lengths)], TYPES[name], seed=data.draw(st.integers(0, 99)))
    cuts = data.draw(st.lists(st.integers(0, len(table)), max_size=4), "files")
    source = write_events(tmp_path_factory.mktemp("in"), table, cuts, data.draw(st.integers(1, 9), "row group"))
    plan = planned(source, rows_per_part=data.draw(st.integers(1, 4), "rows per part"))
    assert plan.units.rows.sum() == plan.source.rows == len(lengths)
    assert plan.units.values.sum() == len(table)
    check(plan, table.to_pylist(), data.draw(st.sampled_from([1, 40, 1 << 20]), "bytes of a chunk"))
    again = Plan.from_records(plan.to_records())
    for unit, same in zip(plan.units, again.units, strict=True):
        assert read(plan, units=[unit]) == read(again, units=[same])
        assert (unit.rows, unit.values) == (same.rows, same.values)
        assert unit.rows >= 1


def test_steps_of_views_of_text_are_put_in_order(tmp_path: Path) -> None:
    table = pa.table({
        "id": [1, 1, 2], "t": [1, 0, 0], "item": pa.array(["a", "b", "c"], pa.string_view()), "x": [1.0, 2.0, 3.0],
    })  # fmt: skip
    spec = InputSpec((Category("item", values=("a", "b", "c")), Number("x")))
    options = JobOptions(group_by=["id"], order_by=["t"], features=["item", "x"])
    plan = plan_job(write_events(tmp_path, table, [], 5), options, spec)
    chunks = read_chunks(plan.source, plan.units, ReadOptions(plan.layout, input=spec))
    rows = [chunk.sequences.row(row).tolist() for chunk in chunks for row in range(len(chunk.sequences))]
    assert rows == [[[1, 2], [0, 1]], [[2, 3]]]


@pytest.mark.parametrize("kind", [pa.decimal32(5, 2), pa.decimal64(12, 2), pa.float16(), pa.decimal128(9, 2)], ids=str)
def test_steps_are_put_in_order_by_decimals_and_short_floats(tmp_path: Path, kind: pa.DataType) -> None:
    orders = [[1, 3, 2, 4], [4, 3, 2, 1], [4, -3, 2, 1]]
    values, as_time = np.array(orders, float).ravel(), np.float16 if pa.types.is_float16(kind) else decimal.Decimal
    times = pa.array([as_time(value) for value in values], kind)
    table = pa.table({"id": np.repeat([1, 2, 3], 4), "t": times, "x": values})
    options = JobOptions(group_by=["id"], order_by=["t"], features=["x"])
    plan = plan_job(write_events(tmp_path, table, [], 5), options)
    chunks = read_chunks(plan.source, plan.units, ReadOptions(plan.layout))
    rows = [chunk.sequences.row(row).ravel().tolist() for chunk in chunks for row in range(len(chunk.sequences))]
    assert rows == [sorted(order) for order in orders]


def test_ids_may_be_several_columns_and_folders(tmp_path: Path) -> None:
    rows = []
    for site, day in ((1, "a"), (1, "b"), (2, "a")):
        events = [{"day": day, "id": number // 4, "x": float(number), "c": site * 10} for number in range(9)]
        (tmp_path / f"site={site}/day={day}").mkdir(parents=True)
        own = pa.Table.from_pylist([{"id": row["id"], "x": row["x"], "c": row["c"]} for row in events])
        pq.write_table(own, tmp_path / f"site={site}/day={day}/a.parquet", row_group_size=2)
        rows += [{"site": site, **row} for row in events]
    plan = plan_job(tmp_path, JobOptions(group_by=["site", "id", "day"], features=["x"]))
    assert plan.keep == ("site", "id", "day") and plan.layout.columns(plan.source.schema) == ("site", "id", "day", "x")
    check(plan, rows)
    # By a folder alone: two files of one sequence.
    plan = plan_job(tmp_path, JobOptions(group_by=["site"]))
    assert plan.layout.asked.features == ("id", "x", "c") and plan.keep == ("site", "day")
    assert plan.units.rows.tolist() == [1, 1]
    keys, sequences = read(plan)
    assert keys == [(1, "a"), (2, "a")]  # other partition columns are those of the file in which it begins
    assert [len(sequence) for sequence in sequences] == [18, 9]


def test_an_input_may_name_what_folders_spell_and_what_is_kept(tmp_path: Path) -> None:
    for site in (1, 2):
        table = events_of([2, 3], [10 * site, 10 * site + 1], pa.int64()).append_column("c", pa.array([site + 4] * 5))
        write_events(tmp_path / f"site={site}", table, [], 5)
    spec = InputSpec((Number("x"), Number("c"), Category("site", values=(1, 2))))
    options = JobOptions(group_by=["id"], order_by=["t"], keep=["id", "c"])
    plan = plan_job(tmp_path, options, spec)
    assert plan.layout.asked.features == ("x", "c", "site")
    chunks = list(read_chunks(plan.source, plan.units, ReadOptions(plan.layout, plan.keep, input=spec)))
    values = np.concatenate([chunk.sequences.values for chunk in chunks])
    assert values[:, 1:].tolist() == [[5, 0]] * 5 + [[6, 1]] * 5
    assert [row for chunk in chunks for row in chunk.kept["c"].to_pylist()] == [5, 5, 6, 6]


def test_of_a_kept_column_a_sequence_has_one_value(tmp_path: Path) -> None:
    table = events_of([3, 4, 2], [1, 2, 3], pa.int64())
    nan = float("nan")
    same = table.append_column("k", pa.array([None] * 3 + [nan] * 4 + [0.5] * 2))
    plan = planned(write_events(tmp_path / "a", same, [5], 2), keep=["k", "id"])
    assert str(read(plan)[0]) == "[(None, 1), (nan, 2), (0.5, 3)]"
    for values in ([None] * 3 + [nan] * 2 + [1.0] + [nan] + [0.5] * 2, [None] * 3 + [nan] * 2 + [None, nan, 0.5, 0.5]):
        other = planned(write_events(tmp_path / "b", table.append_column("k", pa.array(values)), [5], 2), keep=["k"])
        with pytest.raises(DataError, match=r"00.parquet.* 1 rows after their end: .*'k' is (1.0|null).*nan.*id=2"):
            read(other)
    assert read(planned(tmp_path / "a", keep=[], features=["x"]))[0] == [()] * 3
    assert planned(tmp_path / "a").layout.asked.features == ("x", "y", "k")  # numbers, unless they are kept
    assert planned(tmp_path / "a", keep=["k", "x"], features=["x"]).keep == ("k", "x")


def test_files_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    table = events_of([3, 9], [2, 1], pa.dictionary(pa.int32(), pa.int64()))
    write_events(tmp_path, table, [2, 6], 4)
    part = pq.read_table(tmp_path / "01.parquet")
    pq.write_table(part.select(["y", "t", "id", "x"]).replace_schema_metadata({"a": "b"}), tmp_path / "01.parquet")
    check(planned(tmp_path), table.to_pylist())


@pytest.mark.parametrize("chunk_bytes", [1, 30, 75, 200, 1 << 20])
def test_a_sequence_that_goes_through_many_row_groups_and_files_is_joined(tmp_path: Path, chunk_bytes: int) -> None:
    table = events_of([2, 100, 3], [1, 2, 3], pa.int64())
    source = write_events(tmp_path, table, [10, 10, 35, 90, 103], 7)
    plan = planned(source, rows_per_part=1)
    assert [unit.rows for unit in plan.units] == [2, 1]
    assert [(unit.grouped.skip, unit.grouped.tail) for unit in plan.units if unit.grouped] == [(0, 92), (12, 2)]
    check(plan, table.to_pylist(), chunk_bytes)


def test_a_file_is_opened_once_also_where_a_sequence_goes_on_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, open = list[str](), UnitReader.open
    monkeypatch.setattr(UnitReader, "open", lambda self, unit: (opened.append(unit.file.path), open(self, unit))[1])
    plan = planned(write_events(tmp_path, events_of([2, 20, 9], [1, 2, 3], pa.int64()), [10, 25], 3), rows_per_part=1)
    assert len(plan.units) == 2
    for read_all in (lambda: read(plan), lambda: list(read_steps(plan.source, plan.units, plan.layout))):
        opened.clear()
        read_all()
        assert opened == [str(tmp_path / f"0{number}.parquet") for number in range(3)]


def test_a_source_without_rows_is_one_unit_without_sequences(tmp_path: Path) -> None:
    plan = planned(write_events(tmp_path, events_of([], [], pa.int64()), [], 5))
    assert plan.units.rows.tolist() == [0] and read(plan) == ([], [])


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_row_groups_without_rows_among_events(tmp_path: Path, rows_per_part: int) -> None:
    table = events_of([3, 1, 6, 2], [1, 2, 3, 4], pa.int64())
    for number, ends in enumerate(([0, 0, 2, 2, 5, 5], [5, 5, 12, 12])):
        with pq.ParquetWriter(tmp_path / f"{number}.parquet", table.schema) as writer:
            for begin, end in pairwise(ends):
                writer.write_table(table.slice(begin, end - begin))
    plan = planned(tmp_path, rows_per_part=rows_per_part)
    check(plan, table.to_pylist())
    chunks = list(read_chunks(plan.source, plan.units, ReadOptions(plan.layout, lossy_cast=True, chunk_bytes=1)))
    assert [chunk.unit.index for chunk in chunks if chunk.is_last] == list(range(len(plan.units)))


def test_keys_that_come_again_are_told_with_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, keys = [3, 4, 2, 2], [1, 2, 3, 1]
    source = write_events(tmp_path / "a", events_of(lengths, keys, pa.int64()), [5], 2)
    told = (
        r"01.parquet, row group 2, row 0 \(row 4 of the file\): id=1 comes again.* it began at .*00.parquet, row group "
        r'0, row 0 .*--sort.*ORDER BY "id", "t"\) TO'
    )
    with pytest.raises(DataError, match=told):
        planned(source)
    # Found before the end, too.
    monkeypatch.setattr(groups, "_FIRST_CHECK", 2)
    with pytest.raises(DataError, match=told):
        planned(source)
    # Equal bits need not be equal keys.
    monkeypatch.setattr(groups, "hashes", lambda keys: np.zeros(len(keys[0]), np.uint64))
    with pytest.raises(DataError, match=told):
        planned(source)
    table = events_of(lengths, [1, 5, 3, 2], pa.int64())
    check(planned(write_events(tmp_path / "b", table, [5], 2)), table.to_pylist())


def test_nulls_among_ids_and_in_the_order_are_told_with_their_place(tmp_path: Path) -> None:
    table = events_of([3, 4, 2], [1, 2, None], pa.int64())
    with pytest.raises(DataError, match=r"01.parquet, row group 1, row 0 \(row 2 of the file\): the id 'id' is null"):
        planned(write_events(tmp_path / "a", table, [5], 2))
    table = events_of([3, 4, 2], [1.0, float("nan"), 3.0], pa.float64())
    with pytest.raises(DataError, match=r"row 3 of the file\): the id 'id' is NaN"):
        planned(write_events(tmp_path / "c", table, [5], 2))
    table = events_of([3, 4, 2], [1, 2, 3], pa.int64())
    for missing in (None, float("nan")):
        times = pa.array([0.0] * 4 + [missing] + [2.0] * 4)
        plan = planned(write_events(tmp_path / "b", table.set_column(2, "t", times), [5], 2))
        with pytest.raises(DataError, match=r"00.parquet, row group 2, row 0 \(row 4 of the file\): 't', which orders"):
            read(plan)


def test_ids_with_nanoseconds_are_told(tmp_path: Path) -> None:
    """Of which pyarrow makes no Python value where pandas is not installed."""
    table = events_of([1, 1, 1], [1001, 2001, 1001], pa.timestamp("ns"))
    with pytest.raises(DataError, match=r"id=.*00\.000001001.* comes again"):
        planned(write_events(tmp_path, table, [], 5))


@pytest.mark.parametrize("name", SOME)
def test_ids_and_kept_values_that_python_does_not_have_are_told(tmp_path: Path, name: str) -> None:
    again = picked(ODD[name], pa.array([0, 1, 0]))
    table = events_of([1, 1, 1], [7, 7, 7], pa.int64()).append_column("odd", again)
    source = write_events(tmp_path, table, [], 5)
    with pytest.raises(
        DataError, match=r"\(row 2 of the file\): odd=.* comes again.* began at .*--sort, update does not"
    ):
        planned(source, group_by=["odd"], features=["x"])
    with pytest.raises(DataError, match=r"the kept column 'odd' is .*; expected .*, as in the first row of .* id=7"):
        read(planned(source, features=["x"], keep=["odd"]))


def test_ids_an_hour_apart_where_clocks_are_set_back_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are compared since their 64 bits are the same."""
    monkeypatch.setattr(groups, "hashes", lambda keys: np.zeros(len(keys[0]), np.uint64))
    begin = 1603585800  # 2:30 in summer time, in Berlin
    table = events_of([1, 1, 1], [begin, begin + 3600, begin - 9], pa.timestamp("s", "Europe/Berlin"))
    assert len(read(planned(write_events(tmp_path, table, [], 5)))[1]) == 3


def test_what_is_asked_for_in_vain_is_told(tmp_path: Path) -> None:
    table = events_of([3], [1], pa.int64()).append_column("l", pa.array([[1.0]] * 3)).append_column("s", [["a"] * 3])
    table = table.append_column("n", pa.nulls(3))
    source = write_events(tmp_path, table, [], 5)
    for options, told in (
        ({"group_by": ["nope"]}, "--group-by: there is no column 'nope'"),
        ({"order_by": ["nope"]}, "--order-by: there is no column 'nope'"),
        ({"features": ["nope"]}, "--features: there is no column 'nope'"),
        ({"group_by": ["l"]}, "--group-by: column 'l' is list.*; expected a column of numbers, text"),
        ({"features": ["l"]}, "--features: column 'l' is list.*; expected a column of numbers"),
        ({"column": "l"}, "expected one of them"),
        ({"keep": ["id", "l"]}, "--keep: column 'l' is list.*; expected numbers, text.* Leave it out of --keep"),
        ({"keep": ["n"], "features": ["x"]}, "--keep: column 'n' is null; expected numbers, text"),
        ({"group_by": []}, "no id column in --group-by"),
        ({"group_by": ["x", "id", "y"], "order_by": ["t"]}, "no column of numbers that could be a feature"),
    ):
        with pytest.raises(ConfigError, match=told):
            planned(source, **options)
    with pytest.raises(DataError, match="'s' holds texts, which are no numbers"):
        planned(source, features=["s"])


def test_a_step_that_is_not_what_it_should_be_is_told_by_where_its_sequence_begins(tmp_path: Path) -> None:
    table = events_of([3, 4, 2], [1, 2, 3], pa.int64())
    values = table["x"].to_pylist()
    values[6] = None
    plan = planned(write_events(tmp_path, table.set_column(0, "x", pa.array(values, pa.float32())), [5], 2))
    with pytest.raises(DataError, match=r"row group 1, row 1 \(row 3 of the file\), where id=2 begins, step \d: a val"):
        read(plan, chunk_bytes=1)


def test_the_place_of_a_sequence_is_where_it_begins(tmp_path: Path) -> None:
    source = write_events(tmp_path, events_of([3, 4, 2], ["a", "b", "c"], pa.string()), [], 2)
    (unit,) = planned(source).units
    assert unit.place(2) == (0, 0, 0) and unit.where(2).endswith("row group 0, row 0 (row 0 of the file)")  # not read
    read(planned(source), chunk_bytes=1, units=[unit])
    assert [unit.place(row) for row in range(3)] == [(0, 0, 0), (1, 1, 3), (3, 1, 7)]
    assert unit.where(0, after=2).endswith("row group 3, row 1 (row 7 of the file), where id='c' begins")


def test_a_file_that_changed_after_it_was_planned_is_told(tmp_path: Path) -> None:
    table = events_of([1, 2, 1], [1, 2, 3], pa.int64())
    plan = planned(write_events(tmp_path, table, [], 2))
    write_events(tmp_path, table.set_column(1, "id", pa.array([1, 2, 3, 4])), [], 2)
    with pytest.raises(DataError, match=r"has 4 sequences of id; expected 3"):
        read(plan)
    (tmp_path / "00.parquet").unlink()
    with pytest.raises(DataError, match=r"00\.parquet"):
        read(plan)


@pytest.mark.parametrize("filesystem", [fs.LocalFileSystem(), fs.SubTreeFileSystem("/", fs.LocalFileSystem())])
@pytest.mark.parametrize("cuts", [[5], []], ids=["in the next file", "in its own file"])
def test_a_sequence_that_goes_on_in_what_changed_is_neither_cut_nor_mixed(
    tmp_path: Path, cuts: list[int], filesystem: fs.FileSystem
) -> None:
    """The row groups in which it begins are as they were, and the rows after them that were planned are its own."""
    table = events_of([3, 4, 2], [1, 2, 3], pa.int64())
    source = write_events(tmp_path, table, cuts, 5)
    plan = planned(source, rows_per_part=1)
    plan = replace(plan, source=replace(plan.source, filesystem=filesystem))
    (unit, *_) = plan.units
    assert unit.grouped is not None and unit.grouped.tail == 2 and len(read(plan, units=[unit])[1]) == 2
    longer = pa.concat_tables([table.slice(0, 7), *[table.slice(3, 4)] * 9, table.slice(7)])
    pq.write_table(longer.slice(sum(cuts)), source / f"0{len(cuts)}.parquet", row_group_size=5)
    with pytest.raises(DataError, match=rf"0{len(cuts)}\.parquet has another size or time than when the source"):
        read(plan, units=[unit])


def test_a_file_in_which_a_sequence_goes_on_has_the_time_that_it_had(tmp_path: Path) -> None:
    plan = planned(write_events(tmp_path, events_of([3, 4, 2], [1, 2, 3], pa.int64()), [5], 5))
    read(plan)
    os.utime(tmp_path / "01.parquet", (1, 1))
    with pytest.raises(DataError, match=r"01\.parquet has another size or time"):
        read(plan)


@pytest.mark.parametrize("name", list(KEYS))
def test_keys_compare_as_in_python(name: str) -> None:
    values = KEYS[name]
    ones, others = (pa.array([pair[nth] for pair in all_pairs(values)], TYPES[name]) for nth in (0, 1))
    one, other = [comparable(ones)], [comparable(others)]
    assert is_comparable(TYPES[name])
    assert differ(one, other).tolist() == [a != b for a, b in all_pairs(values)]
    assert rise(one, other).tolist() == [a < b for a, b in all_pairs(values)]
    assert ((hashes(one) == hashes(other)) == ~differ(one, other)).all()
    assert picked(ones, pa.array([3, 1])).to_pylist() == [ones[3].as_py(), ones[1].as_py()]
    assert changes(one).tolist() == [True, *(a != b for a, b in pairwise(a for a, _ in all_pairs(values)))]
    # Of a slice as of the whole.
    assert np.array_equal(hashes([comparable(ones.slice(3))]), hashes(one)[3:])
    assert np.array_equal(differ([comparable(ones.slice(3))], [comparable(others.slice(3))]), differ(one, other)[3:])


def all_pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return [(a, b) for a in values for b in values]


def test_nan_equals_itself_and_zero_has_no_sign() -> None:
    nan = float("nan")
    ones, others = [pa.array([nan, 0.0, nan])], [pa.array([-nan, -0.0, 1.0])]
    assert differ(ones, others).tolist() == [False, False, True]
    assert (hashes(ones) == hashes(others)).tolist() == [True, True, False]
