"""A job that was killed anywhere, as often as may be, and called again gives the output of an undisturbed one.

Every run is a process of its own, with a JAX of its own; what kills it, stops it, or refuses its writes stands in
`crashing.py` and `zygote.py`. Not covered: a machine that loses power, and with it what was not synced.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pytest
from crashing import (
    KILLED,
    Job,
    Output,
    Scenario,
    Zygote,
    assert_same,
    assert_whole,
    identities,
    killed_at_each,
    output_of,
    recorded,
    sorts_of,
)
from sources import (
    SHAPE,
    TOLERANCE,
    H,
    encoder_of,
    entries,
    leftovers,
    random_rows,
    some_lengths,
    write_source,
)

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.records.suspects import SILENT_DEATHS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them."),
]

soak, sweep = pytest.mark.soak, pytest.mark.sweep
STOPPED = StoppedError.exit_code
ROWS_PER_PART = 5
KILLS = 200
"""Of real processes, that the tests here survive together."""
EXPIRY_SECONDS = 1.0
KINDS = {"mkdir", "open", "write", "sync", "rename", "link", "append", "delete"}
"""Of steps in a folder."""


def shared_by(number: int, count: int) -> dict[str, Any]:
    """The options of one of several processes that share a destination, and take over from those that stopped."""
    return {"sharing": {"share": (number + 1, count), "steal": True, "retry": True, "expiry_seconds": EXPIRY_SECONDS}}


@dataclass(frozen=True)
class Known:
    """A job, and what it gives and does undisturbed."""

    job: Job
    undisturbed: Output
    steps: list[str]
    seconds: float


@pytest.fixture(scope="module")
def small(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Four units of two files."""
    return known(zygote, tmp_path_factory.mktemp("small"), [10, 10])


