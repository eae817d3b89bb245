"""All numbers of a report, read from the records and the parts of a job, which may be running. Draws nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanrnn_dist.errors import ScanRNNError
from scanrnn_dist.job import Status, look_at, original_of, records_to_read, source_of
from scanrnn_dist.records import JobRecords
from scanrnn_dist.report.aside import AsideRow, first_aside
from scanrnn_dist.report.features import FeatureNumbers, Map, map_of, numbers_of
from scanrnn_dist.report.lengths import Lengths, read_lengths_of
from scanrnn_dist.report.sample import Sample, read_sample
from scanrnn_dist.report.throughput import Throughput, attempts_of, throughput_of
from scanrnn_dist.report.work import Work, work_of

CommandOf = Callable[[Mapping[str, Any], str | list[str], str, bool], str]
"""Gives the command that makes an output again, of the record of a job, its source as it was named, its destination,
and whether that holds the encoder; nothing where there is none."""


@dataclass(frozen=True)
class Check:
    """What came of the check of the output against the specification.

    Args:
        found: what `verify` gave; None where the output is not right.
        problem: what is not right.
        was_stopped: whether that is not the output, but what kept it from being checked, as a source that is not there,
            or an encoder that only Python has.
    """

    found: Any
    problem: str = ""
    was_stopped: bool = False


@dataclass(frozen=True)
class ReportNumbers:
    """What a report shows.

    Args:
        job_id: of the job, by its record.
        status: what the job is and how far it is.
        throughput: rows per second over time.
        work: where the time of its attempts went.
        lengths: of sequences of its source.
        aside: the first rows that were set aside.
        sample: some rows of the output.
        features: numbers of each feature of these.
        map: where these rows stand; None if there is nothing to be seen.
        environment: what the job was computed with: names, and what they say.
        named: the destination as a command takes it.
        command: that makes the output again; empty where there is none.
        check: against the specification; None where it was not asked for.
    """

    job_id: str
    status: Status
    throughput: Throughput
    work: Work
    lengths: Lengths
    aside: tuple[AsideRow, ...]
    sample: Sample
    features: FeatureNumbers
    map: Map | None
    environment: Mapping[str, str]
    named: str
    command: str = ""
    check: Check | None = None


def read_numbers(
    destination: str | os.PathLike[str],
    colour: str | None = None,
    before: ReportNumbers | None = None,
    command_of: CommandOf = lambda job, source, destination, has_encoder: "",
) -> ReportNumbers:
    """Read what a report shows; nothing is changed.

    Args:
        destination: the folder or URI that a job writes to.
        colour: the kept column that colours the map; None for the first one of at most 20 different texts.
        before: what was read earlier; if it was of the same job, the lengths of its source are not read again,
            but where that failed a minute ago.
        command_of: gives the command that makes the output again.

    Returns:
        The numbers.

    Raises:
        ConfigError: no job was ever started there, or the column is not one to colour by.
        DataError: the records of the job are damaged.

    Example:
        >>> import pyarrow as pa, pyarrow.parquet as pq, tempfile
        >>> import scanrnn_dist as srd
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"sequence": [[[0.5, 1.0]], []]}), folder + "/in.parquet")
        >>> encoder = srd.Encoder.from_seed(0, in_features=2, hidden_features=3)
        >>> report = srd.featurize(encoder, folder + "/in.parquet", folder + "/out", lossy_cast=True)
        >>> read_numbers(folder + "/out").sample.features.shape
        (2, 3)
    """
    records = records_to_read(destination)
    job = records.read_job()
    status, commits = look_at(records, job)
    name, units = os.fspath(records.store), commits.committed[commits.records["rows"].to_numpy() > 0]
    sample = read_sample(records, np.asarray(units), commits.units, colour)
    lengths = before.lengths if before is not None and before.job_id == job["id"] else None
    if lengths is None or time.monotonic() >= lengths.again_at:
        lengths = read_lengths_of(records, job)
    return ReportNumbers(
        job["id"], status, throughput_of(attempts_of(commits.history)), work_of(commits.history),
        lengths, first_aside(records.store, commits), sample,
        numbers_of(sample.features), map_of(sample.features), _environment(job["environment"]),
        name, command_of(job, _source_of(records, job), name, records.has_encoder),
    )  # fmt: skip


def _source_of(records: JobRecords, job: dict[str, Any]) -> str | list[str]:
    """The source as it was named; empty where the plan, or the record of a sorted copy, cannot be read."""
    try:
        given = source_of(records, job)
        return original_of(given) if job["options"].get("sort") and isinstance(given, str) else given
    except ScanRNNError:
        return ""


def _environment(told: Mapping[str, Any]) -> dict[str, str]:
    """What features may depend on besides the job: versions, the kind of device, what computes."""
    versions = {name: str(version) for name, version in told["versions"].items()}
    named = {"device_kind": "device", "device_model": "device model", "kernel": "kernel", "xla_flags": "XLA_FLAGS"}
    return {**versions, **{name: str(told[key]) for key, name in named.items() if told.get(key)}}
