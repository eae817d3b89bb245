"""Which parts of a finished job are not there as they are recorded, by their names and sizes alone.

That is quick and proves nothing: `verify` reads them all. What is found is made again by the
command that made it, see `opening.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from scanrnn_dist.dataset.commits import read_parts
from scanrnn_dist.dataset.manifest import PARTS, Manifest, part_name
from scanrnn_dist.errors import DataError


def damaged_parts(manifest: Manifest) -> list[str]:
    """Names of parts that are missing or of another size; of a list of parts that is none any more, the list's name."""
    try:
        _, content = manifest.read_success()
        records = read_parts(content, manifest.store.path(PARTS))
    except DataError:
        return [PARTS]
    sizes = dict(manifest.store.entries())
    names = (part_name(unit, len(records)) for unit in records["unit"].to_pylist())
    return [
        name for name, size in zip(names, records["size_bytes"].to_pylist(), strict=True) if sizes.get(name) != size
    ]


def told_damage(damaged: Collection[str], discarded: Collection[str] = ()) -> str:
    """What is done about parts that are missing or changed, in words."""
    names = sorted({*damaged, *discarded})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'} missing or changed, and made again"
