"""`export`: the features of a finished output as one `.npy` file, which numpy maps into memory without reading it.

How parts are read back is `records`' affair. The file is written a row group at a time, beside its name, synced and
renamed, so that it stands there whole or not at all.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scanrnn_dist.disk import whole_file
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job.damage import recorded_parts
from scanrnn_dist.job.plan import Plan
from scanrnn_dist.job.restart import check_not_ready
from scanrnn_dist.observe import as_text
from scanrnn_dist.records import (
    JobRecords,
    are_steps,
    out_features_of,
    part_names,
    read_matrices,
    read_part_schema,
    value_dtype,
)
from scanrnn_dist.storage import check_is_outside, is_uri, open_store

_ENDING = ".npy"


@dataclass(frozen=True)
class Export:
    """What was exported.

    Args:
        destination: the output that was read.
        path: the file that was written.
        rows, out_features: the shape of its array.
        dtype: of its array.
    """

    destination: str
    path: str
    rows: int
    out_features: int
    dtype: str

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        shape = f"{self.rows:,} rows of {self.out_features:,} features, {self.dtype}"
        return f"exported      {self.destination}\nto            {self.path}: {shape}"


def export(destination: str | os.PathLike[str], path: str | os.PathLike[str]) -> Export:
    """Write the features of a finished output, in input order, to one `.npy` file of shape `(N, out_features)`.

    The numbers are those of the parts, in their dtype. A row whose features are null becomes a row of NaN. A file that
    stands there already is replaced. Little memory is needed: parts are read a row group at a time.

    Args:
        destination: the folder or URI that `featurize` wrote to.
        path: a file of this machine, whose name ends in `.npy`.

    Returns:
        Where it is, its shape and its dtype.

    Raises:
        ConfigError: the destination holds no job or an unfinished one, a row has features for each of its steps, or the
            path is not one to write to.
        DataError: a part is missing or cannot be read.
        StoppedError: the disk refuses, or another job took the place of the one that was read.

    Example:
        >>> import pyarrow as pa, pyarrow.parquet as pq, tempfile
        >>> import scanrnn_dist as srd
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"sequence": [[[0.5, 1.0]], []]}), folder + "/in.parquet")
        >>> encoder = srd.Encoder.from_seed(0, in_features=2, hidden_features=3)
        >>> report = srd.featurize(encoder, folder + "/in.parquet", folder + "/out", lossy_cast=True)
        >>> _ = srd.export(folder + "/out", folder + "/features.npy")
        >>> np.load(folder + "/features.npy", mmap_mode="r").shape
        (2, 3)
    """
    path = _checked_path(path)
    records = JobRecords(open_store(destination))
    root = records.store.root
    check_is_outside(path, root)
    job, names, rows = _parts_of(records)
    schema = read_part_schema(records.store, names[0])
    if are_steps(schema):
        raise ConfigError(
            f"{root} holds features of every step, lists of different lengths, and a {_ENDING} file holds one vector "
            "per row. Read the parts with any reader of Parquet, or featurize with another readout."
        )
    shape, dtype = (int(rows.sum()), out_features_of(schema)), value_dtype(schema)
    try:
        with whole_file(path, lambda: records.check_is(job)) as write:
            write(_header(shape, dtype))
            _write_matrices(records, names, rows, dtype, write)
    except OSError as error:
        raise StoppedError(
            f"{path} could not be written: {error.strerror or error}. The file that was there before "
            "is unchanged. Remove the cause, then export again."
        ) from error
    return Export(root, path, *shape, str(dtype))


def _write_matrices(
    records: JobRecords, names: list[str], rows: np.ndarray, dtype: np.dtype, write: Callable[[bytes], int]
) -> None:
    """Write the features of parts, which hold so many rows, one after the other."""
    for name, expected in zip(names, rows.tolist(), strict=True):
        found = 0
        for matrix in read_matrices(records.store, name):
            write(matrix.astype(dtype.newbyteorder("<"), copy=False).tobytes())
            found += len(matrix)
        if found != expected:
            raise DataError(f"{records.store.path(name)} holds {found:,} rows; expected {expected:,}, as recorded.")


def _checked_path(path: str | os.PathLike[str]) -> str:
    told = os.path.expanduser(os.fspath(path))
    if is_uri(told):
        raise ConfigError(f"{told} is a URI; expected a file of this machine, which numpy can map into memory.")
    if not told.endswith(_ENDING):
        raise ConfigError(f"The file to export to is named {told!r}; expected a name that ends in {_ENDING}.")
    if os.path.isdir(told):
        raise ConfigError(f"{told} is a folder; expected the name of a file.")
    folder = os.path.dirname(told) or "."
    if not os.path.isdir(folder):
        raise ConfigError(f"There is no folder {folder} to write {os.path.basename(told)} to; make it first.")
    return told


def _parts_of(records: JobRecords) -> tuple[dict[str, object], list[str], np.ndarray]:
    """The job of an output that is finished, the names of its parts and the rows of each, in input order."""
    root = records.store.root
    check_not_ready(records, "export")
    job = records.read_job()
    plan = Plan.read(records, job)
    parts, is_complete = recorded_parts(records, job, plan.units)
    if not is_complete:
        raise ConfigError(
            f"{root} is unfinished: {len(parts):,} of {len(plan.units):,} parts are saved. Start the command that "
            "makes it again, which goes on from there; then export."
        )
    return job, part_names(parts["unit"].to_pylist(), len(plan.units)), parts["rows"].to_numpy()


def _header(shape: tuple[int, int], dtype: np.dtype) -> bytes:
    """The beginning of a `.npy` file."""
    header = io.BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(dtype.newbyteorder("<")), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, told)
    return header.getvalue()
