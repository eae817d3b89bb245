"""The flags for rows that are not what they should be reach the job, and a wrong one is refused with the choices."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sources
from policies import made_of
from sources import SEED, TOLERANCE, D, H, features_of, random_rows, specification, write_source

from scanrnn_dist.api import computation
from scanrnn_dist.cli import app as cli
from scanrnn_dist.source import BadRows, Lengths

GRU = ["--hidden", str(H), "--seed", str(SEED)]
ROWS: list[Any] = [
    None, random_rows([4], 1)[0].tolist(), [[1.0] * (D + 1)], sources.NAN, random_rows([1], 2)[0].tolist(),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computation, "window_shape_for", lambda encoder, mesh, **_: sources.SHAPE)
    sources.command_line_in_this_process(monkeypatch, columns=120)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_source(tmp_path / "in.parquet", ROWS))


def test_every_flag_reaches_the_job(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "in.parquet", random_rows([2, 3])), tmp_path / "out"
    choices = {"bad_value": "zero", "null_sequence": "null", "wrong_width": "skip", "unequal_lengths": "skip",
               "empty_sequence": "skip", "too_short": "null", "too_long": "skip",
               "unreadable_file": "skip"}  # fmt: skip
    assert not choices.items() & asdict(BadRows()).items()
    lengths = {"min_steps": 2, "max_steps": 3, "truncate": "tail"}
    told = {**choices, **lengths, "max_bad_rows": 4}
    flags = [word for name, value in told.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert cli.run(["featurize", str(source), str(out), *GRU, *flags]) == 0
    options = json.loads((out / "__scanrnn/job.json").read_text())["options"]
    assert options["bad_rows"] == choices and options.items() >= lengths.items()
    (log,) = (out / "__scanrnn/commits").iterdir()
    assert json.loads(log.read_text().splitlines()[0])["max_bad_rows"] == 4


def test_rows_become_what_was_chosen(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    chosen = {"null-sequence": "skip", "wrong-width": "skip", "bad-value": "drop-step", "unequal-lengths": "skip",
              "empty-sequence": "skip", "min-steps": 2, "too-short": "skip", "max-steps": 3, "truncate": "tail",
              "too-long": "truncate", "max-bad-rows": 3}  # fmt: skip
    flags = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
    assert cli.run(["featurize", source, str(out), *GRU, *flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    bad_rows, lengths = BadRows("drop-step", "skip", "skip", "skip", "skip"), Lengths(2, 3, "tail")
    made = [made_of(row, D, bad_rows, lengths) for row in ROWS]
    assert report["set_aside"] == 3 and report["counts"] == {
        "bad_value drop-step": 1, "null_sequence skip": 1, "too_long truncate": 1, "too_short skip": 1,
        "wrong_width skip": 1,
    }  # fmt: skip
    assert pq.read_table(out)["id"].to_pylist() == [1, 3]
    expected = specification([np.float32(one.steps) for one in made if one.becomes == "row"])
    assert abs(features_of(out) - expected).max() <= TOLERANCE
    assert cli.run(["status", str(out)]) == 0
    told = capsys.readouterr().out
    assert "3 of these rows were set aside" in told and "null_sequence skip 1 row" in told
    assert cli.run(["verify", str(out)]) == 0
    assert "5 rows = 2 + 3 set aside" in capsys.readouterr().out


def test_a_wrong_choice_is_refused_with_those_that_there_are(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["featurize", source, str(tmp_path / "out"), *GRU, "--bad-value", "ignore"]) == 2
    assert "bad_value is 'ignore'; expected one of 'error', 'drop-step', 'zero'" in capsys.readouterr().err
    assert cli.run(["featurize", source, str(tmp_path / "out"), *GRU, "--truncate", "tail"]) == 2
    assert "--max-steps" in capsys.readouterr().err


def test_too_many_bad_rows_end_the_command_with_3(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--null-sequence", "skip", "--wrong-width", "skip", "--bad-value", "skip", "--max-bad-rows", "2"]
    assert cli.run(["featurize", source, str(tmp_path / "out"), *GRU, *flags]) == 3
    assert "3 rows were set aside, and --max-bad-rows allows 2" in capsys.readouterr().err
