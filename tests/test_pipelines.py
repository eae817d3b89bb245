"""The pipelines run as scripts, as a user starts them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import scanrnn_dist as srd

ROOT = Path(__file__).parent.parent


def test_featurize_parquet_gives_what_the_specification_gives(tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((length, 12), np.float32) for length in (3, 0, 20)]
    column = pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"id": [1, 2, 3], "sequence": column}), tmp_path / "in.parquet")
    script = ROOT / "pipelines" / "featurize_parquet.py"
    command = [sys.executable, script, tmp_path / "in.parquet", tmp_path / "out"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "3 rows, 23 steps" in printed
    table = pq.read_table(tmp_path / "out")
    assert table["id"].to_pylist() == [1, 2, 3]
    for row, features in zip(rows, table["features"].to_pylist(), strict=True):
        expected = srd.scan_rnn_forward(0, row, 64, len(row))
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-6)  # the bound of the design
