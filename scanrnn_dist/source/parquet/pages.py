"""The headers of Parquet's pages, held against the footer while the bytes pass on their way to the decoder.

A page's checksum does not cover its header: a flipped bit there loses values or whole pages, and pyarrow says nothing.
So each header of the wanted columns is read here first: the sizes of a chunk's pages must lead to its end, their
counts add up to the footer's, their encodings be among the footer's, and what a page says of its size be possible.
What writers are known to do in other ways is no damage, see `_LISTS_ENCODINGS` and `_OMITS_HEADER`.
`PageFile` stands between the file and pyarrow and looks at what is read; only dictionaries of strings are read twice,
as their strings are counted, and so are levels of pages of the second version. What it costs stands in docs/data.md.
Not covered: what stands in a page, which is for its checksum, if it has one; indexes and Bloom filters, which nobody
here reads.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from scanrnn_dist.errors import DataError, UnreadableError
from scanrnn_dist.source.parquet.budget import Budget, LongestRow, is_suspicious, row_values, unsigned, value_bytes
from scanrnn_dist.source.parquet.footer import Chunk, Footer
from scanrnn_dist.source.parquet.footer_schema import BYTE_ARRAY, Leaf
from scanrnn_dist.source.parquet.thrift import I32, STRUCT, TRUE, Fields, TooShort, key, read_struct

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_OWN_FIELD = {_DATA: key(5, STRUCT), _INDEX: key(6, STRUCT), _DICTIONARY: key(7, STRUCT), _DATA_V2: key(8, STRUCT)}
_OWN_FIELDS = set(_OWN_FIELD.values())
_KNOWN = {key(number, I32) for number in range(1, 5)} | _OWN_FIELDS
_TYPE, _SIZE, _COMPRESSED = (key(number, I32) for number in (1, 2, 3))
_VALUES, _ENCODING = key(1, I32), key(2, I32)
_ENCODING_V2 = key(4, I32)
_LEVEL_ENCODINGS = key(3, I32), key(4, I32)
_PLAIN, _PLAIN_DICTIONARY, _RLE, _BIT_PACKED, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 0, 2, 3, 4, 7, 8
_EXPANSION = {0: 1, 1: 64, 2: 1040, 5: 260, 7: 260}
"""The most bytes that one compressed byte becomes, by codec: none, Snappy, gzip, LZ4; of others it has no bound."""
_CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_LISTS_ENCODINGS = re.compile("parquet-(cpp|mr|rs|go)|DuckDB|Polars|impala|fastparquet").search
"""Writers whose lists of encodings in the footer are right; Parquet.Net's name others than its pages have."""
_OMITS_HEADER = re.compile(r"parquet-mr( version 1\.([01]\.|2\.[0-8]\b)|$)").match
"""Up to parquet-mr 1.2.8 the header of a dictionary is missing in the size of its column, as pyarrow knows too."""
_LENGTH = struct.Struct("<I").unpack_from
_HEADER_BYTES = 1 << 13  # of one read for a header alone; most take 20 to 100
_MAX_HEADER_BYTES = 1 << 24  # as pyarrow has it


