"""TODO engine."""

from scanrnn_dist.engine.backend import start_jax
from scanrnn_dist.engine.bidirectional import BidirectionalEngine, BidirectionalRun, engine_for, run_of
from scanrnn_dist.engine.compilation_cache import use_compilation_cache
from scanrnn_dist.engine.engine import Engine, window_shape_for
from scanrnn_dist.engine.mesh import (
    AXIS,
    checked_mesh,
    compiler_options,
    default_mesh,
    device_kind,
    known_kind,
    replicated,
    sharded,
)
from scanrnn_dist.engine.outputs import FeatureRows
from scanrnn_dist.engine.profiling import PROFILE_SECONDS, profile, stage
from scanrnn_dist.engine.run import LOOK_AHEAD_BYTES, WINDOWS_IN_FLIGHT, Finished, Run, Statistics, checked_max_steps
from scanrnn_dist.engine.schedule import WindowShape

__all__ = [
    "AXIS",
    "LOOK_AHEAD_BYTES",
    "PROFILE_SECONDS",
    "WINDOWS_IN_FLIGHT",
    "BidirectionalEngine",
    "BidirectionalRun",
    "Engine",
    "FeatureRows",
    "Finished",
    "Run",
    "Statistics",
    "WindowShape",
    "checked_max_steps",
    "checked_mesh",
    "compiler_options",
    "default_mesh",
    "device_kind",
    "engine_for",
    "known_kind",
    "profile",
    "replicated",
    "run_of",
    "sharded",
    "stage",
    "start_jax",
    "use_compilation_cache",
    "window_shape_for",
]
