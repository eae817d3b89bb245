"""What the simulation starts from: costs that `measure.py` measured, and assumptions, each with its source.

Costs stand in `benchmarks/results/scale.json`. Assumptions stand here: one machine cannot measure them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "results" / "scale.json"


@dataclass(frozen=True)
class Cost:
    """Seconds of something: of all threads on their processors, and by the clock on an idle machine.

    Example:
        >>> Cost(2.0, 1.0) + 2 * Cost(1.0, 1.0)
        Cost(cpu=4.0, wall=3.0)
    """

    cpu: float = 0.0
    wall: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu + other.cpu, self.wall + other.wall)

    def __rmul__(self, times: float) -> Cost:
        return Cost(times * self.cpu, times * self.wall)


@dataclass(frozen=True)
class Costs:
    """What was measured: seconds, bytes and calls of the store. `measure.py` says how."""

    cores: int  # of the machine
    crowding: float  # processor seconds of a job with all cores busy, over those with one busy
    imports: Cost  # of JAX and this package, in a fresh process
    start: Cost  # of a whole command with next to no work: imports, compilation, opening, ending
    driver: Cost  # what `--processes` adds to that
    unit: Cost  # of each unit, besides its steps: begin, file, sync, commit record
    step: Cost  # of each step: read, convert, lay out, compute, write
    hand_out: float  # a driver's processor seconds for each unit
    work_steps: float  # steps of a row on average in that work
    features: int  # of a step
    hidden: int  # of the encoder
    footer_file: float  # planning, per file: open, footer, checks
    footer_group: float  # planning, per row group
    open_file: float  # opening a job that is recorded, per file of its source: listed and compared
    open_unit: float  # per unit: the plan read; of committed ones the commit record and the name of the part
    open_memory: float  # bytes of the process per unit
    end_unit: float  # who ends the job, per unit: the list of all parts written
    share_unit: float  # dealing units out to shares, per unit
    units_bytes: float  # of the plan, per unit
    log_bytes: float  # of the commit logs, per unit
    parts_bytes: float  # of the list of parts, per unit
    calls: dict[str, float] = field(default_factory=dict)  # of the store: "read per unit", "list workers per job", ...
    machine: dict[str, Any] = field(default_factory=dict)  # where it was measured, and when

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path = FILE) -> Costs:
        """Those of a file that `save` wrote."""
        told = json.loads(path.read_text())
        pairs = {name: Cost(**it) for name, it in told.items() if name in PAIRS}
        return cls(**{**told, **pairs})


PAIRS = ("imports", "start", "driver", "unit", "step")


@dataclass(frozen=True)
class Store:
    """What a destination takes for a request, and how many it answers.

    `get` and `put` are seconds of one request, `list_page` of a page of a thousand names; `reads` and `writes` are
    how many it answers in a second, by all who ask.
    """

    get: float
    put: float
    list_page: float
    reads: float
    writes: float


BUCKET = Store(get=0.03, put=0.06, list_page=0.1, reads=5_500, writes=3_500)
"""Rates: what S3 answers at least under one partitioned prefix, by Amazon's "Best practices design patterns: optimizing
Amazon S3 performance". Seconds: assumed; the same guide tells of a median of tens of milliseconds for small objects."""
NO_STORE = Store(0.0, 0.0, 0.0, float("inf"), float("inf"))
"""A folder of the measured machine: the costs hold it already."""

AT_ONCE = 64
"""Requests that are under way at once where footers or logs are read (`source/footers.py`, `storage/asking.py`)."""
FOOTER_READS = 2
"""Assumed requests for a footer of a file in a bucket: its size, and its end."""
READ_BYTES = 8 << 20
"""Assumed bytes of the source for each request that reads it."""
FILE_ROWS = 1 << 20
"""Assumed rows of a file, where units are not larger: a unit never spans files. 1.6 GB of the measured work."""
GROUP_ROWS = 1 << 16
"""Assumed rows of a row group."""
HEAVY = 0.5
"""Assumed standard deviation of the logarithm of a unit's steps: the largest of a million has 10 times the mean."""
CALL = 0.001
"""Assumed seconds of a driver for a message from a worker of another machine: about a call of an actor of Ray."""
NEWS_PER_SECOND = 200
"""Workers tell a driver what happened so often, all together (`job/hand_out.py`)."""
NOTICE = 30.0
"""Assumed seconds until a driver knows that a host is gone."""
EXPIRY = 60.0
"""Seconds until others may take a share over; its owner says that it lives 20 times meanwhile (`records/lease.py`)."""
BEATS = 20


@dataclass(frozen=True)
class Kind:
    """A kind of host, and how many processes of the job it has.

    `cores` of a process are as those of the measured machine with all of them busy; where it has a GPU, that does so
    many floating point operations a second, if the process can feed it.
    """

    name: str
    processes: int = 1
    cores: float = 1.0
    flops: float = 0.0

    def step_seconds(self, costs: Costs) -> float:
        """Of a step, by one of its processes."""
        if not self.flops:
            return costs.step.cpu * costs.crowding / self.cores
        computed = 6 * costs.hidden * (costs.features + costs.hidden) / self.flops
        return max(computed, 4 * costs.features / fed_bytes_per_second())


KINDS = {
    "2 cores": Kind("2 cores", cores=2),  # the measured machine
    "64 cores": Kind("64 cores", cores=64),  # assumed: 32 times the measured machine
    "8 GPUs": Kind("8 GPUs", processes=8, cores=2, flops=20e12),  # assumed: 20 TFLOP/s a GPU at float32
}


def fed_bytes_per_second() -> float:
    """What one process reads, converts and lays out in a second of flat lists, as `bench_feed` measured it."""
    told = json.loads((FILE.parent / "feed.json").read_text())
    return 1e6 * float(told["flat lists"]["wall"]["median"]["megabytes_per_second"]["feed"])


@dataclass(frozen=True)
class Fleet:
    """How the hosts of a job behave; assumed.

    `spread` is the standard deviation of the logarithm of their speed; `slow` the share of hosts at half speed;
    `hours` the mean hours until a host is lost, infinite for never; `back_after` the seconds until another one begins
    in its place, None for never.
    """

    spread: float = 0.0
    slow: float = 0.0
    hours: float = math.inf
    back_after: float | None = 180.0


EVEN = Fleet()
RENTED = Fleet(spread=0.05, slow=0.01, hours=50.0)
"""Two machines that are let as alike differ by 5 %, one in a hundred is at half speed, one is lost in 50 hours."""

LOSSES = {
    math.inf: "none is lost",
    6300.0: "419 interruptions of 2,048 hosts of 8 GPUs in 54 days (The Llama 3 Herd of Models, 2024)",
    3300.0: "20 % a month: where the worst class of Amazon's Spot Instance Advisor begins",
    50.0: "assumed above: far worse than either",
    24.0: "Google's preemptible VMs live a day at most",
    5.0: "a cluster that is being emptied",
    1.0: "for the shape of the curve",
}
"""Mean hours of a host until it is lost, and where the figure comes from."""
