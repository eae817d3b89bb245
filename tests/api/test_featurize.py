"""A job gives the features of the specification in input order, or an error that says where and leaves nothing half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from cells import Configured, drawn
from faults import full, watched
from holding import hold
from sources import (
    TOLERANCE,
    D,
    H,
    encoder_of,
    entries,
    features_of,
    featurize,
    leftovers,
    mesh_of,
    random_rows,
    some_lengths,
    specification,
    threads,
    write_source,
)

from scanrnn_dist.api import data_sets
from scanrnn_dist.disk import is_within
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import JobOptions, MemoryShares, Plan, plan_job
from scanrnn_dist.job import in_order as stream
from scanrnn_dist.job.apart import check_apart
from scanrnn_dist.launch import ProcessExecutor
from scanrnn_dist.observe.progress import Progress
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.records import JobRecords, PartFile, part_name, read_commits, read_parts, read_weights
from scanrnn_dist.storage import ASIDE, open_store


@pytest.fixture(autouse=True)
def _compiled_once_and_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield
    assert not threads()


def assert_specified(destination: Path, rows: list[np.ndarray], max_steps: int | None = None) -> None:
    features, expected = features_of(destination), specification(rows, max_steps)
    assert features.shape == expected.shape
    assert np.abs(features - expected).max(initial=0) <= TOLERANCE


def manifest_of(destination: Path) -> JobRecords:
    return JobRecords(open_store(destination))


# What comes out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "glob", "list"])
def test_rows_get_the_features_of_the_specification_in_input_order(tmp_path: Path, kind: str) -> None:
    a, b = random_rows(some_lengths(23, 1), 1), random_rows(some_lengths(17, 2), 2)
    path_a = write_source(tmp_path / "in/split=a/x.parquet", a, name=pa.array([f"a{i}" for i in range(23)]))
    path_b = write_source(tmp_path / "in/split=b/y.parquet", b, name=pa.array([f"b{i}" for i in range(17)]))
    source, files = {
        "file": (path_a, "a"),
        "folder": (tmp_path / "in", "ab"),
        "glob": (str(tmp_path / "in/*/*.parquet"), "ab"),
        "list": ([path_b, path_a], "ba"),
    }[kind]
    rows = [row for file in files for row in {"a": a, "b": b}[file]]
    report = featurize(source, tmp_path / "out", rows_per_part=5)

    table = pq.read_table(tmp_path / "out")
    assert table["name"].to_pylist() == [f"{file}{i}" for file in files for i in range({"a": 23, "b": 17}[file])]
    partition = [] if kind == "file" else ["split"]
    assert table.column_names == ["id", "name", *partition, "features"]
    if partition:
        assert table["split"].to_pylist() == [name[0] for name in table["name"].to_pylist()]
    assert_specified(tmp_path / "out", rows)
    parts = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    expected_parts = {"a": 5, "b": 4}  # 23 and 17 rows in row groups of 5
    assert parts == [f"part-{unit:05}.parquet" for unit in range(sum(expected_parts[file] for file in files))]
    assert (report.rows, report.parts, report.steps) == (len(rows), len(parts), sum(map(len, rows)))


def test_a_unit_spans_row_groups_and_never_files(tmp_path: Path) -> None:
    rows = random_rows(some_lengths(30))
    write_source(tmp_path / "in/a.parquet", rows[:13], row_group_size=3)
    write_source(tmp_path / "in/b.parquet", rows[13:], row_group_size=4)
    featurize(tmp_path / "in", tmp_path / "out", rows_per_part=7)
    parts = [pq.ParquetFile(path).metadata.num_rows for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert parts == [9, 4, 8, 8, 1]
    assert_specified(tmp_path / "out", rows)


@pytest.mark.parametrize("sequence", [pytest.param("japanese_vowels", marks=pytest.mark.soak), "basic_motions"])
def test_real_recordings_get_the_features_of_the_specification(
    tmp_path: Path, shared_data: Path, sequence: str
) -> None:
    source = pq.ParquetDataset(shared_data / sequence).read()
    rows = [np.asarray(row, np.float32) for row in source["sequence"].to_pylist()]
    if sequence == "japanese_vowels":
        assert len(rows) == 640
    encoder = encoder_of(0, rows[0].shape[1], 64)
    report = featurize(shared_data / sequence, tmp_path / "out", encoder, rows_per_part=100)
    table = pq.read_table(tmp_path / "out")
    kept = [name for name in source.column_names if name != "sequence"]
    assert table.column_names == [*kept, "features"]
    assert {"id", "label", "split"} <= set(kept)
    for name in kept:
        assert table[name].to_pylist() == source[name].to_pylist()
    expected = specification(rows, seed=0, hidden=64)
    assert np.abs(features_of(tmp_path / "out") - expected).max() <= TOLERANCE
    assert (report.rows, report.steps) == (len(rows), sum(map(len, rows)))


def test_a_cell_that_computes_with_something_else_now_gives_other_features(tmp_path: Path) -> None:
    encoder, rows = Encoder(drawn(Configured, D, H)), random_rows([9])
    source = write_source(tmp_path / "in.parquet", rows)
    for factor in (1.0, 0.5):
        encoder.cell.gain.factor = factor
        featurize(source, tmp_path / str(factor), encoder)
        np.testing.assert_allclose(features_of(tmp_path / str(factor))[0], encoder(rows[0]), rtol=0, atol=TOLERANCE)


def test_features_are_a_fixed_size_list_of_float32_and_the_last_column(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows(some_lengths(6)))
    featurize(path, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out/part-00000.parquet")
    assert schema.names == ["id", "features"]
    features = schema.field("features").type
    assert pa.types.is_fixed_size_list(features)
    assert (features.list_size, features.value_type) == (H, pa.float32())


def test_every_part_says_how_it_was_made(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows(some_lengths(10)))
    featurize(path, tmp_path / "out", rows_per_part=5, max_steps=7, keep=["id"])
    for part in sorted((tmp_path / "out").glob("*.parquet")):
        said = json.loads(pq.read_schema(part).metadata[b"scanrnn_dist"])
        assert said["encoder"]["fingerprint"] == encoder_of().fingerprint
        given = JobOptions(layout="nested-lists", column="sequence", keep=["id"], max_steps=7, rows_per_part=5)
        assert said["options"] == {"source": str(path), **given.to_json()}
        assert {"scanrnn_dist", "jax", "flax", "pyarrow"} <= said["environment"]["versions"].keys()
        assert said["window"]["lanes"] == sources.SHAPE.lanes
        assert said.items() <= json.loads((tmp_path / "out/__scanrnn/job.json").read_bytes()).items()


def test_the_records_name_source_units_and_parts_and_hold_the_encoder(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows(some_lengths(12)))
    featurize(path, tmp_path / "out", rows_per_part=5)
    records = manifest_of(tmp_path / "out")
    recorded = records.read_job()
    plan = Plan.read(records, recorded)
    assert recorded["options"]["source"] == plan.given == str(path)
    assert [(file.path, file.size_bytes, file.modified_ns) for file in plan.source.files] == [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    ]
    assert [(unit.row_group_begin, unit.first_row, unit.rows) for unit in plan.units] == [
        (0, 0, 5),
        (1, 5, 5),
        (2, 10, 2),
    ]
    parts = read_parts(records.read_success()[1], "")
    assert (parts["unit"].to_pylist(), parts["rows"].to_pylist()) == ([0, 1, 2], [5, 5, 2])
    assert Encoder.load(tmp_path / "out/__scanrnn/encoder.safetensors").fingerprint == encoder_of().fingerprint
    top = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert top == {"_SUCCESS", "__scanrnn", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"}


def test_success_appears_after_everything_else_and_holds_the_totals(tmp_path: Path) -> None:
    rows = random_rows(some_lengths(12))
    path = write_source(tmp_path / "a.parquet", rows)
    before: list[dict[str, Any]] = []

    def told(kind: str, name: str) -> None:
        if (kind, name) == ("rename", "_SUCCESS"):  # it stands aside until then
            found = entries(tmp_path / "out")
            before.append({name: content for name, content in found.items() if not name.startswith(f"{ASIDE}/")})

    featurize(path, watched(tmp_path / "out", told), rows_per_part=5)
    after = entries(tmp_path / "out")
    assert set(after) - set(before[0]) == {"_SUCCESS"}
    growing = ("__scanrnn/commits/", "__scanrnn/workers/")
    assert all(after[name] == content or name.startswith(growing) for name, content in before[0].items())
    totals, _ = manifest_of(tmp_path / "out").read_success()
    assert (totals["rows"], totals["parts"], totals["attempts"]) == (12, 3, 1)
    assert not leftovers(tmp_path / "out")


# Kept columns --------------------------------------------------------------------------------------------------------


def test_kept_columns_keep_their_values_and_types(tmp_path: Path) -> None:
    columns = {
        "flag": pa.array([True, None, False] * 4),
        "small": pa.array(range(12), pa.int8()),
        "when": pa.array(range(12), pa.timestamp("us", "UTC")),
        "money": pa.array([None, *range(11)], pa.decimal128(9, 2)),
        "word": pa.array(["x", "y", None] * 4).dictionary_encode(),
        "bytes": pa.array([b"\x00\xff"] * 12, pa.binary()),
        "nothing": pa.nulls(12),
        "half": pa.array(np.arange(12, dtype=np.float16)),
        "nested": pa.array([{"p": [1, None], "q": {"r": "s"}}, None] * 6),
        "pairs": pa.array([[("k", 1)], []] * 6, pa.map_(pa.string(), pa.int32())),
        "long": pa.array(["z"] * 12, pa.large_string()),
    }
    path = write_source(tmp_path / "a.parquet", random_rows(some_lengths(12)), **columns)
    featurize(path, tmp_path / "out", column="sequence", rows_per_part=5)
    source, output = pq.read_table(path), pq.read_table(tmp_path / "out")
    for name in ("id", *columns):
        assert output.schema.field(name).type == source.schema.field(name).type
        assert output[name].to_pylist() == source[name].to_pylist()


@pytest.mark.parametrize("keep", [[], ["b"], ["b", "id"], ["id", "id"], ["sequence"]])
def test_keep_names_the_columns_and_their_order(tmp_path: Path, keep: list[str]) -> None:
    rows = random_rows(some_lengths(12))
    path = write_source(tmp_path / "a.parquet", rows, b=pa.array(["x"] * 12))
    featurize(path, tmp_path / "out", keep=keep, rows_per_part=5)
    output = pq.read_table(tmp_path / "out")
    assert output.column_names == [*dict.fromkeys(keep), "features"]
    assert output.select(output.column_names[:-1]).to_pylist() == pq.read_table(path, columns=keep).to_pylist()
    assert_specified(tmp_path / "out", rows)


def test_columns_of_any_name_and_nesting_survive(tmp_path: Path) -> None:
    rows = random_rows(some_lengths(11))
    count = range(11)
    columns = {
        "a": pa.array([{"b": i, "c": [i, -i]} for i in count]),
        "a.b": pa.array([f"not the field b of a, {i}" for i in count]),
        "features.x": pa.array([{"y.z": float(i)} for i in count]),
        "x/y z": pa.array([[{"list": {"element": [i]}}] for i in count]),
        "größe, °C": pa.array([0.5 * i for i in count]),
        "温度": pa.array([[f"{i}°"] for i in count]),
        " ": pa.array(list(count)),
        "": pa.array(list(count)),
        "sequence.list.element": pa.array(list(count)),
        "quote'\"\\": pa.array(list(count)),
    }
    path = write_source(tmp_path / "ordner mit ü/a b.parquet", rows, **columns)
    featurize(path, tmp_path / "aus gabe", column="sequence", rows_per_part=4)
    source, output = pq.read_table(path), pq.read_table(tmp_path / "aus gabe")
    assert output.column_names == [name for name in source.column_names if name != "sequence"] + ["features"]
    for name in columns:
        assert output[name].to_pylist() == source[name].to_pylist()
    assert_specified(tmp_path / "aus gabe", rows)


def test_the_name_of_the_output_column_may_not_be_kept(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([1]), features=pa.array([1]))
    with pytest.raises(ConfigError, match="'features', as an output column"):
        featurize(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    featurize(path, tmp_path / "out", keep=["id"])


def test_a_column_to_keep_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([1]))
    with pytest.raises(ConfigError, match=r"'idd' to keep in .*a\.parquet; it has \['id', 'sequence'\]"):
        featurize(path, tmp_path / "out", keep=["idd"])
    assert not (tmp_path / "out").exists()


# Steps and bits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_steps", [0, 4, 1000])
def test_max_steps_is_the_T_of_the_specification(tmp_path: Path, max_steps: int) -> None:
    rows = random_rows(some_lengths(12))
    path = write_source(tmp_path / "a.parquet", rows)
    report = featurize(path, tmp_path / "out", max_steps=max_steps)
    assert_specified(tmp_path / "out", rows, max_steps)
    assert report.steps == sum(min(len(row), max_steps) for row in rows)


def test_a_negative_max_steps_is_refused(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([1]))
    with pytest.raises(ConfigError, match="max_steps is -1"):
        featurize(path, tmp_path / "out", max_steps=-1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"mesh": 4},
            r"mesh is 4 \(int\); expected a jax\.sharding\.Mesh with an axis 'data', such as srd\.default_mesh",
        ),
        ({"window_shape": (1, 2, 3)}, r"window_shape is \(1, 2, 3\) \(tuple\); expected srd\.WindowShape\("),
        (
            {"executor": "ray"},
            r"executor is 'ray'; expected srd\.ProcessExecutor\(\.\.\.\), srd\.RayExecutor\(",
        ),
        ({"executor": ProcessExecutor}, "executor is <class .*ProcessExecutor.>; expected"),
        ({"sharing": (1, 2)}, "sharing is"),
    ],
)
def test_an_argument_of_another_kind_is_refused_and_leaves_nothing(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([1]))
    with pytest.raises(ConfigError, match=says):
        featurize(path, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_names_no_files_is_refused_where_there_is_an_output_too(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([1]))
    for _ in range(2):
        with pytest.raises(ConfigError, match="The source is a list that holds a ndarray"):
            featurize([np.zeros((3, D))], tmp_path / "out")
        featurize(path, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"destination is 3 \(int\); expected a folder or a URI"):
        featurize(path, 3)  # type: ignore[arg-type]


def test_one_row_of_many_windows_among_short_ones_changes_no_order(tmp_path: Path) -> None:
    lengths = some_lengths(40)
    lengths[7] = 1600  # 50 windows; the rows behind it are finished long before
    rows = random_rows(lengths)
    path = write_source(tmp_path / "a.parquet", rows)
    featurize(path, tmp_path / "out", rows_per_part=5)
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == list(range(40))
    assert_specified(tmp_path / "out", rows)


def test_bits_depend_neither_on_the_parts_nor_on_the_chunks_nor_on_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = some_lengths(60)
    lengths[3] = 300
    path = write_source(tmp_path / "a.parquet", random_rows(lengths))
    featurize(path, tmp_path / "reference")
    reference = features_of(tmp_path / "reference")
    assert len(np.unique(reference, axis=0)) > 40
    for name, options in {
        "parts": {"rows_per_part": 7},
        "three": {"mesh": mesh_of(3)},
        "three parts": {"mesh": mesh_of(3), "rows_per_part": 7},
    }.items():
        featurize(path, tmp_path / name, **options)
        assert features_of(tmp_path / name).tobytes() == reference.tobytes()
    monkeypatch.setattr(MemoryShares, "chunk", 1)
    hold(monkeypatch, read_ahead=1)
    featurize(path, tmp_path / "chunks")
    assert features_of(tmp_path / "chunks").tobytes() == reference.tobytes()


def test_rows_that_wait_for_a_longer_one_stay_within_the_bound_and_keep_their_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = np.full(200, 9)
    lengths[3] = 3000
    path = write_source(tmp_path / "a.parquet", random_rows(lengths))
    monkeypatch.setattr(MemoryShares, "chunk", 600)
    open_bytes: list[int] = []
    place = stream.Stream._count_finished

    def watched(self: Any, finished: Any) -> None:
        open_bytes.append(sum(chunk.nbytes for chunk in self._open))
        place(self, finished)

    monkeypatch.setattr(stream.Stream, "_count_finished", watched)
    featurize(path, tmp_path / "free")
    most_without_bound, bound, most_of_a_chunk = max(open_bytes), 500, 30 * 4 * H
    open_bytes.clear()
    hold(monkeypatch, open=bound)
    featurize(path, tmp_path / "bound")
    assert max(open_bytes) <= bound + most_of_a_chunk < most_without_bound
    assert features_of(tmp_path / "bound").tobytes() == features_of(tmp_path / "free").tobytes()
    hold(monkeypatch, open=0)
    featurize(path, tmp_path / "tiny", rows_per_part=5)
    assert features_of(tmp_path / "tiny").tobytes() == features_of(tmp_path / "free").tobytes()


def test_float64_is_rounded_only_when_allowed(tmp_path: Path) -> None:
    rows = random_rows(some_lengths(12))
    double = pa.list_(pa.list_(pa.float64()))
    path = write_source(tmp_path / "a.parquet", [row.astype(np.float64) + 1e-12 for row in rows], type=double)
    with pytest.raises(DataError, match="lossy_cast"):
        featurize(path, tmp_path / "refused")
    featurize(path, tmp_path / "out", lossy_cast=True)
    assert_specified(tmp_path / "out", rows)


# Empty, refused, broken ----------------------------------------------------------------------------------------------


def test_a_source_without_rows_gives_one_empty_part_with_the_schema(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", [], name=pa.array([], pa.string()))
    report = featurize(path, tmp_path / "out")
    assert [part.name for part in (tmp_path / "out").glob("*.parquet")] == ["part-00000.parquet"]
    table = pq.read_table(tmp_path / "out")
    assert (table.num_rows, table.column_names) == (0, ["id", "name", "features"])
    assert table.schema.field("features").type == pa.list_(pa.float32(), H)
    assert (report.rows, report.steps, report.parts) == (0, 0, 1)
    assert manifest_of(tmp_path / "out").is_complete
    str(report)


def test_rows_without_steps_get_the_initial_carry(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([0] * 7))
    report = featurize(path, tmp_path / "out")
    assert not features_of(tmp_path / "out").any()
    assert (report.rows, report.steps) == (7, 0)
    str(report)


@pytest.mark.parametrize("held", ["a.txt", ".hidden", "_SUCCESS", "part-00000.parquet"])
def test_a_destination_that_holds_something_is_refused_and_untouched(tmp_path: Path, held: str) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([1]))
    (tmp_path / "out" / held).parent.mkdir(parents=True)
    (tmp_path / "out" / held).write_bytes(b"mine")
    before = entries(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"out holds 1 entries.*such as .*nothing is ever overwritten"):
        featurize(path, tmp_path / "out")
    assert entries(tmp_path / "out") == before


def test_an_empty_folder_is_a_destination_and_a_file_is_none(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([1]))
    (tmp_path / "empty").mkdir()
    featurize(path, tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"mine")
    for destination in ("file", "file/below"):
        with pytest.raises(ConfigError, match="file"):
            featurize(path, tmp_path / destination)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("destination", ["in", "in/split=a", "in/split=a/x.parquet", "."])
def test_a_destination_that_is_or_holds_the_source_is_refused(tmp_path: Path, destination: str) -> None:
    write_source(tmp_path / "in/split=a/x.parquet", random_rows([1]))
    before = entries(tmp_path)
    with pytest.raises(ConfigError, match=r"holds files of the source|the destination must be a folder"):
        featurize(tmp_path / "in", tmp_path / destination)
    assert entries(tmp_path) == before


def test_a_destination_within_the_source_folder_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path / "in/x.parquet", random_rows([1]))
    with pytest.raises(ConfigError, match="source"):
        featurize(tmp_path / "in", tmp_path / "in/out")
    assert not (tmp_path / "in/out").exists()


@pytest.mark.parametrize("glob", ["in/*/*.parquet", "in/**/*.parquet", "in/o*/p*-?????.parquet"])
def test_a_destination_whose_parts_the_glob_would_find_is_refused(tmp_path: Path, glob: str) -> None:
    write_source(tmp_path / "in/o1/p-12345.parquet", random_rows([1]))
    with pytest.raises(ConfigError, match="lies within the source"):
        featurize(str(tmp_path / glob), tmp_path / "in/out")
    assert not (tmp_path / "in/out").exists()
    featurize(str(tmp_path / "in/o1/*.parquet"), tmp_path / "in/out")


def test_a_destination_that_a_link_leads_into_the_source_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path / "in/run/x.parquet", random_rows([1]))
    write_source(tmp_path / "elsewhere/y.parquet", random_rows([1]))
    (tmp_path / "alias").symlink_to("in")
    (tmp_path / "in/more").symlink_to(tmp_path / "elsewhere")
    for source, destination in (
        ("in/**/*.parquet", "alias/out"), ("alias/**/*.parquet", "in/out"), ("in", "alias/out"), ("alias", "in/out"),
        ("in", "elsewhere/out"), ("in/*/*/*.parquet", "elsewhere/out"), ("alias/m*/**/*.parquet", "elsewhere/out"),
    ):  # fmt: skip
        write_source(tmp_path / "elsewhere/deep/z.parquet", random_rows([1]))
        with pytest.raises(ConfigError, match="lies within the source"):
            featurize(str(tmp_path / source), tmp_path / destination)
    assert not (tmp_path / "in/out").exists() and not (tmp_path / "elsewhere/out").exists()
    featurize(str(tmp_path / "in/*/*.parquet"), tmp_path / "elsewhere/out")


def test_a_destination_within_the_source_is_seen_where_case_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path / "data/sub/a.parquet", random_rows([3, 5]))
    plan, status = plan_job(tmp_path / "data"), os.stat

    def ignoring_case(path: object, **how: object) -> os.stat_result:
        return status(str(path).replace("/Data", "/data"), **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", ignoring_case)
    for name in ("Data/out", "Data/sub/deeper/out", "data/out"):
        with pytest.raises(ConfigError, match="lies within the source"):
            check_apart(plan.given, plan.source, tmp_path / name)
    for name in ("Data", "Data/sub", "data"):
        with pytest.raises(ConfigError, match="holds files of the source"):
            check_apart(plan.given, plan.source, tmp_path / name)
    check_apart(plan.given, plan.source, tmp_path / "Data2/out")
    assert is_within(tmp_path / "data/x", tmp_path / "Data") and not is_within(tmp_path / "x", tmp_path / "Data")


def test_a_file_uri_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    write_source(tmp_path / "in put/x.parquet", random_rows([3, 0, 2]))
    featurize((tmp_path / "in put").as_uri(), (tmp_path / "out 1").as_uri())
    featurize(tmp_path / "in put", tmp_path / "out 2")
    assert (tmp_path / "out 1/_SUCCESS").exists()
    one, two = (pq.read_table(tmp_path / name) for name in ("out 1", "out 2"))
    assert one.num_rows == 3 and one.equals(two)
    assert featurize((tmp_path / "in put").as_uri(), tmp_path / "out 1").rows == 0, (
        "the same job: nothing is left to do"
    )


def broken(name: str) -> tuple[list[Any], pa.DataType, str]:
    """Rows in row groups of 5 whose row 13 (row group 2, row 3) or row group 2 is wrong; and what the error says."""
    double = pa.list_(pa.list_(pa.float64()))
    rows: list[Any] = [row.tolist() for row in random_rows([12] * 20)]
    if name == "transposed":
        rows[10:15] = [np.transpose(row).tolist() for row in rows[10:15]]
        return rows, sources.SEQUENCE, r"row group 2, row 0 \(row 10 of the file\).*\(D, T\); expected is \(T, D\)"
    row, type, says = {
        "null sequence": (None, sources.SEQUENCE, "the sequence is null"),
        "null step": ([[1.0] * D, None], sources.SEQUENCE, "the timestep is null"),
        "null value": ([[1.0, None, 1.0]], sources.SEQUENCE, "a value is null"),
        "NaN": ([[1.0] * D, [1.0, float("nan"), 1.0]], sources.SEQUENCE, "step 1: feature 1 is nan"),
        "infinity": ([[float("-inf")] * D], sources.SEQUENCE, "step 0: feature 0 is -inf"),
        "ragged": ([[1.0] * D, [1.0] * (D - 1)], sources.SEQUENCE, "step 1: 2 features; expected 3"),
        "wide": ([[1.0] * (D + 1)] * 2, sources.SEQUENCE, "step 0: 4 features; expected 3"),
        "float64": ([[0.1] * D], double, "would become"),
    }[name]
    rows[13] = row
    return rows, type, rf"row group 2, row 3 \(row 13 of the file\).*{says}"


BROKEN = ["null sequence", "null step", "null value", "NaN", "infinity", "ragged", "wide", "float64", "transposed"]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rows_are_named_and_no_part_of_their_unit_or_success_appears(tmp_path: Path, name: str) -> None:
    rows, type, says = broken(name)
    path = write_source(tmp_path / "a.parquet", rows, type=type)
    with pytest.raises(DataError, match=says) as caught:
        featurize(path, tmp_path / "out", rows_per_part=5, lossy_cast=name != "float64")
    assert str(caught.value).startswith(f"1 of 4 parts could not be made; all others of this share are done.\n  {path}")
    assert_unfinished(tmp_path / "out", whole_units={0, 1, 3})


def assert_unfinished(destination: Path, whole_units: set[int]) -> None:
    """No success, nothing aside, no parts but recorded ones of units that could be whole, all threads ended."""
    records = manifest_of(destination)
    assert not records.is_complete
    rows, _ = read_weights(records.read_plan(records.read_job()))
    committed = read_commits(records.store, records.read_job()["id"], rows).committed.tolist()
    assert set(committed) <= whole_units
    names = {part_name(unit, len(rows)) for unit in committed}
    assert {part.name for part in destination.glob("*.parquet")} == names
    assert not leftovers(destination)
    assert not threads()


@pytest.fixture
def begun_parts(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The parts that were begun, with what stood aside for each when it was written to."""
    begun: list[Path] = []
    write = PartFile.write

    def watched(self: PartFile, *batch: Any) -> None:
        write(self, *batch)
        begun.extend((Path(self.path).parent / "__scanrnn/aside").iterdir())

    monkeypatch.setattr(PartFile, "write", watched)
    return begun


