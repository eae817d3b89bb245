"""Door 1: arrays in, an `(N, H)` array of features out, in input order."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from scanrnn_dist.api.row_shards import shards_of
from scanrnn_dist.api.rows_here import Rows, features_of_rows
from scanrnn_dist.api.sequences import as_ragged, without_torch
from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.engine import build_engine
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.observe import rows_progress
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged, checked_max_steps, numbers_of


def encode(
    encoder: Encoder,
    sequences: Ragged | Iterable[Any] | np.ndarray | Any,
    seq_lengths: Any = None,
    *,
    column: str | None = None,
    mesh: Mesh | None = None,
    window_shape: WindowShape | None = None,
    max_steps: float | None = None,
    initial_carry: Any = None,
    lossy_cast: bool = False,
    nonfinite: Literal["error", "propagate"] = "error",
    show_progress: bool = False,
    kernel: str | None = None,
) -> np.ndarray | Ragged | jax.Array:
    """The features of every sequence, each equal to what the specification gives for that sequence alone.

    Args:
        encoder: the cell and its readout.
        sequences: a list, generator or other iterable of `(T_i, D)` arrays, tensors or nested lists, `[]` being a
            sequence without steps (an iterator may fill one array again and again: each is copied as it comes); a
            padded `(N, T, D)` array, with `seq_lengths`; a `Ragged`; a nested tensor of PyTorch; a column of pandas,
            polars, pyarrow or of another library that gives Arrow data (any layout of sequences that is one Parquet
            column); or a table of theirs, or a dict of columns, with `column`. Numbers of other types, float64 among
            them, pass if float32 holds them exactly, as in `featurize`. If the encoder has an `input`, a step is one
            number per column, an id or a scaled number. A padded `jax.Array` whose rows are sharded over a mesh is a
            global array: each process encodes the rows that it holds, and nothing is gathered.
        seq_lengths: `(N,)` real steps of each row of a padded array; None means that all `T` are real. For a global
            array it may be sharded in the same way.
        column: the column of a table that holds the sequences; may be left out where only one column can.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; all local devices when None, or those that
            hold rows of a global array. Further axes repeat the work.
        window_shape: lanes, block and window of the compiled program; what suits the device kind when None.
        max_steps: use only this many first steps of each sequence, as the `T` of the specification; None uses all.
        initial_carry: `(N, encoder.carry_features)`, each row's own; None for the encoder's. As with `seq_lengths`.
        lossy_cast: round numbers that float32 cannot hold; otherwise the first one is refused.
        nonfinite: what becomes of a NaN or an infinity: "error", or "propagate", which reaches its own row's features
            and no other's.
        show_progress: show how far it is, as in `featurize`.
        kernel: the program that computes, as in `featurize`.

    Returns:
        `(N, out_features)`, float32 for a float32 encoder, in input order; a `Ragged` of `(T_i, out_features)` where
        the encoder's readout is `"steps"`. For a global array a `jax.Array` with its rows on the same devices.

    Raises:
        DataError: wrong shapes, another number of features than the encoder's, a masked value, a number that float32
            cannot hold, or a NaN or an infinity among the steps that count; the row is named.
        ConfigError: arguments that do not go together.

    Example:
        >>> import numpy as np
        >>> encoder = Encoder.from_seed(seed=0, in_features=2, hidden_features=3)
        >>> encode(encoder, [np.ones((5, 2)), np.zeros((0, 2))]).shape
        (2, 3)
    """
    seq_lengths, initial_carry = without_torch(seq_lengths), without_torch(initial_carry)
    shards = shards_of(sequences)
    if shards is not None:
        if column is not None:
            raise ConfigError(f"column={column!r} was given, and the sequences are a global array. Leave column out.")
        if checked_encoder(encoder).gives_steps:
            raise ConfigError("A global array has no room for the outputs of all steps; expected a readout of vectors.")
        if not shards.ranges:  # all rows are other processes'
            return shards.joined(np.empty((0, encoder.out_features), encoder.pool_dtype))
        sequences = shards.taken("sequences", sequences)
        seq_lengths = shards.taken("seq_lengths", seq_lengths)
        initial_carry = shards.taken("initial_carry", initial_carry)
        mesh = mesh or shards.mesh
    with nullcontext() if shards is None else shards.named():
        encoder, max_steps = checked_encoder(encoder), checked_max_steps(max_steps)
        if nonfinite not in ("error", "propagate"):
            raise ConfigError(f"nonfinite is {nonfinite!r}; expected 'error' or 'propagate'.")
        # With max_steps it is judged below, where it is known which steps count.
        judged = nonfinite if max_steps is None else "propagate"
        ragged = as_ragged(sequences, seq_lengths, encoder.in_features, judged, lossy_cast, column)
        if nonfinite == "error" and (bad := ragged.first_nonfinite(max_steps)):
            raise DataError(
                f"Sequence {bad[0]} holds a NaN or an infinity at step {bad[1]} (what is too large for float32 "
                "becomes one). Clean it, or pass nonfinite='propagate' to let it reach the features of its own row."
            )
        if encoder.input is not None:
            _check_ids(encoder.input, ragged.first_steps(max_steps))
        carries = None if initial_carry is None else _own_carries(initial_carry, nonfinite, lossy_cast)
        engine = build_engine(encoder, mesh, window_shape, initial_carry is not None, kernel)
        rows = Rows(ragged, carries)
        with rows_progress("encode", len(ragged)) if show_progress else nullcontext() as shown:
            features = features_of_rows(engine, [rows], max_steps, None if shown is None else shown.advance)
    return features if shards is None else shards.joined(np.asarray(features))


def _check_ids(input: InputSpec, ragged: Ragged) -> None:
    """Refuse ids that the encoder's input has not, which a device could not tell from others."""
    begin = int(ragged.offsets[0])
    if wrong := input.first_wrong_id(ragged.values[begin : ragged.offsets[-1]]):
        step = begin + wrong[0]
        row = int(np.searchsorted(ragged.offsets, step, side="right")) - 1
        raise DataError(f"Sequence {row}, step {step - ragged.offsets[row]}: {wrong[1]}.")


def _own_carries(initial_carry: Any, nonfinite: Literal["error", "propagate"], lossy_cast: bool) -> np.ndarray:
    """Every row's initial carry, `(N, carry_features)`, under the rule of the sequences; other shapes as they are."""
    carries = numbers_of("initial_carry", initial_carry, "(N, carry_features)")
    if carries.ndim != 2:
        return carries  # which the engine refuses
    try:
        rows = Ragged.from_sequences([initial_carry], lossy_cast=lossy_cast)
    except DataError as error:
        raise DataError(f"initial_carry, whose rows count as the steps of a sequence: {error}") from error
    if nonfinite == "error" and (bad := rows.first_nonfinite()):
        raise DataError(f"initial_carry[{bad[1]}] holds a NaN or an infinity; expected finite numbers. Clean it.")
    return rows.values
