"""Small Parquet sources for the tests of jobs, and what their features have to be by the specification."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh

from scanrnn_dist.api import EncoderOnDevices, computation, explanation, verification
from scanrnn_dist.api import data_sets as job
from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli import computation as asked
from scanrnn_dist.encoder import Encoder, StatefulEncoder, encoder_of_content
from scanrnn_dist.engine.kernels import loaded
from scanrnn_dist.errors import StoppedError
from scanrnn_dist.job import Handling, JobOptions, JobReport, run_job
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.spec import scan_rnn_forward

TOLERANCE = 1e-6  # the bound of the design for float32 at precision "highest"
SEED, D, H = 2, 3, 5
SHAPE = WindowShape(lanes=4, block_steps=4, window_blocks=8)  # 32 steps a lane: many windows even for few rows
SEQUENCE = pa.list_(pa.list_(pa.float32()))
FILE_ROWS = 4
NAN = [[1.0] * D, [1.0, float("nan"), 1.0], [1.0] * D, [1.0] * D]
_WHY = loaded()
needs_native = pytest.mark.skipif(isinstance(_WHY, str), reason=f"There is no native kernel. {_WHY}")


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))


@functools.cache
def encoder_of(seed: int = SEED, in_features: int = D, hidden: int = H) -> Encoder:
    return Encoder.from_seed(seed, in_features, hidden)


_specified: dict[Any, np.ndarray] = {}


def featurize(source: Any, destination: Path, encoder: Encoder | None = None, **options: Any) -> JobReport:
    """`job.featurize` with a small window on one device."""
    options = {"mesh": mesh_of(1), "window_shape": SHAPE, **options}
    return job.featurize(encoder or encoder_of(), source, destination, **options)


def resume(destination: Path) -> JobReport:
    """Go on with a job by what its records say."""
    return run_job(destination, None, JobOptions(), Handling(), EncoderOnDevices(encoder_of(), mesh_of(1)))


def random_rows(lengths: Any, seed: int = 0, in_features: int = D) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(int(length), in_features)).astype(np.float32) for length in lengths]


def some_lengths(rows: int, seed: int = 0) -> np.ndarray:
    """Few different lengths, since each costs the specification a compilation: empty, a block, beyond a window."""
    return np.random.default_rng(seed).choice([0, 1, 4, 9, 40], rows)


def write_source(path: Path, rows: list[Any], row_group_size: int = 5, type: Any = SEQUENCE, **columns: Any) -> Path:
    """A file with `id`, the given columns and `sequence`; rows are arrays or nested lists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nested = [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]
    own = {"id": pa.array(range(len(rows)), pa.int64()), **columns, "sequence": pa.array(nested, type)}
    pq.write_table(pa.table(own), path, row_group_size=row_group_size)
    return path


def categories(begin: int, end: int, ordered: bool = False) -> pa.DictionaryArray:
    """A value for each number, which int8 tells apart, as pandas writes up to 127 categories."""
    values = pa.array([f"k{number}" for number in range(begin, end)])
    return pa.DictionaryArray.from_arrays(pa.array(range(end - begin), pa.int8()), values, ordered=ordered)


def write_file(folder: Path, number: int, bad: bool = False) -> Path:
    """A file of one unit of `FILE_ROWS` rows; row 2 of a bad one holds a NaN."""
    rows: list[Any] = random_rows([4] * FILE_ROWS, number)
    if bad:
        rows[2] = NAN
    ids = pa.array(range(FILE_ROWS * number, FILE_ROWS * (number + 1)))
    return write_source(folder / f"{number:02}.parquet", rows, id=ids)


def write_files(folder: Path, bad: set[int], files: int) -> Path:
    """A folder of such files, some of them bad."""
    for number in range(files):
        write_file(folder, number, number in bad)
    return folder


TOGETHER = 8
"""So many rows of one length the specification computes at once, so that each length is compiled once."""


@functools.cache
def _forward(length: int, in_features: int, steps: int, seed: int, hidden: int) -> Callable[[np.ndarray], np.ndarray]:
    """`scan_rnn_forward` of `(TOGETHER, length, in_features)`.

    The cell that it builds is built here once, outside its compilation, which would otherwise draw the weights anew.
    """
    cell = _cell(in_features, hidden, seed)
    forward = jax.jit(jax.vmap(lambda x: scan_rnn_forward(seed, x, hidden, steps)))

    def features(x: np.ndarray) -> np.ndarray:
        with mock.patch.object(nnx, "GRUCell", lambda **_: cell):
            return np.asarray(forward(x))

    return features


