"""Spans of a remote file, fetched ahead: the bytes are those of the file, in few requests, within the bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.storage.fetched import FetchedFile

MIB = 1 << 20
CONTENT = np.random.default_rng(0).bytes(20 * MIB)


class File:
    """A file in memory that notes what is asked of it, and how many requests were under way at once."""

    def __init__(self, wait: float = 0.0) -> None:
        self.asked: list[tuple[int, int]] = []
        self.most = self._now = 0
        self._wait, self._lock = wait, threading.Lock()

    def read_at(self, begin: int, size: int) -> bytes:
        with self._lock:
            self.asked.append((begin, begin + size))
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._wait)
        with self._lock:
            self._now -= 1
        return CONTENT[begin : begin + size]

    def size(self) -> int:
        return len(CONTENT)

    def close(self) -> None:
        pass


@pytest.fixture
def file() -> File:
    return File()


@pytest.fixture
def fetched(file: File) -> Iterator[FetchedFile]:
    opened = FetchedFile(file, 8 * MIB)
    yield opened
    opened.close()
    assert opened.closed


def read(fetched: FetchedFile, begin: int, size: int) -> bytes:
    fetched.seek(begin)
    data = bytes(fetched.read_buffer(size))
    assert fetched.tell() == begin + len(data)
    return data


def test_neighbours_come_in_one_request_and_what_lies_far_off_in_another(file: File, fetched: FetchedFile) -> None:
    spans = [(100, 1000), (1000, 5000), (9000, 9900), (5 * MIB, 5 * MIB + 10)]
    fetched.fetch([spans])
    for begin, end in spans:
        assert read(fetched, begin, end - begin) == CONTENT[begin:end]
    assert sorted(file.asked) == [(100, 9900), (5 * MIB, 5 * MIB + 10)]


def test_any_way_of_reading_gives_the_bytes_of_the_file(file: File, fetched: FetchedFile) -> None:
    rng = np.random.default_rng(1)
    cuts = np.sort(rng.integers(0, len(CONTENT), 40)).tolist()
    spans = [(begin, end) for begin, end in zip(cuts[::2], cuts[1::2], strict=True) if end > begin]
    fetched.fetch([spans[:7], spans[7:]])
    for number in range(300):
        begin = int(rng.integers(0, len(CONTENT) + 10))
        size = int(rng.integers(0, 3 * MIB if number % 9 == 0 else 2000))
        assert read(fetched, begin, size) == CONTENT[begin : begin + size]
        if number == 150:
            fetched.fetch([spans[3:]])
    assert read(fetched, len(CONTENT) - 5, 10) == CONTENT[-5:]
    assert fetched.seek(-3, 2) == len(CONTENT) - 3 and fetched.seek(1, 1) == len(CONTENT) - 2


def test_columns_that_are_read_side_by_side_are_fetched_side_by_side_and_within_the_bound() -> None:
    file = File()
    fetched = FetchedFile(file, 8 * MIB)
    fetched.fetch([[(0, 9 * MIB), (9 * MIB, 18 * MIB)]])
    ahead, done = [], 0
    for begin in range(0, 9 * MIB, MIB // 2):
        for place in (begin, begin + 9 * MIB):
            assert read(fetched, place, MIB // 2) == CONTENT[place : place + MIB // 2]
            done += MIB // 2
            ahead.append(sum(last - first for first, last in list(file.asked)) - done)
    fetched.close()
    assert 4 * MIB < max(ahead) <= 8 * MIB and len(file.asked) == 18
    assert [begin for begin, _ in sorted(file.asked[:2])] == [0, 9 * MIB]


def test_requests_are_under_way_at_once() -> None:
    file = File(wait=0.02)
    fetched = FetchedFile(file, 8 * MIB)
    fetched.fetch([[(begin, begin + 10)] for begin in range(0, 16 * MIB, 2 * MIB)])
    assert read(fetched, 0, 10) == CONTENT[:10]
    fetched.close()
    assert file.most > 1


def test_what_is_announced_again_is_not_fetched_again(file: File, fetched: FetchedFile) -> None:
    spans = [[(0, MIB)], [(4 * MIB, 5 * MIB)]]
    fetched.fetch(spans)
    read(fetched, 0, 10)
    fetched.fetch(spans)
    assert read(fetched, 0, MIB) == CONTENT[:MIB] and read(fetched, 4 * MIB, MIB) == CONTENT[4 * MIB : 5 * MIB]
    assert len(file.asked) == 2


def test_what_a_request_raises_is_raised_where_its_bytes_are_read(
    file: File, fetched: FetchedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(begin: int, size: int) -> bytes:
        raise StoppedError("gone")

    monkeypatch.setattr(file, "read_at", refuse)
    fetched.fetch([[(0, 10)]])
    with pytest.raises(StoppedError, match="gone"):
        read(fetched, 0, 10)
