"""What a worker process does: it answers its driver's questions, and puts the units through that it is handed.

The driver (`hand_out.py`) opens the job and holds its lease; a worker reads, computes, writes and commits, under the
name of an attempt of its own. How questions and answers travel is for the pools in `launch/`. They are pickled, so what
is in them is plain.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from pyarrow import fs

from scanrnn_dist.errors import SAVED, ConfigError, ScanRNNError, StoppedError, stopped_by_machine
from scanrnn_dist.job.computation import Computation
from scanrnn_dist.job.differences import differences_of
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.open_job import OpenJob
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.pipeline import Done, put_through
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.protocols import RunLike, WindowShape
from scanrnn_dist.records import AttemptLog, CrashTrace, JobRecords, PartRecord, Share, oom_kills
from scanrnn_dist.source import Unit
from scanrnn_dist.storage import new_attempt, this_host


@dataclass(frozen=True)
class Task:
    """What a worker has to know of a job."""

    destination: str
    records: JobRecords
    job: dict[str, Any]
    options: JobOptions
    share: Share
    memory: Memory
    allow_mixed: bool
    has_own_process: bool


class Event(NamedTuple):
    """What became of a unit: a method of `Claims` that the driver is to call, with these arguments after the unit."""

    what: str
    unit: int
    given: tuple[Any, ...]


@dataclass(frozen=True)
class Orders:
    """Units to be done, and whether there will be no more of this round.

    Args:
        units: their numbers.
        is_last: whether no more follow.
        alone: whether it is one that may end the process.
        seconds: answer after so many at the latest.
    """

    units: tuple[int, ...]
    is_last: bool
    alone: bool
    seconds: float


@dataclass(frozen=True)
class News:
    """What happened since the last answer; `wants` says that nothing waits, `done` what came of a round that ended."""

    events: tuple[Event, ...]
    wants: bool
    done: Done | None = None


class Answer(NamedTuple):
    """A value; or an error, for the driver to raise; or the traceback of a defect."""

    value: Any = None
    error: ScanRNNError | None = None
    defect: str = ""


@dataclass
class EngineFacts:
    """An engine of other processes: all of `EngineLike` but its runs."""

    in_features: int
    out_features: int
    carry_features: int
    dtype: np.dtype
    state_features: int
    first_state: np.ndarray
    gives_steps: bool
    flops_per_step: int
    kept_step_bytes: int
    devices: int
    is_static: bool
    shape: WindowShape
    kernel: str

    def run(self, memory_bytes: int | None = None) -> RunLike:
        """There is none here."""
        raise AssertionError("the engine is in other processes")


class UnitWorker:
    """A worker process's side of the questions; `answer` is what pools call, one question at a time."""

    def __init__(self) -> None:
        self._computation: Computation | None = None
        self._begun: _Begun | None = None

    def answer(self, question: str, given: tuple[Any, ...]) -> Answer:
        """The answer to a question, which names one of the methods below."""
        try:
            return Answer(getattr(self, question)(*given))
        except ScanRNNError as error:
            return Answer(error=error)
        except Exception as error:
            stopped = stopped_by_machine(error, SAVED)
            return Answer(error=stopped) if stopped is not None else Answer(defect=traceback.format_exc())

    def takes(self, computation: Computation) -> None:
        """What to compute with."""
        self._computation = computation

    def described(self, in_features: int | None, like: Mapping[str, Any] | None) -> dict[str, Any]:
        """As `Computation.described`, for a source of so many features per step."""
        return self._asked.described(lambda: _known(in_features), like)

    def is_recorded(self, job: Mapping[str, Any], in_features: int | None) -> bool:
        """As `Computation.is_recorded`."""
        return self._asked.is_recorded(job, lambda: _known(in_features))

    def engine(self, own_carries: bool, keep_state: bool, *described: Any) -> EngineFacts:
        """What there is to know of the engine, compiled; `described` is what was asked before, maybe of another one."""
        self.described(*described)
        engine = self._asked.engine(own_carries, keep_state)
        return EngineFacts(**{name: getattr(engine, name) for name in EngineFacts.__dataclass_fields__})

    def encoder_content(self, *described: Any) -> bytes | None:
        """The file of the encoder; `described` as of `engine`."""
        self.described(*described)
        return self._asked.encoder_content()

    def begin(self, task: Task, in_features: int | None, replaces: str) -> str:
        """Make ready for the units of a job, maybe in place of a worker that died; the name of this attempt at it.

        Raises:
            ConfigError: source or destination are not to be found from here; or the encoder or the environment is
                another one here than that of the job.
        """
        _check_finds(task.records.find_job() is not None, task.records.store.root)
        described = {**self.described(in_features, task.job), "options": task.job["options"]}
        store = replace(task.records.store, attempt=new_attempt())
        if differences := differences_of(task.job, described, task.allow_mixed):
            raise ConfigError(
                f"The worker {store.attempt} would compute something else than the job in {store.root}: "
                f"{'; '.join(differences[:6])}. Give all workers the same versions and devices, or --allow-mixed."
            )
        engine = self._asked.engine(task.options.has_own_carries, task.options.keep_state)
        records = JobRecords(store)
        plan = Plan.read(records, task.job).within(task.memory)
        file = plan.source.files[0].path
        _check_finds(plan.source.filesystem.get_file_info(file).type != fs.FileType.NotFound, file)
        environment = described["environment"]
        opened = OpenJob(task.destination, records, task.job, plan, task.options, environment, task.memory)
        header = {"job": task.job["id"], "share": list(task.share), "replaces": replaces, **oom_kills()}
        log = AttemptLog(store, {**header, "environment": environment, "devices": engine.devices})
        trace = CrashTrace(store) if task.has_own_process else None
        self._begun = _Begun(opened, self._asked, _HandedClaims(records, task.job, log), trace)
        return store.attempt

    def exchange(self, orders: Orders) -> News:
        """Take units, and tell what happened since the last time; waits for something that is worth telling."""
        assert self._begun is not None, "begin comes first"
        return self._begun.exchange(orders)

    def end(self, reason: str) -> None:
        """Stop what is being done, and say how the attempt ended."""
        if self._begun is not None:
            self._begun.end(reason)
            self._begun = None  # last: an end that raised may be asked for again

    @property
    def _asked(self) -> Computation:
        assert self._computation is not None, "takes comes first"
        return self._computation


