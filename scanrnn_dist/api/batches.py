"""Features of batches that another engine hands over: Arrow in, Arrow out, whoever reads, shares out and writes.

`featurize` reads, commits and goes on by itself; here Spark, DuckDB, polars or Ray Data do that, each in its way, and
call a `BatchFeaturizer`. What only Ray knows is `ray.py`'s.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate
from operator import is_
from threading import Lock
from typing import Any, Literal

import jax
import numpy as np
import pyarrow as pa
from flax import nnx

from scanrnn_dist.api.rows_here import Rows, features_of_rows
from scanrnn_dist.encoder import (
    Encoder,
    checked_encoder,
    encoder_content,
    encoder_of_content,
    value_of,
    why_no_file,
)
from scanrnn_dist.engine import build_engine
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.job import JobOptions, check_keeps, own_carries
from scanrnn_dist.kinds import check_kind
from scanrnn_dist.protocols import EngineLike, WindowShape
from scanrnn_dist.ragged import Ragged, checked_max_steps
from scanrnn_dist.records import DEFAULT_OUTPUT, FEATURES, Output, feature_columns, part_schema
from scanrnn_dist.source import (
    BadRows,
    ReadOptions,
    Taken,
    check_width,
    find_layout,
    layout_of_input,
    picked_rows,
    take_batch,
)

EncoderGiven = Encoder | bytes | str | os.PathLike[str] | Callable[[], Encoder]
Where = Callable[[int], str]

BATCH = "the batch"
"""Of another engine, for messages: it does not tell where its rows come from."""

TORCH_MODULE = "torch.nn.modules.module.Module"
"""The class of all modules of PyTorch, which is not imported."""

logger = logging.getLogger("scanrnn_dist")


class BatchFeaturizer:
    """A function from Arrow batches to Arrow batches: the sequences are replaced by their features.

    Each row's features are those of `encode` and `featurize` with the same window shape, bit for bit. It can be sent to
    other processes; there the encoder is made and compiled once, for the first batch.

    Args:
        encoder: an `Encoder`; the path or the content of its file; or a function that returns one, for cells that no
            file can hold.
        layout, column, features, in_features: how the sequences stand in the columns, as `featurize` takes it. A row is
            a sequence; where a row is one step, have the engine collect the steps of a sequence first. An encoder with
            an input needs `in_features` where the type of the column does not say how many features a step has.
        keep: the columns to carry along; None keeps all but those of the sequences.
        max_steps, truncate, min_steps, bad_rows, initial_carry, lossy_cast: as of `featurize`. Rows that `bad_rows`
            sets aside are not in the result, which a warning of the logger "scanrnn_dist" tells.
        output: layout and dtype of the features; `fixed_size_list<float32>` by default.
        window_shape: lanes, block and window of the compiled program; what suits the device kind when None.

    Raises:
        ConfigError: options that do not go together.

    Example:
        >>> rows = pa.table({"id": [1, 2], "sequence": pa.array([[[0.5, 1.0]], []], pa.list_(pa.list_(pa.float32())))})
        >>> featurizer = BatchFeaturizer(Encoder.from_seed(0, in_features=2, hidden_features=3))
        >>> featurizer(rows).schema.names, featurizer(rows)["features"].type
        (['id', 'features'], FixedSizeListType(fixed_size_list<item: float>[3]))
    """

    _encoder: Encoder | None
    _file_hash: str | None = None
    """SHA-256 of the encoder's file, where it is given as a path, as it was loaded or travelled; None if not known."""
    _hashed: tuple[Any, list[Any], str] | None

    def __init__(
        self,
        encoder: EncoderGiven,
        *,
        layout: str | None = None,
        column: str | None = None,
        features: Sequence[str] | None = None,
        in_features: int | None = None,
        keep: Sequence[str] | None = None,
        max_steps: float | None = None,
        truncate: Literal["head", "tail"] = "head",
        min_steps: int = 0,
        bad_rows: BadRows | None = None,
        initial_carry: str | None = None,
        lossy_cast: bool = False,
        output: Output = DEFAULT_OUTPUT,
        window_shape: WindowShape | None = None,
    ) -> None:
        if not isinstance(encoder, bytes | str | os.PathLike) and (_is_module(encoder) or not callable(encoder)):
            checked_encoder(encoder)
        check_kind("window_shape", window_shape, WindowShape | None)
        self._given, self._shape = encoder, window_shape
        self._options = JobOptions(
            layout=layout, column=column, features=features, in_features=in_features, keep=keep, max_steps=max_steps,
            truncate=truncate, min_steps=min_steps, bad_rows=bad_rows or BadRows(), initial_carry=initial_carry,
            lossy_cast=lossy_cast, output=output,
        )  # fmt: skip
        self._begin()

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """The kept columns of a batch and the features of its rows, in order.

        Raises:
            ConfigError: a column that is not there, or whose name the features have; types that fix another number of
                features per step than the encoder takes.
            DataError: data that is not what it should be; the row of the batch is named.
            LayoutError: no column holds sequences, or several may.
        """
        if not isinstance(batch, pa.Table | pa.RecordBatch):
            raise ConfigError(
                f"The batch is a {type(batch).__name__}; expected a pyarrow Table or RecordBatch: "
                'pa.Table.from_pandas(frame), frame.to_arrow() of polars, dataset.with_format("arrow").map(...) of '
                "Hugging Face datasets."
            )
        pieces = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
        with self._lock:  # an engine may call from several threads, and the devices are busy anyway
            reading = self._reading(batch.schema)
            taken = _taken(pieces, batch.schema, reading)
            kept = [_kept(piece, rows, reading.keep) for piece, rows in zip(pieces, taken, strict=True)]
            places = _places(pieces, taken)
            features = self._computed(taken, kept, places)
            schema = self._schema(batch.schema, reading.keep)
        _tell_of_aside(taken, batch.num_rows)
        made, begin = [], 0
        for rows, columns, place in zip(taken, kept, places, strict=True):
            end = begin + columns.num_rows
            part = features.slice(begin, end) if isinstance(features, Ragged) else features[begin:end]
            arrays = [*columns.columns, *feature_columns(schema, part, rows.is_null, place)]
            made.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            begin = end
        return pa.Table.from_batches(made, schema)

    def stream(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The result for each batch, one after the other, as Spark's `mapInArrow` and a `RecordBatchReader` want it.

        Example:
            >>> rows = pa.table({"sequence": pa.array([[[0.5]], []], pa.list_(pa.list_(pa.float32())))})
            >>> featurizer = BatchFeaturizer(Encoder.from_seed(0, in_features=1, hidden_features=3))
            >>> reader = pa.RecordBatchReader.from_batches(
            ...     featurizer.schema(rows.schema), featurizer.stream(rows.to_batches())
            ... )
            >>> reader.read_all().num_rows
            2
        """
        for batch in batches:
            yield from self(batch).to_batches()

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema of the result for batches of a schema; raises as a call does."""
        with self._lock:
            return self._schema(schema, self._reading(schema).keep)

    @property
    def encoder(self) -> Encoder:
        """The encoder, made when it is first asked for.

        Raises:
            ConfigError: its file is not the one that the featurizer had before it was pickled.
        """
        if self._encoder is None:
            found = _file_hash(self._given)
            if found != self._file_hash and None not in (found, self._file_hash):
                raise ConfigError(
                    f"The encoder file {self._given!s} has the SHA-256 {found}; expected {self._file_hash}, that of "
                    "the file that the BatchFeaturizer came with. Make another BatchFeaturizer, or give it the file's "
                    "content."
                )
            self._encoder, self._file_hash = _encoder_of(self._given), found
        return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        """What travels: the encoder as it was given, or the content of its file, so that arriving starts no JAX.

        With a path travels the hash of its file, by which caches tell featurizers apart.
        """
        given = encoder_content(Encoder, self._given) if isinstance(self._given, Encoder) else self._given
        file_hash = self._file_hash or _file_hash(given)
        return {"_given": given, "_file_hash": file_hash, "_shape": self._shape, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """What is made in each process anew."""
        self._encoder = self._hashed = None
        self._lock = Lock()

    def _reading(self, schema: pa.Schema) -> ReadOptions:
        """What is read of batches of a schema: the only layout there may be, and the kept columns."""
        input, asked = self.encoder.input, self._options.asked
        find = partial(find_layout, schema, where=BATCH, takes_texts=input is not None)
        layout = find(asked) if input is None else layout_of_input(find, asked, schema, input)
        if input is None:
            check_width(layout, schema, self.encoder.in_features)
        elif layout.width(schema) is None:
            raise ConfigError(
                f"The type of {layout.described} does not say how many features a step has, and batches may begin with "
                "different steps; expected in_features. Give in_features=N, the features of every step."
            )
        keep = layout.kept(schema, ()) if self._options.keep is None else tuple(self._options.keep)
        for name in keep:
            if name == FEATURES:
                raise ConfigError(f"A kept column is named {name!r}, as the result's; rename it, or choose with keep.")
            if name not in schema.names:
                raise ConfigError(f"There is no column {name!r} to keep in {BATCH}; it has {schema.names}.")
            if schema.names.count(name) > 1:
                raise ConfigError(f"There are several columns {name!r} in {BATCH}; rename one, or choose with keep.")
        check_keeps(self._options, schema, layout, keep)
        settled = self._options.settled(layout, keep, self._options.rows_per_part)
        return settled.reading(self.encoder.in_features, input)

    def _schema(self, schema: pa.Schema, keep: Sequence[str]) -> pa.Schema:
        """Of the result."""
        encoder, kept = self.encoder, pa.schema([schema.field(name) for name in keep], schema.metadata)
        dtype, output = encoder.pool_dtype, self._options.output
        return part_schema(kept, encoder.out_features, {}, encoder.gives_steps, dtype, output)

    def _fingerprint(self) -> str:
        """The encoder's. Large tables take a second to hash, so the same arrays are not hashed anew for each batch."""
        graphdef, variables = nnx.split(self.encoder)
        arrays = [value_of(leaf) for _, leaf in nnx.to_flat_state(variables)]
        if self._hashed is not None:
            before, same, fingerprint = self._hashed
            if graphdef == before and all(map(is_, arrays, same)):
                return fingerprint
        fingerprint = self.encoder.fingerprint
        # Arrays of numpy, and what a cell of somebody's own computes with, may be changed and be the same objects.
        is_told_by_both = why_no_file(Encoder, self.encoder) is None and all(isinstance(a, jax.Array) for a in arrays)
        self._hashed = (graphdef, arrays, fingerprint) if is_told_by_both else None
        return fingerprint

    def _computed(
        self, taken: Sequence[Taken], kept: Sequence[pa.RecordBatch], places: Sequence[Where]
    ) -> np.ndarray | Ragged:
        """The features of all rows, one after the other."""
        options = self._options
        engine = _engine(_Same(self._fingerprint(), self.encoder), self._shape, options.has_own_carries)
        rows = [
            Rows(each.sequences, own_carries(columns, options, engine.carry_features, place, each.is_null))
            for each, columns, place in zip(taken, kept, places, strict=True)
        ]
        return features_of_rows(engine, rows, checked_max_steps(options.max_steps))


@dataclass(frozen=True)
class _Same:
    """An encoder that is another one's equal where their fingerprints are."""

    fingerprint: str
    encoder: Encoder = field(compare=False)


@lru_cache(maxsize=4)
def _engine(of: _Same, shape: WindowShape | None, own_carries: bool) -> EngineLike:
    """The engine of this process: Spark sends the function anew with every task, and compiling takes a second."""
    return build_engine(of.encoder, None, shape, own_carries)


def _is_module(given: Any) -> bool:
    """Whether it is a module of Flax or PyTorch, which can be called, but returns no encoder."""
    is_torch = any(f"{kind.__module__}.{kind.__name__}" == TORCH_MODULE for kind in type(given).__mro__)
    return is_torch or isinstance(given, nnx.Module)


def _encoder_of(given: EncoderGiven) -> Encoder:
    """The encoder that was given in one way or another."""
    if isinstance(given, Encoder):
        return given
    if isinstance(given, bytes):
        return checked_encoder(encoder_of_content(Encoder, given))
    return Encoder.load(given) if isinstance(given, str | os.PathLike) else checked_encoder(given())


def _file_hash(given: EncoderGiven) -> str | None:
    """SHA-256 of the file of an encoder, in hexadecimal; None where it is not given as a path, or cannot be read."""
    if isinstance(given, str | os.PathLike):
        with suppress(OSError), open(given, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def _taken(pieces: Sequence[pa.RecordBatch], schema: pa.Schema, reading: ReadOptions) -> list[Taken]:
    """The rows of the pieces of a batch as sequences."""
    taken, first_row, width = [], 0, reading.width(schema)
    for piece in pieces:
        try:
            rows, _ = take_batch(piece, schema, reading, width, _place(first_row))
        except DataError as error:
            if not error.policy:
                raise
            choice = f'Or leave such rows out: bad_rows=BadRows({error.policy}="skip").'
            raise type(error)(f"{error} {choice}").under(error.policy) from error
        taken.append(rows)
        first_row += piece.num_rows
    return taken


def _kept(piece: pa.RecordBatch, taken: Taken, keep: Sequence[str]) -> pa.RecordBatch:
    """The kept columns of the rows that were taken."""
    columns = piece.select(list(keep))
    return picked_rows(columns, taken.kept) if taken.aside else columns


def _tell_of_aside(taken: Sequence[Taken], rows: int) -> None:
    """Say that rows are left out, and why the first one is."""
    aside = [each for some in taken for each in some.aside]
    if aside:
        logger.warning("%d of %d rows of a batch are set aside. The first: %s", len(aside), rows, aside[0].reason)


def _places(pieces: Sequence[pa.RecordBatch], taken: Sequence[Taken]) -> list[Where]:
    """For each piece what says where its rows stand that were taken."""
    first_rows = accumulate((piece.num_rows for piece in pieces), initial=0)
    return [_place(first_row, rows.kept) for first_row, rows in zip(first_rows, taken, strict=False)]


def _place(first_row: int, rows: np.ndarray | None = None) -> Where:
    """Says where a row stands, of a piece that begins at a row of the batch, or of these `rows` of the piece."""
    return lambda row: f"row {first_row + (row if rows is None else int(rows[row]))} of {BATCH}"
