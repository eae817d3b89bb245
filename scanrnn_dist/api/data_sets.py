"""Door 2: `featurize`, from a Parquet data set to one with a feature vector per row.

`job/`, which knows Parquet and no JAX, is handed a `Computation`, which knows JAX and no Parquet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import pyarrow.compute as pc
from jax.sharding import Mesh

from scanrnn_dist.api.computation import EncoderOnDevices
from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.job import (
    Executor,
    Handling,
    JobOptions,
    JobReport,
    OnRows,
    OnStart,
    Plan,
    Sharing,
    run_job,
)
from scanrnn_dist.observe import rows_progress
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.records import DEFAULT_OUTPUT, Output
from scanrnn_dist.source import BadRows, SourceLike


def featurize(
    encoder: Encoder,
    source: SourceLike | Plan,
    destination: str | os.PathLike[str],
    *,
    layout: str | None = None,
    column: str | None = None,
    features: Sequence[str] | None = None,
    in_features: int | None = None,
    group_by: Sequence[str] | None = None,
    order_by: Sequence[str] | None = None,
    sort: bool = False,
    keep: Sequence[str] | None = None,
    mesh: Mesh | None = None,
    window_shape: WindowShape | None = None,
    max_steps: float | None = None,
    truncate: Literal["head", "tail"] = "head",
    min_steps: int = 0,
    bad_rows: BadRows | None = None,
    max_bad_rows: int | None = None,
    initial_carry: str | None = None,
    rows_per_part: int | None = None,
    lossy_cast: bool = False,
    ids: Sequence[str] | None = None,
    keep_state: bool = False,
    output: Output = DEFAULT_OUTPUT,
    filter: str | pc.Expression | None = None,
    limit: int | None = None,
    sharing: Sharing | None = None,
    allow_mixed: bool = False,
    restart: bool = False,
    accept_changes: bool = False,
    memory_bytes: int | None = None,
    executor: Executor | None = None,
    kernel: str | None = None,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
    show_progress: bool = False,
) -> JobReport:
    """Write a Parquet data set with the features of every row of another one, in the order of its rows.

    The output is some parts: Parquet files of about `rows_per_part` rows (whole row groups of one file). Each holds the
    kept columns and `features: fixed_size_list<float32>[out_features]` (float64 if the encoder computes in it; a list
    of these for the readout `"steps"`); `output` changes that. The records of the job are in `destination/__scanrnn`,
    and `destination/_SUCCESS` appears last.

    If a call was stopped, in whatever way, the same call again continues. After a finished one it does nothing.

    Args:
        encoder: the cell and its readout.
        source: a Parquet file, a folder (hive partitions become columns), a glob, or a list of files; or a `Plan`,
            which has settled `column`, `keep` and `rows_per_part` already.
        destination: a folder, or a URI such as `s3://bucket/folder`, that is new, empty, or holds this same job.
        layout: the layout of the sequences, such as `"nested-lists"`; None if only one fits.
        column: the column that holds the sequences, or a field within structs, `"a.b.c"`; None if only one can.
        features: the features of a step, in order: columns of lists, fields of the structs in `column`, or, with
            `group_by`, columns; None for all that are numbers.
        in_features: features per step, if one flat list holds the numbers of all steps.
        group_by: if each row of the source is one step: the columns that say which sequence it belongs to.
        order_by: if each row of the source is one step: the columns that order the steps; None if they are in order.
        sort: whether to first make a sorted copy of such a source, at `destination` + ".sorted", and read that.
        keep: the columns to copy to the output. None keeps all but the sequences; with `group_by` only these and the
            columns that folders spell, with `keep_state` also those of `order_by`.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; None takes all local devices.
        window_shape: lanes, block and window of the compiled program; None takes what suits the kind of device.
        max_steps: use only this many steps of each sequence, as the `T` of the specification; None uses all.
        truncate: which steps these are: the first, `"head"`, or the last, `"tail"`.
        min_steps: a sequence of fewer steps is too short, and is set aside unless `bad_rows` says otherwise.
        bad_rows: what to do with rows that are not what they should be; None is `BadRows()`. `quarantined(destination)`
            lists the rows that were set aside.
        max_bad_rows: end the job with a `DataError` once more rows than this are set aside; None allows any number.
        initial_carry: a kept column with the state in which each row starts, a list of `encoder.carry_features`
            numbers; None takes the encoder's.
        rows_per_part: about how many rows a part holds; None for 65,536, or fewer that take 512 MiB of the source.
        lossy_cast: whether float64 and wide integers may be rounded to float32.
        ids: kept columns that identify a sequence, for `update`, which also takes them itself.
        keep_state: whether to write each row's final state too, so that `update` can continue from it.
        output: how the features are written: layout, dtype, compression, size of row groups.
        filter: which rows are read, such as `"label == 'walk' and n > 10"`; None reads all. An expression of pyarrow is
            taken if such a text can say the same.
        limit: read only the first `limit` rows of the source, before any filter, to try something out.
        sharing: which share of the job this process does, and whether it takes over others; None does all of it.
        allow_mixed: whether to continue a job that was begun on another kind or model of device, with other XLA flags
            or other versions. Features may then differ in their last digits.
        restart: whether to make the output anew if the destination holds a job of any kind. The old output stays until
            the new one is complete, and is then replaced.
        accept_changes: whether files of the source may have changed, come or gone since the job began. Only their parts
            are then made again, made, or removed, and the records tell it.
        memory_bytes: what each process may hold of rows, beyond what Python, JAX and pyarrow take. None is 256 MiB on
            CPU. It changes no output.
        executor: who does the work, such as `ProcessExecutor(8)` or `RayExecutor()`; None is this process. Its workers
            use the devices that they find, so give no `mesh` then.
        kernel: the program that computes: `"native"`, for the usual cells on a CPU, or `"xla"`, for any. None takes the
            one with which the job was begun; for a new job the native one if it can compute this. Their bits differ.
        on_start: called when a share is begun, with its number of rows that are saved already, and of all its rows.
        on_rows: called with a number of rows each time some are finished.
        show_progress: draw a progress bar on the terminal, or in a notebook with ipywidgets; elsewhere, as in a log,
            print a line every ten seconds, later less often.

    Returns:
        What was done and how fast.

    Raises:
        ConfigError: arguments that do not go together, or a destination that holds something else, or a job with other
            arguments; the message names the differences.
        DataError: data that is not what it should be. It is raised once everything else is done, and names the file,
            the row group and the row of one bad place of each part that is missing, of 20 parts at most. Or the source
            changed since the job began.
        StoppedError: the destination's file system refused, or another process works on the same share.

    Example:
        >>> import pyarrow as pa, pyarrow.parquet as pq, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"id": [1, 2], "sequence": [[[0.5, 1.0]], []]}), folder + "/in.parquet")
        >>> report = featurize(Encoder.from_seed(0, 2, 3), folder + "/in.parquet", folder + "/out", lossy_cast=True)
        >>> pq.read_table(folder + "/out").column_names, report.rows
        (['id', 'features'], 2)
    """
    options = JobOptions(
        layout=layout, column=column, features=features, in_features=in_features, group_by=group_by,
        order_by=order_by, sort=sort, keep=keep, rows_per_part=rows_per_part, max_steps=max_steps,
        initial_carry=initial_carry, lossy_cast=lossy_cast, truncate=truncate, min_steps=min_steps,
        bad_rows=bad_rows or BadRows(), ids=ids, keep_state=keep_state, output=output, filter=filter, limit=limit,
    )  # fmt: skip
    handling = Handling(
        allow_mixed, restart, accept_changes, sharing=sharing or Sharing(), max_bad_rows=max_bad_rows,
        memory_bytes=memory_bytes,
    )  # fmt: skip
    computation = EncoderOnDevices(checked_encoder(encoder), mesh, window_shape, kernel=kernel)
    with _shown(show_progress, on_start, on_rows) as (tell_start, tell_rows):
        return run_job(destination, source, options, handling, computation, tell_start, tell_rows, executor)


@contextmanager
def _shown(
    show_progress: bool, on_start: OnStart | None, on_rows: OnRows | None
) -> Iterator[tuple[OnStart | None, OnRows | None]]:
    """What is to hear of rows: a progress bar, if wanted, and whoever else was given."""
    if not show_progress:
        yield on_start, on_rows
        return
    with rows_progress("featurize") as progress:

        def start(done: int, total: int) -> None:
            progress.start(done, total)
            if on_start is not None:
                on_start(done, total)

        def advance(rows: int) -> None:
            progress.advance(rows)
            if on_rows is not None:
                on_rows(rows)

        yield start, advance
