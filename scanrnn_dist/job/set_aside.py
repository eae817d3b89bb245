"""The rows of a job that were set aside, read from its records, by whoever wants to mend them."""

from __future__ import annotations

import os

import pyarrow as pa

from scanrnn_dist.errors import DataError
from scanrnn_dist.job.damage import recorded_parts, way_to_mend
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.job.restart import check_not_ready, records_to_read
from scanrnn_dist.records import JobRecords, quarantine_name, read_quarantine
from scanrnn_dist.source import aside_schema


def quarantined(destination: str | os.PathLike[str]) -> pa.Table:
    """The rows of a job that were set aside so far, in input order.

    Args:
        destination: the folder or URI that `featurize` wrote to.

    Returns:
        A line for each: `file`, `row_group`, `row` (of the row group), `file_row`, `policy`, `reason`, `step` (null
        where no single step is wrong), `rows` (1, or more in a line that stands for all rows of a part whose pages
        cannot be read), then the kept columns. One that has the name of one of these is "kept.NAME".

    Raises:
        ConfigError: the folder is no output of a job.
        DataError: a list is missing or damaged; `scanrnn verify --repair` makes it again.
        StoppedError: another output is taking the place of this one, or took it meanwhile.

    Example:
        >>> import pyarrow.parquet as pq, tempfile
        >>> from scanrnn_dist import BadRows, Encoder, featurize
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"id": [7, 8], "sequence": [None, [[0.5, 1.0]]]}), folder + "/in.parquet")
        >>> options = {"lossy_cast": True, "bad_rows": BadRows(null_sequence="skip")}
        >>> report = featurize(Encoder.from_seed(0, 2, 3), folder + "/in.parquet", folder + "/out", **options)
        >>> quarantined(folder + "/out").select(["row", "policy", "id"]).to_pylist()
        [{'row': 0, 'policy': 'null_sequence', 'id': 7}]
    """
    records = records_to_read(destination)
    check_not_ready(records, "read the rows")
    job = records.read_job()
    plan = Plan.read(records, job)
    parts, _ = recorded_parts(records, job, plan.units)
    schema, units, tables = aside_schema(plan.kept_schema), len(plan.units), []
    for part in parts.select(["unit", "aside"]).to_pylist():
        if part["aside"]:
            tables.append(_listed(records, part["unit"], units, part["aside"], schema))
    records.check_is(job)
    return pa.concat_tables([pa.Table.from_batches([], schema), *tables])


def _listed(records: JobRecords, unit: int, units: int, rows: int, schema: pa.Schema) -> pa.Table:
    """The list of one unit."""
    path = records.store.path(quarantine_name(unit, units))
    again = f"{way_to_mend(records.store.root, 'makes it again')}."
    try:
        table = pa.Table.from_batches(read_quarantine(records.store, unit, units)).cast(schema)
    except DataError as error:
        raise DataError(f"{error}. Expected {rows} rows that were set aside: {again}") from error
    listed = sum(table["rows"].to_pylist())
    if listed != rows:
        raise DataError(f"{path} tells of {listed} rows; expected {rows} that were set aside. {again}")
    return table
