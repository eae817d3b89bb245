"""Which layout a source has: the only one that its schema and what the user says allow, never a guess between several.

What types say is `types.py`'s; each layout names its candidates itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from scanrnn_dist.errors import ConfigError, LayoutError, counted, did_you_mean, flag_of, joined_names
from scanrnn_dist.source.layouts.flat_lists import FlatLists
from scanrnn_dist.source.layouts.layout import Asked, Layout
from scanrnn_dist.source.layouts.list_columns import ListColumns
from scanrnn_dist.source.layouts.list_of_structs import ListOfStructs
from scanrnn_dist.source.layouts.long import Long
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.layouts.numbers import no_number
from scanrnn_dist.source.layouts.paths import Path, field_at, resolved
from scanrnn_dist.source.layouts.struct_of_lists import StructOfLists
from scanrnn_dist.source.layouts.tensors import Tensors
from scanrnn_dist.source.layouts.types import (
    EXPECTED,
    described,
    foreign,
    foreign_extensions,
    is_string,
    shortened,
    way_out,
    with_page,
)

_KINDS: tuple[type[Layout], ...] = (ListColumns, NestedLists, FlatLists, ListOfStructs, StructOfLists, Tensors, Long)
LAYOUTS: dict[str, type[Layout]] = {kind.name: kind for kind in _KINDS}
"""All kinds of layouts, by name."""
_TOLD = 8


def register_layout(layout: type[Layout]) -> type[Layout]:
    """Have a layout of one's own found like the others, in this process; usable as a decorator of its class.

    The same class, defined once more, as a notebook does, takes the place of the former.

    Raises:
        ConfigError: the name is that of another class.
    """
    known = LAYOUTS.setdefault(layout.name, layout)
    if (known.__module__, known.__qualname__) != (layout.__module__, layout.__qualname__):
        raise ConfigError(f"There is a layout {layout.name!r} already; expected another name.")
    LAYOUTS[layout.name] = layout
    return layout


def find_layout(
    schema: pa.Schema,
    asked: Asked,
    *,
    where: str,
    extensions: Mapping[Path, str] | None = None,
    takes_texts: bool = False,
) -> Layout:
    """The layout of the sequences.

    Args:
        schema: the columns of the file or data set.
        asked: what the user says of it.
        where: the file or data set, for messages.
        extensions: columns, or fields within them, with an extension type that the schema does not show, by what
            `foreign_extensions` gives.
        takes_texts: whether something makes numbers of texts.

    Raises:
        ConfigError: no layout has that name, or no column, or no feature; or a type fixes another `in_features`.
        LayoutError: two columns of that name, one that holds no sequences, one of an extension type that is
            not understood, one of texts, or several layouts to choose from.
    """
    foreign_ones = {path: name for field in schema for path, name in foreign_extensions(field)} | dict(extensions or {})
    if asked.column is not None:
        _check_is_there(schema, asked.column, where)
    found = _candidates(schema, asked)
    if not found:
        raise _nothing_found(schema, asked, foreign_ones, where)
    if len(found) > 1:
        raise LayoutError(
            f"{where} may hold its sequences in {len(found)} ways; expected one. Choose it with "
            f"{_listed(found, asked)}."
        )
    (layout,) = found
    for path in layout.leaves(schema):
        if path[0] not in layout.ids:  # which are compared only, so their storage tells
            _check_extension(schema, path, foreign_ones, layout.understands, where)
    for name, type in zip(_names(layout, schema), layout.types(schema), strict=True):
        if is_string(type) and not takes_texts:
            raise LayoutError(f"{where}: {no_number(name, type)}")
    _check_width(layout, schema, asked.in_features, where)
    return layout


def layouts_found(schema: pa.Schema, asked: Asked) -> list[tuple[str, str]]:
    """All layouts that are what is asked for: of each the flags that choose it besides, and its words."""
    return [(_flags(layout, asked), layout.words) for layout in _candidates(schema, asked)]


def layout_of(asked: Asked) -> Layout:
    """The layout that is asked for in full, as `Layout.asked` does; `ConfigError` if this process does not know it."""
    told = {name: value for name, value in asdict(asked).items() if name != "layout" and value is not None}
    if asked.layout not in LAYOUTS:
        raise ConfigError(
            f"The job reads layout {asked.layout!r}, which is not registered in this process. Import the module that "
            "registers it (register_layout) first, in Python."
        )
    return LAYOUTS[asked.layout](**told)


def layout_of_column(type: pa.DataType, name: str) -> Layout:
    """The layout of sequences that are one Arrow array, as a column of that name; `LayoutError` for any other type."""
    schema = pa.schema([(name, type)])
    asked = Asked(column=name)
    found = [layout for kind in LAYOUTS.values() for layout in kind.candidates(schema, asked)]
    leaves = found[0].leaves(schema) if found else ((name,),)
    understood = found[0].understands if found else frozenset()
    for path, extension in foreign_extensions(schema.field(0)):
        if extension not in understood and _is_read(path, leaves):
            raise LayoutError(f"the column is {type} {foreign(extension)}")
    if not found:
        raise LayoutError(f"the column is {type}; {EXPECTED} per row. {with_page(way_out(type))}.")
    return found[0]


def _candidates(schema: pa.Schema, asked: Asked) -> list[Layout]:
    """All layouts that are what is asked for; a `ConfigError` if none has that name."""
    if asked.layout is not None and asked.layout not in LAYOUTS:
        raise ConfigError(
            f"There is no layout {asked.layout!r}; expected one of {', '.join(LAYOUTS)}."
            f"{did_you_mean(asked.layout, LAYOUTS)}"
        )
    kinds = LAYOUTS.values() if asked.layout is None else [LAYOUTS[asked.layout]]
    possible = [layout for kind in kinds for layout in kind.candidates(schema, asked)]
    return [layout for layout in possible if layout.is_asked_for(asked)]


def _listed(layouts: Sequence[Layout], asked: Asked) -> str:
    """Layouts in words, each with the flags that choose it."""
    told = [f"{_flags(layout, asked)} ({layout.words})" for layout in layouts[:_TOLD]]
    if len(layouts) > _TOLD:
        told += [f"... ({len(layouts) - _TOLD} more)"]
    return "; or ".join(told)


def _flags(layout: Layout, asked: Asked) -> str:
    """What chooses a layout among others on the command line, besides what was asked for."""
    own = asdict(layout.asked)
    names = [name for name, value in asdict(asked).items() if name == "column" or value is not None]
    told = {name: own[name] for name in names if own[name] is not None} or {"layout": layout.name}
    return as_flags(told)


def as_flags(told: Mapping[str, Any]) -> str:
    """Options as the command line takes them."""
    texts = {name: joined_names(value) if isinstance(value, tuple) else str(value) for name, value in told.items()}
    return " ".join(f"{flag_of(name)} {shlex.quote(text)}" for name, text in texts.items())


def _names(layout: Layout, schema: pa.Schema) -> tuple[str, ...]:
    """The names of the arrays that `Layout.types` tells the types of."""
    count, column = len(layout.types(schema)), getattr(layout, "column", None)
    return (column,) if count == 1 and column is not None else layout.feature_names(schema, count)


def _check_is_there(schema: pa.Schema, column: str, where: str) -> None:
    """Refuse the name of a column that is not there, or there twice."""
    count = len(schema.get_all_field_indices(column))
    if count > 1 or (not count and resolved(schema, column) is None):
        many = f"{count} columns" if count else "no column"
        found = _candidates(schema, Asked())
        others = _listed(found, Asked()) or "none"
        near = "" if count else did_you_mean(column, schema.names)
        kind = LayoutError if count else ConfigError
        raise kind(f"{where} has {many} {column!r}; expected one.{near} Choose another (sequences found: {others}).")


def _check_width(layout: Layout, schema: pa.Schema, in_features: int | None, where: str) -> None:
    """Refuse an `in_features` that is asked for where the type of the column fixes another."""
    width = None if in_features is None else layout.width(schema)
    if width is None or width == in_features:
        return
    kind = field_at(schema, layout.leaves(schema)[0]).type
    raise ConfigError(
        f"{layout.described} of {where} is {shortened(str(kind))}, {counted(width, 'feature')} a step; --in-features "
        f"says {in_features}. Leave --in-features out, or choose another column."
    )


def _nothing_found(
    schema: pa.Schema, asked: Asked, extensions: Mapping[Path, str], where: str
) -> LayoutError | ConfigError:
    """What to say where no layout is what is asked for."""
    others = _candidates(schema, Asked())
    choices = f" Or choose another: {_listed(others, Asked())}." if others else ""
    if asked.column is not None and (path := resolved(schema, asked.column)) is not None:
        _check_extension(schema, path, extensions, frozenset(), where)
        kind = field_at(schema, path).type
        told = f"column {asked.column!r} of {where} is {shortened(str(kind))}"
        if asked.features is not None or _candidates(schema, Asked(column=asked.column)):  # the rest does not fit
            return LayoutError(f"{told}, which does not go with {_rest(asked)}; {_fields(kind)}.{choices}")
        return LayoutError(f"{told}; {EXPECTED}. {with_page(way_out(kind))}.{choices}")
    if asked.features is not None:
        types = {name: _type_told(schema, name) for name in asked.features}
        told = ", ".join(f"{name!r} is {type}" for name, type in types.items())
        gone = next((name for name in types if resolved(schema, name) is None), None)
        near = "" if gone is None else did_you_mean(gone, schema.names)
        return (LayoutError if gone is None else ConfigError)(
            f"{where} has no sequences of the features that are asked for: {told}.{near} Expected columns of lists of "
            f"numbers, or with --column fields within a column of structs (columns: {described(schema)}).{choices}"
        )
    return LayoutError(
        f"{where} has no column of sequences{f' for {_rest(asked)}' if _rest(asked) else ''}; {EXPECTED} per row "
        f"(columns: {described(schema)}). {with_page(_as_steps(schema))}.{choices}"
    )


def _as_steps(schema: pa.Schema) -> str:
    """The flags of one step per row, with the first columns that could be named by them."""
    types = pa.types
    ids = [field.name for field in schema if types.is_integer(field.type) or types.is_string(field.type)]
    orders = [field.name for field in schema if types.is_integer(field.type) or types.is_temporal(field.type)]
    orders = [name for name in orders if name not in ids[:1]]
    if not (ids and orders):
        return "One step per row? Say so with --group-by and --order-by"
    return (
        "One step per row? Then name the column that tells sequences apart, and the one that orders their steps, such "
        f"as {as_flags({'group_by': (ids[0],), 'order_by': (orders[0],)})}"
    )


def _rest(asked: Asked) -> str:
    """What is asked for besides the column, as flags."""
    return as_flags({name: value for name, value in asdict(asked).items() if value is not None and name != "column"})


def _fields(type: pa.DataType) -> str:
    """The fields that one may choose, for messages."""
    while not pa.types.is_struct(type) and type.num_fields == 1:
        type = type.field(0).type
    if not pa.types.is_struct(type):
        return "expected other options, or none"
    return f"expected some of its fields ({described(pa.schema(list(type)))})"


def _type_told(schema: pa.Schema, name: str) -> str:
    path = resolved(schema, name)
    return "not there" if path is None else shortened(str(field_at(schema, path).type))


def _is_read(path: Path, leaves: Sequence[Path]) -> bool:
    """Whether a field is on the way to what is read, or within it."""
    return any(path[: len(leaf)] == leaf[: len(path)] for leaf in leaves)


def _check_extension(
    schema: pa.Schema, path: Path, extensions: Mapping[Path, str], understood: frozenset[str], where: str
) -> None:
    """Refuse an extension type that is not understood, of the field itself, within it, or on the way to it."""
    for place, extension in extensions.items():
        if extension not in understood and _is_read(place, [path]):
            kind = shortened(str(_type_at(schema, place)))
            raise LayoutError(f"column {'.'.join(place)!r} of {where} is {kind} {foreign(extension)}")


def _type_at(schema: pa.Schema, path: Path) -> pa.DataType:
    """The type of a field, also of one within structs in lists."""
    type = schema.field(path[0]).type
    for name in path[1:]:
        while not pa.types.is_struct(type):
            type = type.value_type
        type = type.field(name).type
    return type
