"""What the types of columns say: of a step, of extensions that are not understood, and of ways out.

Looks at types only. Which columns hold the sequences says `find.py`; their values are taken apart by one file per
layout.
"""

from __future__ import annotations

import pyarrow as pa

from scanrnn_dist.source.layouts.lists import is_list

RECIPES = "docs/data.md, 'Recipes'"
EXPECTED = "expected a list of float"
_COLUMNS_TOLD, _TYPE_LETTERS = 8, 60
_EXTENSION_NAME = b"ARROW:extension:name"
_STORED_AS_MEANT = {
    "awkward",  # says how nulls and records were made; the lists are Arrow's
    "datasets.features.features.Array2DExtensionType",  # of Hugging Face: nested lists
}
"""Extension types whose storage is the sequence, list by list."""


def foreign_extension(field: pa.Field) -> str | None:
    """The extension type of a column, at any level, whose storage need not be what it means; None without one.

    A type that pyarrow knows says so itself; of the others only the metadata of fields tells.
    """
    name = (field.metadata or {}).get(_EXTENSION_NAME, b"").decode("utf-8", "replace")
    if name and name not in _STORED_AS_MEANT:
        return name
    return foreign_within(field.type)


def foreign_within(type: pa.DataType) -> str | None:
    """As `foreign_extension`, of a type."""
    if isinstance(type, pa.BaseExtensionType):
        is_step = isinstance(type, pa.FixedShapeTensorType) and len(type.shape) == 1
        if not is_step and type.extension_name not in _STORED_AS_MEANT:
            return str(type.extension_name)
        return foreign_within(type.storage_type)
    return foreign_extension(type.value_field) if is_list(type) else None


def _storage_type(type: pa.DataType) -> pa.DataType:
    while isinstance(type, pa.BaseExtensionType):
        # A tensor's storage is flat: a (T, D) tensor would pass for T * D steps of one feature.
        if isinstance(type, pa.FixedShapeTensorType) and len(type.shape) != 1:
            return pa.null()
        type = type.storage_type
    return type


def step_type(type: pa.DataType) -> pa.DataType | None:
    """The type of one timestep, a number or a list of numbers; None where the layout is not supported."""
    outer = _storage_type(type)
    if not is_list(outer):
        return None
    step = _storage_type(outer.value_type)
    if is_number(step):
        return step
    return step if is_list(step) and is_number(_storage_type(step.value_type)) else None


def foreign(extension: str) -> str:
    """What is said of an extension type that is not understood."""
    return (
        f"with the extension type {extension!r}, which is not understood: its storage may be flat, or in another "
        f"order. Expected lists without an extension type: store it as nested lists first ({RECIPES})."
    )


def described(schema: pa.Schema) -> str:
    """The first columns with their types."""
    told = [f"{field.name!r} {_shortened(str(field.type))}" for field in list(schema)[:_COLUMNS_TOLD]]
    more = len(schema) - len(told)
    return (", ".join(told) or "none") + (f", and {more} more" if more else "")


def _shortened(text: str) -> str:
    return text if len(text) <= _TYPE_LETTERS else f"{text[: _TYPE_LETTERS - 3]}..."


def way_out(type: pa.DataType) -> str:
    """What makes a sequence of a column that is none."""
    if is_list(type):
        step = type.value_type
        while is_list(step):
            type, step = step, step.value_type
        if pa.types.is_struct(step):
            return "Make a list of the fields of each step"
        if is_number(step):
            return "Make one list of the numbers of each step"
        return f"Make numbers of each {step}, by a cast for instance"
    if pa.types.is_struct(type):
        return "Make one list of its fields, step by step"
    if is_number(type) or pa.types.is_decimal(type) or pa.types.is_boolean(type):
        return "One event per row? Group the events into a list per sequence"
    return "Make lists of numbers of it"


def is_number(type: pa.DataType) -> bool:
    """Whether values are such as `Ragged` holds, once they are float32."""
    return bool(pa.types.is_floating(type) or pa.types.is_integer(type))


def fixed_in_features(type: pa.DataType) -> int | None:
    """Features per step `D` where the type of the column alone says it, else None."""
    step = step_type(type)
    if step is None:
        return None
    if is_number(step):
        return 1
    return step.list_size if pa.types.is_fixed_size_list(step) else None
