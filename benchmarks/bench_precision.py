"""What each dtype and precision costs in accuracy: the greatest difference from a float64 GRU in numpy.

    python -m benchmarks.bench_precision

Covered: a GRU of random weights, D 16, H 64, rows of normal values. Not covered: trained weights, which may forget
less.
"""

from __future__ import annotations

import argparse
import os

import jax
import numpy as np

from benchmarks.harness import finish
from scanrnn_dist.api import encode
from scanrnn_dist.encoder import PRECISIONS, Encoder
from tests.oracle import gru_rows

STEPS = (10, 100, 1000)
ROWS = 20


def measure() -> dict[str, dict[int, float]]:
    """The greatest difference by dtype and precision, and by the length of the rows."""
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((steps, 16)).astype(np.float32) for steps in STEPS for _ in range(ROWS)]
    wanted = gru_rows(Encoder.from_seed(0, 16, 64).cell, rows)
    results = {}
    for dtype in ("float32", "bfloat16", "float16"):
        for precision in PRECISIONS:
            features = encode(Encoder.from_seed(0, 16, 64, dtype=dtype, precision=precision), rows)
            worst = np.abs(np.asarray(features) - wanted).max(axis=1).reshape(len(STEPS), ROWS).max(axis=1)
            results[f"{dtype}, {precision}"] = dict(zip(STEPS, map(float, worst), strict=True))
    return results


def main() -> None:
    """Measure, print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    results = measure()
    for name, differences in results.items():
        print(f"{name:20}", "  ".join(f"{steps} steps {worst:.1e}" for steps, worst in differences.items()))
    finish("precision", results)


if __name__ == "__main__":
    main()
