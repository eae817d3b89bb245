"""Train a GRU on a labelled Parquet data set of sequences; its file goes to `scanrnn featurize --encoder`.

    python train_encoder.py SOURCE encoder.safetensors --label label

A linear classifier on the final hidden state is trained along with the GRU and thrown away. Batches are sharded over
the mesh axis "data", parameters are replicated, and XLA sums the gradients over the devices. The seed fixes the result,
bit for bit on the same devices and versions. Covered: one process, a training set that fits in memory, one label per
sequence. Not covered: a validation split and early stopping; judge the encoder by `evaluate_features.py`, on rows that
were not trained on. Copy this file and edit it.

Inputs are standardised during training, and that is then folded into the GRU's input weights, so the saved encoder
takes raw values:  W ((x - mean) / scale) + b  =  (W / scale) x + (b - W (mean / scale)).  In float32 that is exact only
while means are not far from zero; others are refused, and an --input with their mean and std does the same in float64.

    python train_encoder.py SESSIONS encoder.safetensors --label bought --input spec.toml

With --input, steps hold what a TOML file says: numbers, categories, times (docs/inputs.md). Embedding tables are
trained along with the GRU; ids are not standardised.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
from flax import nnx
from jax.sharding import Mesh

import scanrnn_dist as srd
from scanrnn_dist.engine import AXIS, replicated, sharded
from scanrnn_dist.input_spec import Category
from scanrnn_dist.job import JobOptions, in_features_of, plan_job
from scanrnn_dist.observe import available_cores, cpu_devices_are_chosen
from scanrnn_dist.source import ReadOptions, SourceLike, read_chunks

SHORTEST_BUCKET = 8
"""Batches are padded to this many steps, or twice, four times, ... as many: a program is compiled for each."""

MOST_DEVIATIONS = 1000
"""How many scales a mean may be from zero. Folded into float32 weights it changes features by some 1e-4 there (GRUs of
128 with random weights), and ten times as much at ten times the distance."""


@dataclass(frozen=True)
class Settings:
    """What a user chooses; the defaults suit some hundred rows of some ten steps."""

    hidden: int = 128
    epochs: int = 30
    batch: int = 32
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise srd.ConfigError(f"{name} is {getattr(self, name)}; expected a number above 0.")
        if not 0 <= self.seed < 2**63:
            raise srd.ConfigError(f"seed is {self.seed}; expected a whole number of at most 63 bits, not below 0.")


class Classifier(nnx.Module):
    """An encoder and a linear readout of its features: `(B, T, D)` and lengths in, `(B, classes)` logits out."""

    def __init__(self, encoder: srd.Encoder, classes: int, rngs: nnx.Rngs) -> None:
        self.encoder = encoder
        self.head = nnx.Linear(encoder.out_features, classes, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Logits of a padded batch."""
        return self.head(self.encoder(x, lengths))


def read_labelled(
    source: SourceLike,
    label: str,
    sequence: str | None,
    input: srd.InputSpec | None = None,
    *,
    lossy_cast: bool = False,
) -> tuple[srd.Ragged, np.ndarray, list[Any]]:
    """All rows of a source in memory, the class number of each `(N,)`, and the classes, sorted.

    With an `input`, a step of a row is what travels of it: one number per column. With `lossy_cast`, numbers that
    float32 cannot hold are rounded.
    """
    plan = plan_job(source, JobOptions(column=sequence, keep=[]), input)
    columns = plan.source.schema
    if label not in columns.names:
        raise srd.ConfigError(f"There is no column {label!r}; expected one of {columns.names}. Choose it with --label.")
    kind = columns.field(label).type
    values, types = kind.value_type if pa.types.is_dictionary(kind) else kind, pa.types
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_boolean)
    if not any(is_kind(values) for is_kind in tests):
        raise srd.ConfigError(
            f"Column {label!r} is {kind}; expected classes: strings, integers or booleans. Choose another with --label."
        )
    if not plan.source.rows:
        raise srd.DataError(f"{source} has no rows; expected some to train on.")
    in_features = in_features_of(plan) if input is None else input.in_features
    options = ReadOptions(plan.layout, [label], in_features, input=input, lossy_cast=lossy_cast)
    with closing(read_chunks(plan.source, plan.units, options)) as chunks:
        read = [(chunk.sequences, chunk.kept.column(0)) for chunk in chunks]
    labels = [value for _, column in read for value in column.to_pylist()]
    if None in labels:
        raise srd.DataError(f"Row {labels.index(None)} has no {label!r}; expected a class in every row. Filter it out.")
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise srd.DataError(f"All {len(labels)} rows have the {label!r} {classes}; expected two classes or more.")
    rows = [sequences.row(index) for sequences, _ in read for index in range(len(sequences))]
    if not any(map(len, rows)):
        raise srd.DataError(f"All {len(rows)} sequences are empty; expected steps to train on.")
    return srd.Ragged.from_sequences(rows), np.searchsorted(classes, labels).astype(np.int32), classes


