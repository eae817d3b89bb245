"""Ray Data: `read_parquet`, `map_batches` around the packed torch GRU, `write_parquet`; two CPUs.

The function is a task's, not an actor's: Ray keeps its worker processes between jobs, and each keeps the model it has
built, so that a warm run neither starts a process nor imports torch. Output is in the order in which Ray writes it. Of
the long format, whose blocks end within sequences, Ray first brings equal keys together (a hash shuffle).
"""

from __future__ import annotations

import logging
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from benchmarks.opponents.common import Job, Model, Settings, Weights, cut_batches, main
from benchmarks.opponents.reading import KEY, SEQUENCE, Rows, Steps, is_long, rows_of, sequences_of, steps_of
from benchmarks.opponents.tuned import TUNED

SETTINGS = TUNED["ray"]


@cache
def model_of(weights_file: Path) -> Model:
    """The model of a worker process, built once."""
    from benchmarks.opponents.torch_packed import build

    return build(Weights.load(weights_file), Settings(0))


def features_of(table: pa.Table, weights_file: Path, settings: Settings) -> pa.Table:
    """A block of rows with its sequences replaced by their features."""
    rows, kept = taken_apart(table)
    model = model_of(weights_file)
    features = np.empty((kept.num_rows, Weights.load(weights_file).hidden), np.float32)
    for batch in cut_batches(rows, settings):
        features[batch] = model(rows, batch)
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    return kept.append_column("features", column)


def taken_apart(table: pa.Table) -> tuple[Rows, pa.Table]:
    """The sequences of a block, and its other columns; of the long format, whose keys a shuffle has mixed, the keys."""
    if not is_long(table.schema):
        return rows_of(table[SEQUENCE]), table.drop([SEQUENCE])
    steps = steps_of(table)
    order = np.lexsort((steps.times, steps.keys))
    return sequences_of(Steps(*(column[order] for column in steps)))


def job(weights_file: Path, settings: Settings) -> Job:
    """Start Ray on two cores; source, destination -> None."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}},
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The newer reader lists files in a task of its own and cuts this one into 18,480 rows and 1,520: twice as slow.
    context.use_datasource_v2 = False

    def run(source: Path, destination: Path) -> None:
        blocks = ray.data.read_parquet(str(source), override_num_blocks=settings.blocks)
        if is_long(pq.read_schema(source)):
            blocks = blocks.repartition(settings.blocks, keys=[KEY])
        done = blocks.map_batches(
            partial(features_of, weights_file=weights_file, settings=settings),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
        )
        done.write_parquet(str(destination), compression="none", use_dictionary=False, write_statistics=False)

    return run


if __name__ == "__main__":
    # Ray sends what stands in __main__ by value, which a cached function does not survive.
    from benchmarks.opponents import ray_torch

    main(ray_torch.job, SETTINGS)
