"""What other encoders cost beside a plain GRU: both directions, layers, readouts; in useful GFLOP/s of the same run.

    python -m benchmarks.bench_encoders                      # about two minutes on 2 cores
    python -m benchmarks.bench_encoders --workloads W5 --rows 1000

Each encodes the same rows in memory (`encode`), which stand in the engine's own form, and the encoders take turns.
Useful work is the products of all cells, once for each real step; the ratio is to the plain rate on the same rows.
Not covered: Parquet, which `run.py` measures for the plain GRU.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from benchmarks.harness import alternate, finish, rate
from benchmarks.workloads import WORKLOADS
from scanrnn_dist.api import encode
from scanrnn_dist.cli import start_devices
from scanrnn_dist.encoder import Encoder

PLAIN = "plain"
ENCODERS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "last and mean": {"readout": "last+mean"},
    "all steps": {"readout": "steps"},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True},
    "both, last and mean": {"bidirectional": True, "readout": "last+mean"},
    "both, all steps": {"bidirectional": True, "readout": "steps"},
    "both, two layers": {"bidirectional": True, "num_layers": 2},
}
"""Options of `Encoder.from_seed`."""


def measure(workload: str, most_rows: int, rounds: int) -> dict[str, Any]:
    """All encoders over the rows of a workload, `most_rows` at most."""
    of = WORKLOADS[workload]
    rows = of.rows().slice(0, most_rows)
    encoders = {name: Encoder.from_seed(0, of.in_features, of.hidden, **how) for name, how in ENCODERS.items()}
    seconds = alternate({name: partial(encode, encoder, rows) for name, encoder in encoders.items()}, rounds)
    steps = int(rows.lengths.sum())
    rates = {name: rate(seconds[name], steps * encoders[name].flops_per_step / 1e9) for name in encoders}
    ratios = {name: round(each["median"] / rates[PLAIN]["median"], 2) for name, each in rates.items()}
    return {"rows": len(rows), "gflops": rates, "ratio_to_plain": ratios}


def main() -> None:
    """Parse, take a device per core, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="W1,W3,W5")
    parser.add_argument("--rows", type=int, default=100_000, help="of each workload, at most")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    start_devices(None)
    results = {}
    for name in arguments.workloads.split(","):
        results[name] = measure(name, arguments.rows, arguments.rounds)
        print(f"{name}: {results[name]['rows']:,} rows")
        for encoder, figures in results[name]["gflops"].items():
            ratio, spread = results[name]["ratio_to_plain"][encoder], f"{figures['min']:.1f} - {figures['max']:.1f}"
            print(f"  {encoder:20} {figures['median']:7.1f} GFLOP/s  ({spread})  {ratio:.2f}")
    finish("encoders", results)


if __name__ == "__main__":
    main()
