"""The flags of the output, and the command that exports it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sources
from sources import SEED, H, random_rows, write_source

from scanrnn_dist.api import computation
from scanrnn_dist.api.verification import SampledRow, Verification
from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli.printing import print_result

GRU = ["--hidden", str(H), "--seed", str(SEED)]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small window."""
    monkeypatch.setattr(computation, "window_shape_for", lambda encoder, mesh, **_: sources.SHAPE)
    sources.command_line_in_this_process(monkeypatch, columns=120)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_source(tmp_path / "in.parquet", random_rows([3] * 12)))


def test_the_flags_of_the_output_act_and_are_part_of_the_job(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["featurize", source, str(out), *GRU, "--output-layout", "columns", "--output-dtype", "float16"]
    flags = ["--compression", "snappy", "--row-group-bytes", "1"]
    assert cli.run([*command, *flags]) == 0
    group = pq.read_metadata(out / "part-00000.parquet").row_group(0)
    assert {group.column(index).compression for index in range(group.num_columns)} == {"SNAPPY"}
    assert pq.read_schema(out / "part-00000.parquet").names == ["id", *[f"feature_{i}" for i in range(H)]]
    assert cli.run([*command, *flags]) == 0
    assert cli.run(["verify", str(out)]) == 0
    capsys.readouterr()
    assert cli.run(command) == 2
    told = capsys.readouterr().err
    assert "compression was snappy and is not given; row_group_bytes was 1 and is 4194304" in told


def test_a_layout_that_there_is_none_of_is_wrong_usage(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["featurize", source, str(tmp_path / "out"), *GRU, "--output-layout", "array"]) == 2
    assert "layout is 'array'; expected one of fixed_size_list, list, columns, tensor" in capsys.readouterr().err


def test_json_has_null_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (SampledRow("part-00000.parquet", 3, 2, distance=np.inf, specification=np.nan),)
    print_result(Verification("out", 1, 4, 4, rows, True, 1, ()), as_json=True)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    told = json.loads(capsys.readouterr().out, parse_constant=refuse)
    (row,) = told["sample"]
    assert (row["distance"], row["specification"], row["bound"]) == (None, None, 0.0)
    assert (told["greatest_distance"], told["rows"], told["is_complete"]) == (None, 4, True)


def test_an_output_is_exported(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, path = str(tmp_path / "out"), str(tmp_path / "x.npy")
    assert cli.run(["featurize", source, out, *GRU]) == 0
    capsys.readouterr()
    assert cli.run(["export", out, path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "destination": out, "path": path, "rows": 12, "out_features": H, "dtype": "float32",
    }  # fmt: skip
    assert np.load(path, mmap_mode="r").tobytes() == sources.features_of(Path(out)).tobytes()
    assert cli.run(["export", out, str(tmp_path / "x.csv")]) == 2
    assert "expected a name that ends in .npy" in capsys.readouterr().err


def test_an_export_to_a_home_replaces_nothing_unasked(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, path = str(tmp_path / "out"), tmp_path / "x.npy"
    assert cli.run(["featurize", source, out, *GRU]) == 0
    path.write_bytes(b"mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.run(["export", out, "~/x.npy"]) == 2
    assert "x.npy is there already" in capsys.readouterr().err and path.read_bytes() == b"mine"
    assert cli.run(["export", out, "~/x.npy", "--force"]) == 0
    assert len(np.load(path)) == 12
