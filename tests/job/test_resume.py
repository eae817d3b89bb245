"""A job goes on where it was stopped, or says why not; a finished one is left alone; shares make the whole."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sources
from faults import Died, full, watched
from holding import hold
from sources import (
    encoder_of,
    entries,
    featurize,
    leftovers,
    mesh_of,
    parts_of,
    random_rows,
    some_lengths,
    write_source,
)

from scanrnn_dist.api import verify
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import default_mesh, environment, environment_of
from scanrnn_dist.errors import ConfigError, DataError, StoppedError, counted
from scanrnn_dist.job import JobReport, MemoryShares, Plan, attempt, held_share, open_job, plan
from scanrnn_dist.job.attempt import Sharing
from scanrnn_dist.job.cleaning import clean
from scanrnn_dist.job.in_order import Stream
from scanrnn_dist.job.restart import replacing
from scanrnn_dist.job.status import read_status
from scanrnn_dist.job.write_behind import WriteBehind
from scanrnn_dist.records import (
    JOB,
    REPLACING,
    RESTART,
    WORKERS,
    AttemptLog,
    HeldError,
    JobRecords,
    Lease,
    lease,
    living_workers,
    read_workers,
    workers,
)
from scanrnn_dist.records.suspects import SILENT_DEATHS
from scanrnn_dist.source.read_ahead import WAITING_UNITS
from scanrnn_dist.storage import LocalStore, Store, open_store

ROWS = 60
UNITS = 12


def one_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a job that is stopped has committed some units and not others."""
    monkeypatch.setattr(MemoryShares, "chunk", 1000)
    hold(monkeypatch, read_ahead=1)


@pytest.fixture(autouse=True)
def _small_chunks_and_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    one_chunk_at_a_time(monkeypatch)
    yield
    assert not sources.threads()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, 12 units of 5 rows; not to be changed."""
    folder = tmp_path_factory.mktemp("source") / "in"
    write_source(folder / "a.parquet", random_rows(np.full(35, 40), 1))
    write_source(folder / "b.parquet", random_rows(some_lengths(25, 2), 2))
    return folder


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a job that nothing happened to; to be copied and not to be changed, as the next one."""
    out = tmp_path_factory.mktemp("finished") / "out"
    featurize(source, out, rows_per_part=5)
    assert verify(out, sample=ROWS).rows_compared == ROWS
    return out


