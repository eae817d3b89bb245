"""Arithmetic of the records of a large job: how many bytes, what each process and whoever plans and ends it takes.

No simulation: units, files and processes times what was measured of one.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.scale.costs import BUCKET, Store
from benchmarks.scale.jobs import PAGE, Large

NAME_BYTES = 20
"""Assumed bytes of the plan for each file: its name has 16 random bytes, its size and time some. Regular names of the
measured jobs take less than one byte."""


@dataclass(frozen=True)
class Records:
    """Sizes in bytes, times in seconds, of a job whose units are all committed."""

    units: int
    files: int
    part_bytes: float  # of a unit's features
    unit_seconds: float  # of work, which a death loses half of
    plan: float
    logs: float
    parts: float
    memory: float  # of each process that reads the records
    footers: float  # planning: seconds of reading all footers, one after the other as today
    opening: float  # of each process: listing and comparing the source, reading the plan, dealing units out
    reading: float  # of each process, at its end: all commit logs, and the names of all parts
    ending: float  # of the last one: the list of parts


def of(job: Large, at_once: int = 1) -> Records:
    """The records of a job in a bucket, whose requests a process has so many of under way."""
    costs, store = job.costs, BUCKET
    segments = job.processes + 2 * job.units / PAGE
    pages = (segments + job.units + job.processes) / PAGE
    return Records(
        units=job.units,
        files=job.files,
        part_bytes=4.0 * costs.hidden * job.rows_per_part,
        unit_seconds=job.rows * costs.work_steps / job.units * job.step_seconds,
        plan=job.files * NAME_BYTES + job.units * costs.units_bytes,
        logs=job.units * costs.log_bytes,
        parts=job.units * costs.parts_bytes,
        memory=job.units * costs.open_memory,
        footers=job.files * (costs.footer_file + 2 * store.get / at_once) + job.units * costs.footer_group,
        opening=_listed(job.files, store, at_once) + job.files * costs.open_file
        + job.units * (costs.open_unit + costs.share_unit),
        reading=(segments * store.get + pages * store.list_page) / at_once + job.units * costs.open_unit,
        ending=job.units * costs.end_unit + store.put,
    )  # fmt: skip


def _listed(names: int, store: Store, at_once: int) -> float:
    """Seconds of listing so many names of a bucket."""
    return names / PAGE * store.list_page / at_once
