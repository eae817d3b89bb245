"""The main job: a Parquet data set of sequences in, the same rows with a feature vector each out.

    python featurize_parquet.py SOURCE DESTINATION

Copy this file and edit what stands in capitals. The job is that of `scanrnn featurize SOURCE DESTINATION --hidden 64`:
each continues what the other began, and errors end both with the same exit codes.
"""

import sys

import jax

import scanrnn_dist as srd
from scanrnn_dist.observe import available_cores, cpu_devices_are_chosen

COLUMN = "sequence"  # the column that holds the sequences
KEEP = None  # the columns to carry along; None for all others, or for example ["id", "label"]
IN_FEATURES = 12  # numbers per step, D
HIDDEN_FEATURES = 64  # numbers per feature vector
SEED = 0  # of the random weights


def main(source: str, destination: str) -> srd.JobReport:
    """Featurize `source` into `destination`."""
    if not cpu_devices_are_chosen():  # by JAX_NUM_CPU_DEVICES or XLA_FLAGS
        jax.config.update("jax_num_cpu_devices", available_cores())  # before the first use of JAX
    mesh = srd.default_mesh()  # all devices of this process; any mesh with an axis "data" will do
    encoder = srd.Encoder.from_seed(SEED, IN_FEATURES, HIDDEN_FEATURES)  # or srd.Encoder.load("encoder.safetensors")
    sharing = srd.Sharing(owns_process=True)  # a crash of this process leaves a trace in the records
    return srd.featurize(encoder, source, destination, column=COLUMN, keep=KEEP, mesh=mesh, sharing=sharing)


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except srd.ScanRNNError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
