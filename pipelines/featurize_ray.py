"""A Parquet data set of sequences in, the same rows with a feature vector each out, by the workers of a Ray cluster.

    python featurize_ray.py SOURCE DESTINATION [ADDRESS]

Copy this file and edit what stands in capitals. It does what `scanrnn featurize --engine ray` does. All nodes need
scanrnn_dist, and have to see source and destination by the same names: shared folders, or buckets (s3://...).
"""

import sys

import scanrnn_dist as srd

COLUMN = "sequence"  # the column that holds the sequences
IN_FEATURES = 12  # numbers per step, D
HIDDEN_FEATURES = 64  # numbers per feature vector
SEED = 0  # of the random weights
WORKERS = None  # how many; None for as many as the cluster has room for
CPUS_PER_WORKER = 1  # which are its CPU devices
GPUS_PER_WORKER = 0  # 1 on a cluster with GPUs


def main(source: str, destination: str, address: str | None = None) -> srd.JobReport:
    """Featurize `source` into `destination` on the cluster at `address`, or that Ray finds or begins."""
    encoder = srd.Encoder.from_seed(SEED, IN_FEATURES, HIDDEN_FEATURES)  # or srd.Encoder.load("encoder.safetensors")
    executor = srd.RayExecutor(address, WORKERS, CPUS_PER_WORKER, GPUS_PER_WORKER)
    return srd.featurize(encoder, source, destination, column=COLUMN, executor=executor)


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except srd.ScanRNNError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
