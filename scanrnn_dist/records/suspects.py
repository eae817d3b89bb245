"""Which units end their process, judged from how attempts died; arithmetic alone. Who died of what: `commit_log.py`.

A process dies of the unit that it works on, or because its machine was taken away, as spot machines are. Only the first
leaves traces: of a crash, or of the kernel that ran out of memory. Without a trace, units take turns: each that was in
hand is worked on alone, those first that died so least often. Whoever ends machines hits now this unit and now that,
now here and now there, also while units are done that do no harm; a unit that ends its process does so every time, at
the same place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scanrnn_dist.records.evidence import OUT_OF_MEMORY

EVIDENT_DEATHS = 2
"""So many deaths with a trace, one of them of the unit alone, are the unit's doing."""
SILENT_DEATHS = 5
"""So many deaths without one are, if the unit was alone and got as far each time. Each death meanwhile at another
place, or with units in hand that were done later, shows that somebody ends machines, and asks for one more."""


@dataclass(frozen=True)
class Death:
    """How an attempt died."""

    in_hand: frozenset[int]  # units that were begun, and are not committed yet
    alone: int | None = None  # the one of them that was worked on alone; None if there were several
    chunks: int = 0  # how many chunks of that one were read
    evidence: str = ""  # what tells that the process died of what it did; empty if nothing does
    share: tuple[int, ...] = (1, 1)  # the one that the attempt began with


@dataclass(frozen=True)
class Suspect:
    """A unit that was in hand when attempts died."""

    deaths: int
    deaths_alone: int  # while it was worked on alone
    verdict: str  # what tells that it ends its process, in words; empty while nothing does
    wants_memory: bool = False  # whether memory ran out in one of these deaths

    @property
    def turn(self) -> tuple[int, int]:
        """Those with the least come first."""
        return self.deaths_alone, self.deaths


def suspects_of(deaths: Iterable[Death]) -> dict[int, Suspect]:
    """The units that were in hand in these deaths, which are in the order of time."""
    deaths = list(deaths)
    by_unit = defaultdict[int, list[int]](list)
    for number, death in enumerate(deaths):
        for unit in death.in_hand:
            by_unit[unit].append(number)
    return {unit: _suspect(unit, deaths, numbers) for unit, numbers in by_unit.items()}


def _suspect(unit: int, deaths: Sequence[Death], numbers: Sequence[int]) -> Suspect:
    """The unit that was in hand in the deaths of these numbers."""
    alone = [number for number in numbers if deaths[number].alone == unit]
    evident = [deaths[number].evidence for number in numbers if deaths[number].evidence]
    verdict = ""
    if len(evident) >= EVIDENT_DEATHS and any(deaths[number].evidence for number in alone):
        verdict = f"{len(evident)} processes that worked on it ended with: {', '.join(dict.fromkeys(evident))}"
    elif len(alone) >= SILENT_DEATHS:
        same, other = _places(alone, deaths)
        if same >= SILENT_DEATHS + other:
            verdict = f"{same} processes that worked on it alone were killed at the same place, {other} at others"
    return Suspect(len(numbers), len(alone), verdict, OUT_OF_MEMORY in evident)


def _places(alone: Sequence[int], deaths: Sequence[Death]) -> tuple[int, int]:
    """How many of these deaths were at the same place, and how many deaths since the first of them were not.

    These are the unit's at other places, and the ones on its share that no unit that is left explains: what was in hand
    was done by a later attempt.
    """
    places = Counter(deaths[number].chunks for number in alone)
    # A chunk more or less is the same place: it may have been read and not noted down.
    same = max(count + places[chunks + 1] for chunks, count in places.items())
    shares = {deaths[number].share for number in alone}
    unexplained = sum(it.share in shares and not it.in_hand and not it.evidence for it in deaths[alone[0] :])
    return same, len(alone) - same + unexplained
