"""Daily updates of growing sequences against featurizing all steps at once: the bits, and the time of each day.

    python -m benchmarks.bench_update [--clients 100000] [--days 10] [--hidden 64]

Each day brings a quarter of the clients some steps, in long format. The command line featurizes the first day with
--keep-state and updates by each other day; every update is killed once (SIGKILL) after a random time, and started
again. In the end the features are compared, bit for bit, with those of all days at once. The last line is JSON. Not
covered: buckets, several processes.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = ("amount", "balance", "hour")


def events_of(day: int, clients: int, rng: np.random.Generator) -> pa.Table:
    """A day's events of a quarter of the clients, one to eight each, sorted by client and time."""
    active = np.sort(rng.permutation(clients)[: clients // 4])
    counts = rng.integers(1, 9, len(active))
    client = np.repeat(active, counts)
    times = day * 86_400 + rng.random(len(client)) * 86_400
    order = np.lexsort((times, client))
    columns = {"client": client, "t": times[order]}
    columns |= {name: rng.normal(size=len(client)).astype(np.float32) for name in FEATURES}
    return pa.table(columns)


def run(*arguments: Any, kill_after_seconds: float | None = None) -> float | None:
    """Seconds that a command took; None if it was killed."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "scanrnn_dist", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        process.wait(kill_after_seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None
    assert process.stderr is not None
    said = process.stderr.read().decode()
    if process.returncode and "were applied" not in said:  # killed when all was done
        raise RuntimeError(f"{command} ended with {process.returncode}: {said}")
    return time.perf_counter() - begin


def main() -> None:
    """Make the days, update by each, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=64)
    arguments = parser.parse_args()
    rng, chance = np.random.default_rng(0), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="scanrnn-update-") as name:
        folder = Path(name)
        days = [events_of(day, arguments.clients, rng) for day in range(arguments.days)]
        for day, table in enumerate(days):
            pq.write_table(table, folder / f"{day}.parquet", row_group_size=100_000)
        everything = pa.concat_tables(days).sort_by([("client", "ascending"), ("t", "ascending")])
        pq.write_table(everything, folder / "all.parquet")
        long = ("--group-by", "client", "--order-by", "t", "--hidden", arguments.hidden, "--keep-state")
        first = run("featurize", folder / "0.parquet", folder / "out", *long)
        seconds: list[float] = []
        kills, history = 0, days[0].num_rows
        print(f"day 0: {days[0].num_rows:,} steps, featurized in {first:.1f} s")
        for day in range(1, arguments.days):
            update = ("update", folder / "out", folder / f"{day}.parquet")
            typical = seconds[-1] if seconds else first or 0.0
            kills += run(*update, kill_after_seconds=chance.uniform(0.2, 0.6) * typical) is None
            took = run(*update)
            assert took is not None
            seconds.append(took)
            print(f"day {day}: {days[day].num_rows:,} new steps after {history:,}: {took:.1f} s")
            history += days[day].num_rows
        whole = run("featurize", folder / "all.parquet", folder / "whole", *long)
        columns = ["client", "features", "state"]
        out, at_once = (pq.read_table(folder / which).sort_by("client").select(columns) for which in ("out", "whole"))
        is_same = out.equals(at_once)
        print(f"all {history:,} steps at once: {whole:.1f} s; bits {'equal' if is_same else 'DIFFER'}, {kills} kills")
    print(json.dumps({"seconds": seconds, "at_once_seconds": whole, "bits_equal": is_same, "kills": kills}))


if __name__ == "__main__":
    main()
