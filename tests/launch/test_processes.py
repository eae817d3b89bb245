"""`--processes`: commands as users run them, whose children or which themselves are killed from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import parts_of, random_rows, write_source

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Answer, WorkerDied, read_status
from scanrnn_dist.launch import ProcessExecutor, visible_gpus
from scanrnn_dist.launch.processes import ProcessPool

UNITS = 240
LIMIT_SECONDS = 300


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 units of 20 rows, each of which takes some milliseconds."""
    rows = random_rows(np.random.default_rng(0).integers(1, 600, 20 * UNITS))
    return write_source(tmp_path_factory.mktemp("source") / "a.parquet", rows, row_group_size=20)


def command(source: Path, out: Path, *flags: str) -> list[str]:
    """A job of one lane shape, whatever the number of devices."""
    shape = ("--hidden", "32", "--rows-per-part", "20", "--lanes", "8")
    return [sys.executable, "-m", "scanrnn_dist", "featurize", str(source), str(out), *shape, *flags]


def run(*words: Any, expected: int = 0) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """The parts of one process with one device."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(source, out, "--devices", "1")
    return parts_of(out)


def children_of(pid: int) -> list[int]:
    """The workers of a driver; the child that looks at footers is none."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if b"scanrnn_dist.launch.child" in Path(f"/proc/{child}/cmdline").read_bytes()]


def begun(out: Path, process: subprocess.Popen[str], parts: int = 10) -> None:
    """Wait until some parts stand."""
    until = time.monotonic() + LIMIT_SECONDS
    while len(list(out.glob("part-*"))) < parts:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)


def disturbed(source: Path, out: Path, flags: list[str], disturb: Callable[[subprocess.Popen[str]], None]) -> Any:
    """The exit code of a command that something happened to in its midst, and what it said; its children are gone."""
    process = subprocess.Popen(command(source, out, *flags), text=True, stdout=-1, stderr=-1)
    begun(out, process)
    children = children_of(process.pid)
    disturb(process)
    told, said = process.communicate(timeout=LIMIT_SECONDS)
    until = time.monotonic() + LIMIT_SECONDS
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < until, "a child is left over"
        time.sleep(0.05)
    assert "Traceback" not in said, said
    return process.returncode, told + said


@pytest.mark.soak
def test_a_child_that_is_killed_is_replaced_and_the_parts_are_those_of_one_process(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    out = tmp_path / "out"
    code, said = disturbed(
        source, out, ["--processes", "2"], lambda process: os.kill(children_of(process.pid)[0], signal.SIGKILL)
    )
    assert code == 0, said
    assert "was killed by signal 9. Another one takes its place." in said
    assert parts_of(out) == undisturbed


def test_a_child_that_imports_yet_leaves_signals_to_its_driver(capfd: pytest.CaptureFixture[str]) -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    pool = ProcessPool(1, None)
    worker = pool.start()
    try:
        for number in signals:
            os.kill(pool._children[worker][0].pid, number)
        pool.ask(worker, "end", "")
        assert pool.wait() == (worker, Answer())
    finally:
        pool.stop(worker)
    assert capfd.readouterr().err == ""
    assert not signals & signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.soak
@pytest.mark.parametrize(
    ("number", "flags"),
    [(signal.SIGKILL, ["--processes", "2"]), (signal.SIGTERM, [])],
)
def test_a_driver_that_is_killed_or_stopped_leaves_no_child_and_any_command_goes_on(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], number: signal.Signals, flags: list[str]
) -> None:
    out = tmp_path / "out"
    code, said = disturbed(source, out, ["--processes", "2"], lambda process: process.send_signal(number))
    assert code == (-9 if number == signal.SIGKILL else 4), said
    status = read_status(out)
    assert status.state == "stopped" and 10 <= status.units_committed < UNITS
    said = run(source, out, *(flags or ["--devices", "2"]))
    assert "rows were there before" in said
    assert parts_of(out) == undisturbed


@pytest.mark.soak
def test_what_one_process_began_processes_finish(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    out = tmp_path / "out"
    disturbed(source, out, ["--devices", "1"], lambda process: process.kill())
    run(source, out, "--processes", "2")
    assert parts_of(out) == undisturbed
    assert "Nothing to do" in run(source, out, "--processes", "2")


@pytest.mark.soak
def test_an_encoder_file_that_is_none_is_told_as_ever(tmp_path: Path, source: Path) -> None:
    words = [sys.executable, "-m", "scanrnn_dist", "featurize", str(source), str(tmp_path / "out"), "--processes", "2"]
    done = subprocess.run([*words, "--encoder", "nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "There is no encoder file nowhere." in done.stderr, done.stderr


def test_a_child_that_dies_in_the_midst_of_an_answer_has_died() -> None:
    pool, (ours, theirs) = ProcessPool(1, None), Pipe()
    pool._children[1] = subprocess.Popen([sys.executable, "-c", ""]), ours, 0
    os.write(theirs.fileno(), (1000).to_bytes(4, "big") + b"only some of a thousand bytes")
    theirs.close()
    answered = pool.wait()
    assert answered is not None and isinstance(answered[1], WorkerDied) and "exit status 0" in str(answered[1])


def test_processes_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="processes is 0; expected 1 or more"):
        ProcessExecutor(0)


def test_each_process_gets_its_own_gpu_or_an_even_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5, 6}, raising=False)
    monkeypatch.setattr("scanrnn_dist.launch.processes.available_cores", lambda: 7)
    pool = ProcessPool(3, None)
    assert [pool._cores(place) for place in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [pool._environment(place)["JAX_NUM_CPU_DEVICES"] for place in range(3)] == ["2", "2", "3"]
    assert ProcessPool(8, 2)._environment(0) == {"JAX_NUM_CPU_DEVICES": "2"}
    monkeypatch.setattr("scanrnn_dist.launch.processes.available_cores", lambda: 4)  # a container's quota
    assert [ProcessPool(3, None)._environment(place)["JAX_NUM_CPU_DEVICES"] for place in range(3)] == ["1", "1", "2"]
    assert ProcessPool(5, None)._environment(0) == {"JAX_NUM_CPU_DEVICES": "1"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "jax_cuda13_plugin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-4")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert visible_gpus() == ["2", "GPU-4"]
    pool = ProcessPool(2, None)
    assert [pool._environment(place) for place in range(2)] == [
        {"CUDA_VISIBLE_DEVICES": "2"},
        {"CUDA_VISIBLE_DEVICES": "GPU-4"},
    ]
    assert pool._cores(0) == []
    with pytest.raises(ConfigError, match="--devices is for CPUs, but here the GPUs compute: leave it out"):
        ProcessPool(2, 3)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("name", "value"), [("JAX_NUM_CPU_DEVICES", "1"), ("XLA_FLAGS", "--xla_force_host_platform_device_count=1")]
)
def test_the_number_of_devices_that_a_variable_says_stays(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert ProcessPool(2, None)._environment(0) == {}
    with pytest.raises(ConfigError, match="--devices and XLA_FLAGS or JAX_NUM_CPU_DEVICES"):
        ProcessPool(2, 3)
