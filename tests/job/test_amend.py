"""A source that changed: exactly what changed is done again, and the output is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from faults import CopyingStore, Died, Told, dies_at, watched
from holding import hold
from s3_server import S3Server
from sources import encoder_of, entries, featurize, leftovers, parts_of, random_rows, write_source

from scanrnn_dist.api import verify
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import MemoryShares, open_job
from scanrnn_dist.job.attempt import Sharing
from scanrnn_dist.job.cleaning import clean
from scanrnn_dist.job.status import read_status
from scanrnn_dist.records import JOB, PUBLISHING, RESTART
from scanrnn_dist.source import schemas
from scanrnn_dist.storage import LocalStore, new_attempt, open_store

UNITS = 7


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # One chunk at a time, so that a job that is stopped has committed some units and not others.
    monkeypatch.setattr(MemoryShares, "chunk", 1000)
    hold(monkeypatch, read_ahead=1)


def file_of(folder: Path, name: str, rows: int, seed: int) -> Path:
    return write_source(
        folder / f"{name}.parquet", random_rows(np.full(rows, 40), seed), id=pa.array([name] * rows, pa.string())
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files of `source`, and "out", a finished job over them; not to be changed."""
    folder = tmp_path_factory.mktemp("kept")
    for name, rows in (("b", 10), ("d", 15), ("f", 10)):
        file_of(folder / "copy", name, rows, ord(name))
    shutil.copytree(folder / "copy", folder / "in")
    run(folder / "in", folder / "out")
    return folder


@pytest.fixture
def source(kept: Path) -> Path:
    """Three files: b with units 0 and 1, d with units 2 to 4, f with units 5 and 6; as they were for each test."""
    shutil.rmtree(kept / "in")
    return shutil.copytree(kept / "copy", kept / "in")


@pytest.fixture
def finished(kept: Path, source: Path, tmp_path: Path) -> Path:
    """The output of a job over these files."""
    return shutil.copytree(kept / "out", tmp_path / "out")


CHANGES: dict[str, tuple[Callable[[Path], Any], int, int]] = {
    "changed": (lambda source: file_of(source, "d", 10, 99), 4, 2),
    "a row less": (lambda source: file_of(source, "d", 14, ord("d")), 4, 3),
    "new, sorts first": (lambda source: file_of(source, "a", 5, 1), 7, 1),
    "new, sorts last": (lambda source: file_of(source, "g", 5, 1), 7, 1),
    "gone": (lambda source: (source / "b.parquet").unlink(), 5, 0),
    "all": (
        lambda source: (file_of(source, "a", 5, 1), file_of(source, "d", 10, 99), (source / "b.parquet").unlink()),
        2,
        3,
    ),
}
"""What is changed, how many units of a finished job stay, and how many are done."""


def in_restart(out: Path) -> list[Path]:
    """The files that stand in the place of a new output; it may stay as an empty folder."""
    return [path for path in (out / RESTART).rglob("*") if path.is_file()]


def run(source: Any, out: Path, **options: Any) -> Any:
    return featurize(source, out, **{"rows_per_part": 5, **options})


def stopped(source: Any, out: Path, rows: int = 15) -> int:
    """A job that was stopped after some units were committed; how many."""
    with pytest.raises(StoppedError):
        run(source, out, on_rows=sources.stop_once_committed(out, rows))
    assert 0 < len(parts_of(out)) < UNITS
    return len(parts_of(out))


_undisturbed: dict[tuple[Any, ...], dict[str, bytes | None]] = {}
"""The parts of a new job, by the source and the content of its files."""


def assert_undisturbed(source: Any, out: Path) -> None:
    """The output is that of a new job over the source as it is now, byte for byte, and nothing stands beside it."""
    files = source if isinstance(source, list) else sorted(source.glob("*.parquet"))
    now = repr(source), *(path.read_bytes() for path in files)
    if now not in _undisturbed:
        run(source, out.parent / "expected")
        _undisturbed[now] = parts_of(out.parent / "expected")
        shutil.rmtree(out.parent / "expected")
    assert parts_of(out) == _undisturbed[now]
    assert (out / "_SUCCESS").exists() and not leftovers(out) and not in_restart(out)
    assert verify(out, sample=0).is_complete


