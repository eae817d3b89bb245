"""A destination stands apart from the source, so that no part is read as part of the source next time."""

from __future__ import annotations

import os
from functools import cache

import pyarrow.compute as pc

from scanrnn_dist.disk import place_of, places_above
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.source import Source, pattern_of
from scanrnn_dist.storage import resolve


def check_apart(given: str | list[str], source: Source, destination: str | os.PathLike[str]) -> None:
    """Refuse a destination whose parts would be read as part of the source next time, or that holds its files.

    `given` is how the source was named: its name, or those of its files, absolute.
    """
    filesystem, uri, path = resolve(os.fspath(destination))
    if not source.filesystem.equals(filesystem):
        return
    real, place = (os.path.realpath, cache(place_of)) if uri is None else (str, str)
    resolved = real(path.rstrip("/"))
    folders = pc.unique(pc.replace_substring_regex(source.files.paths, "/[^/]*$", "")).to_pylist()
    if any(place(resolved) in places_above(real(folder), place) for folder in folders):
        raise ConfigError(f"The destination {destination} holds files of the source; choose another.")
    pattern = pattern_of(given) if isinstance(given, str) else None
    if pattern is None:
        return
    rests = places_above(resolved, place)
    for named in _between(folders, pattern.base):  # maybe through a link, behind which the destination has another name
        if (rest := rests.get(place(named))) is not None:
            relative = f"{named}{rest}"[len(pattern.base) :]
            if pattern.is_all or pattern.matches(f"{relative}/part-00000.parquet"):
                raise ConfigError(f"The destination {destination} lies within the source {given}; choose another.")


def _between(folders: list[str], base: str) -> set[str]:
    """These folders, and those in which they lie, from a base on."""
    found = {base}
    for folder in folders:
        while folder not in found and len(folder) > len(base):
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
