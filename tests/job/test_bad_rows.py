"""Jobs over rows that are not what they should be: features, lists of rows set aside, counts, crashes and repairs.

What becomes of each row is said by `policies.py`, in plain Python.
"""

from __future__ import annotations

import io
import math
import re
import shutil
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from faults import Died, dies_at, full, watched
from policies import Made, Row, made_of
from s3_server import S3Server
from sources import (
    TOLERANCE,
    D,
    H,
    encoder_of,
    entries,
    features_of,
    featurize,
    leftovers,
    random_rows,
    stop_once_committed,
    write_source,
)

from scanrnn_dist import BadRows, quarantined
from scanrnn_dist.api.verification import verify
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import JobOptions, MemoryShares, Plan, Sharing, clean, compare_kept, read_status, set_aside
from scanrnn_dist.records import COMMITS, QUARANTINE, JobRecords, read_parts
from scanrnn_dist.source import Lengths
from scanrnn_dist.source.bad_rows import CHOICES
from scanrnn_dist.storage import open_store

NAN = math.nan
SKIP = BadRows("skip", "skip", "skip")
UNITS = 5
LIST = f"{QUARANTINE}/unit-0000{{}}.rows".format


@pytest.fixture(autouse=True)
def _many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryShares, "chunk", 100)  # of one or two rows


def good(seed: int, steps: int = 4) -> Any:
    return random_rows([steps], seed)[0].tolist()


def with_bad(seed: int, steps: int = 4, at: int = 2, value: float | None = NAN) -> Any:
    row = good(seed, steps)
    row[at][1] = value
    return row


