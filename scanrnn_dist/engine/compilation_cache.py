"""Programs compiled once for all processes: JAX's own compilation cache, in a folder that is the user's alone.

The folder holds executables, and whoever can write to it decides what the next job runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import stat
import threading
from pathlib import Path
from typing import Any

import jax

from scanrnn_dist.errors import ConfigError

logger = logging.getLogger("scanrnn_dist")


def use_compilation_cache(folder: str | os.PathLike[str]) -> None:
    """Keep every program that this process compiles in `folder`, and take from there what it compiled before.

    To be called before the first use of JAX, which tells programs apart by what they are, their options and the
    versions; each kind of CPU has a folder of its own in there. Folders are made with mode 0700.

    Raises:
        ConfigError: the folder belongs to another user or others may write to it; it cannot be made, or not be written
            to; or JAX has another one already.

    Example:
        >>> use_compilation_cache("~/.cache/scanrnn")  # doctest: +SKIP
    """
    path = Path(os.path.expanduser(folder)).absolute()
    of_machine = path / _machine()
    current: str | None = jax.config.values["jax_compilation_cache_dir"]
    if current is not None and Path(current) != of_machine:
        raise ConfigError(f"JAX has the compilation cache {current} already; {path} cannot be a second. Leave one out.")
    _make_private(path)
    _make_private(of_machine)
    jax.config.update("jax_compilation_cache_dir", str(of_machine))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    logger.debug("Compiled programs are kept in %s.", of_machine)


def compiled(lowered: jax.stages.Lowered, options: Any = None) -> tuple[jax.stages.Compiled, int]:
    """A program, and how many compilations it took: none where JAX's compilation cache has it."""
    hits = []
    this_thread = threading.get_ident()

    def listen(event: str, **_: Any) -> None:
        # Listeners hear all threads, and another one may compile meanwhile.
        if event == "/jax/compilation_cache/cache_hits" and threading.get_ident() == this_thread:
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        return lowered.compile(options), 1 - len(hits)
    finally:
        jax.monitoring.unregister_event_listener(listen)


def _machine() -> str:
    """A name for the kind of CPU: what was compiled for one with AVX-512 would kill a process on one without."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]  # no Linux
    kinds = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}) or lines
    return f"{platform.machine()}-{hashlib.sha256('; '.join(kinds).encode()).hexdigest()[:12]}"


def _make_private(path: Path) -> None:
    """Make the folder, unless it is there, and refuse one that others could put something into."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"There can be no compilation cache at {path}: {error.strerror}. Name a folder.") from error
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"The compilation cache {path} belongs to user {status.st_uid}, and this is user {os.geteuid()}. It holds "
            "executables: name a folder of your own, or one that is not there yet."
        )
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"Others may write to the compilation cache {path} ({mode}). It holds "
            "executables: run chmod 700 on it if all that is in there is yours, or name one that is not there yet."
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"The compilation cache {path} has {mode}; expected 0700. Run chmod 700.")
