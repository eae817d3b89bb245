"""What is made of the outputs of a sequence: its last state, their mean, their maximum, or all of them.

Mean and maximum are kept in the carry and change with every real step, so nothing is stacked; padding, which does not
reach the carry, does not reach them either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from scanrnn_dist.errors import ConfigError

POOLS = ("last", "mean", "max")
STEPS = "steps"


def checked_readout(readout: str | Sequence[str]) -> tuple[str, ...]:
    """`"last"`, `"mean+max"` or `("mean", "max")` as a tuple of names; `ConfigError` for anything else."""
    given = readout.split("+") if isinstance(readout, str) else readout
    names = tuple(given) if isinstance(given, Sequence) else ()
    known = names == (STEPS,) or (names and all(name in POOLS for name in names) and len(set(names)) == len(names))
    if not known:
        wanted = f"one or several of {', '.join(POOLS)}, joined by '+', or {STEPS!r} alone"
        raise ConfigError(f"The readout is {readout!r}; expected {wanted}.")
    return names


def initial_pools(readout: tuple[str, ...], features: int, dtype: Any) -> dict[str, jax.Array]:
    """What stands in the carry for `mean` and `max` before the first step, of outputs `(features,)`."""
    pools = {}
    if "mean" in readout:
        pools["mean"] = jnp.zeros((features,), dtype)
    if "max" in readout:
        pools["max"] = jnp.full((features,), -jnp.inf, dtype)
    if pools:
        pools["count"] = jnp.zeros((), jnp.int32)
    return pools


def updated_pools(pools: dict[str, jax.Array], output: jax.Array) -> dict[str, jax.Array]:
    """The pools after one more output.

    `mean' = mean + (y - mean) / n`: its rounding does not grow with the number of steps, as that of a sum does.
    """
    if not pools:
        return pools
    new = {"count": pools["count"] + 1}
    if "mean" in pools:
        y = output.reshape(-1).astype(pools["mean"].dtype)
        new["mean"] = pools["mean"] + (y - pools["mean"]) / new["count"].astype(y.dtype)
    if "max" in pools:
        new["max"] = jnp.maximum(pools["max"], output.reshape(-1).astype(pools["max"].dtype))
    return {name: new[name] for name in pools}


def pooled(pools: dict[str, jax.Array], name: str) -> jax.Array:
    """`mean` or `max` of the outputs so far; zeros for a sequence without steps."""
    return jnp.where(pools["count"] > 0, pools[name], 0)
