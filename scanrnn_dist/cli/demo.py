"""A made-up data set to try everything on: ragged recordings of three kinds of machine, with six sensors each.

Not for judging accuracy: the classes are made to differ. Made by `scanrnn demo`, and by the tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SENSORS = 6
CLASSES = ("fan", "pump", "valve")


def recording(kind: str, steps: int, rng: np.random.Generator) -> np.ndarray:
    """One recording, `(steps, SENSORS)` float32: a hum (fan), beats (pump) or jumps (valve), and noise."""
    t = np.arange(steps)[:, None] + rng.uniform(0, 100)
    phase = rng.uniform(0, 2 * np.pi, SENSORS)
    if kind == "fan":
        signal = 0.5 * np.sin(0.9 * t + phase)
    elif kind == "pump":
        signal = 3 * np.sin(0.3 * t + phase) ** 8
    else:
        signal = np.sign(np.sin(0.05 * t + phase)) - 1
    return (signal + rng.normal(0, 0.3, (steps, SENSORS))).astype(np.float32)


def make_source(folder: Path, rows: int, seed: int) -> None:
    """Write `rows` recordings as two Parquet files, hive-partitioned by site: `id`, `kind` and `sequence`."""
    rng = np.random.default_rng(seed)
    steps = np.clip(rng.lognormal(4.2, 0.7, rows), 4, 1024).astype(int)
    kinds = np.array(CLASSES)[np.arange(rows) // 2 % len(CLASSES)]
    table = pa.table(
        {
            "id": pa.array([f"recording-{row:06}" for row in range(rows)]),
            "kind": pa.array(kinds),
            "sequence": pa.array(
                [recording(kind, length, rng).tolist() for kind, length in zip(kinds, steps, strict=True)],
                pa.list_(pa.list_(pa.float32(), SENSORS)),
            ),
        }
    )
    for site, begin in (("a", 0), ("b", rows // 2)):
        path = folder / f"site={site}" / "recordings.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table.slice(begin, rows // 2 if begin == 0 else None), path, row_group_size=512)


def nearest_mean_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Share of the odd rows whose nearest class mean, of the even rows, is their own class's."""
    names, label = np.unique(labels, return_inverse=True)
    means = np.stack([features[::2][label[::2] == index].mean(0) for index in range(len(names))])
    distance = np.linalg.norm(features[1::2, None] - means, axis=-1)
    return float((distance.argmin(1) == label[1::2]).mean())
