"""Units that are handed to workers: whoever answers first, and whoever dies, the output is that of one process."""

from __future__ import annotations

import errno
import itertools
import json
import pickle
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sources
from faults import Died
from holding import hold
from pyarrow import fs
from sources import encoder_of, featurize, leftovers, mesh_of, parts_of, random_rows, some_lengths, write_files
from sources import write_source as write

from scanrnn_dist.api import EncoderOnDevices, verify
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import MemoryShares, Sharing, hand_out, pipeline, read_status, worker
from scanrnn_dist.job.attempt import Attempt
from scanrnn_dist.job.hand_out import (
    AT_A_TIME,
    DEATHS_IN_VAIN,
    STARTS_FAILED,
    HandOut,
    UnitsLeft,
    WorkerDied,
    _found_from_anywhere,
)
from scanrnn_dist.job.report import Made
from scanrnn_dist.job.restart import replacing, restart_of
from scanrnn_dist.job.worker import Answer, Task, UnitWorker
from scanrnn_dist.records import JobRecords, Lease, PartRecord
from scanrnn_dist.records.names import COMMITS
from scanrnn_dist.records.suspects import SILENT_DEATHS
from scanrnn_dist.source import BadRows
from scanrnn_dist.storage import LocalStore
from scanrnn_dist.storage.arrow_objects import ArrowObjects
from scanrnn_dist.storage.bucket import ObjectStore

UNITS = 12

Dies = Callable[[int, str, UnitWorker], bool]
"""Whether a worker, by its number, dies of a question, once it has done what was asked and before it says so."""


class PoolHere:
    """Workers that are objects of this process. Which of them answers next, a seed decides; some die."""

    has_own_processes = False
    memory_bytes = None

    def __init__(self, count: int, seed: int = 0, dies: Dies = lambda *_: False) -> None:
        self.count, self._dies, self._random = count, dies, random.Random(seed)
        self.workers: dict[int, UnitWorker] = {}
        self._asked: dict[int, deque[tuple[str, tuple[Any, ...]]]] = {}
        self.deaths = self.started = 0

    def start(self) -> int:
        self.started += 1
        self.workers[self.started], self._asked[self.started] = UnitWorker(), deque()
        return self.started

    def ask(self, worker: int, question: str, *given: Any) -> None:
        if worker in self._asked:
            self._asked[worker].append((question, given))

    def wait(self, seconds: float | None = None) -> tuple[int, Answer | WorkerDied] | None:
        number = self._random.choice([number for number, asked in self._asked.items() if asked])
        question, given = self._asked[number].popleft()
        worker = self.workers[number]
        try:
            answer = worker.answer(question, given)
            is_dead = question != "end" and self._dies(number, question, worker)
        except Died:
            is_dead = True
        if is_dead:
            self.deaths += 1
            self.stop(number)
            return number, WorkerDied("it was told to")
        return number, answer

    def stop(self, worker: int) -> None:
        """It stops at once, and writes nothing down."""
        self._asked.pop(worker, None)
        gone = self.workers.pop(worker, None)
        if gone is not None and gone._begun is not None:
            gone._begun.claims.stopped = "dead"
            if gone._begun.round is not None:
                gone._begun.round.stop()
            gone._begun.claims.log._log.close()


@pytest.fixture(autouse=True)
def _small_chunks_and_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(MemoryShares, "chunk", 1000)
    hold(monkeypatch, read_ahead=1)
    yield
    assert not sources.threads()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, 12 units of 5 rows; not to be changed."""
    folder = tmp_path_factory.mktemp("source") / "in"
    write(folder / "a.parquet", random_rows(np.full(35, 40), 1))
    write(folder / "b.parquet", random_rows(some_lengths(25, 2), 2))
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """The parts of a job that one process did."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    featurize(source, out, rows_per_part=5)
    return parts_of(out)


def assert_whole(out: Path, undisturbed: dict[str, bytes | None]) -> None:
    assert parts_of(out) == undisturbed and not leftovers(out)
    verify(out, sample=0)


@pytest.mark.parametrize(("count", "seed"), [(3, 1), (20, 2)])
def test_the_parts_are_those_of_one_process(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], count: int, seed: int
) -> None:
    rows: list[int] = []
    pool = PoolHere(count, seed)
    here = featurize(source, tmp_path / "here", rows_per_part=5)
    report = featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(pool), on_rows=rows.append)
    assert_whole(tmp_path / "out", undisturbed)
    for told in ("rows", "steps", "parts", "is_complete", "units_left", "set_aside", "counts"):
        assert getattr(report, told) == getattr(here, told), told
    assert sum(rows) == report.rows and not pool.workers and report.gflops > 0
    assert read_status(tmp_path / "out").workers[0].helpers == ()


