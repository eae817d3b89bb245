"""The files of this machine that a pattern means, each real file once, however many links lead to it.

Links are followed after all that stands without one, so that of two ways to a file the one without a link counts, and
of two with links the first by name. What a link leads to and was listed already is passed over and noted; a link that
leads nowhere is an error, since its rows would be missing without a word. Which names are meant says
`glob_patterns.py`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from heapq import heappop, heappush

from scanrnn_dist.errors import DataError, StoppedError, one_line
from scanrnn_dist.source.glob_patterns import Pattern, States, is_marker
from scanrnn_dist.source.table_formats import ICEBERG_FOLDER, LOGS, tables_among

Entry = tuple[str, int, int | None]
"""Path, size in bytes, time in nanoseconds or None."""
_Link = tuple[str, States]
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Walk:
    """A walk below the base of a pattern; one file after the other, where pyarrow's holds 0.5 kB for each."""

    def __init__(self, pattern: Pattern, name: str) -> None:
        self.repeated: list[tuple[str, str]] = []  # links to what was listed already, and the real paths of that
        self.tables: dict[str, str] = {}  # as `tables_among` gives them, of all folders that were looked into
        self.finds_folders = False  # whether the pattern means some folder
        self._pattern, self._name = pattern, name
        self._links: list[_Link] = []  # a heap: there may be a million, and more come while they are followed
        self._base = os.path.realpath(pattern.base or "/").replace(os.sep, "/").rstrip("/")

    def entries(self) -> Iterator[Entry]:
        """Every file once, in any order.

        Raises:
            DataError: a link that leads nowhere, or something that is neither a file nor a folder.
            StoppedError: a folder that may not be looked into.
        """
        try:
            if not _is_folder(self._base or "/"):
                return
            yield from self._below(self._pattern.base, self._pattern.start)
            yield from self._behind_links()
        except OSError as error:
            raise StoppedError(
                f"{self._name!r} cannot be looked at: {one_line(str(error))}. Make it readable, or see to the "
                "disk it is on, then run again."
            ) from error

    def _below(self, folder: str, states: States) -> Iterator[Entry]:
        """The files in a tree that stand there without a link; the links are noted."""
        folders = [(folder, states)]
        while folders:
            folder, states = folders.pop()
            with os.scandir(folder or "/") as entries:
                for entry in entries:
                    path = entry.path.replace(os.sep, "/")
                    self._note_table(folder, entry)
                    following = self._pattern.after(states, entry.name)
                    if not following:
                        continue
                    if entry.is_symlink():
                        heappush(self._links, (path, following))
                    elif entry.is_dir():
                        folders += self._folder(path, following)
                    elif self._pattern.ends(following):
                        yield from _file(path, entry.stat(follow_symlinks=False))

    def _behind_links(self) -> Iterator[Entry]:
        """The files that only links lead to."""
        done: set[tuple[str, States]] = set()
        files: set[str] = set()
        while self._links:
            path, states = heappop(self._links)
            found, real = _target(path), os.path.realpath(path).replace(os.sep, "/")
            if not stat.S_ISDIR(found.st_mode):
                if self._pattern.ends(states) and not self._is_known(path, real, real in files):
                    files.add(real)
                    yield from _file(path, found)
                continue
            for folder, going_on in self._folder(path, states):
                if going_on <= self._states_without_links(real) or (real, going_on) in done:
                    self.repeated.append((path, real))
                    continue
                done.add((real, going_on))
                for entry in self._below(folder, going_on):
                    own = os.path.realpath(entry[0]).replace(os.sep, "/")
                    if not self._is_known(entry[0], own, own in files):
                        files.add(own)
                        yield entry

    def _is_known(self, path: str, real: str, is_in: bool) -> bool:
        """Whether a file behind a link was listed already; then it is noted."""
        known = is_in or self._pattern.ends(self._states_without_links(real))
        if known:
            self.repeated.append((path, real))
        return known

    def _states_without_links(self, real: str) -> States:
        """The states with which the walk comes by a real path without a link; none if it does not."""
        if real == self._base:
            return self._pattern.start
        if not real.startswith(f"{self._base}/"):
            return frozenset()
        return self._pattern.states_of(real[len(self._base) :])

    def _folder(self, path: str, states: States) -> list[_Link]:
        """A folder to look into, if something in it may match."""
        self.finds_folders |= self._pattern.ends(states)
        going_on = self._pattern.going_on(states)
        return [(path, going_on)] if going_on else []

    def _note_table(self, folder: str, entry: os.DirEntry[str]) -> None:
        if entry.name in LOGS and entry.is_dir():
            self.tables |= tables_among([f"{folder}/{entry.name}"])
        elif entry.name == ICEBERG_FOLDER and entry.is_dir():
            with suppress(PermissionError), os.scandir(entry.path) as inside:  # if it is looked for, that will be told
                self.tables |= tables_among(f"{folder}/{entry.name}/{item.name}" for item in inside)


def _is_folder(path: str) -> bool:
    """Unlike `os.path.isdir`, it raises where it may not look."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _file(path: str, found: os.stat_result) -> Iterator[Entry]:
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is neither a file nor a folder; expected Parquet files. Remove it, or name the files.")
    if not is_marker(path, found.st_size):
        yield path, found.st_size, found.st_mtime_ns


def _target(link: str) -> os.stat_result:
    try:
        return os.stat(link)
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        target = os.readlink(link)
        raise DataError(
            f"{link} is a link that leads nowhere: {target!r} is not there, and its rows would be missing. Bring the "
            "file here (git annex get, dvc pull, ...), or remove the link."
        ) from error