@pytest.fixture(scope="module")
def half_done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that was stopped after some rows, and has committed some units and not others."""
    out = tmp_path_factory.mktemp("half done") / "out"
    with pytest.MonkeyPatch.context() as patched:
        one_chunk_at_a_time(patched)
        stopped(source, out)
    return out


@pytest.fixture(scope="module")
def undisturbed(finished: Path) -> dict[str, bytes | None]:
    """The parts of that job."""
    return parts_of(finished)


@pytest.fixture(scope="module")
def of_another(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """The parts of a job with another encoder, of 10 rows each."""
    out = tmp_path_factory.mktemp("of another") / "out"
    featurize(source, out, encoder_of(seed=9), rows_per_part=10)
    return parts_of(out)


def stop_after(rows: int, error: BaseException | None = None) -> Any:
    """To be told of rows, and to stop the job once there were so many."""
    done = [0]

    def on_rows(some: int) -> None:
        done[0] += some
        if done[0] >= rows:
            raise error or StoppedError("SIGTERM")

    return on_rows


def stopped(source: Path, out: Path, rows: int = 20, **options: Any) -> None:
    """A job that was stopped after some rows, and has committed some units and not others."""
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, on_rows=sources.stop_once_committed(out, rows), **options)
    assert 0 < len(parts_of(out)) < UNITS


def assert_whole(out: Path, undisturbed: dict[str, bytes | None]) -> None:
    assert parts_of(out) == undisturbed
    assert pq.read_table(out)["id"].to_pylist() == [*range(35), *range(25)]
    assert (out / "_SUCCESS").exists()
    assert not leftovers(out)
    assert verify(out, sample=0).rows == ROWS


# Resuming ------------------------------------------------------------------------------------------------------------


def test_a_stopped_job_goes_on_with_what_is_not_committed(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    before = {name: (out / name).stat().st_mtime_ns for name in parts_of(out)}
    starts: list[tuple[int, int]] = []
    report = featurize(source, out, rows_per_part=5, on_start=lambda *start: starts.append(start))
    assert starts == [(report.rows_before, ROWS)]
    assert report.rows_before == 5 * len(before) and report.rows == ROWS - report.rows_before
    assert (report.parts, report.units_left, report.is_complete) == (UNITS - len(before), 0, True)
    assert f"({report.rows_before} rows were there before)" in str(report)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert_whole(out, undisturbed)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), RuntimeError("a defect"), pytest.param(StoppedError("SIGTERM"), marks=pytest.mark.soak)],
)
def test_a_job_that_is_stopped_again_and_again_ends_as_if_nothing_had_happened(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], error: BaseException
) -> None:
    times = 0
    for rows in range(20, 100, 5):
        try:
            featurize(source, tmp_path / "out", rows_per_part=5, on_rows=stop_after(rows, error))
            break
        except type(error):
            times += 1
    assert times >= 2
    assert_whole(tmp_path / "out", undisturbed)
    assert json.loads((tmp_path / "out/_SUCCESS").read_text())["attempts"] == times + 1


def test_a_second_ctrl_c_leaves_no_thread_that_records_parts(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = WriteBehind._name

    def slow(*given: Any) -> None:
        time.sleep(0.3)
        name(*given)

    def interrupted(pool: ThreadPoolExecutor, *_: Any, **how: Any) -> None:
        if how.get("cancel_futures") and pool._thread_name_prefix == "scanrnn-writer":
            raise KeyboardInterrupt
        shutdown(pool, **how)

    shutdown = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(WriteBehind, "_name", slow)
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        featurize(source, tmp_path / "out", rows_per_part=5, on_rows=stop_after(10, KeyboardInterrupt()))
    assert not sources.threads()


def test_an_engine_that_does_not_begin_leaves_no_thread_that_reads(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = AttemptLog.begin

    def slow(*given: Any) -> None:
        time.sleep(0.3)
        begin(*given)

    def refuses(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(AttemptLog, "begin", slow)
    monkeypatch.setattr(Stream, "__init__", refuses)
    with pytest.raises(MemoryError):
        featurize(source, tmp_path / "out", rows_per_part=5)
    assert not sources.threads()


def test_an_error_that_names_a_file_that_is_not_utf8_leaves_a_log_that_is_read(tmp_path: Path, source: Path) -> None:
    name = os.fsdecode(b"\xff.wav")
    with pytest.raises(RuntimeError):
        featurize(source, tmp_path / "out", rows_per_part=5, on_rows=stop_after(20, RuntimeError(name)))
    assert any(r"\udcff.wav" in worker.reason for worker in read_workers(open_store(tmp_path / "out")))
    assert featurize(source, tmp_path / "out", rows_per_part=5).is_complete


def test_a_finished_job_is_left_alone_and_says_so(tmp_path: Path, source: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    before = entries(tmp_path / "out")
    report = featurize(source, tmp_path / "out", rows_per_part=5)
    assert str(report) == f"Nothing to do: {tmp_path / 'out'} is finished, with 60 rows."
    assert "is finished, with 0 rows." in str(JobReport.of_nothing("out", 0))
    assert (report.rows, report.rows_before, report.is_complete) == (0, ROWS, True)
    assert entries(tmp_path / "out") == before


def test_a_resumed_job_looks_at_no_footer(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, half_done: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    monkeypatch.setattr("scanrnn_dist.source.source.read_footers", lambda *_, **__: pytest.fail("looked at footers"))
    assert featurize(source, tmp_path / "out", rows_per_part=5).is_complete


def test_the_number_of_devices_may_change(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], half_done: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    featurize(source, tmp_path / "out", rows_per_part=5, mesh=mesh_of(3))
    assert_whole(tmp_path / "out", undisturbed)


@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"encoder": encoder_of(seed=9)},
            r"the encoder's weights are others: the fingerprint was \w{16} and is \w{16}",
        ),
        (
            {"encoder": Encoder.from_seed(0, sources.D, 2)},
            f"hidden_features was {sources.H} and is 2",
        ),
        ({"max_steps": 7}, "max_steps was not given and is 7"),
        ({"keep": []}, r"keep was \[id\] and is \[\]"),
        ({"rows_per_part": 10}, "rows_per_part was 5 and is 10"),
        ({"lossy_cast": True}, "lossy_cast was False and is True"),
        ({"window_shape": dataclasses.replace(sources.SHAPE, lanes=8)}, "lanes was 4 and is 8"),
    ],
    ids=["weights", "architecture", "max_steps", "keep", "rows_per_part", "lossy_cast", "lanes"],
)
def test_another_job_is_refused_with_the_difference_and_nothing_changes(
    source: Path, finished: Path, half_done: Path, options: dict[str, Any], says: str, finish: bool
) -> None:
    out = finished if finish else half_done
    before = entries(out)
    with pytest.raises(ConfigError, match=rf"holds a job that differs: {says}.*--restart begins anew") as caught:
        featurize(source, out, **{"rows_per_part": 5, **options})
    assert "--allow-mixed" not in str(caught.value)
    assert entries(out) == before


def test_other_lanes_are_refused_also_where_another_version_describes_the_same_encoder_in_other_words(
    tmp_path: Path, source: Path, half_done: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    path = tmp_path / "out" / JOB
    job = json.loads(path.read_text())
    job["encoder"]["architecture"]["of another version"] = None
    path.write_text(json.dumps(job))
    with pytest.raises(ConfigError, match="holds a job that differs: lanes was 4 and is 8"):
        featurize(source, tmp_path / "out", rows_per_part=5, window_shape=dataclasses.replace(sources.SHAPE, lanes=8))
    assert featurize(source, tmp_path / "out", rows_per_part=5).is_complete


def test_a_job_of_which_nothing_was_done_gives_way_to_another(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"

    def stop(_: int) -> None:
        raise StoppedError("SIGTERM")

    with pytest.raises(StoppedError, match="SIGTERM"):
        featurize(source, out, rows_per_part=5, on_rows=stop)
    held_by(open_store(out))
    with pytest.raises(ConfigError, match="holds a job that differs"):
        featurize(source, out, encoder_of(seed=9), rows_per_part=10)
    (out / WORKERS / "1-of-1.000009.json").unlink()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds a job that differs"):
        featurize(source, out, encoder_of(seed=9), rows_per_part=10)
    (out / "notes.txt").unlink()
    assert featurize(source, out, encoder_of(seed=9), rows_per_part=10).rows_before == 0
    assert verify(out, sample=8).rows == ROWS
    assert any("/units-" in name for name in clean(out).names)  # of the job that gave way


@pytest.mark.parametrize("when", ["fate_of", "replacing"])
@pytest.mark.parametrize("it", ["is begun", "is only recorded"])
def test_of_two_shares_whose_job_takes_the_place_of_another_the_slower_one_goes_on_with_it(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, when: str, it: str
) -> None:
    out, begun, really = tmp_path / "out", [], getattr(open_job, when)
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=10, on_rows=stop_after(1, StoppedError("SIGTERM")))
    told: list[str] = []

    def run(share: int, folder: Any, **options: Any) -> JobReport:
        return featurize(source, folder, rows_per_part=5, sharing=Sharing((share, 2)), **options)

    def overtaken(*given: Any) -> Any:
        if not begun:
            begun.append(True)
            if it == "is begun":
                run(1, out)
            else:
                with pytest.raises(StoppedError):
                    run(1, out, on_rows=stop_after(1, StoppedError("SIGTERM")))
            told.clear()
        return really(*given)

    monkeypatch.setattr(open_job, when, overtaken)
    assert run(2, watched(out, lambda kind, name: told.append(f"{kind} {name}"))).rows
    assert begun and "delete __scanrnn/job.json" not in told
    run(1, out)
    assert verify(out, sample=0).rows == ROWS


def test_a_job_that_was_just_recorded_goes_on_whichever_pyarrow_wrote_the_one_before(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, source = tmp_path / "out", shutil.copytree(source, tmp_path / "in")
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, on_rows=stop_after(1, StoppedError("SIGTERM")))
    monkeypatch.setattr(plan, "hashes_of", lambda records: dict.fromkeys(records, "0" * 64))
    written, anew, to_records = list[int](), open_job._anew, Plan.to_records

    def recorded(*given: Any) -> Any:
        job = anew(*given)
        os.utime(source / "a.parquet")  # so it is not found to be the same by the files of the source either
        return job

    monkeypatch.setattr(open_job, "_anew", recorded)
    monkeypatch.setattr(Plan, "to_records", lambda self: written.append(len(self.units)) or to_records(self))
    assert featurize(source, out, encoder_of(seed=9), rows_per_part=5).rows == ROWS and written == [UNITS]


def test_a_job_that_gives_way_leaves_no_list_of_parts(tmp_path: Path, source: Path, finished: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    for path in (out / "_SUCCESS", *out.glob("part-*")):
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        featurize(source, out, encoder_of(seed=9), rows_per_part=5, on_rows=stop_after(1, KeyboardInterrupt()))
    assert not (out / "__scanrnn/parts.table").exists()


def test_another_source_is_refused(tmp_path: Path, source: Path, half_done: Path) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    with pytest.raises(ConfigError, match=r": source was .*in and is .*a\.parquet"):
        featurize(source / "a.parquet", tmp_path / "out", rows_per_part=5)


def test_options_of_the_compiler_do_not_matter_to_the_native_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_widest_vectors", lambda: "avx512f")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert environment_of(default_mesh(), "xla")["compiler_options"] != {}
    assert environment_of(default_mesh(), "native")["compiler_options"] == {}
    assert "device_model" not in environment_of(default_mesh(), "native")


def test_another_model_of_device_is_another_environment_for_xla(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stopped(source, out, kernel="xla")
    with monkeypatch.context() as patched:
        patched.setattr(environment, "device_model", lambda mesh: "aarch64")
        with pytest.raises(ConfigError, match=r": device_model was .* and is aarch64.* --allow-mixed goes on"):
            featurize(source, out, rows_per_part=5, kernel="xla")


@pytest.mark.parametrize(
    ("told", "model"),
    [("flags : sse2 avx avx2 avx512f", "avx512f"), ("Features : fp asimd sve", "sve"), (None, "")],
)
def test_the_model_of_a_cpu_is_its_architecture_and_its_vectors(
    told: str | None, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> str:
        if told is None:
            raise FileNotFoundError(path)
        return told

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", read)
        environment._widest_vectors.cache_clear()
        assert environment.device_model(default_mesh()) == f"{platform.machine()} {model}".rstrip()
    environment._widest_vectors.cache_clear()


def test_of_an_accelerator_the_compiler_and_its_flags_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "platform_version" not in environment_of(default_mesh(), "xla")
    monkeypatch.setattr(environment, "device_kind", lambda mesh: "tpu")
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--some")
    told = environment_of(default_mesh(), "xla")
    assert told["libtpu_init_args"] == "--some" and "\n" not in told["platform_version"]


def test_another_environment_is_refused_unless_allowed_and_then_recorded(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, bytes | None], half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    with monkeypatch.context() as patched:
        patched.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        with pytest.raises(ConfigError, match=r": xla_flags was .* and is --xla_cpu.*--allow-mixed goes on"):
            featurize(source, out, rows_per_part=5)
        featurize(source, out, rows_per_part=5, allow_mixed=True)
    assert read_status(out).environments == 2
    assert "computed in 2 environments" in str(read_status(out))
    assert pq.read_table(out)["id"].to_pylist() == pq.read_table(source)["id"].to_pylist()
    verify(out, sample=8)
    changed = parts_of(out)
    same = [name for name in undisturbed if changed[name] == undisturbed[name]]
    assert 0 < len(same) < UNITS  # a part says how it was made


# The source ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["removed", "changed", "added"])
def test_a_source_that_changed_is_refused_and_goes_on_once_it_is_as_it_was(
    tmp_path: Path, source: Path, change: str
) -> None:
    copy, out = tmp_path / "in", tmp_path / "out"
    copy.mkdir()
    for name in ("a.parquet", "b.parquet"):
        (copy / name).write_bytes((source / name).read_bytes())
    stopped(copy, out)
    path = copy / "b.parquet"
    content, stat = path.read_bytes(), path.stat()
    if change == "removed":
        path.unlink()
        says = r"b\.parquet is gone"
    elif change == "changed":
        write_source(path, random_rows([3] * 25))
        says = rf"b\.parquet was {stat.st_size} bytes of .* and is \d+ bytes of"
    else:
        (copy / "c.parquet").write_bytes(content)
        says = r"c\.parquet is new"
    before = entries(out)
    with pytest.raises(DataError, match=rf"The source changed since the job .* began: .*{says}.*--accept-changes"):
        featurize(copy, out, rows_per_part=5)
    assert entries(out) == before
    (copy / "c.parquet").unlink(missing_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert featurize(copy, out, rows_per_part=5).rows_before > 0
    features = pq.read_table(out)
    assert features["id"].to_pylist() == [*range(35), *range(25)]
    assert sources.features_of(out).shape == (ROWS, sources.H)


def test_a_source_file_that_vanishes_under_a_running_job_stops_it_and_can_come_back(
    tmp_path: Path, source: Path
) -> None:
    copy, out = tmp_path / "in", tmp_path / "out"
    copy.mkdir()
    for name in ("a.parquet", "b.parquet"):
        (copy / name).write_bytes((source / name).read_bytes())

    def on_rows(_: int) -> None:
        if (copy / "b.parquet").exists():
            (copy / "b.parquet").rename(tmp_path / "away")

    with pytest.raises(DataError, match=r"b\.parquet.* cannot be read: FileNotFoundError"):
        featurize(copy, out, rows_per_part=5, on_rows=on_rows)
    (tmp_path / "away").rename(copy / "b.parquet")
    assert featurize(copy, out, rows_per_part=5).rows_before > 0
    verify(out, sample=8)


# Parts and records that changed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["removed", "cut"])
def test_a_committed_part_that_is_not_as_it_was_is_made_again(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], change: str, half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    path = out / sorted(parts_of(out))[0]
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    featurize(source, out, rows_per_part=5)
    assert_whole(out, undisturbed)


def test_parts_that_do_not_stay_stop_the_job(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a removal that the job does not see itself: here, that a listing of the destination never shows the part.
    entries = LocalStore.entries

    def hidden(self: LocalStore, folder: str = "") -> Any:
        return (entry for entry in entries(self, folder) if entry[0] != "part-00003.parquet")

    monkeypatch.setattr(LocalStore, "entries", hidden)
    with pytest.raises(StoppedError, match=r"Part 3 was written 3 times .* and is not there"):
        featurize(source, tmp_path / "out", rows_per_part=5)


def log_of(out: Path) -> Path:
    (path,) = (out / "__scanrnn/commits").iterdir()
    return path


def test_a_line_that_was_cut_is_not_counted(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    lines = log_of(out).read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if b"sha256" in line)
    log_of(out).write_bytes(b"".join(lines[:last]) + lines[last][:-20])
    featurize(source, out, rows_per_part=5)
    assert_whole(out, undisturbed)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{garbage}", "is damaged"),
        ('{"unit": 99, "rows": 5, "size_bytes": 1, "sha256": "00"}', "part 99 of 12 is recorded"),
        ('{"unit": 11, "rows": 4, "size_bytes": 1, "sha256": "00"}', "part 11 is recorded with other rows"),
        ('{"unit": "x", "rows": 5, "size_bytes": 1, "sha256": "00"}', "is damaged"),
    ],
)
def test_damage_in_a_log_is_told_and_not_worked_around(
    tmp_path: Path, source: Path, half_done: Path, line: str, says: str
) -> None:
    out = shutil.copytree(half_done, tmp_path / "out")
    first, rest = log_of(out).read_text().split("\n", 1)
    log_of(out).write_text(f"{first}\n{line}\n{rest}")
    with pytest.raises(DataError, match=rf"__scanrnn/commits.*{says}"):
        featurize(source, out, rows_per_part=5)


# Restarting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finish", [False, True])
def test_a_restart_leaves_the_old_output_until_the_new_one_is_complete(
    tmp_path: Path,
    source: Path,
    finished: Path,
    half_done: Path,
    of_another: dict[str, bytes | None],
    finish: bool,
) -> None:
    out, other = tmp_path / "out", encoder_of(seed=9)
    shutil.copytree(finished if finish else half_done, out)
    before = entries(out)
    with pytest.raises(StoppedError):
        at_40 = sources.stop_once_committed(out / RESTART, 40)
        featurize(source, out, other, rows_per_part=10, restart=True, on_rows=at_40)
    passed = (RESTART, f"{WORKERS}/0-of-0")
    assert {name: content for name, content in entries(out).items() if not name.startswith(passed)} == before
    restart = read_status(out).restart
    assert restart is not None and restart.state == "stopped" and 0 < restart.rows_committed < ROWS
    assert "    rows     " in str(read_status(out))
    told = "a restart was begun and is not finished, .*: the command that began it, with --restart"
    with pytest.raises(StoppedError, match=told):
        sources.resume(out)
    report = featurize(source, out, other, rows_per_part=10, restart=True)
    assert report.rows_before and report.destination == str(out)
    assert parts_of(out) == of_another
    assert not (out / RESTART).exists()
    assert verify(out, sample=8).rows == ROWS


def test_a_restart_of_another_job_than_the_one_begun_begins_anew(tmp_path: Path, source: Path, finished: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    with pytest.raises(StoppedError):
        featurize(source, out, encoder_of(seed=9), rows_per_part=5, restart=True, on_rows=stop_after(20))
    report = featurize(source, out, encoder_of(seed=8), rows_per_part=5, restart=True)
    assert (report.rows_before, report.rows) == (0, ROWS)
    featurize(source, tmp_path / "expected", encoder_of(seed=8), rows_per_part=5)
    assert parts_of(out) == parts_of(tmp_path / "expected")


def test_a_restart_is_made_by_one_process(tmp_path: Path, source: Path) -> None:
    for sharing in (Sharing((1, 2)), Sharing(steal=True)):
        with pytest.raises(ConfigError, match="A restart is made by one command"):
            featurize(source, tmp_path / "out", restart=True, sharing=sharing)


def test_nobody_begins_where_somebody_restarts(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, half_done: Path
) -> None:
    out, refused = tmp_path / "out", []
    shutil.copytree(half_done, out)

    def on_rows(_: int) -> None:
        if refused:  # each waits for a sign of who restarts
            return
        for begin in (
            lambda: featurize(source, out, rows_per_part=5, sharing=Sharing((1, 2), expiry_seconds=4.0)),
            lambda: featurize(source, out, encoder_of(seed=8), restart=True),
        ):
            with pytest.raises(
                (StoppedError, ConfigError), match=r"is being (restarted, amended or cleaned|worked on)"
            ):
                begin()
        assert not clean(out).names
        refused.append(True)

    monkeypatch.setattr(lease, "BEATS_PER_EXPIRY", 100)  # ten times a second
    expiring = Sharing(expiry_seconds=10.0)
    featurize(source, out, encoder_of(seed=9), rows_per_part=30, restart=True, on_rows=on_rows, sharing=expiring)
    assert refused
    featurize(source, tmp_path / "expected", encoder_of(seed=9), rows_per_part=30)
    assert parts_of(out) == parts_of(tmp_path / "expected")


@pytest.fixture(scope="module")
def cut_short(source: Path, half_done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a restart that died as it was published, `out`, and what is to come of it, `expected`."""

    def dies(kind: str, name: str) -> None:
        if (kind, name) == ("rename", "part-00003.parquet") and (out / RESTART / "_SUCCESS").exists():
            raise Died

    folder = tmp_path_factory.mktemp("cut short")
    featurize(source, folder / "expected", encoder_of(seed=9), rows_per_part=5)
    assert verify(folder / "expected").rows == ROWS
    out = shutil.copytree(half_done, folder / "out")
    with pytest.raises(Died):
        featurize(source, watched(out, dies), encoder_of(seed=9), rows_per_part=5, restart=True)
    assert not (out / "_SUCCESS").exists()
    return folder


