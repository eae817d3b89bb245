"""What one reader of a file may take of memory, held against what headers promise before anything is allocated.

A row group may be larger than the memory, as it is streamed; what must be held at once is a page, a dictionary, and the
rows of one batch. A few bytes can promise gigabytes of each: a page that compresses well, a run of 2^31 equal values, a
long string of which the dictionary holds one and the rows two billion. What one page or one row alone takes beyond the
budget is a `DataError`. Where the rows of a batch may take more, and fewer would not, `FewerRows` says how many fit,
and `checked_file.py` reads on with these.

What is promised here was compared with what pyarrow 26 takes: a row of 2^27 equal integers, a file of 608 bytes, 1,040
MiB of its pool and 1,684 MiB of the process, where 2,048 are reckoned, since buffers grow by doubling; a dictionary of
one string of 1 GiB, read by two rows, 4.2 GB, where 4 GiB are. Whoever reads the headers is `pages.py`.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import StoppedError, UnreadableError, one_line
from scanrnn_dist.source.parquet.footer import Chunk
from scanrnn_dist.source.parquet.footer_schema import Leaf

_SLACK_BYTES = 32 << 20
"""What reading a column takes besides: buffers of a bucket's reads, and what other threads allocate meanwhile."""
KEPT_BYTES = 32 << 20
"""What pyarrow's allocator may keep of what was freed, where nobody says how much."""
_SUSPICIOUS = 64
"""A chunk whose values take more than so many times its bytes, and more than the budget, has its rows measured: 100
numbers that are told by one byte come from no sensor."""


