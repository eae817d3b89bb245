"""What a job computes with: an encoder and the devices that it runs on, as `job/` knows them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from jax.sharding import Mesh

from scanrnn_dist.encoder import Encoder, StatefulEncoder, encoder_content
from scanrnn_dist.engine import (
    build_engine,
    checked_mesh,
    chosen_kernel,
    environment_of,
    fitting_shape,
    stage,
    why_no_native,
    window_shape_for,
)
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job import RECIPE, Computation, InFeatures
from scanrnn_dist.kinds import check_kind
from scanrnn_dist.protocols import EngineLike, WindowShape

logger = logging.getLogger("scanrnn_dist")


class EncoderOnDevices(Computation):
    """An encoder that is there, on a mesh.

    Args:
        encoder: of the job.
        mesh: whose devices share the rows; all local ones when None.
        shape: of the windows; what suits the devices when None.
        sizes: numbers of the shape that were chosen; the others are what suits the devices.
        kernel: what computes, `"native"` or `"xla"`; that of the job, or the native one, if it can be had, when None.
    """

    stage = staticmethod(stage)

    def __init__(
        self,
        encoder: Encoder,
        mesh: Mesh | None = None,
        shape: WindowShape | None = None,
        sizes: Mapping[str, int] | None = None,
        kernel: str | None = None,
    ) -> None:
        check_kind("window_shape", shape, WindowShape | None)
        self.encoder, self._mesh, self._kernel = encoder, mesh, kernel
        self._shape, self._sizes = shape, dict(sizes or (asdict(shape) if shape else {}))
        self._engine: EngineLike | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For workers, which have devices of their own."""
        if self._mesh is not None:
            raise ConfigError("Workers use the devices that they find; leave out either the mesh or the executor.")
        return {**self.__dict__, "_engine": None}

    @property
    def input(self) -> InputSpec | None:
        return self.encoder.input

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        self._mesh = checked_mesh(self._mesh)
        return self._mesh

    @property
    def kernel(self) -> str:
        """What computes: what was asked for, or what suits the encoder, unless a job says it later (`described`)."""
        return chosen_kernel(self.encoder, self.mesh, self._kernel)

    @property
    def shape(self) -> WindowShape:
        """Of the windows."""
        if self._shape is None:
            self._shape = replace(window_shape_for(self.encoder, self.mesh, kernel=self.kernel), **self._sizes)
        return self._shape

    def fit(self) -> WindowShape:
        """The shape of the windows, after it was tried out on the devices; lanes that were chosen are not."""
        if "lanes" not in self._sizes:
            self._shape = fitting_shape(self.encoder, self.mesh, self.shape)
        return self.shape

    def is_known(self, job: Mapping[str, Any]) -> bool:
        window = job["window"]
        is_shape = all(window[name] == number for name, number in self._sizes.items())
        return is_shape and bool(job["encoder"]["fingerprint"] == self.encoder.fingerprint)

    def is_recorded(self, job: Mapping[str, Any], in_features: InFeatures) -> bool:
        return self.is_known(job)

    def described(self, in_features: InFeatures, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
        recipe = {}
        if like is not None and like["encoder"]["fingerprint"] == self.encoder.fingerprint:
            recipe = {RECIPE: like[RECIPE]} if RECIPE in like else {}  # it tells how this encoder was drawn
            self._shape = replace(WindowShape(**like["window"]), **self._sizes)  # nothing is tried out again
            recorded = like["environment"]["kernel"]
            if recorded == "xla" or not why_no_native(self.encoder, self.mesh):
                self._kernel = self._kernel or recorded
        else:
            self.fit()
        return {
            "encoder": {"fingerprint": self.encoder.fingerprint, "architecture": self.encoder.architecture},
            "window": asdict(self.shape),
            "environment": environment_of(self.mesh, self.kernel),
            **recipe,
        }

    def engine(self, own_carries: bool, keep_state: bool) -> EngineLike:
        if self._engine is None:
            if self.kernel != "native":
                why = why_no_native(self.encoder, self.mesh) or "xla was asked for, or the job was begun with it."
                logger.debug("The kernel is not native. %s", why)
            # All rows bring a state where any may: so those that are begun and those that go on share a program.
            encoder = StatefulEncoder(self.encoder) if keep_state else self.encoder
            self._engine = build_engine(encoder, self.mesh, self.shape, own_carries or keep_state, self.kernel)
        return self._engine

    def encoder_content(self) -> bytes | None:
        try:
            return encoder_content(Encoder, self.encoder)
        except ConfigError:  # a cell or readout that no file can hold
            return None
