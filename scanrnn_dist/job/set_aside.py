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


def read_quarantined(destination: str | os.PathLike[str]) -> pa.Table:
    """The rows that were set aside in all units that are committed, in input order, as `aside_schema` has them.

    Raises:
        ConfigError: the folder is no output of a job.
        DataError: its records or a list are damaged.
        StoppedError: another output is taking the place of this one, or took it meanwhile.
    """
    records = records_to_read(destination)
    check_not_ready(records, "read the rows")
    job = records.read_job()
    plan = Plan.read(records, job)
    parts, _ = recorded_parts(records, job, plan)
    schema, units, tables = aside_schema(plan.kept_schema), len(plan.units), []
    for part in parts.select(["unit", "aside"]).to_pylist():
        if part["aside"]:
            tables.append(_listed(records, part["unit"], units, part["aside"], schema))
    records.check_is(job)
    return pa.concat_tables([schema.empty_table(), *tables])


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
