"""What `encode` takes: sequences in whatever holds them become a `Ragged`.

Libraries that the sequences come from are not imported. Arrow's PyCapsule protocol (`__arrow_c_stream__`,
`__arrow_c_array__`) reads those of polars, pandas, pyarrow, DuckDB and others; tensors of PyTorch are told by the
module of their class, and whatever else can be iterated over counts as a list of sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np

from scanrnn_dist.errors import ConfigError, DataError, some_of
from scanrnn_dist.ragged import Ragged, time_first_hint

TAKEN = (
    "a list of (T, D) arrays, a padded (N, T, D) array, a Ragged, an Arrow, pandas or polars column or table, or a "
    "PyTorch tensor"
)
"""What is expected, for messages."""
_COLLECT = {
    "pandas": '[group[["x", "y"]].to_numpy() for _, group in frame.groupby("id")]',
    "polars": 'frame.group_by("id", maintain_order=True).agg(seq=pl.concat_list("x", "y"))',
}
"""What makes sequences of a frame of which each row is one step, by its library."""


def as_ragged(
    sequences: Any,
    seq_lengths: Any,
    in_features: int | None,
    nonfinite: Literal["error", "propagate"],
    lossy_cast: bool,
    column: str | None = None,
) -> Ragged:
    """Whatever `encode` takes as a `Ragged` of `in_features` features; raises `DataError` or `ConfigError`.

    Where `in_features` is None, the sequences say it.
    """
    _check_is_collected(sequences)
    sequences = _column_of(sequences, column)
    sequences = without_torch(sequences)
    array = _array_of(sequences)
    if array is not None:
        ragged = _from_array(array, seq_lengths, in_features, lossy_cast)
    elif seq_lengths is not None:
        raise ConfigError(
            f"seq_lengths goes with a padded (N, T, D) array; the sequences are a {type(sequences).__name__}."
        )
    elif isinstance(sequences, Ragged):
        ragged = sequences
    elif _is_arrow(sequences):
        ragged = _from_arrow(sequences, in_features, nonfinite, lossy_cast)
    elif isinstance(sequences, Iterable) and not isinstance(sequences, str | bytes | Mapping | set | frozenset):
        rows: Iterator[Any] = map(without_torch, sequences)
        if not hasattr(sequences, "__getitem__"):  # what gives rows one by one may fill one array again and again
            rows = (row.copy() if isinstance(row, np.ndarray) else row for row in rows)
        ragged = Ragged.from_sequences(list(rows), in_features, lossy_cast=lossy_cast)
    else:
        hint = " Collect it first: frame.collect()." if type(sequences).__name__ == "LazyFrame" else ""
        raise ConfigError(f"The sequences are a {type(sequences).__name__}; expected {TAKEN}.{hint}")
    if in_features is not None and ragged.in_features != in_features:
        shape = ragged.row(0).shape if len(ragged) else (0, ragged.in_features)
        raise DataError(
            f"Sequence 0 has shape {shape}: {ragged.in_features} features per step, "
            f"and the encoder takes {in_features}.{time_first_hint(shape[0] == in_features)}"
        )
    return ragged


def _check_is_collected(sequences: Any) -> None:
    """Refuse what holds sequences in a form of its own that another call of its library makes plain."""
    kind = type(sequences).__name__
    if kind.endswith("GroupBy"):
        raise ConfigError(f"The sequences are a {kind}; expected {TAKEN}.{_how_to_collect(sequences)}")
    if kind == "PackedSequence" and _is_of(sequences, "torch"):
        raise ConfigError(
            "The sequences are a PackedSequence; expected a padded array. Unpack it: padded, lengths = "
            "torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True), then encode(encoder, padded, "
            "seq_lengths=lengths)."
        )


def _how_to_collect(frame: Any) -> str:
    """A hint for a frame of which each row is one step; nothing for one of a library that has no recipe here."""
    recipe = _COLLECT.get(type(frame).__module__.partition(".")[0])
    return f" If each row is one step, collect the steps of each sequence: {recipe}." if recipe else ""


def _column_of(sequences: Any, column: str | None) -> Any:
    """The column that holds the sequences, where they are a table or a mapping of columns; else they as they are."""
    given = sequences
    if type(sequences).__name__ == "Dataset" and _is_of(sequences, "datasets"):  # of Hugging Face
        sequences = sequences.with_format("arrow")[:]
    is_arrow = _is_arrow(sequences) and not _is_of(sequences, "pandas")
    if is_arrow and any(hasattr(sequences, name) for name in ("column_names", "columns", "schema")):
        sequences = _table_or_column(sequences)
    if isinstance(sequences, Mapping):
        names: list[Any] = list(sequences)
        possible = [name for name in names if _may_be_sequences(sequences[name])]
    elif _is_of(sequences, "pandas") and getattr(sequences, "ndim", 1) == 2:
        names = list(sequences.columns)
        possible = [name for name in names if _holds_lists(sequences[name])]
    elif _is_of(sequences, "pyarrow") and type(sequences).__name__ == "Table":
        names, possible = sequences.column_names, _sequence_columns(sequences.schema)
    elif column is not None:
        raise ConfigError(
            f"column={column!r} was given, and the sequences are a {type(given).__name__}; expected a table. "
            "Leave column out."
        )
    else:
        return sequences
    if column is None and len(possible) != 1:
        kind, shown = type(given).__name__, some_of([repr(name) for name in possible or names], 8)
        if not possible:
            raise ConfigError(
                f"The {kind} has no column of sequences; expected lists of (T, D). Its columns: {shown}."
                f"{_how_to_collect(given)}"
            )
        raise ConfigError(f"{len(possible)} columns of the {kind} may be the sequences: {shown}. Choose one: column=.")
    name = possible[0] if column is None else column
    if name not in names or names.count(name) > 1:
        many = f"{names.count(name)} columns" if name in names else "no column"
        shown = some_of([repr(each) for each in possible or names], 8)
        raise ConfigError(f"There is {many} {name!r} in the {type(sequences).__name__}; expected one of {shown}.")
    return sequences[name]


def _table_or_column(sequences: Any) -> Any:
    """A table of Arrow from whoever gives one; of a single column, which may tell its schema as well, that column."""
    import pyarrow as pa  # 0.1 s, which callers with arrays do not wait for

    if isinstance(sequences, pa.Table):
        return sequences
    array = _arrow_array(sequences)
    return pa.Table.from_struct_array(array) if pa.types.is_struct(array.type) else array


def _sequence_columns(schema: Any) -> list[str]:
    """The names of the columns that may hold sequences."""
    from scanrnn_dist.source import sequence_columns

    return sequence_columns(schema)


def _may_be_sequences(column: Any) -> bool:
    """Whether a column of a mapping may hold sequences: lists or arrays, of rows that are no single values."""
    if _is_of(column, "pandas"):
        return _holds_lists(column)
    if _is_of(column, "torch"):
        return bool(getattr(column, "is_nested", False)) or getattr(column, "ndim", 0) > 1
    if _is_array(column) and column.dtype != object:
        return bool(column.ndim > 1)
    if _is_arrow(column):
        import pyarrow as pa

        return bool(_sequence_columns(pa.schema({"sequences": _arrow_array(column).type})))
    if isinstance(column, str | bytes) or not isinstance(column, Sequence | np.ndarray):
        return False
    return not len(column) or any(not np.isscalar(row) and row is not None for row in islice(column, 100))


def _arrow_array(sequences: Any) -> Any:
    """One column of Arrow from what is or gives one."""
    import pyarrow as pa

    if isinstance(sequences, pa.Array | pa.ChunkedArray):
        return sequences
    return pa.chunked_array(sequences) if hasattr(sequences, "__arrow_c_stream__") else pa.array(sequences)


def _from_arrow(
    sequences: Any, in_features: int | None, nonfinite: Literal["error", "propagate"], lossy_cast: bool
) -> Ragged:
    """The sequences of one column of Arrow, or of what gives one."""
    from scanrnn_dist.source import to_ragged

    array = _arrow_array(sequences)
    return to_ragged(
        array, in_features=in_features, lossy_cast=lossy_cast, nonfinite=nonfinite, where="sequence {}".format
    )


def _from_array(array: np.ndarray, seq_lengths: Any, in_features: int | None, lossy_cast: bool) -> Ragged:
    """A padded batch; an array of another number of axes is refused with what was probably meant."""
    if array.ndim == 2:
        raise DataError(f"The sequences are one array of shape {array.shape}; for a single sequence (T, D), pass [x].")
    if array.dtype == object and array.ndim == 1 and seq_lengths is None:
        rows = [without_torch(row) for row in array]
        return Ragged.from_sequences(rows, in_features, lossy_cast=lossy_cast)
    lengths = np.full(len(array), array.shape[1]) if seq_lengths is None and array.ndim == 3 else seq_lengths
    return Ragged.from_padded(array, lengths, lossy_cast=lossy_cast)


def without_torch(given: Any) -> Any:
    """A tensor of PyTorch as a numpy array, one that is nested, or a list of them, as a list; all else as it is.

    Raises:
        DataError: a tensor that numpy cannot take, such as a sparse one.
    """
    if isinstance(given, list | tuple) and given and _is_of(given[0], "torch"):
        return [without_torch(each) for each in given]
    if not _is_of(given, "torch") or not hasattr(given, "detach"):
        return given
    if given.is_nested:
        return [without_torch(each) for each in given.unbind()]
    try:
        plain = given.detach().cpu()
        return (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()  # numpy has no bfloat16
    except (TypeError, RuntimeError) as error:
        raise DataError(f"A tensor of PyTorch is no array: {error} Expected a dense one of numbers.") from error


def _is_of(given: Any, package: str) -> bool:
    """Whether the class of an object is a package's own."""
    return type(given).__module__.partition(".")[0] == package


