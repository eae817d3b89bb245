"""A part is there whole or not at all, and what is recorded of it is what stands on the disk."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.records import Output
from scanrnn_dist.records.part_file import PartFile, file_sha256, part_schema, read_features, read_part_schema
from scanrnn_dist.storage import LocalStore

KEPT = pa.schema([("id", pa.int64()), ("name", pa.string())])
SCHEMA = part_schema(KEPT, 3, {"made": "by a test"})


def batch(rows: int, begin: int = 0) -> tuple[pa.RecordBatch, np.ndarray]:
    ids = range(begin, begin + rows)
    kept = pa.record_batch([pa.array(ids, pa.int64()), pa.array([str(i) for i in ids])], schema=KEPT)
    return kept, np.arange(3 * begin, 3 * (begin + rows), dtype=np.float32).reshape(rows, 3)


def part_at(path: Path, schema: pa.Schema = SCHEMA) -> PartFile:
    return PartFile(store_of(path), path.name, schema)


def store_of(path: Path) -> LocalStore:
    return LocalStore(str(path.parent), "host.1.00000000")


def write_part(path: Path) -> str:
    with part_at(path) as part:
        part.write(*batch(7))
        return part.commit()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def features_of(path: Path, rows: Any) -> list[np.ndarray]:
    return read_features(store_of(path), path.name, np.array(rows))


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_part_is_invisible_before_commit_and_whole_after_it(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    with part_at(path, SCHEMA) as part:
        part.write(*batch(4))
        part.write(*batch(3, begin=4))
        assert not path.exists()
        assert os.listdir(tmp_path) == ["__scanrnn"] and files_in(tmp_path)
        assert ds.dataset(tmp_path, format="parquet").files == []  # what stands aside is hidden from readers
        part.commit()
    assert files_in(tmp_path) == [path]
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata[b"made"] == b"by a test"
    assert table["id"].to_pylist() == list(range(7))
    assert table["features"].to_pylist() == np.arange(21).reshape(7, 3).tolist()


def test_small_batches_become_row_groups_of_the_size_meant(tmp_path: Path) -> None:
    with PartFile(store_of(tmp_path / "a.parquet"), "a.parquet", SCHEMA, Output(row_group_bytes=2000)) as part:
        for begin in range(0, 200, 4):
            part.write(*batch(4, begin))
        part.commit()
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(groups) == 200 and 2 <= len(groups) <= 4 and all(60 <= rows <= 100 for rows in groups[:-1])
    assert pq.read_table(tmp_path / "a.parquet")["id"].to_pylist() == list(range(200))


def test_rows_size_and_hash_are_of_what_stands_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with part_at(path) as part:
        part.write(*batch(7))
        sha256 = part.commit()
    content = path.read_bytes()
    assert (part.rows, part.size_bytes, sha256) == (7, len(content), hashlib.sha256(content).hexdigest())
    assert file_sha256(store_of(path), path.name) == sha256


def test_a_disk_that_fails_while_a_file_is_hashed_is_told_with_the_files_name(tmp_path: Path) -> None:
    class Failing(LocalStore):
        def open_input(self, name: str) -> pa.NativeFile:
            return pa.PythonFile(Broken(), "r")

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StoppedError, match=r"/a\.parquet cannot be read: .*Input/output error"):
        file_sha256(Failing(str(tmp_path), "host.1.00000000"), "a.parquet")
    assert file_sha256(store_of(tmp_path / "a.parquet"), "a.parquet") is None


def test_a_part_without_kept_columns_or_rows_has_its_schema(tmp_path: Path) -> None:
    schema = part_schema(pa.schema([]), 2, {})
    with part_at(tmp_path / "rows.parquet", schema) as part:
        part.write(pa.table({"x": [1, 2]}).select([]).to_batches()[0], np.ones((2, 2), np.float32))
        part.commit()
    with part_at(tmp_path / "none.parquet", schema) as part:
        part.commit()
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == [{"features": [1.0, 1.0]}] * 2
    assert pq.read_table(tmp_path / "none.parquet").schema.equals(schema)


def test_features_that_are_a_view_are_written_as_they_look(tmp_path: Path) -> None:
    kept, features = batch(4)
    with part_at(tmp_path / "a.parquet", SCHEMA) as part:
        part.write(kept, np.asfortranarray(features)[::-1])
        part.commit()
    assert pq.read_table(tmp_path / "a.parquet")["features"].to_pylist() == features[::-1].tolist()


def test_nan_features_and_their_bits_survive(tmp_path: Path) -> None:
    kept, features = batch(4)
    features[1] = [np.nan, np.inf, -0.0]
    with part_at(tmp_path / "a.parquet", SCHEMA) as part:
        part.write(kept, features)
        part.commit()
    assert np.stack(features_of(tmp_path / "a.parquet", range(4))).tobytes() == features.tobytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("of the caller")])
def test_an_error_removes_what_stands_aside(tmp_path: Path, error: Any) -> None:
    with pytest.raises(error if isinstance(error, type) else type(error)), part_at(tmp_path / "a", SCHEMA) as part:
        part.write(*batch(4))
        assert files_in(tmp_path)
        raise error
    assert not files_in(tmp_path)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(pq.ParquetWriter, "write_table"), (pq.ParquetWriter, "close"), (os, "fsync"), (os, "replace")],
    ids=["write", "close", "sync", "rename"],
)
def test_a_full_disk_stops_and_names_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    if name == "close":
        gc.collect()  # a writer of an earlier test would close itself while it is patched
    with (
        pytest.raises(StoppedError, match=r"part-00003\.parquet.*No space left on device") as caught,
        monkeypatch.context() as patched,
        part_at(tmp_path / "part-00003.parquet", SCHEMA) as part,
    ):
        patched.setattr(owner, name, no_space)
        part.write(*batch(4))
        part.commit()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.exit_code == 4
    assert not files_in(tmp_path)


def test_a_folder_that_is_gone_stops_and_names_the_part(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"gone/.*a\.parquet.*could not be written"):
        part_at(tmp_path / "gone" / "a.parquet", SCHEMA)


def test_a_part_has_the_same_bytes_whenever_it_is_made(tmp_path: Path) -> None:
    assert write_part(tmp_path / "a.parquet") == write_part(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_disk_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    write_part(tmp_path / "a.parquet")
    monkeypatch.setattr(LocalStore, "open_input", failing)
    with pytest.raises(StoppedError, match=r"a\.parquet cannot be read: .*Input/output error"):
        features_of(tmp_path / "a.parquet", [0])
    with pytest.raises(StoppedError, match=r"a\.parquet cannot be read: .*Input/output error"):
        read_part_schema(store_of(tmp_path / "a.parquet"), "a.parquet")


def test_features_are_read_by_row_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_part(path)
    assert [row.tolist() for row in features_of(path, [5, 0])] == [[15, 16, 17], [0, 1, 2]]
    content = bytearray(path.read_bytes())
    values = np.arange(21, dtype=np.float32).tobytes()
    at = bytes(content).index(values)  # features are written plainly, so their bytes stand in the file
    content[at + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        features_of(path, [0])
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        features_of(path, [0])
