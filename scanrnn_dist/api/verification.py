"""Is the output of a job what it should be? Parts against the records, ids against the source, a sample recomputed.

Each row of the source is accounted for: it is in a part, or in the list of those that were set aside, or was filtered.

The sample goes around the engine: each of its rows is read from the source anew, and judged by `judge.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.api.computation import EncoderOnDevices
from scanrnn_dist.encoder import Encoder, checked_encoder, encoder_of_content
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.faithfulness import Judge
from scanrnn_dist.job import (
    APPLIED,
    PART,
    PROBLEMS_TOLD,
    Handling,
    JobOptions,
    Plan,
    check_is_whole,
    check_not_ready,
    check_parts,
    compare_kept,
    damaged_parts,
    finish_publishing,
    own_carries,
    recorded_parts,
    records_to_read,
    remove_parts,
    run_job,
    surplus_files,
    unread_units,
    wrong_parts,
)
from scanrnn_dist.kinds import check_kind
from scanrnn_dist.observe import as_text
from scanrnn_dist.records import ENCODER, PARTS, JobRecords, part_name, read_features, records_of_parts
from scanrnn_dist.source import Chunk, read_chunks
from scanrnn_dist.storage import open_store

SAMPLE_UNITS = 8
"""Units that the sample is taken from at most, since a unit is read from its beginning."""
_OUTPUT_ALONE = "`scanrnn verify --sample 0` (sample=0) checks only the output itself"
COMPARED_BYTES = 2 << 20
"""Of a chunk, where the rows of a part have to be found among those of the source."""


@dataclass(frozen=True)
class SampledRow:
    """A row that was recomputed, and found right.

    Args:
        part: the file that it is in.
        row: of that file.
        steps: of its sequence.
        distance, specification, bound, between: see `faithfulness.Judgement`; 0 where its features are null, as they
            have to be.
    """

    part: str
    row: int
    steps: int
    distance: float = 0.0
    specification: float = 0.0
    bound: float = 0.0
    between: float = 0.0


@dataclass(frozen=True)
class Verification:
    """What was found right.

    Args:
        destination: the output.
        parts: that are unchanged since they were written, one per unit that is committed.
        rows: of these.
        set_aside: rows of the source that are in the lists of those set aside, whose hashes match.
        filtered: rows of the source that a filter left out.
        rounded_to: what the features were rounded to as they were written, which the distances leave out; None if they
            were not.
        is_updated: whether `update` continued the rows, so that no source has all of their steps to compute them again.
        rows_compared: whose kept columns are those of the source.
        sample: rows that were recomputed alone by the specification.
        is_complete: whether the job is finished.
        units: of the job.
        repaired: names of parts that were not as they should be, and are again, or were removed as surplus.
        sampled: how many these are.
        greatest_distance: of the features of sampled rows from float64; see `faithfulness.Judgement` for all three.
        specification_distance: the greatest of the specification, in the encoder's own dtype, from float64.
        greatest_difference: of the features from the specification in the encoder's own dtype.
    """

    destination: str
    parts: int
    rows: int
    rows_compared: int
    sample: tuple[SampledRow, ...]
    is_complete: bool
    units: int
    repaired: tuple[str, ...]
    set_aside: int = 0
    filtered: int = 0
    rounded_to: str | None = None
    is_updated: bool = False
    sampled: int = field(init=False)
    greatest_distance: float = field(init=False)
    specification_distance: float = field(init=False)
    greatest_difference: float = field(init=False)

    def __post_init__(self) -> None:
        told = [(row.distance, row.specification, row.between) for row in self.sample]
        greatest = np.max([(0.0, 0.0, 0.0), *told], axis=0).tolist()
        names = ("greatest_distance", "specification_distance", "greatest_difference")
        for name, value in {"sampled": len(self.sample), **dict(zip(names, greatest, strict=True))}.items():
            object.__setattr__(self, name, value)

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        committed = "" if self.is_complete else f" (unfinished: {self.parts:,} of {self.units:,} parts are saved)"
        yield f"verified      {self.destination}{committed}"
        if self.repaired:
            more = f" and {len(self.repaired) - PROBLEMS_TOLD} more" * (len(self.repaired) > PROBLEMS_TOLD)
            yield f"repaired      {', '.join(self.repaired[:PROBLEMS_TOLD])}{more}"
        yield f"parts         {self.parts:,} with {self.rows:,} rows, unchanged (their hashes match)"
        if self.set_aside or self.filtered:
            source = self.rows + self.set_aside + self.filtered
            others = f" + {self.filtered:,} filtered" if self.filtered else ""
            yield f"source        {source:,} rows = {self.rows:,} + {self.set_aside:,} set aside{others}"
        if self.is_updated:
            yield "features      not computed again: the output was updated, and no source has all of its steps"
        if not self.sampled:
            return
        if self.rows_compared:
            yield f"kept columns  equal to the source in all {self.rows_compared:,} rows"
        besides = f", without the rounding to {self.rounded_to}" if self.rounded_to else ""
        yield f"features      right in all {self.sampled:,} rows that were recomputed one by one"
        yield f"              Their greatest distances{besides}:"
        specification = f"(the specification's own: {self.specification_distance:.1e})"
        yield f"              {self.greatest_distance:.1e} from float64 {specification}"
        yield f"              {self.greatest_difference:.1e} from the specification"


def verify(
    destination: str | os.PathLike[str],
    *,
    sample: int = 32,
    seed: int = 0,
    encoder: Encoder | None = None,
    repair: bool = False,
    allow_mixed: bool = False,
) -> Verification:
    """Check the output of a job; of an unfinished one what is committed.

    Args:
        destination: the folder or URI that `featurize` wrote to.
        sample: rows to recompute from the source, whose kept columns are then compared for all rows; 0 to look at the
            parts alone, which needs no source. So it is done, too, where `update` continued the rows: no source has
            all of their steps.
        seed: of the choice of these rows.
        encoder: for a cell that could not be written to a file; None takes the job's own.
        repair: whether to make parts again that are missing or changed, and to remove surplus ones, before the check.
            Of an unfinished job changed ones are removed only: the command that goes on makes them.
        allow_mixed: whether parts are made again in another environment than the job's, too, with bits that may differ.

    Raises:
        ConfigError: the folder is no output of a job, or an encoder is needed, or it is another one; or parts of an
            updated output would have to be made again.
        DataError: a part is missing, changed or surplus, a row's kept columns are not the source's, its features are
            not what the specification gives, or the source is not what it was.
        StoppedError: another output is taking the place of this one, or nothing is there of the source.

    Example:
        >>> verify("features")  # doctest: +SKIP
        Verification(destination='features', parts=2, rows=640, rows_compared=640, sample=(SampledRow(...), ...), ...)
    """
    check_kind("sample", sample, int)
    if sample < 0:
        raise ConfigError(f"sample is {sample}; expected 0 or more.")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected 0 or more.")
    records = JobRecords(open_store(destination)) if repair else records_to_read(destination)
    repaired = _repair(records, encoder, allow_mixed) if repair else ()
    check_not_ready(records, "verify")
    job = records.read_job()
    plan = Plan.read(records, job)
    parts, is_complete = recorded_parts(records, job, plan.units)
    check_parts(records, job, parts, plan, is_complete)
    records.check_is(job)  # of which the parts are
    root, units = records.store.root, len(plan.units)
    rows, aside, filtered = (int(parts[name].to_numpy().sum()) for name in ("rows", "aside", "filtered"))
    is_updated = bool(job["options"].get(APPLIED))
    if sample < 1 or rows == 0 or is_updated:
        found = (root, len(parts), rows, 0, (), is_complete, units, repaired, aside, filtered)
        return Verification(*found, is_updated=is_updated)
    encoder = encoder_of(records, job, encoder, f" {_OUTPUT_ALONE}.")
    if changes := plan.changes():
        output_alone = f"{'; '.join(changes.told)}. {_OUTPUT_ALONE}"
        if not changes.is_there:
            raise StoppedError(f"The source cannot be read: {output_alone}.")
        if not changes.is_listed:
            raise DataError(f"The source is not what it was: {output_alone}.")
        raise DataError(
            f"The source changed after the job: {output_alone}; `scanrnn featurize` with --accept-changes does what "
            "changed again."
        )
    rng = np.random.default_rng(seed)
    unread = unread_units(parts)
    rows_of = dict(zip(parts["unit"].to_pylist(), parts["rows"].to_pylist(), strict=True))
    options = JobOptions.from_json(job["options"])
    reading = options.reading(encoder.in_features, encoder.input, chunk_bytes=COMPARED_BYTES)
    # Nothing of a unit that was set aside as a whole could be read.
    read = {index: part_rows for index, part_rows in rows_of.items() if index not in unread}
    compared = compare_kept(records.store, plan, read, reading)
    rows_of_sample = tuple(_recompute(records, plan, rows_of, encoder, options, sample, rng))
    rounded_to = options.output.dtype if options.output.dtype != encoder.pool_dtype else None
    return Verification(
        root, len(parts), rows, compared, rows_of_sample, is_complete, units, repaired, aside, filtered, rounded_to
    )


def _repair(records: JobRecords, given: Encoder | None, allow_mixed: bool) -> tuple[str, ...]:
    """Remove parts that are changed or surplus, and make those again that are changed or missing; which they were."""
    finish_publishing(records)
    job = records.read_job()
    plan, store = Plan.read(records, job), records.store
    # Of a finished job whose list of parts is damaged, what the logs say.
    parts = records_of_parts(store, job["id"], plan.units.rows)
    with suppress(DataError):
        parts, _ = recorded_parts(records, job, plan.units)
    wrong = sorted(wrong_parts(records, parts, plan.units))
    surplus = [name for name in surplus_files(records, plan) if PART.fullmatch(name)]
    remove_parts(records, job, surplus, "no part of this job")
    # A list of parts without _SUCCESS: the job was finished, and a repair of it was cut short.
    is_half_repaired = not records.is_complete and store.exists(PARTS)
    if wrong or is_half_repaired or (records.is_complete and damaged_parts(records)):
        check_is_whole(job, store.root)
        if is_half_repaired or records.is_complete:
            computation = EncoderOnDevices(encoder_of(records, job, given))
            run_job(store, None, JobOptions(), Handling(allow_mixed, discard=tuple(wrong)), computation)
        else:
            remove_parts(records, job, wrong, "changed")
    return tuple(sorted([*wrong, *surplus]))


def encoder_of(records: JobRecords, job: dict[str, Any], given: Encoder | None, otherwise: str = "") -> Encoder:
    """The job's encoder, the given one if a file could not hold it, checked by its fingerprint.

    `otherwise` says what can be done without it.
    """
    if given is None and not records.has_encoder:
        missing = records.store.path(ENCODER)
        raise ConfigError(f"There is no {missing}; pass the encoder, in Python, as encoder=.{otherwise}")
    encoder = given
    if encoder is None:
        encoder = encoder_of_content(Encoder, records.store.read(ENCODER), records.store.path(ENCODER))
    if checked_encoder(encoder).fingerprint != job["encoder"]["fingerprint"]:
        raise ConfigError(
            f"The encoder has the fingerprint {encoder.fingerprint[:16]}...; the job was run with "
            f"{job['encoder']['fingerprint'][:16]}..."
        )
    return encoder


def _recompute(
    records: JobRecords,
    plan: Plan,
    rows_of: Mapping[int, int],
    encoder: Encoder,
    options: JobOptions,
    sample: int,
    rng: np.random.Generator,
) -> Iterator[SampledRow]:
    """Judge what stands in the parts for a sample of rows."""
    units = rng.permutation([unit for unit, rows in rows_of.items() if rows])[:SAMPLE_UNITS]
    judge = Judge(encoder)
    dtype = np.dtype(options.output.dtype or encoder.pool_dtype)
    for index in units:
        unit, name = plan.units[index], part_name(int(index), len(plan.units))
        rows = np.sort(rng.permutation(rows_of[int(index)])[: -(-sample // len(units))])
        features = read_features(records.store, name, rows)
        with closing(read_chunks(plan.source, [unit], options.reading(encoder.in_features, encoder.input))) as chunks:
            for nth, (chunk, row) in enumerate(_find(chunks, rows)):
                where = f"{records.store.path(name)}, row {rows[nth]}"
                of_row = features[nth]
                is_null = chunk.is_null is not None and bool(chunk.is_null[row])
                if is_null != (of_row is None):
                    wrong = "there; expected null, by what is done with such rows" if is_null else "null; expected some"
                    raise DataError(f"{where}: the features are {wrong}.")
                steps = chunk.sequences.row(row)[: options.max_steps]
                if of_row is None:
                    yield SampledRow(name, int(rows[nth]), len(steps))
                    continue
                carry = _carry_of(chunk.kept.slice(row, 1), encoder, options, where)
                if of_row.dtype != dtype:  # a narrower one would be judged as rounded
                    raise DataError(
                        f"{where}: the features are {of_row.dtype}; expected {dtype}, by the job's options."
                    )
                found = judge(of_row, steps, carry)
                if not found.is_faithful:
                    raise DataError(
                        f"{where}: the features are {found.distance:.1e} from the row scanned alone in float64; the "
                        f"specification's own distance is {found.specification:.1e}, and at most {found.bound:.1e} was "
                        "expected."
                    )
                yield SampledRow(name, int(rows[nth]), len(steps), *map(float, found))


def _carry_of(row: pa.RecordBatch, encoder: Encoder, options: JobOptions, where: str) -> np.ndarray | None:
    """The initial carry that a row of kept columns brings; None where rows bring none."""
    carries = own_carries(row, options, encoder.carry_features, lambda _: where)
    return None if carries is None else carries[0]


def _find(chunks: Any, rows: np.ndarray) -> Any:
    """`(chunk, row within it)` of each of the sorted `rows` of a part."""
    wanted, begin = iter(rows), 0
    row = next(wanted, None)
    chunk: Chunk
    for chunk in chunks:
        while row is not None and row < begin + len(chunk.sequences):
            yield chunk, int(row - begin)
            row = next(wanted, None)
        begin += len(chunk.sequences)
        if row is None:
            return
