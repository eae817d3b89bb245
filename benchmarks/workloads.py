"""The workloads: what their rows look like, and their Parquet files, made once and kept.

    python -m benchmarks.workloads workloads          # makes all of them, about 3 GB

W1L, W3L and W5L are W1, W3 and W5 with ten times the rows, so that start and end of a job do not decide.

A file has the columns `id: int64`, `label: int64` and `sequence: list<list<float>>`, as pyarrow writes nested Python
lists, with pyarrow's own defaults besides row groups of about 16 MB of values. A workload in long format has a row for
each step instead, `id: int64`, `t: int64` and a float for each feature, the steps of a sequence one after the other;
its row groups end anywhere, within a sequence too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

ROW_GROUP_BYTES = 16 << 20
FOLDER = Path(tempfile.gettempdir()) / "workloads"
"""Where benchmarks look for the files, and make them, unless told otherwise."""


def uniform(rows: int, steps: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Rows that are all `steps` long."""
    return lambda rng: np.full(rows, steps)


def lognormal(rows: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Lognormal(4.2, 0.9), 1 to 2,048 steps: mean 99, as recordings and sessions are."""
    return lambda rng: np.clip(rng.lognormal(4.2, 0.9, rows), 1, 2048).astype(np.int64)


def pareto(rows: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Pareto(1.5) x 30 + 1, up to 20,000 steps: half of the work is in few rows."""
    return lambda rng: np.clip(rng.pareto(1.5, rows) * 30 + 1, 1, 20_000).astype(np.int64)


def short(rows: int) -> Callable[[np.random.Generator], np.ndarray]:
    """2 to 20 steps."""
    return lambda rng: rng.integers(2, 21, rows)


def events(rows: int) -> Callable[[np.random.Generator], np.ndarray]:
    """50 to 150 steps, for each row of 100 - n another one of 100 + n: 100 on average, exactly."""

    def lengths(rng: np.random.Generator) -> np.ndarray:
        half = rng.integers(50, 151, rows // 2)
        return rng.permutation(np.concatenate([half, 200 - half]))

    return lengths


def made_up_rows(lengths: np.ndarray, in_features: int, rng: np.random.Generator) -> Ragged:
    """Rows of those lengths, of standard normal values."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(rng.standard_normal((int(offsets[-1]), in_features), np.float32), offsets)


@dataclass(frozen=True)
class Workload:
    """Rows of given lengths and features, and the hidden size of the cell that goes over them."""

    name: str
    title: str
    lengths: Callable[[np.random.Generator], np.ndarray]
    in_features: int
    hidden: int
    seed: int = 0
    is_long: bool = False

    def row_lengths(self) -> np.ndarray:
        """Steps of each row."""
        return self.lengths(np.random.default_rng(self.seed))

    @property
    def gflop(self) -> float:
        """Useful work: 6 H (D + H) per real step."""
        return 6 * self.hidden * (self.in_features + self.hidden) * int(self.row_lengths().sum()) / 1e9

    @property
    def options(self) -> dict[str, Any]:
        """What our own job has to be told of the file."""
        return {"group_by": ["id"], "order_by": ["t"]} if self.is_long else {}

    def rows(self) -> Ragged:
        """The rows in memory, the same at every call."""
        rng = np.random.default_rng(self.seed)
        return made_up_rows(self.lengths(rng), self.in_features, rng)

    def file(self, folder: Path) -> Path:
        """The Parquet file with these rows; made if it is not there."""
        path = folder / f"{self.name}.parquet"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".tmp")
            (write_steps if self.is_long else write_rows)(self.rows(), aside)
            aside.rename(path)
        return path


def write_rows(rows: Ragged, path: Path) -> None:
    """Write rows as a Parquet file, with the columns `id`, `label` and `sequence`."""
    steps, features = rows.values.shape
    inner = pa.ListArray.from_arrays(np.arange(steps + 1, dtype=np.int32) * features, pa.array(rows.values.reshape(-1)))
    sequence = pa.ListArray.from_arrays(rows.offsets.astype(np.int32), inner)
    ids = np.arange(len(rows))
    group_rows = max(1, ROW_GROUP_BYTES * len(rows) // max(1, rows.values.nbytes))
    pq.write_table(pa.table({"id": ids, "label": ids % 10, "sequence": sequence}), path, row_group_size=group_rows)


def write_steps(rows: Ragged, path: Path) -> None:
    """Write rows as a Parquet file in long format: the columns `id`, `t`, `x0`, `x1`, ..."""
    steps, features = rows.values.shape
    columns = {"id": np.repeat(np.arange(len(rows)), rows.lengths)}
    columns["t"] = np.arange(steps) - np.repeat(rows.offsets[:-1], rows.lengths)
    columns |= {f"x{n}": np.ascontiguousarray(rows.values[:, n]) for n in range(features)}
    group_steps = ROW_GROUP_BYTES // rows.values[:1].nbytes
    pq.write_table(pa.table(columns), path, row_group_size=group_steps)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", "uniform: 8,000 rows of 128 steps", uniform(8_000, 128), 32, 128),
        Workload("W2", "ragged: 20,000 rows, lognormal lengths", lognormal(20_000), 16, 128),
        Workload("W3", "heavy tail: 20,000 rows, Pareto lengths", pareto(20_000), 8, 64),
        Workload("W4", "wide: 1,000 rows of 256 steps", uniform(1_000, 256), 64, 512),
        Workload("W5", "short: 300,000 rows of 2 to 20 steps", short(300_000), 4, 32),
        Workload("W6", "long format: 10,000,000 events, 100,000 keys", events(100_000), 8, 64, is_long=True),
        Workload("W1L", "uniform: 80,000 rows of 128 steps", uniform(80_000, 128), 32, 128),
        Workload("W3L", "heavy tail: 200,000 rows, Pareto lengths", pareto(200_000), 8, 64),
        Workload("W5L", "short: 3,000,000 rows of 2 to 20 steps", short(3_000_000), 4, 32),
    )
}

OUR_SHAPES = {
    "W1": WindowShape(50, 4, 256),
    "W3": WindowShape(40, 8, 128),
    "W4": WindowShape(50, 4, 64),
    "W5": WindowShape(160, 4, 160),
}
"""For XLA's program, where the defaults were not the fastest of a few that were tried, Parquet to Parquet, 9 rounds.

W1 and W4: lanes that share equal rows evenly, 0.52 -> 0.49 s and 1.20 -> 1.07 s. W3: 0.23 -> 0.22 s. W5: 0.36 -> 0.32.
"""


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder = parser.parse_args().folder
    for workload in WORKLOADS.values():
        begin = time.perf_counter()
        path = workload.file(folder)
        seconds, rows = time.perf_counter() - begin, pq.read_metadata(path)
        size = f"{rows.num_rows:,} rows in {rows.num_row_groups} row groups, {path.stat().st_size / 1e6:.0f} MB"
        print(f"{path}: {size}, {workload.row_lengths().sum():,} steps; made in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
