"""What tells two encoders apart: a hash over all that their features depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scanrnn_dist.encoder.file import variables_of, why_no_file


def fingerprint_of(kind: type, encoder: Any) -> str:
    """SHA-256 over architecture and variables; where a file of the class `kind` could not hold it, also its trace."""
    digest = hashlib.sha256(json.dumps(encoder.architecture, sort_keys=True).encode())
    if why_no_file(kind, encoder) is not None:
        digest.update(_traced(encoder).encode())
    for name, array in sorted(variables_of(encoder).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _traced(encoder: Any) -> str:
    """What JAX traces of a whole sequence of two steps, the variables being arguments."""
    graphdef, variables = nnx.split(encoder)

    def features(variables: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, variables)(x)

    return str(jax.make_jaxpr(features)(variables, jnp.zeros((2, encoder.in_features))))
