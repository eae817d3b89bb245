"""How a job is run, as flags: with what it is computed, by whom, with which memory; and what these flags ask for.

`RunFlags` has a field for each flag. What a job does is said by the flags of `JobOptions`, in `options.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from scanrnn_dist.cli.computation import AskedComputation
from scanrnn_dist.cli.executor import executor_of
from scanrnn_dist.cli.options import (
    ENCODER,
    GOING_ON,
    MOST,
    RAY,
    SHARING,
    SPEED,
    AllowMixed,
    CacheFolder,
    Devices,
    InputFile,
    Memory,
    bytes_told,
    choice,
    count,
    flag,
    given,
    option,
    read_input,
)
from scanrnn_dist.observe import to_stderr

if TYPE_CHECKING:
    from scanrnn_dist.job import Executor, Handling

EncoderFile = Annotated[
    Path | None,
    option("An encoder file (.safetensors), with your own weights.", "--encoder", group=ENCODER, metavar="FILE"),
]
Hidden = Annotated[int | None, count("Number of features, by a GRU with random weights.", group=ENCODER)]
Seed = Annotated[int | None, option("Seed of the random weights (default: 0).", group=ENCODER, metavar="N")]

Restart = Annotated[
    bool,
    flag("Start from nothing. The new output replaces the old one when it is complete.", "--restart", GOING_ON),
]
AcceptChanges = Annotated[
    bool,
    flag(
        "Accept that files of SRC were changed, added or removed: redo only their rows.", "--accept-changes", GOING_ON
    ),
]
MaxBadRows = Annotated[
    int | None,
    option("Stop once more than N bad rows were left out by a skip.", group=GOING_ON, metavar="N", min=0, max=MOST),
]
Retry = Annotated[bool, flag("Retry rows that crashed the process twice.", "--retry", GOING_ON)]

Processes = Annotated[
    int | None,
    count(
        "Work in N processes of this machine, each with one GPU or a share of the cores (default: one per GPU).",
        group=SHARING,
    ),
]
ShareText = Annotated[
    str | None,
    option(
        "Do only the K-th of N shares of the job. auto takes the share from whatever started this process: Slurm, MPI, "
        "torchrun, a TPU pod, a cloud's batch service, or Kubernetes (auto/N).",
        group=SHARING,
        metavar="K/N",
    ),
]
Steal = Annotated[
    bool, flag("When this share is done, take over shares of processes that stopped.", "--steal", SHARING)
]
LockSeconds = Annotated[
    float | None,
    option(
        "Seconds of silence after which a process counts as dead (default: 60).",
        group=SHARING,
        metavar="SECONDS",
        min=0.1,
    ),
]

Kernel = Annotated[
    str | None,
    choice(
        "The program that computes; native is C++ for the usual cells on a CPU, xla is for everything",
        "native",
        "xla",
        group=SPEED,
        default="native if possible; a job keeps the one it began with",
    ),
]
Lanes = Annotated[
    int | None,
    count("Rows computed side by side on each device (default: depends on the device).", group=SPEED, metavar="ROWS"),
]
BlockSteps = Annotated[
    int | None,
    count(
        "With kernel xla, a row starts only at every STEPS-th step (default: depends on the device).",
        group=SPEED,
        metavar="STEPS",
    ),
]
WindowBlocks = Annotated[
    int | None,
    count(
        "Blocks of --block-steps in one call of the compiled program (default: depends on the device).",
        group=SPEED,
        metavar="BLOCKS",
    ),
]
ProfileFolder = Annotated[
    Path | None, option("Write a trace for TensorBoard and Perfetto to this folder.", group=SPEED, metavar="DIR")
]
ProfileSeconds = Annotated[
    float | None,
    option(
        "How many seconds --profile traces, after compilation (default: 2).",
        group=SPEED,
        metavar="SECONDS",
        min=0,
        max=MOST,
    ),
]

Engine = Annotated[
    str | None, choice("Who does the work: this machine, or the workers of a Ray cluster", "local", "ray", group=RAY)
]
Address = Annotated[
    str | None,
    option(
        "With --engine ray: HOST:PORT of the cluster's head, auto for the cluster of this machine, or local to start "
        "one (default: RAY_ADDRESS, else auto, else local).",
        group=RAY,
        metavar="HOST:PORT",
    ),
]
Workers = Annotated[
    int | None,
    count("With --engine ray: number of workers (default: as many as the cluster has room for).", group=RAY),
]
CpusPerWorker = Annotated[
    int | None, count("With --engine ray: CPUs of each worker, and its CPU devices (default: 1).", group=RAY)
]
GpusPerWorker = Annotated[
    int | None, count("With --engine ray: GPUs of each worker; 1 is best (default: none).", group=RAY)
]


@dataclass(frozen=True)
class RunFlags:
    """What was said of how a job is run; None and False where nothing was."""

    encoder: EncoderFile = None
    hidden: Hidden = None
    seed: Seed = None
    input: InputFile = None
    devices: Devices = None
    processes: Processes = None
    engine: Engine = None
    address: Address = None
    workers: Workers = None
    cpus_per_worker: CpusPerWorker = None
    gpus_per_worker: GpusPerWorker = None
    kernel: Kernel = None
    lanes: Lanes = None
    block_steps: BlockSteps = None
    window_blocks: WindowBlocks = None
    shard: ShareText = None
    steal: Steal = False
    allow_mixed: AllowMixed = False
    restart: Restart = False
    accept_changes: AcceptChanges = False
    max_bad_rows: MaxBadRows = None
    retry: Retry = False
    memory: Memory = None
    lock_seconds: LockSeconds = None
    profile: ProfileFolder = None
    profile_seconds: ProfileSeconds = None
    compilation_cache: CacheFolder = None

    def computation(self, may_choose: bool = False, check_fits: bool = True) -> AskedComputation:
        """What these flags ask to compute with; `ConfigError` where they exclude one another."""
        sizes = given(lanes=self.lanes, block_steps=self.block_steps, window_blocks=self.window_blocks)
        return AskedComputation(
            self.encoder, self.hidden, self.seed, sizes, self.devices, self.compilation_cache,
            kernel=self.kernel, input=read_input(self.input), may_choose=may_choose, check_fits=check_fits,
        )  # fmt: skip

    def handling(self) -> Handling:
        """What may be done with a job that stands there, and who shares it."""
        from scanrnn_dist.job import Handling, Sharing

        told = given(share=_share(self.shard), expiry_seconds=self.lock_seconds)
        return Handling(
            self.allow_mixed,
            self.restart,
            self.accept_changes,
            sharing=Sharing(**told, steal=self.steal, retry=self.retry, owns_process=True),
            max_bad_rows=self.max_bad_rows,
            memory_bytes=bytes_told(self.memory),
        )

    def executor(self) -> Executor | None:
        """Who does the work; None for this process."""
        names = ("address", "workers", "cpus_per_worker", "gpus_per_worker")
        ray: dict[str, Any] = given(**{name: getattr(self, name) for name in names})
        return executor_of(self.engine or "local", self.processes, self.devices, ray, self.profile is not None)


def _share(shard: str | None) -> tuple[int, int] | None:
    """The share that --shard means, said where it was not told but seen."""
    if shard is None:
        return None
    from scanrnn_dist.launch import share_of

    share, seen = share_of(shard)
    if shard.startswith("auto"):
        to_stderr(f"--shard {shard} is {share[0]}/{share[1]}: {seen}.")
    return share
