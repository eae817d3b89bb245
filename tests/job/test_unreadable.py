"""Units whose pages cannot be read, under `unreadable_file="skip"`: set aside as a whole, all others as ever."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import Died, dies_at, watched
from pyarrow import fs
from sources import NAN, D, entries, featurize, leftovers, random_rows, stop_once_committed, write_source

from scanrnn_dist import BadRows, quarantined
from scanrnn_dist.api.verification import verify
from scanrnn_dist.errors import ConfigError, DataError, StoppedError, UndoneError, UnreadableError
from scanrnn_dist.job import (
    JobOptions,
    MemoryShares,
    Plan,
    Sharing,
    clean,
    in_features_of,
    plan_job,
    read_status,
)
from scanrnn_dist.records import QUARANTINE, Lease
from scanrnn_dist.source import FailedUnit, ReadOptions, Unit, read_chunks, read_footers
from scanrnn_dist.source.parquet import CheckedFile
from scanrnn_dist.source.unit_reader import UnitReader

SKIP = BadRows(unreadable_file="skip")
ROWS, UNITS, BROKEN = 5, 4, 2
"""Rows of a unit, units of the file that is damaged, and the one that is."""
LIST = f"{QUARANTINE}/unit-0000{BROKEN}.rows"
PART = f"part-0000{BROKEN}.parquet"


@pytest.fixture(autouse=True)
def _many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryShares, "chunk", 100)  # of one or two rows


def write_damaged(folder: Path, column: str = "sequence.list.element.list.element") -> Path:
    """A file of four units, the third with a flipped byte late in a page, and a good one of one unit."""
    rows = random_rows([4] * (ROWS * UNITS), 1)
    pages = {"compression": "none", "use_dictionary": False, "write_page_checksum": True, "row_group_size": ROWS}
    write_source(folder / "a.parquet", rows)
    table = pq.read_table(folder / "a.parquet")
    pq.write_table(table, folder / "a.parquet", data_page_size=64, write_batch_size=1, **pages)
    group = pq.read_metadata(folder / "a.parquet").row_group(BROKEN)
    chunk = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema == column)
    flip(folder / "a.parquet", chunk.data_page_offset + chunk.total_compressed_size - 3)
    write_source(folder / "b.parquet", random_rows([4] * ROWS, 2), id=pa.array(range(100, 100 + ROWS)))
    return folder


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_damaged(tmp_path_factory.mktemp("damaged"))


def go_on(source: Any, out: Any, **options: Any) -> Any:
    return featurize(source, out, **{"rows_per_part": ROWS, "column": "sequence", "bad_rows": SKIP, **options})


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    go_on(source, out)
    return output_of(out)


def output_of(out: Path) -> dict[str, bytes | None]:
    """The parts and the lists, byte by byte."""
    return {name: it for name, it in entries(out).items() if name.startswith("part-") or name.endswith(".rows")}


@pytest.mark.parametrize(("size", "error"), [(1 << 20, StoppedError), (1 << 62, UndoneError)])
def test_memory_that_runs_out_is_no_damage(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, error: type[Exception]
) -> None:
    def without_memory(*_: Any, **__: Any) -> Any:
        raise pa.ArrowMemoryError(f"malloc of size {size} failed")
        yield

    monkeypatch.setattr(CheckedFile, "iter_batches", without_memory)
    with pytest.raises(
        error, match="not enough memory" if error is StoppedError else "cannot be read: ArrowMemoryError"
    ):
        featurize(source, tmp_path / "out", column="sequence", bad_rows=SKIP if error is StoppedError else BadRows())
    assert not list((tmp_path / "out").glob("part-*"))


def test_a_file_that_is_left_out_may_be_one_of_a_list(tmp_path: Path) -> None:
    files = [write_source(tmp_path / f"{name}.parquet", random_rows([4] * ROWS, 2)) for name in "ab"]
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 broken PAR1")
    given, options = [files[0], broken, files[1]], JobOptions(bad_rows=SKIP)
    plan = plan_job(given, options)
    again = Plan.from_records(plan.to_records())
    assert again.given == list(map(str, given)) and again.is_of(given, options) and not again.changes()
    assert featurize(given, tmp_path / "out", bad_rows=SKIP).rows == 2 * ROWS
    assert featurize(given, tmp_path / "out", bad_rows=SKIP).parts == 0


def test_a_unit_that_cannot_be_read_is_set_aside_as_a_whole(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, good = tmp_path / "out", [*range(10), *range(15, 20), *range(100, 105)]
    with caplog.at_level(logging.WARNING):
        report = go_on(source, out)
    assert f"All 5 rows of part {BROKEN} are set aside" in caplog.text and "cannot be read" in caplog.text
    assert report.is_complete and (report.rows, report.parts, report.set_aside) == (20, 5, 5)
    assert report.counts == {"unreadable_file skip": 5} and "unreadable_file skip 5 rows" in str(report)
    assert pq.read_table(out)["id"].to_pylist() == good
    part = pq.read_table(out / PART)
    assert len(part) == 0 and part.schema == pq.read_schema(out / "part-00000.parquet")
    (line,) = quarantined(out).to_pylist()
    assert (line["file"], line["row_group"], line["file_row"], line["rows"]) == (str(source / "a.parquet"), 2, 10, 5)
    assert line["policy"] == "unreadable_file" and line["id"] is None
    assert "a.parquet, row group 2, are set aside: " in line["reason"] and "column 'sequence" in line["reason"]
    status = read_status(out)
    assert (status.set_aside, status.units_committed, status.counts) == (5, 5, report.counts)
    found = verify(out, sample=100)
    assert (found.rows, found.set_aside, found.rows_compared, found.sampled) == (20, 5, 20, 20)
    again = go_on(source, out)
    assert again.rows_before == 20 and not again.parts and "Nothing to do" in str(again)


def test_features_of_all_others_are_as_without_the_damage(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "in")
    shutil.copy(write_damaged(tmp_path / "again") / "a.parquet", tmp_path / "in/a.parquet")
    meta = pq.read_metadata(tmp_path / "in/a.parquet").row_group(BROKEN)
    flip(tmp_path / "in/a.parquet", meta.column(1).data_page_offset + meta.column(1).total_compressed_size - 3)
    go_on(source, tmp_path / "out")
    go_on(tmp_path / "in", tmp_path / "mended", bad_rows=BadRows())
    whole, table = pq.read_table(tmp_path / "mended"), pq.read_table(tmp_path / "out")
    assert table.equals(pa.concat_tables([whole.slice(0, 10), whole.slice(15)]))


def test_rows_of_units_that_are_set_aside_count_as_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, in_hand, release = list[int](), list[tuple[int, int]](), Lease.release

    def watching(self: Any, *given: Any) -> None:
        self.beat()
        in_hand.append((self._worker.rows_in_hand, self._worker.values_in_hand))
        release(self, *given)

    monkeypatch.setattr(Lease, "release", watching)
    monkeypatch.setattr(MemoryShares, "chunk", 1)
    assert go_on(source, tmp_path / "out", filter="id != 10", on_rows=seen.append).is_complete
    assert sum(seen) == ROWS * (UNITS + 1) and in_hand == [(0, 0)]


def test_under_error_the_unit_fails_as_ever(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 5 parts could not be made") as caught:
        go_on(source, tmp_path / "out", bad_rows=BadRows())
    assert caught.value.exit_code == 3 and "a.parquet, row group 2, column 'sequence" in str(caught.value)
    *_, place, advice = str(caught.value).splitlines()
    assert place.endswith(" (--unreadable-file)") and advice.endswith("That is another job, so add --restart.")
    assert not (tmp_path / "out" / LIST).exists() and read_status(tmp_path / "out").units_committed == 4


def test_a_kept_column_that_cannot_be_read_does_the_same(tmp_path: Path) -> None:
    write_damaged(tmp_path / "in", "id")
    assert go_on(tmp_path / "in", tmp_path / "out").counts == {"unreadable_file skip": 5}
    assert verify(tmp_path / "out").set_aside == 5


def test_what_a_policy_fails_and_what_changed_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = random_rows([4] * ROWS, 3)
    write_source(tmp_path / "bad/a.parquet", [*rows[:4], NAN])
    with pytest.raises(DataError, match=r"1 of 1 parts could not be made.*\n.*\(--bad-value\)\n.*in parentheses"):
        go_on(tmp_path / "bad", tmp_path / "bad.out")
    write_damaged(tmp_path / "in")
    made = Plan.chunks

    def chunks(self: Any, *given: Any, **how: Any) -> Any:
        shutil.copy(tmp_path / "bad/a.parquet", tmp_path / "in/b.parquet")
        content = (tmp_path / "in/b.parquet").read_bytes()
        (tmp_path / "in/b.parquet").write_bytes(content[:200] + b"PAR1")
        return made(self, *given, **how)

    monkeypatch.setattr(Plan, "chunks", chunks)
    with pytest.raises(DataError, match=r"1 of 5 parts could not be made") as caught:
        go_on(tmp_path / "in", tmp_path / "out")
    assert "b.parquet: cannot be read" in str(caught.value) and "(--" not in str(caught.value)
    assert read_status(tmp_path / "out").set_aside == 5  # of the other file, which is as it was


def test_a_file_with_a_unit_that_cannot_be_read_is_opened_anew_for_the_next_one(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[int, CheckedFile]] = []
    own = UnitReader.file_of

    def file_of(self: UnitReader, unit: Unit) -> CheckedFile:
        used.append((unit.index, own(self, unit)))
        return used[-1][1]

    monkeypatch.setattr(UnitReader, "file_of", file_of)
    plan = plan_job(source, JobOptions(column="sequence", rows_per_part=ROWS))
    read = list(read_chunks(plan.source, plan.units, ReadOptions(plan.layout), keep_going=True))
    assert [one.unit.index for one in read if isinstance(one, FailedUnit)] == [BROKEN]
    files = dict(used)
    assert files[0] is files[1] is files[BROKEN] is not files[BROKEN + 1]


def test_long_format_refuses_it() -> None:
    with pytest.raises(ConfigError, match="--unreadable-file skip leaves out files, and with --group-by"):
        JobOptions(group_by=["id"], bad_rows=SKIP)


def test_where_nobody_tells_the_width_it_is_that_of_the_first_unit_that_can_be_read(tmp_path: Path) -> None:
    write_damaged(tmp_path / "in")
    group = pq.read_metadata(tmp_path / "in/a.parquet").row_group(0).column(1)
    flip(tmp_path / "in/a.parquet", group.data_page_offset + group.total_compressed_size - 3)
    options = JobOptions(column="sequence", rows_per_part=ROWS, bad_rows=SKIP)
    plan = plan_job(tmp_path / "in", options)
    assert in_features_of(plan) == D
    pq.write_table(pq.read_table(tmp_path / "in/b.parquet"), tmp_path / "c.parquet", use_dictionary=False,
                   write_page_checksum=True, compression="none")  # fmt: skip
    group = pq.read_metadata(tmp_path / "c.parquet").row_group(0).column(1)
    flip(tmp_path / "c.parquet", group.data_page_offset + group.total_compressed_size - 3)
    plan = plan_job(tmp_path / "c.parquet", options)
    with pytest.raises(UnreadableError, match=r"c\.parquet.*cannot be read"):
        in_features_of(plan)


# What may happen to such a job ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("write", LIST), ("rename", LIST), ("rename", PART)])
def test_a_job_that_dies_between_the_list_and_the_part_goes_on(
    kind: str, name: str, source: Path, undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Died):
        go_on(source, watched(out, dies_at(kind, name)))
    left = output_of(out)
    assert (
        left.items() <= undisturbed.items()
        and PART not in left
        and (LIST in left) == (name == PART and kind == "rename")
    )
    assert read_status(out).set_aside == 0 and not len(quarantined(out))
    assert go_on(source, out).is_complete
    assert (
        output_of(out) == undisturbed
        and verify(out, sample=0).set_aside == 5
        and not clean(out, dry_run=True).names[1:]
    )


def test_shares_a_job_that_was_stopped_and_a_repair_come_to_the_same(
    source: Path, undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        go_on(source, out, on_rows=stop_once_committed(out, 5), sharing=Sharing((1, 2)))
    reports = [go_on(source, out, sharing=Sharing((k, 2))) for k in (2, 1)]
    assert reports[-1].is_complete and output_of(out) == undisturbed and not leftovers(out)
    assert read_status(out).counts == {"unreadable_file skip": 5}
    (out / LIST).unlink()
    (out / "part-00000.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"part-00002\.parquet has a list of 5 rows set aside that is missing"):
        verify(out, sample=0)
    assert verify(out, repair=True).repaired == ("part-00000.parquet", PART)
    assert output_of(out) == undisturbed


def test_a_file_that_is_mended_is_done_again(source: Path, tmp_path: Path) -> None:
    folder, out = write_damaged(tmp_path / "in"), tmp_path / "out"
    go_on(folder, out)
    group = pq.read_metadata(folder / "a.parquet").row_group(BROKEN).column(1)
    flip(folder / "a.parquet", group.data_page_offset + group.total_compressed_size - 3)
    with pytest.raises(DataError, match=r"a\.parquet"):
        go_on(folder, out)
    assert go_on(folder, out, accept_changes=True).is_complete
    assert pq.read_table(out)["id"].to_pylist() == [*range(20), *range(100, 105)]
    assert verify(out, sample=100).set_aside == 0 and not len(quarantined(out)) and LIST not in output_of(out)


def test_too_many_rows_of_such_units_end_the_job(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5 rows were set aside, and --max-bad-rows allows 4"):
        go_on(source, tmp_path / "out", max_bad_rows=4)
    assert go_on(source, tmp_path / "out", max_bad_rows=5).is_complete


# Files that want to do harm -------------------------------------------------------------------------------------------


def test_every_hostile_file_is_accounted_for_and_good_files_beside_it_are_whole(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose footers are refused in one job, since they bring no columns; each other one in its own."""
    # `large_string_map` is a bomb then
    monkeypatch.setattr("scanrnn_dist.observe.memory.usable_bytes", lambda: 512 << 20)
    hostile = sorted((shared_data / "hostile").glob("*.parquet"))
    answers = list(read_footers(fs.LocalFileSystem(), [str(path) for path in hostile]))
    refused = [path for path, answer in zip(hostile, answers, strict=True) if "error" in answer]
    others = [path for path in hostile if path not in refused]
    assert refused and others
    aside, options = 0, {"column": "sequence", "bad_rows": replace(SKIP, null_sequence="skip")}
    for number, paths in enumerate([refused, *([path] for path in others)]):
        folder, out = tmp_path / f"{number}", tmp_path / f"{number}.out"
        for name, seed in (("a", 1), ("z", 2)):
            write_source(folder / f"{name}.parquet", random_rows([4] * 3, seed))
        for path in paths:
            shutil.copy(path, folder / f"hostile-{path.name}")
        # The hostile ones that can be read have no sequences.
        report = featurize(folder, out, **options)
        read = pq.read_table(out)
        assert report.is_complete and report.rows == len(read) == 6 and read["id"].to_pylist() == [0, 1, 2] * 2
        lines = quarantined(out).to_pylist()
        listed = {line["file"] for line in lines}
        if paths is refused:
            assert report.files_left_out == len(refused) and not lines
        else:
            assert listed == {str(folder / f"hostile-{path.name}") for path in paths} and not report.files_left_out
        aside += any(line["policy"] == "unreadable_file" for line in lines)
        found = verify(out)
        assert (found.rows, found.set_aside, found.sampled) == (6, report.set_aside, 6)
        assert "Nothing to do" in str(featurize(folder, out, **options))
    assert aside == len(others) - 1  # `repeated_no_annotation` is sound
