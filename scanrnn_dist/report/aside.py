"""The first rows that a job has set aside, from a few of its lists, however many there are."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import pyarrow.compute as pc

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.records import Commits, read_quarantine
from scanrnn_dist.storage import Store

MOST_ROWS, MOST_LISTS = 20, 8


@dataclass(frozen=True)
class AsideRow:
    """A row that was set aside: where it stands, by which choice, and why."""

    file: str
    row: int | None
    policy: str
    reason: str


def first_aside(store: Store, commits: Commits) -> tuple[AsideRow, ...]:
    """The first rows that were set aside, in input order; of lists that cannot be read, the reason."""
    rows: list[AsideRow] = []
    units = commits.records.filter(pc.greater(commits.records["aside"], 0))["unit"].slice(0, MOST_LISTS).to_pylist()
    for unit in units:
        try:
            with closing(read_quarantine(store, unit, commits.units)) as batches:  # type: ignore[type-var]
                for batch in batches:
                    told = batch.select(["file", "file_row", "policy", "reason"]).slice(0, MOST_ROWS - len(rows))
                    rows += [AsideRow(*line.values()) for line in told.to_pylist()]
                    if len(rows) == MOST_ROWS:
                        return tuple(rows)
        except (DataError, StoppedError) as error:
            rows.append(AsideRow("", None, "", str(error)))
            if isinstance(error, StoppedError):  # the others would be waited for as long
                break
    return tuple(rows)
