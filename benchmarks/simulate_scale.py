"""How a job of 1e12 rows fares on 1 to 10,000 hosts: a simulation that starts from what its steps cost here.

    python -m benchmarks.simulate_scale                        # the tables of docs/scale.md, from the committed costs
    python -m benchmarks.simulate_scale --measure --rounds 5   # measures the costs: benchmarks/results/scale.json
    python -m benchmarks.simulate_scale --validate --rounds 3  # real jobs of 1, 2 and 4 processes, and what is foretold

Needs `simpy`. What is measured and what is assumed stands in `benchmarks/scale/costs.py`. The last line is JSON.
`--validate` ends with 1 where a median is further than 15 % from what was foretold.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

from benchmarks.scale.costs import AT_ONCE, EVEN, FILE, KINDS, LOSSES, RENTED, Costs, Fleet
from benchmarks.scale.large import DRIVER, SHARES, STEAL, Large
from benchmarks.scale.simulation import Outcome

HOSTS = (1, 16, 256, 1024, 4096, 10_000)
UNIT_ROWS = tuple(1 << power for power in (16, 18, 20, 22, 24))
WAYS = (DRIVER, SHARES, STEAL)


def on_hosts(job: Large, hosts: Iterable[int]) -> list[tuple[Large, Outcome]]:
    """The same job on more and more hosts, by each way."""
    jobs = [replace(job, hosts=count, way=way) for count in hosts for way in WAYS]
    return [(on, on.run()) for on in jobs]


def by_hosts(ran: Iterable[tuple[Large, Outcome]]) -> list[dict[str, Any]]:
    """How well hosts are used, by how many there are."""
    return [
        {
            "hosts": on.hosts, "who": on.way, "hours": hours(outcome.seconds - outcome.planned),
            "efficiency": on.efficiency(outcome), "deaths": outcome.deaths,
            "starting": share(on, outcome, "starting"), "waiting": share(on, outcome, "waiting"),
        }
        for on, outcome in ran
    ]  # fmt: skip


def by_kind(job: Large) -> list[dict[str, Any]]:
    """Other hosts, as many as have work for about as long."""
    rows = []
    for name, count in (("2 cores", 1024), ("64 cores", 32), ("64 cores", 1024), ("8 GPUs", 8), ("8 GPUs", 64)):
        on = replace(job, kind=KINDS[name], hosts=count)
        outcome = on.run()
        rows.append({
            "kind": name, "hosts": count, "unit seconds": on.unit_seconds,
            "hours": hours(outcome.seconds - outcome.planned),
            "efficiency": on.efficiency(outcome), "driver load": on.driver_load(),
        })  # fmt: skip
    return rows


def by_unit(job: Large, unit_rows: Iterable[int]) -> list[dict[str, Any]]:
    """The same job with larger and larger units, on hosts that are alike, that are rented, and that are lost often."""
    rows = []
    for count in unit_rows:
        on = replace(job, rows_per_part=count)
        records = on.records()
        row: dict[str, Any] = {"rows per part": count, "units": on.units, "unit seconds": on.unit_seconds}
        for name, fleet in (("even", EVEN), ("rented", RENTED), ("5 h", replace(RENTED, hours=5.0))):
            of_fleet = replace(on, fleet=fleet)
            row[name] = of_fleet.efficiency(of_fleet.run())
        rows.append({**row, "driver load": on.driver_load(), "logs MB": records["logs"] / 1e6,
                     "memory MB": records["memory"] / 1e6, "part MB": records["part"] / 1e6})  # fmt: skip
    return rows


def by_losses(job: Large, seeds: int) -> list[dict[str, Any]]:
    """Hosts that are lost more and more often: means of some seeds."""
    rows = []
    for each, source in LOSSES.items():
        on = [replace(job, fleet=replace(job.fleet, hours=each), seed=seed) for seed in range(seeds)]
        outcomes = [(it, it.run()) for it in on]
        deaths, lost = (statistics.mean(getattr(it, name) for _, it in outcomes) for name in ("deaths", "lost"))
        rows.append({
            "mean hours": each, "deaths": deaths, "lost per death": lost / deaths if deaths else 0.0,
            "lost": statistics.mean(share(it, outcome, "lost") for it, outcome in outcomes),
            "efficiency": statistics.mean(it.efficiency(outcome) for it, outcome in outcomes), "of": source,
        })  # fmt: skip
    return rows


def by_stragglers(job: Large) -> list[dict[str, Any]]:
    """Hosts of unlike speed, none of which is lost: lognormal, and some of them at half speed besides."""
    rows = []
    for spread, slow in ((0.0, 0.0), (0.05, 0.0), (0.05, 0.01), (0.2, 0.01), (0.5, 0.05)):
        row: dict[str, Any] = {"spread": spread, "at half speed": slow}
        for way in WAYS:
            on = replace(job, way=way, fleet=Fleet(spread, slow))
            row[way] = on.efficiency(on.run())
        rows.append(row)
    return rows


def by_requests(ran: Iterable[tuple[Large, Outcome]]) -> list[dict[str, Any]]:
    """Requests a second at the bucket: of units and beats while all work, and of starts and looks on average."""
    rows = []
    for on, outcome in ran:
        reads, writes = on.requests_a_second()
        looks = outcome.asked / (outcome.seconds - outcome.planned or math.inf)
        rows.append({
            "hosts": on.hosts, "who": on.way, "reads": reads, "writes": writes, "of beats": on.beat_asks().count,
            "of looks": looks, "data": on.data_reads_a_second(),
        })  # fmt: skip
    return rows


def by_requests_at_once(job: Large) -> list[dict[str, Any]]:
    """What is gained if whoever plans, and whoever reads the records, has more than one request under way."""
    rows = []
    for hosts in (job.hosts, HOSTS[-1]):
        for at_once in (1, AT_ONCE):
            on = replace(job, hosts=hosts, at_once=at_once)
            outcome = on.run()
            rows.append({
                "hosts": hosts, "requests at once": at_once, "plan hours": hours(on.plan_seconds()),
                "efficiency": on.efficiency(outcome), "with the plan": on.efficiency(outcome, with_plan=True),
            })  # fmt: skip
    return rows


def hours(seconds: float) -> float:
    """Of seconds."""
    return seconds / 3600


def share(job: Large, outcome: Outcome, what: str) -> float:
    """Of the time of all processes, how much went so."""
    return float(getattr(outcome, what) / (job.processes * (outcome.seconds - outcome.planned)))


def by_hand(job: Large) -> str:
    """The arithmetic of the middle row, step by step."""
    costs, outcome = job.costs, job.run()
    step = job.kind.step_seconds(costs)
    units_each, records = job.units / job.processes, job.look_seconds()
    total = job.ideal_seconds + costs.start.wall + job.unit_seconds + records
    return f"""\
