"""Random weights without JAX: the bits that flax's initialisers draw, computed by numpy and LAPACK."""

from scanrnn_dist.draws.cells import drawn_cells, draws_as_jax
