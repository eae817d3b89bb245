"""How long the sequences of a job's source are: a sample, read from the source, which may be gone or changed by now."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from scanrnn_dist.errors import ScanRNNError, one_line
from scanrnn_dist.job import APPLIED, LengthCounts, Plan, read_lengths
from scanrnn_dist.records import JobRecords

RETRY_SECONDS = 60.0
"""So long after reading failed it is tried again: a bucket that cannot be reached may take half a minute to fail."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of some sequences, as they stand in the source, before any is cut.

    Args:
        counts: of each length.
        is_whole: whether all sequences of the source were read.
        problem: why there are none; empty if there are some.
        again_at: when reading may be tried again, by `time.monotonic`; infinite where it did not fail.
    """

    counts: LengthCounts
    is_whole: bool = False
    problem: str = ""
    again_at: float = math.inf


def read_lengths_of(records: JobRecords, job: dict[str, Any]) -> Lengths:
    """Read lengths from the source of a job; what stands in the way of that is told, not raised."""
    if job["options"].get(APPLIED):
        return Lengths(LengthCounts(), problem="The rows were continued by updates, so no source has all steps.")
    try:
        plan = Plan.read(records, job)
        read = read_lengths(plan)
    except (ScanRNNError, OSError) as error:
        problem = f"The source could not be read: {one_line(str(error))}"
        return Lengths(LengthCounts(), problem=problem, again_at=time.monotonic() + RETRY_SECONDS)
    problem = "" if read.lengths.sequences else "The source has no sequences."
    return Lengths(read.lengths, read.rows == plan.source.rows, problem)
