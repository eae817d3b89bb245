"""A job that sets rows aside, killed anywhere: each row is in a part or in a list, and in the end as undisturbed.

As `test_crashes.py`.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crashing import KILLED, Job, Scenario, Zygote, killed_at_each, sorts_of
from sources import NAN, SHAPE, encoder_of, entries, random_rows, write_source

from scanrnn_dist import quarantined
from scanrnn_dist.api import verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them."),
]

ROWS_PER_PART = 4
ASIDE = {3: 4, 0: 2, 2: 1}
"""Rows of each file's unit that are set aside, by its number; a unit of nothing else, one without any between."""


@dataclass(frozen=True)
class Known:
    """A job, what it writes and does undisturbed."""

    job: Job
    output: dict[str, bytes | None]
    steps: list[str]


def output_of(out: Path) -> dict[str, bytes | None]:
    """The parts and the lists, byte by byte."""
    return {name: it for name, it in entries(out).items() if name.startswith("part-") or name.endswith(".rows")}


@pytest.fixture(scope="module")
def known(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("aside")
    for number in range(4):
        rows = random_rows([4] * ROWS_PER_PART, number)
        rows = [NAN if at < ASIDE.get(number, 0) else row for at, row in enumerate(rows)]
        ids = pa.array(range(4 * number, 4 * number + 4))
        write_source(folder / f"in/{number}.parquet", rows, id=ids)
    encoder_of().save(folder / "encoder.safetensors")
    options = {
        "rows_per_part": ROWS_PER_PART,
        "window_shape": (SHAPE.lanes, SHAPE.block_steps, SHAPE.window_blocks),
        "sharing": {"retry": True},
        "bad_rows": {"bad_value": "skip"},
    }
    job = Job(folder / "encoder.safetensors", folder / "in", options)
    zygote.wait(zygote.start(job, folder / "first", may_cache=True))
    run = zygote.start(job, folder / "undisturbed")
    zygote.wait(run)
    assert run.exit_code == 0, run
    assert pq.read_metadata(folder / "undisturbed/part-00003.parquet").num_rows == 0
    return Known(job, output_of(folder / "undisturbed"), run.steps)


def assert_accounted(out: Path, known: Known) -> None:
    """What stands is as undisturbed, and no part stands without its list."""
    left = output_of(out)
    assert left.items() <= known.output.items()
    for unit in ASIDE:
        assert f"part-0000{unit}.parquet" not in left or f"__scanrnn/quarantine/unit-0000{unit}.rows" in left


def finished(zygote: Zygote, known: Known, out: Path) -> Scenario:
    """A last, undisturbed run."""
    run = zygote.start(known.job, out)
    yield (run,)
    assert run.exit_code == 0, run
    assert output_of(out) == known.output
    assert verify(out, sample=0).set_aside == len(quarantined(out)) == sum(ASIDE.values())


def killed_again_and_again(zygote: Zygote, known: Known, folder: Path, sorts: list[str]) -> Scenario:
    """Runs that are killed one after the other, and in the end one that is not."""
    numbers = itertools.count()
    used = yield from killed_at_each(
        zygote, known.job, sorts, lambda: folder / f"{next(numbers)}", lambda out: assert_accounted(out, known)
    )
    for out in used:
        yield from finished(zygote, known, out)


def test_a_job_that_is_killed_at_each_sort_of_step_of_a_list_or_a_part_is_as_undisturbed(
    zygote: Zygote, known: Known, tmp_path: Path
) -> None:
    sorts = [sort for sort in sorts_of(known.steps) if "quarantine" in sort or "part-#" in sort]
    lists = {sort.partition(" ")[0] for sort in sorts if sort.endswith("unit-#.rows")}
    assert lists >= {"open", "write", "sync", "rename"}
    zygote.play({"killed": killed_again_and_again(zygote, known, tmp_path, sorts)})


def killed_at(zygote: Zygote, known: Known, out: Path, step: int) -> Scenario:
    """A run that is killed at a step, and one that is not."""
    run = zygote.start(known.job, out, fault=(step, "kill"))
    yield (run,)
    assert run.exit_code == KILLED, run
    assert_accounted(out, known)
    yield from finished(zygote, known, out)


@pytest.mark.sweep
def test_a_job_that_is_killed_at_any_step_is_as_undisturbed(zygote: Zygote, known: Known, tmp_path: Path) -> None:
    steps = range(1, len(known.steps) + 1, 3)
    zygote.play({f"killed at {n}": killed_at(zygote, known, tmp_path / f"{n}", n) for n in steps})
