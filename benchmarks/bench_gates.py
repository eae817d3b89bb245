"""What the specification's sigmoid costs the window program, against one by tanh that is less accurate.

    python -m benchmarks.bench_gates

`0.5 + 0.5 tanh(x / 2)` has no relative accuracy where a gate is nearly closed, so the engine does not use it: long rows
of unscaled data came out 2 to 8 times further from float64. Covered: the engine, rows in memory, uniform lengths, all
local devices.
"""

from __future__ import annotations

import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.bench_engine import engine_case
from benchmarks.harness import alternate, finish, rate
from benchmarks.workloads import made_up_rows, uniform
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import Engine

HIDDEN = (32, 64, 128, 512)
STEPS, IN_FEATURES = 128, 16
FLOP = 2e10
"""Of one round of one case."""


def by_tanh(x: jax.Array) -> jax.Array:
    """The sigmoid that was used on CPU before."""
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)


def main() -> None:
    """Parse, take a device per core, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    rng = np.random.default_rng(0)
    cases, gflop = {}, {}
    for hidden in HIDDEN:
        for name, gate in (("specification", jax.nn.sigmoid), ("tanh", by_tanh)):
            encoder = Encoder(nnx.GRUCell(IN_FEATURES, hidden, gate_fn=gate, rngs=nnx.Rngs(0)))
            rows = made_up_rows(uniform(int(FLOP / encoder.flops_per_step / STEPS), STEPS)(rng), IN_FEATURES, rng)
            case = f"H {hidden}, {name}"
            cases[case] = engine_case(Engine(encoder), rows)
            gflop[case] = encoder.flops_per_step * int(rows.lengths.sum()) / 1e9
    seconds = alternate(cases, rounds)
    rates = {case: rate(seconds[case], gflop[case]) for case in cases}
    for case, figures in rates.items():
        print(f"{case:24} {figures['median']:8.1f} GFLOP/s  ({figures['min']:.1f} - {figures['max']:.1f})")
    for hidden in HIDDEN:
        ratio = [
            a / b for a, b in zip(seconds[f"H {hidden}, specification"], seconds[f"H {hidden}, tanh"], strict=True)
        ]
        print(f"H {hidden}: the specification's takes {np.median(ratio):.3f} times as long")
    finish("gates", rates)


if __name__ == "__main__":
    main()
