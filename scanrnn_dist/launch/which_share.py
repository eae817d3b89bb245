"""Which share of a job is this process's: as it was told, or as the scheduler that started it says.

Processes that share a job need not know one another: every one takes the units of its share, and whoever finds the last
unit committed declares the job finished. So nothing here opens a connection or waits.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from scanrnn_dist.errors import ConfigError

LAUNCHERS = (
    ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MPI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
)
"""What starts processes, the closest to a process first: variables of index, count, and how many on this machine."""
PLATFORMS = (
    ("AWS Batch array", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("AWS Batch nodes", "AWS_BATCH_JOB_NODE_INDEX", "AWS_BATCH_JOB_NUM_NODES"),
    ("Google Batch", "BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
    ("Cloud Run", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    ("Kubernetes", "JOB_COMPLETION_INDEX", ""),  # its number of completions is told to nobody
)
"""What starts machines or containers: variables of index and count."""
FIRST_SPECIAL_STEP = 0xFFFF_FF00
"""Slurm's numbers for what srun did not start: the batch script (0xfffffffb), an interactive shell (0xfffffffa), ..."""


@dataclass(frozen=True)
class Found:
    """Index from 0, count if it is told, what was seen, and whether it counts processes of several machines."""

    index: int
    count: int | None
    seen: str
    is_of_machines: bool = False


def share_of(told: str, environment: Mapping[str, str] | None = None) -> tuple[tuple[int, int], str]:
    """The share `(k, n)` that a `--shard` means, counted from 1, and what that was taken from.

    Args:
        told: "3/16" for the third of 16; "auto" to take it from `jax.distributed` or who started this process;
            "auto/16" where the index is told but not of how many, as by Kubernetes.
        environment: where schedulers leave their word; this process's when None.

    Raises:
        ConfigError: neither of these, an index that does not fit, nothing that tells, several that tell different
            shares, or a batch script of Slurm's for several tasks, of which srun has to start each.

    Example:
        >>> share_of("3/16")
        ((3, 16), '--shard 3/16')
        >>> share_of("auto", {"SLURM_PROCID": "4", "SLURM_NTASKS": "8"})
        ((5, 8), 'Slurm: SLURM_PROCID=4, SLURM_NTASKS=8')
    """
    match = re.fullmatch(r"(auto|\d+)(?:/(\d+))?", told)
    if match is None or (match[1] != "auto" and match[2] is None):
        raise ConfigError(f"--shard is {told!r}; expected K/N such as 3/16, counted from 1, or auto, or auto/N.")
    count = int(match[2]) if match[2] else None
    if match[1] != "auto":
        index, seen = int(match[1]) - 1, f"--shard {told}"
        assert count is not None
    else:
        index, count, seen = _seen(count, os.environ if environment is None else environment)
    if count < 1:
        raise ConfigError(f"There are no {count} shares ({seen}); expected 1 or more.")
    if not 0 <= index < count:
        raise ConfigError(
            f"Share {index + 1} of {count} does not exist ({seen}); expected 1/{count} to {count}/{count}: shares are "
            "counted from 1."
        )
    return (index + 1, count), seen


def _seen(count: int | None, environment: Mapping[str, str]) -> tuple[int, int, str]:
    """The share that `--shard auto` means."""
    found = _jax()
    if found is None or found.count == 1:  # of one process, it may still be one of many
        found = _started(environment) or found
    if found is None:
        names = ", ".join(index for _, index, *_ in (*LAUNCHERS, *PLATFORMS))
        raise ConfigError(
            "--shard auto found nothing that tells which share this is: no jax.distributed, no SLURM_PROCID "
            f"or SLURM_ARRAY_TASK_ID, no TPU_WORKER_ID, {names}. Expected one of them, or --shard K/N."
        )
    if found.count is None and count is None:
        raise ConfigError(f"{found.seen} does not tell how many shares there are; expected --shard auto/N.")
    if found.count is not None and count not in (None, found.count):
        raise ConfigError(f"--shard auto/{count} was given, but {found.seen}; leave out one of them.")
    total = count if found.count is None else found.count
    assert total is not None
    return found.index, total, found.seen


