"""How fast the devices are fed, layout by layout, against pyarrow decoding the same columns and nothing else.

    python -m benchmarks.bench_feed                                  # 4 minutes on 2 busy cores
    python -m benchmarks.bench_feed --rows 2000 --rounds 1           # whether it works

Four things are measured of each layout, and take turns:

- raw: `pq.ParquetFile.iter_batches` to the end, without threads, in batches of as many rows as a job decodes at once;
- raw, threads: the same with `use_threads`, by which pyarrow decodes several columns at once, on all cores;
- read: the job's reader to the end: decoding, every check of files and values, sequences of float32;
- feed: that, and all that a run does on the host: for the native kernel, which reads values where they stand, the
  queues of rows; with `--kernel xla` the copy into the look-ahead, which rows go to which lane, and their values placed
  in the buffers that the devices take. The program is not run: windows come back at once.

MB are of the float32 values that travel to the devices. Processor time is that of all threads of the process; a reader
thread runs beside, so the wall time of read and feed is less where two cores are free. Covered: a local file in the
page cache, warm. Not covered: buckets, writing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.feed_sources import LAYOUTS, D, FeedSource, write_source
from benchmarks.harness import finish
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import build_engine
from scanrnn_dist.job import Memory, MemoryShares, Plan, plan_job
from scanrnn_dist.protocols import EngineLike
from scanrnn_dist.source import Prefetched, read_chunks

H = 64
CHUNK_BYTES = MemoryShares.of().chunk
OURS = pa.default_memory_pool()
"""What commands have pyarrow allocate from."""
PYARROWS = pa.mimalloc_memory_pool() if "mimalloc" in pa.supported_memory_backends() else OURS
"""What it decodes into where nobody says otherwise."""
Case = Callable[[], int]
"""Does it once, and gives the steps that came."""


class _Nowhere:
    """What a window that nobody computes gives: never ready, as of busy devices, so that windows go out whole."""

    def is_ready(self) -> bool:
        return False


def _not_dispatched(run: Any, engine: Any, buffers: Any, emitted: Any, n_blocks: Any, ends: Any) -> Any:
    return SimpleNamespace(fetched=[_Nowhere()], emitted=emitted)


def _not_fetched(run: Any, sent: Any) -> np.ndarray:
    """A window whose buffers may be used again; of its rows no features."""
    run._spare[sent.engine.shape].append((sent.buffers, sent.output.result().emitted))
    run._submissions.count_finished(sent.window.rows)
    return np.asarray(sent.window.rows)


def _not_taken(run: Any) -> np.ndarray:
    """Of the rows of a queue that no device took, no features; their values are let go, as once they are finished."""
    sent = run._sent.popleft()
    numbers = sent.rows["number"].astype(np.int64)
    run._unfinished -= len(numbers)
    run._submissions.count_finished(numbers)
    return np.asarray(numbers)


NOT_RUN: dict[str, dict[str, Any]] = {
    "xla": {
        "run.Run._dispatch": _not_dispatched,
        "run.Run._fetch": _not_fetched,
    },
    "native": {
        "native_run.NativeRun._dispatch": lambda run, queue: (_Nowhere(), _Nowhere()),
        "native_run.NativeRun._fetch": _not_taken,
    },
}
"""By kernel, what stands in for the two steps of a run at which the devices work."""


def raw(source: FeedSource, rows: int, *, use_threads: bool = False) -> int:
    """Decode by pyarrow, in batches of `rows` rows, with its own allocator."""
    pa.set_memory_pool(PYARROWS)
    columns, came = list(source.columns), 0
    with pq.ParquetFile(source.path) as parquet:
        for batch in parquet.iter_batches(rows, columns=columns, use_threads=use_threads):
            assert batch.schema.names == columns
            came += batch.num_rows
            del batch
        assert came == parquet.metadata.num_rows
    return source.steps


def chunks_of(plan: Plan, source: FeedSource) -> Prefetched:
    """What a job of the command line reads, with the allocator that it chooses."""
    pa.set_memory_pool(OURS)
    options = source.options.settled(plan.layout, plan.keep, source.options.rows_per_part)
    reading = options.reading(D, source.input, chunk_bytes=CHUNK_BYTES)
    return read_chunks(plan.source, plan.units, reading, prefetch_bytes=MemoryShares.of().read_ahead)


def read(plan: Plan, source: FeedSource) -> int:
    """Decode, check and convert, as a job does."""
    steps = 0
    with closing(chunks_of(plan, source)) as chunks:
        for chunk in chunks:
            steps += int(chunk.sequences.lengths.sum())
            del chunk
    return steps


def feed(plan: Plan, source: FeedSource, engine: EngineLike) -> int:
    """Read, schedule and place, as a job does; its windows are not computed."""
    with ExitStack() as stack:
        for step, stand_in in NOT_RUN[engine.kernel].items():
            stack.enter_context(mock.patch(f"scanrnn_dist.engine.{step}", stand_in))
        chunks = stack.enter_context(closing(chunks_of(plan, source)))
        run = stack.enter_context(closing(engine.run()))
        rows = 0
        for chunk in chunks:
            run.submit(chunk.sequences)
            del chunk
            while not run.wants_rows and run.has_window:
                rows += sum(map(len, run.advance(more=True)))
        rows += sum(map(len, run.results()))
        assert rows == run.statistics.rows
    return run.statistics.steps


def decoded_rows(plan: Plan, source: FeedSource) -> int:
    """Rows of the file that a job decodes at once."""
    if source.options.group_by:
        with pq.ParquetFile(source.path) as parquet:
            first = next(parquet.iter_batches(1000, columns=list(source.columns)))
        return CHUNK_BYTES * first.num_rows // first.nbytes
    with closing(chunks_of(plan, source)) as chunks:
        return int(next(chunks).rows)


def cases_of(source: FeedSource, engine: EngineLike) -> dict[str, Case]:
    """What is measured of a layout."""
    plan = plan_job(str(source.path), source.options, source.input).within(Memory())
    rows = decoded_rows(plan, source)
    return {
        "raw": lambda: raw(source, rows),
        "raw, threads": lambda: raw(source, rows, use_threads=True),
        "read": lambda: read(plan, source),
        "feed": lambda: feed(plan, source, engine),
    }


def measured(case: Case, steps: int) -> tuple[float, float]:
    """Wall and processor seconds of doing it once."""
    begin, begin_used = time.perf_counter(), time.process_time()
    came = case()
    seconds = time.perf_counter() - begin, time.process_time() - begin_used
    if came != steps:
        raise SystemExit(f"{came} steps came; expected {steps}.")
    return seconds


def told(source: FeedSource, found: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """MB/s of a layout and the share of raw, by the medians of the rounds and by the best ones; and the rounds."""
    results: dict[str, Any] = {"megabytes": round(source.nbytes / 1e6, 1), "file_bytes": source.path.stat().st_size}
    for kind, nth in (("wall", 0), ("processor", 1)):
        seconds = {name: [round(both[nth], 4) for both in rounds] for name, rounds in found.items()}
        results[kind] = {"seconds": seconds}
        for which, of in (("median", statistics.median), ("best", min)):
            one = {name: of(rounds) for name, rounds in seconds.items()}
            results[kind][which] = {
                "megabytes_per_second": {name: round(source.nbytes / 1e6 / each) for name, each in one.items()},
                "share_of_raw": {name: round(one["raw"] / one[name], 2) for name in ("read", "feed")},
                "share_of_raw_threads": {name: round(one["raw, threads"] / one[name], 2) for name in ("read", "feed")},
            }
    return results


def as_markdown(results: dict[str, Any]) -> str:
    """The rows of the table in `RESULTS.md`: MB/s by the median (the best) round, and the shares of raw.

    Of processor time raw, read and feed, and read / raw, feed / raw. Of wall time raw with threads, read and feed, and
    what read and feed are of raw with threads: the reader is a thread beside the one that submits.
    """
    lines = []
    for layout, result in results.items():
        cells = [layout]
        for kind, base, share in (
            ("processor", "raw", "share_of_raw"),
            ("wall", "raw, threads", "share_of_raw_threads"),
        ):
            median, best = result[kind]["median"], result[kind]["best"]
            for name in (base, "read", "feed"):
                speed, fastest = (each["megabytes_per_second"][name] for each in (median, best))
                cells.append(f"{speed:,} ({fastest:,})")
            cells += [f"{median[share][name]:.2f} ({best[share][name]:.2f})" for name in ("read", "feed")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the sources, let all take turns, print a table, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layouts", help=f"separated by semicolons, of: {'; '.join(LAYOUTS)}")
    parser.add_argument("--kernel", choices=sorted(NOT_RUN), help="as a job chooses it, when not given")
    parser.add_argument("--json", type=Path, help="where to write the results too")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    engine = build_engine(Encoder.from_seed(0, D, H), kernel=arguments.kernel)
    names = arguments.layouts.split(";") if arguments.layouts else LAYOUTS
    with tempfile.TemporaryDirectory(prefix="scanrnn-feed-") as folder:
        sources = {name: write_source(name, Path(folder), arguments.rows) for name in names}
        cases = {name: cases_of(source, engine) for name, source in sources.items()}
        found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in names}
        for name, of_layout in cases.items():  # one after the other: allocators give back what rests for a second
            for turn in range(1 + arguments.rounds):  # the first to warm up
                for what, case in of_layout.items():
                    seconds = measured(case, sources[name].steps)
                    if turn:
                        found[name].setdefault(what, []).append(seconds)
        results = {name: told(source, found[name]) for name, source in sources.items()}
    print(as_markdown(results))
    print("load of the machine at the end:", *(f"{load:.1f}" for load in os.getloadavg()))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    finish("feed", results)


if __name__ == "__main__":
    main()
