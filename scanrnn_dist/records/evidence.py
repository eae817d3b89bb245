"""What tells that a process died of what it did: the trace that a crash leaves, and the kernel's count of OOM kills.

What follows from it is `suspects.py`'s.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.records.names import COMMITS, CRASH
from scanrnn_dist.records.workers import runs, this_machine
from scanrnn_dist.storage import LocalStore, Store, stopping

OUT_OF_MEMORY = "out of memory: the kernel killed it"
_TRACE = "scanrnn-"
_MOST_BYTES = 1 << 16
"""Of a trace; its first line is what counts."""
_CGROUPS = Path("/sys/fs/cgroup")


class CrashTrace:
    """A file that Python writes to when this process crashes: SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL.

    In a folder it stands among the records. For a bucket it stands in the machine's temporary folder, where the next
    attempt on that machine finds it: see `collect_traces`. Nothing is done where somebody has Python's fault handler
    already.

    Raises:
        StoppedError: the file cannot be made.
    """

    def __init__(self, store: Store) -> None:
        if isinstance(store, LocalStore):
            self._path = store.path(f"{COMMITS}/{store.attempt}{CRASH}")
        else:
            self._path = os.path.join(_temporary_folder(), f"{_TRACE}{store.attempt}{CRASH}")
        self._file: IO[bytes] | None = None
        if not faulthandler.is_enabled():
            with stopping(self._path):
                self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 - closed by `close`
            faulthandler.enable(self._file)

    def close(self) -> None:
        """This process is not watched any more; nothing is left."""
        if self._file is not None:
            faulthandler.disable()
            self._file.close()
            with suppress(OSError):
                os.unlink(self._path)


def collect_traces(store: Store) -> None:
    """Put what attempts at a job in a bucket left in this machine's temporary folder among its records."""
    if isinstance(store, LocalStore):
        return
    left = dict[str, Path]()
    for path in sorted(Path(_temporary_folder()).glob(f"{_TRACE}*.*.*{CRASH}")):
        attempt = path.name.removeprefix(_TRACE).removesuffix(CRASH)
        process = attempt.split(".")[-2]
        if not (process.isdigit() and runs(int(process))):
            left[attempt] = path
    names = [name for name, _ in store.entries(COMMITS)] if left else []
    for attempt, path in left.items():
        if any(name.startswith((f"{attempt}.", f"{attempt}-")) for name in names):  # the latter of an amended job
            with suppress(OSError):  # another user's, who collects it, too; or what another user put there
                content = _own_content(path)
                if content:
                    store.write(f"{COMMITS}/{attempt}{CRASH}", content)
                path.unlink(missing_ok=True)


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise StoppedError(
            f"A job in a bucket needs a temporary folder on this machine: {error.strerror}. Name a folder with TMPDIR, "
            "then start the same command again."
        ) from error


def _own_content(path: Path) -> bytes:
    """What a file of this user holds, the most of it that a trace has; `PermissionError` for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode) or told.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "is no file of this user", str(path))
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def crash_in(trace: bytes) -> str:
    """What ended a process, by the trace it left."""
    first = next(iter(trace.decode(errors="replace").splitlines()), "")
    return first.removeprefix("Fatal Python error: ")[:200] or "a crash"


def oom_kills() -> dict[str, Any]:
    """How many processes the kernel has killed for want of memory in this control group, and which group it is.

    Empty where the kernel does not tell. To be compared with what another process of the same group was told.
    """
    for line in _lines(Path("/proc/self/cgroup")):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            roots, name = [_CGROUPS, _CGROUPS / "unified"], "memory.events"
        elif "memory" in controllers.split(","):
            roots, name = [_CGROUPS / "memory"], "memory.oom_control"
        else:
            continue
        # Inside a container the path may be the host's, and the root the container's own group.
        for folder in (it for root in roots for it in (root / path.lstrip("/"), root)):
            counts = dict(entry.split(" ", 1) for entry in _lines(folder / name) if " " in entry)
            if "oom_kill" in counts:
                group = f"{this_machine()} {folder} {folder.stat().st_ino}"
                return {"cgroup": group, "oom_kills": int(counts["oom_kill"])}
    return {}


def attempts_out_of_memory(headers: Sequence[dict[str, Any]]) -> set[str]:
    """Attempts after which, when another one took their place, the kernel had killed more for want of memory.

    A worker says whose place it took; else it is the one before on the same share. Only one of the same control group,
    which therefore ran on the same machine, can tell.
    """
    found, by_name, on_share = set(), dict[str, dict[str, Any]](), dict[tuple[Any, ...], dict[str, Any]]()
    for header in headers:
        if "oom_kills" in header:
            group, share = header["cgroup"], tuple(header["share"])
            is_worker = "replaces" in header
            earlier = by_name.get(header["replaces"]) if is_worker else on_share.get((group, share))
            if earlier is not None and earlier["cgroup"] == group and header["oom_kills"] > earlier["oom_kills"]:
                found.add(earlier["attempt"])
            by_name[header["attempt"]] = header
            if not is_worker:
                on_share[group, share] = header
    return found


def _lines(path: Path) -> list[str]:
    """The lines of a file of the kernel's; none where there is no such file."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
