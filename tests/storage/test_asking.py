"""Requests that are under way at once: their answers in order, and no more of them than was said."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.storage import at_once


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 40), st.integers(0, 40))
def test_answers_come_in_order_and_an_error_at_its_place(count: int, many: int, bad: int, taken: int) -> None:
    """Whoever takes them stops where it likes; then nothing more is asked for."""
    asked, lock = list[int](), threading.Lock()

    def ask(number: int) -> int:
        with lock:
            asked.append(number)
        if number == bad:
            raise ValueError(str(number))
        return number * number

    answers, got = at_once(ask, iter(range(count)), many), list[int]()
    try:
        for _ in range(taken):
            got.append(next(answers))
    except StopIteration:
        assert len(got) == count <= bad
    except ValueError as error:
        assert str(error) == str(bad) and len(got) == bad
    answers.close()  # type: ignore[attr-defined]
    assert got == [number * number for number in range(len(got))]
    assert sorted(asked) == list(range(len(asked))) and len(asked) <= len(got) + many


def test_so_many_are_under_way_at_once() -> None:
    """Each waits for all others, which would never end if one more were needed."""
    together = threading.Barrier(7, timeout=60)
    assert list(at_once(lambda number: (together.wait(), number)[1], range(14), many=7)) == list(range(14))
    with pytest.raises(StopIteration):
        next(at_once(str, [], many=7))
