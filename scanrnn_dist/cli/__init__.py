"""TODO cli."""

from scanrnn_dist.cli.app import _start_jax, main, run

__all__ = [
    "_start_jax",
    "main",
    "run",
]