@pytest.mark.parametrize("command", ["restart", "featurize", "clean"])
def test_a_restart_that_was_cut_short_as_it_was_published_is_done_by_any_command(
    tmp_path: Path, source: Path, cut_short: Path, command: str
) -> None:
    out = shutil.copytree(cut_short / "out", tmp_path / "out")
    if command == "clean":
        clean(out)
    else:
        report = featurize(source, out, encoder_of(seed=9), rows_per_part=5, restart=command == "restart")
        assert report.rows == 0
    assert parts_of(out) == parts_of(cut_short / "expected")
    assert verify(out, sample=0).rows == ROWS


def test_a_restart_replaces_a_job_that_cannot_be_understood(tmp_path: Path, source: Path, half_done: Path) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    (tmp_path / "out/__scanrnn/job.json").write_text('{"format": "scanrnn_dist.api.data_sets/1"}')
    with pytest.raises(DataError, match=r"is of format 'scanrnn_dist.api.data_sets/1'; expected"):
        featurize(source, tmp_path / "out")
    assert featurize(source, tmp_path / "out", restart=True).is_complete
    verify(tmp_path / "out", sample=8)


def test_a_job_that_goes_on_after_its_place_was_taken_writes_nothing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, of_another: dict[str, bytes | None]
) -> None:
    out, begun = tmp_path / "out", []

    def on_rows(_: int) -> None:  # as if this process had slept for a minute, in which its lease expired
        if not begun:
            begun.append(True)
            monkeypatch.setattr(Lease, "beat", lambda lease: True)
            (lease,) = (out / WORKERS).glob("1-of-1.*")
            lease.write_text(lease.read_text().replace('"working"', '"stopped"'))
            featurize(source, out, encoder_of(seed=9), rows_per_part=10, restart=True)

    with pytest.raises(StoppedError, match=r"does not hold the job any more|has taken over"):
        featurize(source, out, rows_per_part=5, on_rows=on_rows)
    assert parts_of(out) == of_another
    assert verify(out, sample=8).rows == ROWS


