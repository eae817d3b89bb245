"""The first use of JAX, where it says whether the platform that was asked for is there."""

from __future__ import annotations

import os

from scanrnn_dist.errors import ConfigError


def start_jax(cpu_devices: int | None = None) -> None:
    """Import JAX and have it find its devices.

    Args:
        cpu_devices: how many devices the CPU is to have; None leaves it to JAX.

    Raises:
        ConfigError: JAX does not start: there is no such platform, or a variable of its own says what it cannot read.
    """
    try:
        import jax

        if cpu_devices is not None:
            jax.config.update("jax_num_cpu_devices", cpu_devices)
        jax.local_devices()
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # the last: a plugin is missing
        platforms = os.environ.get("JAX_PLATFORMS")
        said = " ".join(str(error).split()).rstrip(". ") or "it finds no device"
        if not platforms:
            raise ConfigError(f"JAX does not start: {said}. Correct the variables that it reads.") from error
        raise ConfigError(
            f"JAX does not start with JAX_PLATFORMS={platforms}: {said}. Unset it to use the devices there are, or "
            "install what JAX needs for that platform (for NVIDIA GPUs: pip install 'scanrnn_dist[cuda]')."
        ) from error
