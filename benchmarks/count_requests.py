"""How many requests a job makes of a bucket, and how long it takes with a server on this machine that speaks S3 (moto).

    python -m benchmarks.count_requests                     # jobs of 8, 64 and 512 units, by obstore
    python -m benchmarks.count_requests --by pyarrow        # the same where obstore is not installed
    python -m benchmarks.count_requests --units 16 32       # whether it works

Of each job: its requests by their kind, how many names the listings brought, and the seconds of `featurize`; the same
of the command once more, of a status, of shares done one after the other, and of a restart. What a unit costs is the
slope between the last two sizes. The source is in a folder, so that only the destination is asked. A server of this
machine answers in a few milliseconds of one core: the seconds tell two clients apart, not what a bucket far away takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import finish

ROWS_PER_UNIT = 2
BUCKET = "bucket"
SHARES = 4, 16


def kind_of(method: str, path: str, query: str) -> str:
    """What a request is, as a bill names it."""
    asked = parse_qs(query, keep_blank_values=True)
    if method == "GET" and ("list-type" in asked or "prefix" in asked or path.count("/") <= 1):
        return "LIST"
    return "DELETE" if method == "POST" and "delete" in asked else method


def serve(pipe: Connection, wait_seconds: float = 0.0) -> None:
    """The process of the server: the port at first, then what was counted since it was last asked.

    Each answer takes at least `wait_seconds`, as from far away.
    """
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    counts: Counter[str] = Counter()
    app: Callable[..., Any] = create_backend_app("s3")

    def counted(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        kind = kind_of(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        counts[kind] += 1
        time.sleep(wait_seconds)
        content = b"".join(app(environ, start))
        if kind == "LIST":
            counts["names listed"] += content.count(b"<Key>") + content.count(b"<CommonPrefixes>")
        return [content]

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=Quiet)
    pipe.send(server.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while pipe.recv() is not None:
        pipe.send(dict(counts))
        counts.clear()


@contextmanager
def serving(wait_seconds: float = 0.0) -> Iterator[tuple[int, Callable[[], dict[str, int]]]]:
    """A server, until the block ends: its port, and what counts."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=serve, args=(theirs, wait_seconds), daemon=True)
    process.start()
    try:
        port = ours.recv()

        def counts() -> dict[str, int]:
            ours.send("counts")
            counted: dict[str, int] = ours.recv()
            return counted

        yield port, counts
        ours.send(None)
    finally:
        process.terminate()
        process.join()


def write_source(path: Path, rows: int) -> Path:
    """Rows of three steps, a row group each."""
    generator = np.random.default_rng(0)
    sequences = generator.standard_normal((rows, 3, 2), np.float32).tolist()
    table = pa.table({"id": range(rows), "sequence": pa.array(sequences, pa.list_(pa.list_(pa.float32())))})
    pq.write_table(table, path, row_group_size=1)
    return path


def measured(run: Callable[[], Any], counts: Callable[[], dict[str, int]]) -> dict[str, float]:
    """The requests of a call, and its seconds."""
    counts()
    begin = time.perf_counter()
    run()
    seconds = round(time.perf_counter() - begin, 2)
    counted = counts()
    total = sum(number for kind, number in counted.items() if kind != "names listed")
    return {"requests": total, **dict(sorted(counted.items())), "seconds": seconds}


def jobs_of(units: int, folder: Path, uri: str, counts: Callable[[], dict[str, int]]) -> dict[str, dict[str, float]]:
    """What is measured of a job of so many units."""
    from scanrnn_dist import Encoder, Sharing, featurize
    from scanrnn_dist.job import read_status

    encoder = Encoder.from_seed(seed=0, in_features=2, hidden_features=8)
    source = write_source(folder / f"{units}.parquet", units * ROWS_PER_UNIT)
    begin = partial(featurize, encoder, source, rows_per_part=ROWS_PER_UNIT)
    whole = uri.format(f"{units}")

    def share(count: int) -> None:
        for number in range(count):
            begin(uri.format(f"{units}-shared-{count}"), sharing=Sharing(share=(number + 1, count)))

    return {
        "job": measured(partial(begin, whole), counts),
        "once more": measured(partial(begin, whole), counts),
        "status": measured(partial(read_status, whole), counts),
        **{f"in {count} shares": measured(partial(share, count), counts) for count in SHARES},
        "restart": measured(partial(begin, whole, restart=True), counts),
    }


def main() -> None:
    """Count, and print the figures and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, nargs="+", default=[8, 64, 512], help="Sizes of the jobs.")
    parser.add_argument("--by", choices=["obstore", "pyarrow"], default="obstore", help="What speaks to the bucket.")
    asked = parser.parse_args()
    if asked.by == "pyarrow":
        sys.modules["obstore"] = None  # type: ignore[assignment]
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    figures: dict[str, Any] = {}
    with serving() as (port, counts), tempfile.TemporaryDirectory() as folder:
        import boto3

        where = f"http://127.0.0.1:{port}"
        boto3.client("s3", endpoint_url=where, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        uri = f"s3://{BUCKET}/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        jobs_of(2, Path(folder), uri, counts)  # what is imported and compiled at first
        for units in sorted(asked.units):
            figures[str(units)] = jobs_of(units, Path(folder), uri, counts)
            for name, counted in figures[str(units)].items():
                print(
                    f"{units:5} units, {name:14}", "  ".join(f"{kind} {number:g}" for kind, number in counted.items())
                )
    if len(asked.units) > 1:
        few, many = sorted(asked.units)[-2:]
        slope = {
            name: round((counted["requests"] - figures[str(few)][name]["requests"]) / (many - few), 2)
            for name, counted in figures[str(many)].items()
        }
        print("requests per unit:", slope)
        figures["per unit"] = slope
    finish("count_requests", {"by": asked.by, **figures})


if __name__ == "__main__":
    main()
