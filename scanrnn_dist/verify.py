"""Is the output of a job what it should be? Parts against the records, ids against the source, a sample recomputed.

The sample goes around the engine: each of its rows is read from the source anew and scanned alone by
`Encoder.__call__`, which the tests hold to the specification bit for bit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from flax import nnx

from scanrnn_dist.dataset.commits import read_parts
from scanrnn_dist.dataset.destination import open_store
from scanrnn_dist.dataset.kept_columns import compare_kept
from scanrnn_dist.dataset.layouts import fixed_lists
from scanrnn_dist.dataset.manifest import ENCODER, PARTS, Manifest, part_name
from scanrnn_dist.dataset.plan import Plan
from scanrnn_dist.dataset.reader import Chunk, read_chunks
from scanrnn_dist.dataset.writer import file_sha256, read_features
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError

TOLERANCE = 1e-6
"""Against the specification, for float32: some roundings of numbers below 1, which do not add up since gates forget.
Cells without gates need not forget; theirs are held to the same, in proportion where features are above 1."""
PROBLEMS_TOLD = 8
SAMPLE_UNITS = 8
"""Units that the sample is taken from at most, since a unit is read from its beginning."""


@dataclass(frozen=True)
class Verification:
    """What was found right.

    Args:
        destination: the output.
        parts: that stand as they were written, one per unit.
        rows: of these.
        rows_compared: whose kept columns are those of the source.
        sampled: rows that were recomputed alone by the specification.
        greatest_difference: of their features.
    """

    destination: str
    parts: int
    rows: int
    rows_compared: int
    sampled: int
    greatest_difference: float

    def __str__(self) -> str:
        text = f"{self.destination}: {self.parts} parts with {self.rows:,} rows stand as they were written"
        if not self.sampled:
            return text
        return (
            f"{text}; the kept columns of {self.rows_compared:,} rows are the source's; {self.sampled} rows recomputed "
            f"alone, greatest difference {self.greatest_difference:.1e}"
        )


def verify(
    destination: str | os.PathLike[str], *, sample: int = 32, seed: int = 0, encoder: Encoder | None = None
) -> Verification:
    """Check the output of a finished job.

    Args:
        destination: the folder or URI that `featurize` wrote to.
        sample: rows to recompute from the source, whose kept columns are then compared for all rows; 0 to look at the
            parts alone, which needs no source.
        seed: of the choice of these rows.
        encoder: for a cell that could not be written to a file; None takes the job's own.

    Raises:
        ConfigError: the folder is no output of a job, or an encoder is needed, or it is another one.
        DataError: the job is not finished, a part is missing, changed or surplus, a row's kept columns are not the
            source's, or its features are not what the specification gives.

    Example:
        >>> verify("features")  # doctest: +SKIP
        Verification(destination='features', parts=2, rows=640, rows_compared=640, sampled=32, ...)
    """
    manifest = Manifest(open_store(destination))
    job = manifest.read_job()
    totals, content = manifest.read_success()
    parts = read_parts(content, manifest.store.path(PARTS))
    plan = Plan.from_records(manifest.read_plan(job))
    _check_parts(manifest, parts, plan, totals)
    root, rows = manifest.store.root, int(totals["rows"])
    if sample < 1 or rows == 0:
        return Verification(root, len(parts), rows, 0, 0, 0.0)
    encoder = _encoder_of(manifest, job, encoder)
    _check_source(plan)
    compared = sum(compare_kept(manifest.store, plan, index) for index in range(len(plan.units)))
    sampled, greatest = _recompute(manifest, plan, encoder, job["options"], sample, np.random.default_rng(seed))
    return Verification(root, len(parts), rows, compared, sampled, greatest)


def _check_parts(manifest: Manifest, parts: pa.Table, plan: Plan, totals: dict[str, Any]) -> None:
    """One part per unit, each with its hash, and no others."""
    store, rows = manifest.store, plan.units.rows if len(plan.units) else np.zeros(1, np.int64)
    recorded = parts["unit"].to_numpy()
    if not np.array_equal(recorded, np.arange(len(rows))):
        differ = np.setxor1d(recorded, np.arange(len(rows)))[:5].tolist()
        raise DataError(f"{store.root}: units {differ} have no part, or a surplus one.")
    there, wrong = store.below(), list[str]()
    for part in parts.to_pylist():
        name = part_name(part["unit"], len(rows))
        if name not in there:
            wrong.append(f"{name} is missing; expected {part['rows']} rows")
            continue
        is_as_recorded = part["rows"] == rows[part["unit"]] and there[name] == part["size_bytes"]
        if not is_as_recorded or file_sha256(store, name) != part["sha256"]:
            wrong.append(f"{name} changed after it was written: its size or SHA-256 is not the recorded one")
    if wrong:
        more = f"; and {len(wrong) - PROBLEMS_TOLD} more" if len(wrong) > PROBLEMS_TOLD else ""
        raise DataError(
            f"{store.root}: {'; '.join(wrong[:PROBLEMS_TOLD])}{more}. Remove what changed, and _SUCCESS: the command "
            "that made these parts makes them again."
        )
    # Every file that readers of data sets take for a part, whatever its ending.
    visible = {name for name in there if not any(part[0] in "_." for part in name.split("/"))}
    surplus = visible - {part_name(unit, len(rows)) for unit in range(len(rows))}
    if surplus:
        raise DataError(f"{store.root} holds files that no unit made: {sorted(surplus)[:5]}. Move them elsewhere.")
    if rows.sum() != totals["rows"]:
        raise DataError(f"{store.root}: the parts hold other rows than the {totals['rows']} of the job.")


def _encoder_of(manifest: Manifest, job: dict[str, Any], given: Encoder | None) -> Encoder:
    """The job's encoder, the given one if a file could not hold it, checked by its fingerprint."""
    if given is None and not manifest.has_encoder:
        path = manifest.store.path(ENCODER)
        raise ConfigError(f"There is no {path}; pass the encoder, or sample=0 to check the parts alone.")
    encoder = given or _recorded_encoder(manifest)
    if encoder.fingerprint != job["encoder"]["fingerprint"]:
        raise ConfigError(
            f"The encoder has the fingerprint {encoder.fingerprint[:16]}...; the job was run with "
            f"{job['encoder']['fingerprint'][:16]}..."
        )
    return encoder


