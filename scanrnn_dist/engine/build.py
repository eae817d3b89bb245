"""Which engine an encoder gets."""

from __future__ import annotations

from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.bidirectional import BidirectionalEngine
from scanrnn_dist.engine.engine import Engine
from scanrnn_dist.protocols import EngineLike, WindowShape


def build_engine(
    encoder: Encoder, mesh: Mesh | None = None, shape: WindowShape | None = None, own_carries: bool = False
) -> EngineLike:
    """The engine for an encoder, compiled; for the arguments see `Engine`."""
    kind = BidirectionalEngine if encoder.is_bidirectional else Engine
    return kind(encoder, mesh, shape, own_carries)
