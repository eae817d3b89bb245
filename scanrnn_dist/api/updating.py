"""Sequences that grow: `update` goes on with the rows of an output, each from its state, with new steps alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from scanrnn_dist.api.computation import EncoderOnDevices
from scanrnn_dist.api.verification import encoder_of
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError, ScanRNNError
from scanrnn_dist.job import (
    APPLIED,
    FirstSource,
    Handling,
    JobOptions,
    JobReport,
    OnRows,
    OnStart,
    Plan,
    continued_plan,
    finish_publishing,
    first_source,
    names_of,
    plan_job,
    read_new_steps,
    recorded_parts,
    run_job,
    wrong_parts,
)
from scanrnn_dist.records import Facts, JobRecords, counts_of, read_records
from scanrnn_dist.source import SKIP, SourceLike, Units, count_name, unchanged
from scanrnn_dist.storage import open_store


def update(
    destination: str | os.PathLike[str],
    source: SourceLike,
    *,
    ids: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    mesh: Mesh | None = None,
    allow_mixed: bool = False,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
) -> JobReport:
    """Add new steps to the rows of an output. The features are then those of all steps at once, bit for bit.

    Each row of `source` is one sequence of new steps; in the long format each group of rows is. Its ids say which row
    of the output it continues, and it begins from the state that was kept there. A new id begins as in `featurize`, and
    comes after all others. Rows without new steps stay as they are; if there are no steps and no new ids, nothing is
    done. The old output stays until the new one is complete. If a call was stopped, the same call again continues.

    Args:
        destination: a finished output that was made with `keep_state`.
        source: new steps, with the layout and the kept columns of the source that the output was made of. They are
            held in memory. A row with new steps gets its kept columns from here.
        ids: kept columns that identify a sequence, the same in each update; None takes those by which the long format
            is grouped, or those of the update before.
        encoder: needed for a cell that could not be written to a file; None takes the job's own.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; None takes all local devices.
        allow_mixed: whether to continue on another kind or model of device, with other XLA flags or other versions.
            Features may then differ in their last digits.
        on_start, on_rows: as of `featurize`.

    Returns:
        What was done; its rows, also those set aside, are those of the whole output, its counts those of this update.

    Raises:
        ConfigError: an output without states or that is not finished, or that lacks rows or files of its source;
            another encoder, steps that were applied before, or ids that are not kept or others than before.
        DataError: a file that cannot be read, data that is not what it should be, an id that comes twice, a new id
            without steps where these are an error, or a part of the output that changed after it was written.
        StoppedError: the destination's file system refused, or another process works on the destination.

    Example:
        >>> import pyarrow as pa, pyarrow.parquet as pq, tempfile
        >>> from scanrnn_dist.api import featurize
        >>> folder = tempfile.mkdtemp()
        >>> monday = pa.table({"id": [1, 2], "sequence": [[[0.5, 1.0]], []]})
        >>> tuesday = pa.table({"id": [2, 3], "sequence": [[[0.25, 1.0]], [[1.0, 1.0]]]})
        >>> pq.write_table(monday, folder + "/monday.parquet"), pq.write_table(tuesday, folder + "/tuesday.parquet")
        (None, None)
        >>> encoder = Encoder.from_seed(0, in_features=2, hidden_features=3)
        >>> _ = featurize(encoder, folder + "/monday.parquet", folder + "/out", keep_state=True)
        >>> report = update(folder + "/out", folder + "/tuesday.parquet", ids=["id"])
        >>> pq.read_table(folder + "/out")["id"].to_pylist(), report.steps
        ([1, 2, 3], 2)
    """
    records = JobRecords(open_store(destination))
    was_published = finish_publishing(records)
    job, root = records.read_job(), records.store.root
    options, applied = JobOptions.from_json(job["options"]), tuple(job["options"].get(APPLIED, ()))
    if not options.keep_state:
        raise ConfigError(f"{root} holds no states to continue from; make it with --keep-state (keep_state=True).")
    if not records.is_complete:
        raise ConfigError(f"{root} is not finished; start the command that began it again, then update.")
    encoder = encoder_of(records, job, encoder)
    plan = plan_job(source, options, encoder.input)
    if left_out := plan.source.left_out:
        raise DataError(
            f"{left_out[0].path} cannot be read as Parquet: {left_out[0].reason}. An update takes all steps "
            "of its source: mend or replace the file, or name the others by a glob such as 'folder/**/*.parquet'."
        )
    ids = _settled_ids(ids, options, applied, plan, root)
    plan = _nullable(plan)
    recorded = records.read_plan(job)
    facts, units = read_records(recorded)
    first = first_source(recorded, job["options"])
    first_units = read_records(first.records)[1] if applied else units
    own = _own_files(first_units, plan)
    if first.digest is None and not own and _counts(first_units) == _counts(plan.units):
        first = replace(first, digest=_first_digest(first, options, ids, encoder))
    new = read_new_steps(plan, options, ids, encoder.in_features, encoder.input)
    has_steps = len(new.sequences.values) > 0
    if has_steps and own:
        raise ConfigError(
            f"{root} was made of {own[0]}; applied once more, the steps of that file would count twice. Nothing was "
            "changed. Leave it out."
        )
    if has_steps and new.digest in (first.digest, *applied):
        if was_published and applied[-1:] == (new.digest,):
            return JobReport.of_nothing(root, records.read_totals()["rows"])
        raise ConfigError(
            f"These {len(new):,} sequences of new steps were applied to {root} before; applied once more, every step "
            "would count twice. Nothing was changed."
        )
    parts, _ = recorded_parts(records, job, units)
    _check_has_all_rows(parts, facts, root)
    if has_steps:
        _check_as_written(records, job, parts, units)
    empty_sequence = options.bad_rows.empty_sequence
    continued = continued_plan(records.store, job["id"], parts, plan, new, applied, first, empty_sequence)
    if not has_steps:
        if continued.source.rows == units.rows.sum():  # no id is new either
            return JobReport.of_nothing(root, records.read_totals()["rows"], new.counts)
        _check_as_written(records, job, parts, units)
    computation = EncoderOnDevices(encoder, mesh)
    handling = Handling(allow_mixed, restart=True)
    return run_job(destination, continued, replace(options, ids=ids), handling, computation, on_start, on_rows)


def _own_files(first: Units, plan: Plan) -> list[str]:
    """The files of the source that the output began with, which hold its rows.

    In the long format all files, as a sequence may go on in one where none begins; but none if there are no sequences.
    """
    begin = np.unique(first.file[first.rows > 0])
    files = first.files.take(begin) if first.spans is None or not len(begin) else first.files
    own: list[str] = files.take(np.flatnonzero(unchanged(files, plan.source.files) >= 0)).paths.to_pylist()
    return own


def _counts(units: Units) -> tuple[int, int]:
    """Sequences and values, as footers tell them."""
    return int(units.rows.sum()), int(units.values.sum())


def _first_digest(first: FirstSource, options: JobOptions, ids: Sequence[str], encoder: Encoder) -> str | None:
    """The digest of the steps that the output began with, if they can still be read.

    They are read only if there are as many as new ones, which may be the same: so this takes no longer than an update.
    """
    try:
        plan = Plan.from_records(first.records)
        if plan.changes().units:
            return None
        return read_new_steps(plan, options, ids, encoder.in_features, encoder.input).digest
    except ScanRNNError:  # no network; or an id stands twice: the new steps are others then, or have the same fault
        return None


def _check_as_written(records: JobRecords, job: dict[str, Any], parts: pa.Table, units: Units) -> None:
    """Refuse to go on from parts that are not the recorded ones."""
    if wrong := wrong_parts(records, parts, units):
        records.check_is(job)  # or another update was published meanwhile
        name, reason = next(iter(wrong.items()))
        raise DataError(
            f"{records.store.root}: {name} {reason}. An update goes on from these files as they were written; nothing "
            "was changed. Bring them back: `scanrnn verify` names all that differ."
        )


def _settled_ids(
    ids: Sequence[str] | None, options: JobOptions, applied: Sequence[str], plan: Plan, root: str
) -> tuple[str, ...]:
    """The ids that are asked for, or recorded; after an update its own, in the order in which they are digested."""
    ids, settled = tuple(dict.fromkeys(names_of(ids or ()))), (options.ids or ()) if applied else ()
    if ids and settled and set(ids) != set(settled):
        raise ConfigError(
            f"The sequences of {root} are identified by {list(settled)}; expected these ids in every update, and got "
            f"{list(ids)}. Leave out --ids (ids=)."
        )
    ids = tuple(settled or ids or options.ids or options.group_by or ())
    if not ids:
        raise ConfigError(
            f"The job does not say which columns identify a sequence. Name them with --ids (ids=): one or several of "
            f"{list(plan.keep)}."
        )
    return ids


def _nullable(plan: Plan) -> Plan:
    """The plan with columns that may hold nulls, as those of rows that stay may, whatever the new file declares."""
    schema = plan.source.schema
    schema = pa.schema([field.with_nullable(True) for field in schema], schema.metadata)
    return replace(plan, source=replace(plan.source, schema=schema))


def _check_has_all_rows(parts: pa.Table, facts: Facts, root: str) -> None:
    """Refuse an output that lacks rows or files of its source: new steps would begin such a row anew.

    But for rows without steps, which stay in the lists and begin with the first ones that come.
    """
    counts = {name: count for name, count in counts_of(parts).items() if name.endswith(f" {SKIP}")}
    lacks = []
    if rows := sum(counts.values()) - counts.get(count_name("empty_sequence", SKIP), 0):
        lacks.append(f"rows that were set aside ({rows:,})")
    if files := len(facts.left_out):
        lacks.append(f"files that could not be read ({files:,})")
    if lacks:
        raise ConfigError(
            f"{root} lacks {' and '.join(lacks)}, and so has no states that new steps of theirs could go on from. "
            "Nothing was changed. Mend these in the source and repeat the command that began the output with "
            "--accept-changes, then update."
        )