def _recorded_encoder(manifest: Manifest) -> Encoder:
    with tempfile.TemporaryDirectory(prefix="scanrnn-") as folder:
        path = Path(folder) / "encoder.safetensors"
        path.write_bytes(manifest.store.read(ENCODER))
        return Encoder.load(path)


def _check_source(plan: Plan) -> None:
    """Refuse a source that is not as it was when the job was planned."""
    changes = plan.source_changes()
    if changes:
        raise DataError(
            f"The source changed after the job: {'; '.join(changes)}. With sample 0 the parts alone are checked."
        )


def _recompute(
    manifest: Manifest,
    plan: Plan,
    encoder: Encoder,
    options: dict[str, Any],
    sample: int,
    rng: np.random.Generator,
) -> tuple[int, float]:
    """Scan a sample of rows alone; how many, and the greatest difference from what stands in the parts."""
    units = rng.permutation(len(plan.units))[:SAMPLE_UNITS]
    greatest, sampled, tolerance = 0.0, 0, _tolerance(encoder)
    scan_alone = _scan_alone(encoder)
    for index in units:
        unit, name = plan.units[index], part_name(int(index), len(plan.units))
        rows = np.sort(rng.permutation(unit.rows)[: -(-sample // len(units))])
        features = read_features(manifest.store, name, rows)
        chunks = read_chunks(
            plan.source, [unit], column=plan.column, keep=plan.keep, in_features=encoder.in_features,
            lossy_cast=options["lossy_cast"],
        )  # fmt: skip
        with closing(chunks):
            for nth, (chunk, row) in enumerate(_find(chunks, rows)):
                where = f"{manifest.store.path(name)}, row {rows[nth]}"
                carry = _carry_of(chunk.kept.slice(row, 1), encoder, options, where)
                alone = scan_alone(chunk.sequences.row(row)[: options["max_steps"]], carry)
                difference = _difference(features[nth], alone)
                if not difference <= tolerance:
                    raise DataError(
                        f"{where}: the features differ by {difference:.1e} from the row scanned alone; at most "
                        f"{tolerance:.0e} was expected."
                    )
                greatest, sampled = max(greatest, difference), sampled + 1
    return sampled, greatest


def _carry_of(row: pa.RecordBatch, encoder: Encoder, options: dict[str, Any], where: str) -> np.ndarray | None:
    """The initial carry that a row of kept columns brings; None where rows bring none."""
    column = options.get("initial_carry")
    if column is None:
        return None
    lossy_cast, size = options["lossy_cast"], encoder.carry_features
    carry: np.ndarray = fixed_lists(row, column, size, lossy_cast=lossy_cast, where=lambda _: where)[0]
    return carry


def _tolerance(encoder: Encoder) -> float:
    """`TOLERANCE`, or for cells that compute in fewer bits, or products of lower precision, some of their roundings."""
    if encoder.precision != "highest":
        return 4 * float(jnp.finfo(jnp.bfloat16).eps)
    dtypes = [cell.dtype for cell in encoder.cells if getattr(cell, "dtype", None) is not None]
    return max([TOLERANCE, *(4 * float(jnp.finfo(dtype).eps) for dtype in dtypes if jnp.dtype(dtype).itemsize < 4)])


def _difference(features: np.ndarray, alone: np.ndarray) -> float:
    """The greatest difference of two arrays of features: relative for those above 1, infinite for other shapes."""
    if features.shape != alone.shape:
        return float("inf")
    return float((np.abs(alone - features) / np.maximum(1, np.abs(alone))).max(initial=0))


def _scan_alone(encoder: Encoder) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
    """`encoder(x)` for one sequence `(T, D)`, compiled once for all lengths up to the next power of two."""
    graphdef, weights = nnx.split(encoder)
    forward = jax.jit(lambda weights, x, length, carry: nnx.merge(graphdef, weights)(x, length, carry))

    def scan_alone(x: np.ndarray, carry: np.ndarray | None) -> np.ndarray:
        padded = np.zeros((1 << (len(x) - 1).bit_length() if len(x) else 1, x.shape[1]), x.dtype)
        padded[: len(x)] = x
        features = np.asarray(forward(weights, padded, len(x), carry))
        return features[: len(x)] if encoder.gives_steps else features

    return scan_alone


def _find(chunks: Any, rows: np.ndarray) -> Any:
    """`(chunk, row within it)` of each of the sorted `rows` of a unit."""
    wanted = iter(rows)
    row = next(wanted, None)
    chunk: Chunk
    for chunk in chunks:
        while row is not None and row < chunk.first_row + len(chunk.sequences):
            yield chunk, int(row - chunk.first_row)
            row = next(wanted, None)
        if row is None:
            return
