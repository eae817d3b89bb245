"""Chunks decoded ahead of the one who takes them, by one thread, within a bound of bytes.

What a chunk is and how it is decoded says `decode.py`; which units are read, and what happens to their rows, is the
caller's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from scanrnn_dist.errors import ConfigError, DataError, UnreadableError
from scanrnn_dist.protocols import Stage
from scanrnn_dist.source.decode import Chunk, Decoder, ReadOptions
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.units import Unit

WAITING_UNITS = 64
"""So many units at most wait to be computed, as many to be written. Bytes bound those of usual size; of tiny ones
thousands would be begun, and all that a process has in hand when it is killed is done one by one by the next one."""


@dataclass(frozen=True)
class FailedUnit:
    """A unit that cannot be read on, in place of the rest of its chunks."""

    unit: Unit
    reason: str
    """Not the error itself, whose traceback holds the rows that were being converted. A flag behind it in parentheses
    is one by which the rows need not fail their unit."""
    aside: pa.RecordBatch | None = None
    """The line with which it is set aside as a whole, where that is asked for, rather than failed."""
    nbytes: int = 4096
    """About what it takes, so that a bound on bytes holds for these too where every unit fails."""


def read_chunks(
    source: Source,
    units: Iterable[Unit],
    options: ReadOptions,
    *,
    prefetch_bytes: int = 64 << 20,
    stage: Stage = nullcontext,
    keep_going: bool = False,
    on_chunk: Callable[[], None] | None = None,
) -> Prefetched:
    """The rows of `units`, in their order, decoded ahead by a thread.

    Args:
        source: where the units are from.
        units: which rows to read.
        options: what of them, and in which pieces.
        prefetch_bytes: what is decoded and not yet taken stays below this plus one chunk; of tiny units, below
            `WAITING_UNITS` of them.
        stage: names the stages "read", that is decoding, and "convert", in the thread.
        keep_going: whether a unit with wrong data, or one to be set aside as a whole, is told by a `FailedUnit` in its
            place and the next one is read, rather than the `DataError` raised.
        on_chunk: called, in the thread, after each chunk that was decoded.

    Returns:
        An iterator of chunks, and of failed units with `keep_going`; closing it stops the thread and waits for it.

    Raises:
        ConfigError: as of `Decoder`, or a size below 1.
        DataError: a file that cannot be read, holds other rows than its footer promised, or sequences that
            `to_ragged` refuses. It comes after the chunks that precede it.
        StoppedError: the server of a bucket failed for as long as it was asked; likewise.
    """
    if prefetch_bytes < 1:
        raise ConfigError(f"prefetch_bytes is {prefetch_bytes}; expected at least 1.")
    return Prefetched(_decoded(Decoder(source, options, stage), units, keep_going, on_chunk), prefetch_bytes)


def read_first(
    source: Source, units: Iterable[Unit], options: ReadOptions, go_on: bool = False
) -> Iterator[Chunk | FailedUnit]:
    """The chunks of `Decoder.first_chunks` of each unit, or why it cannot be read, in this thread."""
    decoder = Decoder(source, options)
    return _decoded(decoder, units, True, None, partial(decoder.first_chunks, go_on=go_on))


def may_match(source: Source, units: Iterable[Unit], options: ReadOptions) -> list[bool]:
    """Whether each unit may have rows that match, by the folders of its file; nothing is read."""
    decoder = Decoder(source, options)
    return [decoder.may_match(unit) for unit in units]


def _decoded(
    decoder: Decoder,
    units: Iterable[Unit],
    keep_going: bool,
    on_chunk: Callable[[], None] | None,
    chunks_of: Callable[[Unit], Iterator[Chunk]] | None = None,
) -> Generator[Chunk | FailedUnit, None, None]:
    """All chunks of each unit, or `chunks_of` it.

    A file stays open from one unit of it to the next, unless it could not be read.
    """
    with closing(decoder):
        for unit in units:
            failed = None
            try:
                for chunk in (chunks_of or decoder.unit_chunks)(unit):
                    if on_chunk is not None:
                        on_chunk()
                    yield chunk
                    del chunk  # or it would stay alive while the next one is decoded
            except DataError as error:
                if not keep_going:
                    raise
                if isinstance(error, UnreadableError):
                    decoder.close()  # the file may not be read on
                aside = decoder.unread(unit, error)
                failed = FailedUnit(unit, f"{error}{decoder.flag(unit, error)}", aside)
            if failed is not None:
                yield failed


class Prefetched:
    """What a generator yields or raises; a thread runs ahead while less than `limit_bytes` and `WAITING_UNITS` wait."""

    def __init__(self, chunks: Iterator[Chunk | FailedUnit], limit_bytes: int) -> None:
        self._queue = _Queue(limit_bytes)
        # A daemon: chunks that nobody closed must not keep the interpreter from ending. The thread knows the queue
        # only, so that whoever drops this object ends it.
        self._thread = threading.Thread(target=self._queue.fill, args=(chunks,), name="scanrnn-reader", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether `next` would return, or raise, at once."""
        return bool(self._queue.items) or self._queue.is_stopped

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next `Chunk`, or `FailedUnit` where these are asked for."""
        item = self._queue.take()
        if isinstance(item, Chunk | FailedUnit):
            return item
        self.close()
        raise StopIteration if item is None else item

    def close(self) -> None:
        """Stop the thread and wait for it; what waits is dropped."""
        self._queue.stop()
        self._thread.join()

    def __del__(self) -> None:
        self._queue.stop()


class _Queue:
    """Chunks that wait to be taken; then the error that ended them, or None."""

    def __init__(self, limit_bytes: int) -> None:
        self.items: deque[Chunk | FailedUnit | BaseException | None] = deque()
        self.is_stopped = False
        self._waiting_bytes = self._waiting_units = 0
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()

    def fill(self, chunks: Iterator[Chunk | FailedUnit]) -> None:
        """Put all chunks; the thread's work."""
        try:
            for chunk in chunks:
                self._put(chunk)
                del chunk  # or it would stay alive while the next one is decoded
                if self.is_stopped:
                    return
            self._put(None)
        except BaseException as error:  # the consumer raises it, in its place
            self._put(error)
        finally:
            chunks.close()  # type: ignore[attr-defined]

    def take(self) -> Chunk | FailedUnit | BaseException | None:
        """The next item; waits for it, and gives None once stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self.items or self.is_stopped)
            if self.is_stopped:
                return None
            item = self.items.popleft()
            self._waiting_bytes -= _nbytes(item)
            self._waiting_units -= ends_unit(item)
            self._changed.notify_all()
        return item

    def stop(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self.is_stopped = True
            self.items.clear()
            self._changed.notify_all()

    def _put(self, item: Chunk | FailedUnit | BaseException | None) -> None:
        with self._changed:
            self.items.append(item)
            self._waiting_bytes += _nbytes(item)
            self._waiting_units += ends_unit(item)
            self._changed.notify_all()
            # Waits before the next chunk is decoded, not after: so at most one chunk goes beyond the limit.
            self._changed.wait_for(lambda: self.is_stopped or self._has_room)

    @property
    def _has_room(self) -> bool:
        return self._waiting_bytes < self._limit_bytes and self._waiting_units < WAITING_UNITS


def ends_unit(item: object) -> bool:
    """Whether it is the last that comes of a unit."""
    return isinstance(item, FailedUnit) or (isinstance(item, Chunk) and item.is_last)


def _nbytes(item: Chunk | FailedUnit | BaseException | None) -> int:
    return item.nbytes if isinstance(item, Chunk | FailedUnit) else 0