def _jax() -> Found | None:
    """`jax.distributed`, where this process has begun it."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return None
    index, count = jax.process_index(), jax.process_count()
    return Found(index, count, f"jax.distributed: process {index} of {count}")


def _started(environment: Mapping[str, str]) -> Found | None:
    """What started this process: the closest of those that tell of more than one, within an array of Slurm's."""
    launchers = [_told(environment, *names) for names in LAUNCHERS]
    platforms = [_told(environment, *names) for names in PLATFORMS]
    is_launched = any(launchers)  # by mpirun in a batch script, for example
    all_found = [*launchers, _slurm_task(environment, is_launched), _tpu(environment), *platforms]
    found = [each for each in all_found if each is not None]
    several = [each for each in found if each.count != 1]  # of one process, another one may still be one of many
    if not several:
        return _within_array(found[0] if found else None, environment)
    closest, *others = several
    for other in others:
        is_same = other.index == closest.index and (
            None in (other.count, closest.count) or other.count == closest.count
        )
        if not is_same and not closest.is_of_machines:  # if it is, it counts what the other one started, too
            raise ConfigError(f"{closest.seen}; but {other.seen}. These are different shares. Expected --shard K/N.")
    return _within_array(closest, environment)


def _told(environment: Mapping[str, str], who: str, index: str, count: str, here: str | None = None) -> Found | None:
    """What a launcher or a platform tells; a launcher always tells of how many."""
    if here is not None and not environment.get(count):
        return None  # RANK alone is anybody's word
    first, second = _number(environment, index), _number(environment, count)
    if first is None:
        return None
    on_this_machine = _number(environment, here) if here else None
    is_of_machines = None not in (second, on_this_machine) and on_this_machine != second
    return Found(first, second, f"{who}: {_say(environment, index, count)}", is_of_machines)


def _slurm_task(environment: Mapping[str, str], is_launched: bool) -> Found | None:
    """The tasks of a job step of Slurm's; the batch script is none, though it looks like the first of them."""
    index, step = _number(environment, "SLURM_PROCID"), environment.get("SLURM_STEP_ID", "")
    if index is None:
        return None
    is_step = step.isdigit() and int(step) < FIRST_SPECIAL_STEP
    of = "SLURM_STEP_NUM_TASKS" if is_step and environment.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    count, seen = _number(environment, of), f"Slurm: {_say(environment, 'SLURM_PROCID', of)}"
    if is_step or (not environment.get("SLURM_JOB_ID") and index):
        return Found(index, count, seen)
    if not environment.get("SLURM_JOB_ID"):
        hint = ", but no SLURM_STEP_ID; if srun did not start this, only one share is done" if count != 1 else ""
        return Found(index, count, seen + hint)
    if is_launched:
        return None
    nodes = _number(environment, "SLURM_JOB_NUM_NODES") or 1
    tasks = max(count or 1, nodes)
    if tasks > 1:
        raise ConfigError(
            f"{seen}, on {nodes} nodes, but this is the job's batch script or shell, which runs once, not as {tasks} "
            f"tasks: 1 of {tasks} shares would be done. Expected srun: srun scanrnn ... --shard auto."
        )
    return Found(0, 1, f"{seen}, one task")


def _within_array(found: Found | None, environment: Mapping[str, str]) -> Found | None:
    """The element of an array of Slurm's; where each has several processes, one of these."""
    array = _told(environment, "Slurm array", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    if array is None:
        return found
    first = _number(environment, "SLURM_ARRAY_TASK_MIN") or 0
    index, rest = divmod(array.index - first, _number(environment, "SLURM_ARRAY_TASK_STEP") or 1)
    if array.count is None:
        return Found(index, None, array.seen)
    seen = f"{array.seen}, from {first} on"
    if rest or not 0 <= index < array.count:
        raise ConfigError(f"{seen}, is no array of equal steps; expected one, or --shard K/N.")
    if found is None or not found.count or found.count == 1:
        return Found(index, array.count, seen)
    return Found(index * found.count + found.index, array.count * found.count, f"{seen}; {found.seen}")


def _tpu(environment: Mapping[str, str]) -> Found | None:
    """The hosts of a slice of TPUs, or of several slices, counted as JAX does."""
    worker, slices = _number(environment, "TPU_WORKER_ID"), _number(environment, "MEGASCALE_NUM_SLICES") or 1
    hosts = [name for name in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
    if worker is None or not hosts:
        return None
    seen = f"TPU: TPU_WORKER_ID={worker}, {len(hosts)} TPU_WORKER_HOSTNAMES"
    if slices == 1:
        return Found(worker, len(hosts), seen, len(hosts) > 1)
    number = _number(environment, "MEGASCALE_SLICE_ID") or 0
    seen += f", MEGASCALE_SLICE_ID={number}, MEGASCALE_NUM_SLICES={slices}"
    return Found(number * len(hosts) + worker, slices * len(hosts), seen, True)


def _say(environment: Mapping[str, str], *names: str) -> str:
    """Variables with their values."""
    return ", ".join(f"{name}={environment[name]}" for name in names if environment.get(name))


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    if value and not value.isdigit():
        raise ConfigError(f"{name} is {value!r}; expected a number. Give --shard K/N.")
    return int(value) if value else None
