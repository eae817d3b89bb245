"""The main job on a TPU pod slice: this same script on all of its hosts, at the same time.

    gcloud compute tpus tpu-vm ssh NAME --worker=all --command="python featurize_tpu_pod.py SOURCE DESTINATION"

The hosts of a slice only get their chips all at once, so `jax.distributed` brings them together, as it also does on
GKE, under Slurm and under Open MPI. Then they part: each does its own share on its own chips, and whoever is done takes
over the shares of hosts that died. Copy this file and edit what stands in capitals.
"""

import sys

import jax

import scanrnn_dist as srd

COLUMN = "sequence"  # the column that holds the sequences
IN_FEATURES = 12  # numbers per step, D
HIDDEN_FEATURES = 64  # numbers per feature vector
SEED = 0  # of the random weights
ROWS_PER_PART = 65536  # about how many rows an output file gets, which is also what a host takes at a time


def share_of_this_host() -> tuple[int, int]:
    """Meet the other hosts, find the chips, and part."""
    jax.distributed.initialize()
    jax.devices()  # returns once all hosts have found their chips
    share, seen = srd.share_of("auto")
    # A host that stays connected may be aborted when the first one ends, even with jax_enable_recoverability.
    jax.distributed.shutdown()
    print(f"share {share[0]} of {share[1]} ({seen}), {jax.local_device_count()} devices", file=sys.stderr)
    return share


def main(source: str, destination: str) -> srd.JobReport:
    """Do this host's share of the job, then those of hosts that died."""
    sharing = srd.Sharing(share=share_of_this_host(), steal=True, owns_process=True)
    encoder = srd.Encoder.from_seed(SEED, IN_FEATURES, HIDDEN_FEATURES)  # or srd.Encoder.load("encoder.safetensors")
    return srd.featurize(encoder, source, destination, column=COLUMN, rows_per_part=ROWS_PER_PART, sharing=sharing)


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except srd.ScanRNNError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
