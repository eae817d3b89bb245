"""What a call did, for people and for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from scanrnn_dist.errors import counted
from scanrnn_dist.observe import as_text
from scanrnn_dist.records import QUARANTINE, PartRecord
from scanrnn_dist.source import told_counts


@dataclass
class Made:
    """What one call committed, alone or with the workers that help it."""

    rows: int = 0
    parts: int = 0
    set_aside: int = 0
    filtered: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, record: PartRecord) -> None:
        """Count one more part."""
        self.parts += 1
        self.rows += record.rows
        self.set_aside += record.aside
        self.filtered += record.filtered
        self.counts.update(json.loads(record.counts))


@dataclass(frozen=True)
class JobReport:
    """What one call did of a job, which other processes may share.

    `rows`, `steps` and `parts` are what this call did. `rows_before` rows were saved when it began. `units_left` parts
    are left to other processes, and `failed_units` of these failed there. `is_complete` says whether `_SUCCESS` is
    there. All that a worker committed before it died counts, but not its steps and waits.

    `gflops` counts useful work only: the products of the cell on real steps. `kernel` is the program that computed,
    "native" or "xla", and `occupancy` says what share of its work was real steps. The three waits are the seconds for
    which the thread that feeds the devices waited for the reader, the devices and the writer.

    `set_aside` rows were set aside, and are not in `rows`. `counts` says how often each choice for bad rows was
    applied: `{"null_sequence skip": 3}`. `files_left_out` files of the source could not be read, and were left out.
    `filtered` rows were left out by the filter.
    """

    destination: str
    rows: int
    steps: int
    parts: int
    rows_before: int
    units_left: int
    failed_units: int
    is_complete: bool
    seconds: float
    gflops: float
    occupancy: float
    compilations: int
    read_wait_seconds: float
    device_wait_seconds: float
    write_wait_seconds: float
    peak_memory_bytes: int
    set_aside: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    files_left_out: int = 0
    kernel: str = ""
    filtered: int = 0
    rows_per_second: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows_per_second", self.rows / self.seconds)

    @classmethod
    def of_nothing(cls, destination: str, rows_before: int, counts: Mapping[str, int] | None = None) -> JobReport:
        """Of a call that found everything done; `counts` tell of what it read."""
        did = (0, 0, 0, rows_before, 0, 0, True, 1e-9, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 0)
        return cls(destination, *did, counts=counts or {})

    @property
    def _left(self) -> str:
        failed = f", of which {self.failed_units:,} failed there" if self.failed_units else ""
        return f"{counted(self.units_left, 'part')} left to other processes{failed}"

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        told = told_counts(self.counts)
        more = f"\nbad rows: {told}" if told else ""
        if not self.rows and not self.parts and self.is_complete:
            return f"Nothing to do: {self.destination} is finished, with {counted(self.rows_before, 'row')}.{more}"
        if not self.rows and not self.parts:
            return f"Nothing to do in this share of {self.destination}: {self._left}."
        before = f" ({counted(self.rows_before, 'row')} were there before)" if self.rows_before else ""
        more += (
            f"\n{counted(self.set_aside, 'row')} set aside, in {self.destination}/{QUARANTINE}"
            if self.set_aside
            else ""
        )
        if self.filtered:
            more += f"\n{counted(self.filtered, 'row')} left out by --filter"
        if self.files_left_out:
            more += f"\n{counted(self.files_left_out, 'file')} of the source left out: unreadable"
        more += "" if self.is_complete else f"\nNot complete: {self._left}"
        return (
            f"{counted(self.rows, 'row')}, {counted(self.steps, 'step')} -> {counted(self.parts, 'part')} "
            f"in {self.destination}{before}\n"
            f"{self.seconds:.2f} s: {self.rows_per_second:,.0f} rows/s, {self.gflops:,.3g} GFLOP/s by the "
            f"{self.kernel} kernel; {self.occupancy:.1%} of the computed steps were steps of a row\n"
            f"waited {self.read_wait_seconds:.2f} s for reading, {self.device_wait_seconds:.2f} s for devices, "
            f"{self.write_wait_seconds:.2f} s for writing; peak memory {self.peak_memory_bytes / 2**20:,.0f} MiB{more}"
        )
