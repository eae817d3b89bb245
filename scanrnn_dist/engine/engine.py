"""Which engine an encoder gets, and `Engine`: the one whose layers read in one direction, in one compiled program."""

from __future__ import annotations

from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.bidirectional import BidirectionalEngine
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.fitting import fitting_shape
from scanrnn_dist.engine.mesh import checked_mesh
from scanrnn_dist.engine.run import Run
from scanrnn_dist.engine.shapes import window_shape_for
from scanrnn_dist.protocols import EngineLike, WindowShape


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

    def run(self, memory_bytes: int | None = None) -> Run:
        """Begin a stream of rows."""
        return Run(self, memory_bytes=memory_bytes)


def build_engine(
    encoder: Encoder, mesh: Mesh | None = None, shape: WindowShape | None = None, own_carries: bool = False
) -> EngineLike:
    """The engine for an encoder, compiled; for the arguments see `Engine`.

    Without a `shape` it is what suits the devices, with fewer lanes where their memory holds no more.
    """
    mesh = checked_mesh(mesh)
    shape = shape or fitting_shape(encoder, mesh, window_shape_for(encoder, mesh))
    kind = BidirectionalEngine if encoder.is_bidirectional else Engine
    return kind(encoder, mesh, shape, own_carries)