@functools.cache
def _cell(in_features: int, hidden: int, seed: int) -> nnx.GRUCell:
    return nnx.GRUCell(in_features, hidden, rngs=nnx.Rngs(seed))


def specification(
    rows: list[np.ndarray], max_steps: int | None = None, seed: int = SEED, hidden: int = H
) -> np.ndarray:
    """`scan_rnn_forward` of every row, `(N, H)`; no row twice in a run."""
    keys = [(row.tobytes(), row.shape, max_steps, seed, hidden) for row in rows]
    unknown: dict[int, list[int]] = {}
    for i, key in enumerate(keys):
        if key not in _specified:
            unknown.setdefault(len(rows[i]), []).append(i)
    for length, same in unknown.items():
        forward = _forward(length, rows[0].shape[1], length if max_steps is None else max_steps, seed, hidden)
        for begin in range(0, len(same), TOGETHER):
            some = same[begin : begin + TOGETHER]
            padded = some + some[:1] * (TOGETHER - len(some))
            features = forward(np.stack([rows[i] for i in padded]))
            _specified.update({keys[i]: row for i, row in zip(some, features[: len(some)], strict=True)})
    return np.stack([_specified[key] for key in keys])


def features_of(destination: Path) -> np.ndarray:
    """The features of an output, `(N, H)`, as any reader of Parquet data sets finds them."""
    column = pq.read_table(destination)["features"].combine_chunks()
    assert not column.null_count
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


def threads() -> list[str]:
    """The threads of the job that run; what the engine starts is its own affair."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("scanrnn-reader", "scanrnn-writer"))]


def entries(folder: Path) -> dict[str, bytes | None]:
    """Every entry below a folder, hidden ones too, with the content of the files."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def parts_of(destination: Path) -> dict[str, bytes | None]:
    """The parts of an output, with their content."""
    return {name: content for name, content in entries(destination).items() if name.startswith("part-")}


def leftovers(folder: Path) -> list[str]:
    """What stands aside and should not once a job has ended."""
    return [name for name in entries(folder) if name.endswith(".tmp") or Path(name).name.startswith(".")]


def stop_once_committed(out: Path, rows: int) -> Callable[[int], None]:
    """To be told of rows: stops the job once there were so many, and a part stands."""
    done = [0]

    def on_rows(some: int) -> None:
        done[0] += some
        if done[0] >= rows:
            while not list(out.glob("part-*")):  # the writer is behind
                time.sleep(0.001)
            raise StoppedError("SIGTERM")

    return on_rows


def build_encoders_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands and doors take encoders that they built before, of the same bytes or flags: a third of a small job.

    So nothing may change one.
    """
    monkeypatch.setattr(verification, "encoder_of_content", _encoder_of_content)
    monkeypatch.setattr(computation, "StatefulEncoder", _stateful_encoder)
    monkeypatch.setattr(asked, "random_encoder", _random_encoder)


def forget_encoders() -> None:
    """The next command builds and draws its encoder anew."""
    _read.clear()
    _random_encoder.cache_clear()


_read: dict[bytes, Any] = {}
_stateful_encoder = functools.cache(StatefulEncoder)
_random_encoder = functools.cache(asked.random_encoder)


def _encoder_of_content(kind: type, content: bytes, where: str) -> Any:
    if content not in _read:
        _read[content] = encoder_of_content(kind, content, where)
    return _read[content]


def keep_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands run in this process, whose devices cannot be changed any more."""
    assert cli.run  # so that its modules are imported
    for name, module in list(sys.modules.items()):
        if name.startswith("scanrnn_dist.cli.") and not name.endswith(".process") and hasattr(module, "start_devices"):
            monkeypatch.setattr(module, "start_devices", lambda devices: None)


def command_line_in_this_process(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """For tests of `cli.run`: JAX has its devices already."""
    keep_devices(monkeypatch)
    build_encoders_once(monkeypatch)
    monkeypatch.setattr(explanation, "_MEASURED_FLOPS", 1)  # of `plan`, which would take a second with small windows
    monkeypatch.setenv("COLUMNS", str(columns))
