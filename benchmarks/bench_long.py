"""Long format, one step a row, against the same sequences as nested lists: seconds of the whole job, and peak memory.

    python -m benchmarks.bench_long                      # 10,000,000 events; 3 minutes on 2 cores
    python -m benchmarks.bench_long --events 1000000     # whether it works

100 steps a sequence on average, D = 8, H = 64, an int64 id, an int64 time, row groups of about a million steps. The two
take turns, each job in a process of its own that was warmed up; seconds count listing, footers, the pass over the ids
and all parts, not the start of Python nor the compilation; of all rounds the best counts, and processor time too, which
other work on the machine disturbs less. The features of both must be equal, bit for bit. Peak memory
is that of the whole process, also at a tenth of the events.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import finish

D, H, STEPS, SEQUENCES_PER_GROUP = 8, 64, 100, 10_000
CHILD = """
import json, sys, time
from scanrnn_dist.cli import start_devices
start_devices(None)
from scanrnn_dist.api import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.observe import peak_memory_bytes
layout, warm, source, destination = sys.argv[1:]
long = {"group_by": ["id"], "order_by": ["t"], "features": [f"x{nth}" for nth in range(%d)]}
options, encoder = JobOptions(**(long if layout == "long" else {})), Encoder.from_seed(0, %d, %d)
featurize(encoder, plan_job(warm, options), destination + ".warm")
begin, begin_used = time.perf_counter(), time.process_time()
plan = plan_job(source, options)
planned = time.perf_counter() - begin
featurize(encoder, plan, destination)
seconds = time.perf_counter() - begin
used = time.process_time() - begin_used
told = {"seconds": seconds, "processor_seconds": used, "plan_seconds": planned}
print(json.dumps({**told, "peak_memory_bytes": peak_memory_bytes()}))
"""


def write_sources(folder: Path, sequences: int) -> None:
    """The same sequences in both layouts, `long.parquet` and `nested.parquet`."""
    rng = np.random.default_rng(0)
    features = [f"x{nth}" for nth in range(D)]
    long = pa.schema([("id", pa.int64()), ("t", pa.int64()), *((name, pa.float32()) for name in features)])
    nested = pa.schema([("id", pa.int64()), ("sequence", pa.list_(pa.list_(pa.float32(), D)))])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        pq.ParquetWriter(folder / "long.parquet", long) as long_file,
        pq.ParquetWriter(folder / "nested.parquet", nested) as nested_file,
    ):
        for begin in range(0, sequences, SEQUENCES_PER_GROUP):
            ids = np.arange(begin, min(sequences, begin + SEQUENCES_PER_GROUP))
            lengths = rng.integers(STEPS // 2, STEPS + STEPS // 2 + 1, len(ids))
            values = rng.normal(size=(int(lengths.sum()), D)).astype(np.float32)
            offsets = np.append(0, np.cumsum(lengths))
            times = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
            columns = [np.repeat(ids, lengths), times, *(np.ascontiguousarray(column) for column in values.T)]
            long_file.write_table(pa.Table.from_arrays([pa.array(column) for column in columns], schema=long))
            steps = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), D)
            lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), steps)
            nested_file.write_table(pa.Table.from_arrays([pa.array(ids), lists], schema=nested))


def measured(folder: Path, layout: str, destination: Path) -> dict[str, Any]:
    """One job in a process of its own."""
    source, warm = (folder / name / f"{layout}.parquet" for name in ("all", "few"))
    command = [sys.executable, "-c", CHILD % (D, D, H), layout, str(warm), str(source), str(destination)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def run(folder: Path, events: int, rounds: int) -> dict[str, Any]:
    """All measurements at so many events."""
    write_sources(folder / "all", events // STEPS)
    write_sources(folder / "few", 1000)
    found: dict[str, list[dict[str, Any]]] = {"long": [], "nested": []}
    for turn in range(rounds):
        for layout, runs in found.items():
            runs.append(measured(folder, layout, folder / f"{layout}.{turn}"))
            print(f"{events:,} events, {layout}: {runs[-1]}", flush=True)
    features = [pq.read_table(folder / f"{layout}.0", columns=["features"])["features"] for layout in found]
    is_same = features[0].combine_chunks().flatten().equals(features[1].combine_chunks().flatten())

    def of(name: str) -> dict[str, list[float]]:
        return {layout: [round(run[name], 3) for run in runs] for layout, runs in found.items()}

    def speed(name: str) -> float:
        return round(min(of(name)["nested"]) / min(of(name)["long"]), 3)

    return {
        "events": events,
        "seconds": of("seconds"),
        "processor_seconds": of("processor_seconds"),
        "plan_seconds": statistics.median(run["plan_seconds"] for run in found["long"]),
        "peak_memory_mib": {
            layout: round(max(run["peak_memory_bytes"] for run in runs) / 2**20) for layout, runs in found.items()
        },
        "speed": speed("seconds"),
        "speed_by_processor_time": speed("processor_seconds"),
        "is_same": is_same,
    }


def main() -> None:
    """Measure, and print JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to put sources and outputs (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        few = run(Path(folder) / "tenth", options.events // 10, 1)
        many = run(Path(folder) / "whole", options.events, options.rounds)
    finish("long", {"in_features": D, "hidden": H, "tenth": few, "whole": many})


if __name__ == "__main__":
    main()
