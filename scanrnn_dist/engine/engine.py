"""The engines of encoders whose layers read in one direction: `Engine`, which XLA compiles, and `NativeEngine`."""

from __future__ import annotations

from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.native import NativeProgram
from scanrnn_dist.engine.native_run import NativeRun
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

    def run(self, memory_bytes: int | None = None, *, is_backward: bool = False) -> Run:
        """Begin a stream of rows, each read from its last step to its first where `is_backward`."""
        return Run(self, memory_bytes, is_backward)


class NativeEngine(NativeProgram):
    """One encoder for the native CPU kernel; for the arguments see `Engine`, and for what it takes `why_no_native`."""

    def run(self, memory_bytes: int | None = None, *, is_backward: bool = False) -> NativeRun:
        """Begin a stream of rows, each read from its last step to its first where `is_backward`."""
        return NativeRun(self, memory_bytes, is_backward)
