"""The comparison's own parts: workloads in long format, how opponents read them, children that fail."""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("psutil")

from benchmarks import workloads
from benchmarks.contenders import CONTENDERS, Child, Contender, Failed
from benchmarks.opponents import reading
from benchmarks.workloads import Workload, events, made_up_rows, write_rows, write_steps


@settings(deadline=None, max_examples=10)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    group_steps=st.integers(1, 40),
    least=st.integers(1, 600),
    is_shuffled=st.booleans(),
)
def test_opponents_read_the_sequences_of_the_long_format(tmp_path_factory, lengths, group_steps, least, is_shuffled):
    rng = np.random.default_rng(0)
    rows = made_up_rows(np.array(lengths), 3, rng)
    path = tmp_path_factory.mktemp("long") / "long.parquet"
    write_steps(rows, path)
    table = pq.read_table(path)
    if is_shuffled:  # within sequences: keys stay together
        table = table.take(np.lexsort((rng.permutation(len(table)), table["id"].to_numpy())))
    pq.write_table(table, path, row_group_size=group_steps)

    read, kept = reading.joined(list(reading.long_spans(path, least)))

    np.testing.assert_array_equal(read.values, rows.values)
    np.testing.assert_array_equal(read.offsets, rows.offsets)
    np.testing.assert_array_equal(kept["id"].to_numpy(), np.arange(len(lengths)))


def test_both_forms_of_a_workload_are_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(workloads, "ROW_GROUP_BYTES", 200)
    rows = made_up_rows(np.array([3, 70, 1, 12]), 4, np.random.default_rng(0))
    write_rows(rows, tmp_path / "lists.parquet")
    write_steps(rows, tmp_path / "long.parquet")
    read = [reading.joined(list(reading.read_spans(tmp_path / f"{name}.parquet", 1)))[0] for name in ("lists", "long")]
    for each in read:
        np.testing.assert_array_equal(each.values, rows.values)
        np.testing.assert_array_equal(each.offsets, rows.offsets)
    assert pq.read_metadata(tmp_path / "long.parquet").num_row_groups > 1


def test_events_are_a_hundred_a_key():
    lengths = events(1000)(np.random.default_rng(0))
    assert (lengths.sum(), lengths.min() >= 50, lengths.max() <= 150) == (100_000, True, True)


@pytest.mark.parametrize(
    ("program", "limit", "why"),
    [
        ("import sys; sys.exit(7)", 60, "ended with 7"),
        ("import sys; sys.stdin.readline(); sys.exit(3)", 60, "ended with 3"),
        ("import time; time.sleep(60)", 0.2, "took more than 0.2 s"),
    ],
)
def test_a_child_that_fails_says_why(tmp_path, program, limit, why):
    child = Child([sys.executable, "-S", "-c", program], dict(os.environ), tmp_path / "log")
    try:
        with pytest.raises(Failed, match=why):
            child.ask("run", tmp_path, limit)
    finally:
        child.stop()
    assert child.process.returncode is not None


def test_our_command_lines_have_what_the_workload_and_the_contender_ask_for():
    contender = Contender("ours otherwise", choices={"precision": "high"})
    workload = Workload("W", "", events(4), 8, 64, is_long=True)
    command = contender.cold_command(workload, Path("in.parquet"), Path("out"))
    assert command[-6:] == ["--group-by", "id", "--order-by", "t", "--precision", "high"]
    assert CONTENDERS["ours"].cold_command(workload, Path("in.parquet"), Path("out")) == command[:-2]
