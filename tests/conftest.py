"""What all tests share: eight CPU devices, JAX at its strictest, and the data sets beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest
from hypothesis import settings

pytest.register_assert_rewrite("crashing")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("scanrnn_dist", deadline=None, max_examples=60)
settings.load_profile("scanrnn_dist")

SHARED_DATA = Path(os.environ.get("SCANRNN_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")).resolve()
"""Real data sets, which are not part of the repository."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"There is no {SHARED_DATA}; the data sets are not part of the repository.")
    return SHARED_DATA
