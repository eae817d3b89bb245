"""Spans of a remote file, fetched ahead: the bytes are those of the file, in few requests, within the bound."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.storage import fetched as fetched_module
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


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Of `held_by`, which looks at all objects since."""
    gc.freeze()
    yield
    gc.unfreeze()


def held_by(fetched: FetchedFile) -> int:
    """The bytes of all answers that are alive."""
    gc.collect()
    answers = [each.answer for each in gc.get_objects() if type(each) is fetched_module._Request]
    return sum(each.result().size for each in answers if each is not None and each.done() and not each.cancelled())


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


@pytest.mark.parametrize("columns", [2, 20])
def test_columns_that_are_read_side_by_side_are_fetched_side_by_side_and_within_the_bound(columns: int) -> None:
    file = File()
    fetched = FetchedFile(file, 8 * MIB)
    size = 19 * MIB // columns // 4 * 4
    begins = [size * column for column in range(columns)]
    fetched.fetch([[(begin, begin + size) for begin in begins]])
    ahead, done = [], 0
    for part in range(0, size, size // 4):
        for begin in begins:
            assert read(fetched, begin + part, size // 4) == CONTENT[begin + part : begin + part + size // 4]
            done += size // 4
            ahead.append(sum(last - first for first, last in list(file.asked)) - done)
    fetched.close()
    assert 4 * MIB < max(ahead) <= 8 * MIB
    assert len(file.asked) <= columns * -(-size // (256 << 10))


@pytest.mark.usefixtures("small_heap")
def test_a_column_that_is_needed_late_holds_no_bytes_of_the_others() -> None:
    file = File()
    fetched = FetchedFile(file, 4 * MIB)
    fetched.fetch([[(0, 10 * MIB), (10 * MIB, 20 * MIB)]])
    for begin in range(10 * MIB, 20 * MIB, MIB):
        assert read(fetched, begin, MIB) == CONTENT[begin : begin + MIB]
        assert held_by(fetched) <= 5 * MIB
    fetched.close()


@pytest.mark.usefixtures("small_heap")
def test_what_is_not_announced_any_more_is_dropped() -> None:
    fetched = FetchedFile(File(wait=0.01), 16 * MIB)
    fetched.fetch([[(0, 16 * MIB)]])
    fetched.fetch([])  # while they are under way
    time.sleep(0.1)
    assert held_by(fetched) == 0
    fetched.fetch([[(0, 10)]])
    assert read(fetched, 0, 10) == CONTENT[:10]
    fetched.close()


def test_a_read_between_two_spans_is_no_read_of_them(file: File, fetched: FetchedFile) -> None:
    fetched.fetch([[(0, 1000), (3000, 4000)]])
    read(fetched, 2000, 10)
    assert [request.unread for request in fetched._requests] == [2000]


def test_what_was_read_last_may_be_read_again(file: File, fetched: FetchedFile) -> None:
    fetched.fetch([[(0, 1000)]])
    assert read(fetched, 0, 1000) == CONTENT[:1000] and read(fetched, 4, 30) == CONTENT[4:34]
    assert file.asked == [(0, 1000)]


def test_a_failing_server_is_not_asked_by_every_request_in_turn() -> None:
    asked = []

    class Failing(File):
        def read_at(self, begin: int, size: int) -> bytes:
            asked.append(begin)
            time.sleep(0.02)
            raise StoppedError("gone")

    fetched = FetchedFile(Failing(), 8 * MIB)
    fetched.fetch([[(begin, begin + 10)] for begin in range(0, 18 * MIB, 1 << 18)])
    for begin in (0, 17 * MIB):
        with pytest.raises(StoppedError, match="gone"):
            read(fetched, begin, 10)
    fetched.close()
    assert len(asked) <= 16


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
