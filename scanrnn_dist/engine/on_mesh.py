"""What an engine says of an encoder and its devices, before anything is compiled."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, StatefulEncoder
from scanrnn_dist.engine.mesh import AXIS


class OnMesh:
    """One encoder of one direction, and the devices that it is for, as `EngineLike` has it."""

    def __init__(self, encoder: Encoder, mesh: Mesh, own_carries: bool) -> None:
        self.encoder, self.mesh, self.own_carries = encoder, mesh, own_carries
        self.in_features, self.out_features = encoder.in_features, encoder.out_features
        self.flops_per_step, self.gives_steps = encoder.flops_per_step, encoder.gives_steps
        self.kept_step_bytes = 0
        self.dtype = np.dtype(encoder.pool_dtype)
        self.carry_features = encoder.carry_features if own_carries else 0
        self.first_state = encoder.first_state if isinstance(encoder, StatefulEncoder) else np.zeros(0, self.dtype)
        self.state_features = len(self.first_state)
        self.devices = mesh.shape[AXIS]