a step          {costs.step.cpu * 1e6:.3f} us of a processor, / {job.kind.cores:g} cores = {step * 1e6:.3f} us
all steps       {job.rows:.0e} rows x {costs.work_steps:.1f} = {job.rows * costs.work_steps:.2e} steps
ideal           x that / {job.hosts:,} hosts = {job.ideal_seconds:,.0f} s
a unit          {job.rows_per_part:,} rows = {job.unit_seconds:.1f} s; {job.units:,} units, {units_each:.0f} a host
each unit       + {costs.unit.cpu * 1e3:.2f} ms to write and commit: {costs.unit.cpu / 2 / job.unit_seconds:.3%}
start           {costs.start.wall:.1f} s a host
the end         a unit in hand: mean {job.unit_seconds:.0f} s, {job.unit_seconds / job.ideal_seconds:.2%}
the records     read before the job is finished: {records:.0f} s
together        {total:,.0f} s: {job.ideal_seconds / total:.1%}
a death         half a unit, {job.unit_seconds / 2:.0f} s, and {job.fleet.back_after:.0f} s until a host is back
simulated       {outcome.seconds - outcome.planned:,.0f} s: {job.efficiency(outcome):.1%}"""


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table."""
    head = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"]
    return "\n".join([*head, *(f"| {' | '.join(_told(*cell) for cell in row.items())} |" for row in rows)])


def tell(title: str, text: str, page: Path | None) -> None:
    """Print it; and put it into a page, between `<!-- TITLE -->` and `<!-- end -->`."""
    print(f"\n{title}\n\n{text}", flush=True)
    if page is not None:
        before, found, after = page.read_text().partition(f"<!-- {title} -->\n")
        assert found, f"{page} has no place for {title!r}"
        page.write_text(f"{before}{found}\n{text}\n\n<!-- end -->{after.partition('<!-- end -->')[2]}")


def _told(name: str, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "never" if "hours" in name else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        is_share = name in PERCENT
        digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
        return f"{value:.2%}" if is_share else f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


PERCENT = {
    "efficiency", "with the plan", *WAYS, "even", "rented", "5 h", "driver load",
    "lost", "starting", "waiting", "at half speed",
}  # fmt: skip


def tables(rows_per_part: int, seeds: int, page: Path | None) -> dict[str, list[dict[str, Any]]]:
    """All of them, told as they come."""
    job = Large(Costs.load(), KINDS["2 cores"], 1024, rows_per_part=rows_per_part, fleet=RENTED)
    tell("by hand", indent(by_hand(replace(job, fleet=EVEN)), "    "), page)
    ran = on_hosts(job, HOSTS)
    makers: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "hosts": lambda: by_hosts(ran),
        "kinds": lambda: by_kind(job),
        "units": lambda: by_unit(job, UNIT_ROWS),
        "losses": lambda: by_losses(job, seeds),
        "stragglers": lambda: by_stragglers(replace(job, hosts=256)),
        "requests": lambda: by_requests(ran[len(WAYS) * 2 : len(WAYS) * 5]),
        "requests at once": lambda: by_requests_at_once(job),
    }
    made = {}
    for title, make in makers.items():
        made[title] = make()
        tell(title, markdown(made[title]), page)
    return made


def main() -> None:
    """Measure, validate, or simulate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", action="store_true", help=f"measure, and write {FILE.name}")
    parser.add_argument("--validate", action="store_true", help="run real jobs, and compare")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows-per-part", type=int, default=1 << 20)
    parser.add_argument("--seeds", type=int, default=3, help="of hosts that are lost: means of so many")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page, docs/scale.md")
    given = parser.parse_args()
    result: Any
    is_within = True
    if given.measure or given.validate:
        from benchmarks.scale import measure, real_runs  # which start JAX

        if given.measure:
            costs = measure.all_costs(given.rounds)
            costs.save(FILE)
            result = {name: vars(value) if hasattr(value, "wall") else value for name, value in vars(costs).items()}
        if given.validate:
            result = real_runs.compare(given.rounds)
            is_within = all(row["within 15 %"] for row in result)
            tell("validation", markdown(result), given.write)
    else:
        result = tables(given.rows_per_part, given.seeds, given.write)
    print(json.dumps({"benchmark": "scale", "results": result}))
    sys.exit(0 if is_within else 1)


if __name__ == "__main__":
    main()
