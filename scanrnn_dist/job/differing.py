"""What keeps a recorded job from being the one that a command asks for, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scanrnn_dist.records import ENCODER


def differing(recorded: Mapping[str, Any], job: Mapping[str, Any], allow_mixed: bool) -> Iterator[str]:
    """What differs, in words. Of encoders their fingerprint tells, their architecture only says how."""
    sections = ["options"] if allow_mixed else ["options", "environment"]
    before, now = recorded.get("encoder", {}), job["encoder"]
    if before.get("fingerprint") != now["fingerprint"]:
        others = list(_others("encoder.", before.get("architecture", {}), now["architecture"]))
        prints = [str(it.get("fingerprint"))[:16] for it in (before, now)]
        weights = f"the encoder's weights are others: the fingerprint was {prints[0]} and is {prints[1]}"
        yield from others or [f"{weights} (the job keeps its own as {ENCODER})"]
    else:
        sections.append("window")  # that of another encoder follows from its size
    for section in sections:
        yield from _others("", recorded.get(section, {}), job[section])


def _others(prefix: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The values that differ, at any depth."""
    for key in sorted(before.keys() | now.keys()):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _others(f"{name}.", old, new)
        elif key == "layers" and old and new and len(old) == len(new):
            for nth, layers in enumerate(zip(old, new, strict=True)):
                yield from _others(f"{name}[{nth}].", *layers)
        elif old != new:
            yield f"{name} was {old!r} and is {new!r}"
