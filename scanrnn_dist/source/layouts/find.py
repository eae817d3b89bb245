"""Which column holds the sequences, and what its type alone says of them.

Looks at types only, by `column_types.py`; a column's values are taken apart by one file per layout, such as
`nested_lists.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.source.layouts.column_types import (
    EXPECTED,
    RECIPES,
    described,
    foreign,
    foreign_extension,
    is_number,
    step_type,
    way_out,
)


def find_sequence_column(
    schema: pa.Schema, column: str | None, *, where: str, extensions: Mapping[str, str] | None = None
) -> str:
    """The name of the column that holds the sequences; never a guess between several.

    Args:
        schema: the columns of the file or dataset.
        column: the column to take, or None for the only one with a supported layout.
        where: the file or dataset, for messages.
        extensions: columns with an extension type that the schema does not show, by what `foreign_extension` gives.

    Raises:
        LayoutError: no such column, two of that name, one that holds no sequences, one of an extension type that is
            not understood, or several to choose from.

    Example:
        >>> import pyarrow as pa
        >>> schema = pa.schema([("id", pa.int64()), ("seq", pa.list_(pa.list_(pa.float32())))])
        >>> find_sequence_column(schema, None, where="a.parquet")
        'seq'
    """
    lists = [field.name for field in schema if step_type(field.type) is not None]
    found = f"lists found: {', '.join(map(repr, lists)) or 'none'}"
    if column is None:
        if not lists:
            raise LayoutError(
                f"{where} has no column of sequences; {EXPECTED} per row (columns: {described(schema)}). One event "
                f"per row? Group the events into a list per sequence first ({RECIPES})."
            )
        if len(lists) > 1:
            raise LayoutError(
                f"{where} has {len(lists)} columns of lists; expected one. Choose it with --column ({found})."
            )
        column = str(lists[0])
    indices = schema.get_all_field_indices(column)
    if len(indices) != 1:
        many = "no column" if not indices else f"{len(indices)} columns"
        raise LayoutError(f"{where} has {many} {column!r}; expected one. Choose another with --column ({found}).")
    chosen = schema.field(indices[0])
    extension = (extensions or {}).get(column) or foreign_extension(chosen)
    if extension is not None:
        raise LayoutError(f"column {column!r} of {where} is {chosen.type} {foreign(extension)}")
    if step_type(chosen.type) is None:
        raise LayoutError(
            f"column {column!r} of {where} is {chosen.type}; {EXPECTED}. {way_out(chosen.type)} ({RECIPES}), or "
            f"choose another with --column ({found})."
        )
    return column


def fixed_in_features(type: pa.DataType) -> int | None:
    """Features per step `D` where the type of the column alone says it, else None.

    Example:
        >>> import pyarrow as pa
        >>> fixed_in_features(pa.list_(pa.list_(pa.float32(), 6))), fixed_in_features(pa.list_(pa.float64()))
        (6, 1)
    """
    step = step_type(type)
    if step is None:
        return None
    if is_number(step):
        return 1
    return step.list_size if pa.types.is_fixed_size_list(step) else None
