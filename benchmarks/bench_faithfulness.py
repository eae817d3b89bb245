"""How far features are from float64 on real data: `featurize`, then `verify` of up to 1,000 rows.

    SCANRNN_SHARED_DATA=/path/to/data python -m benchmarks.bench_faithfulness

Every column of the data sets below that `featurize` reads, as it is and multiplied by 10 and by 100, with GRUs of
random weights. A false alarm ends the run. For each: the greatest distance of the features from float64, that of the
specification's own float32 from float64, and the greatest difference of the two. Not covered: rows that are not read
(they are told), other cells.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from pyarrow.dataset import dataset

from benchmarks.harness import finish
from benchmarks.workloads import write_rows
from scanrnn_dist.api import featurize, verify
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.source import ReadOptions, read_chunks

SETS = (
    "japanese_vowels", "basic_motions", "sessions_list_per_feature/*.parquet", "layouts/*.parquet",
    "found/natural-earth-rings.parquet", "found/H512-*.parquet",
)  # fmt: skip
"""Folders and globs below the folder of data sets."""
HIDDEN, FACTORS = (8, 64, 128, 512), (1, 10, 100)
Table = dict[str, dict[int, dict[int, np.ndarray]]]
"""The three distances by data set, factor and hidden features."""


def columns_of(source: Path) -> list[str]:
    """The columns of lists of numbers, or of lists of these."""

    def is_sequence(kind: pa.DataType) -> bool:
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
            if pa.types.is_floating(kind) or pa.types.is_integer(kind):
                return True
        return False

    return [field.name for field in dataset(source, format="parquet").schema if is_sequence(field.type)]


def rows_of(source: Path, column: str) -> Ragged:
    """All rows of a column, rounded to float32; raises as `featurize` does."""
    plan = plan_job(str(source), JobOptions(column=column, keep=()))
    with closing(read_chunks(plan.source, plan.units, ReadOptions(plan.layout, lossy_cast=True))) as chunks:
        return Ragged.from_sequences([chunk.sequences.row(i) for chunk in chunks for i in range(len(chunk.sequences))])


def measured(rows: Ragged, source: Path, column: str, folder: Path) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each factor and number of hidden features the three distances, as `verify` tells them."""
    for factor in FACTORS:
        path, name = source, column
        if factor != 1:
            path, name = folder / f"times-{factor}.parquet", "sequence"
            write_rows(Ragged(rows.values * np.float32(factor), rows.offsets), path)
        for hidden in HIDDEN:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                encoder = Encoder.from_seed(0, rows.in_features, hidden)
                featurize(encoder, str(path), out + "/out", column=name, keep=[], lossy_cast=True)
                found = verify(out + "/out", sample=1000)
            assert found.sampled == min(1000, len(rows)), found
            distances = found.greatest_distance, found.specification_distance, found.greatest_difference
            yield factor, hidden, np.array(distances)


def sweep(folder: Path, sets: list[str], only: list[str] | None = None) -> tuple[Table, list[str]]:
    """All data sets; of one with several columns, the greatest distances of any. And what is not read.

    `only` these columns, if given.
    """
    table: Table = {}
    not_read = []
    for source in [path for pattern in sets for path in sorted(folder.glob(pattern))]:
        name = str(source.relative_to(folder))
        for column in columns_of(source):
            if only and column not in only:
                continue
            try:
                rows = rows_of(source, column)
            except (ConfigError, DataError) as error:
                not_read.append(f"{name}, {column}: {error}")
                continue
            with tempfile.TemporaryDirectory(prefix="faithfulness-") as aside:
                for factor, hidden, distances in measured(rows, source, column, Path(aside)):
                    before = table.setdefault(name, {}).setdefault(factor, {}).get(hidden, np.zeros(3))
                    table[name][factor][hidden] = np.maximum(before, distances)
                    told = ", ".join(f"{one:.1e}" for one in distances)
                    print(f"{name}, {column} x {factor}, H {hidden}: {len(rows)} rows, {told}", flush=True)
    return table, not_read


def as_markdown(table: Table) -> str:
    """A line for each data set and factor, with the three distances for each number of hidden features."""
    heads = ["data set", "times", *(f"H = {hidden}" for hidden in HIDDEN)]
    lines = [heads, ["---"] * len(heads)]
    for name, factors in table.items():
        for factor, by_hidden in factors.items():
            cells = [", ".join(f"{one:.1e}" for one in by_hidden[hidden]) for hidden in HIDDEN]
            lines.append([name, str(factor), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("e-0", "e-").replace("0.0e+00", "0")


def main() -> None:
    """Parse, take a device per core, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=list(SETS), help="folders and globs below the folder of data sets")
    parser.add_argument("--columns", nargs="*", help="only these columns")
    arguments = parser.parse_args()
    folder = os.environ.get("SCANRNN_SHARED_DATA")
    if folder is None:
        parser.error("SCANRNN_SHARED_DATA is not set; expected the folder of data sets")
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    table, not_read = sweep(Path(folder), arguments.sets, arguments.columns)
    print("\n".join(f"not read: {line}" for line in not_read))
    print(as_markdown(table))
    results: dict[str, Any] = {
        f"{name} x {factor}, H {hidden}": distances.tolist()
        for name, factors in table.items()
        for factor, by_hidden in factors.items()
        for hidden, distances in by_hidden.items()
    }
    finish("faithfulness", results)


if __name__ == "__main__":
    main()
