"""Stores to which something happens: whoever is told of each step, before it is taken, may count, kill, wait or refuse.

A step is one call that changes a destination, made through the `Disk` of a folder or the `Objects` of a bucket. A call
that is added to either is a step too, without a word here.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.storage import ASIDE, LocalStore, Store, open_store, unstaged

WITHOUT_OBSTORE = bool(os.environ.get("SCANRNN_TEST_WITHOUT_OBSTORE"))
if WITHOUT_OBSTORE:  # as where the extra `remote` is not installed
    sys.modules["obstore"] = None  # type: ignore[assignment]

Told = Callable[[str, str], None]
"""Takes the kind and the name of a step, before the step; it raises to refuse it."""
KINDS = {
    "make_folder": "mkdir", "open_log": "open", "sync_folder": "sync", "delete_folder": "delete",
    "create": "put", "replace": "put", "upload": "put", "remove": "delete", "delete_empty": "delete",
    "copy_anew": "copy",
}  # fmt: skip
"""The kinds of steps whose calls are named otherwise."""
LOOKS = {"get", "read", "exists", "version", "files", "unfinished", "options", "heeds_conditions", "renames"}
"""What is asked of a bucket and changes nothing."""
TO = {"rename", "link", "copy", "copy_anew"}
"""Calls whose step is named for their second argument."""
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_ASIDE = re.compile(rf"{ASIDE}/(.*)\.[^.]+\.\d+\.[0-9a-f]{{8}}\.tmp")
_FOLDER = re.compile("^(__scanrnn)-(?:(workers|commits|quarantine)-)?")


def watched(destination: Path | str | Store, told: Told) -> Store:
    """The store of a destination, by which each step is told of; to be given in place of the destination."""
    store = open_store(destination)
    if isinstance(store, LocalStore):
        return replace(store, disk=_Watched(store.disk, told, store.root))
    return replace(store, objects=_WatchedObjects(store.objects, told, store.prefix))


class _Watched:
    """A `Disk`, or the `Objects` of a bucket; `folder` is that of all."""

    def __init__(self, within: Any, told: Told, folder: str) -> None:
        self._within, self._told, self._folder = within, told, folder

    def __getattr__(self, call: str) -> Any:
        does = getattr(self._within, call)
        if call in LOOKS:
            return does

        def step(*arguments: Any) -> Any:
            path = arguments[call in TO]
            path = path[0] if isinstance(path, list) else path
            self._told(KINDS.get(call, call), self._called(getattr(path, "name", path)))
            return does(*arguments)

        return step

    def _called(self, path: str) -> str:
        """What the store calls a file, from its root on, also while it has no name yet."""
        name = os.path.relpath(path, self._folder)
        if found := _ASIDE.search(name):
            flat = _FOLDER.sub(lambda folder: "/".join([*filter(None, folder.groups()), ""]), found[1])
            name = f"{name[: found.start()]}{flat}"
        return unstaged(name)


class _WatchedObjects(_Watched):
    """Looks by other names than a `Disk` has."""

    def __getattr__(self, call: str) -> Any:
        return getattr(self._within, call) if call == "open" else super().__getattr__(call)


@dataclass(frozen=True)
class CopyingStore(LocalStore):
    """A folder that copies where a bucket does."""

    def move(self, old: str, new: str, version: str | None = None) -> None:
        if version in (None, self.version(old)):
            self._copy(old, new)
            self.delete(old)

    def link(self, old: str, new: str) -> None:
        if self.exists(new):
            raise StoppedError(f"{self.path(new)} could not be written: File exists")
        self._copy(old, new)

    def _copy(self, old: str, new: str) -> None:
        self.make_folder_of(self.path(new))
        self.disk.copy(self.path(old), self.path(new))


class Died(BaseException):
    """In place of the end of the process."""


def dies_at(kind: str, name: str) -> Told:
    """Has the process die at the steps of a kind and a name."""

    def told(*step: str) -> None:
        if step == (kind, name):
            raise Died

    return told


def full(*_: str) -> None:
    """Refuses a step for lack of room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sort_of(step: str) -> str:
    """A step but for what tells its file from others of its kind, such as `"rename part-#.parquet"`.

    Example:
        >>> sort_of("sync __scanrnn/commits/host.17.0a1b2c3d.jsonl"), sort_of("write files-0123456789abcdef.table")
        ('sync __scanrnn/commits/#.jsonl', 'write files-#.table')
        >>> sort_of("open __scanrnn/aside-job.json.host.17.0a1b2c3d.tmp")
        'open __scanrnn/aside-job.json.#.tmp'
    """
    return re.sub(r"(?<=-)[0-9a-f]{16}(?=\.)|[^/]+(?=\.jsonl)|[^/.]+\.\d+\.[0-9a-f]{8}(?=\.tmp)|\d+", "#", step)


class Fault:
    """Numbers the steps, writes each to a file, and lets something happen at one of them.

    Args:
        log: the file.
        at: the number of that step, or its sort; then it is the first of them.
        what: "kill" or "stop" this process; "fail", refuse this step for lack of room; "full", this one and all after
            it, but for those that delete.
    """

    def __init__(self, log: str, at: int | str = 0, what: str = "") -> None:
        self._file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock, self._count, self._at, self._what, self._is_over = threading.Lock(), 0, at, what, False

    def __call__(self, kind: str, name: str) -> None:
        if threading.current_thread().name.startswith("scanrnn-beat"):
            return  # comes at any time, and would shift all others
        with self._lock:
            self._count += 1
            os.write(self._file, f"{kind} {name}\n".encode())
            is_here = not self._is_over and self._at in (self._count, sort_of(f"{kind} {name}"))
            self._is_over |= is_here  # who stood still may go on
            if is_here and self._what in SIGNALS:
                os.kill(os.getpid(), SIGNALS[self._what])
            elif (is_here and self._what == "fail") or (self._is_over and self._what == "full" and kind != "delete"):
                full()
