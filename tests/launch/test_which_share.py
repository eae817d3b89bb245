"""Which share is this process's: as told, as Slurm or Kubernetes says, or a clear error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.launch.which_share import share_of

ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_STEP": "2",
}
TASKS = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    ("told", "environment", "share", "says"),
    [
        ("1/1", {}, (1, 1), "--shard 1/1"),
        ("16/16", TASKS, (16, 16), "--shard 16/16"),
        ("auto", TASKS, (2, 2), "SLURM_PROCID=1, SLURM_NTASKS=2"),
        ("auto", ARRAY, (4, 4), "SLURM_ARRAY_TASK_ID=7, SLURM_ARRAY_TASK_COUNT=4, from 1 on"),
        ("auto", {**ARRAY, **TASKS}, (8, 8), "from 1 on; Slurm: SLURM_PROCID=1"),
        ("auto", {**ARRAY, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (4, 4), "from 1 on"),
        ("auto/16", {"JOB_COMPLETION_INDEX": "3"}, (4, 16), "Kubernetes: JOB_COMPLETION_INDEX=3"),
        ("auto/2", TASKS, (2, 2), "Slurm"),
        ("auto/9", {"SLURM_ARRAY_TASK_ID": "5"}, (6, 9), "SLURM_ARRAY_TASK_ID=5"),
    ],
)
def test_a_share_is_what_is_told_or_seen(
    told: str, environment: dict[str, str], share: tuple[int, int], says: str
) -> None:
    found, seen = share_of(told, environment)
    assert found == share
    assert says in seen


@pytest.mark.parametrize(
    ("told", "environment", "says"),
    [
        ("0/4", {}, "Share 0 of 4 does not exist.*counted from 1"),
        ("5/4", {}, "Share 5 of 4 does not exist"),
        ("1/0", {}, "There are no 0 shares"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "5"}, "does not tell of how many"),
        ("auto/0", {"JOB_COMPLETION_INDEX": "0"}, "There are no 0 shares"),
        ("3", {}, "expected K/N such as 3/16"),
        ("-1/4", {}, "expected K/N"),
        ("1/4/2", {}, "expected K/N"),
        ("auto", {}, "found nothing that tells.*or --shard K/N"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "does not tell of how many; expected --shard auto/N"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "3"}, "Share 4 of 2 does not exist"),
        ("auto/4", TASKS, "leave out one of them"),
        ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "8"}, "is no array of equal steps"),
        ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "9"}, "is no array of equal steps"),
        ("auto", {"SLURM_PROCID": "x", "SLURM_NTASKS": "2"}, "SLURM_PROCID is 'x'; expected a number"),
    ],
)
def test_what_does_not_fit_is_refused(told: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        share_of(told, environment)


def test_a_process_of_jax_distributed_is_seen_before_the_scheduler() -> None:
    code = (
        "import jax, socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]; s.close();"
        "jax.distributed.initialize(f'127.0.0.1:{port}', num_processes=1, process_id=0);"
        "from scanrnn_dist.launch import share_of;"
        "print(share_of('auto', {'SLURM_PROCID': '1', 'SLURM_NTASKS': '2'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "((1, 1), 'jax.distributed: process 0 of 1')", run.stderr
