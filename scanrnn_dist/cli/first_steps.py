"""The command `scanrnn demo`: everything once, on made-up data, and what to try next."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli import running
from scanrnn_dist.cli.computation import DEFAULT_HIDDEN, AskedComputation
from scanrnn_dist.cli.options import count, option
from scanrnn_dist.cli.printing import indented, print_result
from scanrnn_dist.cli.process import SIGNALS, start_devices, use_cache
from scanrnn_dist.errors import ConfigError


def demo(
    folder: Annotated[
        Path, option("Where to put everything; new or empty (default: scanrnn-demo).", metavar="DIR")
    ] = Path("scanrnn-demo"),
    rows: Annotated[int, option("Recordings to make (default: 3,000).", metavar="N", min=12)] = 3000,
    kind: Annotated[
        Literal["sensors", "columns", "long"],
        option("Lists of six numbers, a list column for each sensor, or one step a row (default: sensors)."),
    ] = "sensors",
    hidden: Annotated[int, count("Number of features (default: 64).")] = DEFAULT_HIDDEN,
    seed: Annotated[int, option("Seed of the data and of the weights (default: 0).", metavar="N", min=0)] = 0,
    devices: flags.Devices = None,
    compilation_cache: flags.CacheFolder = None,
) -> None:
    """Make sensor data, featurize it on all cores, check it against the specification, say what to try next."""
    SIGNALS.rest = "If the demo's folder is there, remove it, then run the same command."
    use_cache(compilation_cache)
    start_devices(devices)
    import pyarrow.parquet as pq

    from scanrnn_dist.api import verify as verify_output
    from scanrnn_dist.cli.demo import CLASSES, FLAGS, SENSORS, make_source, nearest_mean_accuracy, options_of
    from scanrnn_dist.job import Handling

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; choose another with --folder, or remove it.")
    source, destination = folder / "recordings", folder / "features"
    print_result(f"1. {rows:,} recordings of {len(CLASSES)} kinds of machine, {SENSORS} sensors each, in {source}")
    make_source(source, rows, seed, kind)
    print_result(f"2. featurize: a GRU of {hidden} hidden features, random weights of seed {seed}")
    computation = AskedComputation(None, hidden, seed, {}, devices)
    print_result(indented(running.run_shown(str(destination), str(source), options_of(kind), Handling(), computation)))
    print_result("3. verify: a sample of rows, each scanned alone as the specification says")
    print_result(indented(verify_output(destination)))
    table = pq.read_table(destination)
    features = table["features"].combine_chunks().flatten().to_numpy().reshape(rows, hidden)
    accuracy = nearest_mean_accuracy(features, table["kind"].to_numpy(zero_copy_only=False))
    print_result(
        f"   nearest class mean, on rows it has not seen: {accuracy:.0%} right (by chance {1 / len(CLASSES):.0%})"
    )
    python, scanrnn = _as_called("python", sys.executable), _as_called("scanrnn", sys.argv[0])
    print_result("\nTry next:")
    code = f"import pyarrow.parquet as pq; print(pq.read_table({json.dumps(str(destination), ensure_ascii=False)}))"
    print_result(f"   {python} -c {shlex.quote(code)}")
    print_result(f"   {scanrnn} plan {shlex.quote(str(source))}{FLAGS[kind]}")
    print_result(f"   {scanrnn} featurize YOUR.parquet OUT --hidden {hidden} --seed {seed}")


def _as_called(name: str, path: str) -> str:
    """How the reader can call a program: by its name if that finds this very one, by its path, or as a module."""
    if os.path.basename(path) == "__main__.py":
        return f"{_as_called('python', sys.executable)} -m scanrnn_dist"
    found = shutil.which(name)
    # By name: the Python of an environment is a link to one that lacks its packages.
    is_it = found is not None and os.path.abspath(found) == os.path.abspath(path)
    return name if is_it else shlex.quote(os.path.relpath(path))
