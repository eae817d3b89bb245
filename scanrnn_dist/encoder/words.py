"""An encoder for a person: in a line, "bidirectional GRU of 2 layers, ...", and the arguments that its class takes."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any

import jax
import numpy as np
from flax import nnx

from scanrnn_dist.errors import counted

KINDS = {"GRUCell": "GRU", "LSTMCell": "LSTM", "OptimizedLSTMCell": "LSTM", "SimpleCell": "RNN"}
"""What people call the cells of flax."""


def in_words(encoder: Any) -> str:
    """What an encoder is, in one line.

    Example:
        >>> from scanrnn_dist.encoder import Encoder
        >>> in_words(Encoder.from_seed(0, 3, 8, num_layers=2, bidirectional=True))
        'bidirectional GRU of 2 layers, 8 hidden features each way, 3 features per step -> 16 features, 1,776 weights'
    """
    cells, layers = encoder.cells, len(encoder.layers)
    kinds = " and ".join(dict.fromkeys(map(_kind, cells)))
    ways, each = ("bidirectional ", " each way") if encoder.is_bidirectional else ("", "")
    told = [f"{ways}{kinds} of {counted(layers, 'layer')}"]
    if all(hasattr(cell, "hidden_features") for cell in cells):
        sizes = dict.fromkeys(f"{int(cell.hidden_features):,}" for cell in cells)
        told += [f"{' and '.join(sizes)} hidden feature{'s' * (list(sizes) != ['1'])}{each}"]
    if encoder.readout_names != ("last",):
        told += [f"readout {'+'.join(encoder.readout_names)}"]
    per = " per step" if encoder.gives_steps else ""
    weights = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(nnx.state(encoder, nnx.Param)))
    told += [f"{counted(encoder.in_features, 'feature')} per step -> {counted(encoder.out_features, 'feature')}{per}"]
    return ", ".join([*told, f"{weights:,} weights"])


def _kind(cell: Any) -> str:
    """What a cell is called; an activation that its kind does not usually have is told."""
    name = type(cell).__name__
    activation = getattr(getattr(cell, "activation_fn", None), "__name__", "tanh")
    return KINDS.get(name, name) + (f" ({activation})" if name in KINDS and activation != "tanh" else "")


class SignatureOfInit:
    """A class's `__signature__`: the arguments of its own `__init__`, which flax's metaclass hides behind `*args`."""

    def __get__(self, instance: Any, owner: Any) -> inspect.Signature:
        """None of an instance, whose arguments are those of `__call__`."""
        if instance is not None:
            raise AttributeError("__signature__")
        return inspect.signature(MethodType(owner.__init__, owner))
