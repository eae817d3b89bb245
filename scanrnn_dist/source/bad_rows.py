"""What is done with rows that are not what they should be: the choices, and how long a row may be.

`taking.py` carries them out, for all layouts alike; what a row is set aside with stands in `set_aside.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from scanrnn_dist.errors import ConfigError, flag_of
from scanrnn_dist.ragged import checked_max_steps

ERROR, SKIP, NULL = "error", "skip", "null"
INITIAL_CARRY, TRUNCATE = "initial-carry", "truncate"
DROP_STEP, ZERO, FORWARD_FILL, PROPAGATE = "drop-step", "zero", "forward-fill", "propagate"

CHOICES: Mapping[str, tuple[str, ...]] = {
    "bad_value": (ERROR, DROP_STEP, ZERO, FORWARD_FILL, PROPAGATE, SKIP),
    "null_sequence": (ERROR, NULL, SKIP),
    "wrong_width": (ERROR, SKIP),
    "unequal_lengths": (ERROR, SKIP),
    "empty_sequence": (INITIAL_CARRY, NULL, ERROR, SKIP),
    "too_short": (SKIP, ERROR, NULL),
    "too_long": (TRUNCATE, ERROR, SKIP),
    "unreadable_file": (ERROR, SKIP),
}
"""Of each policy; the first is the default."""
_COUNTED = {DROP_STEP: "steps", ZERO: "values", FORWARD_FILL: "values", PROPAGATE: "values"}


@dataclass(frozen=True)
class BadRows:
    """What is done with rows that are not what they should be.

    `"error"` makes the job end with an error once all else is done, `"skip"` sets the row aside, `"null"` gives it null
    features. Each argument says it for one kind of fault.

    Args:
        bad_value: a null, a NaN or an infinity within a sequence. `"drop-step"` leaves its step out, `"zero"` puts 0
            in its place, `"forward-fill"` the value of the same feature at the step before (0 where there is none),
            `"propagate"` lets it through, a null as NaN.
        null_sequence: a null in place of a sequence.
        wrong_width: a step with another number of features than the others.
        unequal_lengths: features of one row that have different numbers of steps.
        empty_sequence: a row without steps, also one whose steps were all dropped. `"initial-carry"` gives it the
            features of the initial carry; it may then still be too short.
        too_short: a row of fewer steps than `min_steps`.
        too_long: a row of more steps than `max_steps`. `"truncate"` takes the first or last ones.
        unreadable_file: a file whose footer cannot be read, which `"skip"` leaves out; or pages that cannot be read,
            where `"skip"` sets aside all rows of the part that they belong to.

    Raises:
        ConfigError: no such choice.

    Example:
        >>> BadRows(bad_value="zero").null_sequence
        'error'
    """

    bad_value: str = ERROR
    null_sequence: str = ERROR
    wrong_width: str = ERROR
    unequal_lengths: str = ERROR
    empty_sequence: str = INITIAL_CARRY
    too_short: str = SKIP
    too_long: str = TRUNCATE
    unreadable_file: str = ERROR

    def __post_init__(self) -> None:
        for each in fields(self):
            choice, choices = getattr(self, each.name), CHOICES[each.name]
            if choice not in choices:
                expected = ", ".join(map(repr, choices))
                raise ConfigError(f"{each.name} is {choice!r}; expected one of {expected} ({flag_of(each.name)}).")

    @property
    def skips_files(self) -> bool:
        """Whether files, and rows in pages, that cannot be read are left out."""
        return self.unreadable_file == SKIP


@dataclass(frozen=True)
class Lengths:
    """How many steps of a row count.

    Args:
        min_steps: a row of fewer is too short.
        max_steps: a row of more is too long; None for no bound.
        truncate: which steps of a row that is too long are taken, those of its `"head"` or of its `"tail"`.

    Raises:
        ConfigError: a number below 0, or no such end.
    """

    min_steps: int = 0
    max_steps: float | None = None
    truncate: Literal["head", "tail"] = "head"

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_steps", checked_max_steps(self.max_steps))
        if self.min_steps < 0:
            raise ConfigError(f"min_steps is {self.min_steps}; expected 0 or more.")
        if self.truncate not in ("head", "tail"):
            raise ConfigError(f"truncate is {self.truncate!r}; expected 'head' or 'tail'.")


def count_name(policy: str, choice: str) -> str:
    """What a count of a choice is called: "null_sequence skip"."""
    return f"{policy} {choice}"


def told_counts(counts: Mapping[str, int]) -> str:
    """Counts of choices in words, by their names; not of rows that begin and end with the initial carry: that is legal.

    Example:
        >>> told_counts({"bad_value zero": 2000, "null_sequence skip": 1})
        'bad_value zero 2,000 values, null_sequence skip 1 row'
    """
    told = []
    for name, count in sorted(counts.items()):
        if name == count_name("empty_sequence", INITIAL_CARRY):
            continue
        unit = _COUNTED.get(name.partition(" ")[2], "rows")
        told.append(f"{name} {count:,} {unit if count != 1 else unit[:-1]}")
    return ", ".join(told)
