"""The kernels alone, in GFLOP/s of the same run: the native one and XLA's, a matrix product, and the cores' peak.

    python -m benchmarks.bench_kernel

Every lane is busy from begin to end, in rows of equal length that stand in memory; nothing is read, scheduled or
fetched. Each kernel has the lanes that it has by default, and XLA's also those of `bench_engine.py`'s ceiling; the
fastest counts. Useful work is the matrix products of real steps: `6 H (D + H)` of a GRU. The peak is what `peak.cpp`
reaches, multiply-adds in registers and nothing else: no program is faster. Covered: all local devices of a CPU. Not
covered: a whole run, which is `bench_engine.py`'s; Parquet, which is `run.py`'s.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.harness import alternate, finish, gemm_case
from benchmarks.workloads import made_up_rows, uniform
from hatch_build import compiler, run
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import Engine, NativeEngine, address_of, default_mesh, queue_of, sharded
from scanrnn_dist.protocols import WindowShape

IN_FEATURES = 16
STEPS = 512
FLOP = 2e10
"""Of one round of one case, on each device."""
XLA_LANES = (32, 48)
PEAK_FLAGS = ("-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")


def peak_case(devices: int) -> tuple[Callable[[], Any], float]:
    """Multiply-adds in registers, on as many threads as there are devices, and their GFLOP."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        run([*compiler(), *PEAK_FLAGS, str(Path(__file__).with_name("peak.cpp")), "-o", str(library)])
        peak = ctypes.CDLL(str(library)).peak  # stays loaded, without its file
    peak.argtypes, peak.restype = (ctypes.c_long,), ctypes.c_double
    times, pool = round(FLOP / peak(1)), ThreadPoolExecutor(devices)
    return lambda: list(pool.map(peak, [times] * devices)), peak(1) * times * devices / 1e9


def native_case(encoder: Encoder, mesh: Mesh) -> tuple[Callable[[], Any], float]:
    """One call of the native kernel on a queue of equal rows, and its GFLOP."""
    engine = NativeEngine(encoder, mesh)
    rows = max(1, round(FLOP / encoder.flops_per_step / STEPS / engine.shape.lanes)) * engine.lanes
    ragged = made_up_rows(uniform(rows, STEPS)(np.random.default_rng(0)), encoder.in_features, np.random.default_rng(0))
    run = engine.run()
    run.submit(ragged)
    items = run._queue.take(2**62, 2**62, False)
    told = [engine.new_told()]

    def call() -> Any:
        strides = engine.in_features, engine.out_features
        queue = queue_of(items, engine.devices, False, 2**62, 2**62, strides)
        *_, new = engine.program(*engine.weights, *engine.free_lanes(), told.pop(), address_of(queue))
        told.append(new.block_until_ready())
        return run and queue

    return call, encoder.flops_per_step * rows * STEPS / 1e9


def xla_case(encoder: Encoder, mesh: Mesh, lanes: int) -> tuple[Callable[[], Any], float]:
    """Windows of XLA's program, all blocks full, and their GFLOP."""
    engine = Engine(encoder, mesh, WindowShape(lanes, 4, STEPS // 4))
    windows = max(1, round(FLOP / encoder.flops_per_step / STEPS / lanes))
    buffers = engine.new_buffers()
    buffers.values[...] = np.random.default_rng(0).standard_normal(buffers.values.shape, np.float32)
    buffers.counts[...] = 4
    buffers.resets[:, 0] = True
    fed = jax.device_put(tuple(buffers), sharded(mesh))
    kept = [engine.initial_state(), engine.new_emitted()]

    def call() -> Any:
        for _ in range(windows):
            state, _, emitted = engine.program(engine.weights, np.int32(STEPS // 4), *kept, *fed)
            kept[:] = state, emitted
        return jax.block_until_ready(kept)

    return call, encoder.flops_per_step * windows * engine.lanes * STEPS / 1e9


def main() -> None:
    """Parse, take a device per core, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cells", default="gru,lstm,rnn")
    parser.add_argument("--hidden", default="32,64,128,256,512")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    mesh, results = default_mesh(), []
    print("| cell | H | peak | matrix product | native | of the product | of the peak | XLA's | native / XLA's |")
    print("|---|---|---|---|---|---|---|---|---|")
    for cell in arguments.cells.split(","):
        for hidden in map(int, arguments.hidden.split(",")):
            encoder = Encoder.from_seed(0, IN_FEATURES, hidden, cell=cell)
            named = {"peak": peak_case(mesh.size), "product": gemm_case(mesh), "native": native_case(encoder, mesh)}
            named |= {f"xla {lanes}": xla_case(encoder, mesh, lanes) for lanes in XLA_LANES}
            seconds = alternate({name: case for name, (case, _) in named.items()}, arguments.rounds)
            rates = {name: gflop / statistics.median(seconds[name]) for name, (_, gflop) in named.items()}
            xla = max(rate for name, rate in rates.items() if name.startswith("xla"))
            peak, product, native = (rates[name] for name in ("peak", "product", "native"))
            shares = f"{native / product:.2f} | {native / peak:.2f} | {xla:.0f} | {native / xla:.2f}"
            print(f"| {cell} | {hidden} | {peak:.0f} | {product:.0f} | {native:.0f} | {shares} |", flush=True)
            results.append({"cell": cell, "hidden": hidden, **{name: round(rate, 1) for name, rate in rates.items()}})
    finish("kernel", {"rows": results})


if __name__ == "__main__":
    main()
