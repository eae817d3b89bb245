"""Where the time of a job goes: a trace of JAX's profiler, with the stages of the job named in it.

The stages, in the order in which a row goes through them: read, convert, submit, schedule, place, dispatch, fetch,
write, commit. The half of the package that knows no JAX names its own through a callable (`protocols.Stage`).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.threads import Threads

PROFILE_SECONDS = 2.0
"""On CPU every operation of every step is an event, half a million of them a second, and the trace that Perfetto opens
holds the first million."""
RUN_BEGINS = "/scanrnn/run_begins"
"""What a run tells `jax.monitoring` when it is given its first rows."""
_LOOK_SECONDS = 0.05
"""How often it is looked whether the seconds are over."""


def stage(name: str) -> jax.profiler.TraceAnnotation:
    """A context that is named `scanrnn.<name>` in a trace; without one it takes 0.5 us."""
    return jax.profiler.TraceAnnotation(f"scanrnn.{name}")


@contextmanager
def profile(folder: str | os.PathLike[str], seconds: float = PROFILE_SECONDS) -> Iterator[None]:
    """Write a trace of what happens inside, to be opened with TensorBoard (the folder) or Perfetto (`*.trace.json.gz`).

    Args:
        folder: where `plugins/profile/<time>/` is made; further traces may stand there.
        seconds: how much of it is traced, counted from the first rows that are computed, or from the last compilation
            after these, which says little about the rest. All that comes before is traced too, and a block that
            computes no rows by an engine is traced as a whole.

    Raises:
        ConfigError: no folder can be made there, or `seconds` is not above 0.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with profile(folder):
        ...         jax.numpy.arange(3).block_until_ready()
        ...     len(list(Path(folder).rglob("*.trace.json.gz")))
        Array([0, 1, 2], dtype=int32)
        1
    """
    if not seconds > 0:
        raise ConfigError(f"The seconds to profile are {seconds}; expected a number above 0.")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"No trace can be written to {path}: {error.strerror}. Name a folder of your own.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"No trace can be written to {path}: no permission. Name a folder of your own.")
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of every Python function: it slows the job down and hides the stages
    jax.profiler.start_trace(path, profiler_options=options)
    is_over = threading.Event()
    begin = math.inf

    def listen(event: str, *_: Any, **__: Any) -> None:
        nonlocal begin
        if event.startswith(RUN_BEGINS if begin == math.inf else "/jax/core/compile/"):
            begin = time.monotonic()

    def stop() -> None:
        while time.monotonic() - begin < seconds and not is_over.wait(_LOOK_SECONDS):
            pass
        jax.profiler.stop_trace()

    jax.monitoring.register_event_listener(listen)
    jax.monitoring.register_event_duration_secs_listener(listen)
    with Threads(1, thread_name_prefix="scanrnn-profile") as thread:
        stopped = thread.submit(stop)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_listener(listen)
            jax.monitoring.unregister_event_duration_listener(listen)
            is_over.set()
            stopped.result()
