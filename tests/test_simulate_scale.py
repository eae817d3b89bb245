"""The simulation of many hosts: laws that hold whatever things cost, and sums that can be done by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

simpy = pytest.importorskip("simpy")

from benchmarks.scale.claims import AT_A_TIME, Claims, Queue, Shares  # noqa: E402
from benchmarks.scale.costs import BUCKET, EVEN, KINDS, NO_STORE, RENTED, Cost, Costs, Fleet, Store  # noqa: E402
from benchmarks.scale.hosts import OwnHost  # noqa: E402
from benchmarks.scale.large import DRIVER, SHARES, STEAL, Large  # noqa: E402
from benchmarks.scale.real_runs import Case, simulate  # noqa: E402
from benchmarks.scale.simulation import Asks, Outcome, Simulation, Work  # noqa: E402
from scanrnn_dist.job import hand_out  # noqa: E402
from scanrnn_dist.records.lease import BEATS_PER_EXPIRY  # noqa: E402
from scanrnn_dist.records.workers import EXPIRY_SECONDS  # noqa: E402

START = Cost(2.0, 2.0)


def run(
    seconds: np.ndarray,
    workers: int = 1,
    is_shared: bool = False,
    fleet: Fleet = EVEN,
    store: Store = NO_STORE,
    seed: int = 0,
    speeds: tuple[float, ...] = (),
    each: int = 1,
    **work: object,
) -> Outcome:
    env = simpy.Environment()
    hosts = [OwnHost(env, speed) for speed in speeds or (1.0,) * workers]
    steal = each > 1 or fleet.back_after is None  # else nobody goes on with the share of one that is gone
    claims: Claims = Shares(seconds, workers, 5.0, steal, each, seed) if is_shared else Queue(seconds, workers, 5.0)
    return Simulation(env, hosts, claims, Work(seconds, START, **work), fleet, store, seed).run()  # type: ignore[arg-type]


UNITS = st.lists(st.floats(0.1, 50.0), min_size=1, max_size=60).map(np.array)
WORKERS = st.integers(1, 7)


@settings(max_examples=30)
@given(UNITS, st.booleans())
def test_one_host_takes_the_sum_of_all_costs(seconds: np.ndarray, is_shared: bool) -> None:
    outcome = run(seconds, is_shared=is_shared, plan=Cost(0.0, 7.0), end=Cost(0.0, 3.0))
    assert outcome.planned == 7
    assert outcome.worked == pytest.approx(7 + START.wall + seconds.sum())
    assert outcome.seconds == pytest.approx(outcome.worked + 3)


@settings(max_examples=30)
@given(UNITS, WORKERS)
def test_a_driver_ends_within_a_unit_of_an_even_spread(seconds: np.ndarray, workers: int) -> None:
    """Graham's bound, where one unit goes out at a time; else that of the longest claim."""
    outcome = run(seconds, workers)
    most = max(1, len(seconds) // (AT_A_TIME * workers)) * seconds.max()
    even = START.wall + seconds.sum() / workers
    assert even - 1e-6 <= outcome.worked <= even + most + 1e-6


@settings(max_examples=30)
@given(UNITS, WORKERS)
def test_shares_end_with_the_heaviest(seconds: np.ndarray, workers: int) -> None:
    outcome = run(seconds, workers, is_shared=True)
    assert outcome.worked <= START.wall + seconds.sum() / workers + seconds.max() + 1e-6


@settings(max_examples=40)
@given(UNITS, WORKERS, st.booleans(), st.integers(0, 9), st.sampled_from([None, 1.0, 60.0]), st.sampled_from([1, 4]))
def test_every_unit_is_committed_once_whoever_dies(
    seconds: np.ndarray, workers: int, is_shared: bool, seed: int, back_after: float | None, each: int
) -> None:
    outcome = run(seconds, workers, is_shared, Fleet(hours=0.05, back_after=back_after), seed=seed, each=each)
    if back_after is not None or math.isfinite(outcome.seconds):
        assert outcome.done == len(seconds) and math.isfinite(outcome.seconds)
    else:
        assert outcome.done < len(seconds) and outcome.deaths == workers  # nobody was left


@settings(max_examples=30)
@given(UNITS, WORKERS, st.booleans(), st.integers(0, 9))
def test_a_seed_tells_all(seconds: np.ndarray, workers: int, is_shared: bool, seed: int) -> None:
    fleet = Fleet(hours=0.1, back_after=10.0)
    assert run(seconds, workers, is_shared, fleet, seed=seed) == run(seconds, workers, is_shared, fleet, seed=seed)


@pytest.mark.parametrize("is_shared", [False, True])
def test_more_losses_take_longer(is_shared: bool) -> None:
    seconds = np.random.default_rng(0).lognormal(3.0, 0.5, 200)
    means = [
        np.mean(
            [run(seconds, 8, is_shared, Fleet(hours=hours, back_after=60.0), seed=seed).seconds for seed in range(12)]
        )
        for hours in (math.inf, 2.0, 0.5, 0.1)
    ]
    assert means == sorted(means) and means[0] < means[-1]


def test_a_death_loses_half_a_unit() -> None:
    seconds = np.full(5_000, 100.0)
    outcomes = [run(seconds, 50, fleet=Fleet(hours=0.5, back_after=30.0), seed=seed) for seed in range(4)]
    deaths = sum(outcome.deaths for outcome in outcomes)
    assert deaths > 1000  # 4 x 50 hosts, 10,000 s each, one in 1,800 s
    assert sum(outcome.lost for outcome in outcomes) / deaths == pytest.approx(50, rel=0.05)


def test_a_slow_host_delays_a_driver_by_a_unit_and_shares_by_as_much_as_it_is_slow() -> None:
    seconds, speeds = np.full(400, 1.0), (1.0, 1.0, 1.0, 0.5)
    even = START.wall + seconds.sum() / sum(speeds)
    assert run(seconds, 4, speeds=speeds).worked <= even + 2 * max(1, 400 // (AT_A_TIME * 4))
    assert run(seconds, 4, is_shared=True, speeds=speeds).worked == pytest.approx(START.wall + 100 / 0.5)
    outcome = run(seconds, 4, is_shared=True, speeds=speeds, each=10)
    assert even - 1e-6 <= outcome.worked <= even + 10 / 0.5 + 1e-6  # by a small share


def test_whoever_takes_a_share_reads_the_records_before() -> None:
    look = (Cost(0.0, 3.0), Asks())
    outcome = run(np.ones(40), 2, is_shared=True, each=4, look=lambda committed: look, looks_after=True)
    assert outcome.claims == 8
    assert outcome.worked == pytest.approx(3 + START.wall + 4 * 5 + 3 * 3)  # the first look, shares, looks between them
    slow = run(
        np.ones(40), 2, is_shared=True, each=4, speeds=(1.0, 0.05), look=lambda committed: look, looks_after=True
    )
    assert slow.waiting > 0 and slow.done == 40


def test_a_store_at_its_rate_keeps_all_waiting() -> None:
    store = Store(get=0.01, put=0.02, list_page=0.1, reads=100, writes=50)
    alone = run(np.ones(1), store=store, opening=Asks(reads=3, pages=2, writes=1))
    assert alone.worked == pytest.approx(START.wall + 1 + 3 * 0.01 + 2 * 0.1 + 0.02)
    crowd = run(np.ones(200), 200, store=store, opening=Asks(reads=3, pages=2, writes=1))
    assert crowd.worked == pytest.approx(START.wall + 1 + 200 * (5 / 100 + 1 / 50))
    assert crowd.asked == 200 * 6


@pytest.mark.parametrize(("notice", "round_ends"), [(1.0, 2 + 30), (40.0, 7 + 40)])
def test_a_driver_looks_again_before_it_hands_out_what_came_back(notice: float, round_ends: float) -> None:
    seconds, killed = np.full(4, 10.0), (1, 7.0)
    env = simpy.Environment()
    work = Work(seconds, START, between=(Cost(0.0, 40.0), Asks()))
    claims = Queue(seconds, 2, notice)
    fleet = Fleet(back_after=None)
    outcome = Simulation(env, [OwnHost(env), OwnHost(env)], claims, work, fleet, killed=killed).run()
    assert (outcome.deaths, outcome.lost) == (1, 5.0)
    assert outcome.worked == round_ends + 40 + 10  # three units, the look, and the fourth once more


COSTS = Costs(
    cores=2, crowding=1.0, imports=Cost(1.0, 1.0), start=Cost(3.0, 3.0), driver=Cost(0.5, 0.5),
    unit=Cost(0.002, 0.002), step=Cost(1e-6, 1e-6), hand_out=1e-3, work_steps=100.0, features=4, hidden=128,
    footer_file=1e-3, footer_group=1e-4, open_file=1e-5, open_unit=1e-5, open_memory=400.0, end_unit=1e-5,
    share_unit=1e-6, units_bytes=4.0, log_bytes=250.0, parts_bytes=40.0,
    calls={"read per unit": 3.0, "write per unit": 3.0, "read per job": 32.0, "write per job": 10.0},
)  # fmt: skip


@pytest.mark.parametrize(("processes", "seconds"), [(1, 3.0 + 10.0), (2, 3.0 + 5.0), (4, 6.0 + 5.0)])
def test_processes_that_share_two_cores_take_what_the_cores_allow(processes: int, seconds: float) -> None:
    costs = replace(COSTS, unit=Cost())
    outcome, cpu = simulate(costs, [500_000] * 20, Case("", processes))
    assert outcome.seconds == pytest.approx(seconds, rel=0.02)
    assert cpu == pytest.approx(3.0 * processes + 10.0)


def test_others_take_their_part_of_the_cores() -> None:
    alone, _ = simulate(COSTS, [500_000] * 20, Case("", 2))
    beside, _ = simulate(COSTS, [500_000] * 20, Case("", 2), others=1.0)
    assert beside.seconds == pytest.approx(2 * alone.seconds, rel=0.05)


def test_a_real_driver_starts_before_its_workers() -> None:
    case = Case("", 2, has_driver=True)
    assert simulate(COSTS, [500_000] * 20, case)[0].planned == pytest.approx(0.5)


JOB = Large(COSTS, KINDS["2 cores"], 64, rows=1e10, fleet=EVEN, store=NO_STORE)


def test_a_large_job_by_hand() -> None:
    unit_seconds = (1 << 20) * 100 * 1e-6 / 2
    assert JOB.unit_seconds == pytest.approx(unit_seconds)
    assert JOB.ideal_seconds == pytest.approx(1e10 * 100 * 1e-6 / 2 / 64)
    assert JOB.plan_seconds() == pytest.approx(JOB.files * 1e-3 + 1e10 / (1 << 16) * 1e-4)
    alone = replace(JOB, store=BUCKET, at_once=1)
    assert alone.plan_seconds() == pytest.approx(JOB.plan_seconds() + JOB.files * 2 * 0.03 + JOB.files / 1000 * 0.1)
    slow = replace(JOB, store=replace(BUCKET, get=0.3))
    assert slow.plan_seconds() == pytest.approx(JOB.files * 2 * 0.3 / 64 + JOB.files / 1000 * 0.1)
    both = JOB.plan_seconds() + JOB.files / 1000 * 0.1  # the look at each takes longer
    assert replace(JOB, store=BUCKET).plan_seconds() == pytest.approx(both)
    outcome = JOB.run()
    beside = JOB.units * 0.002 / 2 / 64 + 3 + JOB.units * 1e-5 * 3  # units, the start, the plan read, the end
    assert replace(JOB, store=BUCKET).look_seconds() == pytest.approx(
        JOB.units * 1e-5
        + ((64 + 2 * JOB.units / 1000) / 64 + 1) * 0.03
        + (64 + 1 + 2 * JOB.units / 1000 + JOB.units) / 1000 * 0.1
    )
    longest = unit_seconds * 6  # the longest of 9,537 lognormal ones
    took = outcome.seconds - outcome.planned
    assert JOB.ideal_seconds + beside - 1e-6 <= took <= JOB.ideal_seconds + beside + longest
    assert JOB.efficiency(outcome) == pytest.approx(JOB.ideal_seconds / took)


def test_rented_hosts_are_less_efficient_and_the_same_every_time() -> None:
    rented = replace(JOB, fleet=replace(RENTED, hours=5.0))
    outcome = rented.run()
    assert outcome == rented.run() and outcome.deaths > 0 and outcome.done == JOB.units
    assert rented.efficiency(outcome) < JOB.efficiency(JOB.run())


def test_beats_of_very_many_shares_are_more_than_a_bucket_answers() -> None:
    """Each owner asks twice and writes once at every beat, 20 a minute."""
    many = replace(JOB, hosts=10_000, way=SHARES, store=BUCKET)
    assert (many.beat_asks().reads, many.beat_asks().writes) == pytest.approx((6_667, 3_333), rel=1e-3)
    assert many.run().seconds == math.inf
    assert replace(many, hosts=4_096).run().seconds < math.inf
    assert replace(many, way=DRIVER).beat_asks().count == pytest.approx(1)


def test_files_of_leases_grow_with_the_shares_that_were_begun() -> None:
    ways = {way: replace(JOB, way=way) for way in (DRIVER, SHARES, STEAL)}
    assert [ways[way].leases(0.0) for way in ways] == [1, 64, 64]
    assert [ways[way].leases(1.0) for way in ways] == [1, 64, 16 * 64]


def test_small_shares_are_worth_what_slow_hosts_cost() -> None:
    fleet = Fleet(spread=0.05, slow=0.1)
    told = {way: replace(JOB, way=way, fleet=fleet) for way in (DRIVER, SHARES, STEAL)}
    efficiency = {way: each.efficiency(each.run()) for way, each in told.items()}
    assert efficiency[SHARES] < 0.6 < 0.85 < efficiency[STEAL] < efficiency[DRIVER]


def test_a_driver_is_the_limit_once_units_are_too_small() -> None:
    small = replace(JOB, hosts=10_000, rows_per_part=4096, rows=1e9)
    rate = 10_000 / (4096 * 100 * 1e-6 / 2)
    assert small.stretch() == pytest.approx(rate * 1e-3 + 200 * 1e-3)
    assert JOB.stretch() == 1


def test_constants_are_those_of_the_package() -> None:
    from benchmarks.scale import costs

    assert AT_A_TIME == hand_out.AT_A_TIME and costs.NEWS_PER_SECOND == hand_out.NEWS_PER_SECOND
    assert costs.BEATS == BEATS_PER_EXPIRY and costs.EXPIRY == EXPIRY_SECONDS


def test_committed_costs_can_be_read() -> None:
    costs = Costs.load()
    assert costs.step.cpu > 0 and costs.calls["write per unit"] > 0
    assert not any(count for name, count in costs.calls.items() if name.startswith("list") and "per unit" in name)
