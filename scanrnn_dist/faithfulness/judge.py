"""The law of faithfulness: how far a row's features may be from float64, given what float32 can do for that row.

A row is computed by the specification (`Encoder.__call__`, which the tests hold to `spec.py` bit for bit) in its own
dtype and in float64. `api/verification.py` and the tests of the engine judge features by this.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scanrnn_dist.encoder import Encoder, structure_of
from scanrnn_dist.faithfulness.float64 import FLOAT32_ROUNDOFF, Roundings, evaluate

FLOOR = 1e-6
"""A distance that nobody minds: 17 roundings of numbers near 1 in float32."""
OF_SPECIFICATION = 1.5
"""So many times the specification's own distance: products of other shapes round in another order."""
OF_DRAWS = 2.0
"""So many times the greatest distance of `DRAWS` scans with made-up roundings."""
DRAWS = 16
LEAST_STEPS = 16
"""Rows of fewer steps share the programs of so many: to compile others takes 0.3 to 0.9 s, and so many steps of a
GRU of 256 take less than a millisecond."""
OPERAND_ROUNDOFF = {"highest": 0.0, "high": 2.0**-11, "default": 2.0**-8}
"""What the operands of products are rounded to: nothing, TF32, bfloat16."""


class Judgement(NamedTuple):
    """How far one row's features are from float64, and how far they may be.

    Distances are the greatest over the features; relative for features above 1, infinite for other shapes and for a NaN
    that the other side does not have.

    Args:
        distance: of the features from float64.
        specification: of the specification in the encoder's own dtype from float64.
        bound: what `distance` may be.
        between: distance of the features from the specification in the encoder's own dtype.
    """

    distance: float
    specification: float
    bound: float
    between: float

    @property
    def is_faithful(self) -> bool:
        """Whether the distance is within the bound."""
        return self.distance <= self.bound


class Judge:
    """Judges the features of single rows by the specification of one encoder; compiled once per power of two of steps,
    from `LEAST_STEPS` on.

    The law: `distance <= max(FLOOR, OF_SPECIFICATION * specification)`. The specification may be lucky with a row, so
    where that does not hold, the bound is what rounding can do: the row is scanned `DRAWS` times in float64 with an
    error made up after every operation, as large as its dtype may make, and `OF_DRAWS` times the greatest distance is
    allowed. Half of the draws are new in every step; half are the same in all steps, which are the errors of a row
    whose steps are alike. The draws depend on nothing but their number, so a judgement is repeatable.
    """

    def __init__(self, encoder: Encoder) -> None:
        structure = structure_of(Encoder, encoder)
        try:
            self._scans = _scans_of(structure)
        except TypeError:  # an attribute of the cell has no hash
            self._scans = _Scans(structure)
        self._weights = nnx.split(encoder)[1]
        self._gives_steps, self._products = encoder.gives_steps, OPERAND_ROUNDOFF[encoder.precision]
        self._floor = FLOOR * float(jnp.finfo(encoder.pool_dtype).eps) / 2 / FLOAT32_ROUNDOFF

    def __call__(self, features: np.ndarray, x: np.ndarray, carry: np.ndarray | None = None) -> Judgement:
        """Judge the features of one sequence.

        Args:
            features: `(out_features,)`, or `(T, out_features)` where the readout is `"steps"`. Of a narrower dtype than
                the encoder's, they are judged as rounded: by the number nearest to the truth that rounds to them.
            x: `(T, D)` float32.
            carry: `(carry_features,)`, the row's own initial carry, if it has one.
        """
        padded = np.zeros((1 << (max(len(x), LEAST_STEPS) - 1).bit_length(), x.shape[1]), x.dtype)
        padded[: len(x)] = x
        given = self._weights, padded, len(x), carry
        steps = slice(0, len(x)) if self._gives_steps else slice(None)
        alone = np.asarray(self._scans.alone(*given))[steps]
        exact = self._scans.in_float64(self._scans.exact, given)[steps]
        are_rounded = features.dtype.itemsize < alone.dtype.itemsize
        distance, specification = distance_of(features, exact, are_rounded), distance_of(alone, exact)
        bound = max(self._floor, OF_SPECIFICATION * specification)
        if not distance <= bound:
            drawn = self._scans.in_float64(self._scans.drawn, given, self._products)
            bound = max(bound, OF_DRAWS * max(distance_of(one[steps], exact) for one in drawn))
        return Judgement(distance, specification, bound, distance_of(features, alone, are_rounded))


