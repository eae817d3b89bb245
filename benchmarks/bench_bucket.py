"""How fast a source in a bucket is read, from a server of this machine that lets each request wait (moto).

    python -m benchmarks.bench_bucket                      # 30 ms a request
    python -m benchmarks.bench_bucket --wait 0 --rounds 1  # whether it works

Covered: the reader of a job, from requests to float32 sequences, of one file with 16 list columns in 4 row groups, of
one with nested lists, and of 20 small files. What is decoded is dropped; nothing is computed or written. Not covered: a
network, which has a rate of its own, and a real server, which answers many requests at once without taking our cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.count_requests import BUCKET, serving
from benchmarks.harness import finish
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.source import read_chunks

ROWS, FEATURES, FILES = 20_000, 16, 20
CHUNK_BYTES, AHEAD_BYTES = 4 << 20, 8 << 20  # as a job of the usual budget has them


def sources() -> dict[str, list[bytes]]:
    """The files of each source: list columns in 4 row groups, nested lists, and list columns in small files."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(5, 40, ROWS))]).astype(np.int32)
    values = rng.standard_normal((FEATURES, offsets[-1]), np.float32)
    each = {f"x{number}": pa.ListArray.from_arrays(pa.array(offsets), pa.array(column))
            for number, column in enumerate(values)}  # fmt: skip
    columns = pa.table({"id": range(ROWS), **each})
    steps = pa.FixedSizeListArray.from_arrays(pa.array(values.T.ravel()), FEATURES).cast(pa.list_(pa.float32()))
    nested = pa.table({"id": range(ROWS), "sequence": pa.ListArray.from_arrays(pa.array(offsets), steps)})
    pieces = [columns.slice(begin, ROWS // FILES) for begin in range(0, ROWS, ROWS // FILES)]
    return {
        "columns": [_written(columns, row_group_size=ROWS // 4)],
        "nested": [_written(nested)],
        "files": list(map(_written, pieces)),
    }


def _written(table: pa.Table, **options: Any) -> bytes:
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, **options)
    return stream.getvalue().to_pybytes()


def read(uri: str) -> float:
    """The seconds that reading takes, once the source is planned."""
    options = JobOptions(layout=None if "nested" in uri else "list-columns")
    plan = plan_job(uri, options)
    reading = options.settled(plan.layout, plan.keep, None).reading(FEATURES, None, chunk_bytes=CHUNK_BYTES)
    begin = time.perf_counter()
    with closing(read_chunks(plan.source, plan.units, reading, prefetch_bytes=AHEAD_BYTES)) as chunks:
        rows = sum(chunk.rows for chunk in chunks)
    seconds = time.perf_counter() - begin
    assert rows == ROWS
    return seconds


def main() -> None:
    """Measure, and print the figures and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wait", type=float, default=30, help="Milliseconds that each request waits.")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    figures: dict[str, Any] = {}
    with serving(asked.wait / 1000) as (port, _):
        import boto3

        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        for name, files in sources().items():
            for number, content in enumerate(files):
                client.put_object(Bucket=BUCKET, Key=f"{name}/{number:03}.parquet", Body=content)
            uri = f"s3://{BUCKET}/{name}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
            seconds = [round(read(uri), 2) for _ in range(asked.rounds)]
            megabytes = sum(map(len, files)) / 1e6
            figures[name] = {"MB": round(megabytes, 1), "seconds": statistics.median(seconds), "rounds": seconds}
            print(f"{name:8} {megabytes:5.1f} MB  {statistics.median(seconds):.2f} s")
    finish("bench_bucket", {"wait_ms": asked.wait, **figures})


if __name__ == "__main__":
    main()
