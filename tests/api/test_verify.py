"""An output that is what it should be passes, and no change to it, its records or its source goes unseen."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from cells import not_for_a_file
from sources import SEED, TOLERANCE, some_lengths, threads, write_source

from scanrnn_dist.api.verification import verify
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import kept_columns
from scanrnn_dist.records import JobRecords, part_name, read_parts
from scanrnn_dist.source.unit_reader import UnitReader
from scanrnn_dist.storage import open_store

ROWS = 25
D, H = 32, 16
"""So many that float32 in another order is far from XLA's; of all encoders here, so that they share programs."""


def random_rows(lengths: Any, seed: int = 0) -> list[np.ndarray]:
    return sources.random_rows(lengths, seed, D)


def encoder_of(seed: int = SEED) -> Encoder:
    return sources.encoder_of(seed, D, H)


def featurize(source: Any, destination: Path, encoder: Encoder | None = None, **options: Any) -> None:
    sources.featurize(source, destination, encoder or encoder_of(), **options)


@pytest.fixture(autouse=True)
def _built_once_and_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    sources.build_encoders_once(monkeypatch)
    yield
    assert not threads()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source `in` and the output `out` of a finished job, three parts; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_source(folder / "in/split=a/x.parquet", random_rows(some_lengths(15, 1), 1))
    write_source(folder / "in/split=b/y.parquet", random_rows(some_lengths(10, 2), 2))
    featurize(folder / "in", folder / "out", rows_per_part=10)
    return folder


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of the output to change, whose source stays."""
    return Path(shutil.copytree(finished / "out", tmp_path / "out"))


def manifest_of(output: Path) -> JobRecords:
    return JobRecords(open_store(output))


def recorded_again(output: Path) -> None:
    """Update size and hash in the records to the parts as they are now, as a forger would."""
    records = manifest_of(output)
    totals, parts = records.read_success()
    listed = read_parts(parts, "").to_pylist()
    for record in listed:
        path = output / part_name(record["unit"], len(listed))
        record |= {"size_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_parts(output, listed, totals)


def write_parts(output: Path, records: list[dict[str, Any]], totals: dict[str, Any]) -> None:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), content)
    rest = {name: total for name, total in totals.items() if name != "parts_sha256"}
    manifest_of(output).write_success(content.getvalue(), rest)


def replace_column(path: Path, name: str, values: pa.Array) -> None:
    table = pq.read_table(path)
    index = table.column_names.index(name)
    pq.write_table(table.set_column(index, table.schema.field(name), values), path)


def test_a_good_output_passes_and_says_so(finished: Path) -> None:
    result = verify(finished / "out", sample=100)
    assert (result.parts, result.rows, result.sampled) == (3, ROWS, ROWS)
    where = [(row.part, row.row) for row in result.sample]
    assert len(set(where)) == ROWS and {part for part, _ in where} == {part_name(unit, 3) for unit in range(3)}
    assert sorted(row.steps for row in result.sample) == sorted([*some_lengths(15, 1), *some_lengths(10, 2)])
    assert max(row.distance for row in result.sample) == result.greatest_distance
    assert all(row.distance <= row.bound for row in result.sample)
    assert 0 < result.greatest_distance <= TOLERANCE and 0 < result.specification_distance <= TOLERANCE
    assert 0 <= result.greatest_difference <= result.greatest_distance + result.specification_distance
    said = [" ".join(line.split()) for line in str(result).splitlines()]
    parts = "parts 3 with 25 rows, unchanged (their hashes match)"
    assert said[:3] == [f"verified {finished / 'out'}", parts, "kept columns equal to the source in all 25 rows"]
    right = "features right in all 25 rows that were recomputed one by one"
    assert said[3:5] == [right, "Their greatest distances:"]
    assert said[5].startswith(f"{result.greatest_distance:.1e} from float64") and len(said) == 7
    assert " ".join(str(verify(str(finished / "out"), sample=0)).split()).endswith(parts)


def test_a_sample_is_of_about_the_size_asked_for_and_of_any_seed(finished: Path) -> None:
    for seed in range(3):
        assert 4 <= verify(finished / "out", sample=4, seed=seed).sampled <= 6


def test_a_changed_byte_of_a_part_is_seen_and_the_part_named(output: Path) -> None:
    path = output / "part-00001.parquet"
    content = path.read_bytes()
    for position in range(0, len(content), 97):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"part-00001\.parquet changed after it was written"):
            verify(output, sample=0)
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"part-00001\.parquet changed after it was written"):
        verify(output, sample=0)
    path.write_bytes(content)
    verify(output, sample=0)


def test_a_part_that_is_gone_is_named(output: Path) -> None:
    (output / "part-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00002\.parquet is missing"):
        verify(output, sample=0)


def test_every_part_that_is_not_as_it_was_is_named_and_made_again(finished: Path, output: Path) -> None:
    before = {path: path.read_bytes() for path in output.glob("part-*")}
    (output / "part-00002.parquet").unlink()
    (output / "part-00000.parquet").write_bytes(b"other")
    with pytest.raises(
        DataError,
        match=r"part-00000\.parquet changed .*part-00002\.parquet is missing; expected \d+ rows.*--repair` makes them",
    ):
        verify(output, sample=0)
    featurize(finished / "in", output, rows_per_part=10)
    verify(output)
    assert {path: path.read_bytes() for path in output.glob("part-*")} == before


def test_a_surplus_part_is_named(output: Path) -> None:
    shutil.copy(output / "part-00002.parquet", output / "part-00003.parquet")
    with pytest.raises(DataError, match=r"not of its job: \['part-00003\.parquet'\]"):
        verify(output, sample=0)


@pytest.mark.parametrize("name", ["below/x.parquet", "part-00003.PARQUET", "x=1/part-00003.parquet"])
def test_a_surplus_file_that_readers_would_read_is_named(output: Path, name: str) -> None:
    (output / name).parent.mkdir(exist_ok=True)
    shutil.copy(output / "part-00002.parquet", output / name)
    assert pq.read_table(output).num_rows > ROWS
    with pytest.raises(DataError, match="not of its job"):
        verify(output, sample=0)


def test_features_that_changed_with_their_records_are_seen_by_computing_them_again(output: Path) -> None:
    path = output / "part-00001.parquet"
    features = pq.read_table(path)["features"].combine_chunks().flatten().to_numpy().copy()
    features[3 * H + 1] += 5 * TOLERANCE
    replace_column(path, "features", pa.FixedSizeListArray.from_arrays(pa.array(features), H))
    recorded_again(output)
    verify(output, sample=0)
    with pytest.raises(DataError, match=r"part-00001\.parquet, row 3: the features are [45]\.\de-06 from the row"):
        verify(output, sample=100)


def test_features_that_are_as_right_as_float32_can_be_pass(tmp_path: Path) -> None:
    """Another float32 than XLA's on unscaled data, which an absolute bound on what lies between them would refuse."""
    rows = [100 * row for row in random_rows([40] * 12)]
    featurize(write_source(tmp_path / "a.parquet", rows), tmp_path / "out")
    others = np.stack([oracle.gru_float32(encoder_of().cell, row) for row in rows])
    path = tmp_path / "out" / part_name(0, 1)
    assert np.abs(others - sources.features_of(path)).max() > 3 * TOLERANCE
    replace_column(path, "features", pa.FixedSizeListArray.from_arrays(pa.array(others.reshape(-1)), H))
    recorded_again(tmp_path / "out")
    result = verify(tmp_path / "out")
    assert result.sampled == 12 and result.greatest_difference > 3 * TOLERANCE
    others[3] = others[4]
    replace_column(path, "features", pa.FixedSizeListArray.from_arrays(pa.array(others.reshape(-1)), H))
    recorded_again(tmp_path / "out")
    with pytest.raises(DataError, match=r"part-00000\.parquet, row 3: the features are"):
        verify(tmp_path / "out")


