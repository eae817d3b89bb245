"""Plans: read back from their records they are the same, and changes of the source are told in words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.errors import ConfigError, LayoutError, UnreadableError
from scanrnn_dist.input_spec import InputSpec, Number
from scanrnn_dist.job import JobOptions, first_rows
from scanrnn_dist.job.first_rows import in_features_of
from scanrnn_dist.job.plan import Plan, plan_job
from scanrnn_dist.source import (
    BadRows,
    Layout,
    ReadOptions,
    Source,
    Unit,
    first_step_features,
    parsed_filter,
    read_chunks,
)
from scanrnn_dist.source import source as source_module
from scanrnn_dist.source.unit_reader import UnitReader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("p=1/a.parquet", "p=1/b.parquet", "p=2/c.parquet"):
        write(tmp_path / "in" / name)
    return tmp_path / "in"


def write(path: Path, rows: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"seq": pa.array([[[1.0, row]] * row for row in range(rows)]), "id": range(rows)})
    pq.write_table(table, path, row_group_size=2)


def ways(folder: Path) -> list[Any]:
    """How a source may be named."""
    return [folder, f"{folder}/**/*.parquet", folder.as_uri(), [folder / "p=2/c.parquet", folder / "p=1/a.parquet"],
            [(folder / "p=2/c.parquet").as_uri()], folder / "p=1/a.parquet"]  # fmt: skip


def rows_of(plan: Plan) -> list[Any]:
    """All that a job would read."""
    chunks = read_chunks(plan.source, plan.units, ReadOptions(plan.layout, plan.keep, in_features=2, lossy_cast=True))
    return [(chunk.unit, chunk.begin, chunk.sequences.values.tolist(), chunk.kept.to_pylist()) for chunk in chunks]


@pytest.mark.parametrize("way", range(6))
def test_a_plan_is_read_back_without_a_look_at_footers(folder: Path, way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_job(ways(folder)[way], JobOptions(rows_per_part=3))
    monkeypatch.setattr(source_module, "read_footers", None)
    records = plan.to_records()
    read = Plan.from_records(records)
    assert (read.given, read.layout, read.keep, read.rows_per_part) == (plan.given, plan.layout, plan.keep, 3)
    assert list(read.units) == list(plan.units) and list(read.source.files) == list(plan.source.files)
    assert (read.source.rows, read.source.schema) == (plan.source.rows, plan.source.schema)
    assert read.source.filesystem.equals(plan.source.filesystem)
    assert read.kept_schema == plan.kept_schema and in_features_of(read) == 2 and list(read.changes().told) == []
    assert rows_of(read) == rows_of(plan) and read.to_records() == records


def test_units_weigh_what_their_sequences_hold(folder: Path) -> None:
    plan = plan_job(folder / "p=1/a.parquet", JobOptions(rows_per_part=3))
    assert plan.units.values.tolist() == [1 + 2 + 4 + 6, 8]  # of 0 to 4 steps of two features


@pytest.mark.parametrize("way", range(4))
def test_changes_of_the_source_are_told(folder: Path, way: int) -> None:
    plan = Plan.from_records(plan_job(ways(folder)[way]).to_records())
    a, c, d = (folder / name for name in ("p=1/a.parquet", "p=2/c.parquet", "p=2/d.parquet"))
    before = a.stat()
    os.utime(a, ns=(before.st_atime_ns, 1795514400 * 10**9))
    shutil.copy(folder / "p=1/b.parquet", d)
    c.unlink()
    changes = list(plan.changes().told)
    is_list = way == 3  # to which nothing can be added
    assert f"{c} is gone" in changes and (f"{d} is new" in changes) != is_list
    (changed,) = (line for line in changes if line.startswith(f"{a} was {before.st_size} bytes of "))
    assert changed.endswith(f" and is {before.st_size} bytes of 2026-11-24 10:00:00 UTC")
    assert len(changes) == (2 if is_list else 3)


def test_a_source_that_is_gone_is_one_line(folder: Path) -> None:
    plans = [plan_job(way) for way in ways(folder)]
    shutil.rmtree(folder)
    told = [list(plan.changes().told) for plan in plans]
    assert all(len(lines) == 1 and "cannot be listed again" in lines[0] for lines in told)
    assert f"Nothing is there of 2 files, of which '{folder}/p=2/c.parquet' is the first" in told[3][0]
    assert not any(plan.changes().is_there for plan in plans)


def test_the_first_changes_are_told_and_how_many_more(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    plan = plan_job(tmp_path)
    for number in range(9):
        shutil.copy(tmp_path / "a.parquet", tmp_path / f"b{number}.parquet")
    assert list(plan.changes().told) == [*(f"{tmp_path}/b{number}.parquet is new" for number in range(5)), "and 4 more"]


NESTED = pa.list_(pa.list_(pa.float32()))


def write_sequences(path: Path, sequences: list[Any], row_group_size: int = 100_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"seq": pa.array(sequences, NESTED), "id": pa.array(range(len(sequences)), pa.int64())})
    pq.write_table(table, path, row_group_size=row_group_size)


@pytest.mark.parametrize("last", [[[1.0, 2.0]], [[1.0]]], ids=["two features", "one"])
def test_d_is_found_behind_files_and_rows_that_are_empty(tmp_path: Path, last: list[list[float]]) -> None:
    write_sequences(tmp_path / "day1.parquet", [[], []])
    write_sequences(tmp_path / "day2.parquet", [])
    write_sequences(tmp_path / "day3.parquet", [[]] * 70_000 + [last])
    plan = plan_job(tmp_path)
    assert in_features_of(plan) == len(last[0])
    assert in_features_of(Plan.from_records(plan.to_records())) == len(last[0])


def test_d_is_that_of_the_first_row_that_matches(tmp_path: Path) -> None:
    write_sequences(tmp_path / "k=a/a.parquet", [[[]], [[1.0] * 3]])
    write_sequences(tmp_path / "k=b/a.parquet", [[[]], [[1.0] * 3], [], [[1.0] * 2]], row_group_size=2)
    plan = plan_job(tmp_path)
    assert in_features_of(plan, parsed_filter("k == 'b' and id >= 2")) == 2
    assert in_features_of(plan, parsed_filter("id == 1")) == 3
    assert in_features_of(plan, parsed_filter("k == 'a' and id > 0")) == 3
    with pytest.raises(LayoutError, match=r"k=a/a.parquet.*a step has 0 features"):
        in_features_of(plan)
    write_sequences(tmp_path / "c/a.parquet", [[[1.0] * 3], []])
    # Of rows that are left out, where no other has a step.
    assert in_features_of(plan_job(tmp_path / "c"), parsed_filter("id == 1")) == 3


def test_a_file_that_cannot_match_is_not_opened_for_d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in "abc":
        write_sequences(tmp_path / f"k={key}/a.parquet", [[[1.0] * (2 if key == "c" else 3)]])
    opened, open = list[str](), UnitReader.open
    monkeypatch.setattr(UnitReader, "open", lambda self, unit: (opened.append(unit.file.path), open(self, unit))[1])
    assert in_features_of(plan_job(tmp_path), parsed_filter("k == 'c'")) == 2
    assert {path.split("k=")[1] for path in opened} == {"c/a.parquet"}


def test_where_nothing_matches_what_can_be_read_says_d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_sequences(tmp_path / f"{number}.parquet", [[[1.0] * 3]])

    def damaged(source: Source, unit: Unit, *how: Any) -> int | None:
        if unit.index == 0:
            raise UnreadableError("0.parquet: cannot be read")
        return first_step_features(source, unit, *how)

    monkeypatch.setattr(first_rows, "first_step_features", damaged)
    assert in_features_of(plan_job(tmp_path), parsed_filter("id > 7")) == 3


def test_with_an_input_d_is_that_of_the_first_step_whatever_a_reader_begins_with(tmp_path: Path) -> None:
    write_sequences(tmp_path / "a.parquet", [[[1.0] * 3], [[1.0], [1.0] * 2], [[1.0] * 3]])
    write_sequences(tmp_path / "b.parquet", [[[2.0] * 2], [[2.0] * 3]])
    spec, options = InputSpec((Number("0"), Number("1"))), JobOptions(bad_rows=BadRows(wrong_width="skip"))
    plan = plan_job(tmp_path, options, spec)
    assert in_features_of(plan) == in_features_of(Plan.from_records(plan.to_records())) == 3
    settled = options.settled(plan.layout, plan.keep, None)
    assert JobOptions.from_json(settled.to_json()) == settled and plan.has_options(options)
    for units, ids in ((plan.units, [0, 2, 1]), ([plan.units[1]], [1])):
        chunks = read_chunks(plan.source, units, settled.reading(2, spec))
        assert [row.as_py() for chunk in chunks for row in chunk.kept["id"]] == ids
    assert in_features_of(plan_job(tmp_path / "b.parquet", JobOptions(filter="id < 1"), spec)) == 2


def test_a_first_step_without_what_an_input_names_is_refused_unless_the_width_is_told(tmp_path: Path) -> None:
    write_sequences(tmp_path / "a.parquet", [[], [[1.0]], [[1.0] * 3]])
    spec, skip = InputSpec((Number("0"), Number("2"))), BadRows(wrong_width="skip")
    told = r"columns '2', which .*; they have '0'\. The first step has no others\. If .* with --in-features N\.$"
    with pytest.raises(ConfigError, match=told):
        plan_job(tmp_path, JobOptions(bad_rows=skip), spec)
    assert in_features_of(plan_job(tmp_path, JobOptions(filter="id == 2"), spec)) == 3
    options = JobOptions(bad_rows=skip, in_features=3)
    plan = plan_job(tmp_path, options, spec)
    (chunk,) = read_chunks(plan.source, plan.units, options.settled(plan.layout, plan.keep, None).reading(2, spec))
    assert chunk.kept["id"].to_pylist() == [0, 2]


def test_units_that_must_hold_a_step_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write_sequences(tmp_path / f"{number}.parquet", [[[1.0, 2.0]] if number == 3 else []] * 2)
    looked_at = []

    def noting(source: Source, unit: Unit, layout: Layout, *how: Any) -> int | None:
        looked_at.append(unit.index)
        return first_step_features(source, unit, layout, *how)

    monkeypatch.setattr(first_rows, "first_step_features", noting)
    assert in_features_of(plan_job(tmp_path)) == 2 and looked_at == [3]


def test_a_source_without_any_step_or_row_says_so(tmp_path: Path) -> None:
    write_sequences(tmp_path / "a.parquet", [[], [], []], row_group_size=1)
    write_sequences(tmp_path / "b.parquet", [[]])
    plan = plan_job(tmp_path)
    with pytest.raises(LayoutError, match=r"None of the 4 sequences of column 'seq' has a step.*--encoder"):
        in_features_of(plan)
    write_sequences(tmp_path / "none/a.parquet", [])
    with pytest.raises(ConfigError, match="no rows"):
        in_features_of(plan_job(tmp_path / "none"))


def test_text_keys_are_read_back_as_text(tmp_path: Path) -> None:
    for key in ("00501", "1234", "01234"):
        write(tmp_path / f"zip={key}/a.parquet")
    plan = plan_job(tmp_path)
    read = Plan.from_records(plan.to_records())
    assert [dict(file.partitions)["zip"] for file in read.source.files] == ["00501", "01234", "1234"]
    assert rows_of(read) == rows_of(plan) and read.kept_schema.field("zip").type == pa.string()


def test_a_link_that_leads_nowhere_now_is_a_change(folder: Path) -> None:
    plan = plan_job(folder)
    (folder / "p=1/d.parquet").symlink_to("nowhere")
    (told,) = list(plan.changes().told)
    assert "d.parquet is a link that leads nowhere" in told


def test_an_extension_type_in_any_of_the_files_is_seen(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32())
    for name, metadata in (("a", None), ("b", {"ARROW:extension:name": "ray.data.arrow_tensor_v2"})):
        fields = [pa.field("seq", kind, metadata=metadata), pa.field("other", kind)]
        pq.write_table(pa.table([pa.array([[1.0]], kind)] * 2, pa.schema(fields)), tmp_path / f"{name}.parquet")
    with pytest.raises(LayoutError, match=r"'seq' of .* the extension type 'ray.data.arrow_tensor_v2'"):
        plan_job(tmp_path, JobOptions(column="seq"))
    assert plan_job(tmp_path, JobOptions(column="other")).keep == ("seq",)


@pytest.mark.parametrize("name", ["keep", "features", "group_by", "order_by", "ids"])
def test_a_text_is_the_name_of_one_column(name: str) -> None:
    assert getattr(JobOptions(**{name: "id"}), name) == ("id",)


def test_a_feature_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^features names 'x' more than once; expected each once\.$"):
        JobOptions(features=["x", "y", "x"])
