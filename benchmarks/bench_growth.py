"""How cost grows, each time with the law that it should follow beside it.

    python -m benchmarks.bench_growth                       # all five parts, about four minutes on 2 cores
    python -m benchmarks.bench_growth --only rows,T         # some of them
    python -m benchmarks.bench_growth --quick               # whether it works

| part | what is varied | what is measured | law |
|---|---|---|---|
| rows | 1e3 to 1e6 rows of 2 to 20 steps | `featurize`, Parquet to Parquet | a + b rows |
| T | 16 to 262,144 steps a row, in all as many steps | the engine, rows in memory | constant, then proportional to T |
| H | 32 to 2,048 hidden features | the engine, rows in memory | H (D + H) |
| devices | 1, 2, 4 ... CPU devices, up to the cores | both, and the dense scan; lognormal lengths | 1 / devices |
| memory | 10,000 to 200,000 rows, 30 to 606 MiB of values | `scanrnn featurize`, fresh processes | flat |

The points of a part take turns, five rounds of it (memory, which hardly varies: two); figures are medians. The scale of
a law is fitted (`laws.py`), so its shape is what is tested: `ratio` is the measured median over the law.

In T, the rows fill the lanes evenly up to 16,384 steps; of more steps there are fewer. The native kernel takes a step
of few rows in as much less time, until from `full` steps on the longest row is the job's time, whatever stands idle
beside it. (To XLA's program a lane costs the same with a row and without: 128 equal rows on 96 lanes take as long as
192.) In devices, the dense scan is compute alone on equal rows, nothing scheduled, copied or read: what the machine
itself gives for more devices.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_engine import engine_case
from benchmarks.bench_memory import run_fresh
from benchmarks.contenders import Child
from benchmarks.harness import finish
from benchmarks.laws import LAWS, compared
from benchmarks.run import destination
from benchmarks.turns import in_turns, seconds_of
from benchmarks.workloads import Workload, lognormal, short, write_rows
from scanrnn_dist.api import featurize
from scanrnn_dist.cli import start_devices
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import build_engine
from scanrnn_dist.protocols import EngineLike
from scanrnn_dist.ragged import Ragged

D, H = 16, 128
COMMANDS = {"scan": "dense scan, equal rows", "compute": "rows in memory", "run": "Parquet to Parquet"}
"""What a process of the part *devices* can be asked for, and what it goes over."""
Part = dict[str, Any]
"""The formula of a law, and by the name of each series its parameters and points."""


def equal_rows(values: np.ndarray, rows: int, steps: int) -> Ragged:
    """So many rows of so many steps, all on the same values, which are as many at least."""
    return Ragged(values, np.arange(rows + 1, dtype=np.int64) * steps)


def normal(steps: int, in_features: int) -> np.ndarray:
    """Normal values `(steps, in_features)` float32."""
    return np.random.default_rng(0).standard_normal((steps, in_features), np.float32)


def grow_rows(folder: Path, quick: bool) -> Part:
    """Seconds from Parquet to Parquet against the number of rows."""
    counts = (1_000, 3_000, 10_000) if quick else (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
    encoder = Encoder.from_seed(0, 4, 32)

    def case(source: Path) -> Callable[[], float]:
        def run() -> float:
            with destination(folder) as path:
                return seconds_of(lambda: featurize(encoder, source, path))[0]

        return run

    files = {count: Workload(f"rows-{count}", "", short(count), 4, 32).file(folder) for count in counts}
    seconds = in_turns({float(count): case(file) for count, file in files.items()}, 2 if quick else 5)
    return {"law": LAWS["rows"].formula, "series": {"2 to 20 steps, D 4, H 32": compared("rows", seconds)}}


def grow_steps(folder: Path, quick: bool) -> Part:
    """Nanoseconds per step against the steps of a row, at a constant total of steps."""
    encoder = Encoder.from_seed(0, 8, 64)
    engine = build_engine(encoder)
    lanes = engine.devices * engine.shape.lanes
    filled = 1024 if quick else 16_384
    lengths = [4**n for n in (2, 5, 6)] if quick else [4**n for n in range(2, 10)] + [2 * filled]
    total = lanes * filled
    values = normal(total, 8)
    cases: dict[float, Callable[[], float]] = {}
    occupancy: dict[float, float] = {}
    for steps in sorted(lengths):
        rows = equal_rows(values, total // steps, steps)
        cases[steps] = _engine_timed(engine, rows, 1e9 / total)
        occupancy[steps] = _occupancy(engine, rows)
    part = compared("T", in_turns(cases, 2 if quick else 5), {"filled": filled})
    for point in part["points"]:
        point |= {
            "rows": total // point["x"],
            "lanes": lanes,
            "occupancy": occupancy[point["x"]],
        }
    return {"law": LAWS["T"].formula, "series": {f"D 8, H 64, {lanes} lanes": part}}


def grow_hidden(folder: Path, quick: bool) -> Part:
    """Microseconds per step against the hidden features."""
    steps, work = 64, 2e9 if quick else 20e9
    cases: dict[float, Callable[[], float]] = {}
    gflop: dict[float, float] = {}
    for hidden in (32, 64, 128) if quick else (32, 64, 128, 256, 512, 1024, 2048):
        encoder = Encoder.from_seed(0, 16, hidden)
        engine = build_engine(encoder)
        lanes = engine.devices * engine.shape.lanes
        rows = lanes * max(1, round(work / (encoder.flops_per_step * lanes * steps)))
        values = normal(rows * steps, 16)
        cases[hidden] = _engine_timed(engine, equal_rows(values, rows, steps), 1e6 / (rows * steps))
        gflop[hidden] = encoder.flops_per_step / 1e9
    part = compared("H", in_turns(cases, 2 if quick else 5), {"D": 16})
    for point in part["points"]:
        point["gflops"] = round(gflop[point["x"]] / point["median"] * 1e6, 1)
    return {"law": LAWS["H"].formula, "series": {"D 16, rows of 64 steps": part}}


def _engine_timed(engine: EngineLike, rows: Ragged, scale: float) -> Callable[[], float]:
    """The engine's seconds on rows in memory, times `scale`."""
    case = engine_case(engine, rows)
    return lambda: scale * seconds_of(case)[0]


