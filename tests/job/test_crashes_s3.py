"""The same in a bucket, whose server answers with errors, slowly, or not at all: killed anywhere, the output is right.

An object appears whole or not at all, so what a reader may see at any moment is held as in a folder. The outputs are
compared as copies in a folder.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    killed_at_each,
    output_of,
    sorts_of,
)
from s3_server import S3Server
from sources import SHAPE, TOLERANCE, H, encoder_of, random_rows, some_lengths, write_source

from scanrnn_dist.api import verify
from scanrnn_dist.errors import StoppedError
from scanrnn_dist.job.cleaning import clean
from scanrnn_dist.job.status import read_status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them."),
]

ROWS = 20
BUCKET = "crashes"


@dataclass(frozen=True)
class Known:
    """A job from bucket to bucket, and what it gives and does undisturbed."""

    s3: S3Server
    job: Job
    undisturbed: Output
    steps: list[str]

    def uri(self, name: str) -> str:
        """Of a destination."""
        return self.s3.uri(f"{BUCKET}/{name}")

    def copy(self, name: str, folder: Path) -> Path:
        """What stands at a destination, as a folder of this machine; markers of folders left out."""
        for key in self.s3.objects(BUCKET, f"{name}/"):
            if not key.endswith("/"):
                path = folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.s3.get(BUCKET, key))
        (folder / name).mkdir(parents=True, exist_ok=True)
        return folder / name


@pytest.fixture(scope="module")
def known(zygote: Zygote, s3_running: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Four units of two files."""
    folder, s3 = tmp_path_factory.mktemp("known"), s3_running
    s3.calm()
    s3.create_bucket(BUCKET)
    rows = random_rows(some_lengths(ROWS))
    for number in range(2):
        part = range(10 * number, 10 * number + 10)
        path = write_source(folder / f"{number}.parquet", rows[part.start : part.stop], id=pa.array(part))
        s3.put(BUCKET, f"in/{number}.parquet", path.read_bytes())
    encoder_of().save(folder / "encoder.safetensors")
    shape = SHAPE.lanes, SHAPE.block_steps, SHAPE.window_blocks
    options = {"rows_per_part": 5, "window_shape": shape, "sharing": {"retry": True}}
    job = Job(folder / "encoder.safetensors", s3.uri(f"{BUCKET}/in"), options)
    run = zygote.start(job, s3.uri(f"{BUCKET}/undisturbed"), may_cache=True)
    zygote.wait(run)
    assert run.exit_code == 0, run
    before = Known(s3, job, Output([], b"", {}), run.steps)
    undisturbed = output_of(before.copy("undisturbed", folder))
    assert undisturbed.ids == list(range(ROWS))
    features = np.frombuffer(undisturbed.features, np.float32).reshape(-1, H)
    assert np.abs(features - oracle.gru_rows(encoder_of().cell, rows)).max() <= TOLERANCE
    return Known(s3, job, undisturbed, run.steps)


@pytest.fixture
def failing(known: Known) -> Iterator[list[int]]:
    """A server that answers with errors, slowly, drops connections and loses answers; the numbers of the faults."""
    faults = {"refuse": {"every": 9}, "drop": {"every": 13}, "lose": {"every": 17}, "cut": {"every": 19}}
    numbers = [known.s3.inject(kind, **options) for kind, options in faults.items()]  # type: ignore[arg-type]
    numbers.append(known.s3.inject("delay", seconds=0.05, every=5))
    yield numbers
    assert all(known.s3.injected(number) for number in numbers)
    known.s3.calm()


def finished(zygote: Zygote, known: Known, name: str, folder: Path) -> Scenario:
    """A last run that nobody kills, and the comparison."""
    run = zygote.start(known.job, known.uri(name))
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(known.copy(name, folder / "end"), known.undisturbed)


def killed_at(zygote: Zygote, known: Known, name: str, folder: Path, step: int) -> Scenario:
    """A run that is killed at a step, and one that is not."""
    run = zygote.start(known.job, known.uri(name), fault=(step, "kill"))
    yield (run,)
    assert run.exit_code == KILLED, run
    assert_whole(known.copy(name, folder / "killed"), known.undisturbed)
    yield from finished(zygote, known, name, folder)


def kill_at(zygote: Zygote, known: Known, folder: Path, steps: range) -> None:
    names = [f"step-{n}" for n in steps]
    scenarios = (killed_at(zygote, known, name, folder / name, n) for name, n in zip(names, steps, strict=True))
    zygote.play(dict(zip(names, scenarios, strict=True)), at_once=4)  # they wait for the server
    assert zygote.kills >= len(steps)


def killed_told_and_finished(zygote: Zygote, known: Known, name: str, folder: Path, sorts: list[str]) -> Scenario:
    """Runs of one destination that are killed one after the other, what is told of it then, and one that is not."""
    numbers, uri = itertools.count(), known.uri(name)

    def check(uri: str) -> None:
        assert_whole(known.copy(name, folder / f"{next(numbers)}"), known.undisturbed)

    used = yield from killed_at_each(zygote, known.job, sorts, lambda: uri, check)
    assert used == [uri]
    status = read_status(uri)
    assert (status.state, status.units) == ("stopped", 4) and 0 < status.units_committed <= 4
    yield from finished(zygote, known, name, folder)
    assert read_status(uri).state == "complete"
    assert verify(uri, sample=8).rows_compared == ROWS
    assert any(name.startswith("__scanrnn/workers/1-of-1.") for name in clean(uri).names)
    assert verify(uri, sample=0).rows == ROWS


