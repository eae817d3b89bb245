"""All numbers of a report, read from the records and the parts of a job, which may be running. Draws nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from scanrnn_dist.job import Status, look_at
from scanrnn_dist.records import JobRecords
from scanrnn_dist.report.features import FeatureNumbers, Map, map_of, numbers_of
from scanrnn_dist.report.sample import Sample, read_sample
from scanrnn_dist.report.throughput import Throughput, attempts_of, throughput_of
from scanrnn_dist.storage import open_store


@dataclass(frozen=True)
class ReportNumbers:
    """What a report shows.

    Args:
        status: what the job is and how far it is.
        throughput: rows per second over time.
        sample: some rows of the output.
        features: numbers of each feature of these.
        map: where these rows stand; None if there is nothing to be seen.
    """

    status: Status
    throughput: Throughput
    sample: Sample
    features: FeatureNumbers
    map: Map | None


def read_numbers(destination: str | os.PathLike[str], colour: str | None = None) -> ReportNumbers:
    """Read what a report shows; nothing is changed.

    Args:
        destination: the folder or URI that a job writes to.
        colour: the kept column that colours the map; None for the first one of at most 20 different texts.

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
    records = JobRecords(open_store(destination))
    job = records.read_job()
    status, commits = look_at(records, job)
    units = commits.committed[commits.records["rows"].to_numpy() > 0]
    sample = read_sample(records, np.asarray(units), commits.units, colour)
    return ReportNumbers(
        status, throughput_of(attempts_of(commits.history)), sample,
        numbers_of(sample.features), map_of(sample.features),
    )  # fmt: skip
