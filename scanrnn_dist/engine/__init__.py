"""The engine: one encoder compiled for some devices, and streams of rows through it.

It knows JAX and no Parquet, and keeps the promises of `protocols.py`; `build_engine` chooses what stands behind them.
"""

from scanrnn_dist.engine.building import build_engine, chosen_kernel, why_no_native
from scanrnn_dist.engine.compilation_cache import use_compilation_cache
from scanrnn_dist.engine.engine import Engine, NativeEngine
from scanrnn_dist.engine.environment import environment_of
from scanrnn_dist.engine.fitting import fitting_shape, refusal
from scanrnn_dist.engine.lowering import lowered_window
from scanrnn_dist.engine.mesh import AXIS, checked_mesh, default_mesh, replicated, sharded
from scanrnn_dist.engine.native import native_window_bytes
from scanrnn_dist.engine.profiling import profile, stage
from scanrnn_dist.engine.row_queue import address_of, queue_of
from scanrnn_dist.engine.shapes import known_kind, window_shape_for
from scanrnn_dist.engine.submitting import WINDOWS_IN_FLIGHT
