"""Whole jobs, Parquet to Parquet, against the native kernel alone, in useful GFLOP/s of the same run.

    python -m benchmarks.bench_whole --folder workloads

The kernel alone is `bench_kernel.py`'s: rows of equal length, in memory, with the workload's sizes. *read* is pyarrow
decoding the workload's columns and nothing else, in one thread: what a job must take of the processor besides the
kernel. *bound* is what a job could reach that does these two and nothing else, with all cores busy from begin to end.
Covered: one process, warm, as the command line starts it. Not covered: any other kernel.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.bench_kernel import native_case
from benchmarks.harness import alternate, finish, rate
from benchmarks.workloads import FOLDER, WORKLOADS
from scanrnn_dist.api import featurize
from scanrnn_dist.cli import start_devices
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import default_mesh


def measured(workload: str, folder: Path, rounds: int) -> dict[str, Any]:
    """GFLOP/s of the kernel and of jobs, seconds of decoding, and the shares."""
    sizes = WORKLOADS[workload]
    source = sizes.file(folder)
    encoder = Encoder.from_seed(0, sizes.in_features, sizes.hidden)
    kernel, gflop = native_case(encoder, default_mesh())
    decoding: list[float] = []

    def job() -> None:
        destination = tempfile.mkdtemp()
        try:
            featurize(encoder, source, destination, **sizes.options)
        finally:
            shutil.rmtree(destination)

    def read() -> None:
        begin = time.thread_time()
        for batch in pq.ParquetFile(source).iter_batches(800, use_threads=False):
            del batch
        decoding.append(time.thread_time() - begin)

    cases: dict[str, Callable[[], Any]] = {"kernel": kernel, "job": job, "read": read}
    seconds = alternate(cases, rounds)
    of_kernel, of_job = rate(seconds["kernel"], gflop), rate(seconds["job"], sizes.gflop)
    cores = os.cpu_count() or 1
    ideal = cores * sizes.gflop / of_kernel["median"]
    return {
        "kernel": of_kernel,
        "job": of_job,
        "share": round(of_job["median"] / of_kernel["median"], 3),
        "read_seconds": round(statistics.median(decoding), 3),
        "bound": round(ideal / (ideal + statistics.median(decoding)), 3),
    }


def main() -> None:
    """Parse, start as the command line does, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--workloads", default="W1,W2,W4,W1L")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    start_devices(None)
    results = {name: measured(name, arguments.folder, arguments.rounds) for name in arguments.workloads.split(",")}
    print("| | kernel alone | whole job | share | decoding, processor s | bound |\n|---|---|---|---|---|---|")
    for name, it in results.items():
        told = ["{median:.0f} ({min:.0f} - {max:.0f})".format(**it[what]) for what in ("kernel", "job")]
        print(f"| {name} | {' | '.join(told)} | {it['share']:.2f} | {it['read_seconds']:.2f} | {it['bound']:.2f} |")
    finish("whole", results)


if __name__ == "__main__":
    main()