def _is_array(given: Any) -> bool:
    """Whether it is an array of numpy, of JAX, or of whoever has as much of one."""
    is_array = isinstance(given, np.ndarray) or (hasattr(given, "ndim") and hasattr(given, "__array__"))
    return is_array and not _is_of(given, "pandas")


def _array_of(given: Any) -> np.ndarray | None:
    """What is an array as one of numpy; None of all else, such as arrays of awkward with rows of several sizes."""
    if isinstance(given, np.ma.MaskedArray):
        return given
    try:
        return np.asarray(given) if _is_array(given) else None
    except (ValueError, TypeError, RuntimeError):
        return None


def _is_arrow(given: Any) -> bool:
    """Whether Arrow reads it; objects of Python in a column of pandas it does not."""
    if _is_of(given, "pandas") and str(getattr(given, "dtype", "")) == "object":
        return False
    return hasattr(given, "__arrow_c_stream__") or hasattr(given, "__arrow_c_array__")


def _holds_lists(series: Any) -> bool:
    """Whether a column of pandas may hold sequences: lists of Arrow, or the objects of Python that they can be."""
    if series.ndim != 1 or series.dtype != object:
        return "list" in str(getattr(series, "dtype", ""))
    return any(isinstance(row, list | tuple | np.ndarray) for row in series.iloc[:100])
