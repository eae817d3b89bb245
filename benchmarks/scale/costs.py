"""What the simulation starts from: costs that `measure.py` measured on a machine, and assumptions, each with its source.

Costs stand in a JSON file, assumptions here: nobody can measure them on one machine. No number stands anywhere else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "results" / "scale" / "costs.json"


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
    """What was measured. Seconds, bytes and calls of the store; of what `measure.py` says beside each."""

    cores: int  # of the machine
    crowding: float  # processor seconds of the same work with all cores busy, by those with one busy
    imports: Cost  # of JAX and this package, in a fresh process
    start: Cost  # of a whole command with next to no work: imports, compilation, opening, ending
    unit: Cost  # of each unit, besides its steps: begin, file, sync, commit record
    step: Cost  # of each step: read, convert, lay out, compute, write
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
    calls: dict[str, float] = field(default_factory=dict)  # of the store: "read per unit", ...
    machine: dict[str, Any] = field(default_factory=dict)  # where it was measured, and when

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path = FILE) -> Costs:
        """Those of a file; raises `SystemExit` where it is not there."""
        if not path.exists():
            raise SystemExit(f"{path} is not there. Measure first: python -m benchmarks.simulate_scale --validate")
        told = json.loads(path.read_text())
        pairs = {name: Cost(**it) for name, it in told.items() if name in ("imports", "start", "unit", "step")}
        return cls(**{**told, **pairs})


@dataclass(frozen=True)
class Store:
    """What a destination takes for a request, and how many it answers.

    `get` and `put` are seconds of one request, `list_page` of a page of a thousand names; `reads` and `writes` are
    how many it answers in a second, by all who ask.
    """

    name: str
    get: float
    put: float
    list_page: float
    reads: float
    writes: float
    at_once: int = 1  # requests that a process has under way while it lists or reads records: today one


BUCKET = Store("bucket", get=0.03, put=0.06, list_page=0.1, reads=5_500, writes=3_500)
"""Rates: what S3 answers at least under one prefix ("Best practices design patterns: optimizing Amazon S3 performance":
3,500 PUT and 5,500 GET, HEAD or LIST a second). Seconds: assumed, of small objects within a region."""
NO_STORE = Store("this machine", 0.0, 0.0, 0.0, float("inf"), float("inf"))
"""Of what was measured on a folder of this machine, which the costs hold already."""


@dataclass(frozen=True)
class Kind:
    """A kind of host, and how many processes of the job it has.

    `cores` of a process are as those of the measured machine with all of them busy; where it has a GPU, that does so
    many floating point operations a second, if the process can feed it.
    """

    name: str
    source: str
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
    "2 cores": Kind("2 cores", "the measured machine", cores=2),
    "64 cores": Kind("64 cores", "assumed: 32 times the measured machine", cores=64),
    "8 GPUs": Kind("8 GPUs", "assumed: 20 TFLOP/s a GPU at float32; a process each, fed as fast as one is here",
                   processes=8, cores=2, flops=20e12),
}  # fmt: skip


def fed_bytes_per_second() -> float:
    """What one process reads, converts and lays out in a second of flat lists, as `bench_feed` measured it."""
    told = json.loads((FILE.parents[1] / "feed.json").read_text())
    return 1e6 * float(told["flat lists"]["wall"]["median"]["megabytes_per_second"]["feed"])


@dataclass(frozen=True)
class Fleet:
    """How the hosts of a job behave. All of it is assumed.

    `spread` is the standard deviation of the logarithm of their speed; `slow` the share of hosts at half speed;
    `lost_per_hour` how many of a host are taken away in an hour; `back_after` the seconds until another one has begun in
    its place, None for never.
    """

    name: str
    spread: float = 0.0
    slow: float = 0.0
    lost_per_hour: float = 0.0
    back_after: float | None = None


EVEN = Fleet("all alike, none lost")
REAL = Fleet("as rented", spread=0.05, slow=0.01, lost_per_hour=0.02, back_after=180.0)
SPOT = Fleet("as rented, and those lost do not come back", spread=0.05, slow=0.01, lost_per_hour=0.02)
"""Speeds: two machines that are let as alike differ by 5 %; one in a hundred is at half speed. Lost: one in fifty hours,
as of machines that may be taken away."""

HEAVY = 0.5
"""Assumed standard deviation of the logarithm of a unit's steps: files of one job differ, the largest of a million units
has 11 times the mean."""
DISPATCH = 0.001
"""Assumed seconds of a driver for each unit that it hands out and is told of: about a call of an actor of Ray."""
NOTICE = 30.0
"""Assumed seconds until a driver knows that a host is gone."""
EXPIRY = 60.0
"""Seconds until others may take a lease over (`EXPIRY_SECONDS` of the records), and its beats in that time."""
BEATS = 20
