"""Changes of a source that are accepted by processes that are killed or asleep anywhere: the output is as undisturbed.

As `test_crashes.py`, with jobs that were done, or half done, before their source changed.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from crashing import KILLED, Job, Output, Scenario, Zygote, assert_same, killed_at_each, output_of, sorts_of
from sources import SHAPE, encoder_of, random_rows, some_lengths, write_source

from scanrnn_dist.errors import ConfigError, StoppedError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them."),
]

EXPIRY_SECONDS = 1.0


def write(folder: Path, name: str, first: int, rows: int = 10) -> None:
    ids = pa.array(range(first, first + rows))
    write_source(folder / f"{name}.parquet", random_rows(some_lengths(rows, first), first), id=ids)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "changed": lambda source: write(source, "d", 100),
    "new": lambda source: write(source, "a", 200, 5),
    "gone": lambda source: (source / "b.parquet").unlink(),
    "all": lambda source: [change(source) for name, change in CHANGES.items() if name != "all"],
}


@dataclass(frozen=True)
class Amended:
    """A job with the flag, a destination of which the source changed since, and what is to come of it."""

    job: Job
    before: Path
    old: Output
    undisturbed: Output
    steps: list[str]


def amended(zygote: Zygote, folder: Path, change: str, is_finished: bool) -> Amended:
    """Three files of two units each; all or three of the units are done, then the change is made."""
    for number, name in enumerate("bdf"):
        write(folder / "in", name, 10 * number)
    encoder_of().save(folder / "encoder.safetensors")
    shape = SHAPE.lanes, SHAPE.block_steps, SHAPE.window_blocks
    sharing = {"retry": True, "expiry_seconds": EXPIRY_SECONDS}
    options = {"rows_per_part": 5, "window_shape": shape, "sharing": sharing}
    job = Job(folder / "encoder.safetensors", folder / "in", options)
    half = job.but_with(sharing={**sharing, "share": (1, 2)})
    for name, first in (("first", job), ("before", job if is_finished else half)):
        run = zygote.start(first, folder / name, may_cache=name == "first")
        zygote.wait(run)
        assert run.exit_code == 0, run
    CHANGES[change](folder / "in")
    accepting = job.but_with(accept_changes=True)
    shutil.copytree(folder / "before", folder / "counted")
    runs = zygote.start(job, folder / "undisturbed"), zygote.start(accepting, folder / "counted")
    zygote.wait(*runs)
    assert [run.exit_code for run in runs] == [0, 0], runs
    undisturbed = output_of(folder / "undisturbed")
    assert_same(folder / "counted", undisturbed)
    return Amended(accepting, folder / "before", output_of(folder / "before"), undisturbed, runs[1].steps)


def assert_whole(destination: Path, known: Amended) -> None:
    """A whole output has success, old or new; every part is one of the two."""
    parts = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in destination.glob("*.parquet")}
    if (destination / "_SUCCESS").exists():
        assert parts in (known.old.parts, known.undisturbed.parts)
    assert set(parts.values()) <= {*known.old.parts.values(), *known.undisturbed.parts.values()}


def killed_at(zygote: Zygote, known: Amended, destination: Path, step: int) -> Scenario:
    """A run that is killed at a step, half the time one that is killed at another, and one that is not."""
    shutil.copytree(known.before, destination)
    run = zygote.start(known.job, destination, fault=(step, "kill"))
    yield (run,)
    assert run.exit_code == KILLED, run
    assert_whole(destination, known)
    if step % 2:
        again = random.Random(step).randint(1, len(known.steps))
        run = zygote.start(known.job, destination, fault=(again, "kill"))
        yield (run,)
        assert run.exit_code in (KILLED, 0), run
        assert_whole(destination, known)
    run = zygote.start(known.job, destination)
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(destination, known.undisturbed)


def asleep_at(zygote: Zygote, known: Amended, destination: Path, step: int) -> Scenario:
    """A process that stands still at a step until another one ended it all, and then goes on; and a last one."""
    shutil.copytree(known.before, destination)
    sleeper = zygote.start(known.job, destination, fault=(step, "stop"))
    yield (sleeper,)
    assert sleeper.is_stopped, sleeper
    yield 1.5 * EXPIRY_SECONDS
    heir = zygote.start(known.job, destination)
    yield (heir,)
    assert heir.exit_code == 0, heir
    assert_same(destination, known.undisturbed)
    zygote.go_on(sleeper)
    yield (sleeper,)
    assert sleeper.exit_code in (0, StoppedError.exit_code, ConfigError.exit_code), sleeper
    # It may have done the one thing that it was about to do, such as to delete _SUCCESS.
    assert_whole(destination, known)
    run = zygote.start(known.job, destination)
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(destination, known.undisturbed)


def killed_again_and_again(zygote: Zygote, known: Amended, folder: Path, sorts: list[str]) -> Scenario:
    """Runs of one destination that are killed one after the other, and one that is not."""
    numbers = itertools.count()
    for destination in (
        yield from killed_at_each(
            zygote,
            known.job,
            sorts,
            lambda: shutil.copytree(known.before, folder / f"{next(numbers)}"),
            lambda destination: assert_whole(destination, known),
        )
    ):
        run = zygote.start(known.job, destination)
        yield (run,)
        assert run.exit_code == 0, run
        assert_same(destination, known.undisturbed)


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_an_amendment_that_is_killed_once_at_each_sort_of_step_of_its_own_is_ended_by_the_same_command(
    zygote: Zygote, tmp_path: Path, half: int
) -> None:
    known = amended(zygote, tmp_path, "all", is_finished=True)
    begin = next(n for n, step in enumerate(known.steps) if step.startswith("open part-"))  # what follows is any job's
    own = [sort for sort in sorts_of(known.steps[:begin]) if sort.startswith(("delete", "rename", "link", "mkdir"))]
    assert {"link __scanrnn/restart/part-#.parquet", "rename part-#.parquet", "delete __scanrnn/restart"} <= {*own}
    sorts = own[half::2]
    zygote.play({f"{n} of 2": killed_again_and_again(zygote, known, tmp_path / f"{n}", sorts[n::2]) for n in range(2)})


@pytest.mark.soak
@pytest.mark.parametrize(("change", "is_finished"), [("all", True), ("all", False), ("gone", False)])
def test_an_amendment_that_is_killed_at_some_steps_is_ended_by_the_same_command(
    zygote: Zygote, tmp_path: Path, change: str, is_finished: bool
) -> None:
    known = amended(zygote, tmp_path, change, is_finished)
    steps = range(1, len(known.steps) + 1, 13)
    zygote.play({f"killed at {n}": killed_at(zygote, known, tmp_path / f"{n}", n) for n in steps})


@pytest.mark.sweep
@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_amendment_that_is_killed_at_any_step_is_ended_by_the_same_command(
    zygote: Zygote, tmp_path: Path, change: str, is_finished: bool
) -> None:
    known = amended(zygote, tmp_path, change, is_finished)
    steps = range(1, len(known.steps) + 1)
    zygote.play({f"killed at {n}": killed_at(zygote, known, tmp_path / f"{n}", n) for n in steps})


@pytest.mark.parametrize("every", [pytest.param(17, marks=pytest.mark.soak), pytest.param(3, marks=pytest.mark.sweep)])
@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "unfinished"])
def test_who_was_asleep_while_another_accepted_the_changes_harms_nothing(
    zygote: Zygote, tmp_path: Path, is_finished: bool, every: int
) -> None:
    known = amended(zygote, tmp_path, "all", is_finished)
    steps = range(1, len(known.steps) + 1, every)
    zygote.play({f"asleep at {n}": asleep_at(zygote, known, tmp_path / f"{n}", n) for n in steps}, at_once=6)
