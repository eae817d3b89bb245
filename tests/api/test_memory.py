"""Memory depends on the window and the chunks, not on the number of rows or the length of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from holding import hold
from sources import needs_native

from scanrnn_dist.api import data_sets as job
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.native_run import NativeRun
from scanrnn_dist.engine.run import Run
from scanrnn_dist.job import MemoryShares
from scanrnn_dist.protocols import WindowShape

H = 8

CHILD = f"""
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
from scanrnn_dist import Encoder, WindowShape, featurize
in_features, group_by, *sources = sys.argv[1:]
shape = WindowShape(lanes=32, block_steps=4, window_blocks=64)
encoder = Encoder.from_seed(0, int(in_features), {H})
how = {{"window_shape": shape, "group_by": json.loads(group_by)}}
reports = [featurize(encoder, source, source + ".out", **how) for source in sources]
print(json.dumps([[report.rows, report.peak_memory_bytes] for report in reports]))
"""


def table_of(lengths: list[int], in_features: int) -> pa.Table:
    """Rows of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    numbers = np.random.default_rng(0).normal(size=in_features * int(offsets[-1])).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(numbers), in_features)
    return pa.table({"id": pa.array(range(len(lengths))), "sequence": pa.ListArray.from_arrays(offsets, values)})


def write_lengths(path: Path, lengths: list[int], times: int, in_features: int) -> int:
    """Rows of these lengths, `times` over, in row groups of one round; the number of rows."""
    table = table_of(lengths, in_features)
    with pq.ParquetWriter(path, table.schema, use_dictionary=False) as writer:
        for _ in range(times):
            writer.write_table(table)
    return times * len(lengths)


