"""What a report counts: rows per second, features that say nothing, the map, and the sample that all this is of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import ODD, SOME
from sources import H, entries, features_of, featurize, random_rows, stop_once_committed, write_source

from scanrnn_dist import BadRows
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, StoppedError
from scanrnn_dist.records import JobRecords, read_commits
from scanrnn_dist.report import page, read_numbers, sample
from scanrnn_dist.report.features import map_of, numbers_of
from scanrnn_dist.report.lengths import RETRY_SECONDS
from scanrnn_dist.report.plots import groups_of
from scanrnn_dist.report.sample import read_sample
from scanrnn_dist.report.throughput import Attempt, attempts_of, throughput_of
from scanrnn_dist.storage import LocalStore, open_store

ROWS = 40


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of 8 parts, in two attempts."""
    folder = tmp_path_factory.mktemp("report")
    kinds = {"name": [f"row {row}" for row in range(ROWS)], "kind": [("a", "b", None)[row % 3] for row in range(ROWS)]}
    columns = {name: pa.array(values) for name, values in kinds.items()}
    source = write_source(folder / "a.parquet", random_rows([4] * ROWS), **columns, number=pa.array(range(ROWS)))
    with pytest.raises(StoppedError):
        featurize(source, folder / "out", rows_per_part=5, on_rows=stop_once_committed(folder / "out", 10))
    featurize(source, folder / "out", rows_per_part=5)
    return folder / "out"


def attempt(name: str, started: float, *commits: tuple[float, float, float]) -> Attempt:
    return Attempt(name, started, np.array(commits, np.float64).reshape(-1, 3))


def test_a_report_counts_what_the_parts_hold_and_changes_nothing(out: Path) -> None:
    before = entries(out)
    numbers = read_numbers(out)
    assert entries(out) == before
    assert (numbers.status.state, numbers.status.rows_committed, numbers.sample.parts) == ("complete", ROWS, 8)
    np.testing.assert_array_equal(numbers.sample.features, features_of(out))
    np.testing.assert_allclose(numbers.features.mean, features_of(out).mean(0, dtype=np.float64))
    assert numbers.map is not None and numbers.map.places.shape == (ROWS, 2)
    first, second = numbers.throughput.attempts
    assert first.rows + second.rows == ROWS and first.rows >= 5 and first.started < second.started
    assert numbers.work.attempts == 2 and numbers.work.took.steps == 4 * second.rows
    assert numbers.work.occupancy is not None and 0.1 < numbers.work.occupancy <= 1
    shares = [stage.share for stage in numbers.work.stages]
    assert sum(shares) == pytest.approx(1, abs=0.01) and numbers.work.took.seconds > 0
    assert numbers.lengths.is_whole and numbers.lengths.counts.counts.tolist() == [ROWS] and numbers.aside == ()
    assert numbers.environment["jax"] and numbers.environment["kernel"] in ("native", "xla")
    work = numbers.throughput.edges[1]
    np.testing.assert_allclose(numbers.throughput.rates.sum(1) * work, [first.rows, second.rows], rtol=1e-3)


def test_rows_are_coloured_by_the_first_column_of_few_texts_or_by_the_one_that_is_named(out: Path) -> None:
    sample = read_numbers(out).sample
    assert (sample.colour, sample.values[:4]) == ("kind", ("a", "b", None, "a")), "'name' has too many"
    assert read_numbers(out, "number").sample.values == tuple(range(ROWS))
    with pytest.raises(ConfigError, match=r"'nope', which is no column .* expected one of .*kind"):
        read_numbers(out, "nope")
    with pytest.raises(ConfigError, match="'features'"):
        read_numbers(out, "features")


