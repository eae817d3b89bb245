"""The comparison: every contender on every workload, side by side.

    python -m benchmarks.run                         # warm, Parquet to Parquet
    python -m benchmarks.run --compute               # rows in memory, compute alone
    python -m benchmarks.run --cold                  # whole processes: start-up, imports and compilation included

Each contender runs in its own process; they take turns, round by round, so that a slow spell of the machine hits them
all, and each is checked against the oracle before it is timed. Useful GFLOP/s are 6 H (D + H) per real step. A plain
matrix product takes its turn too: what of it is reached, the *share*, is what the machine allows.

A contender that ends, answers wrongly or not in time is told as failed, and the command ends with 1. One that after two
rounds takes more than three times as long as the fastest sits out the other rounds, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.child import PRODUCTS
from benchmarks.contenders import CONTENDERS, LONGEST_SECONDS, Child, Contender, Failed
from benchmarks.harness import finish, machine, rate
from benchmarks.memory import idle_cores, peak_memory
from benchmarks.workloads import FOLDER, WORKLOADS, Workload
from scanrnn_dist.cli import start_devices
from scanrnn_dist.encoder import Encoder
from tests.oracle import gru_rows

TOLERANCE = 1e-5
"""float32 against float64 over up to 20,000 steps: a wrong gate or a row out of place is off by 1e-2."""
SAMPLE = 20
SLOW = 3.0
PRODUCT_GFLOP = PRODUCTS * 2 * 2048**3 / 1e9

Case = Callable[[], tuple[float, float] | None]
"""Runs a contender once: seconds and processor seconds, or None where it has no such command."""


@contextmanager
def destination(folder: Path) -> Iterator[Path]:
    """A path to write to; what stands there afterwards is removed."""
    parent = Path(tempfile.mkdtemp(prefix="out-", dir=folder))
    try:
        yield parent / "out"
    finally:
        shutil.rmtree(parent)


class Oracle:
    """The float64 features of some random rows of a workload and of its longest, and what its output has to hold."""

    def __init__(self, workload: Workload) -> None:
        rows = workload.rows()
        chosen = np.random.default_rng(1).choice(len(rows), SAMPLE, replace=False)
        self.ids = [int(row) for row in {*chosen, rows.lengths.argmax()}]
        self.rows = len(rows)
        cell = Encoder.from_seed(0, workload.in_features, workload.hidden).cell
        self.features = gru_rows(cell, [rows.row(i) for i in self.ids])

    def check(self, path: Path) -> float:
        """The largest difference of a Parquet output from it; raises `Failed` where that is too large or rows lack."""
        table = pq.read_table(path)
        ids = table["id"].to_numpy()
        is_same = np.array_equal(np.sort(ids), np.arange(self.rows))
        if not is_same or ("label" in table.column_names and not np.array_equal(ids % 10, table["label"].to_numpy())):
            raise Failed("ids or labels are not those of the source")
        features = np.stack(table["features"].take(np.argsort(ids)[self.ids]).to_pylist())
        difference = float(np.abs(features - self.features).max())
        if not difference <= TOLERANCE:
            raise Failed(f"differs from the oracle by {difference:.1e}; expected at most {TOLERANCE}")
        return difference


class Comparison:
    """What is found out about the contenders on one workload."""

    def __init__(self, workload: Workload, folder: Path, product: Child) -> None:
        self.workload, self.folder, self.product = workload, folder, product
        self.oracle = Oracle(workload)
        self.figures: dict[str, dict[str, Any]] = {}

    @contextmanager
    def told(self, name: str) -> Iterator[dict[str, Any]]:
        """The figures of a contender, to be filled in; what it fails in is among them."""
        figures = self.figures.setdefault(name, {})
        try:
            yield figures
        except Failed as failure:
            figures["failed"] = str(failure)
            print(f"  {name} failed: {failure}", flush=True)

    def warm(self, contenders: list[Contender], rounds: int, command: str) -> dict[str, Any]:
        """Long-lived children in turns: end to end (`run`) or rows in memory (`compute`)."""
        children: dict[str, Child] = {}
        try:
            for contender in contenders:
                with self.told(contender.name) as figures:
                    children[contender.name] = child = self._child(contender)
                    with destination(self.folder) as path:
                        child.ask("run", path)
                        figures["difference"] = self.oracle.check(path)
                    once = self._asking(child, command)
                    if command == "run":
                        figures["peak_mib"] = peak_memory(child.process.pid, once)
                    else:
                        once()
            for name, child in children.items():
                self.figures[name]["idle_cores"] = idle_cores(child.process.pid)
            return self._summary(self._rounds({n: self._asking(c, command) for n, c in children.items()}, rounds))
        finally:
            for child in children.values():
                child.stop()

    def cold(self, contenders: list[Contender], rounds: int) -> dict[str, Any]:
        """Whole processes in turns, from `exec` to exit."""
        return self._summary(self._rounds({c.name: self._starting(c) for c in contenders}, rounds))

    def _child(self, contender: Contender) -> Child:
        command = contender.warm_command(self.workload, self.folder)
        log = self.folder / f"{contender.name.replace(' ', '-')}.log"
        return Child(command, contender.process_environment(self.folder), log)

    def _asking(self, child: Child, command: str) -> Case:
        def case() -> tuple[float, float] | None:
            with destination(self.folder) as path:
                taken: tuple[float, float] | None = child.ask(command, path)
            return taken

        return case

    def _starting(self, contender: Contender) -> Case:
        source = self.workload.file(self.folder)
        figures = self.figures.setdefault(contender.name, {})

        def case() -> tuple[float, float]:
            with destination(self.folder) as path:
                command = contender.cold_command(self.workload, source, path)
                environment = contender.process_environment(self.folder)
                *taken, mib = whole_process(command, environment, self.folder / "cold.log")
                figures["largest_process_mib"] = max(mib, figures.get("largest_process_mib", 0))
                figures["difference"] = self.oracle.check(path)
            return taken[0], taken[1]

        return case

    def _rounds(self, cases: dict[str, Case], rounds: int) -> list[float]:
        """Each case in each round, unless it fails or is far too slow; the seconds of the matrix product of each."""
        product = self._asking(self.product, "run")
        product_seconds = []
        for nth in range(rounds):
            product_seconds.append((product() or (0.0,))[0])
            for name, case in cases.items():
                if self.figures[name].keys() & {"failed", "left"}:
                    continue
                with self.told(name) as figures:
                    if (taken := case()) is not None:
                        figures.setdefault("seconds", []).append(round(taken[0], 4))
                        figures.setdefault("processor_seconds", []).append(round(taken[1], 3))
            if nth == 1:
                self._leave_slow_ones()
        return product_seconds

    def _leave_slow_ones(self) -> None:
        best = {name: min(figures["seconds"]) for name, figures in self._timed().items()}
        for name, seconds in best.items():
            if name != "ours" and (times := seconds / min(best.values())) > SLOW:
                self.figures[name]["left"] = f"after 2 rounds, {times:.1f} x the time of the fastest"

    def _timed(self) -> dict[str, dict[str, Any]]:
        return {n: figures for n, figures in self.figures.items() if "seconds" in figures and "failed" not in figures}

    def _summary(self, product_seconds: list[float]) -> dict[str, Any]:
        """Figures of each contender, and how ours compares with the fastest opponent."""
        product = rate(product_seconds, PRODUCT_GFLOP)
        timed = self._timed()
        for figures in timed.values():
            figures["gflops"] = rate(figures["seconds"], self.workload.gflop)
            figures["rows_per_second"] = round(self.oracle.rows / statistics.median(figures["seconds"]))
            figures["share"] = round(figures["gflops"]["median"] / product["median"], 3)
        result: dict[str, Any] = {"product_gflops": product, "contenders": self.figures}
        medians = {name: statistics.median(figures["seconds"]) for name, figures in timed.items()}
        opponents = {name: median for name, median in medians.items() if CONTENDERS[name].module is not None}
        if "ours" in medians and opponents:
            fastest = min(opponents, key=opponents.__getitem__)
            result |= {"fastest_opponent": fastest, "ratio": round(opponents[fastest] / medians["ours"], 3)}
        return result


def whole_process(command: list[str], environment: dict[str, str], log: Path) -> tuple[float, float, float]:
    """Seconds and processor seconds of a process and its children, and the MiB of the largest of them."""
    with open(log, "w") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        limit = threading.Timer(LONGEST_SECONDS, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - begin
        limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"ended with {process.returncode} after {taken:.0f} s; why stands in {log}")
    return taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def show(workload: Workload, result: dict[str, Any]) -> None:
    """Print a workload's figures as a table."""
    product = result["product_gflops"]
    print(f"\n{workload.name} {workload.title}; D {workload.in_features}, H {workload.hidden}")
    print(f"  {'matrix product':17}{product['median']:7.1f} GFLOP/s ({product['min']:.1f} - {product['max']:.1f})")
    for name, figures in result["contenders"].items():
        if "failed" in figures or "gflops" not in figures:
            print(f"  {name:17}{'failed: ' + figures['failed'] if 'failed' in figures else 'has no such command'}")
            continue
        rates = figures["gflops"]
        taken, processor = (statistics.median(figures[key]) for key in ("seconds", "processor_seconds"))
        mib = next((figures[key] for key in ("peak_mib", "largest_process_mib") if key in figures), None)
        print(
            f"  {name:17}{rates['median']:7.1f} GFLOP/s ({rates['min']:.1f} - {rates['max']:.1f})"
            f" {figures['share']:6.1%}{figures['rows_per_second']:11,} rows/s {taken:8.3f} s {processor:8.3f} s CPU"
            f"{'' if mib is None else f' {mib:6.0f} MiB'}  off by {figures['difference']:.0e}"
            f"{'  left ' + figures['left'] if 'left' in figures else ''}"
        )
    if "ratio" in result:
        print(f"  ours is {result['ratio']:.2f} x the fastest opponent, {result['fastest_opponent']}", flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--json", type=Path, help="where to write the results too")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--compute", action="store_true", help="rows in memory, compute alone")
    mode.add_argument("--cold", action="store_true", help="whole processes")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    contenders = [CONTENDERS[name] for name in arguments.contenders.split(",")]
    start_devices(None)  # so that what is told of the machine has as many as ours
    product = Child(
        [sys.executable, "-m", "benchmarks.child", "product"], dict(os.environ), arguments.folder / "product.log"
    )
    on: dict[str, Any] = machine() | {"command": sys.argv[1:]}
    on["product_gflops"] = rate([product.ask("run")[0] for _ in range(4)][1:], PRODUCT_GFLOP)
    print("\n".join(f"{name}: {value}" for name, value in on.items()), flush=True)
    results: dict[str, Any] = {}
    try:
        for workload in (WORKLOADS[name] for name in arguments.workloads.split(",")):
            begin = time.perf_counter()
            comparison = Comparison(workload, arguments.folder, product)
            if arguments.cold:
                result = comparison.cold(contenders, arguments.rounds)
            else:
                result = comparison.warm(contenders, arguments.rounds, "compute" if arguments.compute else "run")
            results[workload.name] = result
            show(workload, result)
            on["load_end"] = round(os.getloadavg()[0], 2)
            print(f"  took {time.perf_counter() - begin:.0f} s; load {on['load_end']}", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps({"machine": on, "results": results}, indent=1))
    finally:
        product.stop()
    finish("run", results, on)
    if any("failed" in figures for result in results.values() for figures in result["contenders"].values()):
        sys.exit("Some contenders failed; see above.")


if __name__ == "__main__":
    main()