@pytest.mark.soak
def test_a_job_that_is_killed_again_and_again_is_told_verified_cleaned_and_as_undisturbed(
    zygote: Zygote, known: Known, failing: list[int], tmp_path: Path
) -> None:
    sorts = sorts_of(known.steps)
    assert {sort.partition(" ")[0] for sort in sorts} == {"put"}
    chosen = [sort for sort in sorts if re.search(r"job\.json|_SUCCESS|part-#|0-of-|commits/", sort)]
    assert len(chosen) == 4, chosen
    zygote.play({"killed": killed_told_and_finished(zygote, known, "again", tmp_path, chosen)})


@pytest.mark.sweep
def test_a_job_that_is_killed_once_at_each_sort_of_step_is_as_undisturbed(
    zygote: Zygote, known: Known, failing: list[int], tmp_path: Path
) -> None:
    sorts = sorts_of(known.steps)
    zygote.play({"killed": killed_told_and_finished(zygote, known, "each", tmp_path, sorts)})


@pytest.mark.soak
def test_a_job_that_is_killed_at_some_steps_is_as_undisturbed(
    zygote: Zygote, known: Known, failing: list[int], tmp_path: Path
) -> None:
    kill_at(zygote, known, tmp_path, range(1, len(known.steps) + 1, 9))


@pytest.mark.sweep
def test_a_job_that_is_killed_at_any_step_is_as_undisturbed(
    zygote: Zygote, known: Known, failing: list[int], tmp_path: Path
) -> None:
    kill_at(zygote, known, tmp_path, range(1, len(known.steps) + 1))


def shared(zygote: Zygote, known: Known, name: str, folder: Path, seed: int) -> Scenario:
    """Three processes that share the units, of which one is killed at a random step; and one that finishes."""
    step = random.Random(seed).randint(1, len(known.steps))
    runs = [
        zygote.start(
            known.job.but_with(sharing={"share": (number + 1, 3), "retry": True}),
            known.uri(name),
            fault=(step, "kill") if number == seed % 3 else None,
        )
        for number in range(3)
    ]
    yield tuple(runs)
    for run in runs:
        assert run.exit_code in (0, KILLED), run
    assert_whole(known.copy(name, folder / "shared"), known.undisturbed)
    yield from finished(zygote, known, name, folder)


@pytest.mark.soak
def test_processes_that_share_a_job_and_lose_one_leave_it_to_be_finished(
    zygote: Zygote, known: Known, failing: list[int], tmp_path: Path
) -> None:
    seeds = range(2)
    names = [f"shared-{seed}" for seed in seeds]
    scenarios = (shared(zygote, known, name, tmp_path / name, seed) for seed, name in zip(seeds, names, strict=True))
    zygote.play(dict(zip(names, scenarios, strict=True)))


def begun_together(zygote: Zygote, known: Known, name: str, folder: Path, step: int) -> Scenario:
    """Two processes that share a new job, stand still before a step until all of them do, and go on one by one."""
    runs = [
        zygote.start(known.job.but_with(sharing={"share": (number, 2)}), known.uri(name), fault=(step, "stop"))
        for number in (1, 2)
    ]
    yield tuple(runs)
    for run in runs:
        assert run.is_stopped, run
        zygote.go_on(run)
        yield (run,)
        assert run.exit_code == 0, run
    assert_same(known.copy(name, folder), known.undisturbed)


@pytest.mark.parametrize("steps", [(0,), pytest.param((-1, 1), marks=pytest.mark.soak)])
def test_processes_that_begin_to_share_a_job_in_the_same_instant_all_work_on_it(
    zygote: Zygote, known: Known, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    record = known.steps.index("put __scanrnn/job.json") + 1
    steps = tuple(record + step for step in steps)  # the plan, `job.json`, the lease
    names = [f"together-{n}" for n in steps]
    scenarios = (begun_together(zygote, known, name, tmp_path / name, n) for name, n in zip(names, steps, strict=True))
    zygote.play(dict(zip(names, scenarios, strict=True)))


def woken_after(zygote: Zygote, known: Known, name: str, folder: Path, step: int) -> Scenario:
    """A process that stands still at a step until another finished, and then goes on."""
    job = known.job.but_with(sharing={"retry": True, "expiry_seconds": 0.4})
    zombie = zygote.start(job, known.uri(name), fault=(step, "stop"))
    yield (zombie,)
    assert zombie.is_stopped, zombie
    yield 0.6
    heir = zygote.start(job, known.uri(name))
    yield (heir,)
    assert heir.exit_code == 0, heir
    zygote.go_on(zombie)
    yield (zombie,)
    assert zombie.exit_code in (0, StoppedError.exit_code), zombie
    assert_same(known.copy(name, folder / "woken"), known.undisturbed)
    yield from finished(zygote, known, name, folder)


@pytest.mark.soak
def test_a_process_that_stood_still_while_another_finished_changes_nothing(
    zygote: Zygote, known: Known, tmp_path: Path
) -> None:
    steps = sorted({*range(3, len(known.steps), 24), known.steps.index("put part-00001.parquet") + 1})
    names = [f"woken-{n}" for n in steps]
    scenarios = (woken_after(zygote, known, name, tmp_path / name, n) for name, n in zip(names, steps, strict=True))
    zygote.play(dict(zip(names, scenarios, strict=True)), at_once=8)
