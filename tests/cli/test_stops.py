"""The command line on a file system that refuses: what it says, how it ends, and that the same command goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import leftovers

from scanrnn_dist.api import verify

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


def scanrnn(source: Path, out: Path, expected: int, within: Sequence[str] = ()) -> str:
    """Run `scanrnn featurize` as a person would; what it says on standard error."""
    command = [*within, sys.executable, "-m", "scanrnn_dist", "featurize", str(source), str(out)]
    command += ["--hidden", str(WIDTH), "--rows-per-part", str(ROWS // 8), "--devices", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == expected, run.stderr
    assert "Traceback" not in run.stderr
    return run.stderr


def assert_good(out: Path) -> None:
    assert pq.read_table(out)["id"].to_pylist() == list(range(ROWS))
    assert verify(out, sample=8).rows == ROWS
    assert not leftovers(out)


def test_a_full_disk_stops_the_job_and_it_goes_on_once_there_is_space(source: Path, small_disk: Path) -> None:
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


def test_a_limit_on_file_sizes_stops_the_job_and_it_goes_on_without(source: Path, tmp_path: Path) -> None:
    says = scanrnn(source, tmp_path / "out", 4, within=["bash", "-c", 'ulimit -S -f 100; exec "$@"', "bash"])
    assert "part-00000.parquet could not be written: File too large" in says
    assert "fewer --rows-per-part" in says
    assert not leftovers(tmp_path / "out")
    scanrnn(source, tmp_path / "out", 0)
    assert_good(tmp_path / "out")


def test_a_destination_that_became_read_only_stops_the_job(source: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    scanrnn(source, out, 4)
    mount("-o", "remount,ro", small_disk)
    says = scanrnn(source, out, 4)
    assert "could not be written: Read-only file system" in says and "Make it writable" in says
    mount("-o", "remount,rw,size=8m", small_disk)
    scanrnn(source, out, 0)
    assert_good(out)


def test_a_destination_that_may_not_be_written_to_stops_the_job(source: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    assert "Permission denied" in scanrnn(source, tmp_path / "out", 4)
    tmp_path.chmod(0o700)
    scanrnn(source, tmp_path / "out", 0)
    assert_good(tmp_path / "out")


def scanrnn_that(does: str, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The command line of a process to which something happens as it begins its third part."""
    script = (
        "import os, signal, sys; from scanrnn_dist import cli; from scanrnn_dist.storage import protocol as store\n"
        "def step(kind, name):\n"
        f"    if (kind, name) == ('open', 'part-00002.parquet'): {does}\n"
        "store.step = step; sys.exit(cli.run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "featurize", str(source), str(out), "--hidden", str(WIDTH)]
    command += ["--rows-per-part", str(ROWS // 8), "--devices", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_destination_that_vanishes_stops_the_job(source: Path, tmp_path: Path) -> None:
    out, away = tmp_path / "out", tmp_path / "away"
    run = scanrnn_that(f"os.rename({str(out)!r}, {str(away)!r})", source, out)
    assert run.returncode == 4, run.stderr
    assert "part-00002.parquet could not be written: No such file or directory" in run.stderr
    assert "bring that back" in run.stderr and "Traceback" not in run.stderr
    away.rename(out)
    assert "1,000 of 4,000 rows were there before" in scanrnn(source, out, 0)
    assert_good(out)


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_the_job_and_it_goes_on(source: Path, tmp_path: Path, signal: str) -> None:
    out = tmp_path / "out"
    run = scanrnn_that(f"os.kill(os.getpid(), signal.{signal})", source, out)
    assert run.returncode == 4, run.stderr
    assert f"{signal}: stopping..." in run.stderr
    assert run.stderr.strip().endswith("Stopped. What was committed is whole; the same command goes on from there.")
    assert "Traceback" not in run.stderr
    assert not (out / "_SUCCESS").exists() and not leftovers(out)
    (log,) = (out / "__scanrnn/commits").iterdir()
    assert '{"end": ' in log.read_text().splitlines()[-1]
    assert "of 4,000 rows were there before" in scanrnn(source, out, 0)
    assert_good(out)
