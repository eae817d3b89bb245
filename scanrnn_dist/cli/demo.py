"""A made-up data set to try everything on: ragged recordings of three kinds of machine, with six sensors each.

Not for judging accuracy: the classes are made to differ. Made by `scanrnn demo`, and by the tests. The recordings can
stand in Parquet in three ways (`KINDS`), for trying the flags that choose a layout.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.job import JobOptions

SENSORS = 6
CLASSES = ("fan", "pump", "valve")
NAMES = tuple(f"sensor_{nth}" for nth in range(SENSORS))
KINDS = ("sensors", "columns", "long")
"""One column of lists of six numbers; one list column for each sensor; one step a row, with its recording and time."""


FLAGS = {
    "sensors": "",
    "columns": f" --features {','.join(NAMES)}",
    "long": " --group-by id --order-by time",
}
"""What a command says to read each of `KINDS`."""


def options_of(kind: str) -> JobOptions:
    """The options that say the same."""
    if kind == "columns":
        return JobOptions(features=NAMES)
    if kind == "long":
        return JobOptions(group_by=["id"], order_by=["time"], features=NAMES, keep=["kind"])
    return JobOptions()


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


def make_source(folder: Path, rows: int, seed: int, kind: str = "sensors") -> None:
    """Write `rows` recordings as two Parquet files, hive-partitioned by site: `id`, `kind`, and their steps.

    The numbers are the same for each of `KINDS`; only how they stand in the files differs.
    """
    rng = np.random.default_rng(seed)
    steps = np.clip(rng.lognormal(4.2, 0.7, rows), 4, 1024).astype(int)
    machines = np.array(CLASSES)[np.arange(rows) // 2 % len(CLASSES)]
    made = [recording(machine, length, rng) for machine, length in zip(machines, steps, strict=True)]
    for site, begin, end in (("a", 0, rows // 2), ("b", rows // 2, rows)):
        path = folder / f"site={site}" / "recordings.parquet"
        path.parent.mkdir(parents=True)
        names = [f"recording-{row:06}" for row in range(begin, end)]
        pq.write_table(_table(kind, names, machines[begin:end], made[begin:end]), path, row_group_size=512)


def _table(kind: str, names: list[str], machines: np.ndarray, made: list[np.ndarray]) -> pa.Table:
    """The recordings of one file, as one of `KINDS`."""
    values = np.concatenate(made)
    lengths = [len(one) for one in made]
    if kind == "long":
        times = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        sensors = {name: values[:, nth] for nth, name in enumerate(NAMES)}
        return pa.table(
            {"id": np.repeat(names, lengths), "kind": np.repeat(machines, lengths), "time": times, **sensors}
        )
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    columns = {"id": pa.array(names), "kind": pa.array(machines)}
    if kind == "columns":
        lists = {name: pa.ListArray.from_arrays(offsets, values[:, nth]) for nth, name in enumerate(NAMES)}
        return pa.table({**columns, **lists})
    steps_of_six = pa.FixedSizeListArray.from_arrays(values.ravel(), SENSORS)
    return pa.table({**columns, "sequence": pa.ListArray.from_arrays(offsets, steps_of_six)})


def nearest_mean_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Share of the odd rows whose nearest class mean, of the even rows, is their own class's."""
    names, label = np.unique(labels, return_inverse=True)
    means = np.stack([features[::2][label[::2] == index].mean(0) for index in range(len(names))])
    distance = np.linalg.norm(features[1::2, None] - means, axis=-1)
    return float((distance.argmin(1) == label[1::2]).mean())
