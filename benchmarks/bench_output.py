"""What the output side costs a row, by layout, dtype and codec: processor and wall time, size, and reading back.

    python -m benchmarks.bench_output
    python -m benchmarks.bench_output --rows 300000 --features 32

Covered: `PartFile` from numpy to a synced file with its hash, rows of so many features and two columns of integers, in
batches as a job writes them, and reading them back by pyarrow. "by pyarrow" is the same part with its vectors written
by pyarrow's writer rather than by ours. Not covered: the engine, which computes meanwhile, and the records of a job.
The features are those of a GRU with random weights, since random numbers would pack in another way. All outputs take
turns in each round. MB are those of the numbers that are written, whatever they take in the file.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import finish
from benchmarks.turns import in_turns, seconds_of
from scanrnn_dist.api import encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.records import Output, PartFile, part_schema
from scanrnn_dist.storage import open_store

STEPS, IN_FEATURES, BATCH_ROWS = 16, 8, 8192
LAYOUTS = ("fixed_size_list", "list", "columns", "tensor")
CODECS = ("zstd", "snappy", "gzip", "lz4")
KEPT = pa.schema([("id", pa.int64()), ("label", pa.int64())])
BY_PYARROW = "fixed_size_list by pyarrow"


def features_of(rows: int, features: int) -> np.ndarray:
    """What a job might write."""
    x = np.random.default_rng(0).normal(size=(rows, STEPS, IN_FEATURES)).astype(np.float32)
    return np.asarray(encode(Encoder.from_seed(0, IN_FEATURES, features), x))


def write(folder: Path, name: str, output: Output, features: np.ndarray) -> None:
    """One part with all rows."""
    schema = part_schema(KEPT, features.shape[1], {}, output=output)
    with _writing(name), PartFile(open_store(folder), f"{name}.parquet", schema, output) as part:
        for begin in range(0, len(features), BATCH_ROWS):
            some = features[begin : begin + BATCH_ROWS]
            ids = np.arange(begin, begin + len(some))
            part.write(pa.record_batch([pa.array(ids), pa.array(ids % 10)], schema=KEPT), some)
        part.commit()


def _writing(name: str) -> AbstractContextManager[object]:
    by_pyarrow = mock.patch.object(Output, "holds_plain_vectors", lambda self, steps: False)
    return by_pyarrow if name == BY_PYARROW else nullcontext()


def taking_turns(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Processor and wall seconds of each case: the medians of the rounds."""
    found = in_turns({name: partial(seconds_of, run) for name, run in cases.items()}, rounds)
    return {
        name: (statistics.median(processor for _, processor in each), statistics.median(wall for wall, _ in each))
        for name, each in found.items()
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--without", default="", help="codecs to leave out, such as gzip, which takes 4 s a round")
    told = parser.parse_args()
    outputs = {BY_PYARROW: Output(), **{layout: Output(layout) for layout in LAYOUTS}}
    outputs |= {f"{layout} float16": Output(layout, "float16") for layout in LAYOUTS}
    codecs = [codec for codec in CODECS if codec not in told.without.split(",")]
    outputs |= {f"fixed_size_list {codec}": Output(compression=codec) for codec in codecs}
    features, results = features_of(told.rows, told.features), {}
    kept_bytes = 8 * len(KEPT) * told.rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases: dict[str, Callable[[], object]] = {}
        for name, output in outputs.items():
            cases[f"write {name}"] = lambda n=name, o=output: write(folder, n, o, features)  # type: ignore[misc]
            cases[f"read {name}"] = lambda n=name: pq.read_table(folder / f"{n}.parquet").num_rows  # type: ignore[misc]
        seconds = taking_turns(cases, told.rounds)
        print(f"{'':28}{'processor:':>21}{'wall:':>10}{'read':>10}{'file':>9}   medians of {told.rounds} rounds")
        print(f"{'output':28}{'ns a row':>10}{'MB/s':>11}{'MB/s':>10}{'ms':>10}{'MB':>9}")
        for name, output in outputs.items():
            size = (folder / f"{name}.parquet").stat().st_size / 1e6
            numbers = features.size * np.dtype(output.dtype or np.float32).itemsize
            written = (numbers + kept_bytes) / 1e6
            processor, wall = seconds[f"write {name}"]
            read = seconds[f"read {name}"][1]
            nanoseconds, rates = 1e9 * processor / told.rows, (written / processor, written / wall)
            print(f"{name:28}{nanoseconds:10.0f}{rates[0]:11.0f}{rates[1]:10.0f}{1e3 * read:10.1f}{size:9.1f}")
            results[name] = {
                "processor_seconds": processor, "wall_seconds": wall, "read_seconds": read, "megabytes": size,
                "nanoseconds_per_row": nanoseconds, "processor_mb_per_second": rates[0],
                "wall_mb_per_second": rates[1],
            }  # fmt: skip
    finish("output", results)


if __name__ == "__main__":
    main()
