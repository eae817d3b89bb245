"""Bad files that are mended later, and processes that are killed anywhere: the output is as undisturbed.

As `test_crashes.py`. First a job some files of which are bad is killed; it ends with 3 when it is called again. Then
the files are mended, and the command that accepts that is killed.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from crashing import KILLED, Job, Output, Scenario, Zygote, assert_same, assert_whole, identities, output_of
from sources import FILE_ROWS, SHAPE, encoder_of, write_file, write_files

from scanrnn_dist.errors import DataError
from scanrnn_dist.job import read_status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them."),
]


def job_at(folder: Path, files: int, bad: Sequence[int]) -> Job:
    """A job of which each file is a unit."""
    write_files(folder / "in", set(bad), files)
    encoder_of().save(folder / "encoder.safetensors")
    shape = SHAPE.lanes, SHAPE.block_steps, SHAPE.window_blocks
    options = {"rows_per_part": FILE_ROWS, "window_shape": shape, "sharing": {"owns_process": True}}
    return Job(folder / "encoder.safetensors", folder / "in", options)


def failing(zygote: Zygote, job: Job, destination: Path, bad: Sequence[int], step: int, good: Output) -> Scenario:
    """A job with bad files that is killed at a step, and three times of four called again."""
    run = zygote.start(job, destination, fault=(step, "kill"))
    yield (run,)
    assert run.exit_code == KILLED, run
    assert_whole(destination, good)
    if step % 4:
        run = zygote.start(job, destination)
        yield (run,)
        assert run.exit_code == DataError.exit_code, run
        assert f"{len(bad)} of " in run.said and all(f"/{number:02}.parquet, row group 0" in run.said for number in bad)
        assert output_of(destination) == good and not (destination / "_SUCCESS").exists()
        assert "Traceback" not in run.said


def mended(
    zygote: Zygote, job: Job, destination: Path, step: int, steps: int, good: Output, undisturbed: Output
) -> Scenario:
    """The files are mended now: a run that accepts this is killed at a step, half the time again, and called again."""
    known = {*good.parts.values(), *undisturbed.parts.values()}
    stood = identities(destination)
    # One whose record was not written yet when its process was killed is made again.
    is_recorded = read_status(destination).units_committed == len(good.parts) if stood else False
    for at in [step, *([random.Random(step).randint(1, steps)] if step % 2 else [])]:
        run = zygote.start(job, destination, fault=(at, "kill"))
        yield (run,)
        # One that had nothing committed when it was called has fewer steps than another, or more.
        assert run.exit_code in (KILLED, 0), run
        assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in destination.glob("*.parquet")} <= known
    run = zygote.start(job, destination)
    yield (run,)
    assert run.exit_code == 0, run
    assert_same(destination, undisturbed)
    if is_recorded:  # none of these was made again
        assert stood.items() <= identities(destination).items()


def play(zygote: Zygote, folder: Path, files: int, bad: Sequence[int], every: int) -> None:
    """Kill at every so many steps, of the first command and of the second."""
    job = job_at(folder, files, bad)
    run = zygote.start(job, folder / "counted", may_cache=True)
    zygote.wait(run)
    assert run.exit_code == DataError.exit_code, run
    good, steps = output_of(folder / "counted"), len(run.steps)
    assert len(good.parts) == files - len(bad)
    first = {n: folder / f"{n}" for n in range(1, steps + 1, every)}
    zygote.play({f"first killed at {n}": failing(zygote, job, out, bad, n, good) for n, out in first.items()})
    for number in bad:
        write_file(folder / "in", number)
    accepting = job.but_with(accept_changes=True)
    runs = zygote.start(accepting, folder / "counted"), zygote.start(accepting, folder / "undisturbed")
    zygote.wait(*runs)
    assert [run.exit_code for run in runs] == [0, 0], runs
    undisturbed, steps = output_of(folder / "undisturbed"), len(runs[0].steps)
    assert_same(folder / "counted", undisturbed)
    assert good.parts.items() <= undisturbed.parts.items() and len(undisturbed.parts) == files
    # Each of these is mended in a copy of what one of the others left.
    left = list(first.values())
    second = {n: folder / f"mended-{n}" for n in range(2, steps + 1, every)}
    for nth, out in enumerate(second.values()):
        shutil.copytree(left[nth % len(left)], out)
    zygote.play(
        {
            f"mended, killed at {n}": mended(zygote, accepting, out, n, steps, good, undisturbed)
            for n, out in second.items()
        }
    )


def test_bad_files_that_are_mended_are_done_by_commands_that_are_killed_at_some_steps(
    zygote: Zygote, tmp_path: Path
) -> None:
    play(zygote, tmp_path, 4, (1, 3), every=61)


@pytest.mark.soak
@pytest.mark.parametrize(("files", "bad", "every"), [(6, (1, 4), 15), (30, (3, 16, 29), 100)])
def test_bad_files_that_are_mended_are_done_by_commands_that_are_killed_at_more_steps(
    zygote: Zygote, tmp_path: Path, files: int, bad: tuple[int, ...], every: int
) -> None:
    play(zygote, tmp_path, files, bad, every)


@pytest.mark.sweep
@pytest.mark.parametrize(("files", "bad"), [(6, (1, 4)), (30, (3, 16, 29))])
def test_bad_files_that_are_mended_are_done_by_commands_that_are_killed_at_each_step(
    zygote: Zygote, tmp_path: Path, files: int, bad: tuple[int, ...]
) -> None:
    play(zygote, tmp_path, files, bad, every=1)
