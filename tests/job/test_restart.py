"""A restart takes the place of the old output as a whole, wherever it is cut short, or not at all."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import CopyingStore, Died, Told, watched

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.job import restart
from scanrnn_dist.job.restart import finish_publishing, publish, remove_restart, replacing, restart_of
from scanrnn_dist.records import JOB, JOB_FORMAT, RESTART, UNITS, JobRecords, Lease, Worker, part_name
from scanrnn_dist.records.attempt_log import PartRecord
from scanrnn_dist.records.workers import worker_bytes
from scanrnn_dist.storage import LocalStore, open_store, unstaged

PLANNED = {"format": JOB_FORMAT, "encoder": {}, "options": {}, "window": {}, "environment": {}}


def manifest_at(folder: Path, told: Told = lambda kind, name: None, kind: type[LocalStore] = LocalStore) -> JobRecords:
    """The records under a folder, which may be that of a restart."""
    if folder.match(RESTART):
        return restart_of(manifest_at(folder.parents[1]))
    return JobRecords(watched(kind(str(folder), "host.1.00000000"), told))


def make_output(folder: Path, first: int, parts: int) -> None:
    """A finished output of parts that hold the numbers from `first` on."""
    records = manifest_at(folder)
    records.create_job({**PLANNED, "options": {"first": first}}, {UNITS: str(first).encode()})
    records.store.write(f"__scanrnn/commits/a{first}.jsonl", b"{}\n")
    sizes = []
    for unit in range(parts):
        content = io.BytesIO()
        pq.write_table(pa.table({"x": [first + unit]}), content)
        records.store.write(part_name(unit, parts), content.getvalue())
        sizes.append(len(content.getvalue()))
    recorded = [PartRecord(unit, 1, size, "") for unit, size in enumerate(sizes)]
    plan_files = {each.name: [getattr(part, each.name) for part in recorded] for each in fields(PartRecord)}
    listed = io.BytesIO()
    pq.write_table(pa.table(plan_files), listed)
    records.write_success(listed.getvalue(), {"rows": parts, "parts": parts})


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but for leases, and what a crash leaves aside."""
    store = manifest_at(folder).store
    passed = ("__scanrnn/workers/0-of-0", "__scanrnn/aside/")
    found = {name: store.read(name) for name in store.below() if not name.startswith(passed)}
    if success := found.get("_SUCCESS"):
        found["_SUCCESS"] = json.dumps({**json.loads(success), "written_by": "somebody"}).encode()
    return found


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (CopyingStore, 3, 2),  # as in a bucket
        *(pytest.param(LocalStore, *counts, marks=pytest.mark.soak) for counts in [(0, 1), (3, 2), (2, 3)]),
        *(pytest.param(CopyingStore, *counts, marks=pytest.mark.soak) for counts in [(0, 1), (2, 3)]),
    ],
)
def test_publishing_that_dies_at_any_step_ends_as_the_new_output_and_nothing_else(
    tmp_path: Path, kind: type[LocalStore], old: int, new: int
) -> None:
    count = [0]

    def counted(kind: str, name: str) -> None:
        count[0] -= 1
        if count[0] == 0:
            raise Died

    make_output(tmp_path / "before", 0, old)
    make_output(tmp_path / "before" / RESTART, 10, new)
    expected = files_of(tmp_path / "before" / RESTART)
    for died_at in range(1, 1000):
        folder = shutil.copytree(tmp_path / "before", tmp_path / str(died_at))
        count[0] = died_at
        try:
            assert finish_publishing(manifest_at(folder, counted, kind))
            is_through = count[0] > 0
        except Died:
            is_through = False
        for lease in (folder / "__scanrnn/workers").glob("0-of-0.*"):
            lease.unlink()  # else it would be waited for: this process lives
        finish_publishing(manifest_at(folder, kind=kind))
        assert files_of(folder) == expected
        assert not manifest_at(folder).store.below(RESTART)
        if is_through:
            break
    assert 20 < died_at < 900
    assert not finish_publishing(manifest_at(folder))


def test_a_restart_that_is_not_complete_replaces_nothing(tmp_path: Path) -> None:
    make_output(tmp_path, 0, 2)
    make_output(tmp_path / RESTART, 10, 2)
    (tmp_path / RESTART / "_SUCCESS").unlink()
    before = files_of(tmp_path)
    assert not finish_publishing(manifest_at(tmp_path))
    assert files_of(tmp_path) == before


