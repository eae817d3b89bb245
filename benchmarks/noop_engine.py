"""An engine with the window shapes and the rules of accelerators, whose programs compute nothing; it counts traffic.

All else of it is the real one: what feeds it schedules, copies and sends to the devices that are there. Covered: which
programs are run, and the bytes of features that an accelerator would send back. Not covered: what they would take.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import Engine, default_mesh, window_shape_for
from scanrnn_dist.protocols import WindowShape


@dataclass
class Traffic:
    """What the devices would have done: windows by shape, and bytes that travelled back."""

    windows: Counter[WindowShape] = field(default_factory=Counter)
    bytes_fetched: int = 0


class Nothing:
    """Stands for an array on the devices that nobody computed: all rows are the same numbers, which take no memory.

    The features of a row differ, as of a real program: from features that are all alike nobody learns of its bits.
    """

    def __init__(self, traffic: Traffic, shape: tuple[int, ...], dtype: Any) -> None:
        self._traffic, self._rows = traffic, np.broadcast_to(np.arange(shape[-1], dtype=dtype), (1, *shape[1:]))
        self.addressable_shards = [_Shard(self, (slice(device, device + 1),)) for device in range(shape[0])]

    def is_ready(self) -> bool:
        """It always is."""
        return True

    def block_until_ready(self) -> None:
        """Return at once."""

    def copy_to_host_async(self) -> None:
        """Counted when it is looked at."""

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.broadcast_to(self._rows, (len(self.addressable_shards), *self._rows.shape[1:]))[index]

    def looked_at(self) -> np.ndarray:
        """One device's part, which has travelled to the host then."""
        self._traffic.bytes_fetched += self._rows.nbytes
        return self._rows


class _Shard:
    def __init__(self, whole: Nothing, index: tuple[slice]) -> None:
        self._whole, self.index = whole, index

    @property
    def data(self) -> np.ndarray:
        return self._whole.looked_at()


class NoOpEngine(Engine):
    """An encoder on all local devices as if these were of the kind `"gpu"` or `"tpu"`; nothing is computed."""

    def __init__(self, encoder: Encoder, kind: str, shape: WindowShape | None = None) -> None:
        self.traffic = Traffic()
        mesh = default_mesh()
        with mock.patch("scanrnn_dist.engine.shapes.device_kind", lambda mesh: kind):
            shape = shape or window_shape_for(encoder, mesh)
        super().__init__(encoder, mesh, shape, is_static=True)

    def _compile(self) -> None:
        self.program, self.compilations = self._no_program, 1  # type: ignore[assignment]

    def new_emitted(self) -> Any:
        """What one window emits."""
        spec = self.input_shapes()[2]
        return Nothing(self.traffic, spec.shape, spec.dtype)

    def pick(self, emitted: Any, ends: np.ndarray) -> tuple[Any, int]:
        """More rows of what a window emitted."""
        return Nothing(self.traffic, (*ends.shape, self.out_features), self.dtype), 0

    def _no_program(self, weights: Any, n_blocks: Any, state: Any, emitted: Any, ends: Any, *fed: Any) -> Any:
        self.traffic.windows[self.shape] += 1
        return state, Nothing(self.traffic, (*ends.shape, self.out_features), self.dtype), emitted
