"""Global arrays: a `jax.Array` whose rows lie on the devices of a mesh, perhaps of several processes; its features.

Each process takes the rows that it holds, and puts their features where the rows were. Nothing travels between devices.
Encoding them is `arrays.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scanrnn_dist.engine import AXIS
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.ragged import numbers_of


class RowShards:
    """Which rows of a global array this process holds, on which devices; see `shards_of`."""

    def __init__(self, array: jax.Array, sharding: NamedSharding) -> None:
        if sharding.shard_shape(array.shape)[1:] != array.shape[1:]:
            others = [axis for axis in sharding.spec[1:] if axis is not None]
            raise ConfigError(
                f"The sequences are sharded as {sharding.spec}, over {others} within a row; expected rows that are "
                f"whole: jax.device_put(x, NamedSharding(mesh, {PartitionSpec(sharding.spec[0])}))."
            )
        self.array, self.sharding, self.rows = array, sharding, len(array)
        index = sharding.addressable_devices_indices_map(array.shape)
        self._of_device: dict[Any, tuple[int, int]] = {
            device: _bounds(at, self.rows) for device, at in index.items() if at is not None
        }
        self.ranges = sorted(set(self._of_device.values()))

    @property
    def mesh(self) -> Mesh:
        """The devices of this process that hold rows, as a mesh."""
        devices = sorted(self._of_device, key=lambda device: device.id)
        return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))

    @property
    def _told(self) -> str:
        return ", ".join(f"{begin} to {end - 1}" for begin, end in self.ranges)

    def taken(self, name: str, array: Any) -> Any:
        """This process's rows of an array with all rows, or of a global one with the same rows on the same devices."""
        if array is None:
            return None
        expected = f"one entry for each of {self.rows} rows"
        is_sharded = isinstance(array, jax.Array) and not array.is_fully_replicated
        given: Any = array if is_sharded else numbers_of(name, array, expected)
        if given.shape[:1] != (self.rows,):
            raise DataError(f"{name} has shape {given.shape}; expected {expected}.")
        if is_sharded:
            parts = {
                _bounds(shard.index, self.rows): shard.data
                for shard in given.addressable_shards
                if shard.data.shape[1:] == given.shape[1:]
            }
            if parts.keys() >= set(self.ranges):
                return np.concatenate([np.asarray(parts[bounds]) for bounds in self.ranges])
            if not given.is_fully_addressable:
                raise ConfigError(
                    f"{name} is sharded as {given.sharding}, so this process does not hold its rows {self._told} "
                    f"whole; expected its rows where those of the sequences are, {self.sharding}."
                )
        whole = np.asarray(given) if is_sharded else given
        return whole[np.concatenate([np.arange(begin, end) for begin, end in self.ranges])]

    def joined(self, features: np.ndarray) -> jax.Array:
        """The global array of the features of all rows, given those of this process's."""
        starts = np.cumsum([0, *(end - begin for begin, end in self.ranges)])
        at = {bounds: slice(*starts[nth : nth + 2]) for nth, bounds in enumerate(self.ranges)}
        parts = [jax.device_put(features[at[bounds]], device) for device, bounds in self._of_device.items()]
        sharding = NamedSharding(self.sharding.mesh, PartitionSpec(self.sharding.spec[0]))
        shape = self.rows, features.shape[1]
        return jax.make_array_from_single_device_arrays(shape, sharding, parts, dtype=features.dtype)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors within say which rows the numbers are of."""
        try:
            yield
        except DataError as error:
            raise DataError(
                f"In process {jax.process_index()}, which holds the rows {self._told} of {self.rows} and counts them "
                f"from 0: {error}"
            ) from error


def shards_of(sequences: Any) -> RowShards | None:
    """The shards of a global array; None for all else, such as an array on one device or on each of several.

    Raises:
        ConfigError: an array of which this process does not hold whole rows.
    """
    if not isinstance(sequences, jax.Array) or isinstance(sequences, jax.core.Tracer) or sequences.ndim == 0:
        return None
    sharding = sequences.sharding
    if isinstance(sharding, NamedSharding) and len(sharding.spec) > 0 and sharding.spec[0] is not None:
        return RowShards(sequences, sharding)
    if sequences.is_fully_addressable or sequences.is_fully_replicated:
        return None
    raise ConfigError(
        f"The sequences lie on devices of several processes as {sharding}; expected their rows sharded over axes of a "
        f"mesh: jax.device_put(x, NamedSharding(mesh, PartitionSpec({AXIS!r})))."
    )


def _bounds(index: tuple[slice, ...], rows: int) -> tuple[int, int]:
    begin, end, _ = index[0].indices(rows)
    return begin, end