ROWS: list[Row] = [
    None, good(1), with_bad(2), [], good(3, 1),  # a unit whose first row is bad
    good(4), [[1.0] * D, [2.0] * (D + 1)], with_bad(5, at=0), [None, *good(6, 1)], None,  # and one whose last is
    None, None, with_bad(7), None, with_bad(8, value=None),  # nothing but bad rows
    good(9), good(10), good(11), [], good(12, 9),  # none
    with_bad(13, 1, 0), [None, None], with_bad(14, 9, 8, math.inf), good(15, 9), with_bad(16, 9, 3, None),
]  # fmt: skip
"""Five units of five rows."""
BAD = 2 + 4 + 5 + 0 + 4
"""Rows that `SKIP` sets aside."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_rows(folder)
    return folder


def write_rows(folder: Path, rows: list[Row] = ROWS) -> None:
    half = len(rows) // 5 // 2 * 5
    names = pa.array([f"row {number}" for number in range(len(rows))], pa.string_view())
    for name, begin, end in (("a", 0, half), ("b", half, len(rows))):
        ids = pa.array(range(begin, end), pa.int64())
        write_source(folder / f"{name}.parquet", rows[begin:end], id=ids, reason=names[begin:end])


def made(bad_rows: BadRows, lengths: Lengths = Lengths(), rows: list[Row] = ROWS) -> list[Made]:  # noqa: B008
    return [made_of(row, D, bad_rows, lengths) for row in rows]


def counts_of(all_made: list[Made]) -> dict[str, int]:
    return dict(sum((Counter(one.counts) for one in all_made), Counter()))


def expected_of(rows: list[Any], in_features: int = D) -> np.ndarray:
    """The features of rows."""
    with np.errstate(over="ignore", invalid="ignore"):  # of values that are not finite
        return oracle.gru_rows(encoder_of(in_features=in_features).cell, rows)


def check(out: Path, all_made: list[Made]) -> None:
    """An output whose features are those of what becomes of each row, and which accounts for all."""
    table = pq.read_table(out)
    kept = [number for number, one in enumerate(all_made) if one.becomes != "skip"]
    assert table["id"].to_pylist() == kept
    is_null = [all_made[number].becomes == "null" for number in kept]
    assert table["features"].is_null().to_pylist() == is_null
    there = [np.float32(all_made[n].steps).reshape(-1, D) for n, null in zip(kept, is_null, strict=True) if not null]
    if there:
        features = table["features"].combine_chunks().drop_null().flatten().to_numpy().reshape(-1, H)
        expected = expected_of(there)
        assert np.array_equal(np.isnan(features), np.isnan(expected))
        assert np.nanmax(np.abs(features - expected), initial=0) <= TOLERANCE
    aside = quarantined(out)
    assert aside["id"].to_pylist() == [number for number, one in enumerate(all_made) if one.becomes == "skip"]
    for row in aside.to_pylist():
        one = all_made[row["id"]]
        assert (row["policy"], row["step"], row["kept.reason"]) == (one.policy, one.step, f"row {row['id']}")
        number = row["id"] if row["file"].endswith("a.parquet") else row["id"] - 10
        assert (row["row_group"], row["row"], row["file_row"]) == (number // 5, number % 5, number) and row["reason"]


COUNTED: Any = {"bad_value": "zero", "null_sequence": "null", "wrong_width": "skip"}
CASES: dict[str, tuple[BadRows, dict[str, Any]]] = {
    "skip": (SKIP, {}),
    "null": (BadRows(**COUNTED, empty_sequence="null"), {}),
    "drop-step": (BadRows(**COUNTED | {"bad_value": "drop-step"}, empty_sequence="skip"), {}),
    "forward-fill": (BadRows(**COUNTED | {"bad_value": "forward-fill"}), {"max_steps": 4}),
    "propagate": (BadRows(**COUNTED | {"bad_value": "propagate"}), {"max_steps": 4, "truncate": "tail"}),
    "tail": (BadRows(**COUNTED), {"max_steps": 1, "truncate": "tail"}),
    "lengths": (replace(SKIP, too_long="skip"), {"max_steps": 4, "min_steps": 4}),
    "short": (replace(SKIP, too_short="null", empty_sequence="skip"), {"min_steps": 4}),
}


@pytest.mark.parametrize("case", CASES)
def test_features_are_the_specifications_of_the_rows_as_the_policies_made_them(
    case: str, source: Path, tmp_path: Path
) -> None:
    bad_rows, options = CASES[case]
    report = featurize(source, tmp_path / "out", rows_per_part=5, bad_rows=bad_rows, **options)
    lengths = Lengths(options.get("min_steps", 0), options.get("max_steps"), options.get("truncate", "head"))
    all_made = made(bad_rows, lengths)
    check(tmp_path / "out", all_made)
    counts = counts_of(all_made)
    aside = sum(one.becomes == "skip" for one in all_made)
    assert (report.counts, report.set_aside, report.parts) == (counts, aside, UNITS)
    assert report.rows == len(ROWS) - aside
    status = read_status(tmp_path / "out")
    assert (status.counts, status.set_aside, status.rows_committed) == (counts, aside, len(ROWS))
    found = verify(tmp_path / "out", sample=100 if case == "null" else 0)
    assert (found.rows, found.set_aside) == (report.rows, aside)
    assert found.sampled == found.rows_compared == (report.rows if case == "null" else 0)
    assert ("set aside, in" in str(report)) == (aside > 0)
    again = featurize(source, tmp_path / "out", rows_per_part=5, bad_rows=bad_rows, **options)
    assert again.rows_before == report.rows and not again.parts and "Nothing to do" in str(again)


def test_a_unit_of_nothing_but_bad_rows_is_a_part_without_rows_that_can_be_read(finished: Path) -> None:
    part = pq.read_table(finished / "part-00002.parquet")
    assert len(part) == 0 and part.schema == pq.read_schema(finished / "part-00000.parquet")
    assert pq.read_metadata(finished / LIST(2)).num_rows == 5
    assert not (finished / LIST(3)).exists()  # which has no bad row
    assert not [name for name in entries(finished / "__scanrnn") if name.endswith(".parquet")]


def test_without_choices_a_bad_row_fails_its_unit_as_ever(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 of 5 parts could not be made") as caught:
        featurize(source, tmp_path / "out", rows_per_part=5)
    assert "a.parquet, row group 0, row 0 (row 0 of the file): the sequence is null" in str(caught.value)


def test_messages_name_the_step_and_row_of_the_source_after_others_were_left_out(tmp_path: Path) -> None:
    rows: list[Row] = [None, [None, *good(1, 2)], with_bad(2, 5, 3)]
    write_rows(tmp_path / "in", rows)
    dropped = BadRows("drop-step", "skip")
    carries = pa.array([[0.0] * H, [0.0] * H, [NAN] * H], pa.list_(pa.float32()))
    write_source(tmp_path / "own.parquet", rows, carry=carries)
    with pytest.raises(DataError, match=r"row 2 \(row 2 of the file\), column 'carry', step 0: feature 0 is nan"):
        featurize(tmp_path / "own.parquet", tmp_path / "out", column="sequence", bad_rows=dropped,
                  initial_carry="carry")  # fmt: skip
    with pytest.raises(DataError, match=r"row 1 \(row 1 of the file\): the sequence has 2 steps; expected at least 3"):
        featurize(tmp_path / "in", tmp_path / "out2", bad_rows=replace(dropped, too_short="error"), min_steps=3)


def test_own_carries_stay_with_their_rows(tmp_path: Path) -> None:
    rows: list[Row] = [None, good(1), with_bad(2), good(3), []]
    carries = np.random.default_rng(0).normal(size=(5, H)).astype(np.float32)
    path = write_source(tmp_path / "in.parquet", rows, carry=pa.array(carries.tolist(), pa.list_(pa.float32())))
    rest, options = [1, 3, 4], {"initial_carry": "carry", "column": "sequence"}
    featurize(path, tmp_path / "out", bad_rows=SKIP, **options)
    alone = write_source(tmp_path / "good.parquet", [rows[n] for n in rest],
                         carry=pa.array(carries[rest].tolist(), pa.list_(pa.float32())))  # fmt: skip
    featurize(alone, tmp_path / "expected", **options)
    got, expected = (pq.read_table(tmp_path / name)["features"] for name in ("out", "expected"))
    assert got.equals(expected) and verify(tmp_path / "out", sample=9).sampled == 3


@pytest.mark.parametrize("unread", [None, [], [NAN] * H])
def test_rows_whose_features_are_null_need_no_carry(unread: Any, tmp_path: Path) -> None:
    rows: list[Row] = [good(1), None, good(3), with_bad(2)]
    carries = [[0.5] * H, unread, [0.25] * H, [0.75] * H]
    path = write_source(tmp_path / "in.parquet", rows, carry=pa.array(carries, pa.list_(pa.float32())))
    options: dict[str, Any] = {"initial_carry": "carry", "column": "sequence"}
    featurize(path, tmp_path / "out", bad_rows=BadRows("skip", "null"), **options)
    alone = write_source(tmp_path / "good.parquet", [rows[0], rows[2]],
                         carry=pa.array([carries[0], carries[2]], pa.list_(pa.float32())))  # fmt: skip
    featurize(alone, tmp_path / "expected", **options)
    got, expected = (pq.read_table(tmp_path / name)["features"].to_pylist() for name in ("out", "expected"))
    assert got == [expected[0], None, expected[1]] and verify(tmp_path / "out", sample=9).sampled == 3


def test_a_carry_that_is_null_is_told_by_its_row_of_the_source(tmp_path: Path) -> None:
    carries = pa.array([None, None, [0.5] * H, None], pa.list_(pa.float32()))
    path = write_source(tmp_path / "in.parquet", [None, with_bad(2), good(1), good(3)], carry=carries)
    with pytest.raises(DataError, match=rf"row 3 \(row 3 of the file\): 'carry' is null; expected a list of {H}"):
        featurize(path, tmp_path / "out", column="sequence", bad_rows=BadRows("skip", "null"), initial_carry="carry")


def test_outputs_of_all_steps_are_those_of_the_steps_that_are_left(tmp_path: Path) -> None:
    rows: list[Row] = [None, good(1, 9), [None, *good(2, 1)], [], with_bad(3)]
    path = write_source(tmp_path / "in.parquet", rows)
    encoder = Encoder(encoder_of().cells[0], readout="steps")
    bad_rows = BadRows("drop-step", "null")
    featurize(path, tmp_path / "out", encoder, bad_rows=bad_rows, max_steps=4, truncate="tail")
    lists = pq.read_table(tmp_path / "out")["features"]
    all_made = made(bad_rows, Lengths(0, 4, "tail"), rows)
    lengths = [None if one.becomes == "null" else len(one.steps) for one in all_made]
    assert [None if row is None else len(row) for row in lists.to_pylist()] == lengths == [None, 4, 1, 0, 3]
    steps = [np.float32(step) for row in lists.to_pylist() for step in row or ()]
    begun = [np.float32(one.steps[: end + 1]) for one in all_made for end in range(len(one.steps))]
    assert np.abs(np.stack(steps) - expected_of(begun)).max() <= TOLERANCE
    assert verify(tmp_path / "out", sample=9).sampled == len(rows)


# What may happen to a job ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a job that nothing happened to; to be copied and not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    featurize(source, out, rows_per_part=5, bad_rows=SKIP)  # in large chunks, which changes no byte
    return out


@pytest.fixture(scope="module")
def undisturbed(finished: Path) -> dict[str, bytes | None]:
    return output_of(finished)


def output_of(out: Path) -> dict[str, bytes | None]:
    """The parts and the lists, byte by byte."""
    return {name: it for name, it in entries(out).items() if name.startswith("part-") or name.endswith(".rows")}


@pytest.mark.parametrize(("kind", "name"), [("rename", LIST(1)), ("rename", "part-00001.parquet")])
def test_a_job_that_dies_between_the_list_and_the_part_goes_on(
    kind: str, name: str, source: Path, undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    with pytest.raises(Died):
        featurize(source, watched(tmp_path / "out", dies_at(kind, name)), rows_per_part=5, bad_rows=SKIP)
    left = output_of(tmp_path / "out")
    assert left.items() <= undisturbed.items() and len(left) < len(undisturbed)
    stand = {name for name in left if name.startswith("part-")}
    assert {LIST(int(part[9])) for part in stand} - {LIST(3)} <= left.keys()  # no part without its list
    committed = read_status(tmp_path / "out")
    assert len(quarantined(tmp_path / "out")) == committed.set_aside
    report = featurize(source, tmp_path / "out", rows_per_part=5, bad_rows=SKIP)
    assert output_of(tmp_path / "out") == undisturbed
    check(tmp_path / "out", made(SKIP))
    assert read_status(tmp_path / "out").set_aside == report.set_aside + committed.set_aside == BAD
    assert verify(tmp_path / "out", sample=0).set_aside == BAD


def test_a_full_disk_leaves_no_list_aside(source: Path, tmp_path: Path) -> None:
    def told(kind: str, name: str) -> None:
        if (kind, name) == ("write", LIST(1)):
            full()

    with pytest.raises(StoppedError, match=r"unit-00001\.rows could not be written"):
        featurize(source, watched(tmp_path / "out", told), rows_per_part=5, bad_rows=SKIP)
    assert not leftovers(tmp_path / "out")


def test_shares_and_a_job_that_was_stopped_tell_of_all(
    source: Path, undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, bad_rows=SKIP, on_rows=stop_once_committed(out, 5),
                  sharing=Sharing((1, 2)))  # fmt: skip
    reports = [featurize(source, out, rows_per_part=5, bad_rows=SKIP, sharing=Sharing((k, 2))) for k in (2, 1)]
    assert reports[-1].is_complete and output_of(out) == undisturbed
    status = read_status(out)
    assert (status.set_aside, status.counts) == (BAD, counts_of(made(SKIP)))
    assert 0 < sum(report.set_aside for report in reports) <= BAD
    assert status.to_json()["counts"] == status.counts
    assert f"{BAD} of these rows were set aside" in str(status)


def test_lists_that_are_missing_or_changed_are_seen_and_made_again(
    source: Path, undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=5, bad_rows=SKIP)
    (out / LIST(0)).unlink()
    content = (out / LIST(4)).read_bytes()
    (out / LIST(4)).write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(
        DataError, match=r"part-00000\.parquet has a list of 2 rows set aside that is missing or changed"
    ):
        verify(out, sample=0)
    with pytest.raises(DataError, match=r"unit-00000\.rows cannot be read: .* Expected 2 rows that were set aside"):
        quarantined(out)
    assert verify(out, repair=True).repaired == ("part-00000.parquet", "part-00004.parquet")
    assert output_of(out) == undisturbed and verify(out, sample=0).set_aside == BAD


def test_rows_that_nobody_accounts_for_are_seen(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=5, bad_rows=SKIP)
    records = JobRecords(open_store(out))
    totals, content = records.read_success()
    parts = read_parts(content, "")
    aside = pa.array([max(0, number - 1) for number in parts["aside"].to_pylist()])
    forged = io.BytesIO()
    pq.write_table(parts.set_column(parts.column_names.index("aside"), "aside", aside), forged)
    records.write_success(forged.getvalue(), {name: it for name, it in totals.items() if name != "parts_sha256"})
    with pytest.raises(
        DataError, match="part 0 comes from 5 rows of the source, but 4 are in it, set aside, or left out"
    ):
        verify(out, sample=0)


def test_kept_columns_are_held_against_the_rows_that_became_sequences(finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    path = out / "part-00001.parquet"
    table = pq.read_table(path)
    assert table["id"].to_pylist() == [5]
    records = JobRecords(open_store(out))
    plan = Plan.from_records(records.read_plan(records.read_job()))
    options = JobOptions(keep=plan.keep, bad_rows=SKIP).settled(plan.layout, plan.keep, 5)
    for number, message in ((5, None), (6, "'id' differs")):
        pq.write_table(table.set_column(0, table.schema.field(0), pa.array([number], pa.int64())), path)
        with nullcontext() if message is None else pytest.raises(DataError, match=message):
            assert compare_kept(records.store, plan, {1: 1}, options.reading(D, None, chunk_bytes=100)) == 1
    with pytest.raises(DataError, match="does not hold as many rows"):
        pq.write_table(pa.concat_tables([table, table]), path)
        compare_kept(records.store, plan, {1: 2}, options.reading(D, None))


def test_lists_move_with_their_units_when_the_source_changes(tmp_path: Path) -> None:
    write_rows(tmp_path / "in")
    out = tmp_path / "out"
    featurize(tmp_path / "in", out, rows_per_part=5, bad_rows=SKIP)
    rows = [*ROWS[:5], *[good(7)] * 5]
    ids = pa.array(range(10), pa.int64())
    names = pa.array([f"row {number}" for number in range(10)], pa.string_view())
    write_source(tmp_path / "in/a.parquet", rows, id=ids, reason=names)  # the last unit of it is mended
    write_source(tmp_path / "in/a0.parquet", [None] * 5, id=pa.array(range(100, 105)), reason=names[:5])
    report = featurize(tmp_path / "in", out, rows_per_part=5, bad_rows=SKIP, accept_changes=True)
    assert (report.parts, report.set_aside) == (3, 2 + 5)
    featurize(tmp_path / "in", tmp_path / "anew", rows_per_part=5, bad_rows=SKIP)
    assert output_of(out) == output_of(tmp_path / "anew")
    assert quarantined(out).equals(quarantined(tmp_path / "anew"))
    assert verify(out, sample=0).set_aside == len(quarantined(out)) == 2 + 5 + 5 + 4
    assert not clean(out, dry_run=True).names[1:]  # the lock alone


# The numbers of the units change, or they do not.
@pytest.mark.parametrize(("lost", "new"), [("a list", "a0"), ("all lists", "c")])
def test_a_unit_whose_list_is_lost_is_made_again_when_the_source_changes(tmp_path: Path, lost: str, new: str) -> None:
    write_rows(tmp_path / "in")
    out, asked = tmp_path / "out", {"rows_per_part": 5, "bad_rows": SKIP}
    featurize(tmp_path / "in", out, **asked)
    (out / LIST(4)).unlink() if lost == "a list" else shutil.rmtree(out / QUARANTINE)
    reason = pa.array(["new"], pa.string_view())
    write_source(tmp_path / f"in/{new}.parquet", [good(7)], id=pa.array([100]), reason=reason)
    report = featurize(tmp_path / "in", out, **asked, accept_changes=True)
    assert report.parts == 1 + (1 if lost == "a list" else 4)
    featurize(tmp_path / "in", tmp_path / "anew", **asked)
    assert output_of(out) == output_of(tmp_path / "anew") and verify(out, sample=0).set_aside == BAD


def test_a_restart_has_lists_of_its_own(source: Path, undisturbed: dict[str, bytes | None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    featurize(source, out, rows_per_part=10, bad_rows=SKIP)
    with pytest.raises(ConfigError, match=r"null_sequence was skip and is null"):
        featurize(source, out, rows_per_part=10, bad_rows=replace(SKIP, null_sequence="null"))
    featurize(source, out, rows_per_part=5, bad_rows=SKIP, restart=True)
    assert output_of(out) == undisturbed and verify(out, sample=0).set_aside == BAD
    featurize(source, out, rows_per_part=5, bad_rows=BadRows("zero", "null", "skip"), restart=True)
    assert [name for name in output_of(out) if name.endswith(".rows")] == [LIST(1)]


def test_a_list_of_nobody_is_cleaned_and_no_job_of_other_options_keeps_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Died):
        featurize(source, watched(out, dies_at("rename", "part-00000.parquet")), rows_per_part=5, bad_rows=SKIP)
    shutil.copytree(out, tmp_path / "other")
    assert LIST(0) in output_of(out) and not len(quarantined(out))
    assert LIST(0) in clean(out).names and LIST(0) not in output_of(out)
    featurize(source, tmp_path / "other", rows_per_part=5, bad_rows=BadRows("zero", "null", "skip"))
    assert [name for name in output_of(tmp_path / "other") if name.endswith(".rows")] == [LIST(1)]


def test_clean_keeps_the_parts_of_a_finished_job_whose_logs_are_gone(
    finished: Path, undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    shutil.rmtree(out / COMMITS)
    (out / LIST(3)).write_bytes(b"of nobody")
    assert LIST(3) in clean(out).names and output_of(out) == undisturbed
    assert verify(out, sample=0).set_aside == BAD


def test_too_many_bad_rows_end_the_job_which_goes_on_with_a_higher_number(source: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", {"rows_per_part": 5, "bad_rows": SKIP}
    message = r"6 rows were set aside, and --max-bad-rows allows 4\. They are listed in .*/__scanrnn/quarantine"
    with pytest.raises(DataError, match=message):
        featurize(source, out, max_bad_rows=4, **options)
    assert len(quarantined(out)) == 6 and not (out / "_SUCCESS").exists()
    with pytest.raises(DataError, match=message):
        featurize(source, out, max_bad_rows=4, **options)
    with pytest.raises(DataError, match=message):
        sources.resume(out)  # the bound is among the records
    assert read_status(out).units_committed == 2  # nothing was done
    assert read_status(out).continues.endswith(" it, with a --max-bad-rows of 6 or more: so many are set aside by now")
    with pytest.raises(DataError, match=f"{BAD} rows were set aside, and --max-bad-rows allows {BAD - 1}"):
        featurize(source, out, max_bad_rows=BAD - 1, **options)
    status = read_status(out)
    assert status.units_committed == UNITS and f"of {BAD} or more" in str(status) and not (out / "_SUCCESS").exists()
    report = featurize(source, out, max_bad_rows=BAD, **options)
    assert report.is_complete and not report.parts
    check(out, made(SKIP))
    with pytest.raises(ConfigError, match="max_bad_rows is -1"):
        featurize(source, out, max_bad_rows=-1, **options)


def test_a_restart_with_too_many_bad_rows_says_where_they_can_be_read(source: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", {"rows_per_part": 5, "bad_rows": SKIP, "restart": True}
    featurize(source, out, rows_per_part=10, bad_rows=SKIP)
    with pytest.raises(DataError, match="6 rows were set aside") as told:
        featurize(source, out, max_bad_rows=4, **options)
    folder = re.findall(r"srd\.quarantined\('(.*)'\) reads", str(told.value))[0]
    assert len(quarantined(folder)) == 6 and len(quarantined(out)) == BAD
    status = read_status(folder)
    assert status.destination == folder and status.units_committed == 2 and status.set_aside == 6
    assert "resume" not in str(status)
    assert "the command that began it, with --restart, with a --max-bad-rows of 6" in str(status)
    assert verify(folder).set_aside == 6
    kept = output_of(out)
    for write in (
        lambda: featurize(source, folder, bad_rows=SKIP),
        lambda: sources.resume(folder),
        lambda: verify(folder, repair=True),
        lambda: clean(folder),
    ):
        with pytest.raises(ConfigError, match="lies among the records of a job"):
            write()
    assert output_of(out) == kept
    (tmp_path / "out/__scanrnn/restart" / LIST(0)).unlink()
    for read in (quarantined, verify):
        with pytest.raises(DataError, match=r"Remove .*/__scanrnn/restart and repeat the command that began it"):
            read(folder)


def test_rows_set_aside_are_told_with_kept_columns_of_any_type(tmp_path: Path) -> None:
    uuids = pa.nulls(2, pa.list_(pa.uuid()))
    source = write_source(tmp_path / "in.parquet", [good(1), with_bad(2)], uuids=uuids)
    featurize(source, tmp_path / "out", bad_rows=SKIP)
    assert quarantined(tmp_path / "out").select(["id", "uuids"]).to_pylist() == [{"id": 1, "uuids": None}]


def test_rows_set_aside_are_not_read_while_another_output_takes_the_place(
    source: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    options = {"rows_per_part": 5, "bad_rows": replace(SKIP, null_sequence="null"), "restart": True}
    read = set_aside.recorded_parts

    def then_restarted(*given: Any) -> Any:
        featurize(source, out, **options)
        return read(*given)

    with monkeypatch.context() as patched, pytest.raises(StoppedError, match="does not hold the job any more"):
        patched.setattr(set_aside, "recorded_parts", then_restarted)
        quarantined(out)
    with pytest.raises(Died):
        featurize(
            source, watched(out, dies_at("rename", "part-00000.parquet")), rows_per_part=5, bad_rows=SKIP, restart=True
        )
    with pytest.raises(StoppedError, match=r"is being replaced by a new output.*then read the rows"):
        quarantined(out)


def test_kept_columns_of_extension_types_within_lists_are_listed(tmp_path: Path) -> None:
    pairs = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2]), pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))
    )
    lists = pa.ListArray.from_arrays([0, 1, 2], pairs)
    path = write_source(tmp_path / "in.parquet", [good(1), None], pairs=lists)
    featurize(path, tmp_path / "out", column="sequence", bad_rows=SKIP)
    assert quarantined(tmp_path / "out")["pairs"].combine_chunks().equals(lists[1:])


def test_choices_about_nothing_are_refused(source: Path, tmp_path: Path) -> None:
    for wrong in ({"truncate": "tail"}, {"bad_rows": BadRows(too_long="skip")}):
        with pytest.raises(ConfigError, match="--max-steps"):
            featurize(source, tmp_path / "out", **wrong)
    with pytest.raises(ConfigError, match="--min-steps"):
        featurize(source, tmp_path / "out", bad_rows=BadRows(too_short="null"))


def test_lists_in_a_bucket(s3: S3Server, source: Path, undisturbed: dict[str, bytes | None]) -> None:
    out = s3.uri("bucket/out")
    featurize(source, out, rows_per_part=5, bad_rows=SKIP)
    assert verify(out, sample=0).set_aside == len(quarantined(out)) == BAD
    found = {name: s3.get("bucket", f"out/{name}") for name in undisturbed if name.endswith(".rows")}
    assert found.items() <= undisturbed.items()


@pytest.mark.parametrize("choice", ["error", "skip"])
def test_files_whose_steps_are_of_several_fixed_sizes(choice: str, tmp_path: Path) -> None:
    good: list[Row] = [row.tolist() for row in random_rows([4, 0, 1])]
    files: list[list[Row]] = [[*good, [None]], [[], [[1.0] * (D + 1)] * 2, None, [None]], [[[1.0] * (D - 1)]]]
    for number, (rows, width) in enumerate(zip(files, (D, D + 1, D - 1), strict=True)):
        sequence = pa.array(rows, pa.list_(pa.list_(pa.float32(), width)))
        ids = pa.array([10 * number + nth for nth in range(len(rows))], pa.int64())
        pq.write_table(pa.table({"sequence": sequence, "id": ids}), tmp_path / f"{number}.parquet")
    source, out = tmp_path / "*.parquet", tmp_path / "out"
    bad_rows = BadRows("skip", "skip", choice)
    if choice == "error":
        with pytest.raises(DataError, match=rf"{D + 1} features; expected {D}, .*\(--wrong-width\)"):
            featurize(source, out, bad_rows=bad_rows)
        return
    report = featurize(source, out, bad_rows=bad_rows)
    assert report.counts == counts_of(made(bad_rows, rows=[row for rows in files for row in rows]))
    assert pq.read_table(out)["id"].to_pylist() == [0, 1, 2, 10]
    aside = [("bad_value", 3), ("wrong_width", 11), ("null_sequence", 12), ("bad_value", 13), ("wrong_width", 20)]
    told = quarantined(out)
    assert [*zip(told["policy"].to_pylist(), told["id"].to_pylist(), strict=True)] == aside
    expected = expected_of([np.float32(row).reshape(-1, D) for row in (*good, [])])
    assert np.abs(features_of(out) - expected).max() <= TOLERANCE and verify(out).set_aside == 5


# Real data ------------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_real_recordings_of_unwanted_lengths_are_cut_at_their_head_or_listed(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "japanese_vowels"
    rows = [row for path in sorted(source.rglob("*.parquet")) for row in pq.read_table(path)["sequence"].to_pylist()]
    bad_rows, lengths = BadRows(), Lengths(12, 13, "tail")
    all_made = [made_of(row, 12, bad_rows, lengths) for row in rows]
    out, encoder = tmp_path / "out", encoder_of(in_features=12)
    report = featurize(source, out, encoder, min_steps=12, max_steps=13, truncate="tail")
    kept = [np.float32(one.steps) for one in all_made if one.becomes == "row"]
    assert report.counts == counts_of(all_made) and report.set_aside == len(rows) - len(kept) > 20
    assert np.abs(features_of(out) - expected_of(kept, 12)).max() <= TOLERANCE
    aside = quarantined(out)
    assert set(aside["policy"].to_pylist()) == {"too_short"} and {"train", "test"} >= set(aside["split"].to_pylist())
    assert verify(out, sample=8).set_aside == len(aside) == report.set_aside


@pytest.mark.parametrize(
    "choice",
    [pytest.param(it, marks=[pytest.mark.soak] * (it not in ("skip", "propagate"))) for it in CHOICES["bad_value"][1:]],
)
def test_a_null_in_a_list_that_another_writer_wrote(choice: str, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "layouts/list_columns.parquet"
    rows = [[[value] for value in row] for row in pq.read_table(path)["int64_list"].to_pylist()]
    bad_rows, out = BadRows(choice), tmp_path / "out"
    featurize(path, out, encoder_of(in_features=1), column="int64_list", bad_rows=bad_rows)
    all_made = [made_of(row, 1, bad_rows, Lengths()) for row in rows]
    expected = expected_of([np.float32(one.steps) for one in all_made if one.becomes == "row"], 1)
    features = features_of(out)
    assert len(features) == 3 - (choice == "skip")
    assert np.array_equal(np.isnan(features), np.isnan(expected)) and np.isnan(features).any() == (
        choice == "propagate"
    )
    assert np.nanmax(np.abs(features - expected)) <= TOLERANCE
