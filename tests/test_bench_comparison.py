"""The comparison's own parts: workloads in long format, how opponents read them, what is told of those that fail."""

import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("psutil")

from benchmarks import tune, workloads
from benchmarks.contenders import CONTENDERS, Child, Contender, Failed
from benchmarks.opponents import reading
from benchmarks.run import PRODUCT_GFLOP, Case, Comparison, Oracle, show
from benchmarks.workloads import Workload, events, made_up_rows, uniform, write_rows, write_steps


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


class _Product:
    """In place of the process that multiplies matrices: always half a second."""

    def ask(self, command: str, destination: Path) -> tuple[float, float]:
        return 0.5, 1.0


def test_what_is_tuned_can_be_built_and_needs_no_folder(tmp_path, monkeypatch):
    modules = {name: f"{contender.module}.py" for name, contender in CONTENDERS.items() if contender.module}
    opponents = Path(tune.__file__).parent / "opponents"
    can_be_built = [name for name, file in modules.items() if "\ndef build(" in (opponents / file).read_text()]
    assert can_be_built == tune.BUILT
    monkeypatch.setattr(sys, "argv", ["tune", "vmap", "W1", "--folder", str(tmp_path / "new")])
    monkeypatch.setattr(tune, "subprocess", SimpleNamespace(run=lambda *given, **named: SimpleNamespace(returncode=0)))
    monkeypatch.delenv(tune.INSIDE, raising=False)
    with pytest.raises(SystemExit):
        tune.main()
    assert (tmp_path / "new").is_dir()


def test_who_fails_or_is_far_too_slow_is_told_and_sits_out(tmp_path):
    comparison = Comparison(Workload("W", "", uniform(30, 3), 2, 4), tmp_path, cast(Any, _Product()))
    asked = Counter[str]()

    def taking(name: str, seconds: list[float]) -> Case:
        def case() -> tuple[float, float]:
            asked[name] += 1
            if asked[name] > len(seconds):
                raise Failed("ended with -9")
            return seconds[asked[name] - 1], 1.0

        return case

    rounds = {"ours": [9.0] * 5, "vmap": [1.0] * 5, "nnx": [4.0] * 5, "onnx": [1.0] * 3, "torch": [9.0, *[2.0] * 4]}
    comparison.figures.update({name: {"difference": 0.0} for name in rounds})
    product = comparison._rounds({name: taking(name, seconds) for name, seconds in rounds.items()}, 5)
    result = comparison._summary(product)

    assert asked == {"ours": 5, "vmap": 5, "nnx": 2, "onnx": 4, "torch": 5}
    assert result["contenders"]["onnx"]["failed"] == "ended with -9"
    assert result["contenders"]["nnx"]["left"] == "after 2 rounds, 4.0 x the time of the fastest"
    assert (result["fastest_opponent"], result["ratio"]) == ("vmap", round(1 / 9, 3))
    assert result["product_gflops"]["median"] == pytest.approx(PRODUCT_GFLOP / 0.5, abs=0.1)
    show(comparison.workload, result)


def test_an_output_with_a_wrong_feature_or_without_a_row_is_refused(tmp_path):
    oracle = Oracle(Workload("W", "", uniform(30, 3), 2, 4))
    features = np.zeros((30, 4), np.float32)
    features[oracle.ids] = oracle.features
    written = pa.table({"id": np.arange(30), "label": np.arange(30) % 10, "features": list(features)})
    pq.write_table(written, tmp_path / "right")
    assert oracle.check(tmp_path / "right") < 1e-6
    pq.write_table(written.slice(1), tmp_path / "fewer")
    features[oracle.ids[-1], 0] += 1e-4
    pq.write_table(written.set_column(2, "features", [list(features)]), tmp_path / "wrong")
    for name, why in {"fewer": "ids or labels", "wrong": "differs from the oracle by 1.0e-04"}.items():
        with pytest.raises(Failed, match=why):
            oracle.check(tmp_path / name)
