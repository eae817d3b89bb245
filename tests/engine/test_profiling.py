"""A trace of a job names every stage, in the thread where it runs; what cannot be written is refused before the job."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import pytest
from sources import encoder_of, features_of, keep_devices, mesh_of, random_rows, some_lengths, write_source

from scanrnn_dist.api import computation, featurize
from scanrnn_dist.cli import app as cli
from scanrnn_dist.engine import build_engine
from scanrnn_dist.engine.profiling import RUN_BEGINS, profile
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

COMPILATION = "/jax/core/compile/backend_compile_duration"
SHAPE = WindowShape(lanes=4, block_steps=4, window_blocks=8)
STAGES = {"read", "convert", "submit", "schedule", "place", "dispatch", "fetch", "write", "commit"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "in.parquet", random_rows(some_lengths(40)))


def events_of(folder: Path) -> list[dict[str, Any]]:
    """What Perfetto opens; TensorBoard's file stands beside it."""
    (trace,) = folder.rglob("*.trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    with gzip.open(trace) as file:
        return json.load(file)["traceEvents"]


def threads_of_stages(folder: Path) -> dict[str, set[int]]:
    """The threads in which each of our stages ran."""
    found = defaultdict(set)
    for event in events_of(folder):
        if event.get("name", "").startswith("scanrnn."):
            found[event["name"].removeprefix("scanrnn.")].add(event["tid"])
    return dict(found)


def test_the_trace_of_a_job_names_every_stage_and_changes_no_bit(tmp_path: Path, source: Path) -> None:
    options = {"mesh": mesh_of(2), "window_shape": SHAPE, "rows_per_part": 10, "kernel": "xla"}
    with profile(tmp_path / "trace", seconds=60):
        featurize(encoder_of(), source, tmp_path / "traced", **options)
    featurize(encoder_of(), source, tmp_path / "plain", **options)
    assert features_of(tmp_path / "traced").tobytes() == features_of(tmp_path / "plain").tobytes()
    threads = threads_of_stages(tmp_path / "trace")
    assert set(threads) == STAGES
    reader, writer, feeding, dispatcher = (threads[name] for name in ("read", "write", "submit", "dispatch"))
    assert len(feeding) == 1
    assert not feeding & (reader | writer | dispatcher)  # these may share a number, where one ended before another
    assert threads["convert"] == reader
    assert threads["schedule"] == threads["place"] == threads["fetch"] == feeding


def test_the_command_line_writes_it_too(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_devices(monkeypatch)
    monkeypatch.setattr(computation, "window_shape_for", lambda encoder, mesh, **_: SHAPE)
    arguments = ["featurize", str(source), str(tmp_path / "out"), "--hidden", "5", "--kernel", "xla"]
    for destination in (str(tmp_path / "out"), f"file://{tmp_path}/out"):
        arguments[2] = destination
        assert cli.run([*arguments, "--profile", str(tmp_path / "out/trace")]) == 2
        assert "lies within the destination" in capsys.readouterr().err
    assert cli.run([*arguments, "--profile-seconds", "1"]) == 2
    assert "--profile-seconds is for --profile" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.run([*arguments, "--profile", str(tmp_path / "trace"), "--profile-seconds", "60"]) == 0
    assert set(threads_of_stages(tmp_path / "trace")) == STAGES


@pytest.mark.parametrize("kernel", ["xla", None])
def test_only_the_first_seconds_of_the_work_are_traced(tmp_path: Path, kernel: str | None) -> None:
    engine = build_engine(encoder_of(), mesh_of(1), SHAPE, kernel=kernel)  # so nothing is compiled below
    with profile(tmp_path, seconds=0.5):
        run = engine.run()
        jax.monitoring.record_event_duration_secs(COMPILATION, 0.1)
        time.sleep(1)  # as for a bucket that takes longer to send the first rows
        with jax.profiler.TraceAnnotation("early"):
            pass
        run.submit(Ragged.from_sequences(random_rows([3])))
        run.close()
        while not list(tmp_path.rglob("*.trace.json.gz")):
            time.sleep(0.01)
        with jax.profiler.TraceAnnotation("late"):
            pass
    names = {event.get("name") for event in events_of(tmp_path)}
    assert "early" in names
    assert "late" not in names
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scanrnn-profile")]


def test_the_seconds_count_from_the_last_compilation_on(tmp_path: Path) -> None:
    with profile(tmp_path, seconds=1):
        jax.monitoring.record_event(RUN_BEGINS)
        for _ in range(13):
            time.sleep(0.1)
            jax.monitoring.record_event_duration_secs(COMPILATION, 0.1)
        with jax.profiler.TraceAnnotation("late"):
            pass
    assert "late" in {event.get("name") for event in events_of(tmp_path)}


def test_a_trace_is_written_when_what_is_traced_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="ours"), profile(tmp_path):
        raise KeyError("ours")
    assert events_of(tmp_path)


def test_a_place_where_no_trace_can_stand_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"No trace can be written to .*file"), profile(tmp_path / "file"):
        raise AssertionError("not reached")
    with pytest.raises(ConfigError, match="expected a number above 0"), profile(tmp_path / "new", seconds=0):
        raise AssertionError("not reached")
    assert not (tmp_path / "new").exists()
