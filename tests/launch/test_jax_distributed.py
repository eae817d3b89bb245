"""The launcher for TPU pods, on CPUs: processes of two devices each that `jax.distributed` brings together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sources import mesh_of, parts_of, random_rows, write_source

from scanrnn_dist.api import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.records import SUCCESS

SCRIPT = Path(__file__).parents[2] / "pipelines" / "featurize_tpu_pod.py"
UNITS, UNIT_ROWS = 50, 20
LIMIT_SECONDS = 200


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = random_rows(np.random.default_rng(0).integers(1, 500, UNITS * UNIT_ROWS), in_features=12)
    return write_source(tmp_path_factory.mktemp("source") / "a.parquet", rows, row_group_size=UNIT_ROWS)


@pytest.fixture(scope="module")
def of_one_device(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    out = tmp_path_factory.mktemp("one") / "out"
    featurize(Encoder.from_seed(0, 12, 64), source, out, rows_per_part=UNIT_ROWS, mesh=mesh_of(1))
    return parts_of(out)


def started(script: Path, source: Path, out: Path, hosts: int) -> list[subprocess.Popen[str]]:
    """A process for each host; JAX finds them as the tasks of Slurm's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    own |= {"JAX_NUM_CPU_DEVICES": "2", "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "SLURM_STEP_NODELIST": "host"}
    own |= {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(hosts)}
    command = [sys.executable, str(script), str(source), str(out)]
    numbers = [{"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(hosts)]
    return [subprocess.Popen(command, env=own | number, text=True, stdout=-1, stderr=-1) for number in numbers]


@pytest.mark.parametrize(
    ("hosts", "killed"),
    [
        pytest.param(2, (), marks=pytest.mark.soak),
        pytest.param(4, (), marks=pytest.mark.sweep),
        pytest.param(4, (2, 0), marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_hosts_do_the_job_of_one_device_and_those_that_are_killed_are_replaced_by_the_others(
    tmp_path: Path, source: Path, of_one_device: dict[str, bytes | None], hosts: int, killed: tuple[int, ...]
) -> None:
    script, out = tmp_path / "edited.py", tmp_path / "out"
    script.write_text(re.sub(r"ROWS_PER_PART = \d+", f"ROWS_PER_PART = {UNIT_ROWS}", SCRIPT.read_text()))
    processes = started(script, source, out, hosts)
    until = time.monotonic() + LIMIT_SECONDS
    for number in killed:  # the third host, then the first, which brought the others together
        while not list(out.glob("part-*")):
            assert processes[number].poll() is None and time.monotonic() < until, processes[number].communicate()
            time.sleep(0.01)
        processes[number].kill()
    ended = [process.communicate(timeout=LIMIT_SECONDS) for process in processes]
    for number, (process, (_, said)) in enumerate(zip(processes, ended, strict=True)):
        assert process.returncode == (-signal.SIGKILL if number in killed else 0), said
        assert f"share {number + 1} of {hosts} (jax.distributed: process {number} of {hosts}), 2 devices" in said
    assert (out / SUCCESS).exists()
    assert parts_of(out) == of_one_device


@pytest.mark.soak
def test_eight_devices_of_one_process_do_the_job_of_one(
    tmp_path: Path, source: Path, of_one_device: dict[str, bytes | None]
) -> None:
    encoder = Encoder.from_seed(0, 12, 64)
    featurize(encoder, source, tmp_path / "out", rows_per_part=UNIT_ROWS, mesh=mesh_of(8))
    assert parts_of(tmp_path / "out") == of_one_device
