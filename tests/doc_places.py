"""Where the commands of a page run in tests: what a reader has already, and what stands in for machines.

A page's folder holds the demo's recordings; `FILES` adds what a page takes for granted. Buckets are those of the tests'
S3 server, a Ray cluster is one node of this machine, and `srun`, `sbatch` and `mpirun` are scripts that start two
processes and tell each its number, as the real ones do.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doc_blocks import ROOT
from s3_server import S3Server
from sources import random_rows, write_source

from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli.demo import make_source

BUCKET = "bucket"
ROWS = 60
SMALLER = {"--nproc-per-node 8": "--nproc-per-node 2", "mpirun -n 16": "mpirun -n 2"}
"""Numbers of processes that a page shows, and how many are started here."""
MINIO, RAY = "http://minio:9000", "10.0.0.1:6379"
"""Addresses that pages show; a test puts those of its own servers in their place."""
TOLD = {
    "--shard auto/16": {"JOB_COMPLETION_INDEX": "3"},
    "--shard auto --steal": {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "4"},
}
"""What Kubernetes and AWS Batch tell a process that is started with these flags."""
SCRIPTS = {
    "scanrnn": f'exec "{sys.executable}" -m scanrnn_dist "$@"',
    "srun": """tasks=${SLURM_NTASKS:-2} started=()
for task in $(seq 0 $((tasks - 1))); do
    SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=$task SLURM_NTASKS=$tasks SLURM_STEP_NUM_TASKS=$tasks "$@" &
    started+=($!)
done
for process in "${started[@]}"; do wait "$process"; done""",
    "sbatch": """export SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=1
for element in 1 2; do SLURM_ARRAY_TASK_ID=$element bash "$@"; done""",
    "mpirun": """[ "$1" = -n ] || exit 9
ranks=$2 started=()
shift 2
for rank in $(seq 0 $((ranks - 1))); do
    OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_SIZE=$ranks OMPI_COMM_WORLD_LOCAL_SIZE=$ranks "$@" &
    started+=($!)
done
for process in "${started[@]}"; do wait "$process"; done""",
}
"""`scanrnn`, and what starts it where there is no cluster: bash, by name."""


def put_programs(folder: Path) -> None:
    """Write the scripts; the folder is to come first on the path."""
    folder.mkdir()
    for name, text in SCRIPTS.items():
        (folder / name).write_text(f"#!/bin/bash\nset -eu\n{text}\n")
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)


def put_recordings(folder: Path) -> None:
    """What every page has: recordings, and of the checkout the pipelines and the environment."""
    make_source(folder / "recordings", ROWS, seed=0)
    (folder / "pipelines").symlink_to(ROOT / "pipelines")
    (folder / ".venv").symlink_to(sys.prefix)


def put_workload(folder: Path) -> None:
    """A small W2, and the recordings where `scanrnn demo` puts them."""
    rows = random_rows(np.random.default_rng(0).integers(1, 60, ROWS), in_features=16)
    write_source(folder / "workloads" / "W2.parquet", rows)
    (folder / "scanrnn-demo").mkdir()
    (folder / "scanrnn-demo" / "recordings").symlink_to(folder / "recordings")


def put_features(folder: Path) -> None:
    """A job that is done, in `features`."""
    assert cli.run(["featurize", "recordings", "features", "--hidden", "8"]) == 0


def put_splits(folder: Path) -> None:
    """Features of the training rows and of the test rows, which the page has from elsewhere."""
    for split in ("train", "test"):
        source = folder / "japanese_vowels" / f"split={split}"
        assert cli.run(["featurize", str(source), f"features/{split}", "--hidden", "8"]) == 0


def put_weights(folder: Path) -> None:
    """What Keras and ONNX exporters write: one recurrent layer, and a stack of two."""
    keras, onnx = pytest.importorskip("h5py"), pytest.importorskip("onnx")
    normal = np.random.default_rng(0).standard_normal
    for name, layers in {
        "model": {"gru": 6},
        "stack": {"gru": 6, "gru_1": 4},
    }.items():
        with keras.File(folder / f"{name}.weights.h5", "w") as file:
            for layer, width in layers.items():
                for number, shape in enumerate([(width, 12), (4, 12), (2, 12)]):
                    file[f"layers/{layer}/cell/vars/{number}"] = normal(shape, np.float32)
    real, helper = onnx.TensorProto.FLOAT, onnx.helper
    for name, names in {"model": ["only"], "stack": ["first", "second"]}.items():
        nodes, weights, x, width = [], [], "x", 6
        for node in names:
            for key, shape in {"W": (1, 12, width), "R": (1, 12, 4), "B": (1, 24)}.items():
                weights.append(onnx.numpy_helper.from_array(normal(shape, np.float32), f"{node}.{key}"))
            inputs = [x, f"{node}.W", f"{node}.R", f"{node}.B"]
            nodes.append(helper.make_node("GRU", inputs, [f"{node}.Y", ""], node, hidden_size=4, linear_before_reset=1))
            nodes.append(helper.make_node("ReduceSum", [f"{node}.Y", "axis"], [f"{node}.out"], keepdims=0))
            x, width = f"{node}.out", 4
        weights.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
        given = [helper.make_tensor_value_info("x", real, ["t", "b", 6])]
        graph = helper.make_graph(nodes, name, given, [helper.make_tensor_value_info(x, real, None)], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / f"{name}.onnx")


FILES: dict[str, Callable[[Path], None]] = {
    "speed": put_workload,
    "report": put_features,
    "training": put_splits,
    "weights": put_weights,
}
"""What the reader of a page has already, by the page's name."""


