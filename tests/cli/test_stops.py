"""The command line on a file system that refuses: what it says, how it ends, and that the same command goes on."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import command_line_in_this_process, leftovers

from scanrnn_dist.api import verify
from scanrnn_dist.cli import app as cli
from scanrnn_dist.disk import Disk

ROWS, WIDTH = 4000, 64


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 rows of a step in 8 row groups: 1 MB of features."""
    path = tmp_path_factory.mktemp("source") / "a.parquet"
    values = pa.array(np.random.default_rng(0).normal(size=4 * ROWS).astype(np.float32))
    steps = pa.FixedSizeListArray.from_arrays(values, 4)
    sequence = pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), steps)
    pq.write_table(pa.table({"id": range(ROWS), "sequence": sequence}), path, row_group_size=ROWS // 8)
    return path


def mount(*words: Any) -> None:
    run = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(f"mounting is not possible here: {run.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


Run = Callable[[Path, Path, int], str]
FLAGS = ["--hidden", str(WIDTH), "--rows-per-part", str(ROWS // 8), "--devices", "8"]
FLAGS += ["--lanes", "32", "--block-steps", "1", "--window-blocks", "2"]


@pytest.fixture
def scanrnn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `scanrnn featurize` and gives what it says on standard error."""

    def run(source: Path, out: Path, expected: int) -> str:
        code = cli.run(["featurize", str(source), str(out), *FLAGS])
        said = capsys.readouterr().err
        assert code == expected, said
        assert "Traceback" not in said
        return said

    command_line_in_this_process(monkeypatch, columns=1000)
    return run


def assert_good(out: Path) -> None:
    assert pq.read_table(out)["id"].to_pylist() == list(range(ROWS))
    assert verify(out, sample=8).rows == ROWS
    assert not leftovers(out)


def test_a_full_disk_stops_the_job_and_it_goes_on_once_there_is_space(
    source: Path, small_disk: Path, scanrnn: Run
) -> None:
    out = small_disk / "out"
    says = scanrnn(source, out, 4)
    assert "could not be written: No space left on device" in says and "Free some space" in says
    assert "the same command again" in says
    before = {path.name: path.stat().st_ino for path in out.glob("part-*")}
    assert before and not leftovers(out)
    assert "No space left on device" in scanrnn(source, out, 4)
    mount("-o", "remount,size=8m", small_disk)
    assert "rows were there before" in scanrnn(source, out, 0)
    assert {name: (out / name).stat().st_ino for name in before} == before
    assert_good(out)


def test_a_limit_on_file_sizes_stops_the_job_and_it_goes_on_without(source: Path, tmp_path: Path, scanrnn: Run) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, hard))
    try:
        says = scanrnn(source, tmp_path / "out", 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "part-00000.parquet could not be written: File too large" in says
    assert "fewer --rows-per-part" in says
    assert not leftovers(tmp_path / "out")
    scanrnn(source, tmp_path / "out", 0)
    assert_good(tmp_path / "out")


def test_a_destination_that_became_read_only_stops_the_job(source: Path, small_disk: Path, scanrnn: Run) -> None:
    out = small_disk / "out"
    scanrnn(source, out, 4)
    mount("-o", "remount,ro", small_disk)
    says = scanrnn(source, out, 4)
    assert "could not be written: Read-only file system" in says and "Make it writable" in says
    assert cli.run(["plan", str(source), str(small_disk / "new/one"), *FLAGS]) == 4
    assert cli.run(["inspect", str(source), "--statistics", "--output", str(small_disk / "x.toml")]) == 4
    mount("-o", "remount,rw,size=8m", small_disk)
    scanrnn(source, out, 0)
    assert_good(out)


def test_a_destination_that_may_not_be_written_to_stops_the_job(source: Path, tmp_path: Path, scanrnn: Run) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    assert "Permission denied" in scanrnn(source, tmp_path / "out", 4)
    tmp_path.chmod(0o700)
    scanrnn(source, tmp_path / "out", 0)
    assert_good(tmp_path / "out")


def test_a_destination_that_vanishes_stops_the_job(
    source: Path, tmp_path: Path, scanrnn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, away = tmp_path / "out", tmp_path / "away"
    opens = Disk.open

    def opened_late(disk: Disk, path: str) -> IO[bytes]:
        if "part-00002.parquet" in path:
            while not (out / "part-00001.parquet").exists():  # which is named while this one is opened
                time.sleep(0.01)
            out.rename(away)
        return opens(disk, path)

    with monkeypatch.context() as patched:
        patched.setattr(Disk, "open", opened_late)
        says = scanrnn(source, out, 4)
    assert "part-00002.parquet could not be written: No such file or directory" in says
    assert "bring that back" in says
    away.rename(out)
    for lease in (out / "__scanrnn/workers").iterdir():
        lease.unlink()  # of one who could not give it back; this process lives
    # The part before was named, and is recorded a little later.
    assert re.search("(1,000|500) of 4,000 rows were there before", scanrnn(source, out, 0))
    assert_good(out)


@pytest.mark.usefixtures("scanrnn")
@pytest.mark.parametrize(
    "signal", ["SIGTERM", *(pytest.param(it, marks=pytest.mark.soak) for it in ("SIGINT", "SIGHUP"))]
)
def test_a_signal_stops_the_job_and_it_goes_on(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], signal: str
) -> None:
    """In a process of its own, which gets it as it begins its third part; also of a restart where nothing stood."""
    out = tmp_path / "out"
    script = (
        "import os, signal, sys, time; from scanrnn_dist import cli; from scanrnn_dist.disk import Disk\n"
        "from scanrnn_dist.cli.process import SIGNALS\n"
        "opens = Disk.open\n"
        "def opened(disk, path):\n"
        "    if 'part-00002.parquet' in path:\n"
        f"        os.kill(os.getpid(), signal.{signal})\n"
        "        while not SIGNALS.stopped_by: time.sleep(0.001)\n"
        "    return opens(disk, path)\n"
        f"signal.signal(signal.{signal}, signal.default_int_handler)  # a shell may have had it ignored\n"
        "Disk.open = opened; sys.exit(cli.run(sys.argv[1:]))"
    )
    as_json, restart = (["--log-format", "json"], ["--restart"]) if signal == "SIGTERM" else ([], [])
    command = [sys.executable, "-c", script, *as_json, "featurize", str(source), str(out), *FLAGS, *restart]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 4, run.stderr
    by = "Ctrl-C" if signal == "SIGINT" else signal
    if as_json:
        messages = [json.loads(line).get("message", "") for line in run.stderr.splitlines()]
        run.stderr = "\n".join(messages)
    assert f"{by}: stopping..." in run.stderr
    saved = r"(500|[1-3],[05]00) of 4,000 rows are saved"
    same = "leave out --restart" if restart else "run the same command"
    told = rf"Stopped by {by}\. {saved}\. To continue, {same}, or scanrnn resume "
    assert re.search(told, run.stderr), run.stderr
    assert "Traceback" not in run.stderr and run.stdout == ""
    assert not (out / "_SUCCESS").exists() and not leftovers(out)
    (log,) = (out / "__scanrnn/commits").iterdir()
    assert '{"end": ' in log.read_text().splitlines()[-1]
    code, said = cli.run(["resume", str(out)]), capsys.readouterr()
    assert code == 0, said.err
    assert re.search(rf"^.*out holds a job that is not finished\. {saved}\.", said.err)
    assert "of 4,000 rows were there before" in said.err
    assert_good(out)
    assert cli.run(["resume", str(out)]) == 0
