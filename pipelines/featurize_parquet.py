"""The main job: a Parquet data set of sequences in, the same rows with a feature vector each out.

    python featurize_parquet.py SOURCE DESTINATION

Copy this file and edit what stands in capitals. It does what `scanrnn featurize` does.
"""

import os
import sys

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count())  # before the first use of JAX: one CPU device per core

import scanrnn_dist as srd  # noqa: E402

COLUMN = "sequence"  # the column that holds the sequences
KEEP = None  # the columns to carry along; None for all others, or for example ["id", "label"]
IN_FEATURES = 12  # numbers per step, D
HIDDEN_FEATURES = 64  # numbers per feature vector
SEED = 0  # of the random weights


def main(source: str, destination: str) -> srd.JobReport:
    """Featurize `source` into `destination`."""
    mesh = srd.default_mesh()  # all devices of this process; any mesh with an axis "data" will do
    encoder = srd.Encoder.from_seed(SEED, IN_FEATURES, HIDDEN_FEATURES)  # or srd.Encoder.load("encoder.safetensors")
    return srd.featurize(encoder, source, destination, column=COLUMN, keep=KEEP, mesh=mesh)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