def put_bucket(s3: S3Server, folder: Path) -> None:
    """The recordings in the bucket that pages name."""
    for path in sorted((folder / "recordings").rglob("*.parquet")):
        s3.put(BUCKET, str(path.relative_to(folder)), path.read_bytes())


def without_output(name: str, s3: S3Server | None) -> None:
    """Take away what another command wrote, so that the next one has all of the work to do."""
    shutil.rmtree(name, ignore_errors=True)
    if s3 is not None:
        for key in s3.objects(BUCKET, f"{name}/"):
            s3.client.delete_object(Bucket=BUCKET, Key=key)


def output_of(name: str, s3: S3Server | None) -> list[pa.Table]:
    """The parts of an output, which has to be complete, from the folder or the bucket.

    Without their metadata, which name the source.
    """
    if s3 is None or Path(name).exists():
        content = {path.name: path.read_bytes() for path in Path(name).iterdir() if path.is_file()}
    else:
        content = {key: s3.get(BUCKET, f"{name}/{key}") for key in _keys(s3, name)}
    assert "_SUCCESS" in content, content.keys()
    parts = [part for part in sorted(content) if part.startswith("part-")]
    assert parts
    return [pq.read_table(pa.BufferReader(content[part])).replace_schema_metadata() for part in parts]


def _keys(s3: S3Server, name: str) -> list[str]:
    inside = [key.removeprefix(f"{name}/") for key in s3.objects(BUCKET, f"{name}/")]
    return [key for key in inside if key and "/" not in key]


@contextmanager
def ray_node() -> Iterator[str]:
    """The address of a Ray cluster of one node with one CPU."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is an extra: pip install -e '.[ray]'.")
    told = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=told)
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def own_environment(folder: Path) -> dict[str, str]:
    """The environment of a program that a page starts."""
    imported = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    path = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": os.pathsep.join(path), "PYTHONPATH": os.pathsep.join(imported), "HOME": str(folder)}


def told_to(command: str) -> dict[str, str]:
    """What a scheduler tells the process of a command."""
    plain = re.sub(r"\s+", " ", command)
    return {name: value for flags, told in TOLD.items() if flags in plain for name, value in told.items()}
