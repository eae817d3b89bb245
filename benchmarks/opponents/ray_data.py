"""Ray Data around an actor class that computes features: our own `FeaturizeBatches`, or a packed torch GRU.

    python -m benchmarks.opponents.ray_data ours SRC DST --address HOST:PORT --encoder FILE
    python -m benchmarks.opponents.ray_data torch SRC DST --address HOST:PORT --weights FILE

Two actors of one CPU each, on a cluster that stands. Ray Data reads and writes in tasks of one CPU beside them, so the
cluster has to count more CPUs than two: with none left, nothing would be read.
"""

from __future__ import annotations

import argparse
import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from benchmarks.contenders import KEEP_FREED, ONE_THREAD, mkl_preload
from benchmarks.opponents.common import Settings, Weights, cut_batches
from benchmarks.opponents.reading import rows_of

ACTORS = 2
BATCH_ROWS = 8192
"""Of a batch of Ray Data; within it torch's batches are sorted by length."""
TORCH = Settings(256)


class TorchBatches:
    """The torch GRU of an actor: rows of a batch are sorted by length and packed; one thread."""

    def __init__(self, weights_file: str) -> None:
        from benchmarks.opponents.torch_packed import build

        weights = Weights.load(Path(weights_file))
        self._model, self._hidden = build(weights, TORCH), weights.hidden

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The other columns, and the features."""
        rows = rows_of(batch["sequence"])
        features = np.empty((batch.num_rows, self._hidden), np.float32)
        for chosen in cut_batches(rows, TORCH):
            features[chosen] = self._model(rows, chosen)
        column = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), self._hidden)
        return batch.drop(["sequence"]).append_column("features", column)


def mapped(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The class, and what `map_batches` is told of it."""
    if arguments.what == "ours":
        ours = importlib.import_module("scanrnn_dist.ray").FeaturizeBatches
        return ours, {"fn_constructor_kwargs": {"encoder": str(arguments.encoder), "column": "sequence"}}
    environment = ONE_THREAD | KEEP_FREED | mkl_preload(arguments.weights.parent)
    told = {"fn_constructor_kwargs": {"weights_file": str(arguments.weights)}}
    return TorchBatches, told | {"runtime_env": {"env_vars": environment}}


def main() -> None:
    """Featurize a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["ours", "torch"])
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--address", required=True)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    ray.init(arguments.address, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False  # as in `ray_torch.py`, which says why
    function, told = mapped(arguments)
    done = ray.data.read_parquet(str(arguments.source)).map_batches(
        function,
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=ACTORS),
        num_cpus=1,
        **told,
    )
    done.write_parquet(str(arguments.destination), compression="none", use_dictionary=False, write_statistics=False)


if __name__ == "__main__":
    # Ray sends what stands in __main__ by value.
    from benchmarks.opponents import ray_data

    ray_data.main()
