"""What each layout, dtype and codec of the output costs: seconds to write a part, and its size.

    python -m benchmarks.bench_output

Covered: `PartFile` from numpy to a synced file, 100,000 rows of 64 features and an integer column, in batches as a job
writes them, and reading them back by pyarrow. Not covered: the engine, which computes meanwhile. The features are those
of a GRU with random weights, since random numbers would pack in another way. The best round counts: what else the
machine does only adds to the time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import alternate, finish
from scanrnn_dist.api import encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.records import Output, PartFile, part_schema
from scanrnn_dist.storage import open_store

STEPS, IN_FEATURES, BATCH_ROWS = 16, 8, 8192
LAYOUTS = ("fixed_size_list", "list", "columns", "tensor")
CODECS = ("zstd", "snappy", "gzip", "lz4")
KEPT = pa.schema([("id", pa.int64())])


def features_of(rows: int, features: int) -> np.ndarray:
    """What a job might write."""
    x = np.random.default_rng(0).normal(size=(rows, STEPS, IN_FEATURES)).astype(np.float32)
    return np.asarray(encode(Encoder.from_seed(0, IN_FEATURES, features), x))


def write(folder: Path, name: str, output: Output, features: np.ndarray) -> None:
    """One part with all rows."""
    schema = part_schema(KEPT, features.shape[1], {}, output=output)
    with PartFile(open_store(folder), f"{name}.parquet", 0, schema, output) as part:
        for begin in range(0, len(features), BATCH_ROWS):
            some = features[begin : begin + BATCH_ROWS]
            ids = pa.array(np.arange(begin, begin + len(some)))
            part.write(pa.record_batch([ids], schema=KEPT), some)
        part.commit()


def cases_of(outputs: dict[str, Output], folder: Path, features: np.ndarray) -> dict[str, Any]:
    """Writing and reading, by names."""
    writing = {
        f"write {name}": lambda n=name, o=output: write(folder, n, o, features) for name, output in outputs.items()
    }
    reading = {f"read {name}": lambda n=name: pq.read_table(folder / f"{n}.parquet") and None for name in outputs}
    return writing | reading


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    told = parser.parse_args()
    outputs = {layout: Output(layout) for layout in LAYOUTS}
    outputs |= {f"{layout} float16": Output(layout, "float16") for layout in LAYOUTS}
    outputs |= {f"fixed_size_list {codec}": Output(compression=codec) for codec in CODECS}
    features, results = features_of(told.rows, told.features), {}
    with tempfile.TemporaryDirectory() as folder:
        seconds = alternate(cases_of(outputs, Path(folder), features), told.rounds)
        print(f"{'output':28}{'write s':>9}{'read s':>9}{'MB':>8}   best of {told.rounds} rounds")
        for name in outputs:
            size = (Path(folder) / f"{name}.parquet").stat().st_size / 1e6
            both = [min(seconds[f"{what} {name}"]) for what in ("write", "read")]
            print(f"{name:28}{both[0]:9.3f}{both[1]:9.3f}{size:8.1f}")
            results[name] = {"write_seconds": both[0], "read_seconds": both[1], "megabytes": size}
    finish("output", results)


if __name__ == "__main__":
    main()