@pytest.mark.parametrize("seed", [0, pytest.param(2, marks=pytest.mark.soak), 5])
def test_workers_that_die_at_any_moment_cost_nothing_but_time(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], seed: int
) -> None:
    questions = itertools.count(seed)
    pool = PoolHere(3, seed, dies=lambda *_: next(questions) % (4 + seed) == 3)
    report = featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(pool))
    assert pool.deaths > 0 and report.is_complete
    assert_whole(tmp_path / "out", undisturbed)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))])
def test_rows_of_workers_that_died_are_told_once_and_do_not_stay_in_hand(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    seen, in_hand, release = list[int](), list[int](), Lease.release

    def watching(self: Any, *given: Any) -> None:
        self.beat()
        in_hand.append(self._worker.rows_in_hand)
        release(self, *given)

    monkeypatch.setattr(Lease, "release", watching)
    monkeypatch.setattr(hand_out, "NEWS_SECONDS", 0)  # so that they tell of parts that are not whole
    monkeypatch.setattr(hand_out, "NEWS_PER_SECOND", 1 << 40)
    questions = itertools.count(seed)
    pool = PoolHere(2, seed, dies=lambda *_: next(questions) % 9 == 8 and pool.deaths < 4)
    report = featurize(source, tmp_path / "out", rows_per_part=30, executor=HandOut(pool), on_rows=seen.append)
    assert pool.deaths > 0 and report.is_complete
    assert sum(seen) == 60 and min(seen) > 0 and in_hand == [0]


def test_a_unit_that_is_being_committed_is_never_told_twice(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that tells may look between any two steps of the one that commits."""
    attempts, seen, add, settle = list[Attempt](), list[int](), Made.add, Attempt._settle

    def settled(self: Attempt, number: int) -> None:
        attempts.append(self)
        settle(self, number)
        self.tell()

    def added(self: Made, record: PartRecord) -> None:
        add(self, record)
        for attempt in attempts[-1:]:
            attempt.tell()

    monkeypatch.setattr(Attempt, "_settle", settled)
    monkeypatch.setattr(Made, "add", added)
    featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(PoolHere(2)), on_rows=seen.append)
    assert len(attempts) == UNITS and sum(seen) == 60


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_what_workers_did_before_they_died_is_told(tmp_path: Path, seed: int) -> None:
    folder, how = write_files(tmp_path / "in", {1, 2, 5, 7, 10}, UNITS), {"bad_rows": BadRows(bad_value="skip")}
    questions = itertools.count(seed)
    pool = PoolHere(2, seed, dies=lambda _, question, __: question == "exchange" and next(questions) % 5 == 3)
    here = featurize(folder, tmp_path / "here", **how)
    report = featurize(folder, tmp_path / "out", executor=HandOut(pool), **how)
    assert pool.deaths > 0 and here.rows == 4 * UNITS - 5
    for told in ("rows", "parts", "rows_before", "is_complete", "set_aside", "counts"):
        assert getattr(report, told) == getattr(here, told), told


def test_all_workers_are_started_before_any_is_waited_for(tmp_path: Path, source: Path) -> None:
    """One that imports does not read yet, and a large encoder is sent only as fast as it is read."""
    told, with_encoder = list[str](), list[str]()

    class Told(PoolHere):
        def start(self) -> int:
            told.append("start")
            return super().start()

        def ask(self, worker: int, question: str, *given: Any) -> None:
            told.append(question)
            with_encoder.extend(question for one in given if isinstance(one, EncoderOnDevices))
            super().ask(worker, question, *given)

    featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(Told(3)))
    assert told[:6] == ["start"] * 3 + ["takes"] * 3
    assert with_encoder == ["takes"] * 3, "once for each"


def test_workers_that_were_started_are_stopped_where_a_later_one_cannot_be(tmp_path: Path, source: Path) -> None:
    class Full(PoolHere):
        def start(self) -> int:
            if self.started == 2:
                raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
            return super().start()

    pool = Full(3)
    with pytest.raises((OSError, StoppedError), match="temporarily unavailable"):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(pool))
    assert pool.started == 2 and not pool.workers


def test_the_share_is_held_until_all_workers_are_stopped(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, still_there = Lease.release, list[int]()

    def watching(self: Any, *given: Any) -> None:
        still_there.append(len(pool.workers))
        released(self, *given)

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lease, "release", watching)
    pool = PoolHere(3)
    with pytest.raises(KeyboardInterrupt):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(pool), on_rows=interrupted)
    assert pool.started == 3 and still_there == [0]


def test_a_worker_says_whose_place_it_took(tmp_path: Path, source: Path) -> None:
    ends = {(1, "exchange"), (4, "takes")}  # the first one in its midst, and the one that comes in its place at once
    pool = PoolHere(3, dies=lambda number, question, _: (number, question) in ends)
    featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(pool))
    logs = [log.read_text() for log in (tmp_path / "out" / COMMITS).glob("*.jsonl")]
    (dead,) = (json.loads(log.partition("\n")[0])["attempt"] for log in logs if '"end"' not in log)
    replaced = [json.loads(log.partition("\n")[0]).get("replaces") for log in logs]
    assert pool.deaths == 2 and sorted(replaced, key=str) == sorted(["", "", "", dead, None], key=str)


def poison(monkeypatch: pytest.MonkeyPatch, is_fatal: Callable[[int], bool]) -> None:
    """Have the worker die that begins one of these units."""
    begun = pipeline.begun_units

    def begun_or_dead(*given: Any) -> Iterator[Any]:
        for unit in begun(*given):
            if is_fatal(unit.index):
                raise Died
            yield unit

    monkeypatch.setattr(pipeline, "begun_units", begun_or_dead)


def test_a_unit_that_ends_its_worker_is_found_out_and_all_others_are_done(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda unit: unit == 5)
    pool, out = PoolHere(3), tmp_path / "out"
    with pytest.raises(DataError, match=r"part 5 end the process that computes them: 5 processes"):
        featurize(source, out, rows_per_part=5, executor=HandOut(pool))
    status = read_status(out)
    assert status.fatal_units == (5,) and status.units_committed == UNITS - 1
    assert pool.deaths == 1 + SILENT_DEATHS


def test_units_that_find_too_little_memory_beside_others_are_done_one_by_one(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, at_work = PoolHere(3), list[int]()

    class Noting(HandOut):
        def do(self, opened: Any, handling: Any, attempt: Any, numbers: Any, *given: Any) -> Any:
            at_work[:] = numbers
            return super().do(opened, handling, attempt, numbers, *given)

    monkeypatch.setattr(worker, "oom_kills", lambda: {"cgroup": "g", "oom_kills": pool.deaths})
    poison(monkeypatch, lambda unit: unit in (2, 5, 8) and len(at_work) > 1)
    report = featurize(source, tmp_path / "out", rows_per_part=5, executor=Noting(pool))
    assert pool.deaths >= 1 and report.is_complete
    assert_whole(tmp_path / "out", undisturbed)


def test_data_that_is_not_what_it_should_be_is_told_as_by_one_process(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {2, 5}, files=8)
    told = []
    for name, executor in (("one", None), ("many", HandOut(PoolHere(3)))):
        with pytest.raises(DataError) as error:
            featurize(folder, tmp_path / name, executor=executor)
        told.append(str(error.value).replace(str(tmp_path / name), "it"))
    assert told[0] == told[1] and "02.parquet" in told[0]
    assert read_status(tmp_path / "many").units_committed == 6


@pytest.mark.parametrize("is_handed_out", [False, True])
def test_rows_of_units_that_are_set_aside_as_a_whole_count_as_finished(tmp_path: Path, is_handed_out: bool) -> None:
    folder, seen = write_files(tmp_path / "in", set(), files=3), list[int]()
    damaged = folder / "02.parquet"  # the last one
    damaged.write_bytes(damaged.read_bytes()[:4] + bytes(40) + damaged.read_bytes()[44:])
    skip, executor = BadRows(unreadable_file="skip"), HandOut(PoolHere(2)) if is_handed_out else None
    report = featurize(
        folder, tmp_path / "out", column="sequence", bad_rows=skip, executor=executor, on_rows=seen.append
    )
    assert report.set_aside and sum(seen) == report.rows + report.set_aside


def test_more_bad_rows_than_may_be_end_the_job(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", {0, 1, 2, 5}, files=8)
    how: dict[str, Any] = {"bad_rows": BadRows(bad_value="skip"), "max_bad_rows": 1}
    with pytest.raises(DataError, match=r"rows were set aside, and --max-bad-rows allows 1"):
        featurize(folder, tmp_path / "out", executor=HandOut(PoolHere(2)), **how)
    report = featurize(folder, tmp_path / "out", executor=HandOut(PoolHere(2)), **{**how, "max_bad_rows": 9})
    assert report.is_complete and read_status(tmp_path / "out").set_aside == 4


def test_a_driver_that_is_stopped_ends_its_workers_and_any_process_goes_on(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    pool, out = PoolHere(2), tmp_path / "out"

    def stop(_: int) -> None:
        if read_status(out).units_committed >= 2:
            raise StoppedError("SIGTERM")

    with pytest.raises(StoppedError, match="SIGTERM"):
        featurize(source, out, rows_per_part=5, executor=HandOut(pool), on_rows=stop)
    assert not pool.workers
    logs = [path.read_text().splitlines() for path in (out / "__scanrnn" / "commits").glob("*.jsonl")]
    assert len(logs) == 3 and all('"end"' in log[-1] for log in logs)
    assert 2 <= read_status(out).units_committed < UNITS
    report = featurize(source, out, rows_per_part=5)
    assert report.is_complete and report.rows_before >= 10
    assert_whole(out, undisturbed)


def test_what_one_process_began_workers_finish_and_find_done(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, on_rows=sources.stop_once_committed(out, 20))
    assert featurize(source, out, rows_per_part=5, executor=HandOut(PoolHere(2))).is_complete
    assert_whole(out, undisturbed)
    again = PoolHere(2)
    assert str(featurize(source, out, rows_per_part=5, executor=HandOut(again))).startswith("Nothing to do")
    assert again.started == 0  # no worker is needed to see that
    report = featurize(source, out, rows_per_part=5, executor=HandOut(again), restart=True)
    assert report.parts == UNITS and not list((out / "__scanrnn").glob("restart*"))
    assert_whole(out, undisturbed)


def test_a_share_is_done_by_workers_too(tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]) -> None:
    for share in ((2, 3), (1, 3)):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(PoolHere(2)), sharing=Sharing(share))
    featurize(source, tmp_path / "out", rows_per_part=5, sharing=Sharing((3, 3)))
    assert_whole(tmp_path / "out", undisturbed)


def test_workers_that_never_come_up_end_the_job(tmp_path: Path, source: Path) -> None:
    pool = PoolHere(2, dies=lambda *_: True)
    with pytest.raises(StoppedError, match=r"Workers die again and again; the last one said: it was told to\."):
        featurize(source, tmp_path / "out", executor=HandOut(pool))
    assert pool.deaths == STARTS_FAILED + 2 and not (tmp_path / "out").exists()


def test_deaths_of_one_job_are_not_counted_in_the_next(tmp_path: Path, source: Path) -> None:
    pool = PoolHere(2, dies=lambda *_: True)
    executor = HandOut(pool)
    with pytest.raises(StoppedError, match="Workers die again and again"):
        featurize(source, tmp_path / "out", executor=executor)
    first = pool.started
    pool._dies = lambda number, question, _: number == first + 1
    assert featurize(source, tmp_path / "out", executor=executor).is_complete and pool.deaths == STARTS_FAILED + 3


def test_workers_that_die_of_every_unit_end_the_job(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda _: True)
    pool = PoolHere(1)
    with pytest.raises(StoppedError, match="Workers die again and again"):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(pool))
    assert pool.deaths == DEATHS_IN_VAIN + 1


def test_a_worker_that_would_compute_something_else_is_refused(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = PoolHere(2)
    begin = UnitWorker.begin

    def begun(self: UnitWorker, *given: Any) -> str:
        if self is pool.workers[2]:
            self._computation = EncoderOnDevices(encoder_of(7), mesh_of(1), sources.SHAPE)
        return begin(self, *given)

    monkeypatch.setattr(UnitWorker, "begin", begun)
    with pytest.raises(ConfigError, match=r"The worker .* would compute something else than the job in .*weights"):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(pool))


def test_a_defect_in_a_worker_comes_with_its_traceback(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(UnitWorker, "begin", broken)
    with pytest.raises(RuntimeError, match=r"(?s)A worker met a defect:.*in broken.*ZeroDivisionError: on purpose"):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(PoolHere(2)))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "Out of memory: MemoryError. Find more memory, or choose a smaller --memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while\nmore"), "Out of memory: RESOURCE_EXHAUSTED: Out of"),
        (OSError(28, "No space left on device", "/tmp/x"), r"No space left on device \(/tmp/x\)"),
    ],
)
def test_what_the_machine_refuses_a_worker_stops_the_job_as_in_one_process(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refused(*_: Any) -> None:
        raise error

    monkeypatch.setattr(UnitWorker, "begin", refused)
    with pytest.raises(StoppedError, match=f"^{said}.* Stopped. What is done is saved"):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(PoolHere(2)))


@pytest.mark.parametrize("seed", range(3))
def test_whichever_worker_is_asked_next_it_knows_what_was_asked_before(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    class InOrder(EncoderOnDevices):
        """As what the command line asks for: nothing is known of it before it was described."""

        is_described = False

        def described(self, *given: Any) -> dict[str, Any]:
            self.is_described = True
            return super().described(*given)

        def engine(self, *given: Any) -> Any:
            assert self.is_described
            return super().engine(*given)

        def encoder_content(self) -> bytes | None:
            assert self.is_described
            return super().encoder_content()

    def takes(self: UnitWorker, computation: Any) -> None:
        self._computation = InOrder(encoder_of(), mesh_of(1), sources.SHAPE)

    monkeypatch.setattr(UnitWorker, "takes", takes)
    assert featurize(source, tmp_path / "out", executor=HandOut(PoolHere(4, seed))).is_complete


def test_a_worker_that_does_not_see_the_folders_of_the_driver_is_refused(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, elsewhere = UnitWorker.begin, LocalStore(str(tmp_path / "elsewhere"), "attempt")

    def begun(self: UnitWorker, task: Task, *given: Any) -> str:
        return begin(self, replace(task, records=JobRecords(elsewhere)), *given)

    monkeypatch.setattr(UnitWorker, "begin", begun)
    with pytest.raises(ConfigError, match=r"does not find .*elsewhere\. .*name folders that all machines share"):
        featurize(source, tmp_path / "out", rows_per_part=5, executor=HandOut(PoolHere(2)))
    assert not (tmp_path / "elsewhere").exists()


def test_workers_in_another_folder_find_what_the_driver_names_from_its_own(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driver").mkdir()
    monkeypatch.chdir(tmp_path / "driver")
    begin = UnitWorker.begin

    def begun(self: UnitWorker, task: Task, *given: Any) -> str:
        assert Path(task.records.store.root).is_absolute()
        return begin(self, task, *given)

    monkeypatch.setattr(UnitWorker, "begin", begun)
    featurize(source, "out", rows_per_part=5, executor=HandOut(PoolHere(2)))
    assert_whole(tmp_path / "driver" / "out", undisturbed)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_the_records_of_a_restart_go_to_workers_without_what_guards_them(tmp_path: Path, kind: str) -> None:
    root = str(tmp_path)
    folder = LocalStore(root, "attempt")
    bucket = ObjectStore(root, "attempt", ArrowObjects(fs.LocalFileSystem()), root)
    with replacing(JobRecords(folder)) as lease:
        new = restart_of(JobRecords(folder if kind == "folder" else bucket), lease)
        found = pickle.loads(pickle.dumps(_found_from_anywhere(new)))
    assert found.store.path("part-00000.parquet") == new.store.path("part-00000.parquet") and found.guard is None


@pytest.mark.parametrize("seed", range(5))
def test_a_worker_gets_a_part_of_the_steps_left_and_no_more_units_than_that(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = np.floor(generator.lognormal(3.0, 1.5, 200)).astype(np.int64)
    left, given = UnitsLeft(range(200), values), list[int]()
    while left:
        before = values.sum() - values[given].sum()
        units = left.take(0.05)
        assert len(units) == 1 or values[list(units)].sum() <= 0.05 * before
        given += units
    assert sorted(given) == list(range(200)) and (2 * np.minimum.accumulate(values[given]) >= values[given]).all()
    assert left.take(0.05) == ()


def test_units_of_about_the_same_weight_are_given_file_by_file() -> None:
    files, of_each, workers = 100, 100, 8
    values = np.random.default_rng(0).integers(95_000, 105_000, files * of_each)  # about 1.5 times a power of two
    left, openings = UnitsLeft(range(len(values)), values), 0
    while units := left.take(1 / (AT_A_TIME * workers)):
        openings += len({unit // of_each for unit in units})
    assert openings < 10 * files
    values[::of_each] *= 10
    first = UnitsLeft(range(len(values)), values).take(0.05)
    assert len(first) > 1 and {unit % of_each for unit in first} == {0}


def test_units_to_be_done_alone_are_taken_one_by_one_even_if_they_are_empty() -> None:
    left = UnitsLeft([2, 0, 1], [0, 0, 0])
    assert [left.take(None), left.take(None), left.take(0.5), left.take(None)] == [(0,), (1,), (2,), ()]
