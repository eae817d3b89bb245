"""An export is the features of all rows in input order, whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sources
from sources import D, H, entries, features_of, featurize, random_rows, write_source

from scanrnn_dist.disk import Disk
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import export
from scanrnn_dist.records import Output

ROWS = 12
OUTPUTS = [Output(), Output("list", "float16"), Output("columns"), Output("tensor", "float16")]


def name_of(output: Output) -> str:
    return f"{output.layout}-{output.dtype}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished output of three parts in each layout; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    source = write_source(folder / "in.parquet", random_rows([4] * ROWS), row_group_size=4)
    for output in OUTPUTS:
        featurize(source, folder / name_of(output), rows_per_part=4, output=output)
    return folder


@pytest.mark.parametrize("output", OUTPUTS, ids=name_of)
def test_all_features_are_exported_in_input_order(finished: Path, tmp_path: Path, output: Output) -> None:
    report = export(finished / name_of(output), tmp_path / "x.npy")
    found = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(found, np.memmap) and os.listdir(tmp_path) == ["x.npy"]
    expected = features_of(finished / name_of(Output())).astype(output.dtype or "float32")
    assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, (ROWS, H), expected.tobytes())
    assert (report.rows, report.out_features, report.dtype) == (ROWS, H, str(expected.dtype))
    assert str(tmp_path / "x.npy") in str(report)


def test_many_parts_are_exported_in_the_order_of_their_units(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows([1] * 24), row_group_size=2)
    featurize(source, tmp_path / "out", rows_per_part=2)
    export(str(tmp_path / "out"), str(tmp_path / "x.npy"))
    assert np.load(tmp_path / "x.npy").tobytes() == features_of(tmp_path / "out").tobytes()


def test_of_a_source_without_rows_an_array_of_none_is_exported(tmp_path: Path) -> None:
    featurize(write_source(tmp_path / "in.parquet", []), tmp_path / "out")
    assert export(tmp_path / "out", tmp_path / "x.npy").rows == 0
    assert np.load(tmp_path / "x.npy").shape == (0, H)


@pytest.mark.parametrize("failing", ["write", "sync", "rename"])
def test_an_export_that_fails_leaves_what_stood_there(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    (tmp_path / "x.npy").write_bytes(b"before")

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Disk, failing, no_space)
    with pytest.raises(StoppedError, match=r"x\.npy could not be written: No space left on device"):
        export(finished / name_of(Output()), tmp_path / "x.npy")
    assert entries(tmp_path) == {"x.npy": b"before"}


def test_a_part_of_other_rows_or_none_is_not_exported(finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished / name_of(Output()), tmp_path / "out"))
    shutil.copy(out / "part-00000.parquet", tmp_path / "whole")
    pq.write_table(pq.read_table(out / "part-00000.parquet").slice(1), out / "part-00000.parquet")
    with pytest.raises(DataError, match=r"part-00000\.parquet holds 3 rows; expected 4"):
        export(out, tmp_path / "x.npy")
    (out / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read"):
        export(out, tmp_path / "x.npy")
    assert not list(tmp_path.glob("*.npy*")) and not list(tmp_path.glob(".*"))


def test_what_cannot_be_exported_is_refused_with_what_to_do(finished: Path, tmp_path: Path) -> None:
    out = finished / name_of(Output())
    for path, told in (
        (tmp_path / "x.parquet", r"expected a name that ends in \.npy"),
        ("s3://bucket/x.npy", "is a URI; expected a file of this machine"),
        (tmp_path / "none/x.npy", "There is no folder"),
        (out / "x.npy", "lies within"),
    ):
        with pytest.raises(ConfigError, match=told):
            export(out, path)
    source = write_source(tmp_path / "in.parquet", random_rows([2] * 12), row_group_size=4)
    featurize(source, tmp_path / "steps", Encoder.from_seed(0, D, H, readout="steps"))
    with pytest.raises(ConfigError, match=r"features of every step.*Read the parts with any reader"):
        export(tmp_path / "steps", tmp_path / "x.npy")
    with pytest.raises(StoppedError):
        stop = sources.stop_once_committed(tmp_path / "half", 4)
        featurize(source, tmp_path / "half", rows_per_part=4, on_rows=stop)
    with pytest.raises(ConfigError, match=r"is unfinished: \d of 3 parts are saved.*then export"):
        export(tmp_path / "half", tmp_path / "x.npy")
    with pytest.raises(ConfigError):
        export(tmp_path / "nothing", tmp_path / "x.npy")
    assert not list(tmp_path.glob("*.npy"))