class _Scans:
    """The scans of single rows by encoders of one structure, each compiled once per number of steps.

    All of them take `given`: weights, `x (T, D)`, how many of its steps are real, and a carry or None. `alone` computes
    in the encoder's own dtype; in float64 `exact` gives the features, `drawn` those of `DRAWS` scans with made-up
    roundings, along the first axis.
    """

    def __init__(self, structure: tuple[Any, bytes]) -> None:
        graphdef = structure[0]
        self.alone = jax.jit(lambda weights, x, length, carry: nnx.merge(graphdef, weights)(x, length, carry))
        self._programs: dict[Any, Any] = {}
        self.exact = jax.jit(lambda program, leaves: evaluate(program, leaves)[0], static_argnums=0)
        self.drawn = jax.jit(_draws, static_argnums=(0, 2))

    def in_float64(self, scan: Any, given: tuple[Any, ...], *options: Any) -> np.ndarray:
        """A scan of what JAX traces of the specification for so many steps."""
        key = *map(jax.typeof, jax.tree.leaves(given)), str(jnp.result_type(float))  # follows jax_enable_x64
        if key not in self._programs:
            self._programs[key] = jax.make_jaxpr(self.alone)(*given)
        with jax.enable_x64(True), jax.default_device(_device()):
            leaves = jax.device_put(jax.tree.leaves(given), _device())
            return np.asarray(scan(self._programs[key], leaves, *options))


_scans_of = lru_cache(maxsize=16)(_Scans)


def _draws(program: Any, leaves: list[Any], products: float) -> jax.Array:
    def draw(number: jax.Array) -> jax.Array:
        return evaluate(program, leaves, Roundings(number, number % 2 == 0, products))[0]

    return jax.vmap(draw)(jnp.arange(DRAWS, dtype=jnp.uint32))


def distance_of(features: np.ndarray, others: np.ndarray, are_rounded: bool = False) -> float:
    """The greatest distance of two arrays of features, relative where the others are above 1; see `Judgement`.

    Rounded features stand for all numbers that round to them, and the nearest of these counts: 0 where the others round
    to the features. So the rounding excuses half a unit in the last place at each number, and no more.
    """
    if features.shape != others.shape:
        return float("inf")
    others = others.astype(np.float64)
    features = _nearest(features, others) if are_rounded else features.astype(np.float64)
    is_same = (features == others) | (np.isnan(features) & np.isnan(others))
    with np.errstate(invalid="ignore"):
        distances = np.where(is_same, 0, np.abs(features - others) / np.maximum(1, np.abs(others)))
    return float(np.nan_to_num(distances, nan=np.inf, posinf=np.inf).max(initial=0))


def _nearest(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of the numbers that round to the features, those nearest to the others, in float64.

    They lie between the midpoints to the neighbours of a feature, both included (ties go to one of the two). The
    greatest number has no neighbour above, and as far to its midpoint as below.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        below, above = (
            np.nextafter(features, features.dtype.type(side)).astype(np.float64) for side in (-np.inf, np.inf)
        )
        middle = features.astype(np.float64)
        low = np.where(np.isinf(below), middle - (above - middle) / 2, (middle + below) / 2)
        high = np.where(np.isinf(above), middle + (middle - below) / 2, (middle + above) / 2)
        return np.where(np.isfinite(middle), np.clip(others, low, high), middle)


def _device() -> Any:
    """A CPU, where float64 is what it says; the default device where JAX has no CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
