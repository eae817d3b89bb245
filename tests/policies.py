"""What the policies make of a row, written once more in plain Python: what `source/taking.py` is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scanrnn_dist.source import BadRows, Lengths

Row = list[list[float | None] | None] | None
"""Steps, each the numbers of its features; a null in place of any of these."""


@dataclass
class Made:
    """What becomes of one row: `steps`, or null features, or it is set aside, or it fails its unit.

    `policy` and `step` say which rule did the last two; `counts` what was counted on the way.
    """

    steps: list[list[float]] = field(default_factory=list)
    becomes: str = "row"
    policy: str = ""
    step: int | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def by(self, policy: str, choice: str, step: int | None = None, count: int = 1) -> Made:
        """This row, once a policy was applied to it."""
        self.counts[f"{policy} {choice}"] = count
        if choice in ("error", "skip", "null"):
            self.becomes, self.policy, self.step = choice, policy, step
        return self


def made_of(row: Row, in_features: int, bad_rows: BadRows, lengths: Lengths) -> Made:
    """What becomes of a row."""
    made = Made()
    if row is None:
        return made.by("null_sequence", bad_rows.null_sequence)
    for number, step in enumerate(row):
        if step is not None and len(step) != in_features:
            return made.by("wrong_width", bad_rows.wrong_width, number)
    steps = [[math.nan if value is None else value for value in step or [None] * in_features] for step in row]
    bad = [number for number, step in enumerate(steps) if not all(map(math.isfinite, step))]
    choice = bad_rows.bad_value
    if bad and choice in ("error", "skip"):
        return made.by("bad_value", choice, bad[0])
    values = sum(not math.isfinite(value) for step in steps for value in step)
    if bad:
        made.by("bad_value", choice, count=len(bad) if choice == "drop-step" else values)
    if choice == "drop-step":
        steps = [step for number, step in enumerate(steps) if number not in bad]
    elif choice in ("zero", "forward-fill"):
        last = [0.0] * in_features
        for number, step in enumerate(steps):
            steps[number] = [it if math.isfinite(it) else old for it, old in zip(step, last, strict=True)]
            last = steps[number] if choice == "forward-fill" else last
    made.steps = steps
    is_short = len(steps) < lengths.min_steps
    if not steps and not (bad_rows.empty_sequence == "initial-carry" and is_short):
        made.by("empty_sequence", bad_rows.empty_sequence)
    if made.becomes == "row" and is_short:
        made.by("too_short", bad_rows.too_short)
    if made.becomes == "row" and lengths.max_steps is not None and len(steps) > lengths.max_steps:
        made.by("too_long", bad_rows.too_long)
        most = int(lengths.max_steps)
        made.steps = steps[:most] if lengths.truncate == "head" else steps[len(steps) - most :]
    return made
