"""The tuner keeps what is clearly faster, samples the whole source within its bounds, and prints flags that work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import D, encoder_of, keep_devices, mesh_of, random_rows, write_source

from scanrnn_dist.api import tuning as tune
from scanrnn_dist.cli import app as cli
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

START = WindowShape(lanes=4, block_steps=4, window_blocks=8)
SAMPLE = [Ragged.from_sequences(random_rows([3, 0, 40, 9]))]


def fake_measure(speed: Any) -> Any:
    """`measure` on a machine of which the speed of every shape and round is known."""

    def measure(
        encoder: Any, sample: Any, mesh: Any, shapes: Any, rounds: int = 3, kernel: Any = None
    ) -> list[tune.Measured]:
        return [tune.Measured(shape, tuple(speed(shape, nth) for nth in range(rounds)), 1.0) for shape in shapes]

    return measure


def tuned(monkeypatch: pytest.MonkeyPatch, speed: Any) -> tune.Tuning:
    monkeypatch.setattr(tune, "measure", fake_measure(speed))
    return tune.tune(encoder_of(), SAMPLE, mesh_of(1), START, rounds=7, kernel="xla")


def test_each_number_of_the_shape_is_settled_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"lanes": 96, "block_steps": 2, "window_blocks": 16}

    def speed(shape: WindowShape, nth: int) -> float:
        return 100 * 2.0 ** sum(getattr(shape, name) == value for name, value in wanted.items())

    result = tuned(monkeypatch, speed)
    assert result.best == WindowShape(**wanted)
    assert result.gain == pytest.approx(7)
    assert result.flags == "--lanes 96 --block-steps 2 --window-blocks 16"
    assert str(result).splitlines()[-1] == f"best: {result.flags} (700% faster than the shape it started from)"
    assert (result.rows, result.steps) == (4, 52)


@pytest.mark.parametrize("factor", [1.019, 0.5])
def test_what_is_not_clearly_faster_replaces_nothing(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    result = tuned(monkeypatch, lambda shape, nth: 100.0 if shape == START else 100 * factor)
    assert (result.best, result.gain) == (START, 0)
    assert "no other was clearly faster" in str(result)


def test_what_is_faster_in_some_rounds_only_replaces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = tuned(monkeypatch, lambda shape, nth: 100.0 if shape == START else (150.0 if nth < 5 else 90.0))
    assert (result.best, result.gain) == (START, 0)


def test_shapes_that_do_not_fit_the_devices_are_left_out_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def try_out(shape: WindowShape) -> None:
        if shape.lanes > 100:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: it is full")

    monkeypatch.setattr("scanrnn_dist.engine.fitting.device_kind", lambda mesh: "gpu")
    monkeypatch.setattr("scanrnn_dist.engine.fitting._windows_of", lambda encoder, mesh, shape: shape)
    monkeypatch.setattr("scanrnn_dist.engine.fitting._try_out", try_out)
    monkeypatch.setattr(tune, "window_shape_for", lambda *told, **options: WindowShape(256, 4, 8))
    monkeypatch.setattr(tune, "measure", fake_measure(lambda shape, nth: 100.0 * shape.lanes))
    said: list[str] = []
    result = tune.tune(encoder_of(), SAMPLE, mesh_of(1), kernel="xla", say=said.append)
    assert result.measured[3].shape.lanes == 64 and result.best.lanes == 96
    assert said[:2] == [
        "lanes: 128 do not fit the memory of the devices: RESOURCE_EXHAUSTED: it is full",
        "lanes: 16, 32, 48, 64, 96",
    ]


def test_a_machine_that_slows_down_slows_all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    result = tuned(monkeypatch, lambda shape, nth: 0.5**nth * (110.0 if shape.lanes == 32 else 100.0))
    assert result.best.lanes == 32
    assert result.gain == pytest.approx(0.1)


def test_every_shape_is_really_run_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[WindowShape, Any]] = []
    build_engine = tune.build_engine

    def build(*told: Any, **options: Any) -> Any:
        engine = build_engine(*told, **options)
        begin = engine.run

        def run() -> Any:
            runs.append((engine.shape, begin()))
            return runs[-1][1]

        monkeypatch.setattr(engine, "run", run)
        return engine

    monkeypatch.setattr(tune, "build_engine", build)
    shapes = [START, WindowShape(lanes=2, block_steps=1, window_blocks=8)]
    sample = [*SAMPLE, Ragged.from_sequences(random_rows([2, 7]))]
    found = tune.measure(encoder_of(), sample, mesh_of(2), shapes, rounds=2, kernel="xla")
    assert [(shape, run.statistics.rows, run.statistics.steps, run.is_busy) for shape, run in runs] == [
        (shape, 6, 61, False) for _ in range(3) for shape in shapes
    ]
    assert [one.shape for one in found] == shapes
    assert all(len(one.rounds) == 2 and min(one.rounds) > 0 and 0 < one.occupancy <= 1 for one in found)
    assert found[1].occupancy > found[0].occupancy, "blocks of one step leave fewer idle"


def test_the_sample_is_taken_from_all_over_the_source_within_its_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = np.arange(1, 401)
    source = write_source(tmp_path / "in.parquet", random_rows(lengths), row_group_size=20)
    plan = plan_job(source, JobOptions(rows_per_part=20))
    everything = tune.read_sample(plan, encoder_of(), mesh_of(1))
    taken = np.concatenate([chunk.lengths for chunk in everything])
    assert 100 <= len(taken) <= 200, "8 units of 20"
    assert (taken.min(), taken.max()) == (1, 380)

    monkeypatch.setitem(tune.SAMPLE_ROWS, "cpu", 40)
    taken = np.concatenate([chunk.lengths for chunk in tune.read_sample(plan, encoder_of(), mesh_of(1))])
    assert taken.tolist() == [first + row for first in range(1, 401, 60) for row in range(5)]

    monkeypatch.setitem(tune.SAMPLE_BYTES, "cpu", 4 * D * 1000)
    steps = sum(int(chunk.lengths.sum()) for chunk in tune.read_sample(plan, encoder_of(), mesh_of(1)))
    assert steps <= 1000 + 7 * 400, "at most a row too much from each unit"


def test_a_source_without_steps_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows([0, 0]))
    with pytest.raises(ConfigError, match="nothing to measure with"):
        tune.read_sample(plan_job(source), encoder_of(), mesh_of(1))


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX has its devices already; few candidates, since each is compiled."""
    keep_devices(monkeypatch)
    monkeypatch.setattr(tune, "LANES", {"cpu": (2,)})
    monkeypatch.setattr(tune, "BLOCK_STEPS", (2,))
    monkeypatch.setattr(tune, "WINDOW_BLOCKS", (2,))