def test_a_broken_row_removes_the_part_that_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun_parts: list[Path]
) -> None:
    rows: list[Any] = [row.tolist() for row in random_rows([40] * 60)]
    rows[53] = None
    path = write_source(tmp_path / "a.parquet", rows)
    monkeypatch.setattr(MemoryShares, "chunk", 1)
    hold(monkeypatch, read_ahead=1)
    with pytest.raises(DataError, match=r"row group 10, row 3 \(row 53 of the file\)"):
        featurize(path, tmp_path / "out")
    assert begun_parts
    assert_unfinished(tmp_path / "out", whole_units=set())


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoppedError("SIGTERM"), RuntimeError("a defect")])
def test_an_error_of_on_rows_ends_the_job_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun_parts: list[Path], error: Any
) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([40] * 60), row_group_size=20)
    monkeypatch.setattr(MemoryShares, "chunk", 1000)
    hold(monkeypatch, read_ahead=1)
    done = 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        if done > 25:
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        featurize(path, tmp_path / "out", rows_per_part=20, on_rows=on_rows)
    assert begun_parts
    assert_unfinished(tmp_path / "out", whole_units={0})


def test_a_full_disk_stops_the_job_names_the_part_and_leaves_nothing_half(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([9] * 20))

    def told(kind: str, name: str) -> None:
        if (kind, name) == ("write", "part-00002.parquet"):
            full()

    with pytest.raises(StoppedError, match=r"part-00002\.parquet.*No space left on device"):
        featurize(path, watched(tmp_path / "out", told), rows_per_part=5)
    assert_unfinished(tmp_path / "out", whole_units={0, 1})


