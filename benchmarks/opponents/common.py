"""What the opponents share: sorting by length, two workers, writing in input order; `reading.py` has the reading.

An opponent is a `Model`: a thread-safe function from some rows to their features. Here stands everything around it,
in the way that was fastest for them: row groups are decoded by threads of their own some way ahead; the rows of a large
look-ahead (a *span*) are sorted by length, longest first, and cut into batches; two single-threaded workers take batch
after batch, without a barrier between spans; a thread writes finished spans in input order.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.opponents.reading import KEY, SEQUENCE, Rows, is_long, read_spans

WORKERS = 2
SPANS_IN_FLIGHT = 3
"""Spans read and not written: one is computed, one is ready, one is written."""


class Weights(NamedTuple):
    """A GRU's weights, gates side by side in the order r, z, n, multiplied from the right; no recurrent bias."""

    W_i: np.ndarray
    b_i: np.ndarray
    W_h: np.ndarray

    @property
    def hidden(self) -> int:
        """Hidden features."""
        return len(self.W_h)

    @staticmethod
    def load(path: Path) -> Weights:
        """From the `.npz` that `benchmarks.contenders` writes."""
        with np.load(path) as file:
            return Weights(file["W_i"], file["b_i"], file["W_h"])


@dataclass(frozen=True)
class Settings:
    """What is tuned of an opponent.

    Args:
        batch: rows of a batch.
        look_ahead_mb: decoded MB that are sorted together.
        growth: each length bucket is at most so much longer than the one before; 1 has a bucket for every length.
        fill: a batch is halved until so much of it is real steps (down to `least`); 0 never halves.
        least: rows of the smallest batch.
        blocks: of Ray, which has no look-ahead of its own.
        once_growth: that of a process that runs once, and so pays for its compilations.
    """

    batch: int
    look_ahead_mb: int = 64
    growth: float = 1.0
    fill: float = 0.0
    least: int = 4
    blocks: int = 2
    once_growth: float = 1.0

    def for_one_run(self) -> Settings:
        """Where compilations count, there are coarser buckets and one batch size."""
        return replace(self, growth=max(self.growth, self.once_growth), fill=0.0)


Model = Callable[[Rows, np.ndarray], np.ndarray]
"""Rows and the indices `(n,)` of some, longest first -> their features `(n, H)`. Called by several threads at once."""


@dataclass
class Span:
    """The rows of one look-ahead, what is kept of them, their features and the batches still to come."""

    rows: Rows
    kept: pa.Table | None
    features: np.ndarray
    pending: list[Future[None]]


def cut_batches(rows: Rows, settings: Settings) -> Iterator[np.ndarray]:
    """The indices of the rows, longest first, cut into batches."""
    lengths = rows.lengths
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    total = np.concatenate([[0], np.cumsum(ordered)])
    begin = 0
    while begin < len(order):
        size = settings.batch
        while size > settings.least:
            end = min(begin + size, len(order))
            if total[end] - total[begin] >= settings.fill * ordered[begin] * (end - begin):
                break
            size //= 2
        yield order[begin : begin + size]
        begin += size


def start_span(
    rows: Rows, kept: pa.Table | None, model: Model, hidden: int, settings: Settings, pool: ThreadPoolExecutor
) -> Span:
    """Hand the batches of a span to the workers."""
    features = np.empty((len(rows.offsets) - 1, hidden), np.float32)

    def work(batch: np.ndarray) -> None:
        features[batch] = model(rows, batch)

    return Span(rows, kept, features, [pool.submit(work, batch) for batch in cut_batches(rows, settings)])


def finished(span: Span) -> np.ndarray:
    """Wait for a span; its features."""
    for future in span.pending:
        future.result()
    return span.features


def compute(rows: Rows, model: Model, hidden: int, settings: Settings) -> np.ndarray:
    """The features of rows that are in memory, all of them sorted together."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return finished(start_span(rows, None, model, hidden, settings, pool))


def write_span(writer: pq.ParquetWriter, span: Span) -> None:
    """Wait for a span and append it to the file."""
    values = pa.array(finished(span).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(values, span.features.shape[1])
    assert span.kept is not None
    writer.write_table(span.kept.append_column(writer.schema.field("features"), column))


def output_writer(source: Path, destination: Path, hidden: int) -> pq.ParquetWriter:
    """A writer of `id`, `label` (of lists) and `features`, with what costs time and saves no space left out."""
    read = pq.read_schema(source).remove_metadata()
    kept = pa.schema([field for field in read if (field.name == KEY if is_long(read) else field.name != SEQUENCE)])
    schema = kept.append(pa.field("features", pa.list_(pa.float32(), hidden)))
    return pq.ParquetWriter(destination, schema, compression="none", use_dictionary=False, write_statistics=False)


def featurize(source: Path, destination: Path, model: Model, hidden: int, settings: Settings) -> None:
    """Parquet in, Parquet out."""
    with (
        output_writer(source, destination, hidden) as writer,
        ThreadPoolExecutor(WORKERS) as workers,
        ThreadPoolExecutor(1) as writing,
    ):
        writes: deque[Future[None]] = deque()
        for rows, kept in read_spans(source, settings.look_ahead_mb):
            writes.append(writing.submit(write_span, writer, start_span(rows, kept, model, hidden, settings, workers)))
            if len(writes) >= SPANS_IN_FLIGHT:
                writes.popleft().result()
        for write in writes:
            write.result()


def padded_index(rows: Rows, batch: np.ndarray, steps: int, width: int) -> np.ndarray:
    """Where in `values` each position of a time-major batch `(steps, width)` stands; beyond an end, any step."""
    starts = np.zeros(width, np.int64)
    starts[: len(batch)] = rows.offsets[batch]
    last = np.zeros(width, np.int64)
    last[: len(batch)] = rows.offsets[batch + 1] - 1
    return np.minimum(starts + np.arange(steps)[:, None], last)


def bucket(steps: int, growth: float) -> int:
    """The smallest bucket length that is not below `steps`."""
    level = 1
    while level < steps:
        level = max(level + 1, int(level * growth))
    return level


Job = Callable[[Path, Path], None]
"""Source, destination -> None."""


def start(build: Callable[[Weights, Settings], Model], weights_file: Path, settings: Settings) -> Job:
    """The job of an opponent that is a `Model`."""
    weights = Weights.load(weights_file)
    model = build(weights, settings)
    return lambda source, destination: featurize(source, destination, model, weights.hidden, settings)


def main(start: Callable[[Path, Settings], Job], tuned: Mapping[str, Settings]) -> None:
    """An opponent's command line: `python -m benchmarks.opponents.NAME SRC DST --weights W.npz --workload W2`."""
    arguments = parse()
    settings = tuned[arguments.workload]
    if arguments.once:
        settings = settings.for_one_run()
    start(arguments.weights, settings)(arguments.source, arguments.destination)


def parse() -> argparse.Namespace:
    """What an opponent is given on its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="from benchmarks.contenders.weights_file")
    parser.add_argument("--workload", default="W2", help="whose tuned settings")
    parser.add_argument("--once", action="store_true", help="tuned for one run, compilations included")
    return parser.parse_args()
