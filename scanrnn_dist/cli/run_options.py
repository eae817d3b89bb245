"""How a job is run, as flags: with what it is computed, by whom, with which memory; and what these flags ask for.

`RunFlags` has a field for each flag. What a job does is said by the flags of `JobOptions`, in `options.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from scanrnn_dist.cli.computation import AskedComputation
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
    MaxBadRows,
    Memory,
    Retry,
    bytes_told,
    choice,
    count,
    flag,
    given,
    option,
    read_input,
)
from scanrnn_dist.errors import ConfigError, flag_of
from scanrnn_dist.observe import to_stderr

if TYPE_CHECKING:
    from scanrnn_dist.job import Executor, Handling


@dataclass(frozen=True)
class RunFlags:
    """What was said of how a job is run; None and False where nothing was."""

    encoder: Annotated[
        Path | None,
        option("An encoder file (.safetensors), with your own weights.", "--encoder", group=ENCODER, metavar="FILE"),
    ] = None
    hidden: Annotated[int | None, count("Number of features, by a GRU with random weights.", group=ENCODER)] = None
    seed: Annotated[int | None, option("Seed of the random weights (default: 0).", group=ENCODER, metavar="N")] = None
    input: InputFile = None
    devices: Devices = None
    processes: Annotated[
        int | None,
        count(
            "Work in N processes of this machine, each with one GPU or a share of the cores (default: one per GPU).",
            group=SHARING,
        ),
    ] = None
    engine: Annotated[
        str | None,
        choice("Who does the work: this machine, or the workers of a Ray cluster", "local", "ray", group=RAY),
    ] = None
    address: Annotated[
        str | None,
        option(
            "With --engine ray: HOST:PORT of the cluster's head, auto for the cluster of this machine, or local to "
            "start one (default: RAY_ADDRESS, else auto, else local).",
            group=RAY,
            metavar="HOST:PORT",
        ),
    ] = None
    workers: Annotated[
        int | None,
        count("With --engine ray: number of workers (default: as many as the cluster has room for).", group=RAY),
    ] = None
    cpus_per_worker: Annotated[
        int | None, count("With --engine ray: CPUs of each worker, and its CPU devices (default: 1).", group=RAY)
    ] = None
    gpus_per_worker: Annotated[
        int | None, count("With --engine ray: GPUs of each worker; 1 is best (default: none).", group=RAY)
    ] = None
    kernel: Annotated[
        str | None,
        choice(
            "The program that computes; native is C++ for the usual cells on a CPU, xla is for everything",
            "native",
            "xla",
            group=SPEED,
            default="native if possible; a job keeps the one it began with",
        ),
    ] = None
    lanes: Annotated[
        int | None,
        count(
            "Rows computed side by side on each device (default: depends on the device).", group=SPEED, metavar="ROWS"
        ),
    ] = None
    block_steps: Annotated[
        int | None,
        count(
            "With kernel xla, a row starts only at every STEPS-th step (default: depends on the device).",
            group=SPEED,
            metavar="STEPS",
        ),
    ] = None
    window_blocks: Annotated[
        int | None,
        count(
            "Blocks of --block-steps in one call of the compiled program (default: depends on the device).",
            group=SPEED,
            metavar="BLOCKS",
        ),
    ] = None
    shard: Annotated[
        str | None,
        option(
            "Do only the K-th of N shares of the job. auto takes the share from whatever started this process: Slurm, "
            "MPI, torchrun, a TPU pod, a cloud's batch service, or Kubernetes (auto/N).",
            group=SHARING,
            metavar="K/N",
        ),
    ] = None
    steal: Annotated[
        bool, flag("When this share is done, take over shares of processes that stopped.", "--steal", SHARING)
    ] = False
    allow_mixed: AllowMixed = False
    restart: Annotated[
        bool,
        flag("Start from nothing. The new output replaces the old one when it is complete.", "--restart", GOING_ON),
    ] = False
    accept_changes: Annotated[
        bool,
        flag(
            "Accept that files of SRC were changed, added or removed: redo only their rows.",
            "--accept-changes",
            GOING_ON,
        ),
    ] = False
    max_bad_rows: MaxBadRows = None
    retry: Retry = False
    memory: Memory = None
    lock_seconds: Annotated[
        float | None,
        option(
            "Seconds of silence after which a process counts as dead (default: 60).",
            group=SHARING,
            metavar="SECONDS",
            min=0.1,
        ),
    ] = None
    profile: Annotated[
        Path | None, option("Write a trace for TensorBoard and Perfetto to this folder.", group=SPEED, metavar="DIR")
    ] = None
    profile_seconds: Annotated[
        float | None,
        option(
            "How many seconds --profile traces, after compilation (default: 2).",
            group=SPEED,
            metavar="SECONDS",
            min=0,
            max=MOST,
        ),
    ] = None
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
        """Who does the work: processes of this machine, or a Ray cluster; None for this process.

        Raises:
            ConfigError: an engine that there is none of, flags of another one, or a trace where others work.
        """
        engine, is_traced = self.engine or "local", self.profile is not None
        if engine not in ("local", "ray"):
            raise ConfigError(f"--engine is {engine!r}; expected local or ray.")
        if is_traced and (engine == "ray" or self.processes is not None):
            raise ConfigError(
                "--profile traces this process, but with --processes or --engine ray others compute; leave one out."
            )
        names = ("address", "workers", "cpus_per_worker", "gpus_per_worker")
        ray: dict[str, Any] = given(**{name: getattr(self, name) for name in names})
        if engine == "ray":
            if self.processes is not None or self.devices is not None:
                raise ConfigError("--processes and --devices are for this machine; with --engine ray say --workers.")
            from scanrnn_dist.launch import RayExecutor

            return RayExecutor(**ray)
        if ray:
            told = ", ".join(map(flag_of, ray))
            raise ConfigError(f"{told} is for --engine ray, which was not given.")
        from scanrnn_dist.launch import ProcessExecutor, visible_gpus

        if self.processes is None and (is_traced or len(visible_gpus()) < 2):
            return None
        return ProcessExecutor(self.processes, self.devices)


def _share(shard: str | None) -> tuple[int, int] | None:
    """The share that --shard means, said where it was not told but seen."""
    if shard is None:
        return None
    from scanrnn_dist.launch import share_of

    share, seen = share_of(shard)
    if shard.startswith("auto"):
        to_stderr(f"--shard {shard} is {share[0]}/{share[1]}: {seen}.")
    return share
