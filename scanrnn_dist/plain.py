"""Values of Python's own, which JSON can hold, in place of those that numpy gives."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def take_plain(given: Any) -> None:
    """Make what a dataclass was given from numpy, within lists too, values of Python; for its `__post_init__`."""
    for field in fields(given):
        object.__setattr__(given, field.name, _plain(getattr(given, field.name)))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple) and any(hasattr(each, "tolist") for each in value):
        return tuple(map(_plain, value))
    return value.tolist() if hasattr(value, "tolist") else value
