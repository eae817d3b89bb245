"""Inside Ray Data: actors give the rows of `encode`, with the devices that Ray gave them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import SEQUENCE, SHAPE, encoder_of, random_rows

from scanrnn_dist.api import encode

pytestmark = pytest.mark.soak

SCRIPT = """
import logging, pickle, sys
import numpy as np, pyarrow as pa, ray
import scanrnn_dist as srd

file, shape, content = pickle.load(sys.stdin.buffer)

class Telling(srd.ray.FeaturizeBatches):
    made = 0

    def __init__(self, **options):
        super().__init__(**options)
        Telling.made += 1

    def __call__(self, batch):
        import jax
        result = super().__call__(batch)
        for name, number in {"made": Telling.made, "devices": jax.local_device_count()}.items():
            result = result.append_column(name, pa.array([number] * len(batch), pa.int64()))
        return result

def all_of(dataset):
    blocks = [pa.table(block) for block in ray.get(dataset.to_arrow_refs())]
    return pa.concat_tables(block for block in blocks if block.num_rows).sort_by("id")

ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
ray.data.DataContext.get_current().enable_progress_bars = False
options = {"encoder": content, "window_shape": shape}
how = {"fn_constructor_kwargs": options, "batch_format": "pyarrow", "batch_size": 16, "num_cpus": 2}
actors = ray.data.ActorPoolStrategy(size=2)
listed = ray.data.read_parquet(file, override_num_blocks=8).map_batches(Telling, compute=actors, **how)
arrays = ray.data.from_items([{"id": number, "x": np.full((3, 3), number, np.float32)} for number in range(20)])
tensors = arrays.map_batches(srd.ray.FeaturizeBatches, concurrency=1, **how)
with_empty = srd.ray.FeaturizeBatches(**options)
of_none = ray.data.from_items([{"id": number, "x": np.zeros((0, 3), np.float32)} for number in range(2)])
of_none = [with_empty(batch) for batch in of_none.iter_batches(batch_format="pyarrow")]
none = with_empty(next(iter(arrays.iter_batches(batch_format="pyarrow"))).schema.empty_table())
try:
    with_empty({"x": np.zeros((2, 3, 3))})
except srd.ConfigError as error:
    refused = str(error)
result = pickle.dumps((all_of(listed), all_of(tensors), of_none, none, refused))
ray.shutdown()
sys.stdout.buffer.write(b"RESULT" + result)
"""


def test_actors_make_their_encoder_once_and_give_the_rows_of_encode(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="The extra 'rivals' has it.")
    rows = random_rows(np.random.default_rng(0).integers(0, 60, 128))
    table = pa.table({"id": range(128), "sequence": pa.array([row.tolist() for row in rows], SEQUENCE)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=16)
    encoder_of().save(tmp_path / "encoder.safetensors")
    told = pickle.dumps((str(tmp_path / "in.parquet"), SHAPE, (tmp_path / "encoder.safetensors").read_bytes()))
    own = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    run = subprocess.run([sys.executable, "-c", SCRIPT], input=told, capture_output=True, env=own, timeout=200)
    assert run.returncode == 0, run.stderr.decode()
    listed, tensors, of_none, none, refused = pickle.loads(run.stdout.partition(b"RESULT")[2])
    assert listed["id"].to_pylist() == list(range(128))
    expected = encode(encoder_of(), rows, window_shape=SHAPE)
    assert np.stack(listed["features"].to_pylist()).astype(np.float32).tobytes() == expected.tobytes()
    assert set(listed["made"].to_pylist()) == {1}, "an actor made its encoder anew"
    assert set(listed["devices"].to_pylist()) == {2}
    same = [np.full((3, 3), number, np.float32) for number in range(20)]
    expected = encode(encoder_of(), same, window_shape=SHAPE)
    assert np.stack(tensors["features"].to_pylist()).astype(np.float32).tobytes() == expected.tobytes()
    nothing = encode(encoder_of(), [np.zeros((0, 3), np.float32)], window_shape=SHAPE)[0].tolist()
    assert [row for table in of_none for row in table["features"].to_pylist()] == [nothing] * 2
    assert none.num_rows == 0 and "batch_format='pyarrow'" in refused
