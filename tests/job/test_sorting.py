"""`--sort`: whatever the order of the rows, the features are those of the sorted ones; the copy is found again."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import Died
from sources import D, features_of, featurize, resume

from scanrnn_dist.api import update, verify
from scanrnn_dist.errors import ConfigError, DataError, StoppedError, UndoneError
from scanrnn_dist.job import Handling, JobOptions, plan_job, sorted_source, sorting, standing_at
from scanrnn_dist.job.foresight import Foreseen
from scanrnn_dist.job.sorting import RECORD, sorted_copy, standing_copy
from scanrnn_dist.source.layouts import picked
from scanrnn_dist.storage import new_attempt, this_host

duckdb = pytest.importorskip("duckdb", reason="--sort needs the extra 'duckdb'.")

LONG: dict[str, Any] = {"group_by": ["id"], "order_by": ["t"], "features": [f"x{nth}" for nth in range(D)]}


def mixed(folder: Path, files: int = 3, seed: int = 0) -> pa.Table:
    """Events in no order in some files, in folders that are a column; with ties. The same in order."""
    rng, count = np.random.default_rng(seed), 60
    columns = {name: rng.normal(size=count).astype(np.float32) for name in LONG["features"]}
    ids = rng.permutation(np.repeat(np.arange(6), 10))
    table = pa.table({"id": [f"k{number}" for number in ids], "t": rng.integers(0, 4, count), **columns})
    for number in range(files):
        path = folder / f"p={number}/a.parquet"
        path.parent.mkdir(parents=True)
        begin, end = number * count // files, (number + 1) * count // files
        pq.write_table(table.slice(begin, end - begin), path, row_group_size=7)
    numbered = table.append_column("n", pa.array(range(count)))
    return numbered.sort_by([(name, "ascending") for name in ("id", "t", "n")]).drop_columns("n")


def test_features_are_those_of_the_sorted_rows_and_the_copy_is_found_again(tmp_path: Path) -> None:
    expected = mixed(tmp_path / "in")
    with pytest.raises(DataError, match="--sort"):
        featurize(tmp_path / "in", tmp_path / "out", **LONG)
    featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    pq.write_table(expected, tmp_path / "sorted.parquet")
    featurize(tmp_path / "sorted.parquet", tmp_path / "plain", **LONG)
    assert features_of(tmp_path / "out").tobytes() == features_of(tmp_path / "plain").tobytes()
    assert pq.read_table(tmp_path / "out").column_names == ["id", "features"]
    assert verify(tmp_path / "out").rows_compared == 6
    copy = tmp_path / "out.sorted"
    assert sorted(os.listdir(copy)) == [RECORD, "part-00000.parquet"] and sorted(os.listdir(tmp_path)) == [
        "in", "out", "out.sorted", "plain", "sorted.parquet"
    ]  # fmt: skip
    assert pq.read_table(copy / "part-00000.parquet").equals(expected)
    before = (copy / "part-00000.parquet").stat()
    (tmp_path / "out/_SUCCESS").unlink()
    (tmp_path / "out/part-00000.parquet").unlink()
    assert featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG).rows == 6
    assert (copy / "part-00000.parquet").stat() == before
    with pytest.raises(ConfigError, match="sort was True and is False"):
        featurize(copy, tmp_path / "out", **LONG)
    (tmp_path / "out/_SUCCESS").unlink()
    assert resume(tmp_path / "out").is_complete


def test_a_folder_may_be_named_by_a_uri(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    for name in (f"file://{tmp_path}/out", tmp_path / "out"):
        featurize(tmp_path / "in", name, sort=True, **LONG)
    assert sorted(os.listdir(tmp_path)) == ["in", "out", "out.sorted"]


def test_bad_rows_are_mended_in_the_source_which_is_sorted_anew(tmp_path: Path) -> None:
    mixed(tmp_path / "in", files=1)
    path, out = tmp_path / "in/p=0/a.parquet", tmp_path / "out"
    good = pq.ParquetFile(path).read()
    values = [float("nan"), *good["x0"].to_pylist()[1:]]
    pq.write_table(good.set_column(good.schema.get_field_index("x0"), "x0", pa.array(values, pa.float32())), path)
    with pytest.raises(UndoneError) as caught:
        featurize(tmp_path / "in", out, sort=True, **LONG)
    assert "out.sorted/part-00000.parquet" in str(caught.value) and "--accept-changes" not in str(caught.value)
    assert "Mend the source itself, then run the command that began the job, with --restart:" in str(caught.value)
    with pytest.raises(UndoneError, match="Mend the source, of which this is the sorted copy, and use --restart"):
        Foreseen(whole=True, failed=1, failures=["out.sorted/part-00000.parquet, row 3"]).check(of_copy=True)
    pq.write_table(good.append_column("kind", pa.array(range(len(good)))), path)
    with pytest.raises(UndoneError, match=r"leave columns out, .* with another --keep. .* add --restart\.$"):
        featurize(tmp_path / "in", tmp_path / "kept", sort=True, keep=["id", "kind"], **LONG)
    pq.write_table(good, path)
    featurize(tmp_path / "in", out, sort=True, restart=True, **LONG)
    featurize(tmp_path / "in", tmp_path / "undisturbed", sort=True, **LONG)
    assert features_of(out).tobytes() == features_of(tmp_path / "undisturbed").tobytes()


def test_nothing_is_sorted_for_a_job_that_was_begun_without(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    sorted_copy(tmp_path / "in", JobOptions(sort=True, **LONG), tmp_path / "a", input=None)
    featurize(tmp_path / "a.sorted", tmp_path / "out", **LONG)
    (tmp_path / "out/_SUCCESS").unlink()
    for _ in range(2):
        with pytest.raises(ConfigError, match="holds a job that differs: sort was False and is True"):
            featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
        assert not (tmp_path / "out.sorted").exists()
        resume(tmp_path / "out")
    featurize(tmp_path / "in", tmp_path / "out", sort=True, restart=True, **LONG)
    assert (tmp_path / "out.sorted").exists()


def test_parts_do_not_name_the_copy_and_those_of_an_update_name_what_it_read(tmp_path: Path) -> None:
    def told_source() -> str:
        said = json.loads(pq.read_schema(tmp_path / "out/part-00000.parquet").metadata[b"scanrnn_dist"])
        return str(said["options"]["source"])

    mixed(tmp_path / "in")
    featurize(tmp_path / "in", tmp_path / "out", sort=True, keep_state=True, **LONG)
    assert told_source() == "a sorted copy"
    new = {"id": ["k1"], "t": [9], **{name: np.ones(1, np.float32) for name in LONG["features"]}}
    pq.write_table(pa.table(new), tmp_path / "new.parquet")
    update(tmp_path / "out", tmp_path / "new.parquet")
    assert told_source() == str(tmp_path / "new.parquet")


def test_it_says_which_columns_are_not_in_the_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mixed(tmp_path / "in", files=1)
    with caplog.at_level("INFO", "scanrnn_dist"):
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
        assert "Left out: p (named by none of --features, --input and --keep)" in caplog.text
        caplog.clear()
        featurize(tmp_path / "in", tmp_path / "all", sort=True, keep=["id", "p"], **LONG)
    assert "Left out: p" not in caplog.text and pq.read_table(tmp_path / "all").column_names == ["id", "p", "features"]


def test_a_column_that_only_folders_spell_is_not_kept_which_is_told_before_rows_are_sorted(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    for keep, destination in ((None, tmp_path / "out"), (["id"], tmp_path / "out"), (None, None)):
        options = JobOptions(sort=True, keep=keep, ids=["p"], keep_state=True, **{**LONG, "order_by": None})
        with pytest.raises(ConfigError, match=r"--ids names 'p', which is no kept column; expected some of \['id'\]"):
            standing = standing_at(destination, Handling())
            sorted_source(standing, str(tmp_path / "in"), options, Handling(), None)
        if destination is not None:
            with pytest.raises(ConfigError, match="--ids names 'p'"):
                sorted_copy(tmp_path / "in", options, destination, None)
    assert os.listdir(tmp_path) == ["in"]


def test_a_source_that_changed_since_is_told_and_sorted_anew_by_a_restart(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    (tmp_path / "in/p=2/a.parquet").unlink()
    with pytest.raises(DataError, match=r"out.sorted is a sorted copy that differs in its files: .*--restart"):
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    with pytest.raises(DataError, match="differs in its files, columns, sorted by"):
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **{**LONG, "order_by": None})
    featurize(tmp_path / "in", tmp_path / "out", sort=True, restart=True, **LONG)
    assert len(pq.read_table(tmp_path / "out.sorted")) == 40


@pytest.mark.parametrize("is_restart", [False, True])
def test_the_copy_that_a_job_at_work_reads_is_not_replaced_by_a_restart(tmp_path: Path, is_restart: bool) -> None:
    mixed(tmp_path / "in")
    if is_restart:
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    other = {**LONG, "features": LONG["features"][::-1], "order_by": None}

    def meanwhile(_: int) -> None:
        before = files_of(tmp_path / "out.sorted")
        with pytest.raises(StoppedError if is_restart else ConfigError, match=r"being (restarted|worked on)"):
            featurize(tmp_path / "in", tmp_path / "out", sort=True, restart=True, **other)
        assert files_of(tmp_path / "out.sorted") == before

    how: dict[str, Any] = {"sort": True, "restart": is_restart, "on_rows": meanwhile, **LONG}
    assert featurize(tmp_path / "in", tmp_path / "out", **how).is_complete
    assert verify(tmp_path / "out").rows_compared == 6
    assert featurize(tmp_path / "in", tmp_path / "out", sort=True, restart=True, **other).is_complete


def test_of_two_that_sort_at_once_the_slower_one_leaves_the_copy_of_the_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed(tmp_path / "in")
    write = sorting._write

    def after_another(*given: Any) -> None:
        monkeypatch.setattr(sorting, "_write", write)
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
        write(*given)

    monkeypatch.setattr(sorting, "_write", after_another)
    with pytest.raises(DataError, match="differs in its columns, sorted by"):
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **{**LONG, "order_by": None})
    assert verify(tmp_path / "out").rows_compared == 6 and len(os.listdir(tmp_path)) == 3


def numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """What to sort into a copy of several files."""
    monkeypatch.setattr(sorting, "_GROUP_ROWS", 2048)
    monkeypatch.setattr(sorting, "_FILE_ROWS", 2048)
    pq.write_table(pa.table({"id": np.arange(5000)[::-1], "x": np.arange(5000.0)}), folder / "in.parquet")
    options = JobOptions(group_by=["id"], features=["x"], keep=["id"], sort=True)
    return folder / "in.parquet", options, folder / "out", None


@pytest.mark.parametrize("change", ["a file is missing", "a file is cut", "its record does not tell of files"])
def test_a_copy_that_is_not_known_to_be_whole_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    asked = numbers(tmp_path, monkeypatch)
    copy = Path(sorted_copy(*asked))
    before, part = files_of(copy), copy / "part-00001.parquet"
    assert len(before) == 4
    if change == "a file is missing":
        part.unlink()
    elif change == "a file is cut":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        record = json.loads((copy / RECORD).read_text())
        del record["files of the copy"]
        (copy / RECORD).write_text(json.dumps(record))
    assert standing_copy(*asked) is None
    assert sorted_copy(*asked) == str(copy) == standing_copy(*asked)
    assert files_of(copy) == before and sorted(os.listdir(tmp_path)) == ["in.parquet", "out.sorted"]
    made = part.stat()
    sorted_copy(*asked)
    assert part.stat() == made


@pytest.mark.skipif(sys.platform != "linux", reason="Names of open files are read from /proc.")
def test_a_copy_is_durable_before_it_has_its_name_and_so_is_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, sync, rename = list[str](), os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        sync(descriptor)

    def renamed(old: Any, new: Any) -> None:
        steps.append("named")
        rename(old, new)

    asked = numbers(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    sorted_copy(*asked)
    assert steps[-2:] == ["named", "."]
    aside = steps[-3]
    assert sorted(steps[:3]) == [f"{aside}/part-0000{number}.parquet" for number in range(3)]
    assert steps[3].startswith(f"{aside}/.{RECORD}.") and len(steps) == 7


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


VALUES: dict[str, Any] = {
    "uint64": pa.array([2**64 - 1, 0, 5], pa.uint64()),
    "decimal": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.50")], pa.decimal128(30, 2)),
    "binary": pa.array([b"\0", b"", None], pa.binary()),
    "fixed": pa.array([b"ab", b"\0\0", None], pa.binary(2)),
    "view": pa.array(["a", None, ""], pa.string_view()),
    "dictionary": pa.array(["b", "a", None]).dictionary_encode(),
    "bool": pa.array([True, None, False]),
    "date": pa.array([datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)]),
    "zoned": pa.array([0, None, -1], pa.timestamp("us", "Europe/Berlin")),
    "zoned nanoseconds": pa.array([1, None, -1001], pa.timestamp("ns", "UTC")),
    "time": pa.array([1, None, 1001], pa.time64("ns")),
    "nanoseconds": pa.array([1, None, -1], pa.timestamp("ns")),
    "half": pa.array(np.array([0.5, np.nan, 1], np.float16)),
    "duration": pa.array([1, None, -5], pa.duration("us")),
    "float": pa.array([float("nan"), None, -0.0]),
    'a "b"': pa.array([1, None, 3], pa.int8()),
}


def copied(folder: Path, columns: dict[str, Any]) -> pa.Table:
    pq.write_table(pa.table({"id": [2, 1, 2], "x": [1.0, 2.0, 3.0], **columns}), folder / "in.parquet")
    options = JobOptions(group_by=["id"], features=["x"], keep=["id", *columns], sort=True)
    return pq.read_table(sorted_copy(folder / "in.parquet", options, folder / "out", input=None))


def test_values_are_the_same_in_the_copy(tmp_path: Path) -> None:
    values = {name: picked(array, pa.array([1, 0, 2])) for name, array in VALUES.items()}
    expected = pa.table({"id": [1, 2, 2], "x": [2.0, 1.0, 3.0], **values})
    table = copied(tmp_path, VALUES)
    assert [field.type for field in table.schema] == [field.type for field in expected.schema]
    assert str(table.to_pylist()) == str(expected.to_pylist())


def test_names_may_differ_by_case_alone_or_be_empty(tmp_path: Path) -> None:
    rng, count = np.random.default_rng(0), 20
    numbers = {name: rng.normal(size=count) for name in ("x", "X", "", "number", "c0", "C1", 'a "b"')}
    table = pa.table({"id": np.arange(count) % 3, "T": rng.permutation(count), "t": rng.permutation(count), **numbers})
    pq.write_table(table, tmp_path / "in.parquet")
    options = JobOptions(sort=True, group_by=["id"], order_by=["t"], features=["T", *numbers])
    copy = sorted_copy(tmp_path / "in.parquet", options, tmp_path / "out", None)
    assert pq.read_table(copy).equals(table.sort_by([("id", "ascending"), ("t", "ascending")]))


def test_ordered_dictionaries_keep_their_order(tmp_path: Path) -> None:
    sizes = pa.DictionaryArray.from_arrays(pa.array([2, None, 0]), ["small", "medium", "large"], ordered=True)
    size = copied(tmp_path, {"size": sizes})["size"]
    assert size.to_pylist() == [None, "large", "small"]
    assert size.type.ordered and size.chunk(0).dictionary.to_pylist() == ["small", "medium", "large"]


@pytest.mark.parametrize("died_at", ["rename", "rename again", "remove"])
def test_a_copy_that_is_replaced_by_a_process_that_dies_is_made_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died_at: str
) -> None:
    mixed(tmp_path / "in")
    featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    (tmp_path / "in/p=2/a.parquet").unlink()
    renames, rename = [0], os.rename

    def renamed(old: Any, new: Any) -> None:
        renames[0] += 1
        if renames[0] == {"rename": 1, "rename again": 2}.get(died_at):
            raise Died
        rename(old, new)

    def removed(folder: Path, **_: Any) -> None:
        if (folder / RECORD).exists():
            (folder / RECORD).unlink()
            raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(os, "rename", renamed)
        patch.setattr(shutil, "rmtree", removed)
        featurize(tmp_path / "in", tmp_path / "out", sort=True, restart=True, **LONG)
    monkeypatch.setattr(sorting, "runs", lambda pid: False)
    featurize(tmp_path / "in", tmp_path / "out", sort=True, restart=True, **LONG)
    assert len(pq.read_table(tmp_path / "out.sorted")) == 40 and verify(tmp_path / "out", sample=1).is_complete


def test_a_folder_that_the_destination_is_in_is_made(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    featurize(tmp_path / "in", tmp_path / "new/results/out", sort=True, **LONG)
    assert sorted(os.listdir(tmp_path / "new/results")) == ["out", "out.sorted"]


def test_values_that_duckdb_does_not_hold_are_never_changed_in_silence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--sort: DuckDB"):
        copied(tmp_path, {"k": pa.array([1, None, 1001], pa.decimal256(50, 2))})
    assert sorted(os.listdir(tmp_path)) == ["in.parquet"]
    with pytest.raises(ConfigError, match="'k' is list"):
        copied(tmp_path, {"k": [[1]] * 3})


def test_other_rows_than_were_given_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_before = sorting._as_before
    for wrong in (lambda batch: batch.slice(1), lambda batch: batch.take(pa.array([0, 0, 2]))):
        monkeypatch.setattr(sorting, "_as_before", lambda batch, *more, wrong=wrong: wrong(as_before(batch, *more)))
        with pytest.raises(ConfigError, match="gave back other rows than it was given"):
            copied(tmp_path, {})


def test_what_is_wrong_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed(tmp_path / "in")
    with pytest.raises(ConfigError, match="--sort needs --group-by"):
        JobOptions(sort=True)
    with pytest.raises(DataError, match="comes again"):
        plan_job(tmp_path / "in", JobOptions(sort=True, **LONG))
    with pytest.raises(ConfigError, match="beside the destination; expected a folder"):
        sorted_copy(tmp_path / "in", JobOptions(sort=True, **LONG), "s3://bucket/out?region=x", input=None)
    with pytest.raises(ConfigError, match="lies within the source"):
        featurize(tmp_path / "in", tmp_path / "in/out", sort=True, **LONG)
    path = tmp_path / "in/p=1/a.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    with pytest.raises(DataError, match=r"p=1/a.parquet, row group 0"):  # not DuckDB's words for it
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    path.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[duckdb\]'"):
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    monkeypatch.undo()
    (tmp_path / "out.sorted").mkdir()
    with pytest.raises(ConfigError, match="is no sorted copy"):
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
    (tmp_path / "out.sorted").rmdir()
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("kind", ["OutOfMemoryException", "IOException"])
def test_a_disk_or_memory_that_is_full_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mixed(tmp_path / "in")

    def full(*_: Any) -> Any:
        raise getattr(duckdb, kind)("failed to offload data block")

    monkeypatch.setattr(sorting, "_write_files", full)
    with pytest.raises(StoppedError, match="failed to offload data block"):
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)


def test_what_a_killed_process_of_this_machine_left_is_removed(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    here = sorting._machine()
    left, alive, elsewhere = (  # the last in a container of the same name, whose processes have other numbers
        f"out.sorted.{this_host()}.{2**22 + 1}.0123abcd.{here}",
        f"out.sorted.{new_attempt()}.{here}",
        f"out.sorted.{this_host()}.{2**22 + 1}.0123abcd.{'0' * 8}",
    )
    for name in (alive, elsewhere):
        (tmp_path / name).mkdir()
    for _ in range(2):  # the second time the copy stands
        (tmp_path / left).mkdir()
        featurize(tmp_path / "in", tmp_path / "out", sort=True, **LONG)
        assert sorted(os.listdir(tmp_path)) == sorted(["in", "out", "out.sorted", alive, elsewhere])