@pytest.fixture(scope="module")
def larger(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Twelve units of three files."""
    return known(zygote, tmp_path_factory.mktemp("larger"), [20, 20, 20])


def known(zygote: Zygote, folder: Path, rows_of_files: list[int]) -> Known:
    """Write a source, and run its job undisturbed: the features are the oracle's."""
    rows = random_rows(some_lengths(sum(rows_of_files)))
    for number, end in enumerate(np.cumsum(rows_of_files)):
        begin = end - rows_of_files[number]
        write_source(folder / f"in/{number}.parquet", rows[begin:end], id=pa.array(range(begin, end)))
    encoder_of().save(folder / "encoder.safetensors")
    shape = SHAPE.lanes, SHAPE.block_steps, SHAPE.window_blocks
    # No unit ends its process here, but some are in hand whenever one is killed.
    options = {"rows_per_part": ROWS_PER_PART, "window_shape": shape, "sharing": {"retry": True}}
    job = Job(folder / "encoder.safetensors", folder / "in", options)
    zygote.wait(zygote.start(job, folder / "first", may_cache=True))
    begin = time.monotonic()
    run = zygote.start(job, folder / "undisturbed")
    zygote.wait(run)
    seconds = time.monotonic() - begin
    assert run.exit_code == 0, run
    undisturbed = output_of(folder / "undisturbed")
    assert undisturbed.ids == list(range(len(rows)))
    assert list(undisturbed.parts) == [f"part-{unit:05}.parquet" for unit in range(len(rows) // ROWS_PER_PART)]
    features = np.frombuffer(undisturbed.features, np.float32).reshape(-1, H)
    assert np.abs(features - oracle.gru_rows(encoder_of().cell, rows)).max() <= TOLERANCE
    for name in ("first", "undisturbed"):
        assert_same(folder / name, undisturbed, sample=5)
    return Known(job, undisturbed, run.steps, seconds)


def finished(zygote: Zygote, known: Known, destination: Path, sample: int = 0) -> Scenario:
    """A last, undisturbed run, and the comparison."""
    before = recorded(destination)
    run = zygote.start(known.job, destination)
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(destination, known.undisturbed, sample)
    assert_written_once(before, identities(destination))


def assert_written_once(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    """A job that goes on writes no part that stood and was recorded."""
    assert before.items() <= after.items()


# Kills ----------------------------------------------------------------------------------------------------------------


def killed_again_and_again(zygote: Zygote, known: Known, folder: Path, sorts: list[str]) -> Scenario:
    """Runs of one destination that are killed one after the other, and one that is not."""
    numbers = itertools.count()
    used = yield from killed_at_each(
        zygote, known.job, sorts, lambda: folder / f"{next(numbers)}", lambda out: assert_whole(out, known.undisturbed)
    )
    for destination in used:
        yield from finished(zygote, known, destination)


def test_a_job_that_is_killed_once_at_each_sort_of_step_is_as_undisturbed(
    zygote: Zygote, small: Known, tmp_path: Path
) -> None:
    sorts = sorts_of(small.steps)
    assert {sort.partition(" ")[0] for sort in sorts} == KINDS
    written = {name for kind, name in (sort.split(" ") for sort in sorts) if kind == "open"}
    records = ["job.json", "files-#.table", "units-#.table", "workers/#-of-#.#.json", "commits/#.jsonl", "parts.table"]
    assert written == {
        "part-#.parquet", "_SUCCESS", *(f"__scanrnn/{name}" for name in [*records, "encoder.safetensors"])
    }  # fmt: skip
    before = zygote.kills
    zygote.play({f"{n} of 2": killed_again_and_again(zygote, small, tmp_path / f"{n}", sorts[n::2]) for n in range(2)})
    assert zygote.kills - before == len(sorts) > 40


def killed_at(zygote: Zygote, known: Known, destination: Path, step: int) -> Scenario:
    """A run that is killed at a step, half the time one that is killed at another, and one that is not."""
    run = zygote.start(known.job, destination, fault=(step, "kill"))
    yield (run,)
    assert run.exit_code == KILLED, run
    assert len(run.steps) == step, run
    assert_whole(destination, known.undisturbed)
    if step % 2:
        left = len(known.steps) - step
        run = zygote.start(known.job, destination, fault=(random.Random(step).randint(1, max(6, left)), "kill"))
        before = recorded(destination)
        yield (run,)
        assert run.exit_code in (KILLED, 0), run
        assert_whole(destination, known.undisturbed)
        assert_written_once(before, identities(destination))
    yield from finished(zygote, known, destination)


@pytest.mark.parametrize("is_each", [pytest.param(False, marks=soak), pytest.param(True, marks=sweep)])
def test_a_job_that_is_killed_at_any_step_and_called_again_is_as_undisturbed(
    zygote: Zygote, small: Known, tmp_path: Path, is_each: bool
) -> None:
    steps = range(1, len(small.steps) + 1) if is_each else not_each_of_many(small.steps)[::2]
    zygote.play({f"killed at {n}": killed_at(zygote, small, tmp_path / f"step-{n}", n) for n in steps})
    assert zygote.kills >= len(steps)


def restarted(zygote: Zygote, known: Known, other: Output, destination: Path, step: int) -> Scenario:
    """A finished job that is begun anew with other options, and killed at a step of that; then the same once more."""
    yield from finished(zygote, known, destination)
    job = known.job.but_with(restart=True, max_steps=3)
    run = zygote.start(job, destination, fault=(step, "kill"))
    yield (run,)
    assert run.exit_code == KILLED, run
    if (destination / "_SUCCESS").exists():  # a whole output, old or new, and nothing of the other
        assert output_of(destination) in (known.undisturbed, other), run
    run = zygote.start(job, destination)
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(destination, other)


@pytest.fixture(scope="module")
def restarted_output(
    zygote: Zygote, small: Known, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Output, list[str]]:
    """A finished output; what a restart with another option makes of it, and by which steps."""
    folder = tmp_path_factory.mktemp("restarted")
    other = small.job.but_with(max_steps=3)
    zygote.play({"first": finished(zygote, small, folder / "first")})
    shutil.copytree(folder / "first", folder / "counted")
    runs = [zygote.start(other, folder / "other"), zygote.start(other.but_with(restart=True), folder / "counted")]
    zygote.wait(*runs)
    assert [run.exit_code for run in runs] == [0, 0], runs
    expected = output_of(folder / "other")
    assert output_of(folder / "counted") == expected != small.undisturbed
    return folder / "first", expected, runs[1].steps


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=soak)])
def test_a_restart_that_is_killed_once_at_each_sort_of_step_of_its_own_leaves_the_old_output_or_the_new_one(
    zygote: Zygote, small: Known, restarted_output: tuple[Path, Output, list[str]], tmp_path: Path, half: int
) -> None:
    finished, other, steps = restarted_output
    numbers = itertools.count()

    def new() -> Path:
        return shutil.copytree(finished, tmp_path / f"{next(numbers)}")

    def check(destination: Path) -> None:
        if (destination / "_SUCCESS").exists():
            assert output_of(destination) in (small.undisturbed, other)

    def killed(sorts: list[str]) -> Scenario:
        job = small.job.but_with(restart=True, max_steps=3)
        for destination in (yield from killed_at_each(zygote, job, sorts, new, check)):
            run = zygote.start(job, destination)
            yield (run,)
            assert run.exit_code == 0, run
            assert_same(destination, other)

    sorts = sorts_of(steps)
    own = [sort for sort in sorts if sort.startswith(("delete", "rename")) or "publishing" in sort]
    assert {"delete _SUCCESS", "rename part-#.parquet", "delete __scanrnn/restart"} <= {*own}
    half_of_them = own[half::2]
    zygote.play({f"{n} of 2": killed(half_of_them[n::2]) for n in range(2)})


@pytest.mark.parametrize("every", [pytest.param(4, marks=soak), pytest.param(2, marks=sweep)])
def test_a_restart_that_is_killed_at_any_step_leaves_the_old_output_or_the_new_one(
    zygote: Zygote, small: Known, restarted_output: tuple[Path, Output, list[str]], tmp_path: Path, every: int
) -> None:
    _, expected, steps = restarted_output
    first = next(n for n, step in enumerate(steps) if step.startswith("delete _SUCCESS"))
    chosen = [*range(2, first, 9), *range(first, len(steps) + 1, every)]  # publishing most of all
    names = {n: tmp_path / f"restart-{n}" for n in chosen}
    zygote.play({f"restart killed at {n}": restarted(zygote, small, expected, out, n) for n, out in names.items()})


def killed_until_done(zygote: Zygote, known: Known, destination: Path, seed: int) -> Scenario:
    """Runs that are killed from outside at random moments, until one is quicker, or has long been due."""
    generator = random.Random(seed)
    for _ in range(20):
        seconds = known.seconds * generator.uniform(0.4, 1.0)
        run = zygote.start(known.job, destination, kill_after_seconds=seconds)
        yield (run,)
        assert run.exit_code in (KILLED, 0), run
        assert_whole(destination, known.undisturbed)
        if run.exit_code == 0:
            break
    yield from finished(zygote, known, destination, sample=5 if seed == 0 else 0)


@pytest.mark.parametrize("seeds", [pytest.param(range(1), marks=soak), pytest.param(range(1, 4), marks=sweep)])
def test_a_job_that_is_killed_at_random_moments_until_it_is_done_is_as_undisturbed(
    zygote: Zygote, larger: Known, tmp_path: Path, seeds: range
) -> None:
    zygote.play({f"seed {seed}": killed_until_done(zygote, larger, tmp_path / f"{seed}", seed) for seed in seeds})


@pytest.mark.parametrize(
    "seeds",
    [pytest.param(range(1000, 1002), marks=soak), pytest.param(range(1002, 1150), marks=sweep)],
)
def test_many_jobs_that_are_killed_and_shared_are_as_undisturbed(
    zygote: Zygote, larger: Known, tmp_path: Path, seeds: range
) -> None:
    kills = {f"seed {n}": killed_until_done(zygote, larger, tmp_path / f"{n}", n) for n in seeds}
    zygote.play(kills)
    sharing = {f"shared {n}": shared(zygote, larger, tmp_path / f"s{n}", 2 + n % 3, n) for n in seeds}
    zygote.play(sharing, at_once=1)


def test_a_finished_job_that_is_called_again_changes_nothing(zygote: Zygote, small: Known, tmp_path: Path) -> None:
    zygote.play({"first": finished(zygote, small, tmp_path / "out")})
    before = entries(tmp_path / "out"), identities(tmp_path / "out")
    zygote.play({"again": finished(zygote, small, tmp_path / "out")})
    assert (entries(tmp_path / "out"), identities(tmp_path / "out")) == before


# Errors ---------------------------------------------------------------------------------------------------------------


def refused_at(zygote: Zygote, known: Known, destination: Path, step: int, kind: str) -> Scenario:
    """A run that a full disk stops at a step, and one that has room again."""
    run = zygote.start(known.job, destination, fault=(step, kind))
    yield (run,)
    assert_whole(destination, known.undisturbed)
    if known.steps[step - 1].startswith("delete"):
        assert run.exit_code in (STOPPED, 0), run  # what need not be deleted may stay
    else:
        assert run.exit_code == STOPPED, run
        assert "No space left on device" in run.said
        assert "Traceback" not in run.said
        assert not leftovers(destination)
    yield from finished(zygote, known, destination)


def test_a_job_that_is_refused_one_step_of_each_kind_stops_and_called_again_is_as_undisturbed(
    zygote: Zygote, small: Known, tmp_path: Path
) -> None:
    kinds = {step.partition(" ")[0]: n for n, step in enumerate(small.steps, 1) if not step.startswith("delete")}
    scenarios = {f"fail at {n}": refused_at(zygote, small, tmp_path / f"{n}", n, "fail") for n in kinds.values()}
    full = small.steps.index("sync part-00001.parquet") + 1
    zygote.play({**scenarios, "full": refused_at(zygote, small, tmp_path / "full", full, "full")})


def not_each_of_many(steps: list[str]) -> list[int]:
    """Numbers of steps, of several equal ones in a row, such as the writes of a part, the first."""
    return [n for n in range(1, len(steps) + 1) if n == 1 or steps[n - 1] != steps[n - 2]]


@pytest.mark.parametrize("every", [pytest.param(4, marks=soak), pytest.param(2, marks=sweep)])
def test_a_job_that_is_refused_a_step_stops_and_called_again_is_as_undisturbed(
    zygote: Zygote, small: Known, tmp_path: Path, every: int
) -> None:
    steps = not_each_of_many(small.steps)[::every]
    zygote.play({f"fail at {n}": refused_at(zygote, small, tmp_path / f"{n}", n, "fail") for n in steps})


@soak
def test_a_job_whose_disk_stays_full_stops_and_called_again_is_as_undisturbed(
    zygote: Zygote, small: Known, tmp_path: Path
) -> None:
    steps = not_each_of_many(small.steps)[1::4]
    zygote.play({f"full at {n}": refused_at(zygote, small, tmp_path / f"{n}", n, "full") for n in steps})


# Several at once ------------------------------------------------------------------------------------------------------


def shared(zygote: Zygote, known: Known, destination: Path, count: int, seed: int) -> Scenario:
    """Several processes that share the units and take over what others leave; one is killed."""
    generator = random.Random(seed)
    victim = generator.randrange(count)
    seconds = known.seconds * generator.uniform(0.4, 1.2) * count / 2  # they have two cores
    runs = [
        zygote.start(
            known.job.but_with(**shared_by(number, count)),
            destination,
            kill_after_seconds=seconds if number == victim else None,
        )
        for number in range(count)
    ]
    yield tuple(runs)
    for number, run in enumerate(runs):
        assert run.exit_code in ((0, STOPPED, KILLED) if number == victim else (0, STOPPED)), run
        # On a busy machine one may be silent for longer than the expiry, lose its share, and stop.
        assert run.exit_code != STOPPED or "is not this process's any more" in run.said, run
    assert_whole(destination, known.undisturbed)
    run = zygote.start(known.job, destination)
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(destination, known.undisturbed)


@pytest.mark.parametrize(("count", "seeds"), [(3, range(1)), *(pytest.param(n, range(3), marks=soak) for n in (2, 4))])
def test_processes_that_share_a_job_and_lose_one_leave_it_to_be_finished(
    zygote: Zygote, larger: Known, tmp_path: Path, count: int, seeds: range
) -> None:
    scenarios = {f"seed {seed}": shared(zygote, larger, tmp_path / f"{seed}", count, seed) for seed in seeds}
    zygote.play(scenarios, at_once=1)


def both(zygote: Zygote, known: Known, destination: Path, step: int | str | None) -> Scenario:
    """Two identical jobs that begin together; with a step, that stand still before it until both do, or one ended."""
    fault = (step, "stop") if step else None
    runs = [zygote.start(known.job, destination, fault=fault) for _ in range(2)]
    yield tuple(runs)
    zygote.go_on(*runs)
    yield tuple(runs)
    for run in runs:
        assert run.exit_code in (0, STOPPED), run
    assert_whole(destination, known.undisturbed)
    assert any(run.exit_code == 0 for run in runs), runs
    yield from finished(zygote, known, destination)


def test_of_two_identical_jobs_at_the_same_time_one_works(zygote: Zygote, small: Known, tmp_path: Path) -> None:
    links = sorts_of([step for step in small.steps if step.startswith("link")])
    assert len(links) == 2  # the job, and the lease of its share
    two_at_once(zygote, small, tmp_path, list(links))


@soak
def test_of_two_identical_jobs_at_the_same_time_one_works_wherever_they_meet(
    zygote: Zygote, small: Known, tmp_path: Path
) -> None:
    _, lease = (n for n, step in enumerate(small.steps, 1) if step.startswith("link"))  # after it the other one waits
    two_at_once(zygote, small, tmp_path, [None, None, *sorts_of(small.steps[:lease])])


def two_at_once(zygote: Zygote, small: Known, tmp_path: Path, steps: list[int | str | None]) -> None:
    """Each meeting a number or a sort of step: numbers of later steps differ, since who comes second takes fewer."""
    scenarios = {f"{i}: stop at {n}": both(zygote, small, tmp_path / f"{i}", n) for i, n in enumerate(steps)}
    zygote.play(scenarios, at_once=3)  # one of two waits, mostly


def woken_after(zygote: Zygote, known: Known, destination: Path, step: int) -> Scenario:
    """A process that stands still at a step until another took over and finished, and then goes on."""
    job = known.job.but_with(sharing={"retry": True, "expiry_seconds": 0.4})
    zombie = zygote.start(job, destination, fault=(step, "stop"))
    yield (zombie,)
    assert zombie.is_stopped, zombie
    yield 0.6
    heir = zygote.start(job, destination)
    yield (heir,)
    assert heir.exit_code == 0, heir
    assert_same(destination, known.undisturbed)
    zygote.go_on(zombie)
    yield (zombie,)
    assert zombie.exit_code in (0, STOPPED), zombie
    assert_same(destination, known.undisturbed)
    yield from finished(zygote, known, destination)


@pytest.mark.parametrize("is_each", [False, pytest.param(True, marks=soak)])
def test_a_process_that_stood_still_while_another_finished_changes_nothing(
    zygote: Zygote, small: Known, tmp_path: Path, is_each: bool
) -> None:
    renamed = small.steps.index("rename part-00001.parquet") + 1
    steps = [renamed, small.steps.index("rename _SUCCESS") + 1]
    if is_each:
        around = range(renamed - 2, renamed + 9)  # from the sync of the part until it is recorded, and beyond
        steps = sorted({*around, *range(2, len(small.steps) + 1, 9), len(small.steps) - 1, len(small.steps)})
    scenarios = {f"stands still at {n}": woken_after(zygote, small, tmp_path / f"{n}", n) for n in steps}
    zygote.play(scenarios, at_once=8)  # they wait for the expiry, mostly


@pytest.mark.parametrize(
    ("number", "deaths", "says"),
    [
        (signal.SIGSEGV, 2, "ended with: Segmentation fault"),
        pytest.param(signal.SIGKILL, 1 + SILENT_DEATHS, "killed at the same place, 0 at others", marks=soak),
    ],
)
def test_a_unit_that_ends_its_process_is_named_and_all_others_are_done(
    zygote: Zygote, larger: Known, tmp_path: Path, number: int, deaths: int, says: str
) -> None:
    zygote.play({"poisoned": poisoned(zygote, larger, tmp_path / "out", 5, number, deaths, says)})


def poisoned(
    zygote: Zygote, known: Known, destination: Path, unit: int, number: int, deaths: int, says: str
) -> Scenario:
    """A job one of whose units ends whoever reads it by a signal, until it does not."""
    job = known.job.but_with(sharing={"owns_process": True})
    poison = unit, int(number)
    for _ in range(deaths):
        run = zygote.start(job, destination, poison=poison)
        yield (run,)
        assert run.exit_code == -number, run
    for _ in range(2):
        run = zygote.start(job, destination, poison=poison)
        yield (run,)
        assert run.exit_code == DataError.exit_code, run
        assert (
            f"part {unit} end the process that computes them: " in run.said
            and says in run.said
            and "1.parquet" in run.said
        )
        assert output_of(destination).parts.keys() == known.undisturbed.parts.keys() - {f"part-{unit:05}.parquet"}
    yield from finished(zygote, known, destination)  # with `retry`, and cured


def spot(zygote: Zygote, known: Known, destination: Path, seed: int, kills: int) -> Scenario:
    """A job on machines that are taken away at random steps, so many of them; the same command, and no `retry`.

    Of the steps before there are units and those of two or three units, so that many kills meet a unit alone.
    """
    generator, job = random.Random(seed), known.job.but_with(sharing={"owns_process": True})
    most = next(n for n, step in enumerate(known.steps, 1) if step.startswith("append")) + 20
    for _ in range(kills):
        run = zygote.start(job, destination, fault=(generator.randint(1, most), "kill"))
        yield (run,)
        assert run.exit_code in (KILLED, 0), run
        assert_whole(destination, known.undisturbed)
    run = zygote.start(job, destination)
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(destination, known.undisturbed)


def test_a_job_on_machines_that_are_taken_away_is_done_by_the_same_command(
    zygote: Zygote, larger: Known, tmp_path: Path
) -> None:
    zygote.play({"5 times": spot(zygote, larger, tmp_path / "out", 0, 5)})


@pytest.mark.parametrize("seeds", [pytest.param(range(1), marks=soak), pytest.param(range(1, 10), marks=sweep)])
def test_jobs_of_36_units_under_25_kills_are_done_by_the_same_command(
    zygote: Zygote, tmp_path: Path, seeds: range
) -> None:
    many = known(zygote, tmp_path, [60, 60, 60])
    zygote.play({f"seed {seed}": spot(zygote, many, tmp_path / f"{seed}", seed, 25) for seed in seeds})


# Bad rows -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoilt(zygote: Zygote, small: Known, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """The job of `small` with a NaN in its first file; what it gives and does is that of a run to its end."""
    folder = tmp_path_factory.mktemp("spoilt")
    rows = random_rows(some_lengths(20))
    rows[7] = np.full((4, rows[0].shape[1]), np.nan, np.float32)
    write_source(folder / "in/0.parquet", rows[:10], id=pa.array(range(10)))
    write_source(folder / "in/1.parquet", rows[10:], id=pa.array(range(10, 20)))
    job = replace(small.job, source=folder / "in").but_with(sharing={"owns_process": True})
    run = zygote.start(job, folder / "undisturbed")
    zygote.wait(run)
    assert run.exit_code == DataError.exit_code, run
    undisturbed = output_of(folder / "undisturbed")
    assert list(undisturbed.parts) == [f"part-{unit:05}.parquet" for unit in (0, 2, 3)]
    return Known(job, undisturbed, run.steps, small.seconds)


def spoilt_and_killed_at(zygote: Zygote, known: Known, destination: Path, step: int) -> Scenario:
    """A job with a unit that fails, killed at a step: the next run does all others, tells, and so does another one."""
    run = zygote.start(known.job, destination, fault=(step, "kill"))
    yield (run,)
    assert run.exit_code == KILLED, run
    assert_whole(destination, known.undisturbed)
    for _ in range(2):
        before = recorded(destination)
        run = zygote.start(known.job, destination)
        yield (run,)
        assert run.exit_code == DataError.exit_code, run
        assert (
            "1 of 4 parts could not be made" in run.said
            and "0.parquet, row group 1, row 2 (row 7 of the file)" in run.said
        )
        assert "Traceback" not in run.said
        assert_written_once(before, identities(destination))
    assert output_of(destination) == known.undisturbed
    assert not (destination / "_SUCCESS").exists()


@pytest.mark.parametrize("every", [pytest.param(5, marks=soak), pytest.param(1, marks=sweep)])
def test_a_job_with_a_bad_row_that_is_killed_at_each_step_does_all_other_units_and_tells(
    zygote: Zygote, spoilt: Known, tmp_path: Path, every: int
) -> None:
    steps = range(1, len(spoilt.steps) + 1, every)
    zygote.play({f"at {n}": spoilt_and_killed_at(zygote, spoilt, tmp_path / f"{n}", n) for n in steps})


# And more -------------------------------------------------------------------------------------------------------------


@soak
def test_this_many_kills_were_survived(zygote: Zygote, small: Known, tmp_path: Path) -> None:
    """Those of the soaks above count; as many as are wanting follow, alone or in selections all."""
    generator, count = random.Random(0), 0
    while zygote.kills < KILLS:
        steps = [generator.randint(1, len(small.steps)) for _ in range(8)]
        names = [f"{count + i}: killed at {n}" for i, n in enumerate(steps)]
        scenarios = [killed_at(zygote, small, tmp_path / f"{count + i}", n) for i, n in enumerate(steps)]
        zygote.play(dict(zip(names, scenarios, strict=True)))
        count += len(steps)
    assert zygote.kills >= KILLS
