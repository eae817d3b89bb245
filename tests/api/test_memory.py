"""Memory depends on the window and the chunks, not on the number of rows or the length of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.api import data_sets as job
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import run
from scanrnn_dist.engine.run import Run
from scanrnn_dist.job import in_order as stream
from scanrnn_dist.job import work
from scanrnn_dist.protocols import WindowShape

D, H = 4, 8

CHILD = f"""
import sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
from scanrnn_dist import Encoder, WindowShape, featurize
shape = WindowShape(lanes=32, block_steps=4, window_blocks=64)
report = featurize(Encoder.from_seed(0, int(sys.argv[3]), {H}), sys.argv[1], sys.argv[2], window_shape=shape)
print(report.rows, report.peak_memory_bytes)
"""


def write_lengths(path: Path, lengths: list[int], times: int, in_features: int = D) -> int:
    """Rows of these lengths, `times` over, in row groups of one round; the number of rows."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    numbers = np.random.default_rng(0).normal(size=in_features * int(offsets[-1])).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(numbers), in_features)
    table = pa.table({"id": pa.array(range(len(lengths))), "sequence": pa.ListArray.from_arrays(offsets, values)})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(times):
            writer.write_table(table)
    return times * len(lengths)


def peak_bytes(source: Path, rows: int, in_features: int = D) -> int:
    """Peak memory of a process that featurizes a source of so many rows."""
    command = [sys.executable, "-c", CHILD, str(source), str(source.with_suffix(".out")), str(in_features)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counted, peak = map(int, done.stdout.split())
    assert counted == rows
    return peak


def test_ten_times_the_rows_take_less_than_100_MB_more(tmp_path: Path) -> None:
    lengths = [20] * 1000  # 5.1 MB of values a round, 256 MB in all: far more than the allowance
    few = write_lengths(tmp_path / "few.parquet", lengths, 5, in_features=64)
    many = write_lengths(tmp_path / "many.parquet", lengths, 50, in_features=64)
    more = peak_bytes(tmp_path / "many.parquet", many, 64) - peak_bytes(tmp_path / "few.parquet", few, 64)
    assert more < 100e6  # what is read ahead and waits to be written (32 + 16 MB), filled by the larger source alone


@pytest.mark.slow
def test_a_row_of_a_million_steps_takes_itself_and_its_copies(tmp_path: Path) -> None:
    row_bytes = 1_000_000 * D * 4
    lengths = [200] * 2_000
    few = write_lengths(tmp_path / "few.parquet", lengths, 5)
    many = write_lengths(tmp_path / "many.parquet", [1_000_000, *lengths], 1)
    # The row as pages, levels and values, as Arrow joins them, as a chunk, and while it is copied; 100 MB as above.
    allowed = 100e6 + 6 * row_bytes
    assert peak_bytes(tmp_path / "many.parquet", many) - peak_bytes(tmp_path / "few.parquet", few) < allowed


def test_rows_behind_a_long_one_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = 20_000, [50] * 50
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, pa.schema([("sequence", pa.list_(pa.list_(pa.float32(), D)))])) as writer:
        for lengths in ([long], *([short] * 40)):
            rows = [np.zeros((length, D), np.float32).tolist() for length in lengths]
            writer.write_table(pa.table({"sequence": pa.array(rows, writer.schema.field(0).type)}))
    held: list[int] = []
    advance = Run.advance

    def watched(self: Run, more: bool) -> object:
        held.append(self._values.nbytes)
        return advance(self, more)

    monkeypatch.setattr(Run, "advance", watched)
    monkeypatch.setattr(work, "CHUNK_BYTES", 50_000)
    monkeypatch.setattr(stream, "OPEN_BYTES", 100_000)
    monkeypatch.setattr(run, "LOOK_AHEAD_BYTES", 0)
    shape = WindowShape(lanes=4, block_steps=4, window_blocks=8)
    job.featurize(Encoder.from_seed(0, D, H), path, tmp_path / "out", window_shape=shape, rows_per_part=50)
    # The long row; what may be open; two chunks, since the engine takes one while it has less than two windows; and
    # half as much again, by which the arena grows.
    assert max(held) <= 1.5 * (long * D * 4 + 100_000 + 2 * 50_000)
