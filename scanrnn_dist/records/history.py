"""What one attempt did, for whoever looks back at a job; as `commit_log.py` reads it, with all else, from its log."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.records.attempt_log import Took

TOOK = pa.struct([(each.name, pa.int64() if each.type == "int" else pa.float64()) for each in fields(Took)])
"""`Took` as a column."""


@dataclass(frozen=True)
class AttemptHistory:
    """What one attempt did, as its log tells.

    Args:
        name: of it, `HOST.PID.RANDOM`, and `-JOB` once its parts are another job's.
        header: the first line of its log.
        rows: `(n,)`, of each part that it committed, in the order of the log.
        finished: `(n,)`, when each was committed, in seconds since 1970.
        took: where its time went, as far as it was recorded; None if it was not.
        is_ended: whether it ended by itself.
    """

    name: str
    header: dict[str, Any]
    rows: np.ndarray
    finished: np.ndarray
    took: Took | None = None
    is_ended: bool = False

    @property
    def started(self) -> float:
        """When it began, in seconds since 1970."""
        return float(self.header["started"])


def last_of(column: pa.ChunkedArray) -> Took | None:
    """Where the time went, as the last line tells that tells of it."""
    told = column.drop_null()
    return Took(**{name: value or 0 for name, value in told[-1].as_py().items()}) if len(told) else None
