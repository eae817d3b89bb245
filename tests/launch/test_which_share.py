"""Which share is this process's: as told, as Slurm or Kubernetes says, or a clear error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.launch import which_share
from scanrnn_dist.launch.which_share import Found, share_of

ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_STEP": "2",
}
TASKS = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
STEP = {**TASKS, "SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0"}
BATCH = {"SLURM_JOB_ID": "9", "SLURM_PROCID": "0", "SLURM_JOB_NUM_NODES": "1"}
"""A script of sbatch's, whose tasks srun has yet to start."""
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
TPU = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c,d"}
SLICES = {**TPU, "MEGASCALE_SLICE_ID": "2", "MEGASCALE_NUM_SLICES": "3"}


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
        ("auto", STEP, (2, 2), "SLURM_PROCID=1, SLURM_NTASKS=2"),
        ("auto", {**STEP, "SLURM_NTASKS": "9", "SLURM_STEP_NUM_TASKS": "2"}, (2, 2), "SLURM_STEP_NUM_TASKS=2"),
        ("auto", {**TASKS, "SLURM_PROCID": "0"}, (1, 2), "no SLURM_STEP_ID; if srun did not start this, only one"),
        ("auto", BATCH, (1, 1), "SLURM_PROCID=0, one task"),
        ("auto", {**BATCH, **ARRAY}, (4, 4), "from 1 on"),
        ("auto", TORCHRUN, (6, 8), "torchrun: RANK=5, WORLD_SIZE=8"),
        ("auto", OPEN_MPI, (6, 8), "Open MPI: OMPI_COMM_WORLD_RANK=5, OMPI_COMM_WORLD_SIZE=8"),
        ("auto", {"PMI_RANK": "0", "PMI_SIZE": "3"}, (1, 3), "MPI: PMI_RANK=0, PMI_SIZE=3"),
        ("auto", TPU, (2, 4), "TPU: TPU_WORKER_ID=1, 4 TPU_WORKER_HOSTNAMES"),
        ("auto", SLICES, (10, 12), "MEGASCALE_SLICE_ID=2, MEGASCALE_NUM_SLICES=3"),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, (4, 10), "AWS Batch array"),
        ("auto/7", {"AWS_BATCH_JOB_ARRAY_INDEX": "3"}, (4, 7), "AWS Batch array"),
        ("auto", {"AWS_BATCH_JOB_NODE_INDEX": "0", "AWS_BATCH_JOB_NUM_NODES": "2"}, (1, 2), "AWS Batch nodes"),
        ("auto", {"BATCH_TASK_INDEX": "1", "BATCH_TASK_COUNT": "2"}, (2, 2), "Google Batch: BATCH_TASK_INDEX=1"),
        ("auto", {"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "5"}, (1, 5), "Cloud Run"),
        # Several that tell: they agree, or one of them is alone, or the closest one counts what the others started.
        ("auto", {**TPU, "JOB_COMPLETION_INDEX": "1"}, (2, 4), "TPU"),
        ("auto", {**SLICES, "JOB_COMPLETION_INDEX": "1"}, (10, 12), "TPU"),
        (
            "auto/9",
            {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost", "JOB_COMPLETION_INDEX": "7"},
            (8, 9),
            "K",
        ),
        ("auto", {**STEP, "PMI_RANK": "1", "PMI_SIZE": "2"}, (2, 2), "MPI"),
        ("auto", {**STEP, **OPEN_MPI}, (6, 8), "Open MPI"),
        ("auto", {**BATCH, "SLURM_NTASKS": "8", **OPEN_MPI}, (6, 8), "Open MPI"),
        ("auto", {**STEP, **TORCHRUN, "LOCAL_WORLD_SIZE": "4"}, (6, 8), "torchrun"),
        ("auto", {**OPEN_MPI, **ARRAY}, (30, 32), "from 1 on; Open MPI"),
        ("auto", {"RANK": "captain", **TASKS}, (2, 2), "Slurm"),
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
        ("auto", {"SLURM_ARRAY_TASK_ID": "5"}, "does not tell how many"),
        ("auto/0", {"JOB_COMPLETION_INDEX": "0"}, "There are no 0 shares"),
        ("3", {}, "expected K/N such as 3/16"),
        ("-1/4", {}, "expected K/N"),
        ("1/4/2", {}, "expected K/N"),
        ("auto", {}, "found nothing that tells.*or --shard K/N"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "does not tell how many shares there are; expected --shard auto/N"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "3"}, "Share 4 of 2 does not exist"),
        ("auto/4", TASKS, "leave out one of them"),
        ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "8"}, "is no array of equal steps"),
        ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "9"}, "is no array of equal steps"),
        ("auto", {"SLURM_PROCID": "x", "SLURM_NTASKS": "2"}, "SLURM_PROCID is 'x'; expected a number"),
        ("auto", {**BATCH, "SLURM_NTASKS": "4"}, "batch script.*not as 4 tasks: 1 of 4 shares.*srun scanrnn"),
        ("auto/4", {**BATCH, "SLURM_NTASKS": "4"}, "Expected srun"),
        ("auto", {**BATCH, **ARRAY, "SLURM_NTASKS": "4"}, "Expected srun"),
        ("auto", {**BATCH, "SLURM_JOB_NUM_NODES": "3"}, "on 3 nodes.*1 of 3 shares"),
        ("auto", {**BATCH, "SLURM_STEP_ID": str(0xFFFFFFFA), "SLURM_NTASKS": "2"}, "batch script or shell"),
        ("auto", {**STEP, **TORCHRUN, "LOCAL_WORLD_SIZE": "8"}, "torchrun: RANK=5.*but Slurm.*different shares"),
        ("auto", {**TORCHRUN, "JOB_COMPLETION_INDEX": "1"}, "torchrun.*but Kubernetes.*Expected --shard K/N"),
        (
            "auto",
            {
                "BATCH_TASK_INDEX": "1",
                "BATCH_TASK_COUNT": "2",
                "AWS_BATCH_JOB_ARRAY_INDEX": "1",
                "AWS_BATCH_JOB_ARRAY_SIZE": "3",
            },
            "AWS Batch.*but Google Batch",
        ),
        (
            "auto",
            {"AWS_BATCH_JOB_ARRAY_INDEX": "3"},
            "does not tell how many shares there are; expected --shard auto/N",
        ),
    ],
)
def test_what_does_not_fit_is_refused(told: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        share_of(told, environment)


def test_a_process_of_jax_distributed_is_seen_before_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(which_share, "_jax", lambda: Found(2, 3, "jax.distributed: process 2 of 3"))
    assert share_of("auto", TASKS) == ((3, 3), "jax.distributed: process 2 of 3")


def test_where_jax_distributed_has_one_process_the_scheduler_may_have_several() -> None:
    code = (
        "import jax, socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
        "s.bind(('127.0.0.1', 0)); port = s.getsockname()[1];"  # gRPC can share it, and nobody else takes it
        "jax.distributed.initialize(f'127.0.0.1:{port}', num_processes=1, process_id=0);"
        "from scanrnn_dist.launch import share_of;"
        f"print(share_of('auto', {{}}), share_of('auto', {TASKS}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    alone, of_slurm = "((1, 1), 'jax.distributed: process 0 of 1')", share_of("auto", TASKS)
    assert run.stdout.strip() == f"{alone} {of_slurm}" and of_slurm[0] == (2, 2), run.stderr
