"""What the flags of a command ask to compute with; JAX is started and the encoder drawn when that is needed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanrnn_dist.cli.encoder import random_encoder
from scanrnn_dist.cli.process import start_devices, use_cache
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.observe import check_fits as check_memory

if TYPE_CHECKING:
    from scanrnn_dist.api import EncoderOnDevices
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.input_spec import InputSpec
    from scanrnn_dist.job import InFeatures
    from scanrnn_dist.protocols import EngineLike, Stage

logger = logging.getLogger("scanrnn_dist")

DEFAULT_HIDDEN = 64
"""Where a command can do without being told: demo and plan."""


class AskedComputation:
    """A `Computation` of `job/`, as the flags of a command ask for it.

    Args:
        file: of an encoder, or what it holds; None for random weights.
        hidden: features of a GRU with random weights.
        seed: of these.
        sizes: numbers of the window shape that were chosen.
        devices: of the CPU; one per core when None.
        input: what a step holds, for random weights; a file says itself what its encoder takes.
        cache: folder for compiled programs, if any.
        kernel: what computes, as `featurize` takes it.
        may_choose: whether the command can do without being told of an encoder.
        check_fits: whether to refuse windows that the memory does not hold.

    Raises:
        ConfigError: flags that exclude one another.
    """

    def __init__(
        self,
        file: Path | bytes | None,
        hidden: int | None,
        seed: int | None,
        sizes: dict[str, int],
        devices: int | None,
        cache: Path | None = None,
        *,
        kernel: str | None = None,
        input: InputSpec | None = None,
        may_choose: bool = False,
        check_fits: bool = True,
    ) -> None:
        if may_choose and file is not None and hidden is not None:
            raise ConfigError("Give either --hidden or --encoder FILE; not both.")
        if not may_choose and (file is None) == (hidden is None):
            raise ConfigError("Give either --hidden (and --seed) for random weights, or --encoder FILE; one of them.")
        if file is not None and seed is not None:
            raise ConfigError("--seed is for random weights; those of --encoder are in the file. Leave one out.")
        if file is not None and input is not None:
            raise ConfigError("--input is for random weights; that of --encoder is in the file. Leave one out.")
        self._content = file if isinstance(file, bytes) else _read(file)  # once: somebody may replace the file
        self._sha256 = None if self._content is None else hashlib.sha256(self._content).hexdigest()
        self.input = input if file is None else _input_of(self._content)
        self._file, self._hidden, self._seed = file, hidden or DEFAULT_HIDDEN, seed or 0
        self.sizes, self._devices, self._check_fits = sizes, devices, check_fits
        # Workers may stand in other folders.
        self._cache = None if cache is None else cache.absolute()
        self._kernel = kernel
        self._on_devices: EncoderOnDevices | None = None

    @classmethod
    def of_recipe(cls, recipe: Mapping[str, Any], **given: Any) -> AskedComputation:
        """Random weights, as a job's record says how they were asked for; `given` are the other arguments."""
        from scanrnn_dist.input_spec import InputSpec

        input = None if "input" not in recipe else InputSpec.from_dict(recipe["input"])
        return cls(None, recipe["hidden_features"], recipe["seed"], input=input, **given)

    @property
    def recipe(self) -> dict[str, Any]:
        """How the encoder was asked for: the same recipe gives the same encoder."""
        if self._file is None:
            told = {"hidden_features": self._hidden, "seed": self._seed}
            return told if self.input is None else {**told, "input": self.input.to_dict()}
        return {} if self._sha256 is None else {"file_sha256": self._sha256}

    @property
    def stage(self) -> Stage:
        """Names stages once JAX is started."""
        return nullcontext if self._on_devices is None else self._on_devices.stage

    def on_devices(self, in_features: InFeatures) -> EncoderOnDevices:
        """The encoder on all local devices; starts JAX."""
        if self._on_devices is None:
            use_cache(self._cache)
            start_devices(self._devices)
            from scanrnn_dist.api import EncoderOnDevices, doubts
            from scanrnn_dist.encoder import Encoder

            if self._content is not None:
                encoder = self._encoder_of(self._content)
            elif self._file is not None:
                encoder = Encoder.load(str(self._file))  # which tells why it cannot be read
            else:
                width = in_features() if self.input is None else None
                encoder = random_encoder(self._seed, width, self._hidden, input=self.input)
            on_devices = EncoderOnDevices(encoder, sizes=self.sizes, kernel=self._kernel)
            self._check_windows(on_devices)
            for doubt in doubts(on_devices, self.sizes, self._devices):
                logger.warning("Warning: %s", doubt)
            self._on_devices = on_devices
            if isinstance(self._file, Path):
                self._content = None  # tables of embeddings may be large
        return self._on_devices

    def _check_windows(self, on_devices: EncoderOnDevices) -> None:
        """Refuse windows that the memory does not hold, where that is asked for."""
        if self._check_fits:
            from scanrnn_dist.api import FEWER, window_bytes

            nbytes = window_bytes(on_devices.encoder, on_devices.shape, on_devices.kernel)
            check_memory(nbytes, "Windows of this shape", FEWER)

    def _encoder_of(self, content: bytes) -> Encoder:
        from scanrnn_dist.encoder import Encoder, encoder_of_content

        where = str(self._file) if isinstance(self._file, Path) else "The job's encoder"
        try:
            return encoder_of_content(Encoder, content, where)
        except DataError:
            if isinstance(self._file, Path):
                with suppress(ConfigError, StoppedError):  # a worker may not find it
                    Encoder.load(self._file)  # which knows files of other libraries
            raise

    def __getstate__(self) -> dict[str, Any]:
        """For workers, which may not find the file, and have devices of their own."""
        return {**self.__dict__, "_devices": None, "_on_devices": None}

    def is_known(self, job: Mapping[str, Any]) -> bool | None:
        is_shape = all(job["window"].get(name) == number for name, number in self.sizes.items())
        is_recipe = bool(self.recipe) and job.get("recipe") == self.recipe
        return (is_recipe or None) if is_shape else False

    def is_recorded(self, job: Mapping[str, Any], in_features: InFeatures) -> bool:
        known = self.is_known(job)
        return self.on_devices(in_features).is_recorded(job, in_features) if known is None else known

    def described(self, in_features: InFeatures, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
        on_devices = self.on_devices(in_features)
        told = on_devices.described(in_features, like)
        if like is not None:  # window and kernel may be that job's
            self._check_windows(on_devices)
        return {**told, "recipe": self.recipe}

    def engine(self, own_carries: bool, keep_state: bool) -> EngineLike:
        assert self._on_devices is not None, "described comes first"
        return self._on_devices.engine(own_carries, keep_state)

    def encoder_content(self) -> bytes | None:
        assert self._on_devices is not None, "described comes first"
        return self._on_devices.encoder_content()


def _read(file: Path | None) -> bytes | None:
    """What a file holds; None where it cannot be read, which is told when its weights are."""
    try:
        return None if file is None else file.read_bytes()
    except OSError:
        return None


def _input_of(content: bytes | None) -> InputSpec | None:
    """What a step holds, as the header of an encoder's file says; JAX is not started for it.

    None of a file without one, and of one that cannot be read, which is told when its weights are.
    """
    from scanrnn_dist.input_spec import InputSpec

    try:
        if content is None:
            return None
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        told = json.loads(header["__metadata__"]["architecture"]).get("input")
        return None if told is None else InputSpec.from_dict(told)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
