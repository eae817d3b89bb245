"""What an Arrow type or field says of the shapes of tensors, be they all of one shape or each of its own.

pyarrow gives no class for tensors of variable shape: where its C++ knows them, only a schema as bytes tells their
parameters; where it does not, the metadata of the field does.
See https://arrow.apache.org/docs/format/CanonicalExtensions.html.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.source.layouts.types import EXTENSION_METADATA, EXTENSION_NAME, VARIABLE_TENSOR, is_number, list_value
from scanrnn_dist.source.parquet import without_extensions


@dataclass(frozen=True)
class TensorType:
    """Tensors of two axes.

    Args:
        value: the type of their values.
        shape: of each as it is stored, row after row; None where an axis is each tensor's own affair.
        time, feature: which of the stored axes is the first one that is meant, and which the second.
        is_fixed: whether all have one shape, which is then not stored with each.
    """

    value: pa.DataType
    shape: tuple[int | None, int | None]
    time: int
    feature: int
    is_fixed: bool


def tensor_type(field: pa.Field) -> TensorType | None:
    """What a column's field says of its tensors; None if it holds none of two axes."""
    type = field.type
    if isinstance(type, pa.FixedShapeTensorType):
        if len(type.shape) != 2 or not is_number(type.value_type):
            return None
        return _of(field, type.value_type, tuple(type.shape), type.permutation, True)
    if isinstance(type, pa.BaseExtensionType):
        is_variable, stored = type.extension_name == VARIABLE_TENSOR, type.storage_type
        told = _metadata(type) if is_variable else b""
    else:
        said = field.metadata or {}
        is_variable, stored = said.get(EXTENSION_NAME) == VARIABLE_TENSOR.encode(), type
        told = said.get(EXTENSION_METADATA, b"")
    if not is_variable or not pa.types.is_struct(stored):
        return None
    return _variable(field, stored, told)


def _variable(field: pa.Field, stored: pa.StructType, told: bytes) -> TensorType | None:
    if any(stored.get_field_index(name) < 0 for name in ("data", "shape")):
        return None
    value, shape = list_value(stored.field("data").type), stored.field("shape").type
    if value is None or not is_number(value) or not pa.types.is_fixed_size_list(shape) or shape.list_size != 2:
        return None
    try:
        said = json.loads(told or b"{}")
        sizes = tuple(said.get("uniform_shape") or (None, None))
        if len(sizes) != 2 or not all(size is None or (isinstance(size, int) and size >= 0) for size in sizes):
            raise ValueError(f"uniform_shape is {sizes}")
        return _of(field, value, sizes, said.get("permutation"), False)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise LayoutError(
            f"column {field.name!r} holds tensors whose description cannot be right ({error}); expected what Arrow's "
            f"{VARIABLE_TENSOR} says. Write the column again."
        ) from error


def _of(field: pa.Field, value: pa.DataType, shape: tuple, permutation: list[int] | None, fixed: bool) -> TensorType:
    axes = [0, 1] if permutation is None else list(permutation)
    if sorted(axes) != [0, 1]:
        raise LayoutError(f"column {field.name!r} holds tensors of 2 axes whose permutation is {axes}; write it again.")
    return TensorType(value, shape, axes[0], axes[1], fixed)


def _metadata(type: pa.BaseExtensionType) -> bytes:
    """What an extension type says of itself, as it would stand in a field's metadata."""
    stored = pa.schema([("tensors", type)]).serialize().to_pybytes()
    (field,) = pa.ipc.read_schema(pa.py_buffer(without_extensions(stored)))
    return (field.metadata or {}).get(EXTENSION_METADATA, b"")
