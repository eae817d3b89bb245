"""Door 2: `featurize`, from a Parquet data set to one with a feature vector per row; and going on with what it began.

`job/`, which knows Parquet and no JAX, is handed a `Computation`, which knows JAX and no Parquet.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import pyarrow.compute as pc
from jax.sharding import Mesh

from scanrnn_dist.api.computation import EncoderOnDevices
from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.job import ROWS_PER_PART, Handling, JobOptions, JobReport, OnRows, OnStart, Plan, Sharing, run_job
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.source import SourceLike


def featurize(
    encoder: Encoder,
    source: SourceLike | Plan,
    destination: str | os.PathLike[str],
    *,
    column: str | None = None,
    keep: Sequence[str] | None = None,
    mesh: Mesh | None = None,
    window_shape: WindowShape | None = None,
    max_steps: float | None = None,
    initial_carry: str | None = None,
    rows_per_part: int = ROWS_PER_PART,
    lossy_cast: bool = False,
    filter: str | pc.Expression | None = None,
    limit: int | None = None,
    sharing: Sharing | None = None,
    allow_mixed: bool = False,
    restart: bool = False,
    accept_changes: bool = False,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
) -> JobReport:
    """Write a Parquet data set with the features of every row of another one, in input order.

    The output has one part per unit of about `rows_per_part` rows (whole row groups of one file), each with the kept
    columns and `features: fixed_size_list<float32>[out_features]` (float64 where the encoder computes in it), or a list
    of them where the readout is `"steps"`. Its records stand in `destination/__scanrnn`, and
    `destination/_SUCCESS` appears last.

    The same call again goes on where an earlier one was stopped, in whatever way; after a finished one it does nothing.

    Args:
        encoder: the cell and its readout.
        source: a Parquet file, a folder (hive partitions become columns), a glob, or a list of files; or a `Plan`,
            which has settled `column`, `keep` and `rows_per_part` already.
        destination: a folder, or a URI such as `s3://bucket/folder`, that is new, empty, or holds this same job.
        column: the column that holds the sequences; None where only one can.
        keep: the columns to carry along; None keeps all but the sequence column.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; all local devices when None.
        window_shape: lanes, block and window of the compiled program; what suits the device kind when None.
        max_steps: of each sequence the first so many steps count, as the `T` of the specification.
        initial_carry: a kept column with each row's own initial carry, a list of `encoder.carry_features` numbers;
            None for the encoder's.
        rows_per_part: rows of a part, about.
        lossy_cast: whether float64 and wide integers may be rounded to float32.
        filter: which rows are read, such as `"label == 'walk' and n > 10"`; None for all. An expression of pyarrow is
            taken where such a text stands for it.
        limit: read only the first so many rows of the source, before any filter, to try something out.
        sharing: which units are this process's, and what becomes of those of processes that stopped; all of them,
            and nothing, when None.
        allow_mixed: whether to go on with a job that was begun on another kind of device, with other XLA flags or other
            versions, which may give other bits.
        restart: whether to begin anew where the destination holds a job, finished or not, of whatever kind. The old
            output stands until the new one is complete, and is then replaced.
        accept_changes: whether files of the source may have changed, come or gone since the job began: their units are
            then done again, done or dropped, all others stay as they are, and the records tell it.
        on_start: called when a share is begun, with its rows that are committed already, and all of its rows.
        on_rows: called with the number of rows each time some are finished.

    Returns:
        What was done and how fast.

    Raises:
        ConfigError: arguments that do not fit, or a destination that holds something else, or a job with other
            arguments; the differences are named.
        DataError: data that is not what it should be; file, row group and row are named. It comes once all other units
            are done, and names all units that failed, or the first 20. Or a source that changed since the job began,
            parts of which are done.
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
        column=column, keep=keep, rows_per_part=rows_per_part, max_steps=max_steps, initial_carry=initial_carry,
        lossy_cast=lossy_cast, filter=filter, limit=limit,
    )  # fmt: skip
    handling = Handling(allow_mixed, restart, accept_changes, sharing=sharing or Sharing())
    computation = EncoderOnDevices(checked_encoder(encoder), mesh, window_shape)
    return run_job(destination, source, options, handling, computation, on_start, on_rows)


def resume(
    destination: str | os.PathLike[str],
    encoder: Encoder,
    *,
    mesh: Mesh | None = None,
    discard: Collection[str] = (),
    sharing: Sharing | None = None,
    allow_mixed: bool = False,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
) -> JobReport:
    """Go on with the job of a destination by what its records say, as the command that began it would.

    Args:
        destination: a folder or URI that `featurize` wrote to.
        encoder: that of the job.
        discard: names of parts that are not what they should be, to be removed and made again.
        mesh, sharing, allow_mixed, on_start, on_rows: as of `featurize`.

    Raises:
        ConfigError: there is no job, or another encoder or environment than the job's.
        DataError: the source changed since the job began, or as `featurize`.
        StoppedError: as `featurize`.
    """
    handling = Handling(allow_mixed, discard=tuple(discard), sharing=sharing or Sharing())
    computation = EncoderOnDevices(checked_encoder(encoder), mesh)
    return run_job(destination, None, JobOptions(), handling, computation, on_start, on_rows)
