"""Random rows in every layout, written by pyarrow, DuckDB and polars, are the same rows as nested lists of float32.

Through the real reader: bit for bit, a null as NaN; and a sequence that is null is refused at the same row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_rows import EVERYWHERE, LAYOUTS, SHARED, Case, Stored, cases

from scanrnn_dist.errors import DataError
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.plan import plan_job
from scanrnn_dist.source import BadRows, read_chunks

Outcome = tuple[Any, ...]


def outcome(path: Path, width: int, **asked: Any) -> Outcome:
    """The rows of a file as lengths and bytes, or the row that is refused."""
    plan = plan_job(path, JobOptions(**asked, keep=["id"]))
    options = JobOptions(**asked, bad_rows=BadRows("propagate")).settled(plan.layout, plan.keep, plan.rows_per_part)
    lengths, parts, ids = [], [], []
    try:
        with closing(read_chunks(plan.source, plan.units, options.reading(width, None))) as chunks:
            for chunk in chunks:
                lengths += chunk.sequences.lengths.tolist()
                parts.append(chunk.sequences.values.tobytes())
                ids += chunk.kept["id"].to_pylist()
    except DataError as error:
        found = re.search(r"\(row (\d+) of the file\): the (sequence|tensor|list of .*) is null", str(error))
        assert found, error
        return ("refused", found[1])
    return lengths, b"".join(parts), ids


def specified(case: Case) -> Outcome:
    """What the rows of a case are, by plain Python."""
    missing = [row is None for row in case.rows]
    if any(missing):
        return ("refused", str(missing.index(True)))
    steps = [step or [None] * case.in_features for row in case.rows for step in row or []]
    values = np.array([[np.nan if it is None else it for it in step] for step in steps], np.float32)
    return [len(row or []) for row in case.rows], values.tobytes(), list(range(len(case.rows)))


def write(path: Path, case: Case, stored: Stored, draw: Callable[..., Any]) -> None:
    """A file by pyarrow, of small row groups, with dictionaries or without, and pages of both versions."""
    columns = {"id": pa.array(range(len(case.rows)), pa.int64()), "tags": [["t"]] * len(case.rows), **stored.columns}
    options = {
        "row_group_size": draw(st.integers(1, 6)),
        "use_dictionary": draw(st.booleans()),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "compression": draw(st.sampled_from(["none", "snappy"])),
        "data_page_size": draw(st.sampled_from([1 << 9, 1 << 20])),  # of some bytes: pyarrow 26 drops rows
    }
    pq.write_table(pa.table(columns), path, **options)


def simplest(case: Case) -> Stored:
    return Stored({"seq": pa.array(case.rows, pa.list_(pa.list_(pa.float32())))}, {"column": "seq"})


def check_same(case: Case, data: st.DataObject, folder: Path) -> None:
    expected = specified(case)
    write(folder / "simplest.parquet", case, simplest(case), data.draw)
    assert outcome(folder / "simplest.parquet", case.in_features, column="seq") == expected
    for build in data.draw(st.permutations(LAYOUTS))[:3]:
        stored = build(data.draw, case)
        if stored is not None:
            write(folder / "other.parquet", case, stored, data.draw)
            assert outcome(folder / "other.parquet", case.in_features, **stored.asked) == expected, build.__name__


@settings(max_examples=20)
@given(cases(), st.data())
def test_every_layout_holds_the_same_rows(tmp_path_factory: pytest.TempPathFactory, case: Case, data: Any) -> None:
    check_same(case, data, tmp_path_factory.mktemp("rows"))


@pytest.mark.soak
@settings(max_examples=150)
@given(cases(), st.data())
def test_many_layouts_hold_the_same_rows(tmp_path_factory: pytest.TempPathFactory, case: Case, data: Any) -> None:
    check_same(case, data, tmp_path_factory.mktemp("rows"))


def by_duckdb(table: pa.Table, path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="of the extra [readers]")
    with duckdb.connect() as connection:
        connection.register("t", table)
        connection.execute(f"COPY (SELECT * FROM t) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 5)")


def by_polars(table: pa.Table, path: Path) -> None:
    polars = pytest.importorskip("polars", reason="of the extra [readers]")
    polars.from_arrow(table).write_parquet(path, row_group_size=5)


@pytest.mark.parametrize("writer", [by_duckdb, by_polars])
@settings(max_examples=10)
@given(case=cases(is_arrow=False), data=st.data())
def test_other_writers_store_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, writer: Callable[..., None], case: Case, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    assert set(case.types) <= set(SHARED)
    stored = data.draw(st.sampled_from(EVERYWHERE))(data.draw, case)
    columns = {"id": pa.array(range(len(case.rows)), pa.int64()), **stored.columns}
    writer(pa.table(columns), folder / "a.parquet")
    assert outcome(folder / "a.parquet", case.in_features, **stored.asked) == specified(case)