def test_an_encoder_of_other_features_is_refused(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([4] * 3))
    with pytest.raises(DataError, match=rf"{D} features; expected 4"):
        featurize(path, tmp_path / "out", encoder_of(in_features=4))


# What is reported ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_compilation_cache")
def test_the_report_is_consistent_and_on_rows_hears_of_every_row(tmp_path: Path) -> None:
    rows = random_rows(some_lengths(50))
    path = write_source(tmp_path / "a.parquet", rows)
    heard: list[int] = []
    shape = WindowShape(3, 4, 5)  # of no other test, so that it is compiled here
    report = featurize(path, tmp_path / "out", rows_per_part=5, on_rows=heard.append, window_shape=shape)
    assert sum(heard) == report.rows == 50
    assert min(heard) > 0
    assert report.steps == sum(map(len, rows))
    assert report.parts == 10
    assert 0 < report.occupancy <= 1
    assert report.seconds > 0
    assert report.rows_per_second == report.rows / report.seconds
    work = encoder_of().flops_per_step * report.steps / 1e9
    assert report.gflops * report.seconds == pytest.approx(work)
    assert encoder_of().flops_per_step == 6 * H * (D + H)
    assert report.compilations == 1
    waits = report.read_wait_seconds, report.device_wait_seconds, report.write_wait_seconds
    assert all(0 <= wait <= report.seconds for wait in waits)
    assert report.peak_memory_bytes > 0
    printed = str(report)
    assert "50 rows" in printed
    assert f"{report.steps:,} steps -> 10 parts in {tmp_path / 'out'}" in printed
    assert f"{report.occupancy:.1%} of the computed steps" in printed


