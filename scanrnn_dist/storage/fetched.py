"""A remote file of which spans are fetched before they are read: several requests at once, within a bound of bytes.

A request to a bucket is mostly a wait. A reader of Parquet asks for one column chunk after the other, so that twenty
columns of a small row group cost twenty waits; here neighbours come in one request, and many requests at once. From a
server that lets each request wait for 30 ms, 16 list columns in 4 row groups, 44 MB, were read in 6.4 s and are in 1.0
(`benchmarks/bench_bucket.py`).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

import pyarrow as pa

from scanrnn_dist.threads import Threads

_THREADS = 16
_MOST_BYTES, _LEAST_BYTES = 8 << 20, 1 << 18
"""Of a request for a part of one long span, or for several short ones."""
_GAP_BYTES = 1 << 20
"""So much between two spans is fetched along: it takes less time than another request."""
_SHARE = 8
"""A request takes at most such a part of the bound, and so do answers that were read and may be read again."""

Span = tuple[int, int]
"""The first byte, and the one after the last."""


class ReadsAt(Protocol):
    """What is asked of the file: `read_at` by several threads at once."""

    def read_at(self, begin: int, size: int) -> bytes:
        """The bytes from `begin` on, fewer at the end of the file."""

    def size(self) -> int:
        """Of the file."""

    def close(self) -> None:
        """Close it."""


@dataclass(eq=False)
class _Request:
    """One request: the bytes `begin` to `end`, the spans in them that are wanted, and how far each was read."""

    begin: int
    end: int
    spans: list[Span]
    answer: Future[pa.Buffer] | None = None  # None too once it was forgotten
    is_made: bool = False
    is_wanted: bool = True

    def __post_init__(self) -> None:
        self.begin_anew(self.spans)

    def begin_anew(self, spans: list[Span]) -> None:
        """Nothing was read of these spans."""
        self.spans, self.read_to = spans, [begin for begin, _ in spans]
        self.unread = sum(end - begin for begin, end in spans)

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def is_read(self) -> bool:
        return self.unread <= 0

    @property
    def is_under_way(self) -> bool:
        return self.answer is not None and not self.answer.done()

    def note(self, begin: int, end: int) -> None:
        """Note that these bytes were read."""
        index = max(0, bisect_right(self.spans, begin, key=itemgetter(0)) - 1)
        index += begin >= self.spans[index][1]
        while index < len(self.spans) and self.spans[index][0] < end:
            to = max(self.read_to[index], min(end, self.spans[index][1]))
            self.unread -= to - self.read_to[index]
            self.read_to[index], index = to, index + 1


class FetchedFile:
    """A file to read from, which fetches ahead what `fetch` announces; anything else it reads when asked.

    Args:
        file: the file.
        most_bytes: of what was asked for and is not read yet, or may be read again; but of each span that is read side
            by side with others, some 256 KiB are asked for in any case.
    """

    def __init__(self, file: ReadsAt, most_bytes: int) -> None:
        self._file, self._most_bytes, self._size = file, most_bytes, file.size()
        self._pool = Threads(_THREADS, "scanrnn-request")
        self._requests: list[_Request] = []  # whose answers are wanted, by where they begin
        self._begins: list[int] = []
        self._to_make: deque[_Request] = deque()
        self._were_read: deque[_Request] = deque()  # whose answers may be wanted again
        self._under_way: list[_Request] = []  # given up ones too
        self._held = self._read = 0  # bytes: of answers that are wanted, and of these in `_were_read`
        self._position = 0
        self._failure: BaseException | None = None
        self.closed = False

    def fetch(self, groups: Iterable[Iterable[Span]]) -> None:
        """Announce spans that will be read: those of one group side by side, then those of the next one.

        What was announced before and is none of these is forgotten.
        """
        before = {(request.begin, request.end): request for request in self._requests if request.is_made}
        wanted = []
        for new in (request for group in self._joined(groups) for request in self._requests_for(group)):
            wanted.append(before.get((new.begin, new.end), new))
            wanted[-1].begin_anew(new.spans)
        kept = set(wanted)
        for request in self._requests:  # never False for one that is kept: a worker would answer it with nothing
            request.is_wanted = request in kept
        self._held, self._read = sum(request.nbytes for request in wanted if request.is_made), 0
        self._to_make, self._were_read = deque(wanted), deque()
        self._requests = sorted(wanted, key=lambda request: request.begin)
        self._begins = [request.begin for request in self._requests]
        self._go_on()

    def read_buffer(self, size: int) -> pa.Buffer:
        """The next bytes, fewer at the end of the file."""
        end, pieces = min(self._position + size, self._size), []
        while self._position < end:
            piece = self._piece(self._position, end - self._position)
            if not piece.size:  # the file is shorter by now
                break
            pieces.append(piece)
            self._position += piece.size
        return pieces[0] if len(pieces) == 1 else pa.py_buffer(b"".join(pieces))

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Where to read next."""
        self._position = position + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """Where is read next."""
        return self._position

    def size(self) -> int:
        """Of the file, when it was opened."""
        return self._size

    def close(self) -> None:
        """Close the file; waits for requests that are under way."""
        self._failure = ValueError("the file is closed")
        self._pool.shutdown(cancel_futures=True)
        self._requests, self._begins, self._under_way = [], [], []
        self._to_make, self._were_read = deque(), deque()
        self._file.close()
        self.closed = True

    def _piece(self, begin: int, size: int) -> pa.Buffer:
        """So many bytes, or those to the end of a request."""
        index = bisect_right(self._begins, begin) - 1
        if index < 0 or begin >= self._requests[index].end:
            after = self._begins[index + 1] if index + 1 < len(self._begins) else begin + size
            return pa.py_buffer(self._file.read_at(begin, min(size, after - begin)))
        request = self._requests[index]
        was_read, answer = request.is_read, self._made(request).result()
        piece = answer.slice(begin - request.begin, min(size, max(0, answer.size - (begin - request.begin))))
        request.note(begin, begin + piece.size)
        if request.is_read and not was_read:
            self._were_read.append(request)
            self._read += request.nbytes
            self._go_on()
        return piece

    def _go_on(self) -> None:
        """Forget what was read first, and make the next requests, as far as there is room."""
        while self._read > self._most_bytes // _SHARE:
            request = self._were_read.popleft()
            index = bisect_right(self._begins, request.begin) - 1
            del self._requests[index], self._begins[index]
            request.answer = None
            self._held, self._read = self._held - request.nbytes, self._read - request.nbytes
        self._under_way = [each for each in self._under_way if each.is_under_way]
        given_up = sum(each.nbytes for each in self._under_way if not each.is_wanted)
        room, threads = self._most_bytes - self._held - given_up, _THREADS - len(self._under_way)
        while self._to_make:
            request = self._to_make[0]
            if not request.is_made:
                room, threads = room - request.nbytes, threads - 1
                if room < 0 or threads < 0:
                    return
                self._made(request)
            self._to_make.popleft()

    def _made(self, request: _Request) -> Future[pa.Buffer]:
        if request.answer is None:
            request.answer = self._pool.submit(self._asked, request)
            request.is_made = True
            self._under_way.append(request)
            self._held += request.nbytes
        return request.answer

    def _asked(self, request: _Request) -> pa.Buffer:
        """The answer to a request; nothing is asked once another one failed, which it does after all its retries."""
        if self._failure is not None:
            raise self._failure
        try:
            data = self._file.read_at(request.begin, request.nbytes) if request.is_wanted else b""
            return pa.py_buffer(data if request.is_wanted else b"")
        except BaseException as error:
            self._failure = error
            raise

    def _joined(self, groups: Iterable[Iterable[Span]]) -> list[list[Span]]:
        """Groups whose spans are sorted, small ones that follow one another as one."""
        joined: list[list[Span]] = []
        most = self._most(0, 1)
        for group in map(sorted, groups):
            if joined and group and joined[-1][-1][1] <= group[0][0] and group[-1][1] - joined[-1][0][0] <= most:
                joined[-1] += group
            elif group:
                joined.append(group)
        return joined

    def _most(self, nbytes: int, spans: int) -> int:
        """Of a request, for so many spans that are read side by side: a part of all of them at once, if not all."""
        share = self._most_bytes // _SHARE
        if nbytes > self._most_bytes - share:
            share = min(share, self._most_bytes // (2 * spans))
        return max(_LEAST_BYTES, min(_MOST_BYTES, share))

    def _requests_for(self, group: list[Span]) -> list[_Request]:
        """Requests for sorted spans that are read side by side, in the order in which they will be needed.

        Neighbours come together; long spans come in parts, the first ones of all before the second.
        """
        most = self._most(sum(end - begin for begin, end in group), len(group))
        together: list[list[Span]] = []
        parts: list[tuple[float, Span]] = []
        for begin, end in group:
            if end - begin > most:
                count = -(-(end - begin) // most)
                cuts = [begin + (end - begin) * nth // count for nth in range(count + 1)]
                parts += [(nth / count, (cuts[nth], cuts[nth + 1])) for nth in range(count)]
            elif together and begin - together[-1][-1][1] <= _GAP_BYTES and end - together[-1][0][0] <= most:
                together[-1].append((begin, end))
            elif end > begin:
                together.append([(begin, end)])
        asked = [(0.0, each) for each in together] + [(when, [span]) for when, span in parts]
        asked.sort(key=lambda each: (each[0], each[1][0]))
        return [_Request(each[0][0], each[-1][1], each) for _, each in asked]
