"""The launchers of `pipelines/`, without their clusters: what a scheduler would start is run as it would be started."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import entries, mesh_of, random_rows, write_source

from scanrnn_dist.api import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.records import SUCCESS

pytestmark = pytest.mark.soak

PIPELINES = Path(__file__).parent.parent / "pipelines"
FLAGS = ["--hidden", "8", "--rows-per-part", "20"]
SRUN = """#!/bin/bash
SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=$SLURM_NTASKS exec "$@"
"""
"""Starts one task, as Slurm's own does where there is one."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = random_rows(np.random.default_rng(0).integers(1, 60, 200))
    return write_source(tmp_path_factory.mktemp("source") / "a.parquet", rows, row_group_size=20)


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has `scanrnn` and `srun`."""
    (tmp_path / "bin").mkdir()
    scanrnn = f'#!/bin/bash\nexec "{sys.executable}" -m scanrnn_dist "$@"\n'
    for name, text in {"scanrnn": scanrnn, "srun": SRUN}.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    own = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    return {**own, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def said_by(command: list[Any], environment: dict[str, str], expected: int = 0) -> str:
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


def check_parts(source: Path, out: Path) -> None:
    """The parts are those of one process with one device."""
    plain = out.with_name("plain")
    featurize(Encoder.from_seed(0, 3, 8), source, plain, rows_per_part=20, mesh=mesh_of(1))
    ours, wanted = (
        {name: content for name, content in entries(folder).items() if name.startswith("part-")}
        for folder in (out, plain)
    )
    assert (out / SUCCESS).exists() and len(ours) == 10 and ours == wanted


def test_an_element_of_the_slurm_array_does_its_share_then_those_that_nobody_began(
    tmp_path: Path, source: Path, programs: dict[str, str]
) -> None:
    script, out = PIPELINES / "featurize_slurm_array.sh", tmp_path / "out"
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}
    job = {**programs, **array, "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    said = said_by(["bash", script, source, out, *FLAGS], job)
    assert "--shard auto is 2/4: Slurm array: SLURM_ARRAY_TASK_ID=2" in said
    check_parts(source, out)
    assert any(line.startswith("#SBATCH --array=1-") for line in script.read_text().splitlines())


def test_a_batch_script_of_several_tasks_without_srun_is_refused(
    tmp_path: Path, source: Path, programs: dict[str, str]
) -> None:
    job = {**programs, "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    said = said_by(["scanrnn", "featurize", source, tmp_path / "out", *FLAGS, "--shard", "auto"], job, expected=2)
    assert "1 of 4 shares would be done. Expected srun" in said
    assert not (tmp_path / "out").exists()


def test_the_gpu_launcher_leaves_the_number_of_processes_to_the_command_unless_it_is_told(
    tmp_path: Path, source: Path, programs: dict[str, str]
) -> None:
    traced, cpu = ["bash", "-x", PIPELINES / "featurize_gpus.sh", source], {**programs, "JAX_PLATFORMS": "cpu"}
    assert "--processes" not in said_by([*traced, tmp_path / "out", *FLAGS], cpu)
    assert "20 --processes 2\n" in said_by([*traced, tmp_path / "two", *FLAGS], {**cpu, "PROCESSES": "2"})
    check_parts(source, tmp_path / "out")


def test_a_pod_of_the_kubernetes_job_does_its_share_then_those_that_nobody_began(
    tmp_path: Path, source: Path, programs: dict[str, str]
) -> None:
    yaml = pytest.importorskip("yaml")
    spec = yaml.safe_load((PIPELINES / "featurize_kubernetes.yaml").read_text())["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    name, verb, _, _, _, *flags = container["command"]
    assert (name, verb, spec["completionMode"]) == ("scanrnn", "featurize", "Indexed")
    assert f"--shard=auto/{spec['completions']}" in flags and spec["parallelism"] == spec["completions"]
    rules = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert {rule["containerName"] for rule in rules} == {container["name"]}
    pod = {**programs, "JOB_COMPLETION_INDEX": "3"}
    said = said_by([name, verb, source, tmp_path / "out", *FLAGS, *flags], pod)
    assert f"--shard auto/{spec['completions']} is 4/{spec['completions']}: Kubernetes" in said
    check_parts(source, tmp_path / "out")