def test_progress_is_shown_where_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, Progress]] = []

    @contextmanager
    def watched_progress(what: str) -> Iterator[Progress]:
        shown.append((what, Progress(what)))
        yield shown[-1][1]

    monkeypatch.setattr(data_sets, "rows_progress", watched_progress)
    path, heard = write_source(tmp_path / "in.parquet", random_rows([3, 0, 2])), list[Any]()
    options: dict[str, Any] = {"on_rows": heard.append, "on_start": lambda done, total: heard.append((done, total))}
    featurize(path, tmp_path / "out", show_progress=True, **options)
    ((what, progress),) = shown
    assert (what, progress.done, progress.total) == ("featurize", 3, 3)
    assert heard[0] == (0, 3) and sum(heard[1:]) == 3
    featurize(path, tmp_path / "other")
    assert len(shown) == 1


def test_a_thread_that_outlives_the_main_thread_is_told_so_and_leaves_nothing_aside(tmp_path: Path) -> None:
    script = """
import sys, threading, time, pathlib
from scanrnn_dist import Encoder, WindowShape, featurize
out, shape = pathlib.Path(sys.argv[1]), WindowShape(4, 4, 8)
def work():
    try:
        featurize(Encoder.from_seed(0, 3, 5), out / "in.parquet", out / "out", rows_per_part=2, window_shape=shape)
    except Exception as error:
        print(type(error).__name__, error)
thread = threading.Thread(target=work)
thread.start()
while thread.is_alive() and not list((out / "out").glob("part-*")):
    time.sleep(0.005)
"""
    write_source(tmp_path / "in.parquet", random_rows([30] * 400))
    words = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("StoppedError The program's main thread has ended"), done.stdout + done.stderr
    assert not list((tmp_path / "out").rglob("*.tmp"))
