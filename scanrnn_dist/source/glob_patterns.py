"""Which names below a folder a source means: the parts of a glob, hidden names, markers of folders. No I/O.

The same rules hold for folders of this machine and for buckets. `**` means folders at any depth, none included; the
other wildcards are those of `fnmatch`, within one name. Readers skip names that begin with `_` or `.`, and so do we,
unless a part of the glob itself begins so.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from fnmatch import fnmatchcase

_HIDDEN = (".", "_")  # .crc files, _SUCCESS, _metadata, _temporary
_ALL = ("**", "*")
_HADOOP_MARKER = "_$folder$"

States = frozenset[int]
"""How many parts of a pattern the names so far may have used up."""


@dataclass(frozen=True)
class Pattern:
    """The names below `base` that match `parts`, one part for each name of a path.

    Example:
        >>> pattern = Pattern.of_glob("/data/*/**/*.parquet")
        >>> pattern.base, pattern.matches("run/a.parquet"), pattern.matches("run/_old/a.parquet")
        ('/data', True, False)
    """

    base: str
    parts: tuple[str, ...]

    @classmethod
    def of_glob(cls, path: str) -> Pattern:
        """Of a path with wildcards; its base is what stands before the first one."""
        parts = path.split("/")
        first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        last = ("*",) if parts[-1] == "**" else ()  # files below, not the folder itself
        return cls("/".join(parts[:first]), (*parts[first:], *last))

    @classmethod
    def everything_below(cls, folder: str) -> Pattern:
        """All that is not hidden, at any depth."""
        return cls(folder, _ALL)

    @property
    def is_all(self) -> bool:
        """Whether it is that of a folder rather than of a glob."""
        return self.parts == _ALL

    @property
    def start(self) -> States:
        """The states of the base."""
        return self._closed({0})

    def after(self, states: States, name: str) -> States:
        """The states once a name follows; none if nothing with this name can match."""
        following = set()
        for state in self.going_on(states):
            part = self.parts[state]
            if name.startswith(_HIDDEN) and not part.startswith(_HIDDEN):
                continue
            if part == "**":
                following.add(state)
            elif fnmatchcase(name, part):
                following.add(state + 1)
        return self._closed(following)

    def going_on(self, states: States) -> States:
        """Those with which something below may match."""
        return states - {len(self.parts)}

    def ends(self, states: States) -> bool:
        """Whether what was named so far matches."""
        return len(self.parts) in states

    def states_of(self, relative: str) -> States:
        """The states after a path from the base on."""
        states = self.start
        for name in filter(None, relative.split("/")):
            states = self.after(states, name)
        return states

    def matches(self, relative: str) -> bool:
        """Whether a path from the base on is meant."""
        return self.ends(self.states_of(relative))

    def _closed(self, states: set[int]) -> States:
        """With those that follow because `**` may stand for no folder at all."""
        for index, part in enumerate(self.parts):
            if part == "**" and index in states:
                states.add(index + 1)
        return frozenset(states)


def is_marker(path: str, size_bytes: int) -> bool:
    """Whether a file is one of the empty ones that Hadoop leaves in buckets in place of folders."""
    return size_bytes == 0 and path.endswith((_HADOOP_MARKER, "/"))