def test_a_part_that_was_named_too_late_goes_where_the_job_that_stands_has_none_of_its_name(
    tmp_path: Path, source: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    featurize(source, other, rows_per_part=10)

    def told(kind: str, name: str) -> None:  # as if this process had slept since its last look at the job
        if (kind, name) == ("rename", f"part-{UNITS - 1:05}.parquet"):
            for path in out.glob("part-*"):
                path.unlink()
            shutil.copytree(other, out, dirs_exist_ok=True)

    with pytest.raises(StoppedError, match="does not hold the job any more"):
        featurize(source, watched(out, told), rows_per_part=5)
    assert parts_of(out) == parts_of(other)
    assert verify(out, sample=8).rows == ROWS


@pytest.mark.parametrize("size", [0, 2000])
def test_a_part_that_another_environment_made_again_counts(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, size: int, half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    path = out / min(parts_of(out))
    path.unlink()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false" + " " * size)
    assert featurize(source, out, rows_per_part=5, allow_mixed=True).is_complete
    assert verify(out, sample=8).rows == ROWS


def test_a_write_that_fails_once_lets_no_rows_get_into_another_part(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, bytes | None]
) -> None:
    failed = []

    def fails(kind: str, name: str) -> None:
        if (kind, name) == ("sync", "part-00000.parquet"):
            time.sleep(0.3)  # so that more chunks wait for the writer
        if (kind, name) == ("open", "part-00001.parquet") and not failed:
            failed.append(True)
            full(kind, name)

    monkeypatch.setattr(MemoryShares, "chunk", 1)  # several chunks a unit
    with pytest.raises(StoppedError, match=r"part-00001.*No space left"):
        featurize(source, watched(tmp_path / "out", fails), rows_per_part=5)
    assert parts_of(tmp_path / "out").keys() == {"part-00000.parquet"}
    featurize(source, tmp_path / "out", rows_per_part=5)
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == [*range(35), *range(25)]
    verify(tmp_path / "out", sample=8)


def clock_of_its_own(monkeypatch: pytest.MonkeyPatch, beats: Callable[[float], object] = lambda _: None) -> list[float]:
    """Have whoever waits for a lease wait no time; for how long it would have. `beats` hears of it meanwhile."""
    waited = [0.0]

    def sleep(seconds: float) -> None:
        waited[0] += seconds
        beats(waited[0])

    monkeypatch.setattr(lease, "time", SimpleNamespace(time=time.time, monotonic=lambda: waited[0], sleep=sleep))
    return waited


def test_an_owner_whose_clock_is_ahead_is_waited_for_no_longer_than_its_expiry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "out")
    held_by(store, beat=time.time() + 9, expiry_seconds=10.0)
    waited = clock_of_its_own(monkeypatch)
    Lease(store, (1, 1)).release("stopped")
    assert 10 <= waited[0] < 13