def bucket(lengths: np.ndarray) -> np.ndarray:
    """The padded length of rows: the first of 8, 16, 32, ... that holds them."""
    return SHORTEST_BUCKET << np.ceil(np.log2(np.maximum(lengths, SHORTEST_BUCKET) / SHORTEST_BUCKET)).astype(np.int64)


def epoch_batches(lengths: np.ndarray, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The row numbers of every batch of an epoch: rows of like length together, otherwise at random."""
    order = rng.permutation(len(lengths))
    order = order[np.argsort(bucket(lengths)[order], kind="stable")]
    batches = [order[begin : begin + batch] for begin in range(0, len(order), batch)]
    return [batches[index] for index in rng.permutation(len(batches))]


def padded(rows: srd.Ragged, labels: np.ndarray, chosen: np.ndarray, lanes: int) -> tuple[np.ndarray, ...]:
    """`(lanes, T, D)` zero-padded, lengths, labels, and weights, which are 0 beyond the chosen rows."""
    lengths = np.zeros(lanes, np.int32)
    lengths[: len(chosen)] = rows.lengths[chosen]
    x = np.zeros((lanes, int(bucket(lengths).max()), rows.in_features), np.float32)
    for lane, row in enumerate(chosen):
        x[lane, : lengths[lane]] = rows.row(row)
    targets, weights = np.zeros(lanes, np.int32), np.zeros(lanes, np.float32)
    targets[: len(chosen)], weights[: len(chosen)] = labels[chosen], 1
    return x, lengths, targets, weights


def loss_and_right(
    model: Classifier, x: jax.Array, lengths: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy of the rows of weight 1, and how many of them are classified as their target."""
    logits = model(x, lengths)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = jnp.where(logits.argmax(-1) == targets, weights, 0)
    return (losses * weights).sum() / weights.sum(), right.sum()


@nnx.jit
def train_step(model: Classifier, optimizer: nnx.Optimizer, *batch: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of the optimizer; the gradient is taken outside the scan over time."""
    (loss, right), gradients = nnx.value_and_grad(loss_and_right, has_aux=True)(model, *batch)
    optimizer.update(model, gradients)
    return loss, right


def train(
    rows: srd.Ragged,
    labels: np.ndarray,
    settings: Settings,
    mesh: Mesh,
    report: Callable[[str], None] = print,
    input: srd.InputSpec | None = None,
) -> srd.Encoder:
    """The trained encoder, for raw inputs; a line about every epoch goes to `report`."""
    mean, scale = scaling_of(rows, input)
    check_foldable(mean, scale, input)
    scaled = srd.Ragged(((rows.values - mean) / scale).astype(np.float32), rows.offsets)
    rngs = nnx.Rngs(settings.seed)
    cell = nnx.GRUCell(rows.in_features if input is None else input.width, settings.hidden, rngs=rngs)
    model = Classifier(srd.Encoder(cell, input=input, tables=settings.seed), int(labels.max()) + 1, rngs)
    steps = settings.epochs * -(-len(rows) // settings.batch)
    adam = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, steps))
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), adam), wrt=nnx.Param)
    for module in (model, optimizer):
        nnx.update(module, jax.device_put(nnx.state(module), replicated(mesh)))
    lanes = -(-settings.batch // mesh.shape[AXIS]) * mesh.shape[AXIS]  # a multiple of the devices
    rng = np.random.default_rng(settings.seed)
    for epoch in range(settings.epochs):
        results = []
        for chosen in epoch_batches(rows.lengths, settings.batch, rng):
            batch = jax.device_put(padded(scaled, labels, chosen, lanes), sharded(mesh))
            loss, right = train_step(model, optimizer, *batch)
            results.append((len(chosen) * loss, right))
        loss_sum, right_sum = np.sum(jax.device_get(results), axis=0)
        losses, accuracy = loss_sum / len(rows), right_sum / len(rows)
        report(f"epoch {epoch + 1}/{settings.epochs}: loss {losses:.4f}, training accuracy {accuracy:.3f}")
    widths = 1 if input is None else [column.width for column in input.columns]
    fold_scaling(cell, np.repeat(mean, widths), np.repeat(scale, widths))
    return model.encoder


def scaling_of(rows: srd.Ragged, input: srd.InputSpec | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of every number of a step, `(in_features,)` each; 0 and 1 for ids, which are left alone.

    A constant has a scale of its own size, at which its weights stay small.
    """
    mean, scale = rows.values.mean(axis=0, dtype=np.float64), rows.values.std(axis=0, dtype=np.float64)
    is_id = [isinstance(column, Category) for column in input.columns] if input is not None else False
    scale = np.where(scale > 1e-9 * abs(mean), scale, np.maximum(1, abs(mean)))
    return np.where(is_id, 0, mean), np.where(is_id, 1, scale)


def check_foldable(mean: np.ndarray, scale: np.ndarray, input: srd.InputSpec | None) -> None:
    """Refuse a mean so far from zero that float32 weights which have it folded in would do something else."""
    for index in np.flatnonzero(abs(mean) > MOST_DEVIATIONS * scale):
        name = f"Feature {index}" if input is None else f"Column {input.columns[index].name!r}"
        raise srd.DataError(
            f"{name} has the mean {mean[index]:,.9g} and the scale {scale[index]:.3g}; expected a mean of at most "
            f"{MOST_DEVIATIONS:,} scales, or float32 weights for raw values lose what is trained. Scale it before: "
            "give --input a file with its mean and std, as scanrnn inspect SOURCE --statistics --output FILE writes it."
        )


def fold_scaling(cell: nnx.GRUCell, mean: np.ndarray, scale: np.ndarray) -> None:
    """Let the cell do on raw inputs what it did on standardised ones."""
    W, b = cell.dense_i.kernel, cell.dense_i.bias
    assert b is not None  # that of dense_h is None, that of dense_i is not
    kernel, bias = np.asarray(W[...], np.float64), np.asarray(b[...], np.float64)
    W[...] = jnp.asarray((kernel / scale[:, None]).astype(np.float32))
    b[...] = jnp.asarray((bias - (mean / scale) @ kernel).astype(np.float32))


def check_writable(path: Path) -> None:
    """Refuse a path that no file can be written to."""
    if path.is_dir():
        raise srd.ConfigError(
            f"{path} is a folder; expected the file to write, such as {path / 'encoder.safetensors'}."
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise srd.ConfigError(f"There is no folder {folder} to write the encoder to; make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise srd.ConfigError(f"The folder {folder} may not be written to; choose another for the encoder.")


def main() -> None:
    """Parse, read, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="Parquet file, folder or glob with the rows to train on")
    parser.add_argument("encoder", type=Path, help="the file to write; an existing one is replaced")
    parser.add_argument("--label", required=True, help="the column of the classes")
    parser.add_argument("--sequence", help="the column of the sequences, if several could")
    parser.add_argument("--input", type=Path, help="a TOML file that says what a step holds")
    parser.add_argument("--lossy-cast", action="store_true", help="round numbers that float32 cannot hold")
    for name, default in asdict(Settings()).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help="%(default)s if not given"
        )
    parser.add_argument("--devices", type=int, help="CPU devices; one for each core if not given")
    arguments = parser.parse_args()
    if not cpu_devices_are_chosen(arguments.devices):  # by JAX_NUM_CPU_DEVICES or XLA_FLAGS
        jax.config.update("jax_num_cpu_devices", arguments.devices or available_cores())  # before the first use of JAX
    check_writable(arguments.encoder)  # told now, not after the training
    settings = Settings(**{name: getattr(arguments, name) for name in asdict(Settings())})
    input = srd.InputSpec.load(arguments.input) if arguments.input else None
    rows, labels, classes = read_labelled(
        arguments.source, arguments.label, arguments.sequence, input, lossy_cast=arguments.lossy_cast
    )
    mesh = srd.default_mesh()
    print(f"{len(rows)} rows of {rows.in_features} features, {len(classes)} classes, {mesh.size} devices")
    train(rows, labels, settings, mesh, input=input).save(arguments.encoder)
    print(f"wrote {arguments.encoder}")


if __name__ == "__main__":
    try:
        main()
    except srd.ScanRNNError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
