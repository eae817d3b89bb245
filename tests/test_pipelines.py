"""The pipelines run as scripts, as a user starts them."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import command_line_in_this_process

import scanrnn_dist as srd
from scanrnn_dist.cli import app as cli

PIPELINES = Path(__file__).parent.parent / "pipelines"


def run(script: str, *given: object) -> subprocess.CompletedProcess[str]:
    """Start a pipeline where JAX is told to have three CPU devices."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, PIPELINES / script, *map(str, given)],
        env=environment | {"JAX_NUM_CPU_DEVICES": "3"},
        capture_output=True,
        text=True,
    )


def test_featurize_parquet_does_the_job_of_the_command_line_and_gives_what_the_specification_gives(
    tmp_path, monkeypatch, capsys
):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((length, 12), np.float32) for length in (20, 0, 20)]
    column = pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"id": [1, 2, 3], "sequence": column}), tmp_path / "in.parquet")
    done = run("featurize_parquet.py", tmp_path / "in.parquet", tmp_path / "out")
    assert "3 rows, 40 steps" in done.stdout, done.stderr
    table = pq.read_table(tmp_path / "out")
    assert table["id"].to_pylist() == [1, 2, 3]
    wanted = oracle.gru_rows(srd.Encoder.from_seed(0, 12, 64).cell, rows)
    np.testing.assert_allclose(table["features"].to_pylist(), wanted, rtol=0, atol=1e-6)  # the bound of the design
    (log,) = (tmp_path / "out" / "__scanrnn" / "commits").glob("*.jsonl")
    assert json.loads(log.read_text().splitlines()[0])["devices"] == 3
    command_line_in_this_process(monkeypatch, columns=120)
    assert cli.run(["featurize", str(tmp_path / "in.parquet"), str(tmp_path / "out"), "--hidden", "64"]) == 0
    assert "Nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["featurize_parquet.py", "featurize_ray.py"])
def test_an_error_is_told_and_ends_a_pipeline_with_the_exit_code_of_the_command_line(
    tmp_path, script, monkeypatch, capsys
):
    if "ray" in script:
        pytest.importorskip("ray")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(len(jax.devices())))
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "none.parquet"), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PIPELINES / script), run_name="__main__")
    told = capsys.readouterr().err
    assert ended.value.code == srd.ConfigError.exit_code
    assert "Error: " in told and "none.parquet" in told and told.count("\n") == 1
