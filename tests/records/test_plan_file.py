"""The records of a plan: what was planned is read back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.errors import DataError
from scanrnn_dist.ragged import running_sums
from scanrnn_dist.records import plan_file
from scanrnn_dist.records.names import FILES, UNITS
from scanrnn_dist.records.plan_file import Facts, read_records, write_records
from scanrnn_dist.source import UNKNOWN_TIME, Asked, FileTable, Units

SCHEMA = pa.schema([("seq", pa.list_(pa.float32(), 3)), ("größe", pa.dictionary(pa.int8(), pa.string()))])
FACTS = Facts("/in=0", Asked("nested-lists", "seq"), ("größe", "p"), 7, SCHEMA)


def units_of(groups: list[list[list[int]]]) -> Units:
    """Files of units of row groups of rows."""
    paths = pa.array([f"/in=0/p={number % 3}/{number:06d}.parquet" for number in range(len(groups))], pa.large_string())
    rng = np.random.default_rng(0)
    sizes, times = rng.integers(0, 2**40, (2, len(groups)))
    times[::3] = UNKNOWN_TIME
    files = FileTable(paths, sizes, times, "/in=0", pa.schema([("p", pa.int32())]))
    counts = [len(unit) for units in groups for unit in units]
    rows = [rows for units in groups for unit in units for rows in unit]
    numbers = rng.integers(0, 2**50, (2, len(counts)))
    file = np.repeat(np.arange(len(groups), dtype=np.int32), [len(units) for units in groups])
    return Units(files, file, running_sums(np.array(counts, np.int64)), np.array(rows, np.int64), *numbers)


UNITS_OF_FILES = st.lists(st.lists(st.lists(st.integers(1, 2**40), min_size=1, max_size=3), max_size=3), max_size=5)


@given(UNITS_OF_FILES.filter(any))
def test_what_was_written_is_read_back(groups: list[list[list[int]]]) -> None:
    units = units_of(groups)
    facts, read = read_records(write_records(FACTS, units))
    assert facts == FACTS
    assert list(read.files) == list(units.files) and list(read) == list(units)


def test_many_units_come_back_equal_from_few_bytes() -> None:
    rng = np.random.default_rng(1)
    groups = [[rng.integers(1, 9, 3).tolist() for _ in range(10)] for _ in range(2000)]
    units = units_of(groups)
    records = write_records(FACTS, units)
    _, read = read_records(records)
    for name in ("file", "offsets", "group_rows", "nbytes", "values", "rows", "row_group_begin", "first_row"):
        ours, its = getattr(units, name), getattr(read, name)
        assert ours.dtype == its.dtype and np.array_equal(ours, its)
    assert list(read.select(range(0, 20_000, 97))) == [units[index] for index in range(0, 20_000, 97)]
    assert write_records(FACTS, units) == records == write_records(FACTS, read)
    assert len(records[FILES]) + len(records[UNITS]) < 20 * len(units)  # 100 random bits each among them


@pytest.mark.parametrize("named", ["as they are", "otherwise"])
def test_the_names_of_a_list_are_kept(named: str) -> None:
    units = units_of([[[1]], [[2]]])
    given = [path if named == "as they are" else f"file://{path}" for path in units.files.paths.to_pylist()]
    records = write_records(Facts(given, *(FACTS.asked, ("p",), 7, SCHEMA)), units)
    assert read_records(records)[0].given == given
    has_column = "given" in pq.read_schema(pa.BufferReader(records[FILES])).names
    assert has_column == (named == "otherwise")


def test_a_plan_of_the_format_before_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_file, "FORMAT", "scanrnn_dist.plan/3")
    records = write_records(FACTS, units_of([[[1]]]))
    monkeypatch.undo()
    assert read_records(records)[0] == FACTS


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_file, "FORMAT", "scanrnn_dist.plan/9")
    records = write_records(FACTS, units_of([[[1]]]))
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"format 'scanrnn_dist.plan/9'; expected 'scanrnn_dist.plan/4'"):
        read_records(records)