def test_a_lock_that_cannot_be_understood_is_nobodys(tmp_path: Path, source: Path, half_done: Path) -> None:
    out = shutil.copytree(half_done, tmp_path / "out")
    for number, content in enumerate(["", "{}", "[]", '{"beat": null}', '{"pid": "x"}']):
        (out / WORKERS / f"1-of-1.00001{2 * number}.json").write_text(content)
        assert read_status(out).state == "stopped"
        if content:
            Lease(open_store(out), (1, 1), expiry_seconds=0.2).release("stopped")
        else:
            sharing = Sharing(expiry_seconds=0.2)
            with pytest.raises(StoppedError):
                featurize(source, out, rows_per_part=5, sharing=sharing, on_rows=stop_after(5))
        assert (out / WORKERS / f"1-of-1.00001{2 * number + 1}.json").exists()


def test_a_job_without_rows_whose_part_does_not_stay_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_source(tmp_path / "a.parquet", [])
    entries = LocalStore.entries
    hidden = lambda self, folder="": (it for it in entries(self, folder) if not it[0].startswith("part-"))  # noqa: E731
    monkeypatch.setattr(LocalStore, "entries", hidden)
    with pytest.raises(StoppedError, match="Part 0 was written 3 times"):
        featurize(path, tmp_path / "out")