class PageWalk:
    """Walks along the pages of one column chunk; a header that contradicts the footer or itself is a `DataError`."""

    def __init__(self, chunk: Chunk, leaf: Leaf, rows: int, where: str, created_by: str, budget: Budget) -> None:
        self._chunk, self._leaf, self._where, self._budget = chunk, leaf, where, budget
        self._row_values = row_values(chunk, rows)
        self._longest = LongestRow() if is_suspicious(chunk, leaf, budget) else None
        self._text = 0.0, 0.0, ""  # what a value's text takes, where it takes most: at least, at most, and its name
        self._values, self._end = 0, chunk.end
        self._encodings = chunk.encodings if _LISTS_ENCODINGS(created_by) else frozenset()
        self._omits_header = bool(_OMITS_HEADER(created_by))
        self.position = chunk.begin  # of the next header
        self.dictionary: tuple[int, int, int, int] | None = None  # to be counted: begin, bytes, decompressed, entries
        self.levels: list[tuple[int, int, int, int]] = []  # to be counted: begin, bytes, the greatest, values
        self.pages: list[tuple[int, int, int, int, int]] = []  # to be measured: and decompressed, of levels, values

    @property
    def is_done(self) -> bool:
        """Whether all pages were seen."""
        return self.position >= self._end or (self.position == self._chunk.end and self._values == self._chunk.values)

    def feed(self, begin: int, data: memoryview) -> bool:
        """Look at the headers in bytes of the file that begin at `begin`; False if one begins there and ends beyond."""
        end = begin + len(data)
        while begin <= self.position < end and not self.is_done:
            at = self.position - begin
            try:
                header, after = read_struct(data[: self._end - begin], at)
                self._page(header, after - at)
            except TooShort:
                if end < self._end and len(data) - at < _MAX_HEADER_BYTES:
                    return False
                raise self._error("a page's header does not end") from None
            except DataError:
                raise  # of the budget
            except ValueError as error:
                raise self._error(str(error)) from None
        return True

    def check_end(self) -> None:
        """Hold the number of values against the footer's, once all pages were seen."""
        if self._values != self._chunk.values:
            raise self._error(f"its pages hold {self._values} values, the footer says {self._chunk.values}")

    def check_grown(self) -> None:
        """Hold what pyarrow holds by now against the budget."""
        self._budget.check_grown(self, self._where)

    def _error(self, text: str) -> DataError:
        return UnreadableError(
            f"{self._where}: the page at byte {self.position} cannot be right: {text}. "
            "Expected a sound Parquet file: write or copy it again."
        )

    def _page(self, header: Fields, header_bytes: int) -> None:
        """Take one page, by its header."""
        kind, size, compressed = header.get(_TYPE, -1), header.get(_SIZE, -1), header.get(_COMPRESSED, -1)
        own = header.get(_OWN_FIELD.get(kind, -1))
        if own is None or not header.keys() <= _KNOWN or len(header.keys() & _OWN_FIELDS) > 1:
            raise ValueError(f"its header says type {kind} and has the fields {sorted(name >> 4 for name in header)}")
        end = self.position + header_bytes + compressed
        if kind == _DICTIONARY and self._omits_header:
            self._end += header_bytes
        if compressed < 0 or size < 0 or end > self._end:
            raise ValueError(f"it ends at byte {end}, the column's pages at byte {self._end}")
        most = _EXPANSION.get(self._chunk.codec)
        if most is not None and size > most * compressed + 64:
            raise ValueError(f"{compressed} bytes cannot become {size} by codec {self._chunk.codec}")
        self._check_held(kind, own, compressed, size)
        if kind == _DICTIONARY:
            self._dictionary(own, end - compressed, compressed, size)
        elif kind != _INDEX:
            self._data(kind, own, size, compressed, end - compressed)
        self.position = end

    def _check_held(self, kind: int, own: Fields, compressed: int, size: int) -> None:
        """Hold a page against the budget, before anything of it is counted."""
        # A dictionary of strings is held decompressed, and copied.
        held = compressed + size * (2 if kind == _DICTIONARY and self._leaf.type == BYTE_ARRAY else 1)
        if held > self._budget.nbytes:
            what = f"the page at byte {self.position}, {compressed:,} bytes that become {size:,},"
            self._budget.check(held, self._where, what)
        encoding = own.get(_ENCODING_V2 if kind == _DATA_V2 else _ENCODING, -1)
        is_text = kind in (_DATA, _DATA_V2) and self._leaf.type == BYTE_ARRAY
        if is_text and encoding not in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
            # Where texts share their beginnings, each may be as long as the page; else they have the mean.
            most = size if encoding == _DELTA_BYTE_ARRAY else size / max(1, own.get(_VALUES, 1))
            self._check_text(0, most, "one value")

    def check_dictionary(self, data: Any) -> None:
        """Count the strings of the dictionary, given its bytes: with too few, pyarrow reads beyond their end."""
        assert self.dictionary is not None
        (_, _, size, entries), self.dictionary = self.dictionary, None
        codec = _CODECS[self._chunk.codec]
        try:
            content = memoryview(pa.Codec(codec).decompress(data, size) if codec else data)
        except (pa.ArrowException, OSError, ValueError):
            return  # pyarrow says so too, once it reads it
        if len(content) < size:
            raise self._error(f"before it stands a dictionary of {len(content)} bytes that promises {size}")
        position = found = longest = 0
        while position + 4 <= size:
            length = _LENGTH(content, position)[0]
            longest = max(longest, length)
            position += 4 + length
            found += 1
        if found != entries or position != size:
            raise self._error(f"before it stands a dictionary of {found} strings that promises {entries}")
        is_list = self._leaf.max_repetition > 0
        self._check_text(0 if is_list else longest, longest, f"one value of {longest:,} bytes")

    def check_row(self) -> None:
        """Hold a row that is as long as the mean, or longer where that was found, against the budget.

        The same by the longest text that was found: who reads a page again may read more rows at once.
        """
        if self._leaf.max_repetition:
            longest = max(self._row_values, self._longest.values if self._longest is not None else 0)
            needed = longest * value_bytes(self._leaf)
            self._budget.check_row(needed, needed, self._where, f"a row of {longest:,} values")
        least, most, what = self._text
        self._budget.check_row(least, most * self._row_values, self._where, what)

    def _check_text(self, least: float, most: float, what: str) -> None:
        """The same with the bytes of one more value's text."""
        self._text = max(self._text, (least, most, what), key=lambda text: text[1])
        self.check_row()

    def measure(self, read: Callable[[int, int], memoryview]) -> None:
        """Find the longest row in pages of far more values than their bytes usually hold."""
        while self.pages:
            self._measure(read, *self.pages.pop(0))

    def _measure(
        self, read: Callable[[int, int], memoryview], begin: int, compressed: int, size: int, levels: int, values: int
    ) -> None:
        assert self._longest is not None
        data, bits = read(begin, compressed), self._leaf.max_repetition.bit_length()
        if levels < 0:  # of the first version: compressed too, after their length
            codec = _CODECS.get(self._chunk.codec)
            if codec is None:
                raise self._error(f"it holds {values} values, in codec {self._chunk.codec}, which is not known")
            try:
                data = memoryview(pa.Codec(codec).decompress(data, size) if codec else data).cast("B")
            except (pa.ArrowException, OSError, ValueError):
                return  # pyarrow says so too, once it reads it
            levels = _LENGTH(data, 0)[0] if len(data) >= 4 else 0
            data = data[4:]
        self._longest.add(data[:levels], bits, values)
        self.check_row()

    def _dictionary(self, own: Fields, begin: int, compressed: int, size: int) -> None:
        if self.position != self._chunk.begin:
            raise ValueError("it is a dictionary and not the column's first page")
        entries, width = own.get(_VALUES, -1), self._leaf.width
        if own.get(_ENCODING) not in (_PLAIN, _PLAIN_DICTIONARY) or entries < 0:
            raise ValueError(f"it is a dictionary of {entries} values in encoding {own.get(_ENCODING)}")
        if width and size != entries * width:
            raise ValueError(f"a dictionary of {entries} values of {width} bytes cannot take {size} bytes")
        if self._leaf.type == BYTE_ARRAY and self._chunk.codec in _CODECS:
            self.dictionary = begin, compressed, size, entries

    def _data(self, kind: int, own: Fields, size: int, compressed: int, begin: int) -> None:
        chunk, values = self._chunk, own.get(_VALUES, -1)
        self._values += values
        if values < 0 or self._values > chunk.values:
            raise ValueError(f"with its {values} values the column has {self._values}, the footer says {chunk.values}")
        encoding = own.get(_ENCODING_V2 if kind == _DATA_V2 else _ENCODING, -1)
        if self._encodings and encoding not in self._encodings:
            raise ValueError(f"it has encoding {encoding}, the footer says {sorted(self._encodings)}")
        is_plain, leaf = chunk.codec == 0 and size != compressed, self._leaf
        if self._longest is not None:
            self.pages.append((begin, compressed, size, own.get(key(6, I32), -1) if kind == _DATA_V2 else -1, values))
        if kind == _DATA_V2:
            self._levels_v2(own, size, compressed, begin)
            return
        if is_plain:
            raise ValueError(f"it is not compressed, and has {size} and {compressed} bytes")
        for told, greatest in zip(_LEVEL_ENCODINGS, (leaf.max_definition, leaf.max_repetition), strict=True):
            if greatest and own.get(told) not in (_RLE, _BIT_PACKED):
                raise ValueError("its levels have an encoding that there is none of")
        # fastparquet adds 8 bytes to each page.
        if encoding == _PLAIN and leaf.width and leaf.max_definition == 0 and size < values * leaf.width:
            raise ValueError(f"{values} values of {leaf.width} bytes cannot take {size} bytes")

    def _levels_v2(self, own: Fields, size: int, compressed: int, begin: int) -> None:
        """Of a page of the second version: levels stand before the values, and are not compressed.

        Its numbers of rows and of nulls are not looked at, as nobody reads by them: parquet-go says 0 rows.
        """
        values, definition, repetition = (own.get(key(number, I32), -1) for number in (1, 5, 6))
        levels = definition + repetition
        if min(definition, repetition) < 0 or levels > min(size, compressed):
            raise ValueError(f"its levels take {definition} and {repetition} bytes of {compressed}")
        if (self._chunk.codec == 0 or not own.get(key(7, TRUE), True)) and size != compressed:
            raise ValueError(f"it is not compressed, and has {size} and {compressed} bytes")
        self.levels += [
            (begin, repetition, self._leaf.max_repetition, values),
            (begin + repetition, definition, self._leaf.max_definition, values),
        ]

    def check_levels(self, read: Callable[[int, int], memoryview]) -> None:
        """Walk along the levels of pages of the second version: a length that is wrong shifts all values."""
        for begin, size, greatest, values in self.levels:
            if (greatest or size) and not _are_levels(read(begin, size), greatest.bit_length(), values):
                raise self._error(f"before it, {values} levels up to {greatest} do not take {size} bytes")
        self.levels.clear()