def more_bytes(folder: Path, rows: dict[str, int], in_features: int, group_by: list[str] | None = None) -> list[int]:
    """By how much the peak memory of a process grows with each file after the first; `rows` are those of each file."""
    sources = [str(folder / f"{name}.parquet") for name in rows]
    command = [sys.executable, "-c", CHILD, str(in_features), json.dumps(group_by), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    computed, peaks = zip(*json.loads(done.stdout), strict=True)
    assert list(computed) == list(rows.values())
    return [peak - peaks[0] for peak in peaks[1:]]


def test_ten_times_the_rows_take_less_than_100_MB_more_and_a_long_row_itself_and_its_copies(tmp_path: Path) -> None:
    lengths, steps = [20] * 1000, 62_500  # 5.1 MB of values a round, 154 MB in all: more than the allowance
    few = write_lengths(tmp_path / "few.parquet", lengths, 3, in_features=64)
    many = write_lengths(tmp_path / "many.parquet", lengths, 30, in_features=64)
    long = write_lengths(tmp_path / "long.parquet", [steps, *[200] * 300], 1, in_features=64)
    more, of_long = more_bytes(tmp_path, {"few": few, "many": many, "long": long}, 64)
    # What is read ahead and waits to be written (32 + 16 MB), filled by the larger source alone.
    assert more < 100e6
    assert of_long < most_bytes_of(steps, 64)


@pytest.mark.parametrize(
    "are_sorted", [pytest.param(True, marks=pytest.mark.soak), pytest.param(False, marks=pytest.mark.sweep)]
)
def test_ten_times_the_events_take_less_than_100_MB_more(tmp_path: Path, are_sorted: bool) -> None:
    D, rows, steps, ids = 8, 1000, 100, np.random.default_rng(0).permutation(200_000)
    values = np.random.default_rng(0).normal(size=(D, rows * steps)).astype(np.float32)

    def write(name: str, times: int) -> int:
        """Events of so many times 1,000 sequences, 3.2 MB of values each time; 160 MB of all columns for 40 times."""
        schema = pa.schema([("id", pa.int64()), *((f"x{nth}", pa.float32()) for nth in range(D))])
        with pq.ParquetWriter(tmp_path / name, schema) as writer:
            for begin in range(0, times * rows, rows):
                numbers = np.arange(begin, begin + rows)
                own = np.repeat(numbers if are_sorted else ids[numbers], steps)
                writer.write_table(pa.table([own, *values], schema=schema))
        return times * rows

    written = {"few": write("few.parquet", 4), "many": write("many.parquet", 40)}
    assert more_bytes(tmp_path, written, D, ["id"])[0] < 100e6


def most_bytes_of(steps: int, in_features: int) -> float:
    """A row as pages, levels and values, as Arrow joins them, as a chunk, and while it is copied; 100 MB as above."""
    return 100e6 + 6 * (steps * in_features * 4)


@pytest.mark.soak
def test_a_row_of_a_million_steps_takes_itself_and_its_copies(tmp_path: Path) -> None:
    lengths, steps = [200] * 300, 1_000_000
    few = write_lengths(tmp_path / "few.parquet", lengths, 5, in_features=4)
    many = write_lengths(tmp_path / "many.parquet", [steps, *lengths], 1, in_features=4)
    assert more_bytes(tmp_path, {"few": few, "many": many}, 4)[0] < most_bytes_of(steps, 4)


@pytest.mark.soak
def test_a_giant_row_takes_what_pyarrow_needs_for_it_beyond_a_small_budget(tmp_path: Path) -> None:
    few = write_lengths(tmp_path / "few.parquet", [97] * 64, 1, 16)
    many = write_lengths(tmp_path / "many.parquet", [97] * 10_000 + [1_000_000] + [97] * 10_000, 1, 16)

    def peak_bytes(name: str, rows: int) -> int:
        command = [sys.executable, "-m", "scanrnn_dist", "featurize", tmp_path / name, tmp_path / f"{name}.out"]
        told = [*map(str, command), "--hidden", "8", "--memory", "64MiB", "--json"]
        done = subprocess.run(told, capture_output=True, text=True, check=True)
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["rows"] == rows and ("A row of part 0 has values of" in done.stderr) == (rows == many)
        return int(report["peak_memory_bytes"])

    # 202 MiB of pyarrow's pool, and half as much for a moment that mimalloc has not given back; 64 MiB of the windows.
    beyond = peak_bytes("many.parquet", many) - peak_bytes("few.parquet", few)
    assert beyond < (64 + 202 + 100 + 64) << 20


@pytest.mark.parametrize("kernel", ["xla", pytest.param("native", marks=needs_native)])
def test_rows_behind_a_long_one_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    D, long, short = 4, 5_000, [50] * 50
    path = tmp_path / "a.parquet"
    first, rest = table_of([long], D), table_of(short, D)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in (first, *[rest] * 20):
            writer.write_table(table)
    held: list[int] = []
    of_kernel: Any = Run if kernel == "xla" else NativeRun
    advance = of_kernel.advance

    def watched(self: Any, more: bool) -> object:
        kept = [batch.values.nbytes for batch in self._submissions.batches if batch.values is not None]
        held.append(self._values.nbytes if kernel == "xla" else sum(kept))
        return advance(self, more)

    monkeypatch.setattr(of_kernel, "advance", watched)
    monkeypatch.setattr(MemoryShares, "chunk", 25_000)
    hold(monkeypatch, open=1_000_000, look_ahead=0)
    shape = WindowShape(lanes=4, block_steps=4, window_blocks=8)
    job.featurize(
        Encoder.from_seed(0, D, H), path, tmp_path / "out", window_shape=shape, rows_per_part=50, kernel=kernel
    )
    # The long row and three chunks, since the engine takes one while it has less than two windows. XLA's arena grows by
    # half as much again; a native device whose thread waits for a core keeps older chunks. All rows have 0.9 MB.
    row = long * D * 4
    assert max(held) <= {"xla": 1.5 * (row + 3 * 25_000), "native": row + 12 * 25_000}[kernel]
