"""What all tests share: eight CPU devices, JAX at its strictest, and the data sets beside the checkout."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import platform
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import faults  # noqa: F401 - may have the run do without a package
import jax
import pytest
import s3_server
import typer.main
from hypothesis import settings
from jax.experimental.compilation_cache import compilation_cache

from scanrnn_dist.draws.cells import KNOWN_VERSIONS, draws_as_jax
from scanrnn_dist.engine.kernels import loaded
from scanrnn_dist.observe import SHOWN

pytest.register_assert_rewrite("crashing")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A program that a test compiled is taken from this folder by the next test that traces the same one: a tenth of the CPU
# time of tests/encoder, tests/engine and tests/api. Each process has its own folder: JAX does not write files whole.
PROGRAMS = tempfile.mkdtemp(prefix="scanrnn-programs-")
atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Each Python that a test starts would compile the package anew: 1.8 s of CPU time for its imports instead of 0.95.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Each `cli.run` would make all commands anew of their functions: 25 ms of CPU time.
typer.main.get_command = functools.cache(typer.main.get_command)

# Of the S3 server of the tests, which believes every key; and no test asks a cloud who it is.
os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}

os.fsync = lambda descriptor: None  # no loss of power is at stake; the commands that tests start do sync

settings.register_profile("scanrnn_dist", deadline=None, max_examples=60)
settings.load_profile("scanrnn_dist")

SHARED_DATA = Path(os.environ.get("SCANRNN_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")).resolve()
"""Real data sets, which are not part of the repository."""


def pytest_configure() -> None:
    """Refuse to test without a native library that is asked for, or with one that is older than its sources."""
    if os.environ.get("SCANRNN_NATIVE") == "require" or os.environ.get("SCANRNN_NATIVE_LIBRARY"):
        why = loaded()
        if isinstance(why, str):
            raise pytest.UsageError(why)
    library = Path(__file__).parents[1] / "scanrnn_dist/native/cpp/libscanrnn.so"
    if not library.exists() or os.environ.get("SCANRNN_NATIVE_LIBRARY") is not None:
        return
    built = library.stat().st_mtime
    newer = [
        path.name
        for pattern in ("*.h", "*.cpp")
        for path in library.parent.glob(pattern)
        if path.stat().st_mtime > built
    ]
    if newer:
        raise pytest.UsageError(f"{library} is older than {', '.join(newer)}; build it anew: python hatch_build.py")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What `cli.run` leaves in this process is put back: handlers of signals, and what is printed and logged."""
    logger = logging.getLogger("scanrnn_dist")
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    level, handlers, shown = logger.level, logger.handlers.copy(), vars(SHOWN).copy()
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    logger.setLevel(level)
    logger.handlers[:] = handlers
    vars(SHOWN).update(shown)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"There is no {SHARED_DATA}; the data sets are not part of the repository.")
    return SHARED_DATA


@pytest.fixture(scope="session")
def numpy_draws() -> None:
    """Random weights are drawn by numpy, as is claimed of Linux on x86-64 and of the versions that were compared."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.exists() or not re.search(r"\bfma\b", cpuinfo.read_text()):
        pytest.skip("JAX draws here: this is no Linux on x86-64 with FMA.")
    if "XLA_FLAGS" in os.environ:
        pytest.skip("JAX draws here: XLA_FLAGS may change bits.")
    versions = version("jax"), version("jaxlib"), version("flax")
    if versions not in KNOWN_VERSIONS:
        fail_or_skip = pytest.fail if os.environ.get("SCANRNN_DRAWS") == "require" else pytest.skip
        fail_or_skip(f"JAX draws here: {versions} is not in KNOWN_VERSIONS of draws/cells.py.")
    assert draws_as_jax()


@pytest.fixture
def no_compilation_cache() -> Iterator[None]:
    """For tests that count compilations or choose a cache of their own: JAX as it is where nobody chose a cache."""
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", PROGRAMS)
    compilation_cache.reset_cache()


@pytest.fixture
def compiled_quickly() -> Iterator[None]:
    """XLA optimises less, and takes two thirds of the time: for programs of one test alone, which is not about bits."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def s3_running() -> Iterator[s3_server.S3Server]:
    """The S3 server of all tests; begun when the first one asks for it."""
    pytest.importorskip("moto", reason="The S3 server of the tests is moto: install the extra 'test'.")
    with s3_server.running() as server:
        yield server


@pytest.fixture
def s3(s3_running: s3_server.S3Server) -> Iterator[s3_server.S3Server]:
    """The S3 server, without faults at first, with an empty bucket "bucket"."""
    s3_running.calm()
    s3_running.create_bucket("bucket")
    yield s3_running
    s3_running.calm()
