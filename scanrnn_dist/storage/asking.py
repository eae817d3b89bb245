"""Several requests under way at once, with their answers in order: where a request is mostly a wait for a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from scanrnn_dist.threads import Threads

AT_ONCE = 64
"""Requests to a bucket. 200 commit logs at 30 ms: 7.4 s one after the other, 0.8 s by 16 threads, 0.7 s by 32 and 64,
when the server of the tests has enough to do. 64 at 30 ms are 2,100 a second; S3 answers 5,500 under one prefix."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def at_once(ask: Callable[[_T], _R], items: Iterable[_T], many: int = AT_ONCE) -> Iterator[_R]:
    """What `ask` answers to each of the items, in their order, by `many` threads.

    No more than `many` are asked for, or answered and not taken, so the answers take a bounded memory. What `ask`
    raises is raised when it is its turn, and nothing more is asked for then.

    Example:
        >>> list(at_once(str.upper, ["a", "b", "c"], many=2))
        ['A', 'B', 'C']
    """
    waiting: deque[Future[_R]] = deque()
    with Threads(many) as pool:
        try:
            for item in items:
                if len(waiting) == many:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(ask, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