def test_a_restart_takes_the_place_of_a_job_whose_record_is_damaged(tmp_path: Path) -> None:
    make_output(tmp_path, 0, 2)
    make_output(tmp_path / RESTART, 10, 2)
    expected = (tmp_path / RESTART / JOB).read_bytes()
    (tmp_path / JOB).write_text('{"id": ')
    assert finish_publishing(manifest_at(tmp_path))
    assert (tmp_path / JOB).read_bytes() == expected and not (tmp_path / RESTART).exists()


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_restart_of_another_version_is_left_to_it(tmp_path: Path, is_moved: bool) -> None:
    make_output(tmp_path, 0, 2)
    make_output(tmp_path / RESTART, 10, 3)
    job = tmp_path / RESTART / JOB
    text = job.read_text().replace(JOB_FORMAT, "scanrnn_dist.api.data_sets/2")
    if is_moved:  # as by that version, which died after it
        job.unlink()
        (tmp_path / JOB).write_text(text)
    else:
        job.write_text(text)
    before = files_of(tmp_path)
    with pytest.raises(DataError, match="with the version that began it"):
        finish_publishing(manifest_at(tmp_path))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("change", ["missing", "cut", "not staged"])
def test_a_new_output_that_is_not_whole_replaces_nothing(tmp_path: Path, change: str) -> None:
    make_output(tmp_path, 0, 3)  # with parts of the same size
    make_output(tmp_path / RESTART, 10, 3)
    part = tmp_path / RESTART / "part-00002.parquet.staged"
    if change == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        part.unlink() if change == "missing" else part.rename(part.with_suffix(""))
    before = files_of(tmp_path)
    with pytest.raises(DataError, match=r"restart/part-00002\.parquet\.staged is missing or changed"):
        finish_publishing(manifest_at(tmp_path))
    assert files_of(tmp_path) == before


def test_a_part_that_is_gone_while_it_is_published_is_told_and_there_is_no_success(tmp_path: Path) -> None:
    make_output(tmp_path, 0, 1)
    make_output(tmp_path / RESTART, 10, 2)

    def gone(kind: str, name: str) -> None:
        if (kind, name) == ("rename", "part-00000.parquet"):
            (tmp_path / RESTART / "part-00001.parquet.staged").unlink()

    with pytest.raises(DataError, match=r"restart/part-00001\.parquet\.staged is missing or changed"):
        finish_publishing(manifest_at(tmp_path, gone))
    assert not (tmp_path / "_SUCCESS").exists()