def test_a_restart_where_nothing_is_begins(tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]) -> None:
    featurize(source, tmp_path / "out", rows_per_part=5, restart=True)
    assert_whole(tmp_path / "out", undisturbed)


# Shares and leases ----------------------------------------------------------------------------------------------------


def held_by(held: Store, number: int = 9, **changes: Any) -> None:
    """A share that a process of another machine has taken over."""
    now = time.time()
    worker = workers.Worker("elsewhere.7.01234567", "elsewhere", 7, (1, 1), "working", now, now)
    path = Path(held.path(f"{WORKERS}/1-of-1.{number:06}.json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(worker, **changes))))
    for earlier in set(path.parent.glob("1-of-1.*")) - {path}:
        earlier.unlink()


@pytest.mark.parametrize("count", [2, 15])  # 12 units
def test_shares_make_the_whole_and_the_last_declares_it(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], count: int
) -> None:
    reports = []
    for share in range(count, 0, -1):
        assert not (tmp_path / "out/_SUCCESS").exists()
        reports.append(featurize(source, tmp_path / "out", rows_per_part=5, sharing=Sharing((share, count))))
        if reports[-1].is_complete:
            break
        assert f"{counted(reports[-1].units_left, 'part')} left to other processes" in str(reports[-1])
    assert sum(report.rows for report in reports) == ROWS
    assert [report.is_complete for report in reports].index(True) == len(reports) - 1
    assert_whole(tmp_path / "out", undisturbed)


def test_progress_is_told_of_the_share_and_not_of_the_job(tmp_path: Path, source: Path) -> None:
    starts: list[tuple[int, int]] = []
    out, options = tmp_path / "out", {"on_start": lambda *start: starts.append(start), "rows_per_part": 5}
    with pytest.raises(StoppedError):
        featurize(source, out, sharing=Sharing((2, 2)), on_rows=stop_after(15), **options)
    first = featurize(source, out, sharing=Sharing((1, 2), steal=True), **options)
    assert [done for done, _ in starts[:2]] == [0, 0]
    assert starts[0][1] + starts[1][1] == ROWS
    assert starts[2] == (ROWS - first.rows, starts[0][1])  # taken over, some of it done
    assert first.is_complete and len(starts) == 3


def test_shares_of_another_count_make_the_whole_too(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    featurize(source, tmp_path / "out", rows_per_part=5, sharing=Sharing((2, 3)))
    featurize(source, tmp_path / "out", rows_per_part=5)
    assert_whole(tmp_path / "out", undisturbed)


def test_a_share_that_stopped_is_taken_over_and_so_is_one_that_nobody_began(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, sharing=Sharing((2, 3)), on_rows=stop_after(5))
    report = featurize(source, out, rows_per_part=5, sharing=Sharing((1, 3), steal=True))
    assert report.is_complete
    assert_whole(out, undisturbed)


def test_who_comes_late_and_finds_the_own_share_taken_over_takes_another(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=5, sharing=Sharing((1, 3)))
    held = Lease(open_store(out), (2, 3), expiry_seconds=10.0)
    late = Sharing((2, 3), steal=True, expiry_seconds=0.5)

    def release(_: int, rows: int) -> None:  # it goes on with the share that nobody had, then waits for the other one
        held.release("stopped")

    assert featurize(source, out, rows_per_part=5, sharing=late, on_start=release).is_complete
    assert (out / WORKERS / "1-of-3.000001.json").exists()  # nobody took the one that was done
    assert_whole(out, undisturbed)


def test_who_loses_the_race_for_another_share_looks_for_one_that_is_free(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=5, sharing=Sharing((1, 3)))
    held = [Lease(open_store(out), (2, 2), expiry_seconds=1.0)]
    asked: list[tuple[int, int]] = []

    def lease_of(store: Store, share: tuple[int, int], expiry_seconds: float) -> Lease:
        asked.append(share)
        if asked[2:] == [(2, 2)]:  # it was stopped, and somebody takes it just before this process does
            held.append(Lease(open_store(out), share, expiry_seconds))
        if asked[3:] == [(1, 2)]:
            held[1].release("stopped")
        return Lease(store, share, expiry_seconds)

    monkeypatch.setattr(held_share, "Lease", lease_of)
    late, release = Sharing((2, 2), steal=True, expiry_seconds=1.0), lambda *_: held[0].release("stopped")
    assert featurize(source, out, rows_per_part=5, sharing=late, on_start=release).is_complete
    assert asked == [(2, 2), (1, 2), (2, 2), (1, 2), (2, 2)]
    assert_whole(out, undisturbed)


def test_who_takes_a_share_over_stops_where_a_restart_began_meanwhile(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody works there between the own share, which is done, and the other one."""
    out = tmp_path / "out"
    with ExitStack() as stack:

        def lease_of(store: Store, share: tuple[int, int], expiry_seconds: float) -> Lease:
            if share == (2, 2):
                stack.enter_context(replacing(JobRecords(open_store(out))))
            return Lease(store, share, expiry_seconds)

        monkeypatch.setattr(held_share, "Lease", lease_of)
        with pytest.raises(StoppedError, match="is being restarted, amended or cleaned"):
            featurize(source, out, rows_per_part=5, sharing=Sharing((1, 2), steal=True, expiry_seconds=1.0))
        assert [worker.share for worker in living_workers(open_store(out))] == [REPLACING]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_an_expiry_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"expiry_seconds is .*; expected more than 0, at most 1e\+06"):
        Sharing(expiry_seconds=seconds)


def test_a_share_that_is_worked_on_is_refused(tmp_path: Path, source: Path, half_done: Path) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    held = Lease(open_store(tmp_path / "out"), (1, 1), expiry_seconds=10.0)
    with pytest.raises(StoppedError, match=r"Share 1/1 of .*out is being worked on: process \d+ on "):
        featurize(source, tmp_path / "out", rows_per_part=5)
    held.release("stopped")
    assert featurize(source, tmp_path / "out", rows_per_part=5).is_complete


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_an_owner_of_another_machine_that_beats_keeps_its_share_whatever_its_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    store = open_store(tmp_path)
    its_time = time.time() + seconds
    held_by(store, beat=its_time)
    clock_of_its_own(monkeypatch, lambda waited: held_by(store, beat=its_time + waited))
    with pytest.raises(HeldError, match="is being worked on: process 7 on elsewhere"):
        Lease(store, (1, 1))


def test_a_lock_that_is_found_empty_is_one_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    held = Lease(store, (1, 1))
    path = tmp_path / WORKERS / "1-of-1.000001.json"
    path.write_bytes(b"")
    held.confirm()
    assert held.beat() and json.loads(path.read_bytes())["attempt"] == store.attempt
    path.write_bytes(b"")
    clock_of_its_own(monkeypatch, lambda _: held.beat())
    with pytest.raises(HeldError, match="is being worked on"):
        Lease(open_store(tmp_path), (1, 1))
    held.release("stopped")


@pytest.mark.parametrize(
    "changes",
    [{"beat": 0.0, "expiry_seconds": 5.0}, {"state": "stopped"}, {"machine": workers.this_machine(), "pid": 2**22 + 1}],
)
def test_a_share_whose_owner_is_gone_is_taken_over_soon(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], changes: dict[str, Any], half_done: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    held_by(open_store(tmp_path / "out"), **changes)
    begin = time.monotonic()
    featurize(source, tmp_path / "out", rows_per_part=5)
    assert time.monotonic() - begin < workers.EXPIRY_SECONDS / 2
    assert [path.name for path in (tmp_path / "out" / WORKERS).iterdir()] == ["1-of-1.000010.json"]
    assert_whole(tmp_path / "out", undisturbed)


def test_an_owner_of_another_machine_that_is_not_heard_of_loses_its_share(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], half_done: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    held_by(open_store(tmp_path / "out"), expiry_seconds=0.3)
    featurize(source, tmp_path / "out", rows_per_part=5)
    assert_whole(tmp_path / "out", undisturbed)


def test_an_owner_whose_share_was_taken_stops_and_harms_nothing(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None]
) -> None:
    out, done = tmp_path / "out", [0]

    def on_rows(some: int) -> None:  # another process takes over while this one is asleep
        done[0] += some
        if done[0] >= 20 and not (out / WORKERS / "1-of-1.000002.json").exists():
            while read_status(out).units_committed < 2:  # the writer is behind
                time.sleep(0.001)
            held_by(open_store(out), number=2)
            time.sleep(0.2)

    with pytest.raises(StoppedError, match=r"Share 1/1 of .* is not this process's any more: "):
        featurize(source, out, rows_per_part=5, sharing=Sharing(expiry_seconds=1.0), on_rows=on_rows)
    assert (out / WORKERS / "1-of-1.000002.json").exists()
    held_by(open_store(out), number=2, state="stopped")
    featurize(source, out, rows_per_part=5)
    assert_whole(out, undisturbed)


def test_a_restart_of_what_is_worked_on_is_refused(tmp_path: Path, source: Path, half_done: Path) -> None:
    shutil.copytree(half_done, tmp_path / "out")
    held_by(open_store(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"is being worked on: process 7 on elsewhere.*Wait for it, or stop it"):
        featurize(source, tmp_path / "out", rows_per_part=5, restart=True)


# Units that end their process ----------------------------------------------------------------------------------------


def died(out: Path, *units: int, alone: bool = False) -> None:
    """The log of an attempt that died with these units in hand."""
    logs = out / "__scanrnn/commits"
    job = json.loads((out / "__scanrnn/job.json").read_bytes())["id"]
    header = {"attempt": "x", "job": job, "started": 0.0, "share": [1, 1], "environment": {}}
    lines = [header, *({"begin": unit, **({"alone": True} if alone else {})} for unit in units)]
    name = f"elsewhere.7.{len(list(logs.iterdir())):08}.jsonl"
    (logs / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_units_that_were_in_hand_when_an_attempt_died_come_last_and_alone(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    left = sorted(set(range(UNITS)) - {int(name[5:10]) for name in parts_of(out)})
    died(out, 0, left[0], left[1])  # of which 0 is committed by now
    featurize(source, out, rows_per_part=5)
    own = max((out / "__scanrnn/commits").glob(f"{os.uname().nodename}*"), key=os.path.getmtime)
    begun = [json.loads(line) for line in own.read_text().splitlines()]
    order = [(line["begin"], line.get("alone", False)) for line in begun if "begin" in line]
    assert order == [*((unit, False) for unit in left[2:]), (left[0], True), (left[1], True)]
    assert_whole(out, undisturbed)


def test_units_that_are_done_alone_do_not_have_all_records_read_each_time(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch, half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    committed = len(parts_of(out))
    died(out, *range(UNITS))
    read, looks = attempt.read_commits, 0

    def counted_looks(*given: Any, **options: Any) -> Any:
        nonlocal looks
        looks += 1
        return read(*given, **options)

    monkeypatch.setattr(attempt, "read_commits", counted_looks)
    report = featurize(source, out, rows_per_part=5)
    assert (report.parts, looks) == (UNITS - committed, 2)
    assert_whole(out, undisturbed)


@pytest.mark.parametrize("kernel", [None, pytest.param("xla", marks=pytest.mark.soak)])
def test_of_tiny_units_few_are_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str | None) -> None:
    """A window holds 32 of these rows; the bound is that of the rows that are open and of those to be written."""
    begin, commit, most = AttemptLog.begin, AttemptLog.commit, 0

    def begun(log: AttemptLog, *given: Any) -> None:
        nonlocal most
        begin(log, *given)
        most = max(most, len(log.in_hand))

    def slow(log: AttemptLog, *given: Any) -> None:
        time.sleep(0.003)
        commit(log, *given)

    monkeypatch.setattr(AttemptLog, "begin", begun)
    monkeypatch.setattr(AttemptLog, "commit", slow)
    units = 4 * WAITING_UNITS
    write_source(tmp_path / "in.parquet", random_rows([4] * units), row_group_size=1)
    assert featurize(tmp_path / "in.parquet", tmp_path / "out", rows_per_part=1, kernel=kernel).parts == units
    assert 1 < most < 3 * WAITING_UNITS


def test_a_unit_that_ends_its_process_is_named_after_all_others_are_done(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], half_done: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_done, out)
    died(out, 10, 11)
    for _ in range(SILENT_DEATHS):
        died(out, 10, alone=True)
    with pytest.raises(
        DataError,
        match=r"part 10 end the process.*: 5 processes .* the same place.*b\.parquet, row group 3, 5 rows",
    ):
        featurize(source, out, rows_per_part=5)
    status = read_status(out)
    assert (status.units_committed, status.fatal_units) == (UNITS - 1, (10,))
    assert "parts [10] end the process that computes them; see --retry" in str(status)
    featurize(source, out, rows_per_part=5, sharing=Sharing(retry=True))
    assert_whole(out, undisturbed)


def test_attempts_that_ended_by_themselves_accuse_no_unit(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    for _ in range(3):
        with pytest.raises(StoppedError):
            featurize(source, out, rows_per_part=5, on_rows=stop_after(5))
    report = featurize(source, out, rows_per_part=5)
    assert report.is_complete
    assert not any(b"alone" in path.read_bytes() for path in (out / "__scanrnn/commits").iterdir())


def test_a_unit_that_ends_its_process_after_its_part_was_lost_is_named(
    tmp_path: Path, source: Path, finished: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "part-00010.parquet").unlink()
    for _ in range(SILENT_DEATHS):
        died(out, 10, alone=True)
    with pytest.raises(DataError, match=r"part 10 end the process that computes them: 5 processes .* the same place"):
        featurize(source, out, rows_per_part=5)
    featurize(source, out, rows_per_part=5, sharing=Sharing(retry=True))
    assert featurize(source, out, rows_per_part=5).parts == 0


def test_empty_traces_of_processes_that_were_killed_are_cleaned(tmp_path: Path, finished: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    logs = out / "__scanrnn/commits"
    (logs / "elsewhere.7.00000001.crash").touch()
    (logs / "elsewhere.7.00000002.crash").write_text("Fatal Python error: Aborted\n")
    assert "__scanrnn/commits/elsewhere.7.00000001.crash" in clean(out).names
    assert [path.name for path in logs.glob("*.crash")] == ["elsewhere.7.00000002.crash"]