class FewerRows(Exception):
    """The rows of a batch may take more than the budget; `rows` of them do not."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"at most {rows} rows fit")
        self.rows = rows


def usual_bytes() -> int:
    """What reading may take at once: a share of what this process may use; other readers and the engine have theirs."""
    from scanrnn_dist.observe import share_of_memory  # with rich, for which few sources need wait

    return share_of_memory()


class Budget:
    """The bytes that reading may take at once, and how many rows a batch has at the moment."""

    def __init__(self, nbytes: int | None, kept_bytes: int = KEPT_BYTES) -> None:
        self._told, self.rows, self._before = nbytes, 1, 0
        self._kept_bytes, self._last = kept_bytes, pa.total_allocated_bytes()
        self._column: object = None  # that is being read

    @cached_property
    def nbytes(self) -> int:
        """The bytes."""
        return usual_bytes() if self._told is None else self._told

    def begin(self, rows: int) -> None:
        """A batch of so many rows is about to be read."""
        self.rows, self._column = rows, None

    def check(self, needed: float, where: str, what: str) -> None:
        """Refuse what takes more at once."""
        if needed > self.nbytes:
            raise UnreadableError(
                f"{where}: {what} would take about {_in_mib(needed)} of memory; reading may take "
                f"{_in_mib(self.nbytes)} at once. If the file is to be trusted and the memory is there, allow more "
                "with --memory; else write the file anew, in smaller pages and rows."
            )

    def check_row(self, least_bytes: float, most_bytes: float, where: str, what: str) -> None:
        """Refuse one row that takes more at once; ask for fewer rows where those of a batch may."""
        self.check(least_bytes, where, what)
        if most_bytes * self.rows > self.nbytes and self.rows > 1:
            raise FewerRows(max(1, int(self.nbytes // most_bytes)))

    def check_grown(self, column: object, where: str) -> None:
        """The same by what pyarrow holds by now, for what the headers do not tell.

        A batch is read column by column, so what others of a wide table hold is not held against one of them.
        """
        now = self.give_back()
        if column is not self._column:
            self._column, self._before = column, now
        grown = now - self._before - _SLACK_BYTES
        if grown > self.nbytes and self.rows > 1:
            raise FewerRows(max(1, self.rows // 8))
        self.check(grown, where, "a single row")

    def give_back(self) -> int:
        """Have pyarrow's allocator give back what was freed, if that may be much; the bytes that are allocated.

        mimalloc keeps it for a second, and some until its thread ends. Where rows of 1,000,000 steps are read from
        nested lists, 200 MiB of buffers are freed once they are decoded, or the file is closed; with this the process
        then holds 5 MiB more than before it was opened, without it 247.
        """
        now = pa.total_allocated_bytes()
        if abs(now - self._last) >= self._kept_bytes:
            pa.default_memory_pool().release_unused()
            self._last = now
        return now


def value_bytes(leaf: Leaf) -> int:
    """What pyarrow takes for a value and its levels in a column of lists, at most: buffers grow by doubling."""
    return 2 * ((leaf.width or 4) + 2 * (leaf.max_definition > 0) + 2 * (leaf.max_repetition > 0))


def is_suspicious(chunk: Chunk, leaf: Leaf, budget: Budget) -> bool:
    """Whether a column of lists promises far more values than its bytes usually hold."""
    needed = chunk.values * value_bytes(leaf)
    return leaf.max_repetition > 0 and needed > max(budget.nbytes, _SUSPICIOUS * (chunk.end - chunk.begin))


def row_values(chunk: Chunk, rows: int) -> int:
    """The least that the longest row of a column has."""
    return -(-chunk.values // rows) if rows else 0


def least_row_bytes(kind: pa.DataType) -> int:
    """What each row of a column takes even if it is null, by its type: fixed sizes within one another multiply."""
    if isinstance(kind, pa.BaseExtensionType):
        return least_row_bytes(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * least_row_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return sum(least_row_bytes(kind.field(number).type) for number in range(kind.num_fields))
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    return -(-kind.bit_width // 8) if pa.types.is_primitive(kind) else 4


class LongestRow:
    """The most values of a row so far, from the repetition levels of page after page."""

    def __init__(self) -> None:
        self.values = self._current = 0

    def add(self, levels: memoryview, bits: int, count: int) -> None:
        """The next page: `count` levels in Parquet's runs, each of one level or of bits; level 0 begins a row."""
        position = 0
        while count > 0 and position < len(levels):
            head, position = unsigned(levels, position)
            run = min(count, (head >> 1) * (8 if head & 1 else 1))
            if head & 1:
                end = position + (head >> 1) * bits
                self._add_packed(np.frombuffer(levels[position:end], np.uint8), bits, run)
            else:
                end = position + (bits + 7) // 8
                is_first = not any(levels[position:end])
                self._current = 1 if is_first and run else self._current + run
            position, count = end, count - run
            self.values = max(self.values, self._current)

    def _add_packed(self, packed: np.ndarray, bits: int, count: int) -> None:
        each = np.unpackbits(packed, bitorder="little")
        levels: np.ndarray = each[: len(each) // bits * bits].reshape(-1, bits)[:count].max(axis=1)
        begins = np.flatnonzero(levels == 0)
        if not len(begins):
            self._current += len(levels)
            return
        longest = int(np.diff(begins).max(initial=0))
        self.values = max(self.values, self._current + int(begins[0]), longest)
        self._current = len(levels) - int(begins[-1])


def unsigned(data: Any, position: int) -> tuple[int, int]:
    """A number of at most 42 bits, 7 of them in a byte, and the position after it; the data may end within it."""
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128 or shift > 35:
            break
    return value, position


def _in_mib(number_of_bytes: float) -> str:
    return f"{-(-int(number_of_bytes) // (1 << 20)):,} MiB"


def out_of_memory(what: str, error: Exception) -> StoppedError | None:
    """What to say where memory ran out while something was read; None of any other error."""
    text = one_line(str(error)).rstrip(" .") or "MemoryError"
    if not isinstance(error, MemoryError) or _is_beyond_the_machine(text):
        return None
    return StoppedError(
        f"{what}: there is not enough memory to read it: {text}. Find more memory, or choose a smaller --memory."
    )


def _is_beyond_the_machine(text: str) -> bool:
    """Whether more was asked for, by what pyarrow says, than there could be: of a sound file nobody asks so much."""
    from scanrnn_dist.observe import usable_bytes  # with rich, which most jobs need no sooner

    asked, usable = re.search(r"of size (\d+)", text), usable_bytes()
    return asked is not None and usable is not None and int(asked[1]) > usable