def _occupancy(engine: EngineLike, rows: Ragged) -> float:
    """The share of the program's positions that hold steps of these rows."""
    run = engine.run()
    run.submit(rows)
    run.results()
    run.close()
    return round(run.statistics.occupancy, 4)


def grow_devices(folder: Path, quick: bool) -> Part:
    """Seconds against the CPU devices, each number of them in a child, since it is fixed when JAX starts."""
    rows = 1_000 if quick else 10_000
    source = Workload("devices", "", lognormal(rows), D, H).file(folder)
    numbers = [2**i for i in range((os.cpu_count() or 1).bit_length())]
    children: dict[int, Child] = {}
    series = {}
    try:
        for n in numbers:
            children[n] = devices_child(n, source, folder)
        for command, title in COMMANDS.items():
            busy: dict[float, list[float]] = {n: [] for n in numbers}
            cases: dict[float, Callable[[], float]] = {
                n: _child_timed(child, command, folder, busy[n]) for n, child in children.items()
            }
            series[title] = compared("devices", in_turns(cases, 2 if quick else 5))
            for point in series[title]["points"]:
                point["cores_busy"] = round(float(np.median(busy[point["x"]])), 2)
    finally:
        for child in children.values():
            child.stop()
    return {"law": LAWS["devices"].formula, "series": series}


def devices_child(devices: int, source: Path, folder: Path) -> Child:
    """A process with so many CPU devices that goes over the rows of `source` when told."""
    command = [sys.executable, "-m", "benchmarks.child", "growth", str(D), str(H), str(source)]
    return Child(command, os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}, folder / f"{devices}-devices.log")


def _child_timed(child: Child, command: str, folder: Path, busy: list[float]) -> Callable[[], float]:
    """A child's seconds for a command; the cores that it kept busy meanwhile are appended to `busy`."""

    def run() -> float:
        with destination(folder) as path:
            seconds, processor_seconds = child.ask(command, path)
        busy.append(processor_seconds / seconds)
        return float(seconds)

    return run


def grow_memory(folder: Path, quick: bool) -> Part:
    """MiB at the peak of whole processes against the number of rows."""
    base = 1_000 if quick else 10_000
    workload = Workload("", "", lognormal(base), 8, 32)
    rows = workload.rows()
    write_rows(rows, folder / "memory-base.parquet")
    files = {base * times: folder / f"memory-{times}.parquet" for times in ((1, 4) if quick else (1, 2, 5, 10, 20))}
    for count, file in files.items():
        _repeat(folder / "memory-base.parquet", count // base, file)

    def case(source: Path) -> Callable[[], float]:
        return lambda: run_fresh(workload, source, folder, memory="")["mib"]

    peaks = in_turns({float(count): case(file) for count, file in files.items()}, 1 if quick else 2, warmup=0)
    part = compared("memory", peaks)
    for point in part["points"]:
        point["values_mib"] = round(point["x"] / base * rows.values.nbytes / 2**20)
    return {"law": LAWS["memory"].formula, "series": {"lognormal lengths, D 8, H 32": part}}


def _repeat(base: Path, times: int, path: Path) -> None:
    """Write a Parquet file with the row groups of another one, over and over."""
    groups = pq.ParquetFile(base)
    with pq.ParquetWriter(path, groups.schema_arrow) as writer:
        for _ in range(times):
            for group in range(groups.num_row_groups):
                table: pa.Table = groups.read_row_group(group)
                writer.write_table(table)


PARTS = {
    "rows": grow_rows,
    "T": grow_steps,
    "H": grow_hidden,
    "devices": grow_devices,
    "memory": grow_memory,
}


def show(name: str, part: Part) -> None:
    """Print the points of a part beside its law."""
    print(f"\n{LAWS[name].y_label} against {LAWS[name].x_label}; law: {part['law']}")
    for title, series in part["series"].items():
        print(f"  {title}; {series['parameters']}")
        for point in series["points"]:
            extra = {key: point[key] for key in list(point)[6:]}
            print(
                f"  {point['x']:>11,} {point['median']:10.4g} ({point['min']:.4g} - {point['max']:.4g})"
                f"  law {point['law']:10.4g}  x {point['ratio']:.2f}  {extra or ''}"
            )


def main() -> None:
    """Parse, take a device per core, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: a smoke run")
    parser.add_argument("--json", type=Path, help="where to write the results too")
    arguments = parser.parse_args()
    start_devices(None)
    results = {}
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        for name in arguments.only.split(","):
            begin = time.perf_counter()
            results[name] = PARTS[name](Path(folder), arguments.quick)
            show(name, results[name])
            print(f"  took {time.perf_counter() - begin:.0f} s", flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))
    finish("growth", results)


if __name__ == "__main__":
    main()
