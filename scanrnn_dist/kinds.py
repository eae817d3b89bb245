"""Of what kind an argument is: one of another kind than its annotation says is refused, with what to write instead.

Values are looked at by whoever takes them. Numbers are taken for one another, and whatever gives items for a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from scanrnn_dist.errors import ConfigError

_TAKEN: dict[Any, Any] = {bool: int, int: Real, float: Real, tuple: (tuple, list), Sequence: Iterable}
_WORDS: dict[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    int: "a number",
    float: "a number",
    str: "a text",
    tuple: "a tuple",
    Sequence: "a list of names",
}
_MOST_LETTERS = 40


def check_kinds(given: Any) -> None:
    """Refuse a dataclass with a field that is not of the kind that is declared; for its `__post_init__`."""
    kind: Any = type(given)
    for name, declared in _declared_of(kind).items():
        check_kind(name, getattr(given, name), declared)


_declared_of = cache(get_type_hints)
"""Kinds of the fields of a dataclass; looking them up takes half a millisecond."""


def check_kind(name: str, given: Any, declared: Any, expected: str = "") -> None:
    """Refuse an argument that is of none of the kinds that are declared, as in an annotation.

    Args:
        name: of the argument.
        given: for it.
        declared: a kind, or several, `A | B`.
        expected: what to write, where the kinds do not tell it.

    Example:
        >>> check_kind("limit", "3", int | None)
        Traceback (most recent call last):
        scanrnn_dist.errors.ConfigError: limit is '3' (str); expected a number or None.
    """
    kinds = [_class_of(kind) for kind in (get_args(declared) if isinstance(declared, UnionType) else [declared])]
    if isinstance(given, type) or not any(isinstance(given, _TAKEN.get(kind, kind)) for kind in kinds):
        words = [_WORDS.get(kind, f"srd.{kind.__name__}(...)") for kind in kinds]
        raise ConfigError(f"{name} is {_told(given)}; expected {expected or ' or '.join(words)}.")


def _told(given: Any) -> str:
    if given is None:
        return "None"
    if isinstance(given, type):
        return f"the class {given.__name__}"
    kind, shown = type(given).__name__, repr(given)
    return f"{shown} ({kind})" if len(shown) < _MOST_LETTERS else f"of type {kind}"


def _class_of(kind: Any) -> Any:
    """The class that an annotation is about."""
    origin = get_origin(kind)
    return type(get_args(kind)[0]) if origin is Literal else origin or kind