@dataclass
class _Begun:
    """An attempt at a job, from its beginning to its end."""

    opened: OpenJob
    computation: Computation
    claims: _HandedClaims
    trace: CrashTrace | None
    round: _Round | None = None

    def exchange(self, orders: Orders) -> News:
        """As `UnitWorker.exchange`."""
        if self.round is None:
            self.round = _Round(self.opened, self.computation, self.claims, orders.alone)
        done = self.round.goes_on(orders)
        news = News(self.claims.news(), wants=done is None and self.round.wants, done=done)
        if done is not None:
            self.round = None
        return news

    def end(self, reason: str) -> None:
        """As `UnitWorker.end`."""
        self.claims.stopped = reason
        if self.round is not None:
            self.round.stop()
        self.claims.log.end(reason)
        if self.trace is not None:
            self.trace.close()


class _HandedClaims:
    """`Claims` of a worker: all of it is noted down, and told the driver with the next answer."""

    def __init__(self, records: JobRecords, job: dict[str, Any], log: AttemptLog) -> None:
        self.log, self.stopped = log, ""
        self._records, self._job = records, job
        self._events: deque[Event] = deque()

    def check_job(self) -> None:
        self._check()
        self._records.check_is(self._job)

    def finished(self, unit: Unit, rows: int) -> None:
        self._events.append(Event("finished", unit.index, (rows,)))
        self._check()

    def committed(self, unit: Unit, record: PartRecord) -> None:
        self._events.append(Event("committed", unit.index, (record,)))

    def failed(self, unit: Unit, reason: str) -> None:
        self._events.append(Event("failed", unit.index, (reason,)))

    def set_aside(self, unit: Unit, reason: str) -> None:
        self._events.append(Event("set_aside", unit.index, (reason,)))

    def tell(self) -> None:
        pass  # the driver does, of all workers

    def news(self) -> tuple[Event, ...]:
        """What was not told yet."""
        return tuple(self._events.popleft() for _ in range(len(self._events)))

    def _check(self) -> None:
        if self.stopped:
            raise StoppedError(f"The worker was told to stop: {self.stopped}.")


@dataclass
class _Queue:
    """Units that wait to be read; iterating it waits for more until it is closed."""

    changed: threading.Condition
    units: deque[int] = field(default_factory=deque)
    is_closed: bool = False

    def __iter__(self) -> Iterator[int]:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.units or self.is_closed)
                if not self.units:
                    return
                unit = self.units.popleft()
                self.changed.notify_all()
            yield unit

    def put(self, units: Iterable[int], is_last: bool) -> None:
        """Add some."""
        with self.changed:
            self.units.extend(units)
            self.is_closed = self.is_closed or is_last
            self.changed.notify_all()


class _Round:
    """Units that are put through in a thread of their own while more are handed over."""

    def __init__(self, opened: OpenJob, computation: Computation, claims: _HandedClaims, alone: bool) -> None:
        self._changed = threading.Condition()
        self._queue = _Queue(self._changed)
        self._done: Done | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(opened, computation, claims, alone), name="scanrnn-units", daemon=True
        )
        self._thread.start()

    @property
    def wants(self) -> bool:
        """Whether no unit waits, and more may come."""
        return not self._queue.units and not self._queue.is_closed

    def goes_on(self, orders: Orders) -> Done | None:
        """Add units, and wait until there is need of more, or for so many seconds; what was done if the round ended."""
        self._queue.put(orders.units, orders.is_last)
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self.wants, orders.seconds)
        if not self._has_ended:
            return None
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._done

    def stop(self) -> None:
        """Wait until nothing is done any more; the claims say already that it is to stop."""
        with self._changed:
            self._queue.units.clear()
        self._queue.put((), is_last=True)
        self._thread.join()

    @property
    def _has_ended(self) -> bool:
        return self._done is not None or self._error is not None

    def _run(self, *given: Any) -> None:
        opened, computation, claims, alone = given
        done = error = None
        try:
            done = put_through(opened, computation, claims, self._queue, alone)
        except BaseException as raised:
            error = raised
        with self._changed:
            self._done, self._error = done, error
            self._changed.notify_all()


def _known(in_features: int | None) -> int:
    assert in_features is not None, "the driver asks for what needs no width"
    return in_features


def _check_finds(is_found: bool, name: str) -> None:
    """Refuse to work on a machine that sees a folder of its own in place of the driver's."""
    if not is_found:
        raise ConfigError(
            f"The worker on {this_host()} does not find {name}. Workers read the source and write the destination "
            "themselves: name folders that all machines share by the same path, or buckets (s3://...)."
        )