def test_the_first_column_of_few_texts_is_found_behind_any_number_of_others(tmp_path: Path) -> None:
    texts = {f"name {nth}": pa.array([f"row {row}" for row in range(ROWS)]) for nth in range(12)}
    columns = {**texts, "kind": pa.array(["a", "b"] * (ROWS // 2)), "other": pa.array(["c"] * ROWS)}
    featurize(write_source(tmp_path / "a.parquet", random_rows([4] * ROWS), **columns), tmp_path / "out")
    sample = read_numbers(tmp_path / "out").sample
    assert (sample.colour, sample.values) == ("kind", ("a", "b") * (ROWS // 2))


@pytest.mark.parametrize("name", SOME)
def test_values_that_python_does_not_have_colour_rows(tmp_path: Path, name: str) -> None:
    source = write_source(tmp_path / "a.parquet", random_rows([4] * 3), odd=ODD[name])
    featurize(source, tmp_path / "out")
    sample = read_numbers(tmp_path / "out", "odd").sample
    names, which = groups_of(sample)
    assert sample.values[2] is None and "(null)" in names and names[which[0]] == str(sample.values[0])
    assert read_numbers(tmp_path / "out").sample.colour == ("odd" if "text" in name else "")


def test_a_sample_is_bounded_and_of_the_whole_output(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanrnn_dist.report.sample.MOST_PARTS", 3)
    monkeypatch.setattr("scanrnn_dist.report.sample.read_sample.__defaults__", (4,), raising=False)
    sample = read_numbers(out, "number").sample
    assert sample.parts == 3 and sample.values == (0, 1, 15, 16), "of the parts 0, 3 and 7, two rows of each"


def test_of_a_part_that_cannot_be_read_the_reason_is_told(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name, content in entries(out).items():
        path = copy / name
        path.mkdir(parents=True) if content is None else path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(b"damaged" if name == "part-00002.parquet" else content)
    (copy / "part-00005.parquet").unlink()
    numbers = read_numbers(copy)
    assert numbers.status.state == "damaged" and numbers.sample.parts == 6
    assert len(numbers.sample.problems) == 1 and "part-00002.parquet cannot be read" in numbers.sample.problems[0]


def refuse(monkeypatch: pytest.MonkeyPatch, where: str, opened: range = range(0)) -> None:
    """Let a disk refuse some files, all but those that are opened so early."""
    open_input, calls = LocalStore.open_input, iter(range(10**9))

    def refusing(store: LocalStore, name: str) -> Any:
        if where in name and next(calls) not in opened:
            raise StoppedError(f"{name} could not be read: Input/output error.")
        return open_input(store, name)

    monkeypatch.setattr(LocalStore, "open_input", refusing)


def test_of_a_part_that_the_disk_refuses_the_reason_is_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "part-00000")
    found = read_numbers(out).sample
    assert found.parts == 7 and found.problems == ("part-00000.parquet could not be read: Input/output error.",)


def test_a_disk_that_gives_nothing_any_more_is_not_asked_for_each_part(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "part-", opened=range(1))  # the schema
    with pytest.raises(StoppedError, match="part-00002"):
        read_numbers(out)


def test_a_job_without_any_part_has_a_report(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", random_rows([]))
    featurize(source, tmp_path / "out")
    numbers = read_numbers(tmp_path / "out")
    assert (numbers.features.rows, numbers.map, numbers.throughput.names) == (0, None, ())


def test_rows_that_were_set_aside_are_shown_with_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [None if row % 5 == 2 else sequence for row, sequence in enumerate(random_rows([3] * 200))]
    source = write_source(tmp_path / "a.parquet", rows, row_group_size=50)
    skipping = BadRows(null_sequence="skip")
    featurize(source, tmp_path / "out", rows_per_part=50, bad_rows=skipping)
    aside = read_numbers(tmp_path / "out").aside
    assert [row.row for row in aside] == list(range(2, 100, 5)) and aside[0].policy == "null_sequence"
    assert aside[0].file == str(source) and "null" in aside[0].reason
    for name in (tmp_path / "out/__scanrnn/quarantine").iterdir():
        name.write_bytes(b"damaged")
    assert all("cannot be read" in row.reason for row in read_numbers(tmp_path / "out").aside)
    refuse(monkeypatch, "quarantine")
    assert all("could not be read" in row.reason for row in read_numbers(tmp_path / "out").aside)


@pytest.mark.parametrize("last", [4, 0])
def test_rows_that_a_filter_leaves_out_are_told(tmp_path: Path, last: int) -> None:
    out = tmp_path / "out"
    report = featurize(write_source(tmp_path / "a.parquet", random_rows([3] * 10)), out, filter=f"id < {last}")
    assert (report.rows, report.filtered) == (last, 10 - last) and f"{10 - last} rows left out by --filter" in str(
        report
    )
    status = read_numbers(out).status
    assert status.filtered == 10 - last and f"filtered   {10 - last} of these rows" in str(status)
    pytest.importorskip("plotly", reason="The page needs plotly: install the extra 'report'.")
    told = page.page_of(read_numbers(out))
    assert f"<dt>rows filtered</dt><dd>{10 - last}</dd>" in told
    assert ("The saved parts have no rows." in told) == (not last) and "saved yet" not in told


def test_lengths_are_told_unless_the_source_is_gone(tmp_path: Path) -> None:
    lengths = [1, 2, 2, 7, 0, 40]
    source = write_source(tmp_path / "a.parquet", random_rows(lengths))
    featurize(source, tmp_path / "out", max_steps=3)
    before = read_numbers(tmp_path / "out")
    assert before.lengths.counts.lengths.tolist() == sorted(set(lengths)) and before.lengths.is_whole
    source.unlink()
    gone = read_numbers(tmp_path / "out").lengths
    assert "a.parquet" in gone.problem and not gone.counts.bars()
    assert read_numbers(tmp_path / "out", before=before).lengths is before.lengths


def test_lengths_are_read_again_where_they_could_not_be_or_were_of_another_job(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "a.parquet", random_rows([1, 2])), tmp_path / "out"
    featurize(source, out)
    source.rename(tmp_path / "away.parquet")
    before = read_numbers(out)
    (tmp_path / "away.parquet").rename(source)
    assert before.lengths.problem and read_numbers(out, before=before).lengths is before.lengths  # so soon
    minute_ago = replace(before.lengths, again_at=before.lengths.again_at - RETRY_SECONDS)
    again = read_numbers(out, before=replace(before, lengths=minute_ago))
    assert again.lengths.counts.lengths.tolist() == [1, 2]
    featurize(write_source(tmp_path / "b.parquet", random_rows([7])), out, restart=True)
    assert read_numbers(out, before=again).lengths.counts.lengths.tolist() == [7]


def test_a_null_is_no_sequence_of_no_steps(tmp_path: Path) -> None:
    rows = pa.array([[[1.0, 2.0]], None, []], pa.list_(pa.list_(pa.float32())))
    for name, rows_of_it in (("a", rows), ("null", rows.take(pa.array([1, 1])))):
        pq.write_table(pa.table({"id": range(len(rows_of_it)), "sequence": rows_of_it}), tmp_path / f"{name}.parquet")
        skip, encoder = BadRows(null_sequence="skip"), Encoder.from_seed(0, 2, H)
        featurize(tmp_path / f"{name}.parquet", tmp_path / name, encoder, bad_rows=skip)
    assert read_numbers(tmp_path / "a").lengths.counts.lengths.tolist() == [0, 1]
    null = read_numbers(tmp_path / "null")
    assert null.lengths.problem == "The source has no sequences." and null.lengths.again_at == math.inf


def test_of_a_readout_of_all_steps_each_step_counts(tmp_path: Path) -> None:
    kinds = pa.array(["a", "b", "c"])
    source = write_source(tmp_path / "a.parquet", random_rows([4, 0, 9]), kind=kinds)
    encoder = Encoder.from_seed(0, random_rows([1])[0].shape[1], H, readout="steps")
    featurize(source, tmp_path / "out", encoder)
    sample = read_numbers(tmp_path / "out").sample
    assert sample.are_steps and sample.features.shape == (13, H)
    assert sample.values == ("a",) * 4 + ("c",) * 9


def test_a_sample_reads_no_more_rows_than_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"many": pa.array([f"text {row}" for row in range(60)]), "few": pa.array(["a", "b"] * 30)}
    source = write_source(tmp_path / "a.parquet", random_rows([40] * 60), **texts)
    encoder = Encoder.from_seed(0, random_rows([1])[0].shape[1], H, readout="steps")
    featurize(source, tmp_path / "out", encoder, rows_per_part=30)
    read, vector_of = list[int](), sample.vector_of
    monkeypatch.setattr(sample, "vector_of", lambda batch, row: read.append(row) or vector_of(batch, row))
    records = JobRecords(open_store(tmp_path / "out"))
    shown = read_sample(records, np.arange(2), 2, None, most=100)
    assert shown.features.shape == (100, H) and read == [0, 1, 0, 1] and shown.features.base is None
    few = read_sample(records, np.arange(2), 2, "few", most=100)
    assert (few.colour, few.values) == ("few", (("a",) * 40 + ("b",) * 10) * 2)
    featurize(source, tmp_path / "last", rows_per_part=30)
    shown = read_sample(JobRecords(open_store(tmp_path / "last")), np.arange(2), 2, None, most=30)
    assert (shown.colour, shown.values) == ("few", ("a", "b") * 7 + ("a",) + ("a", "b") * 7 + ("a",))


def test_saturated_and_dead_features() -> None:
    features = np.zeros((10, 4), np.float32)
    features[:6, 0] = -0.995  # more than half of the rows
    features[:5, 1] = 1.0  # just half
    features[:, 2] = 1.0  # always
    numbers = numbers_of(features)
    assert numbers.saturated_features == [0, 2] and numbers.dead_features == [2, 3]
    assert numbers_of(features[:1]).dead_features == [], "one row does not tell"
    assert numbers_of(features[:0]).saturated_features == []


def test_the_map_finds_the_directions_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(12, 12)))[0][:2]
    places = rng.normal(size=(3000, 2)) * [5, 2]
    found = map_of(places @ directions + rng.normal(size=(3000, 12)) * 0.01 + 7)
    assert found is not None and found.shares == pytest.approx((25 / 29, 4 / 29), abs=0.03)
    for axis in range(2):
        assert abs(np.corrcoef(found.places[:, axis], places[:, axis])[0, 1]) > 0.99


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 1), (5, 3)])
def test_there_is_no_map_of_rows_that_do_not_differ(shape: tuple[int, int]) -> None:
    assert map_of(np.full(shape, 0.3, np.float32)) is None


def test_there_is_no_map_of_one_feature_or_one_row() -> None:
    assert map_of(np.arange(5.0)[:, None]) is None and map_of(np.arange(5.0)[None]) is None


def test_a_pause_between_attempts_takes_no_time() -> None:
    told = throughput_of([attempt("a", 100, (10, 100, 102)), attempt("b", 5000, (30, 5000, 5002))], bins=4)
    assert told.names == ("a", "b") and told.edges.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(told.rates, [[5, 5, 0, 0], [0, 0, 15, 15]])


def test_many_attempts_share_the_last_colour() -> None:
    told = throughput_of([attempt(str(number), number, (1, number, number + 1)) for number in range(12)])
    assert told.names == (*map(str, range(7)), "5 other attempts")


@given(st.lists(st.tuples(st.integers(0, 50), st.lists(st.tuples(st.integers(1, 99), st.integers(0, 9)))), max_size=5))
def test_every_row_is_in_some_bar(told: list[tuple[int, list[tuple[int, int]]]]) -> None:
    attempts = []
    for number, (started, commits) in enumerate(told):
        times = started + np.arange(1, len(commits) + 1)
        lines = [(rows, max(started, end - took), end) for (rows, took), end in zip(commits, times, strict=True)]
        attempts.append(attempt(str(number), started, *lines))
    found = throughput_of(attempts)
    seconds = np.diff(found.edges)
    assert (found.rates * seconds).sum() == pytest.approx(sum(each.rows for each in attempts))


def test_logs_are_read_though_cut_in_segments_and_of_another_job(tmp_path: Path) -> None:
    folder = tmp_path / "__scanrnn/commits"
    folder.mkdir(parents=True)
    header = {"attempt": "h.1.ab", "job": "mine", "started": 10.0, "share": [1, 1]}
    line = {"unit": 0, "rows": 3, "aside": 0, "filtered": 0, "counts": "{}", "finished": 12.0}
    (folder / "h.1.ab.000000.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n" + '{"begin": 1}\n')
    (folder / "h.1.ab.000001.jsonl").write_text(
        json.dumps({**line, "unit": 1, "rows": 4, "finished": 13.0}) + '\n{"unit": 2, "ro'
    )
    other = {**header, "attempt": "h.2.cd", "job": "other"}
    (folder / "h.2.cd.jsonl").write_text(f"{json.dumps(other)}\n{json.dumps(line)}\n")
    rows = np.array([3, 4, 9])
    (found,) = attempts_of(read_commits(open_store(tmp_path), "mine", rows).history)
    assert (found.name, found.rows, found.rows_per_second) == ("h.1.ab", 7, 7 / 3)
    assert found.commits[:, 1].tolist() == [10, 12], "since its start, and since the part before"