@pytest.mark.usefixtures("_small")
def test_bench_prints_flags_that_featurize_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows([5, 1, 0, 30]))
    flags = ["--lanes", "4", "--block-steps", "4", "--window-blocks", "8"]
    assert cli.run(["bench", "--tune", str(source), "--hidden", "5", "--rounds", "1", "--kernel", "xla", *flags]) == 0
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in err.splitlines()] == ["lanes", "block steps", "window blocks"]
    best = out.splitlines()[-1].removeprefix("best: ").split(" (")[0].split()
    assert cli.run(["featurize", str(source), str(tmp_path / "out"), "--hidden", "5", "--kernel", "xla", *best]) == 0
    window = json.loads((tmp_path / "out/__scanrnn/job.json").read_text())["window"]
    assert [str(window[name]) for name in ("lanes", "block_steps", "window_blocks")] == best[1::2]


@pytest.mark.usefixtures("_small")
def test_bench_without_tune_measures_one_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows([5, 1, 0, 30]))
    assert cli.run(["bench", str(source), "--hidden", "5", "--lanes", "4", "--rounds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [len(one["rounds"]) for one in result["measured"]] == [2]
    assert result["best"]["lanes"] == 4


@pytest.mark.usefixtures("_small")
def test_the_command_measures_steps_of_any_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = {"id": [1, 1, 2], "x": pa.array([1, 2, 3], pa.float32()), "y": pa.array([1, 2, 3], pa.float32())}
    lists = {"x": pa.array([[1, 2], [3]], pa.list_(pa.float32())), "y": pa.array([[1, 2], [3]], pa.list_(pa.float32()))}
    for name, columns, asked in (("events", events, ["--group-by", "id"]), ("lists", lists, ["--features", "y,x"])):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        flags = ["--hidden", "5", "--lanes", "4", "--rounds", "1"]
        assert cli.run(["bench", str(tmp_path / f"{name}.parquet"), *asked, *flags]) == 0
        assert "2 rows of the source, 3 steps" in capsys.readouterr().out