def _are_levels(data: memoryview, bits: int, values: int) -> bool:
    """Whether bytes are runs of so many levels, each run of one level or of 8 levels a group, and no byte more."""
    position = 0
    while values > 0 and position < len(data):
        head, position = unsigned(data, position)
        run = head >> 1
        values -= 8 * run if head & 1 else run
        position += run * bits if head & 1 else (bits + 7) // 8
    return values <= 0 and position == len(data)


class PageFile:
    """A file as `pa.PythonFile` calls it, which looks at the headers of the pages of these leaves in what is read."""

    def __init__(self, file: Any, footer: Footer, leaves: Iterable[int], path: str, budget: Budget) -> None:
        self.seek, self.tell, self.size, self.close = file.seek, file.tell, file.size, file.close
        self._file, self._budget = file, budget
        self._footer, self._path, self._leaves = footer, path, list(leaves)
        self._walks = dict[tuple[int, int], PageWalk]()
        # By their ends too: one of a row group without rows may be said to begin where another does.
        chunks = [
            (row_group.chunks[leaf].begin, row_group.chunks[leaf].end, group, leaf)
            for group, row_group in enumerate(footer.row_groups)
            for leaf in self._leaves
        ]
        chunks.sort()
        self._begins, self._order = [chunk[0] for chunk in chunks], [chunk[2:] for chunk in chunks]

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return bool(self._file.closed)

    def read(self, size: int = -1) -> Any:
        """The next bytes, fewer at the end of the file, as a buffer."""
        begin = self._file.tell()
        data = self._file.read_buffer(self._file.size() - begin if size < 0 else size)
        index = bisect_right(self._begins, begin) - 1
        if index >= 0 and len(data):
            walk = self._walk_of(*self._order[index])
            walk.check_grown()
            self._walk(walk, begin, memoryview(data).cast("B"))
            self.seek(begin + len(data))
        return data

    read_buffer = read

    def check_rows(self, row_groups: Iterable[int]) -> None:
        """Hold what one row takes at least, by the footer, against the budget."""
        for group in row_groups:
            for leaf in self._leaves:
                self._walk_of(group, leaf).check_row()

    def check_all(self, row_groups: Iterable[int]) -> None:
        """Look at the pages of these row groups that were not read yet, and hold all counts against the footer."""
        for group in row_groups:
            for leaf in self._leaves:
                walk = self._walk_of(group, leaf)
                while not walk.is_done:
                    self._look(walk)
                    self._check_within(walk)
                walk.check_end()

    def _walk_of(self, group: int, leaf: int) -> PageWalk:
        """The walk along a chunk, begun when it is first asked for."""
        if (group, leaf) not in self._walks:
            row_group, of = self._footer.row_groups[group], self._footer.leaves[leaf]
            where = f"{self._path}, row group {group}, column {of.name!r}"
            writer, chunk = self._footer.created_by, row_group.chunks[leaf]
            self._walks[group, leaf] = PageWalk(chunk, of, row_group.rows, where, writer, self._budget)
        return self._walks[group, leaf]

    def _walk(self, walk: PageWalk, begin: int, data: memoryview) -> None:
        """Show bytes to a walk; a header that lies across two reads is read once more, alone."""
        while not walk.is_done and walk.position < begin + len(data):
            if walk.position < begin or not walk.feed(begin, data):
                self._look(walk)
            self._check_within(walk)

    def _look(self, walk: PageWalk) -> None:
        size = _HEADER_BYTES
        while True:
            self._file.seek(walk.position)
            data = self._file.read_buffer(size)
            if not len(data):
                raise DataError(f"{self._path} ended at byte {walk.position} while it was read. Open the source anew.")
            if walk.feed(walk.position, memoryview(data).cast("B")):
                return
            if len(data) < size:
                raise DataError(f"{self._path} ended within a page's header while it was read. Open the source anew.")
            size *= 8

    def _check_within(self, walk: PageWalk) -> None:
        """Read a dictionary of strings, or levels, once more, as they may lie across several reads."""
        if walk.dictionary is not None:
            begin, size = walk.dictionary[:2]
            walk.check_dictionary(self._read_at(begin, size))
        if walk.levels:
            walk.check_levels(self._read_at)
        walk.measure(self._read_at)

    def _read_at(self, begin: int, size: int) -> memoryview:
        self._file.seek(begin)
        return memoryview(self._file.read_buffer(size)).cast("B")
