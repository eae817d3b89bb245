"""What `status` and `clean` say and do, beside jobs of every state."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import sources
from faults import Died, full, watched
from holding import hold
from sources import encoder_of, entries, featurize, random_rows, write_source

from scanrnn_dist.api import verify
from scanrnn_dist.cli import app as cli
from scanrnn_dist.errors import ConfigError, StoppedError
from scanrnn_dist.job import MemoryShares, cleaning
from scanrnn_dist.job.attempt import Sharing
from scanrnn_dist.job.cleaning import clean
from scanrnn_dist.job.status import read_status
from scanrnn_dist.records import RESTART
from scanrnn_dist.storage import LocalStore, new_attempt


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryShares, "chunk", 1000)
    hold(monkeypatch, read_ahead=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """12 units, of which the second half has 9 times the steps of the first."""
    return write_source(tmp_path / "a.parquet", random_rows([4] * 30 + [36] * 30))


def without_lease(files: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """But for the file that tells who cleaned."""
    return {name: content for name, content in files.items() if not name.startswith("__scanrnn/workers/0-of-0")}


def stop(_: int) -> None:
    raise StoppedError("SIGTERM")


def stopped(source: Path, out: Path, share: tuple[int, int] = (1, 1)) -> None:
    done = [0]

    def on_rows(rows: int) -> None:
        done[0] += rows
        if done[0] >= 25:
            while not list(out.glob("part-*")):  # the writer is behind
                time.sleep(0.001)
            raise StoppedError("SIGTERM")

    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, on_rows=on_rows, sharing=Sharing(share))


def test_a_job_that_was_stopped_and_one_that_is_complete(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    stopped(source, out)
    status = read_status(out)
    parts = len(list(out.glob("part-*")))
    assert (status.state, status.units, status.units_committed, status.rows_committed) == (
        "stopped",
        12,
        parts,
        5 * parts,
    )
    assert (status.seconds_left, status.rows_per_second) == (None, 0.0)
    assert f"share      1/1: stopped: process {os.getpid()} on" in str(status)
    assert "\n         StoppedError: SIGTERM\n" in str(status)
    assert str(status).endswith(f"\ncontinue   scanrnn resume {out}, or the command that began it")
    featurize(source, out, rows_per_part=5)
    status = read_status(out)
    assert (status.state, status.units_committed, status.rows_committed, status.share_done) == ("complete", 12, 60, 1.0)
    assert str(status).startswith(f"{out}: complete\nsource     {source}\n")
    assert status.job["sequences"] == "column 'sequence' (nested-lists)"
    assert status.job["encoder"].startswith(f"GRU, {sources.H} hidden features, ")
    assert "\nparts      12 of 12 written, 100.0% of the steps, in 2 attempts\n" in str(status)


def test_a_job_that_runs_tells_rate_and_end_by_the_work_of_this_time_alone(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanrnn_dist.records.lease.BEATS_PER_EXPIRY", 6000)
    out, seen = tmp_path / "out", []
    stopped(source, out)

    def on_rows(_: int) -> None:
        time.sleep(0.02)
        seen.append(read_status(out))

    featurize(source, out, rows_per_part=5, on_rows=on_rows)
    assert {status.state for status in seen} == {"running"}
    known = [status for status in seen if status.seconds_left is not None]
    assert known and "left, until 20" in str(known[-1])
    for status in known:
        (worker,) = status.workers
        assert worker.units < status.units_committed  # the others were committed before
        left = (1 - status.share_done) * (4 * 30 + 36 * 30) * sources.D - worker.values_in_hand
        assert status.seconds_left == pytest.approx(left / worker.values_per_second)
    assert "is_alive" in json.loads(json.dumps(known[-1].to_json()))["workers"][0]


def test_the_rate_and_the_end_are_known_before_the_first_unit_is_committed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryShares, "chunk", 300)  # about two rows
    monkeypatch.setattr("scanrnn_dist.records.lease.BEATS_PER_EXPIRY", 6000)
    seen = []

    def on_rows(_: int) -> None:
        time.sleep(0.02)
        seen.append(read_status(tmp_path / "out"))

    featurize(source, tmp_path / "out", rows_per_part=30, on_rows=on_rows)
    known = [status for status in seen if status.units_committed == 0 and status.seconds_left is not None]
    assert known
    for status in known:
        (worker,) = status.workers
        assert 0 < worker.rows_in_hand <= 30 and worker.values_in_hand == 4 * sources.D * worker.rows_in_hand
        left = (4 * 30 + 36 * 30) * sources.D - worker.values_in_hand
        assert status.seconds_left == pytest.approx(left / worker.values_per_second)
        assert f"0 parts, 0 rows and {worker.rows_in_hand} in hand" in str(status)
    (worker,) = read_status(tmp_path / "out").workers
    assert (worker.units, worker.rows, worker.rows_in_hand, worker.values_in_hand) == (2, 60, 0, 0)


def test_what_an_attempt_committed_is_told_by_its_log_and_shares_that_nobody_began_are_named(
    tmp_path: Path, source: Path
) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=5, sharing=Sharing((2, 3)))
    (lease,) = (out / "__scanrnn/workers").glob("2-of-3.*")
    lease.write_text(json.dumps({**json.loads(lease.read_text()), "units": 0, "rows": 0, "in_hand": [0, 1]}))
    status = read_status(out)
    (worker,) = status.workers
    assert (worker.units, worker.rows, worker.in_hand) == (status.units_committed, 5 * status.units_committed, ())
    lines = str(status).splitlines()
    assert [line.split(": ")[1] for line in lines if "1/3" in line or "3/3" in line] == ["nobody has begun it"] * 2


@pytest.mark.parametrize("rate", [1e-12, 1e-320])
def test_a_rate_next_to_nothing_tells_no_end(rate: float, tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=5, sharing=Sharing((2, 3)))
    (lease,) = (out / "__scanrnn/workers").glob("2-of-3.*")
    barely = {"state": "working", "beat": time.time(), "machine": "another", "values_per_second": rate}
    lease.write_text(json.dumps({**json.loads(lease.read_text()), **barely}))
    status = read_status(out)
    assert (status.state, status.seconds_left) == ("running", None)
    assert "left, until" not in str(status)
    json.dumps(status.to_json(), allow_nan=False)


def test_no_job_is_wrong_usage(tmp_path: Path) -> None:
    for command in (read_status, clean):
        with pytest.raises(ConfigError, match="is no output of a job"):
            command(tmp_path)


def test_status_and_a_dry_run_touch_nothing(tmp_path: Path, source: Path) -> None:
    stopped(source, tmp_path / "out")
    (tmp_path / "out" / f"__scanrnn/aside/part-00007.parquet.elsewhere.{os.getpid()}.01234567.tmp").write_bytes(b"half")
    grow_old(tmp_path / "out")
    before = entries(tmp_path / "out")
    read_status(tmp_path / "out")
    result = clean(tmp_path / "out", dry_run=True)
    assert result.nbytes == 4 and "1 file, 4 bytes to remove" in str(result)
    assert entries(tmp_path / "out") == before


def make_leftovers(out: Path) -> dict[str, bytes]:
    """What attempts of another machine leave when they die at different moments."""
    attempt = "elsewhere-example-org.7.01234567"
    content = {
        f"__scanrnn/aside/part-00007.parquet.{attempt}.tmp": b"half a part",
        f"__scanrnn/aside/__scanrnn-job.json.{attempt}.tmp": b"half a job",
        f"__scanrnn/aside/__scanrnn-workers-1-of-1.000001.json.{attempt}.tmp": b"",
        "__scanrnn/files-0123456789abcdef.table": b"the plan of a race that was lost",
        "__scanrnn/units-0123456789abcdef.table": b"",
    }
    for name, data in content.items():
        (out / name).write_bytes(data)
    grow_old(out)
    return content


def grow_old(out: Path) -> None:
    """Have what stands aside be older than any process may be silent."""
    for file in out.rglob("*.tmp"):
        os.utime(file, (0, 0))


def test_what_others_write_aside_now_stays(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, late = tmp_path / "out", []
    featurize(source, out, rows_per_part=5)
    make_leftovers(out)
    young = f"__scanrnn/aside/__scanrnn-job.json.elsewhere.7.{'0' * 8}.tmp"
    (out / young).write_bytes(b"of one that holds no share yet")
    living = cleaning.living_workers

    def begins(store: Any) -> Any:
        found = living(store)
        late.append(f"__scanrnn/aside/part-00001.parquet.elsewhere.7.{len(late):08}.tmp")
        (out / late[-1]).write_bytes(b"of one that began just now")
        grow_old(out)
        os.utime(out / young)
        return found

    monkeypatch.setattr(cleaning, "living_workers", begins)
    removed = clean(out).names
    assert late and not {young, *late} & {*removed} and any(name.endswith(".tmp") for name in removed)


def test_a_full_disk_is_freed(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=5)
    left = make_leftovers(out)

    def told(kind: str, name: str) -> None:
        if kind == "write" and any(out.glob("__scanrnn/aside/part-*")):
            full()

    assert left.keys() <= {*clean(watched(out, told)).names}


@pytest.mark.parametrize("finish", [False, True])
def test_what_crashed_attempts_left_is_removed_and_nothing_else(tmp_path: Path, source: Path, finish: bool) -> None:
    out = tmp_path / "out"
    stopped(source, out)
    if finish:
        featurize(source, out, rows_per_part=5)
    before = entries(out)
    (out / f"__scanrnn/aside/part-00008.parquet.{new_attempt()}.tmp").write_bytes(b"of a process that runs: this one")
    (out / ".of-somebody-else.tmp").write_bytes(b"")
    theirs = entries(out)
    left = make_leftovers(out)
    unrecorded = "part-00099.parquet" if finish else "part-00011.parquet"
    left[unrecorded] = b"named, and never recorded"
    (out / unrecorded).write_bytes(left[unrecorded])
    removed = set(clean(out).names)
    leases = {name for name in before if name.startswith("__scanrnn/workers/")} if finish else set()
    assert removed == left.keys() | leases
    assert without_lease(entries(out)) == {name: content for name, content in theirs.items() if name not in leases}
    assert not clean(out).names and str(clean(out)) == f"{out}: nothing to remove"
    featurize(source, out, rows_per_part=5)
    (out / ".of-somebody-else.tmp").unlink()
    verify(out, sample=0)


def test_what_the_living_need_stays(tmp_path: Path, source: Path) -> None:
    out, seen = tmp_path / "out", []

    def on_rows(_: int) -> None:
        seen.append(clean(out).names)

    featurize(source, out, rows_per_part=5, on_rows=on_rows)
    assert seen and not any(seen)
    verify(out, sample=0)


def test_what_is_left_of_an_attempt_that_recorded_no_job_is_removed(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    (out / "__scanrnn/aside").mkdir(parents=True)
    left = make_leftovers(out)
    # A plan may be that of a process that is about to record its job.
    assert set(clean(out).names) == {name for name in left if name.startswith("__scanrnn/aside/")}
    featurize(source, out)
    assert {name for name in clean(out).names if name.endswith(".table")} == {n for n in left if "-0123" in n}


def test_leftovers_of_a_restart_are_removed_too(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    featurize(source, out)
    with pytest.raises(StoppedError):
        featurize(source, out, encoder_of(seed=9), restart=True, on_rows=stop)
    name = "__scanrnn/restart/__scanrnn/aside/part-00000.parquet.elsewhere.7.01234567.tmp"
    (out / name).write_bytes(b"half")
    grow_old(out)
    assert name in clean(out).names
    assert read_status(out).restart is not None
    assert str(read_status(out)).endswith("\n    continue   the command that began it, with --restart")
    assert featurize(source, out, encoder_of(seed=9), restart=True).is_complete


def test_parts_that_are_gone_are_not_counted(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    stopped(source, out)
    before = read_status(out).units_committed
    min(out.glob("part-*")).unlink()
    assert read_status(out).units_committed == before - 1


def test_a_publication_that_was_cut_short_is_told_and_ended_by_resume(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    featurize(source, out)
    move, moves = LocalStore.move, list[str]()

    def cut(self: LocalStore, old: str, new: str, version: str | None = None) -> None:
        moves.append(new)
        if len(moves) == 3:
            raise Died
        move(self, old, new, version)

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(LocalStore, "move", cut)
        featurize(source, out, encoder_of(seed=9), restart=True)
    for lease in (out / "__scanrnn/workers").glob("0-of-0.*"):
        lease.unlink()  # else it would be waited for: this process lives
    status = read_status(out)
    assert (status.state, status.restart) == ("being replaced", None)
    assert "`scanrnn clean` or resume ends it" in str(status)
    sources.command_line_in_this_process(monkeypatch, columns=120)
    assert cli.run(["resume", str(out)]) == 0
    assert read_status(out).state == "complete" and not list((out / RESTART).glob("*"))
