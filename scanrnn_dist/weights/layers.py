"""Lists of layers, and the one place where an `Encoder` is made of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flax import nnx

from scanrnn_dist.encoder import Encoder

Layer = nnx.RNNCellBase | tuple[nnx.RNNCellBase, nnx.RNNCellBase]
"""A cell, or the cells of both directions, the forward one first."""


def as_encoder(layers: Sequence[Layer], **options: Any) -> Encoder:
    """The `Encoder` of layers, first layer first; `options` (such as `readout`) are those of `Encoder`."""
    alone = len(layers) == 1 and not isinstance(layers[0], tuple)
    chosen: Any = layers[0] if alone else layers
    return Encoder(chosen, **options)
