"""Which layout a source has: the only one that its schema and what the user says allow, never a guess between several.

What types say is `types.py`'s; each layout names its candidates itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pyarrow as pa

from scanrnn_dist.errors import ConfigError, LayoutError
from scanrnn_dist.source.layouts.layout import Asked, Layout
from scanrnn_dist.source.layouts.long import Long
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.layouts.types import EXPECTED, RECIPES, described, foreign, foreign_extension, way_out

LAYOUTS: dict[str, type[Layout]] = {kind.name: kind for kind in (NestedLists, Long)}
"""All kinds of layouts, by name."""


def register_layout(layout: type[Layout]) -> type[Layout]:
    """Have a layout of one's own found like the others; usable as a decorator of its class.

    Raises:
        ConfigError: the name is taken.
    """
    if LAYOUTS.setdefault(layout.name, layout) is not layout:
        raise ConfigError(f"There is a layout {layout.name!r} already; expected another name.")
    return layout


def find_layout(schema: pa.Schema, asked: Asked, *, where: str, extensions: Mapping[str, str] | None = None) -> Layout:
    """The layout of the sequences.

    Args:
        schema: the columns of the file or data set.
        asked: what the user says of it.
        where: the file or data set, for messages.
        extensions: columns with an extension type that the schema does not show, by what `foreign_extension` gives.

    Raises:
        ConfigError: no layout has that name.
        LayoutError: no such column, two of that name, one that holds no sequences, one of an extension type that is
            not understood, or several layouts to choose from.
    """
    if asked.layout is not None and asked.layout not in LAYOUTS:
        raise ConfigError(f"There is no layout {asked.layout!r}; expected one of {', '.join(LAYOUTS)}.")
    kinds = LAYOUTS.values() if asked.layout is None else [LAYOUTS[asked.layout]]
    possible = [layout for kind in kinds for layout in kind.candidates(schema, asked)]
    found = [layout for layout in possible if _is_asked_for(layout, asked)]
    lists = f"lists found: {', '.join(dict.fromkeys(map(repr, _columns(possible)))) or 'none'}"
    if asked.column is not None:
        _check_column(schema, asked.column, extensions or {}, where, lists, bool(found))
    if not found:
        raise LayoutError(
            f"{where} has no column of sequences; {EXPECTED} per row (columns: {described(schema)}). One event "
            "per row? Group the events by the columns that say which sequence they belong to: --group-by ("
            f"{RECIPES})."
        )
    if len(found) > 1:
        raise LayoutError(
            f"{where} has {len(found)} columns of lists; expected one. Choose it with --column ({lists})."
        )
    for column in found[0].columns:
        if column in found[0].ids:  # are compared only, so their storage tells
            continue
        _check_extension(schema, column, extensions or {}, where)
    return found[0]


def layout_of(asked: Asked) -> Layout:
    """The layout that is asked for in full, as `Layout.asked` does."""
    told = {name: value for name, value in asdict(asked).items() if name != "layout" and value is not None}
    return LAYOUTS[str(asked.layout)](**told)


def _is_asked_for(layout: Layout, asked: Asked) -> bool:
    own = asdict(layout.asked)
    return all(value in (None, own[name]) for name, value in asdict(asked).items())


def _columns(layouts: list[Layout]) -> list[str]:
    return [name for layout in layouts for name in layout.columns]


def _check_column(
    schema: pa.Schema, column: str, extensions: Mapping[str, str], where: str, lists: str, is_found: bool
) -> None:
    """Refuse a column that is asked for and holds no sequences."""
    indices = schema.get_all_field_indices(column)
    if len(indices) != 1:
        many = "no column" if not indices else f"{len(indices)} columns"
        raise LayoutError(f"{where} has {many} {column!r}; expected one. Choose another with --column ({lists}).")
    _check_extension(schema, column, extensions, where)
    kind = schema.field(column).type
    if not is_found:
        raise LayoutError(
            f"column {column!r} of {where} is {kind}; {EXPECTED}. {way_out(kind)} ({RECIPES}), or choose another with "
            f"--column ({lists})."
        )


def _check_extension(schema: pa.Schema, column: str, extensions: Mapping[str, str], where: str) -> None:
    field = schema.field(column)
    extension = extensions.get(column) or foreign_extension(field)
    if extension is not None:
        raise LayoutError(f"column {column!r} of {where} is {field.type} {foreign(extension)}")
