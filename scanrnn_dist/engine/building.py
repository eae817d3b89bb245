"""Which kernel and which engine an encoder gets on some devices."""

from __future__ import annotations

from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.engine.bidirectional import BidirectionalEngine
from scanrnn_dist.engine.engine import Engine, NativeEngine
from scanrnn_dist.engine.fitting import fitting_shape
from scanrnn_dist.engine.kernels import loaded, not_to_be_had, why_not
from scanrnn_dist.engine.mesh import AXIS, checked_mesh, device_kind
from scanrnn_dist.engine.shapes import window_shape_for
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.protocols import EngineLike, WindowShape

KERNELS = ("native", "xla")


def chosen_kernel(encoder: Encoder, mesh: Mesh, kernel: str | None = None) -> str:
    """The `kernel`, `"native"` or `"xla"`; when None the native one where it is there and takes the encoder.

    Raises:
        ConfigError: another name, or a native kernel that is not to be had.
    """
    if kernel not in (None, *KERNELS):
        raise ConfigError(f"The kernel is {kernel!r}; expected one of {', '.join(KERNELS)}, or None.")
    if kernel == "xla":
        return kernel
    why = why_no_native(encoder, mesh)
    if why and kernel is not None:
        raise not_to_be_had(why)
    return "xla" if why else "native"


def why_no_native(encoder: Encoder, mesh: Mesh) -> str:
    """Why the native kernel cannot be used, as a sentence; nothing if it can."""
    kind = device_kind(mesh)
    if kind != "cpu":
        return f"It is for CPUs, and the devices are {kind}."
    if mesh.size != mesh.shape[AXIS]:
        return f"It does no row twice, and the mesh has more axes than {AXIS!r}, along which work is repeated."
    if why := why_not(encoder):
        return f"It does not take this encoder: {why}."
    library = loaded()
    return library if isinstance(library, str) else ""


def build_engine(
    encoder: Encoder,
    mesh: Mesh | None = None,
    shape: WindowShape | None = None,
    own_carries: bool = False,
    kernel: str | None = None,
) -> EngineLike:
    """The engine for an encoder, compiled; for the arguments see `Engine` and `chosen_kernel`.

    Without a `shape` it is what suits the devices, with fewer lanes where their memory holds no more.
    """
    mesh = checked_mesh(mesh)
    kernel = chosen_kernel(checked_encoder(encoder), mesh, kernel)
    shape = shape or fitting_shape(encoder, mesh, window_shape_for(encoder, mesh, kernel=kernel))
    of_direction = NativeEngine if kernel == "native" else Engine
    if encoder.is_bidirectional:
        return BidirectionalEngine(encoder, mesh, shape, own_carries, of_direction)
    return of_direction(encoder, mesh, shape, own_carries)
