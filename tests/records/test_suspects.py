"""Which units end their process: random kills accuse none, a unit that does is found, whatever the order of things."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.records.suspects import EVIDENT_DEATHS, SILENT_DEATHS, Death, suspects_of


def killed(*units: int, alone: bool = False, chunks: int = 0, evidence: str = "", share: int = 1) -> Death:
    return Death(frozenset(units), units[0] if alone else None, chunks, evidence, (share, 2))


def accused(deaths: list[Death]) -> list[int]:
    return sorted(unit for unit, suspect in suspects_of(deaths).items() if suspect.verdict)


def test_a_crash_with_others_and_one_alone_accuse_a_unit() -> None:
    crashes = [killed(3, 4, 5, evidence="Segmentation fault"), killed(4, alone=True, evidence="Segmentation fault")]
    assert accused(crashes) == [4]
    assert suspects_of(crashes)[4].verdict == "2 processes that worked on it ended with: Segmentation fault"
    assert accused(crashes[1:]) == []
    assert accused(crashes[:1] * 5) == []  # which of the three it was is not known yet
    assert len(crashes) == EVIDENT_DEATHS


def test_kills_accuse_a_unit_only_alone_and_at_the_same_place() -> None:
    same = [killed(7, alone=True, chunks=3) for _ in range(SILENT_DEATHS)]
    assert accused([killed(6, 7, 8), *same[1:]]) == []
    assert accused([killed(6, 7, 8), *same]) == [7]
    assert accused([killed(7, alone=True, chunks=3 + n % 2) for n in range(SILENT_DEATHS)]) == [7]
    assert accused([killed(7, alone=True, chunks=2 * n) for n in range(3 * SILENT_DEATHS)]) == []
    assert accused([killed(6, 7)] * 50) == []


def test_a_death_elsewhere_asks_for_one_more_at_the_same_place() -> None:
    here = killed(7, alone=True, chunks=3)
    for elsewhere in (killed(7, alone=True, chunks=9), killed()):
        assert accused([here, elsewhere, *[here] * (SILENT_DEATHS - 1)]) == []
        assert accused([here, elsewhere, *[here] * SILENT_DEATHS]) == [7]
    before, other_share = killed(), killed(share=2)
    assert accused([before] * 9 + [here] * SILENT_DEATHS) == [7]
    assert accused([here, *[other_share] * 9, *[here] * (SILENT_DEATHS - 1)]) == [7]


@given(st.lists(st.tuples(st.frozensets(st.integers(0, 5)), st.integers(0, 3), st.booleans())))
def test_nobody_is_accused_without_dying_alone(history: list[tuple[frozenset[int], int, bool]]) -> None:
    deaths = [Death(units, None, chunks, "a crash" if crashed else "") for units, chunks, crashed in history]
    assert accused(deaths) == []
    for unit, suspect in suspects_of(deaths).items():
        assert suspect.deaths == sum(unit in units for units, _, _ in history) and suspect.deaths_alone == 0


def played(
    units: int, seconds: float, chunks: int, life: Callable[[], float], poison: int | None = None
) -> tuple[list[int], int]:
    """The units that are left of a job whose processes live so long, and how many processes there were.

    A process needs 0.3 s before it has units, then so many seconds for each; as `Attempt.work` gives them.
    """
    left, log = set(range(units)), list[Death]()
    for count in range(1, 3000):
        found = suspects_of([Death(it.in_hand & left, it.alone if it.alone in left else None, it.chunks) for it in log])
        time = life() - 0.3
        if time < 0:
            continue
        safe = sorted(left - found.keys())
        done = min(len(safe), int(time / seconds), safe.index(poison) if poison in safe else units)
        left -= set(safe[:done])
        if done < len(safe):
            log.append(Death(frozenset(safe[done:])))
            continue
        time -= done * seconds
        for unit in sorted((it for it in left if not found[it].verdict), key=lambda it: (*found[it].turn, it)):
            if time < seconds or unit == poison:
                at = min(time / seconds, 0.5 if unit == poison else 1.0)
                log.append(Death(frozenset({unit}), unit, int(at * chunks)))
                break
            time -= seconds
            left.discard(unit)
        else:
            return sorted(left), count
    raise AssertionError(f"{sorted(left)} are left after 3000 processes")


# Of a job whose processes live a second at most, some very short of time for what they have to do.
JOBS = [(36, 0.02, 1), (36, 0.3, 1), (12, 0.6, 1), (4, 0.6, 10), (1, 0.1, 1), (1, 0.6, 20)]


@pytest.mark.parametrize(("units", "seconds", "chunks"), JOBS)
def test_under_random_kills_a_job_is_always_done_by_the_same_command(units: int, seconds: float, chunks: int) -> None:
    for seed in range(8):
        generator = random.Random(seed)
        left, _ = played(units, seconds, chunks, lambda generator=generator: generator.uniform(0, 1.0))
        assert left == [], seed


@pytest.mark.parametrize(("units", "seconds", "chunks"), JOBS)
@pytest.mark.parametrize("has_kills", [False, True])
def test_a_unit_that_ends_its_process_is_found_and_no_other(
    units: int, seconds: float, chunks: int, has_kills: bool
) -> None:
    for seed in range(5):
        generator, poison = random.Random(seed), units // 2
        life = (lambda generator=generator: generator.uniform(0, 1.0)) if has_kills else (lambda: 1e6)
        left, count = played(units, seconds, chunks, life, poison)
        assert left == [poison], seed
        assert has_kills or count == SILENT_DEATHS + 2
