"""Where the processor time of a job goes: CPU seconds of every stage, of the devices, and of the rest.

    python -m benchmarks.bench_stages --folder workloads --workloads W1,W5

Stages are those that `scanrnn featurize --profile` names; a stage's CPU time is that of its thread while it is in it
(`time.thread_time`), so waiting costs nothing. What no stage accounts for is the devices' threads and the Python
between the stages. Covered: one process, warm. Not covered: which stage waits for which; see `--profile` for that.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from benchmarks.harness import finish
from benchmarks.workloads import FOLDER, WORKLOADS
from scanrnn_dist.api import EncoderOnDevices, featurize
from scanrnn_dist.cli import start_devices
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.job import JobReport


def cpu_seconds(workload: str, folder: Path, rounds: int) -> dict[str, float]:
    """CPU seconds of a job by stage, means of the rounds; and its wall time, total CPU time and what is left."""
    sizes = WORKLOADS[workload]
    encoder = Encoder.from_seed(0, sizes.in_features, sizes.hidden)
    seconds: defaultdict[str, float] = defaultdict(float)
    lock = threading.Lock()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        begin = time.thread_time()
        yield
        with lock:
            seconds[name] += time.thread_time() - begin

    def job() -> JobReport:
        destination = tempfile.mkdtemp()
        try:
            return featurize(encoder, sizes.file(folder), destination, **sizes.options)
        finally:
            shutil.rmtree(destination)

    with (
        mock.patch("scanrnn_dist.engine.run.stage", stage),
        mock.patch("scanrnn_dist.engine.native_run.stage", stage),
        mock.patch.object(EncoderOnDevices, "stage", staticmethod(stage)),
    ):
        job()
        seconds.clear()
        before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        for _ in range(rounds):
            job()
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    total = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    named = {name: seconds[name] / rounds for name in sorted(seconds, key=lambda name: -seconds[name])}
    rest = {
        "devices and the rest": total / rounds - sum(named.values()),
        "total": total / rounds,
        "wall": wall / rounds,
    }
    return {name: round(value, 4) for name, value in {**named, **rest}.items()}


def main() -> None:
    """Parse, take a device per core, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    start_devices(None)  # as the command line does
    results = {name: cpu_seconds(name, arguments.folder, arguments.rounds) for name in arguments.workloads.split(",")}
    for name, seconds in results.items():
        print(name, ", ".join(f"{stage} {1e3 * value:.0f} ms" for stage, value in seconds.items()))
    finish("stages", results)


if __name__ == "__main__":
    main()
