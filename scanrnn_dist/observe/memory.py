"""How much memory this process may use and has used, and the refusal of what could never fit.

Reads what Linux tells; what a job needs is known to those who ask.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from scanrnn_dist.errors import ConfigError

MEMORY_SHARE = 8
"""One of the parts of a job may hold an eighth of what its process may use, where nobody said how much."""
_UNTOLD_BYTES = 1 << 30
"""Where the system does not say how much memory there is."""


def usable_bytes(root: Path = Path("/")) -> int | None:
    """The memory of the machine, or the lowest limit of this process or of its control groups; None where untold."""
    machine = [line for line in _lines(root / "proc/meminfo") if line.startswith("MemTotal:")]
    return min([*(int(line.split()[1]) << 10 for line in machine), *_of_groups(root), *_of_process()], default=None)


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: those that it may run on, or fewer by the lowest quota of its control groups.

    A container with a limit of 4 CPUs may run on all cores of its node, 4 of them at a time.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *_quotas(root)])


def cpu_devices_are_chosen(devices: int | None = None) -> bool:
    """Whether a variable says how many CPU devices JAX has: the user's own choice, which stays.

    Raises:
        ConfigError: `devices` says it, too.
    """
    by_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    is_chosen = by_flag or "JAX_NUM_CPU_DEVICES" in os.environ
    if is_chosen and devices is not None:
        raise ConfigError("--devices and XLA_FLAGS or JAX_NUM_CPU_DEVICES both set the CPU devices; leave one out.")
    return is_chosen


def check_cpus_compute(devices: int | None, platform: str) -> None:
    """Refuse a number of CPU devices where JAX's devices are others: they would compute as if it had not been said.

    Raises:
        ConfigError: `devices` is given, and the platform is not "cpu".
    """
    if devices is not None and platform != "cpu":
        raise ConfigError(
            f"--devices is for CPUs, but here the {platform.upper()}s compute: leave it out, or set JAX_PLATFORMS=cpu."
        )


def share_of_memory() -> int:
    """What one of the parts of a job may hold where nobody said how much: an eighth of what this process may use.

    Such parts are: a reader of a file, the rows that the devices will work on next, and features that wait for earlier
    ones.
    """
    usable = usable_bytes()
    return _UNTOLD_BYTES if usable is None else max(1, usable // MEMORY_SHARE)


def bytes_of(text: str) -> int:
    """Bytes as people write them, `4GiB`, `500MB` or a plain number.

    Raises:
        ConfigError: it is none, or below 1.

    Example:
        >>> bytes_of("4GiB"), bytes_of("0.5 MB"), bytes_of("4096")
        (4294967296, 500000, 4096)
    """
    told = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]?)(i?)b?", text.strip().lower())
    number = 0.0 if told is None else float(told[1]) * (1024 if told[3] else 1000) ** " kmgt".index(told[2] or " ")
    if not 1 <= number < 2**63:
        raise ConfigError(f"{text!r} is no number of bytes; expected one such as 4GiB, 500MB or 1000000.")
    return int(number)


def check_fits(needed_bytes: int, what: str, remedy: str) -> None:
    """Refuse what needs more memory than this process may use, by a `ConfigError`."""
    usable = usable_bytes()
    if usable is not None and needed_bytes > usable:
        raise ConfigError(
            f"{what} would take {in_mib(needed_bytes)}; this process may use {in_mib(usable)}, all in all. {remedy}"
        )


def peak_memory_bytes(root: Path = Path("/")) -> int:
    """The most memory that this process has had so far.

    On Linux not `ru_maxrss`, which begins with what the parent had: 1,551 MB for a child that never had more than 9. It
    is all there is where a sandbox such as gVisor tells no more.
    """
    for line in _lines(root / "proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_mib(number_of_bytes: int) -> str:
    """Bytes as people read them, `1,024 MiB`."""
    return f"{number_of_bytes >> 20:,} MiB"


def _of_process() -> Iterator[int]:
    """The limits of this process, as of `ulimit -v` and `ulimit -d`."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit


def _of_groups(root: Path) -> Iterator[int]:
    """The limits of all groups above this process; of both versions of control groups."""
    for folder, is_second in _groups(root, "memory"):
        for limit in _lines(folder / ("memory.max" if is_second else "memory.limit_in_bytes"))[:1]:
            if limit.isdigit():  # else "max"
                yield int(limit)


def _quotas(root: Path) -> Iterator[int]:
    """The cores whose time each group above this process may use, where it has such a limit."""
    for folder, is_second in _groups(root, "cpu"):
        names = ["cpu.max"] if is_second else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        told = " ".join(line for name in names for line in _lines(folder / name)[:1]).split()
        if len(told) == 2 and told[0].isdigit():  # else "max", or -1
            yield max(1, -(-int(told[0]) // int(told[1])))


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the groups above this process that control something, and whether of the second version."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        is_second = not controllers
        if not is_second and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # Within a container, the path may be one that only the host sees; the mount is then the group itself.
        group = Path(*(part for part in path.split("/") if part not in ("", "..")))
        for folder in {mount / group, *(mount / above for above in group.parents)}:
            yield folder, is_second


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # no Linux, or no such group
        return []
