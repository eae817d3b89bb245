"""How long a job of a million units takes to go on, and to tell how far it is: fresh processes, peak memory of each.

    python -m benchmarks.bench_resume                    # 1,000,000 units, half of them committed; 3 minutes on 2 cores
    python -m benchmarks.bench_resume --groups 1000      # the same units in 1,000 files
    python -m benchmarks.bench_resume --units 20000      # whether it works

Every unit is a file of one row group, which is the worst case: of fewer files (`--groups`), less is listed. The files
are there, as links to few of them, so that listing and comparing them is measured; only what their footers say is not
read but repeated, and the parts that are committed are empty stand-ins. `resume` ends when the first rows would be
read: JAX imported, the source listed and compared, the plan, all commit records and the names of all parts read. The
`rerun` is the call of `featurize` alone, once all units are committed. `status` and `clean` are whole commands.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from benchmarks.harness import finish

D, H, LINKS = 4, 8, 1000
CHILD = """
import json, sys, time
begin = time.perf_counter()
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import StoppedError
from scanrnn_dist.api import featurize
from scanrnn_dist.observe import peak_memory_bytes
class Reached(Exception): pass
def reached(done, total):
    print(json.dumps({"rows_before": done, "rows": total, "seconds": time.perf_counter() - begin,
                      "peak_memory_bytes": peak_memory_bytes()}))
    raise Reached
try:
    featurize(Encoder.from_seed(0, %d, %d), sys.argv[1], sys.argv[2], rows_per_part=1, on_start=reached)
except Reached:
    pass
"""


RERUN = """
import sys, time
from scanrnn_dist.api import featurize
from scanrnn_dist.encoder import Encoder
encoder, begin = Encoder.from_seed(0, %d, %d), time.perf_counter()
assert featurize(encoder, sys.argv[1], sys.argv[2], rows_per_part=1).is_complete
print(time.perf_counter() - begin)
"""


def make_source(folder: Path, files: int, groups: int) -> None:
    """So many files, a thousand links to each of few; every row group has one row of one step."""
    step = pa.list_(pa.float32(), D)
    table = pa.table({"sequence": pa.array([[[1.0] * D]] * groups, pa.list_(step))})
    for begin in range(0, files, LINKS):
        below = folder / f"{begin // LINKS:05}"
        below.mkdir(parents=True)
        pq.write_table(table, below / "000.parquet", row_group_size=1)
        for link in range(1, min(LINKS, files - begin)):
            os.link(below / "000.parquet", below / f"{link:03}.parquet")


def begin_job(source: Path, destination: Path, units: int) -> None:
    """A job of these files as one that read their footers would have recorded it."""
    from scanrnn_dist.api import featurize
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.errors import StoppedError
    from scanrnn_dist.source import read_footers

    (first,) = read_footers(fs.LocalFileSystem(), [str(source / "00000/000.parquet")])

    def repeated(filesystem: fs.FileSystem, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
        return (first for _ in paths)

    def stop(done: int, total: int) -> None:
        raise StoppedError("begun")

    try:
        with mock.patch("scanrnn_dist.source.source.read_footers", repeated):
            featurize(Encoder.from_seed(0, D, H), source, destination, rows_per_part=1, on_start=stop)
    except StoppedError:
        print(f"began a job of {units:,} units", file=sys.stderr)


def commit(destination: Path, units: int, first: int) -> None:
    """Every second unit, from the first on, has a part and a commit record."""
    from scanrnn_dist.records import PartRecord, part_name

    job = json.loads((destination / "__scanrnn/job.json").read_bytes())["id"]
    attempt = f"elsewhere.1.0000000{first}"
    with open(destination / f"__scanrnn/commits/{attempt}.jsonl", "w") as log:
        header = {"attempt": attempt, "job": job, "started": time.time(), "share": [1, 1], "environment": {}}
        log.write(json.dumps(header) + "\n")
        for number, unit in enumerate(range(first, units, 2)):
            stand_in, name = destination / f".stand-in-{number // LINKS}", destination / part_name(unit, units)
            if number % LINKS == 0:
                stand_in.touch()
            os.link(stand_in, name)
            record = asdict(PartRecord(unit, rows=1, size_bytes=0, sha256="0" * 64)) | {"finished": time.time()}
            log.write(json.dumps({"begin": unit}) + "\n" + json.dumps(record) + "\n")
        log.write(json.dumps({"end": "StoppedError"}) + "\n")
    for stand_in in destination.glob(".stand-in-*"):
        stand_in.unlink()


def measured(command: list[str]) -> dict[str, Any]:
    """A command in a fresh process: seconds, and the most memory it had."""
    begin = time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        while process.poll() is None:
            with suppress(FileNotFoundError):  # it has ended meanwhile
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                peak = max([peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
            time.sleep(0.01)
        seconds = time.perf_counter() - begin
        assert process.returncode == 0, command
        output.seek(0)
        return {"seconds": seconds, "peak_memory_bytes": peak, "output": output.read()}


def main() -> None:
    """Make the files, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=1, help="row groups, and so units, of a file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the files; a temporary folder if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, destination = Path(folder) / "in", Path(folder) / "out"
        make_source(source, arguments.units // arguments.groups, arguments.groups)
        begin_job(source, destination, arguments.units)
        commit(destination, arguments.units, first=0)
        commands = {
            "resume": [sys.executable, "-c", CHILD % (D, H), str(source), str(destination)],
            "status": [sys.executable, "-m", "scanrnn_dist", "status", str(destination), "--json"],
            "clean --dry-run": [sys.executable, "-m", "scanrnn_dist", "clean", str(destination), "--dry-run"],
        }
        runs = {name: [measured(command) for _ in range(arguments.rounds)] for name, command in commands.items()}
        half = json.loads(runs["status"][0]["output"])["units_committed"]
        assert half == json.loads(runs["resume"][0]["output"])["rows_before"] == -(-arguments.units // 2)
        commit(destination, arguments.units, first=1)
        rerun = [sys.executable, "-c", RERUN % (D, H), str(source), str(destination)]
        measured(rerun)  # writes the list of all parts, and that the job is finished
        reruns = [measured(rerun) for _ in range(arguments.rounds)]
        runs["rerun of a finished job"] = [{**run, "seconds": float(run["output"])} for run in reruns]
        records = {
            path.name.partition("-")[0]: path.stat().st_size for path in (destination / "__scanrnn").glob("*-*.table")
        }
    figures = {
        name: {
            "seconds": float(np.median([run["seconds"] for run in times])),
            "peak_memory_bytes": max(run["peak_memory_bytes"] for run in times),
        }
        for name, times in runs.items()
    }
    for name, figure in figures.items():
        print(f"{name:26}{figure['seconds']:8.2f} s{figure['peak_memory_bytes'] / 2**20:8.0f} MiB")
    print(f"plan: {records['files'] / 1e6:.1f} MB of files, {records['units'] / 1e6:.1f} MB of units")
    finish("resume", {"units": arguments.units, "committed": half, "figures": figures, "records_bytes": records})


if __name__ == "__main__":
    main()