def test_nan_features_that_changed_with_their_records_are_seen(output: Path) -> None:
    path = output / "part-00001.parquet"
    features = pq.read_table(path)["features"].combine_chunks().flatten().to_numpy().copy()
    features[0] = np.nan
    replace_column(path, "features", pa.FixedSizeListArray.from_arrays(pa.array(features), H))
    recorded_again(output)
    with pytest.raises(DataError, match=r"part-00001\.parquet, row 0: the features are inf from the row scanned alone"):
        verify(output, sample=100)


def test_kept_columns_that_changed_with_their_records_are_seen(output: Path) -> None:
    ids = pq.read_table(output / "part-00000.parquet")["id"].to_pylist()
    ids[2], ids[4] = ids[4], ids[2]
    replace_column(output / "part-00000.parquet", "id", pa.array(ids, pa.int64()))
    recorded_again(output)
    with pytest.raises(DataError, match=r"part-00000\.parquet, row 2: the kept columns are not those of the source"):
        verify(output, sample=100)


def test_a_file_is_opened_once_for_the_kept_columns_of_all_its_parts(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once more for the row of each part that is computed again."""
    opened, open = list[str](), UnitReader.open
    monkeypatch.setattr(UnitReader, "open", lambda self, unit: (opened.append(unit.file.path), open(self, unit))[1])
    assert verify(finished / "out", sample=1).parts == 3
    assert len(set(opened)) == 2 and len(opened) == 2 + 3


def test_kept_columns_that_hold_nan_pass(tmp_path: Path) -> None:
    nan = pa.array([float("nan"), 1.0, None])
    path = write_source(tmp_path / "a.parquet", random_rows([4] * 3), x=nan, y=pa.StructArray.from_arrays([nan], ["z"]))
    featurize(path, tmp_path / "out")
    verify(tmp_path / "out")


@pytest.mark.parametrize("keep", [[], ["a.b"], ["a"], ["sequence", "id"]])
def test_outputs_with_any_kept_columns_pass(tmp_path: Path, keep: list[str]) -> None:
    columns = {"a": pa.array([{"b": 1, "c": None}] * 7), "a.b": pa.array(list("uvwxyzä"))}
    path = write_source(tmp_path / "ü ö/a.parquet", random_rows([9] * 7), **columns)
    featurize(path, tmp_path / "split=x" / "out", keep=keep, rows_per_part=5, max_steps=4)
    assert verify(tmp_path / "split=x" / "out", sample=100).sampled == 7


def test_an_output_without_rows_passes(tmp_path: Path) -> None:
    featurize(write_source(tmp_path / "a.parquet", []), tmp_path / "out")
    result = verify(tmp_path / "out")
    assert (result.parts, result.rows, result.sampled) == (1, 0, 0)


def test_a_source_that_changed_or_went_is_told_and_sample_0_needs_none(tmp_path: Path) -> None:
    path = write_source(tmp_path / "in/a.parquet", random_rows([4] * 7))
    featurize(tmp_path / "in", tmp_path / "out")
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(DataError, match=r"The source changed after the job: .*a\.parquet"):
        verify(tmp_path / "out")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    verify(tmp_path / "out")
    write_source(tmp_path / "in/b.parquet", random_rows([4]))
    with pytest.raises(DataError, match=r"changed after the job: .*b\.parquet is new"):
        verify(tmp_path / "out")
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(StoppedError, match="cannot be read: it cannot be listed again: Nothing found"):
        verify(tmp_path / "out")
    with pytest.raises(StoppedError, match=r"cannot be listed again: Nothing found .*a glob\. See that"):
        featurize(tmp_path / "in", tmp_path / "out")
    assert verify(tmp_path / "out", sample=0).rows == 7


def test_a_source_below_the_home_folder_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_source(tmp_path / "a.parquet", random_rows([4]))
    featurize("~/a.parquet", tmp_path / "out")
    verify(tmp_path / "out")


def test_a_relative_source_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path / "a.parquet", random_rows([4]))
    monkeypatch.chdir(tmp_path)
    featurize("*.parquet", tmp_path / "out")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert verify("../out").sampled == 1


def test_no_job_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="is no output of a job"):
        verify(tmp_path / "empty")
    with pytest.raises(ConfigError, match="is no output of a job"):
        verify(tmp_path / "nowhere")


def test_arguments_that_mean_nothing_are_refused(finished: Path) -> None:
    for options, says in (
        ({"sample": -1}, "sample is -1; expected 0 or more"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"sample": "all"}, r"sample is 'all' \(str\); expected a number"),
        ({"encoder": "gru"}, "The encoder is a str; expected an Encoder"),
    ):
        with pytest.raises(ConfigError, match=says):
            verify(finished / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="destination is None; expected a folder or a URI"):
        verify(None)  # type: ignore[arg-type]


def test_a_part_that_is_not_recorded_is_told(output: Path) -> None:
    totals, parts = manifest_of(output).read_success()
    write_parts(output, read_parts(parts, "").to_pylist()[:-1], totals)
    with pytest.raises(DataError, match=r"parts \[2\] are missing"):
        verify(output, sample=0)


def test_a_kept_column_that_changed_is_seen_wherever_it_is(output: Path) -> None:
    path = output / "part-00002.parquet"
    names = pq.read_table(path)["split"].to_pylist()
    replace_column(path, "split", pa.array(["c", *names[1:]]))
    recorded_again(output)
    with pytest.raises(DataError, match=r"part-00002\.parquet, row 0: the kept columns are not those of the source"):
        verify(output, sample=1)


def test_another_encoder_is_refused(finished: Path, output: Path) -> None:
    verify(finished / "out", encoder=encoder_of())
    with pytest.raises(ConfigError, match="The encoder has the fingerprint"):
        verify(finished / "out", encoder=encoder_of(seed=99))
    encoder_of(seed=99).save(output / "__scanrnn/encoder.safetensors")
    with pytest.raises(ConfigError, match="The encoder has the fingerprint"):
        verify(output)


def test_a_cell_that_no_file_holds_is_asked_for(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([4] * 12))
    featurize(path, tmp_path / "out", not_for_a_file(D, H))
    assert not (tmp_path / "out/__scanrnn/encoder.safetensors").exists()
    with pytest.raises(ConfigError, match=r"pass the encoder, .*`scanrnn verify --sample 0`"):
        verify(tmp_path / "out")
    assert verify(tmp_path / "out", sample=0).rows == 12
    assert verify(tmp_path / "out", encoder=not_for_a_file(D, H)).sampled == 12
    with pytest.raises(ConfigError, match="fingerprint"):
        verify(tmp_path / "out", encoder=not_for_a_file(D, H, 1))


def test_kept_values_that_python_cannot_hold_pass(tmp_path: Path) -> None:
    tensor = pa.fixed_shape_tensor(pa.float32(), [2, 2], permutation=[1, 0])
    storage = pa.array([[1.0, 2.0, 3.0, np.nan]] * 3, pa.list_(pa.float32(), 4))
    columns = {
        "nan": pa.array([float("nan"), 1.0, None]),
        "nanoseconds": pa.array([2**62 + 1, 1, None], pa.timestamp("ns")),
        "far": pa.array([2**55, 1, None], pa.timestamp("us")),
        "unknown zone": pa.array([1, 2, None], pa.timestamp("us", tz="Foo/Bar")),
        "tensor": pa.ExtensionArray.from_storage(tensor, storage),
    }
    path = write_source(tmp_path / "a.parquet", random_rows([4] * 3), **columns)
    featurize(path, tmp_path / "out", column="sequence", keep=list(columns))
    assert verify(tmp_path / "out").rows_compared == 3
    read, source = pq.read_table(tmp_path / "out"), pq.read_table(path)
    assert [read.schema.field(name) for name in columns] == [source.schema.field(name) for name in columns]


def test_a_zero_that_lost_its_sign_is_seen(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([4] * 3), x=pa.array([[-0.0], [1.0], [float("nan")]]))
    featurize(path, tmp_path / "out", column="sequence")
    replace_column(tmp_path / "out/part-00000.parquet", "x", pa.array([[0.0], [1.0], [float("nan")]]))
    recorded_again(tmp_path / "out")
    with pytest.raises(DataError, match=r"part-00000\.parquet, row 0: the kept columns are not those.*'x' differs"):
        verify(tmp_path / "out")


def test_wide_kept_columns_are_compared_in_little_memory(tmp_path: Path) -> None:
    blobs = pa.array([b"x" * 400_000] * 240)  # 96 MB, as a dictionary 0.4
    path = write_source(tmp_path / "a.parquet", random_rows([1] * 240), row_group_size=240, blob=blobs)
    del blobs
    featurize(path, tmp_path / "out")
    pool = pa.default_memory_pool()
    before, held = pool.bytes_allocated(), []
    compared = kept_columns.differing

    def watched(one: pa.Array, other: pa.Array) -> np.ndarray:
        held.append(pool.bytes_allocated() - before)
        return compared(one, other)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept_columns, "differing", watched)
        verify(tmp_path / "out", sample=1)
    assert len(held) > 10 and max(held) < 60e6  # a batch of 8 MB and a row group of about as many, with their copies
