"""TODO api."""

from scanrnn_dist.api.arrays import encode
from scanrnn_dist.api.data_sets import PREFETCH_BYTES, JobReport, featurize
from scanrnn_dist.api.tuning import ROUNDS, read_sample, tune
from scanrnn_dist.api.verification import verify

__all__ = [
    "PREFETCH_BYTES",
    "ROUNDS",
    "JobReport",
    "encode",
    "featurize",
    "read_sample",
    "tune",
    "verify",
]
