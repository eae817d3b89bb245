"""Units whose data is wrong: all others are done, all bad places are told, and the same command tries them again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from holding import hold
from sources import FILE_ROWS, NAN, D, H, encoder_of, features_of, leftovers, random_rows, write_files, write_source

from scanrnn_dist.cli import app as cli
from scanrnn_dist.errors import DataError, StoppedError, UndoneError
from scanrnn_dist.job import MemoryShares, plan, undone
from scanrnn_dist.job import write_behind as parts
from scanrnn_dist.job.attempt import Attempt
from scanrnn_dist.job.options import Sharing
from scanrnn_dist.job.status import read_status
from scanrnn_dist.records import AttemptLog, commit_log
from scanrnn_dist.records.suspects import Suspect
from scanrnn_dist.source import FailedUnit, Unit

FILES = 10


@pytest.fixture(autouse=True)
def _compiled_once_and_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield
    assert not sources.threads()


def featurize(source: Path, out: Path, **options: Any) -> Any:
    return sources.featurize(source, out, **{"rows_per_part": FILE_ROWS, "column": "sequence", **options})


def parts_in(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*"))}


def failing(source: Path, out: Path, **options: Any) -> str:
    """What a job says that ends with units that failed."""
    with pytest.raises(DataError) as caught:
        featurize(source, out, **options)
    assert len(str(caught.value).splitlines()) <= 2 + undone.MOST_TOLD + 1  # one place a line, whatever a reason holds
    assert not leftovers(out) and not (out / "_SUCCESS").exists()
    return str(caught.value)


def lines_of(out: Path, field: str) -> list[Any]:
    """A field of the lines of all logs that have it."""
    logs = sorted((out / "__scanrnn/commits").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [line[field] for line in lines if field in line]


def test_one_run_does_all_good_files_and_names_all_bad_ones_and_the_next_tries_these_again(tmp_path: Path) -> None:
    bad = {3, 6, 9}
    source, out = write_files(tmp_path / "in", bad, FILES), tmp_path / "out"
    says = failing(source, out)
    assert says.startswith("3 of 10 parts could not be made; all others of this share are done.")
    for line, number in zip(says.splitlines()[1:], sorted(bad), strict=False):
        assert line.startswith(f"  {source}/{number:02}.parquet, row group 0, row 2 (row 2 of the file)")
    assert "run the command that began the job, with --accept-changes" in says and "scanrnn status" in says
    good = write_files(tmp_path / "good", set(), FILES)
    featurize(good, tmp_path / "undisturbed")
    whole = parts_in(tmp_path / "undisturbed")
    stands = parts_in(out)
    assert stands.keys() == {name for name in whole if int(name[5:10]) not in bad}
    assert lines_of(out, "failed") == sorted(bad)
    assert failing(source, out) == says  # the others are not begun again
    assert lines_of(out, "begin") == [*range(FILES), *sorted(bad)]
    assert parts_in(out) == stands
    features = features_of(tmp_path / "undisturbed").reshape(FILES, FILE_ROWS, H)
    assert features_of(out).tobytes() == np.delete(features, sorted(bad), axis=0).tobytes()


def test_status_tells_what_failed_until_it_is_done(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", {1, 2, 3, 4, 5, 6, 7}, 9), tmp_path / "out"
    failing(source, out)
    status = read_status(out)
    assert list(status.failed_units) == [1, 2, 3, 4, 5, 6, 7] and status.units_committed == 2
    text = str(status)
    assert "failed     7 parts" in text and "part 5: " in text and "and 2 more" in text and "part 6: " not in text
    assert all(f"0{unit}.parquet, row group 0, row 2" in why for unit, why in status.failed_units.items())
    assert json.loads(json.dumps(status.to_json()))["failed_units"]["7"] == status.failed_units[7]


def test_only_the_first_places_are_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undone, "MOST_TOLD", 2)
    says = failing(write_files(tmp_path / "in", {0, 1, 3}, 4), tmp_path / "out")
    assert "00.parquet" in says and "01.parquet" in says and "03.parquet" not in says and "1 more" in says


def test_every_place_is_a_line_whatever_a_name_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "two\nlines"
    folder.mkdir()
    source = write_files(folder, {0, 2}, 3)
    arguments = ["--hidden", str(H), "--rows-per-part", "4", "--devices", "8"]
    assert cli.run(["featurize", str(source), str(tmp_path / "out"), *arguments]) == 3
    first, *places, last = capsys.readouterr().err.strip().splitlines()[-4:]
    assert first.startswith("UndoneError: 2 of 3 parts could not be made") and "--accept-changes" in last
    assert [place.partition(", row")[0] for place in places] == [
        f"  {tmp_path}/two lines/{number:02}.parquet" for number in (0, 2)
    ]
    assert [worker.reason for worker in read_status(tmp_path / "out").workers] == [first]


def test_a_unit_that_fails_midway_leaves_nothing_and_its_neighbours_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryShares, "chunk", 1)
    hold(monkeypatch, read_ahead=1)
    rows: list[Any] = [row.tolist() for row in random_rows([40] * 60)]
    good = write_source(tmp_path / "good.parquet", rows)
    rows[33] = None
    source, out = write_source(tmp_path / "a.parquet", rows), tmp_path / "out"
    begun: list[int] = []
    write, failed = parts.WriteBehind._write, Attempt.failed

    def watched(self: Any, chunk: Any, features: Any) -> None:
        begun.append(chunk.unit.index)
        write(self, chunk, features)

    in_hand: list[tuple[int, bool]] = []

    def told(self: Attempt, unit: Unit, reason: str) -> None:
        rows = self.rows_in_hand[unit.index]
        failed(self, unit, reason)
        in_hand.append((rows, unit.index in self.rows_in_hand))

    monkeypatch.setattr(parts.WriteBehind, "_write", watched)
    monkeypatch.setattr(Attempt, "failed", told)
    finished: list[int] = []
    says = failing(source, out, rows_per_part=20, on_rows=finished.append)
    assert says.startswith("1 of 3 parts could not be made") and "row group 6, row 3 (row 33 of the file)" in says
    assert begun.count(1) > 0  # rows of the unit were written before it failed
    assert in_hand == [(begun.count(1), False)]
    assert sum(finished) == 40 + begun.count(1)  # what was told of the unit is not told again as rows of others
    featurize(good, tmp_path / "undisturbed", rows_per_part=20)
    whole = {name: content for name, content in parts_in(tmp_path / "undisturbed").items() if "00001" not in name}
    assert parts_in(out).keys() == whole.keys()
    assert features_of(out).tobytes() == np.delete(features_of(tmp_path / "undisturbed"), range(20, 40), 0).tobytes()


def test_rows_that_come_after_the_last_ones_of_their_unit_do_not_replace_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_source(tmp_path / "a.parquet", random_rows([4] * 12)), tmp_path / "out"
    write = parts.WriteBehind._write

    def twice(self: Any, chunk: Any, features: Any) -> None:
        write(self, chunk, features)
        if chunk.is_last:
            write(self, chunk, features)

    with monkeypatch.context() as patch:
        patch.setattr(parts.WriteBehind, "_write", twice)
        with pytest.raises(AssertionError, match="rows of unit 0 were put after its part was whole"):
            featurize(source, out)
    first = parts_in(out)
    report = featurize(source, out)
    assert len(first) == 1 and report.rows_before > 0 and report.rows_before + report.rows == 12
    assert parts_in(out).items() > first.items()


def test_a_file_that_cannot_be_opened_fails_all_its_units_and_no_other(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", set(), 3), tmp_path / "out"
    write_source(source / "01.parquet", random_rows([4] * 12), row_group_size=4)

    def on_start(*_: int) -> None:
        (source / "01.parquet").rename(tmp_path / "away")

    says = failing(source, out, on_start=on_start)
    assert says.startswith("3 of 5 parts could not be made") and says.count("01.parquet: cannot be read") == 3
    (tmp_path / "away").rename(source / "01.parquet")
    report = featurize(source, out)
    assert (report.rows, report.rows_before, report.is_complete) == (12, 8, True)


def test_a_unit_that_fails_after_its_part_was_lost_is_told_too(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", {0}, 3), tmp_path / "out"
    failing(source, out)
    path = source / "01.parquet"
    content, times = path.read_bytes(), path.stat().st_mtime_ns
    (out / "part-00001.parquet").unlink()
    path.write_bytes(bytes(len(content)))  # as a bad disk does: neither size nor time tells
    os.utime(path, ns=(times, times))
    says = failing(source, out)
    assert (
        says.startswith("2 of 3 parts could not be made")
        and says.count("\n  ") == 2
        and "01.parquet: cannot be read" in says
    )
    path.write_bytes(content)
    os.utime(path, ns=(times, times))
    says = failing(source, out)
    assert says.startswith("1 of 3 parts could not be made") and list(read_status(out).failed_units) == [0]
    assert (out / "part-00001.parquet").exists()


def test_a_wrong_initial_carry_fails_its_unit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryShares, "chunk", 1)
    rows = random_rows([4] * 15)
    carries = np.random.default_rng(1).normal(size=(15, H)).astype(np.float32).tolist()
    out = tmp_path / "out"
    good = write_source(tmp_path / "good.parquet", rows, carry=pa.array(carries, pa.list_(pa.float32())))
    carries[6] = carries[6][:2]
    source = write_source(tmp_path / "a.parquet", rows, carry=pa.array(carries, pa.list_(pa.float32())))
    says = failing(source, out, initial_carry="carry", rows_per_part=5)
    assert "row 1 (row 6 of the file): 'carry' holds 2 numbers" in says and says.startswith(
        "1 of 3 parts could not be made"
    )
    featurize(good, tmp_path / "undisturbed", initial_carry="carry", rows_per_part=5)
    whole = features_of(tmp_path / "undisturbed")
    assert features_of(out).tobytes() == np.delete(whole, range(5, 10), 0).tobytes()


def test_where_every_unit_fails_nothing_piles_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[Any] = [NAN] * 60
    source = write_source(tmp_path / "a.parquet", rows, row_group_size=1)
    hold(monkeypatch, read_ahead=2 * FailedUnit.nbytes, unwritten=2 * FailedUnit.nbytes)
    most = 0
    fail = parts.WriteBehind.fail

    def watched(self: Any, failed: FailedUnit) -> None:
        nonlocal most
        fail(self, failed)
        most = max(most, len(self._pending))

    monkeypatch.setattr(parts.WriteBehind, "fail", watched)
    with caplog.at_level(logging.WARNING, logger="scanrnn_dist"):
        says = failing(source, tmp_path / "out", rows_per_part=1)
    assert says.startswith("60 of 60 parts could not be made") and "40 more" in says
    assert len(says.splitlines()) == 2 + 20 + 1
    assert 0 < most <= 3
    assert len(caplog.records) == 3  # a wrong option is seen at once, and why
    assert "Part 2 cannot be made; all others are done first. " in caplog.text and "row group 2" in caplog.text
    assert len(read_status(tmp_path / "out").failed_units) == 60


def test_trouble_of_the_file_system_still_stops_the_job_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_files(tmp_path / "in", {1}, 6), tmp_path / "out"

    def full(self: Any, record: Any) -> None:
        raise StoppedError("the disk is full")

    with monkeypatch.context() as patched, pytest.raises(StoppedError, match="the disk is full"):
        patched.setattr(AttemptLog, "commit", full)
        featurize(source, out)
    assert lines_of(out, "unit") == []
    assert failing(source, out).startswith("1 of 6 parts could not be made")


def test_who_steals_does_the_shares_of_others_and_leaves_what_failed_there(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", {1, 8}, 10), tmp_path / "out"
    says = failing(source, out, sharing=Sharing((2, 2)))
    assert says.startswith("1 of 10 parts could not be made") and "01.parquet" in says
    told = failing(source, out, sharing=Sharing((1, 2), steal=True))
    # The share of one that stopped is taken over, and what failed there is tried once more.
    assert told.startswith("2 of 10 parts could not be made") and "01.parquet" in told and "08.parquet" in told
    assert sorted(lines_of(out, "unit")) == [0, 2, 3, 4, 5, 6, 7, 9]
    assert sorted(lines_of(out, "failed")) == [1, 1, 8]
    assert read_status(out).state == "stopped"


def test_who_steals_tells_of_blamed_parts_whoever_had_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_files(tmp_path / "in", set(), 4), tmp_path / "out"
    blamed = {3: Suspect(2, 1, "2 processes that worked on it ended with: a crash")}  # which is of share 2
    monkeypatch.setattr(commit_log, "suspects_of", lambda deaths: blamed)
    told = failing(source, out, sharing=Sharing((1, 2), steal=True))
    assert failing(source, out, sharing=Sharing((1, 2), steal=True)) == told and "The rows of part 3 end" in told
    assert sorted(lines_of(out, "unit")) == [0, 1, 2]


def test_a_share_in_which_nothing_failed_is_done_and_tells_of_the_others(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", {1}, 10), tmp_path / "out"
    failing(source, out, sharing=Sharing((2, 2)))
    report = featurize(source, out, sharing=Sharing((1, 2)))
    assert (report.units_left, report.failed_units, report.is_complete) == (1, 1, False)
    assert "1 part left to other processes, of which 1 failed there" in str(report)


def test_a_part_that_failed_after_its_last_row_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_files(tmp_path / "in", set(), 3), tmp_path / "out"
    whole = plan.read_chunks

    def more_than_promised(*given: Any, **options: Any) -> Any:
        chunks = whole(*given, **options)
        decode = chunks.__next__

        class Chunks:
            is_ready = property(lambda _: chunks.is_ready)

            def __init__(self) -> None:
                self.failed: list[FailedUnit] = []

            def __iter__(self) -> Any:
                return self

            def __next__(self) -> Any:
                if self.failed:
                    return self.failed.pop()
                chunk = decode()
                if chunk.unit.index == 1:
                    self.failed.append(FailedUnit(chunk.unit, "01.parquet delivered 5 rows and promised 4."))
                return chunk

            def close(self) -> None:
                chunks.close()

        return Chunks()

    with monkeypatch.context() as patched:
        patched.setattr(plan, "read_chunks", more_than_promised)
        assert "delivered 5 rows" in failing(source, out)
    assert lines_of(out, "unit") == [0, 1, 2]
    assert list(read_status(out).failed_units) == [1]
    assert featurize(source, out).rows == FILE_ROWS


def test_an_encoder_of_other_features_fails_every_unit_and_the_first_are_told_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_files(tmp_path / "in", set(), 5)
    with caplog.at_level(logging.WARNING, logger="scanrnn_dist"), pytest.raises(DataError, match=f"{D} features"):
        featurize(source, tmp_path / "out", encoder=encoder_of(in_features=4))
    assert caplog.text.count("cannot be made; all others are done first") == 3


def test_the_advice_fits_the_reasons(tmp_path: Path) -> None:
    rows = pa.array([[[0.1] * D]], pa.list_(pa.list_(pa.float64())))
    table = pa.table({"id": ["a"], "sequence": rows})
    (tmp_path / "in").mkdir()
    for number in range(2):
        pq.write_table(table, tmp_path / f"in/{number}.parquet")
    *_, advice = failing(tmp_path / "in", tmp_path / "out").splitlines()
    assert "--lossy-cast" in advice and "Mend" not in advice and "--restart" not in advice, "nothing is saved yet"
    assert featurize(tmp_path / "in", tmp_path / "out", lossy_cast=True).rows == 2
    shutil.rmtree(tmp_path / "out")
    exact = pa.array([[[0.5] * D]], rows.type)
    pq.write_table(table.set_column(1, "sequence", exact), tmp_path / "in/1.parquet")
    *_, advice = failing(tmp_path / "in", tmp_path / "out").splitlines()
    assert "--lossy-cast" in advice and "Mend" not in advice and advice.endswith("so add --restart.")
    assert "lists one place for each of these parts; a part may hold more bad rows." in advice


def test_to_leave_a_column_out_no_file_is_to_be_mended(tmp_path: Path) -> None:
    events = {"id": [1, 1, 2], "kind": ["a", "b", "a"], "x": pa.array([1, 2, 3], pa.float32())}
    (tmp_path / "in").mkdir()
    for number, kinds in enumerate((events["kind"], ["a"] * 3)):
        ids = [10 * number + id for id in (1, 1, 2)]
        pq.write_table(pa.table({**events, "id": ids, "kind": kinds}), tmp_path / f"in/{number}.parquet")
    how = {"group_by": ["id"], "column": None, "features": ["x"], "encoder": encoder_of(in_features=1)}
    with pytest.raises(UndoneError) as told:
        featurize(tmp_path / "in", tmp_path / "out", keep=["id", "kind"], **how)
    *_, place, advice = str(told.value).splitlines()
    assert place.endswith("leave it out of --keep.")
    assert advice.startswith("To leave columns out, run the command that began the job, with another --keep.")
    assert "Mend" not in advice and advice.endswith("add --restart.")
    assert featurize(tmp_path / "in", tmp_path / "out", keep=["id"], restart=True, **how).rows == 4
