"""Which share of a job is this process's: as it was told, or as the scheduler that started it says.

Processes that share a job need not know one another: every one takes the units of its share, and whoever finds the last
unit committed declares the job finished. So nothing here opens a connection or waits.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from scanrnn_dist.errors import ConfigError

Found = tuple[int, int | None, str]
"""Index from 0, count if it is told, and what was seen."""


def share_of(told: str, environment: Mapping[str, str] | None = None) -> tuple[tuple[int, int], str]:
    """The share `(k, n)` that a `--shard` means, counted from 1, and what that was taken from.

    Args:
        told: "3/16" for the third of 16; "auto" to take it from `jax.distributed` or the scheduler; "auto/16" where the
            scheduler tells the index but not of how many, as Kubernetes does.
        environment: where schedulers leave their word; this process's when None.

    Raises:
        ConfigError: neither of these, an index that does not fit, or nothing that tells.

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
    """What the process was started by, the closest first."""
    for look in (_jax, _slurm, _kubernetes):
        found = look(environment)
        if found is not None:
            index, told, seen = found
            if told is None and count is None:
                raise ConfigError(f"{seen} does not tell of how many; expected --shard auto/N.")
            if told is not None and count not in (None, told):
                raise ConfigError(f"--shard auto/{count} was given, but {seen}; leave out one of them.")
            return index, count if told is None else told, seen  # type: ignore[return-value]
    raise ConfigError(
        "--shard auto found nothing that tells: no jax.distributed, no SLURM_PROCID or SLURM_ARRAY_TASK_ID, no "
        "JOB_COMPLETION_INDEX. Expected one of them, or --shard K/N."
    )


def _jax(environment: Mapping[str, str]) -> Found | None:
    """`jax.distributed`, where this process has begun it."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return None
    index, count = jax.process_index(), jax.process_count()
    return index, count, f"jax.distributed: process {index} of {count}"


def _slurm(environment: Mapping[str, str]) -> Found | None:
    """The tasks of a job step, the elements of an array, or the tasks of every element."""
    tasks = _numbers(environment, "Slurm", "SLURM_PROCID", "SLURM_NTASKS")
    array = _numbers(environment, "Slurm array", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    if array is None:
        return tasks
    number, elements, seen = array
    first = _number(environment, "SLURM_ARRAY_TASK_MIN") or 0
    index, rest = divmod(number - first, _number(environment, "SLURM_ARRAY_TASK_STEP") or 1)
    if elements is None:
        return index, None, seen
    if rest or not 0 <= index < elements:
        raise ConfigError(f"{seen}, from {first} on, is no array of equal steps; expected one, or --shard K/N.")
    if tasks is None or not tasks[1] or tasks[1] == 1:
        return index, elements, f"{seen}, from {first} on"
    return index * tasks[1] + tasks[0], elements * tasks[1], f"{seen}, from {first} on; {tasks[2]}"


def _kubernetes(environment: Mapping[str, str]) -> Found | None:
    """The index of an indexed Job; its number of completions is told to nobody."""
    index = _number(environment, "JOB_COMPLETION_INDEX")
    return None if index is None else (index, None, f"Kubernetes: JOB_COMPLETION_INDEX={index}")


def _numbers(environment: Mapping[str, str], who: str, index: str, count: str) -> Found | None:
    first, second = _number(environment, index), _number(environment, count)
    of = f", {count}={second}" if second is not None else ""
    return None if first is None else (first, second, f"{who}: {index}={first}{of}")


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    if value and not value.isdigit():
        raise ConfigError(f"{name} is {value!r}; expected a number. Give --shard K/N.")
    return int(value) if value else None
