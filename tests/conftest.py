"""What all tests share: eight CPU devices, JAX at its strictest, and the data sets beside the checkout."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("scanrnn_dist", deadline=None, max_examples=60)
settings.load_profile("scanrnn_dist")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, which lies beside the checkout and not in it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"There is no {path}; the data sets are not part of the repository.")
    return path
