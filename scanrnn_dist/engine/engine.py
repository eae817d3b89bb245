"""`Engine`: an encoder whose layers read in one direction, in one program that XLA compiles."""

from __future__ import annotations

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.run import Run


class Engine(CompiledWindow):
    """One encoder compiled for one window shape on one mesh.

    Args:
        encoder: cells, not bidirectional, and readout; its weights are copied to every device once.
        mesh: a mesh with an axis `"data"`, whose devices share the rows; all local devices when None.
        shape: lanes, block and window; what suits the device kind when None.
        own_carries: whether every row brings an initial carry of its own.

    Raises:
        ConfigError: a mesh without `"data"` or with devices of other processes, or a shape with a number below 1.
    """

    kernel = "xla"

    def run(self, memory_bytes: int | None = None, look_ahead_bytes: int | None = None) -> Run:
        """Begin a stream of rows."""
        return Run(self, look_ahead_bytes, memory_bytes=memory_bytes)
