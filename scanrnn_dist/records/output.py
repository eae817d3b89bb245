"""How features stand in a part: in which columns and types, packed by which codec; from numpy to Arrow, and back.

How a part becomes a file, whole or not at all, is `part_file.py`'s; a part's schema alone tells how to read it back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.kinds import check_kinds
from scanrnn_dist.plain import take_plain
from scanrnn_dist.ragged import Ragged, cut
from scanrnn_dist.records.encodings import encodings_of

FEATURES = "features"
"""The name of the output column, in all layouts but `columns`."""
STATE = "state"
"""The name of the column of the states, where they are kept."""
LAYOUTS = ("fixed_size_list", "list", "columns", "tensor")
DTYPES = ("float16", "float32")
CODECS = ("none", "zstd", "snappy", "gzip", "lz4")
ROW_GROUP_BYTES = 4 << 20
"""A row group of a part takes at least so many bytes, unless it is the part's last. Large ones are encoded at the end
of the part, when nothing else is left to do: 20 ms for 10 MB."""
_MOST_BYTES = 2**31 - 1
_OUT_FEATURES = b"out_features"
"""Of a `list`: how many features there are, which its type does not tell."""
Where = Callable[[int], str]
_COLUMN = re.compile(r"feature_\d+")


def _check_is_one_of(name: str, told: Any, choices: tuple[str, ...]) -> None:
    if told not in choices:
        flag = f"--{'' if name == 'compression' else 'output-'}{name}"
        raise ConfigError(f"The output's {name} is {told!r}; expected one of {', '.join(choices)} ({flag}).")


@dataclass(frozen=True)
class Output:
    """How the features are written.

    Args:
        layout: `"fixed_size_list"`, `"list"`, `"columns"` (one column per feature, `feature_00`, `feature_01`, ...) or
            `"tensor"` (Arrow's `fixed_shape_tensor`).
        dtype: `"float16"` or `"float32"`, rounded once, to nearest; None for what the encoder computes in.
        compression: `"zstd"`, `"snappy"`, `"gzip"`, `"lz4"` or `"none"` for all columns; None for zstd for the kept
            columns and nothing for the features.
        row_group_bytes: bytes of a row group before it is encoded, at least; the last of a part may have fewer.

    Raises:
        ConfigError: something else than that.

    Example:
        >>> Output("columns", dtype="float16").compression is None
        True
    """

    layout: str = "fixed_size_list"
    dtype: str | None = None
    compression: str | None = None
    row_group_bytes: int = ROW_GROUP_BYTES

    def __post_init__(self) -> None:
        take_plain(self)
        check_kinds(self)
        _check_is_one_of("layout", self.layout, LAYOUTS)
        if self.dtype is not None:
            _check_is_one_of("dtype", self.dtype, DTYPES)
        if self.compression is not None:
            _check_is_one_of("compression", self.compression, CODECS)
        if not 1 <= self.row_group_bytes <= _MOST_BYTES:
            raise ConfigError(f"row_group_bytes is {self.row_group_bytes}; expected 1 to {_MOST_BYTES}.")

    def check_keeps(self, kept: Sequence[str]) -> None:
        """Refuse kept columns that are named as columns of features are."""
        taken = [name for name in kept if _COLUMN.fullmatch(name)] if self.layout == "columns" else []
        if taken:
            raise ConfigError(
                f"A kept column is named {taken[0]!r}, as the output columns of the layout 'columns' are; rename it, "
                "choose with --keep, or choose another --output-layout."
            )

    def check_holds_steps(self) -> None:
        """Refuse a layout that cannot hold a list of vectors."""
        if self.layout in ("columns", "tensor"):
            raise ConfigError(
                f"The output layout {self.layout!r} holds one vector per row, and the readout 'steps' gives one per "
                "step; choose 'fixed_size_list' or 'list' with --output-layout, or another readout."
            )

    def holds_plain_vectors(self, steps: bool) -> bool:
        """Whether features are one column of vectors, one of each row, that no codec packs."""
        return self.layout != "columns" and self.compression in (None, "none") and not steps

    def writing(self, kept: pa.Table, leaves: Mapping[str, str], features: set[str], dtype: np.dtype) -> dict[str, Any]:
        """What pyarrow's writer is told.

        Args:
            kept: the kept columns of the first row group, which show what pays.
            leaves: the physical types of the Parquet columns, by their paths; "" where several columns share one.
            features: those of them that hold features, of this dtype.
            dtype: of the features.
        """
        # Features hardly compress (zstd: 10 %) and never repeat: 100,000 rows of 64 take 0.026 s written plainly,
        # 0.064 s with pyarrow's defaults, 0.048 s with zstd. Where a codec is asked for, the first bytes of all numbers
        # are stored together, then the second ones: zstd then saves 17 %, not 9, in the same time, lz4 9, not 1. DuckDB
        # 2.0 refuses float16 that is stored so.
        codec, others = self.compression, sorted(leaves.keys() - features)
        is_split = codec not in (None, "none") and dtype.itemsize > 2
        differences, plain = encodings_of(kept, leaves)
        return {
            "compression": dict.fromkeys(others, codec or "zstd") | dict.fromkeys(features, codec or "none"),
            "use_byte_stream_split": sorted(features) if is_split else False,
            "use_dictionary": [name for name in others if name not in differences and name not in plain],
            "column_encoding": dict.fromkeys(sorted(differences), "DELTA_BINARY_PACKED"),
            "write_statistics": others,
            "write_page_checksum": True,
        }


DEFAULT_OUTPUT = Output()


def feature_fields(output: Output, out_features: int, dtype: Any, steps: bool) -> list[pa.Field]:
    """The fields of the features, which come after those of the kept columns.

    Args:
        output: how they are written.
        out_features: per row, or per step.
        dtype: what the encoder gives.
        steps: whether a row has a vector for each of its steps.
    """
    value = pa.from_numpy_dtype(np.dtype(output.dtype or dtype))
    if steps:
        output.check_holds_steps()
    if output.layout == "columns":
        digits = len(str(out_features - 1))  # so that the names sort as the features do
        return [pa.field(f"feature_{number:0{digits}}", value) for number in range(out_features)]
    if output.layout == "tensor":
        return [pa.field(FEATURES, pa.fixed_shape_tensor(value, [out_features]))]
    is_fixed = output.layout == "fixed_size_list"
    vector = pa.list_(value, out_features) if is_fixed else pa.list_(value)
    told = None if is_fixed else {_OUT_FEATURES: str(out_features)}
    return [pa.field(FEATURES, pa.list_(vector) if steps else vector, metadata=told)]


def features_in_words(output: Output, out_features: int, dtype: Any, steps: bool) -> str:
    """The names and types of `feature_fields`, as people read them.

    Example:
        >>> features_in_words(Output("columns", "float16"), 12, "float32", False)
        'feature_00 to feature_11: float16'
        >>> features_in_words(Output(), 12, "float64", True)
        'features: list<fixed_size_list<float64>[12]>'
    """
    fields, value = feature_fields(output, out_features, dtype, steps), np.dtype(output.dtype or dtype).name
    if output.layout == "columns":
        return f"{fields[0].name}{f' to {fields[-1].name}' if len(fields) > 1 else ''}: {value}"
    layout = "fixed_shape_tensor" if output.layout == "tensor" else output.layout
    kind = f"{layout}<{value}>{'' if layout == 'list' else f'[{out_features}]'}"
    return f"{FEATURES}: {f'list<{kind}>' if steps else kind}"


def feature_names(schema: pa.Schema) -> list[str]:
    """The names of the columns of a part that hold features."""
    return [FEATURES] if FEATURES in schema.names else [name for name in schema.names if _COLUMN.fullmatch(name)]


def are_steps(schema: pa.Schema) -> bool:
    """Whether each row of a part holds a vector for each of its steps."""
    names = feature_names(schema)
    kind = schema.field(names[0]).type if names else pa.null()
    return _is_list(kind) and pa.types.is_nested(kind.value_type)


def out_features_of(schema: pa.Schema) -> int:
    """Features per row of a part, or per step."""
    names = feature_names(schema)
    if names != [FEATURES]:
        return len(names)
    field = schema.field(FEATURES)
    if field.metadata and _OUT_FEATURES in field.metadata:
        return int(field.metadata[_OUT_FEATURES])
    kind = _storage(field.type)
    return int((kind if pa.types.is_fixed_size_list(kind) else kind.value_type).list_size)


def value_dtype(schema: pa.Schema) -> np.dtype:
    """What numbers the features of a part are."""
    kind = _storage(schema.field(feature_names(schema)[0]).type)
    while pa.types.is_nested(kind):
        kind = kind.value_type
    return np.dtype(kind.to_pandas_dtype())


def feature_columns(
    schema: pa.Schema, features: np.ndarray | Ragged, is_null: np.ndarray | None, where: Where
) -> list[pa.Array]:
    """The columns of some rows' features, as a part of this schema holds them.

    Args:
        schema: of the part.
        features: `(n, out_features)`, or of steps a `Ragged`.
        is_null: `(n,)` bool, rows whose features are null, whatever is given for them; None if none is.
        where: says where one of these rows stands, for errors.

    Raises:
        DataError: a number that the part's dtype cannot hold; says which row has it.
    """
    features = cut(features) if isinstance(features, Ragged) else features
    offsets = features.offsets if isinstance(features, Ragged) else None
    mask = None if is_null is None or not is_null.any() else pa.array(is_null)
    vectors = stored_vectors(schema, features, is_null, where)
    names, size = feature_names(schema), vectors.shape[1]
    if names != [FEATURES]:
        return [pa.array(column, mask=is_null) for column in np.ascontiguousarray(vectors.T)]
    kind, values = schema.field(FEATURES).type, pa.array(vectors.reshape(-1))
    inner_mask = None if isinstance(features, Ragged) else mask
    vector_kind = kind.value_type if are_steps(schema) else _storage(kind)
    if pa.types.is_fixed_size_list(vector_kind):
        column = pa.FixedSizeListArray.from_arrays(values, size, mask=inner_mask)
    else:
        begins = pa.array(np.arange(len(vectors) + 1) * size, pa.int32())
        column = pa.ListArray.from_arrays(begins, values, mask=inner_mask)
    if offsets is not None:
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column, mask=mask)
    return [pa.ExtensionArray.from_storage(kind, column) if isinstance(kind, pa.BaseExtensionType) else column]


def stored_vectors(
    schema: pa.Schema, features: np.ndarray | Ragged, is_null: np.ndarray | None, where: Where
) -> np.ndarray:
    """The numbers of some rows' features, `(n, out_features)`, contiguous, of the dtype of a part with this schema.

    Arguments and errors are those of `feature_columns`. Where a row is null there are zeros.
    """
    if isinstance(features, Ragged):
        vectors, offsets = features.values, features.offsets
    else:
        vectors, offsets = features, None
        if is_null is not None and is_null.any():
            vectors = np.where(is_null[:, None], 0, vectors).astype(vectors.dtype)
    return np.ascontiguousarray(_rounded(vectors, value_dtype(schema), offsets, where))


def _rounded(vectors: np.ndarray, dtype: np.dtype, offsets: np.ndarray | None, where: Where) -> np.ndarray:
    """Numbers in another dtype, rounded once, to nearest, ties to even; none becomes infinite."""
    if vectors.dtype == dtype:
        return vectors
    with np.errstate(over="ignore"):
        narrow = vectors.astype(dtype)
    infinite = np.isinf(narrow)
    overflows = infinite & ~np.isinf(vectors) if infinite.any() else infinite
    if overflows.any():
        vector, feature = (int(place[0]) for place in np.nonzero(overflows))
        row = vector if offsets is None else int(np.searchsorted(offsets, vector, side="right")) - 1
        raise DataError(
            f"{where(row)}: feature {feature} is {vectors[vector, feature]:g}; expected at most "
            f"{float(np.finfo(dtype).max):g} in size, which is all that {dtype} holds. Choose a wider --output-dtype, "
            "or leave it out."
        )
    return narrow


def vector_of(batch: pa.RecordBatch, row: int) -> np.ndarray | None:
    """The features of one row, `(out_features,)` or `(T, out_features)`; None if they are null."""
    names = feature_names(batch.schema)
    if names != [FEATURES]:
        scalars = [batch.column(name)[row] for name in names]
        if not any(scalar.is_valid for scalar in scalars):
            return None
        return np.array([np.nan if not it.is_valid else it.as_py() for it in scalars], value_dtype(batch.schema))
    column = batch.column(FEATURES)
    found = (column.storage if isinstance(column, pa.ExtensionArray) else column)[row]
    if not found.is_valid:
        return None
    values = found.values.flatten() if are_steps(batch.schema) else found.values
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False).copy()  # a view would keep the whole row group
    return numbers.reshape(-1, out_features_of(batch.schema)) if are_steps(batch.schema) else numbers


def matrix_of(batch: pa.RecordBatch) -> np.ndarray:
    """The features of all rows, `(n, out_features)`; those of a row without any are NaN.

    Raises:
        DataError: a row of another number of features.
    """
    names, size = feature_names(batch.schema), out_features_of(batch.schema)
    found = np.full((batch.num_rows, size), np.nan, value_dtype(batch.schema))
    if names != [FEATURES]:
        for number, name in enumerate(names):
            column = batch.column(name)
            found[:, number] = column.to_numpy(zero_copy_only=False)
            found[column.is_null().to_numpy(zero_copy_only=False), number] = np.nan  # the same bits in every layout
        return found
    column = batch.column(FEATURES)
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    is_there = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy(zero_copy_only=False)  # of rows that are not null
    if not pa.types.is_fixed_size_list(column.type):
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if (lengths[is_there] != size).any():
            raise DataError(f"a row does not have {size} features; expected that of all rows")
    found[is_there] = values.reshape(-1, size)
    return found


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))
