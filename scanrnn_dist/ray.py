"""Inside Ray Data: `FeaturizeBatches`, a class for `Dataset.map_batches`, whose actors each load the encoder once.

Ray Data reads, places, retries and writes; there are no records, so a run that dies begins again. A batch is
`api/batches.py`'s. Ray is imported where one of its actors asks it for its CPUs, and nowhere before.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import jax
import pyarrow as pa

from scanrnn_dist.api import BatchFeaturizer
from scanrnn_dist.engine import default_mesh
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.observe import cpu_devices_are_chosen

RAY_TENSOR = "ray.data.arrow_tensor"
"""How the names of its types of tensors of one shape begin."""

logger = logging.getLogger("scanrnn_dist")


class FeaturizeBatches(BatchFeaturizer):
    """A `BatchFeaturizer` for `map_batches` of Ray Data: one in each actor, with the devices that Ray gave the actor.

    On a CPU JAX takes as many devices as the actor's `num_cpus`, if it is not started yet and neither `XLA_FLAGS` nor
    `JAX_NUM_CPU_DEVICES` says. An `Encoder` that is handed over as such starts it when it arrives: with several CPUs an
    actor, give a function that returns it, the content of its file (`Path("encoder.safetensors").read_bytes()`), or a
    path that all nodes see. With `num_gpus=1` JAX finds the GPU that Ray gave the actor. A batch should have thousands
    of rows, so that its last window is one of many.

    Args:
        encoder, options: as of `BatchFeaturizer`.

    Raises:
        ConfigError: options that do not go together, or no such encoder.

    Example:
        >>> import ray, scanrnn_dist as srd  # doctest: +SKIP
        >>> ray.data.read_parquet("recordings/").map_batches(  # doctest: +SKIP
        ...     srd.ray.FeaturizeBatches, fn_constructor_kwargs={"encoder": encoder, "column": "sequence"},
        ...     batch_format="pyarrow", batch_size=8192, compute=ray.data.ActorPoolStrategy(size=2),
        ... ).write_parquet("features/")
    """

    def __init__(self, encoder: Any, **options: Any) -> None:
        super().__init__(encoder, **options)
        cpus = _cpus_of_actor()
        _choose_cpu_devices(cpus)
        _ = self.encoder  # made now, while Ray waits for its actors; an error then tells before any data is read
        found = default_mesh().devices
        if cpus is not None and len(found) < cpus and found[0].platform == "cpu":
            logger.warning(
                "JAX was started before with %d of the actor's %d CPUs. Give the encoder as a function, or the content "
                "or path of its file.",
                len(found),
                cpus,
            )

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """The kept columns of a batch and the features of its rows, in order; raises as `BatchFeaturizer`."""
        if not isinstance(batch, pa.Table | pa.RecordBatch):
            arrived = type(batch).__name__
            raise ConfigError(
                f"The batch is a {arrived}; expected a pyarrow Table: map_batches(batch_format='pyarrow')."
            )
        return super().__call__(_with_known_tensors(pa.table(batch)))


def _cpus_of_actor() -> int | None:
    """The CPUs that Ray gave the actor of this process, at least 1; None outside of one."""
    if "ray" not in sys.modules:
        return None
    import ray

    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return None
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _choose_cpu_devices(devices: int | None) -> None:
    """Have JAX take so many devices of the CPU, where it is not started, and nobody else has chosen."""
    if devices is None or cpu_devices_are_chosen():
        return
    with suppress(RuntimeError):  # JAX is started, and keeps the devices that it has
        jax.config.update("jax_num_cpu_devices", devices)


def _with_known_tensors(batch: pa.Table) -> pa.Table:
    """A batch whose tensors `(T, D)` of Ray's own type, which numpy arrays become in Ray Data, are Arrow's tensors."""
    for number, field in enumerate(batch.schema):
        shape: tuple[int, ...] = getattr(field.type, "shape", None) or ()
        if not str(getattr(field.type, "extension_name", "")).startswith(RAY_TENSOR) or len(shape) != 2:
            continue
        if batch.column(number).null_count:
            continue  # which is told as a type that is not known
        chunks = [chunk.storage for chunk in batch.column(number).chunks]
        stored = pa.concat_arrays(chunks) if chunks else pa.array([], field.type.storage_type)
        value = stored.type.value_type
        if size := shape[0] * shape[1]:
            tensors = pa.fixed_shape_tensor(value, shape)
            lists = pa.FixedSizeListArray.from_arrays(stored.flatten(), size)
            column = pa.ExtensionArray.from_storage(tensors, lists)
        else:  # no Arrow tensor has no numbers
            column = pa.array([[]] * len(stored), pa.list_(pa.list_(value)))
        batch = batch.set_column(number, field.name, column)
    return batch