OF_ALL = pytest.mark.soak  # they are among "all"


@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=[OF_ALL] * (name in ("changed", "gone"))) for name in CHANGES]
)
def test_of_a_finished_job_exactly_what_changed_is_done_and_the_rest_stays(
    source: Path, finished: Path, change: str
) -> None:
    out = finished
    before = {path.stat().st_ino: path.stat().st_mtime_ns for path in out.glob("part-*")}
    make_change, stay, done = CHANGES[change]
    make_change(source)
    report = run(source, out, accept_changes=True)
    assert (report.parts, report.rows_before // 5) == (done, stay)
    after = {path.stat().st_ino: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(before.items() & after.items()) == stay
    assert_undisturbed(source, out)
    # The flag may stay in the command; without it the job is finished too.
    assert run(source, out, accept_changes=True).parts == run(source, out).parts == 0


@pytest.mark.parametrize("change", [pytest.param("changed", marks=OF_ALL), "all"])
def test_of_an_unfinished_job_what_changed_and_what_is_not_done_is_done(
    tmp_path: Path, source: Path, change: str
) -> None:
    out = tmp_path / "out"
    stopped(source, out)
    CHANGES[change][0](source)
    before = entries(out)
    with pytest.raises(DataError, match="The source changed"):
        run(source, out)
    assert entries(out) == before
    run(source, out, accept_changes=True)
    assert_undisturbed(source, out)


@pytest.mark.parametrize(
    ("change", "says", "says_not"),
    [
        pytest.param(
            "all",
            (
                "b.parquet is gone; ",
                "d.parquet was ",
                "a.parquet is new",
                "That concerns 5 of 7 parts, and 1 new file.",
                "with --accept-changes: it does exactly these again and keeps all others",
            ),
            (),
            id="changed, gone and new",
        ),
        pytest.param(
            "new, sorts last",
            (
                "g.parquet is new. All 7 parts of the output stay as they are; beside them the source has 1 new file.",
                "--accept-changes to add what is new",
                "move what is new out of the source",
            ),
            ("That concerns", "touch"),
            id="only new, so nothing is done again",
        ),
    ],
)
def test_the_refusal_says_what_changed_how_much_that_is_and_what_to_do(
    source: Path, finished: Path, change: str, says: tuple[str, ...], says_not: tuple[str, ...]
) -> None:
    out = finished
    CHANGES[change][0](source)
    with pytest.raises(DataError) as caught:
        run(source, out)
    said = str(caught.value)
    assert [part for part in says if part not in said] == []
    assert [part for part in (*says_not, "ring it back", "\n") if part in said] == []


def test_parts_of_a_job_that_an_earlier_version_began_stay_of_one_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It recorded the indices of dictionaries as narrow as the files have them."""

    def write(name: str, begin: int, count: int, index: pa.DataType) -> None:
        kinds = sources.categories(begin, begin + count)
        kinds = pa.DictionaryArray.from_arrays(kinds.indices.cast(index), kinds.dictionary)
        write_source(tmp_path / f"in/{name}.parquet", random_rows([2] * count), 500, kind=kinds)

    source, out = tmp_path / "in", tmp_path / "out"
    write("a", 0, 5, pa.int8())
    with monkeypatch.context() as earlier:
        earlier.setattr(schemas, "with_wide_indices", lambda kind: kind)
        run(source, out)
    assert run(source, out).parts == 0
    write("b", 5, 5, pa.int8())
    write("c", 10, 5, pa.int16())
    run(source, out, accept_changes=True)
    kinds = [pq.read_table(out / name, columns=["kind"])["kind"] for name in sorted(parts_of(out))]
    assert {kind.type for kind in kinds} == {pa.dictionary(pa.int8(), pa.string())}
    assert [value for kind in kinds for value in kind.to_pylist()] == [f"k{number}" for number in range(15)]
    assert verify(out, sample=4).is_complete


def test_what_was_accepted_is_recorded_and_told(source: Path, finished: Path) -> None:
    out = finished
    CHANGES["new, sorts last"][0](source)
    run(source, out, accept_changes=True)
    CHANGES["gone"][0](source)
    run(source, out, accept_changes=True)
    accepted = read_status(out).to_json()["accepted"]
    assert accepted == (f"{source}/g.parquet is new", f"{source}/b.parquet is gone")
    assert f"a change was accepted: {source}/g.parquet is new" in str(read_status(out))
    assert read_status(out).attempts == 3 and read_status(out).environments == 1
    assert_undisturbed(source, out)


def test_where_nothing_is_done_a_changed_source_needs_no_flag(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"

    def stop(_: int) -> None:
        raise StoppedError("SIGTERM")

    with pytest.raises(StoppedError):
        run(source, out, on_rows=stop)
    CHANGES["all"][0](source)
    assert run(source, out).rows_before == 0
    assert_undisturbed(source, out)


def test_a_file_that_was_only_touched_may_be_done_again_too(source: Path, finished: Path) -> None:
    out = finished
    os.utime(source / "d.parquet", ns=(0, 0))
    assert run(source, out, accept_changes=True).parts == 3
    assert_undisturbed(source, out)


def test_a_change_that_is_taken_back_is_a_change_too(tmp_path: Path, source: Path, finished: Path) -> None:
    out = finished
    (source / "b.parquet").rename(tmp_path / "away")
    run(source, out, accept_changes=True)
    (tmp_path / "away").rename(source / "b.parquet")
    assert run(source, out, accept_changes=True).parts == 2
    assert_undisturbed(source, out)


def test_other_options_are_refused_and_other_columns_are_an_error(source: Path, finished: Path) -> None:
    out = finished
    CHANGES["changed"][0](source)
    before = entries(out)
    for options, says in (
        ({"encoder": encoder_of(seed=9)}, "the encoder's weights are others"),
        ({"max_steps": 3}, "max_steps was not given and is 3"),
        ({"rows_per_part": 10}, "rows_per_part was 5 and is 10"),
    ):
        with pytest.raises(ConfigError, match=says):
            run(source, out, accept_changes=True, **options)
    with pytest.raises(ConfigError, match="--restart begins anew, and --accept-changes keeps"):
        run(source, out, accept_changes=True, restart=True)
    for path in source.iterdir():
        pq.write_table(pq.read_table(path).append_column("x", pa.array([1] * pq.read_metadata(path).num_rows)), path)
    with pytest.raises(DataError, match=r"The columns of the source changed: 'x' was not there and is int64"):
        run(source, out, accept_changes=True)
    assert entries(out) == before


@pytest.mark.parametrize("wrong", ["a table of Delta Lake", "not UTF-8"])
def test_a_source_that_is_there_and_is_none_any_more_is_an_error_of_the_data(
    source: Path, finished: Path, wrong: str
) -> None:
    out = finished
    if wrong == "not UTF-8":
        Path(os.fsdecode(os.fsencode(source) + b"/\xff.parquet")).write_bytes(b"x")
    else:
        (source / "_delta_log").mkdir()
    before = entries(out)
    for call in (
        lambda: run(source, out),
        lambda: run(source, out, accept_changes=True),
        lambda: sources.resume(out),
        lambda: verify(out),
    ):
        with pytest.raises(DataError, match=f"is not what it was: .*{wrong}"):
            call()
    assert entries(out) == before


def test_a_list_of_files_as_a_shell_makes_it_may_be_another_list(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    run(sorted(source.iterdir()), out)
    CHANGES["all"][0](source)
    now = sorted(source.iterdir())
    with pytest.raises(ConfigError, match=r"source was .*--accept-changes does what is new or changed in the list"):
        run(now, out)
    assert run(now, out, accept_changes=True).parts == 3
    assert_undisturbed(now, out)
    assert run(now[::-1], out, accept_changes=True).parts == 0  # another order
    assert pq.read_table(out)["id"].to_pylist() == ["f"] * 10 + ["d"] * 10 + ["a"] * 5


def test_a_glob_of_a_shell_may_find_one_file_and_then_several(tmp_path: Path, source: Path) -> None:
    out, files = tmp_path / "out", sorted(source.glob("*.parquet"))
    how: dict[str, Any] = {"rows_per_part": 5, "accept_changes": True}
    featurize(files[0], out, **how)
    assert featurize(files, out, **how).rows_before == 10
    assert pq.read_table(out)["id"].to_pylist() == ["b"] * 10 + ["d"] * 15 + ["f"] * 10
    assert featurize(files[2], out, **how).rows_before == 10
    assert pq.read_table(out)["id"].to_pylist() == ["f"] * 10
    for other in (source, files[0]):  # another file is another job
        with pytest.raises(ConfigError, match=r"source was (?!.*--accept-changes)"):
            featurize(other, out, **how)
    verify(out)


def test_a_source_without_rows_may_get_some_and_lose_them(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    file_of(source, "a", 0, 1)
    run(source, out)
    file_of(source, "b", 5, 2)
    assert run(source, out, accept_changes=True).rows == 5
    assert_undisturbed(source, out)
    (source / "b.parquet").unlink()
    run(source, out, accept_changes=True)
    assert pq.read_table(out).num_rows == 0 and verify(out).is_complete


def test_parts_that_are_damaged_are_not_taken_over(source: Path, finished: Path) -> None:
    out = finished
    (out / "part-00005.parquet").write_bytes(b"cut")
    (out / "part-00006.parquet").unlink()
    CHANGES["new, sorts first"][0](source)
    assert run(source, out, accept_changes=True).parts == 3
    assert_undisturbed(source, out)


# Cut short ------------------------------------------------------------------------------------------------------------


def dies_at_number(step: int, seen: list[str]) -> Told:
    """Ends the process at a step of those of the thread that calls."""
    thread = threading.current_thread()

    def stepped(kind: str, name: str) -> None:
        if threading.current_thread() is thread and not any("part-" in it and "open" in it for it in seen):
            seen.append(f"{kind} {name}")
            if len(seen) == step:
                raise Died

    return stepped


def forget_locks(out: Path) -> None:
    """The lease of one who died, which this process would keep alive."""
    for lease in (out / "__scanrnn/workers").glob("*.json"):
        lease.unlink()


@pytest.mark.parametrize(
    ("is_finished", "kind", "every"),
    [
        pytest.param(False, CopyingStore, 13, id="unfinished-as in a bucket"),
        pytest.param(False, LocalStore, 3, id="unfinished-folder-every third step", marks=pytest.mark.soak),
        pytest.param(True, CopyingStore, 3, id="finished-as in a bucket-every third step", marks=pytest.mark.soak),
        pytest.param(False, LocalStore, 1, id="unfinished-folder-every step", marks=pytest.mark.sweep),
        pytest.param(True, CopyingStore, 1, id="finished-as in a bucket-every step", marks=pytest.mark.sweep),
    ],
)
def test_an_amendment_that_dies_at_any_step_is_ended_by_the_same_command(
    tmp_path: Path, source: Path, is_finished: bool, kind: type[LocalStore], every: int
) -> None:
    def amend(out: Path, died_at: int, seen: list[str]) -> None:
        store = watched(kind(str(out), new_attempt()), dies_at_number(died_at, seen))
        run(source, store, accept_changes=True)

    first = tmp_path / "first"
    run(source, first) if is_finished else stopped(source, first)
    CHANGES["all"][0](source)
    expected = tmp_path / "expected"
    run(source, expected)

    def copy(name: str) -> Path:
        folder = tmp_path / name
        for path, content in entries(first).items():
            if content is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
        forget_locks(folder)
        return folder

    steps: list[str] = []  # until the amended job is begun to be worked on
    amend(copy("counted"), 0, steps)
    ended = next(number for number, step in enumerate(steps, 1) if step == f"delete {RESTART}")
    assert ended > 30
    for died_at in range(2 + 3 * is_finished if every > 1 else 1, ended + 1, every):
        out, seen = copy(f"{died_at}"), list[str]()
        old = parts_of(out)
        with pytest.raises(Died):
            amend(out, died_at, seen)
        forget_locks(out)
        if not (out / RESTART / PUBLISHING).exists() and json.loads((out / JOB).read_text()).get("accepted") is None:
            assert parts_of(out) == old and (out / "_SUCCESS").exists() == is_finished  # as if nothing had been tried
        if died_at % 2:  # by another command than the same
            clean(out)
        run(source, kind(str(out), new_attempt()), accept_changes=True)
        assert parts_of(out) == parts_of(expected), seen[-1]
        assert (out / "_SUCCESS").exists() and not in_restart(out)
        verify(out, sample=0)


def test_an_amendment_that_never_took_its_place_is_cleaned(source: Path, finished: Path) -> None:
    out = finished
    CHANGES["new, sorts first"][0](source)
    with pytest.raises(Died):
        run(source, watched(out, dies_at("link", f"{RESTART}/part-00003.parquet")), accept_changes=True)
    (source / "a.parquet").unlink()
    assert run(source, out).parts == 0
    forget_locks(out)
    assert any(name.startswith(f"{RESTART}/part-") for name in clean(out).names)
    assert_undisturbed(source, out)


def test_a_restart_that_an_amendment_began_to_remove_is_not_gone_on_with(source: Path, finished: Path) -> None:
    out = finished
    CHANGES["new, sorts first"][0](source)
    with pytest.raises(Died):
        run(source, watched(out, dies_at("rename", f"{RESTART}/part-00004.parquet")), restart=True)
    forget_locks(out / RESTART)

    with pytest.raises(Died):
        run(source, watched(out, dies_at("delete", f"{RESTART}/part-00003.parquet")), accept_changes=True)
    forget_locks(out)
    run(source, out, restart=True)
    assert_undisturbed(source, out)


def test_nobody_amends_what_is_worked_on_and_shards_share_what_is_amended(tmp_path: Path, source: Path) -> None:
    out, refused = tmp_path / "out", []
    expiring = {"expiry_seconds": 5.0}
    run(source, out, sharing=Sharing((1, 2)))
    CHANGES["all"][0](source)

    def on_rows(_: int) -> None:
        if not refused:  # a second shard begins meanwhile, with the same flag: nothing is left to accept
            refused.append(run(source, out, accept_changes=True, sharing=Sharing((2, 2), **expiring)))
            file_of(source, "h", 5, 7)
            with pytest.raises(StoppedError, match="is being worked on"):
                run(source, out, accept_changes=True, sharing=Sharing((2, 2), **expiring))
            (source / "h.parquet").unlink()

    run(source, out, accept_changes=True, sharing=Sharing((1, 2), **expiring), on_rows=on_rows)
    assert refused
    run(source, out, accept_changes=True)
    assert_undisturbed(source, out)


@pytest.mark.parametrize(("when", "flag"), [("planned", True), ("planned", False), ("fate_of", True)])
def test_shares_that_find_the_source_amended_meanwhile_go_on_with_that(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, when: str, flag: bool
) -> None:
    out, begun, really = tmp_path / "out", [], getattr(open_job, when)
    run(source, out, sharing=Sharing((1, 2)))
    CHANGES["all"][0](source)

    def overtaken(*given: Any) -> Any:
        if not begun:
            begun.append(True)
            run(source, out, accept_changes=True, sharing=Sharing((1, 2)))
        return really(*given)

    monkeypatch.setattr(open_job, when, overtaken)
    run(source, out, accept_changes=flag, sharing=Sharing((2, 2)))
    assert begun
    assert_undisturbed(source, out)


def test_who_comes_while_another_one_amends_waits_for_it(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, waits, replacing = tmp_path / "out", threading.Event(), open_job.replacing
    run(source, out)
    CHANGES["all"][0](source)
    slow, expiring = [], {"expiry_seconds": 1.0}

    @contextmanager
    def slowly(*given: Any) -> Iterator[Any]:
        with replacing(*given) as lease:
            if not slow:
                slow.append(True)
                assert waits.wait(60)
            yield lease

    def wait(*given: Any) -> None:
        waits.set()
        wait_until_free(*given)

    wait_until_free = open_job.wait_until_free
    monkeypatch.setattr(open_job, "replacing", slowly)
    monkeypatch.setattr(open_job, "wait_until_free", wait)
    with ThreadPoolExecutor(2) as threads:
        shares = [Sharing((number, 2), **expiring) for number in (1, 2)]
        for done in [threads.submit(run, source, out, accept_changes=True, sharing=share) for share in shares]:
            done.result()
    assert waits.is_set()
    assert_undisturbed(source, out)


def test_who_amended_does_not_go_on_with_what_another_one_amended_since(
    source: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, begun, replacing = finished, [], open_job.replacing
    CHANGES["new, sorts first"][0](source)

    @contextmanager
    def overtaken(*given: Any) -> Iterator[Any]:
        with replacing(*given) as lease:
            yield lease
        if not begun:
            begun.append(True)
            file_of(source, "h", 5, 7)
            run(source, out, accept_changes=True)

    monkeypatch.setattr(open_job, "replacing", overtaken)
    with pytest.raises(StoppedError, match="does not hold the job any more"):
        run(source, out, accept_changes=True)
    assert verify(out, sample=0).is_complete


def test_a_job_that_was_asleep_while_its_source_was_amended_writes_nothing(tmp_path: Path, source: Path) -> None:
    out, begun = tmp_path / "out", []
    stopped(source, out)

    def on_rows(_: int) -> None:  # as if this process had slept for a minute, in which its lease expired
        if not begun:
            begun.append(True)
            forget_locks(out)
            CHANGES["new, sorts first"][0](source)
            run(source, out, accept_changes=True)

    with pytest.raises(StoppedError, match=r"does not hold the job any more|is not this process's any more"):
        run(source, out, on_rows=on_rows)
    assert_undisturbed(source, out)


def test_what_was_asleep_in_a_bucket_writes_its_log_over_no_amended_one(
    tmp_path: Path, source: Path, s3: S3Server
) -> None:
    uri, rows = s3.uri("bucket/out"), [0]

    def on_rows(more: int) -> None:
        rows[0] += more
        if rows[0] >= 20 > rows[0] - more:
            store = open_store(uri)
            for name in store.below("__scanrnn/workers"):
                store.delete(name)
            CHANGES["new, sorts first"][0](source)
            assert run(source, uri, accept_changes=True).rows_before > 0

    with pytest.raises(StoppedError, match=r"does not hold the job any more|is not this process's any more"):
        run(source, uri, on_rows=on_rows)
    file_of(source, "h", 5, 7)
    report = run(source, uri, accept_changes=True)
    assert (report.parts, report.rows_before) == (1, 40)
    assert verify(uri, sample=4).is_complete


def test_a_bucket_is_amended_as_a_folder_is(tmp_path: Path, source: Path, s3: S3Server) -> None:
    uri, folder = s3.uri("bucket/out"), tmp_path / "out"
    run(source, uri)
    CHANGES["all"][0](source)
    with pytest.raises(DataError, match="That concerns 5 of 7 parts, and 1 new file"):
        run(source, uri)
    report = run(source, uri, accept_changes=True)
    assert (report.parts, report.rows_before) == (3, 10)
    assert verify(uri, sample=4).is_complete
    for key in s3.objects("bucket", "out/"):
        if not key.endswith("/"):
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(s3.get("bucket", key))
    assert_undisturbed(source, folder)