def test_what_is_not_a_part_stays(tmp_path: Path) -> None:
    make_output(tmp_path, 0, 3)
    (tmp_path / "part-notes.txt").write_bytes(b"mine")
    (tmp_path / "part-old").mkdir()
    make_output(tmp_path / RESTART, 10, 1)
    assert finish_publishing(manifest_at(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "_SUCCESS", "__scanrnn", "part-00000.parquet", "part-notes.txt", "part-old"
    }  # fmt: skip


def test_nobody_replaces_what_another_replaces_or_works_on(tmp_path: Path) -> None:
    make_output(tmp_path, 0, 1)
    records = manifest_at(tmp_path)
    with (
        replacing(records, expiry_seconds=10.0),
        pytest.raises(StoppedError, match=r"The whole of .* is being worked on"),
        replacing(records, expiry_seconds=10.0),
    ):
        pass
    worker = Worker("elsewhere.7.01234567", "elsewhere", 7, (1, 1), "working", time.time(), time.time())
    records.store.write("__scanrnn/workers/1-of-1.000001.json", worker_bytes(worker))
    with pytest.raises(StoppedError, match="is being worked on: process 7 on elsewhere"), replacing(records):
        pass


def test_who_comes_late_to_a_publishing_goes_on_with_what_another_one_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_output(tmp_path, 0, 1)
    make_output(tmp_path / RESTART, 10, 2)
    expected = files_of(tmp_path / RESTART)

    def late(records: JobRecords) -> AbstractContextManager[Lease]:
        with replacing(records) as lease:
            assert publish(records, lease)
        worker = Worker("elsewhere.7.01234567", "elsewhere", 7, (1, 1), "working", time.time(), time.time())
        records.store.write("__scanrnn/workers/1-of-1.000001.json", worker_bytes(worker))
        return replacing(records)

    monkeypatch.setattr(restart, "replacing", late)
    assert finish_publishing(manifest_at(tmp_path))
    del (after := files_of(tmp_path))["__scanrnn/workers/1-of-1.000001.json"]
    assert after == expected


def test_what_is_left_of_a_restart_that_is_being_removed_is_no_job_or_all_of_it(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    make_output(whole / RESTART, 10, 2)
    before = files_of(whole)

    def remove(folder: Path, died_at: int) -> bool:
        steps = itertools.count(1)

        def told(kind: str, name: str) -> None:
            if next(steps) == died_at:
                raise Died

        records = JobRecords(watched(folder, told))
        remove_restart(restart_of(records), SimpleNamespace(confirm=lambda: None, remove=records.store.delete))
        return True

    for died_at in range(1, 100):
        folder = tmp_path / f"{died_at}"
        shutil.copytree(whole, folder)
        with suppress(Died):
            if remove(folder, died_at):
                break
        left = files_of(folder)
        assert left == before or f"{RESTART}/{JOB}" not in left
    assert died_at > 8 and not files_of(folder)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_who_was_asleep_while_another_published_changes_nothing(tmp_path: Path, every: int) -> None:
    """At a step one process falls asleep, another one takes over and ends the publishing, the first one goes on."""

    def take_over(folder: Path, other: Path | None, expected: dict[str, bytes]) -> None:
        for lease in (folder / "__scanrnn/workers").glob("0-of-0.*"):
            lease.write_text(json.dumps({**json.loads(lease.read_text()), "state": "stopped"}))
        finish_publishing(JobRecords(LocalStore(str(folder), "host.2.00000000")))
        if other:
            shutil.copytree(other, folder, dirs_exist_ok=True)
        assert files_of(folder) == expected

    def asleep_before(step: int, take_over: Callable[[], None]) -> Told:
        count = itertools.count(1)
        return lambda kind, name: take_over() if next(count) == step else None

    steps_of_one = []
    before, begun = tmp_path / "before", tmp_path / "begun"
    make_output(before, 0, 3)
    make_output(before / RESTART, 10, 2)
    make_output(begun / RESTART, 20, 2)
    (begun / RESTART / "_SUCCESS").unlink()
    shutil.copytree(before, tmp_path / "count")
    assert finish_publishing(manifest_at(tmp_path / "count", lambda kind, name: steps_of_one.append(f"{kind} {name}")))
    for (number, step), then in itertools.product(enumerate(steps_of_one, 1), ["nothing", "another restart"]):
        if number % every and step != "delete _SUCCESS":
            continue
        folder = shutil.copytree(before, tmp_path / f"{number}, {then}")
        expected = files_of(before / RESTART)
        other = begun if then == "another restart" else None
        if other:
            expected |= files_of(other)
        with suppress(StoppedError):
            sleeper = asleep_before(number, partial(take_over, folder, other, expected))
            finish_publishing(manifest_at(folder, sleeper))
        after = files_of(folder)
        differ = {name for name in after | expected if after.get(name) != expected.get(name)}
        # What it was about to do when it fell asleep it does, and no more: the end of publishing writes _SUCCESS again.
        if then == "nothing":
            assert differ == ({"_SUCCESS"} if step == "delete _SUCCESS" else set()), step
        else:
            names = {unstaged(name.removeprefix(f"{RESTART}/")) for name in differ}
            assert names <= {step.partition(" ")[2].removeprefix(f"{RESTART}/")}, step


def test_what_no_job_makes_is_told_instead_of_being_tried_for_ever(tmp_path: Path) -> None:
    records = JobRecords(open_store(tmp_path / "out"))
    new = restart_of(records)
    foreign = Path(new.store.root) / "part-00000.parquet"  # by this name, not by that of a part that waits
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"x")
    with (
        replacing(records) as lease,
        pytest.raises(StoppedError, match=r"part-00000\.parquet.* cannot be removed: .* Remove .*/restart yourself"),
    ):
        remove_restart(new, lease)
    assert foreign.exists()
