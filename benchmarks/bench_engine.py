"""The engine, host side included, against the dense scan, in useful GFLOP/s of the same run.

    python -m benchmarks.bench_engine

For the engine over lanes, blocks and windows see `scanrnn bench --tune`.

The *ceiling* is `jit(shard_map(vmap(scan(cell))))` over equal lengths, data on the devices, nothing read, scheduled or
fetched, with the best of its own lanes on the same devices. Useful work is `6 H (D + H)` per real step. Covered: rows
in memory, all local devices. Not covered: Parquet; see the README for end-to-end figures.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from benchmarks.harness import alternate, finish, gemm_case, rate
from benchmarks.workloads import lognormal, made_up_rows, pareto, uniform
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import AXIS, Engine, default_mesh, replicated, sharded
from scanrnn_dist.protocols import EngineLike
from scanrnn_dist.ragged import Ragged

CEILING_LANES = (16, 32, 48, 64, 96, 128)


def engine_case(engine: EngineLike, rows: Ragged) -> Callable[[], Any]:
    """Featurize rows that stand in memory: schedule, copy, send, compute, fetch."""

    def run() -> np.ndarray:
        features = np.empty((len(rows), engine.out_features), np.float32)
        with closing(engine.run()) as run:
            run.submit(rows, out=features)
            run.results()
        return features

    return run


def dense_case(encoder: Encoder, mesh: Mesh, lanes: int, steps: int) -> tuple[Callable[[], Any], float]:
    """The dense scan over `lanes` equal sequences per device, and its GFLOP."""
    graphdef, weights = nnx.split(encoder)

    def per_device(weights: Any, x: jax.Array) -> jax.Array:
        merged = nnx.merge(graphdef, weights)

        def forward(x: jax.Array) -> jax.Array:
            final, _ = jax.lax.scan(lambda state, x_t: (merged.step(state, x_t)[0], None), merged.initial_state(), x)
            return merged.readout(final)

        with jax.default_matmul_precision("highest"):
            return jax.vmap(forward, in_axes=1)(x[0])[None]

    data, same = PartitionSpec(AXIS), PartitionSpec()
    program = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=(same, data), out_specs=data, check_vma=False))
    devices = mesh.shape[AXIS]
    x = np.random.default_rng(0).standard_normal((devices, steps, lanes, encoder.in_features), np.float32)
    feed = jax.device_put(weights, replicated(mesh)), jax.device_put(x, sharded(mesh))
    return lambda: program(*feed), encoder.flops_per_step * devices * lanes * steps / 1e9


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All cases in turns; rates, ratios and occupancies by name."""
    rng = np.random.default_rng(arguments.seed)
    mesh, encoder = default_mesh(), Encoder.from_seed(0, arguments.in_features, arguments.hidden)
    engine = Engine(encoder, mesh)
    cases, gflop = {}, {}
    cases["gemm"], gflop["gemm"] = gemm_case(mesh)
    for lanes in CEILING_LANES:
        cases[f"dense {lanes}"], gflop[f"dense {lanes}"] = dense_case(encoder, mesh, lanes, steps=2048)
    occupancy = {}
    kinds = {
        "uniform": uniform(arguments.rows, 128),
        "lognormal": lognormal(arguments.rows),
        "pareto": pareto(arguments.rows),
    }
    for kind, lengths in kinds.items():
        rows = made_up_rows(lengths(rng), arguments.in_features, rng)
        cases[kind] = engine_case(engine, rows)
        gflop[kind] = encoder.flops_per_step * int(rows.lengths.sum()) / 1e9
        run = engine.run()
        run.submit(rows)
        run.results()
        occupancy[kind] = round(run.statistics.occupancy, 4)
    seconds = alternate(cases, arguments.rounds)
    rates = {name: rate(seconds[name], gflop[name]) for name in cases}
    ceiling = max((rates[f"dense {lanes}"]["median"], lanes) for lanes in CEILING_LANES)
    ratios = {kind: round(rates[kind]["median"] / ceiling[0], 3) for kind in occupancy}
    ratios["ceiling of gemm"] = round(ceiling[0] / rates["gemm"]["median"], 3)
    return {
        "gflops": rates,
        "ceiling_lanes": ceiling[1],
        "ratio_to_ceiling": ratios,
        "occupancy": occupancy,
        "compilations": engine.compilations,
    }


def main() -> None:
    """Parse, take a device per core, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-features", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=os.cpu_count(), help="CPU devices")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    results = measure(arguments)
    for name, figures in results["gflops"].items():
        print(f"{name:28} {figures['median']:8.1f} GFLOP/s  ({figures['min']:.1f} - {figures['max']:.1f})")
    for key in ("ratio_to_ceiling", "occupancy"):
        print(f"{key}: {results[key]}")
    finish("engine", results)


if __name__ == "__main__":
    main()
