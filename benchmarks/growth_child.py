"""One process of `bench_growth`'s part *devices*, as the number of CPU devices is fixed when JAX starts.

    JAX_NUM_CPU_DEVICES=1 python -m benchmarks.growth_child SOURCE.parquet

`[command, DESTINATION]` comes on standard input; its seconds, and the processors' seconds, go to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

D, H = 16, 128
COMMANDS = {"scan": "dense scan, equal rows", "compute": "rows in memory", "run": "Parquet to Parquet"}
"""What the child can be asked for, and what it goes over."""


def commands(source: Path) -> dict[str, Callable[[Path], Any]]:
    """What each command does, on the rows of `source`; the dense scan takes as many steps, in equal rows."""
    import jax
    import numpy as np
    import pyarrow.parquet as pq

    from benchmarks.bench_engine import dense_case, engine_case
    from scanrnn_dist.api import featurize
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.engine import build_engine, default_mesh
    from scanrnn_dist.ragged import Ragged

    encoder, mesh = Encoder.from_seed(0, D, H), default_mesh()
    engine = build_engine(encoder, mesh)
    sequences = pq.read_table(source)["sequence"].combine_chunks()
    values = sequences.flatten().flatten().to_numpy().reshape(-1, D)
    rows = Ragged(values, sequences.offsets.to_numpy().astype(np.int64))
    scan, _ = dense_case(
        encoder, mesh, engine.shape.lanes, steps=max(1, len(values) // (engine.devices * engine.shape.lanes))
    )
    in_memory = engine_case(engine, rows)
    return {
        "scan": lambda _: jax.block_until_ready(scan()),
        "compute": lambda _: in_memory(),
        "run": lambda destination: featurize(encoder, source, destination, mesh=mesh),
    }


def main() -> None:
    """Answer commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not end up among the answers
    known = commands(Path(sys.argv[1]))
    for line in sys.stdin:
        command, destination = json.loads(line)
        begin, begin_processor = time.perf_counter(), time.process_time()
        known[command](Path(destination))
        taken = [time.perf_counter() - begin, time.process_time() - begin_processor]
        print(json.dumps(taken), file=answers, flush=True)


if __name__ == "__main__":
    main()
