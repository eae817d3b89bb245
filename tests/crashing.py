"""Jobs in processes that are killed, stopped, or refused by the disk; and what their outputs are held against.

The processes are forked by `zygote.py`. A scenario is a generator: it starts runs, yields those that it waits for, and
goes on when each has ended or stopped, or it yields seconds. `Zygote.play` plays many, a few at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from faults import sort_of
from sources import entries, features_of

from scanrnn_dist.api import verify
from scanrnn_dist.records import COMMITS, RECORDS, SUCCESS

LIMIT_SECONDS = 60
"""A run takes a tenth of a second. One that takes so long hangs."""
AT_ONCE = 2
MOST_FAILURES = 5
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Job:
    """The arguments of a job but for its destination; `options` are what `featurize` takes by keyword."""

    encoder: Path
    source: Path | str
    options: Mapping[str, Any]

    def but_with(self, **options: Any) -> Job:
        """The same job with other options."""
        return replace(self, options={**self.options, **options})


@dataclass(repr=False)
class Run:
    """A process that runs a job. `exit_code` is None until it ended, and negative where a signal ended it."""

    number: int
    what: str
    log: Path
    began: float = field(default_factory=time.monotonic)
    is_stopped: bool = False
    exit_code: int | None = None

    @property
    def rests(self) -> bool:
        """Whether it ended or stands still."""
        return self.is_stopped or self.exit_code is not None

    @property
    def steps(self) -> list[str]:
        """What it did to its destination so far, such as `"rename part-00000.parquet"`."""
        path = self.log.with_suffix(".steps")
        return path.read_text().splitlines() if path.exists() else []

    @property
    def said(self) -> str:
        """What it printed so far."""
        path = self.log.with_suffix(".txt")
        return path.read_text(errors="replace") if path.exists() else ""

    def __repr__(self) -> str:
        state = "stopped" if self.is_stopped else "running" if self.exit_code is None else f"ended: {self.exit_code}"
        return f"run {self.number} ({self.what}; {state}), {len(self.steps)} steps, last {self.steps[-3:]}: {self.said}"


Scenario = Generator["tuple[Run, ...] | float", None, None]


def sorts_of(steps: Iterable[str]) -> list[str]:
    """The sorts of steps, each once, in the order of their first ones."""
    return list(dict.fromkeys(map(sort_of, steps)))


class Zygote:
    """The process that forks runs; begun and ended by `with`.

    Args:
        folder: for what the runs write down, and for the programs they compile.

    Raises:
        AssertionError: it ended, or a run or the process itself took too long.
    """

    def __init__(self, folder: Path) -> None:
        self.kills = 0
        self._folder, self._runs, self._unread = folder, {}, b""
        self._count = 0

    def __enter__(self) -> Zygote:
        # One thread: those of OpenBLAS and of pyarrow's allocator would begin with their import.
        quiet = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false", "JAX_PLATFORMS": "cpu"}
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        (self._folder / "runs").mkdir()
        with open(self._folder / "zygote.txt", "wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("zygote.py")), str(self._folder / "compiled")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, **quiet, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the tests, which then end it
            )
        try:
            self._hear(LIMIT_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        """End the process, which ends its runs; by force if it does not."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def start(
        self,
        job: Job,
        destination: Path | str,
        *,
        fault: tuple[int | str, str] | None = None,
        kill_after_seconds: float | None = None,
        poison: tuple[int, int] | None = None,
        may_cache: bool = False,
    ) -> Run:
        """Begin a run, with a fault as `zygote.py` knows them, killed from outside after a while, or by a unit."""
        self._count += 1
        happens = f", {fault[1]} at step {fault[0]}" if fault else ""
        if kill_after_seconds is not None:
            happens = f", killed after {kill_after_seconds:.3f} s"
        if poison is not None:
            happens = f", ended by unit {poison[0]}, signal {poison[1]}"
        run = Run(
            self._count,
            f"{str(destination).partition('?')[0].rpartition('/')[2]}{happens}",
            self._folder / f"runs/{self._count}",
        )
        self._runs[run.number] = run
        self._ask(
            run=run.number, encoder=str(job.encoder), source=str(job.source), destination=str(destination),
            options=dict(job.options), log=str(run.log), fault=fault, kill_after_seconds=kill_after_seconds,
            poison=poison, may_cache=may_cache,
        )  # fmt: skip
        return run

    def go_on(self, *runs: Run) -> None:
        """Have stopped runs continue."""
        for run in runs:
            run.is_stopped, run.began = False, time.monotonic()
            self._ask(signal=signal.SIGCONT, run=run.number)

    def kill(self, run: Run) -> None:
        """Kill a run, also a stopped one."""
        run.is_stopped, run.began = False, time.monotonic()
        self._ask(signal=signal.SIGKILL, run=run.number)

    def wait(self, *runs: Run) -> None:
        """Wait until each of these ended or stopped."""
        while not all(run.rests for run in runs):
            self._hear(0.1)
            self._check_time()

    def play(self, scenarios: Mapping[str, Scenario], at_once: int = AT_ONCE) -> None:
        """Play all scenarios to their ends; raises an `ExceptionGroup` of the first that failed."""
        waiting = list(scenarios.items())[::-1]
        playing: dict[str, tuple[Scenario, tuple[Run, ...] | float]] = {}
        failures: list[Exception] = []
        try:
            while (waiting or playing) and len(failures) < MOST_FAILURES:
                while waiting and len(playing) < at_once:
                    name, scenario = waiting.pop()
                    playing[name] = scenario, ()
                for name in [name for name, (_, awaited) in playing.items() if _has_come(awaited)]:
                    scenario, awaited = playing.pop(name)
                    try:
                        awaited = next(scenario)
                        playing[name] = scenario, time.monotonic() + awaited if isinstance(awaited, float) else awaited
                    except StopIteration:
                        pass
                    except Exception as error:
                        error.add_note(f"In the scenario {name!r}, after {awaited}.")
                        failures.append(error)
                self._hear(0 if any(_has_come(awaited) for _, awaited in playing.values()) else 0.02)
                self._check_time()
        finally:
            self._kill_all()
        if failures:
            raise ExceptionGroup(
                f"{len(failures)} of {len(scenarios)} scenarios failed, {len(waiting)} were not begun", failures
            )

    def _kill_all(self) -> None:
        """Leave no run of a scenario that failed."""
        if self._process.poll() is None:
            left = list(self._runs.values())
            for run in left:
                self.kill(run)
            self.wait(*left)

    def _ask(self, **request: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def _hear(self, seconds: float) -> None:
        """Take note of what the process tells, after waiting for it for at most so long."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        if not select.select([pipe], [], [], seconds)[0]:
            return
        if not (more := os.read(pipe, 1 << 16)):
            raise self._ended()
        *lines, self._unread = (self._unread + more).split(b"\n")
        for event in map(json.loads, lines):
            if "stopped" in event:
                self._runs[event["stopped"]].is_stopped = True
            if "ended" in event:
                run = self._runs.pop(event["ended"])
                run.exit_code, run.is_stopped = event["status"], False
                self.kills += run.exit_code == KILLED

    def _check_time(self) -> None:
        for run in self._runs.values():
            if not run.is_stopped and time.monotonic() - run.began > LIMIT_SECONDS:
                text = str(run)
                self.kill(run)
                raise AssertionError(f"It took more than {LIMIT_SECONDS} s: {text}")

    def _ended(self) -> AssertionError:
        self._process.kill()
        said = (self._folder / "zygote.txt").read_text(errors="replace")
        return AssertionError(f"The process that forks the runs ended with {self._process.wait()}: {said}")


def _has_come(awaited: tuple[Run, ...] | float) -> bool:
    """Whether all runs rest, or a moment is over."""
    return time.monotonic() >= awaited if isinstance(awaited, float) else all(run.rests for run in awaited)


def killed_at_each(
    zygote: Zygote, job: Job, sorts: Iterable[str], new: Callable[[], Path | str], check: Callable[[Any], None]
) -> Generator[tuple[Run, ...] | float, None, list[Any]]:
    """Runs of one destination that are killed one after the other, each at a step of another sort.

    Args:
        zygote: forks them.
        job: what they do.
        sorts: in the order in which a run that nobody disturbs comes to them.
        new: gives a destination to begin with, and another one once there is nothing left to be killed at.
        check: is called with the destination after each kill.

    Returns: the destinations, of which the last are not finished.
    """
    destinations = [new()]
    for sort in sorts:
        run = zygote.start(job, destinations[-1], fault=(sort, "kill"))
        yield (run,)
        if run.exit_code == 0 or "were applied" in run.said:  # the one before has done this step, or all
            destinations.append(new())
            run = zygote.start(job, destinations[-1], fault=(sort, "kill"))
            yield (run,)
        assert run.exit_code == KILLED, (sort, run)
        assert sort_of(run.steps[-1]) == sort
        check(destinations[-1])
    return destinations


# What comes out -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Output:
    """A finished output: ids in order, the bytes of the features, and the SHA-256 of every part by its name."""

    ids: list[int]
    features: bytes
    parts: dict[str, str]


def output_of(destination: Path) -> Output:
    """What stands in a destination, as readers of Parquet data sets find it."""
    ids = pq.read_table(destination, columns=["id"])["id"].to_pylist()
    return Output(ids, features_of(destination).tobytes(), _parts(destination))


def assert_same(destination: Path, undisturbed: Output, sample: int = 0) -> None:
    """A finished output that is the undisturbed one to the byte, passes `verify`, and has only records beside it.

    Among these may be unfinished files of processes that were killed.
    """
    output = output_of(destination)
    assert output.ids == undisturbed.ids
    assert output.features == undisturbed.features
    assert output.parts == undisturbed.parts
    assert (destination / SUCCESS).is_file()
    own = (*output.parts, SUCCESS)
    assert not [name for name in entries(destination) if name not in own and not name.startswith(RECORDS)]
    verified = verify(destination, sample=sample)
    assert (verified.parts, verified.rows) == (len(output.parts), len(output.ids))


def assert_whole(destination: Path, undisturbed: Output) -> None:
    """What readers see of an output, finished or not, is whole: parts as they are to be, and success only with all."""
    parts = _parts(destination)
    assert parts.items() <= undisturbed.parts.items()
    if (destination / SUCCESS).exists():
        assert parts == undisturbed.parts


def identities(destination: Path) -> dict[str, tuple[int, int]]:
    """Which file each part is, and when it was written: another one has another."""
    stats = {path.name: path.stat() for path in destination.glob("*.parquet")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def recorded(destination: Path) -> dict[str, tuple[int, int]]:
    """The identities of the parts that the attempts' logs tell of: whoever goes on keeps them.

    Each process that is killed between the name of a part and its record leaves one more part that is written again.
    """
    lines = [line for log in destination.glob(f"{COMMITS}/*.jsonl") for line in log.read_text().splitlines(True)]
    units = {json.loads(line).get("unit") for line in lines if line.endswith("\n")}
    return {name: identity for name, identity in identities(destination).items() if int(name[5:10]) in units}


def _parts(destination: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(destination.glob("*.parquet"))}
