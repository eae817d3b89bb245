"""What the types of columns say: of a step, of extensions that are not understood, and of ways out.

Looks at types only. Which columns hold the sequences says `find.py`; their values are taken apart by one file per
layout.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from scanrnn_dist.source.layouts.lists import is_list

RECIPES, LONG_FORMAT = "docs/data.md, 'Recipes'", "docs/layouts.md, 'Long format'"
EXPECTED = "expected a list of float"
VARIABLE_TENSOR = "arrow.variable_shape_tensor"
EXTENSION_NAME, EXTENSION_METADATA = b"ARROW:extension:name", b"ARROW:extension:metadata"
_COLUMNS_TOLD, _TYPE_LETTERS = 8, 60
_OPAQUE = pa.binary()
_STORED_AS_MEANT = {
    "awkward",  # says how nulls and records were made; the lists are Arrow's
    "datasets.features.features.Array2DExtensionType",  # of Hugging Face: nested lists
}
"""Extension types whose storage is the sequence, list by list."""


def foreign_extension(field: pa.Field) -> str | None:
    """The extension type of a column, at any level, whose storage need not be what it means; None without one.

    A type that pyarrow knows says so itself; of the others only the metadata of fields tells. What the fields of a
    struct are, is their own affair: `foreign_extensions`.
    """
    name = (field.metadata or {}).get(EXTENSION_NAME, b"").decode("utf-8", "replace")
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


def foreign_extensions(field: pa.Field, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """What `foreign_extension` gives of a column and of all fields within it, each with the way there."""
    path, type = (*above, field.name), field.type
    extension = foreign_extension(field)
    if extension is not None:
        yield path, extension
    while is_list(type):
        type = type.value_type
    if pa.types.is_struct(type):
        for inner in type:
            yield from foreign_extensions(inner, path)


def plain_type(type: pa.DataType) -> pa.DataType:
    """The type without what says how it is stored: an extension, a dictionary, runs."""
    while True:
        if isinstance(type, pa.BaseExtensionType):
            # A tensor's storage is flat: a (T, D) tensor would pass for T * D steps of one feature.
            if isinstance(type, pa.FixedShapeTensorType) and len(type.shape) != 1:
                return _OPAQUE
            type = type.storage_type
        elif pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
            type = type.value_type
        else:
            return type


def step_type(type: pa.DataType) -> pa.DataType | None:
    """The type of one timestep, a value or a list of values; None where the layout is not supported."""
    outer = plain_type(type)
    if not is_list(outer):
        return None
    step = plain_type(outer.value_type)
    if is_value(step):
        return step
    return step if is_list(step) and is_value(plain_type(step.value_type)) else None


def last_value(type: pa.DataType) -> pa.DataType:
    """The type of what is no list any more within lists."""
    type = plain_type(type)
    while is_list(type):
        type = plain_type(type.value_type)
    return type


def is_list_of_steps(type: pa.DataType, is_asked: bool) -> bool:
    """Whether a column holds lists of steps: of plain numbers, or where it is asked for by name, of any values."""
    return step_type(type) is not None and (is_asked or is_plain_number(last_value(type)))


def list_value(type: pa.DataType) -> pa.DataType | None:
    """The type of the values of a list, if they are values and no lists."""
    step = step_type(type)
    return None if step is None or is_list(step) else step


def foreign(extension: str) -> str:
    """What is said of an extension type that is not understood."""
    return (
        f"with the extension type {extension!r}, which is not understood: its storage may be flat, or in another "
        f"order. Expected lists without an extension type: store it as nested lists first ({RECIPES})."
    )


def described(schema: pa.Schema) -> str:
    """The first columns with their types."""
    told = [f"{field.name!r} {shortened(str(field.type))}" for field in list(schema)[:_COLUMNS_TOLD]]
    more = len(schema) - len(told)
    return (", ".join(told) or "none") + (f", and {more} more" if more else "")


def shortened(text: str) -> str:
    """A text that is not too long for a message."""
    return text if len(text) <= _TYPE_LETTERS else f"{text[: _TYPE_LETTERS - 3]}..."


def with_page(advice: str) -> str:
    """An advice and, in parentheses, the page that says more."""
    return f"{advice} ({LONG_FORMAT if '--group-by' in advice else RECIPES})"


def way_out(type: pa.DataType) -> str:
    """What makes a sequence of a column that is none."""
    if is_list(type):
        step = type.value_type
        while is_list(step):
            type, step = step, step.value_type
        if is_number(step):
            return "Make one list of the numbers of each step"
        if pa.types.is_struct(step):
            return "Name its fields of numbers with --features, or make some"
        return f"Make numbers of each {shortened(str(step))}, by a cast for instance"
    if pa.types.is_struct(type):
        return "Make lists of numbers of its fields"
    if is_number(type):
        return "One step per row? Say so with --group-by and --order-by"
    return "Make lists of numbers of it"


def is_number(type: pa.DataType) -> bool:
    """Whether values become numbers: those of `numbers.py`, also as a dictionary or as runs."""
    type, types = plain_type(type), pa.types
    if types.is_floating(type) or types.is_integer(type) or types.is_boolean(type) or types.is_decimal(type):
        return True
    return bool(types.is_temporal(type) and not types.is_interval(type))


def is_plain_number(type: pa.DataType) -> bool:
    """Whether values are numbers that nobody has to ask for by name: no times, few of which float32 holds."""
    return is_number(type) and not pa.types.is_temporal(plain_type(type))


def is_string(type: pa.DataType) -> bool:
    """Whether values are texts, also as a dictionary or as runs."""
    type, types = plain_type(type), pa.types
    return bool(types.is_string(type) or types.is_large_string(type) or types.is_string_view(type))


def is_value(type: pa.DataType) -> bool:
    """Whether a step may hold such values: numbers, texts, or nothing but nulls."""
    return is_number(type) or is_string(type) or bool(pa.types.is_null(plain_type(type)))


def value_type(type: pa.DataType) -> pa.DataType | None:
    """The type of such a value of a step, however it is stored; None if it is none."""
    return plain_type(type) if is_value(type) else None


def fixed_in_features(type: pa.DataType) -> int | None:
    """Features per step `D` where the type of the column alone says it, else None."""
    step = step_type(type)
    if step is None:
        return None
    if not is_list(step):
        return 1
    return step.list_size if pa.types.is_fixed_size_list(step) else None
