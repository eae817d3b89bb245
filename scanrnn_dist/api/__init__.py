"""The doors: `encode` for arrays, `featurize` for data sets; `verify`, `tune` and `explain` beside them.

Only here do the two halves meet, the engine that knows JAX and the job that knows Parquet.
"""

from scanrnn_dist.api.arrays import encode
from scanrnn_dist.api.batches import BatchFeaturizer
from scanrnn_dist.api.computation import EncoderOnDevices
from scanrnn_dist.api.data_sets import featurize
from scanrnn_dist.api.explanation import FEWER, Explanation, doubts, explain, measured_gflops, window_bytes
from scanrnn_dist.api.sequences import as_ragged
from scanrnn_dist.api.tuning import read_sample, tune
from scanrnn_dist.api.updating import update
from scanrnn_dist.api.verification import verify
