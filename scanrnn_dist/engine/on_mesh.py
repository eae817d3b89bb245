"""What an engine says of an encoder and its devices, before anything is compiled."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, StatefulEncoder
from scanrnn_dist.engine.mesh import AXIS
from scanrnn_dist.errors import ConfigError


class OnMesh:
    """One encoder of one direction, and the devices that it is for, as `EngineLike` has it."""

    def __init__(self, encoder: Encoder, mesh: Mesh, own_carries: bool) -> None:
        self.encoder = encoder = _with_local_weights(encoder)
        self.mesh, self.own_carries = mesh, own_carries
        self.in_features, self.out_features = encoder.in_features, encoder.out_features
        self.flops_per_step, self.gives_steps = encoder.flops_per_step, encoder.gives_steps
        self.kept_step_bytes = 0
        self.dtype = np.dtype(encoder.pool_dtype)
        self.carry_features = encoder.carry_features if own_carries else 0
        self.first_state = encoder.first_state if isinstance(encoder, StatefulEncoder) else np.zeros(0, self.dtype)
        self.state_features = len(self.first_state)
        self.devices = mesh.shape[AXIS]


def _with_local_weights(encoder: Encoder) -> Encoder:
    """The encoder; of weights that other processes hold too, this process's own copies."""
    if jax.process_count() == 1:
        return encoder
    graphdef, weights = nnx.split(encoder)
    local: Encoder = nnx.merge(graphdef, jax.tree.map(_local, weights))
    return local


def _local(array: Any) -> Any:
    """This process's own copy of an array; `ConfigError` if it has but a part of it."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return array
    if not (array.is_fully_replicated and array.addressable_shards):
        raise ConfigError(
            f"A weight of the encoder, {array.dtype}{list(array.shape)}, is not whole on this process's devices; "
            "expected weights that each process holds whole. Replicate them first, as "
            "jax.jit(lambda w: w, out_shardings=NamedSharding(mesh, PartitionSpec()))(weights) does."
        )
    return array.addressable_data(0)
