"""The law of faithfulness lets pass what float32 can do for a row, and nothing that is wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cells import Configured, Scaled, drawn
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh
from sources import needs_native

from scanrnn_dist.api import encode
from scanrnn_dist.encoder import Encoder, structure_of
from scanrnn_dist.faithfulness import judge as faithfulness
from scanrnn_dist.faithfulness.float64 import Roundings, evaluate
from scanrnn_dist.faithfulness.judge import FLOOR, OF_SPECIFICATION, Judge, Judgement, _scans_of, distance_of
from scanrnn_dist.protocols import WindowShape

SEED, D, H = 3, 3, 16
SHAPE = WindowShape(lanes=5, block_steps=4, window_blocks=6)
FLOAT64_TOLERANCE = 1e-14  # of features below 1: 45 roundings


@functools.cache
def encoder_of(dtype: str | None = None) -> Encoder:
    return Encoder.from_seed(SEED, D, H, dtype=dtype)


@functools.cache
def judge() -> Judge:
    """Compiled once for all tests."""
    return Judge(encoder_of())


def scanned(x: np.ndarray, encoder: Encoder | None = None, carry: Any = None) -> np.ndarray:
    """The specification; rows of up to 16 steps share a compilation."""
    encoder = encoder or encoder_of()
    padded = np.zeros((max(16, len(x)), D), np.float32)
    padded[: len(x)] = x
    return np.asarray(_scans_of(structure_of(Encoder, encoder)).alone(nnx.split(encoder)[1], padded, len(x), carry))


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))


def rows_like(kind: str, lengths: Any, seed: int = 0) -> list[np.ndarray]:
    """Rows as they are measured: nobody scaled them."""
    rng = np.random.default_rng(seed)

    def row(steps: int) -> np.ndarray:
        noise = rng.normal(size=(steps, D))
        ways = {
            "unit scale": lambda: noise,
            "accelerations": lambda: 9.81 * np.array([0.1, 0.2, 0.97]) + 5 * noise,
            "heart rates": lambda: 70 + 8 * noise,
            "coordinates": lambda: np.array([120.0, -35.0, 400.0]) + 0.01 * np.cumsum(noise, axis=0),
            "random walks": lambda: np.cumsum(noise, axis=0),
            "constant": lambda: np.repeat(rng.choice([0.1, 1.0, 5.0, 30.0], size=(1, D)), steps, axis=0),
        }
        return ways[kind]().astype(np.float32)

    return [row(int(steps)) for steps in lengths]


KINDS = ("unit scale", "accelerations", "heart rates", "coordinates", "random walks", "constant")


# Programs in float64


def test_a_traced_gru_in_float64_is_the_written_equations() -> None:
    weights = oracle.weights_of(encoder_of().cell)
    for x in rows_like("accelerations", [9, 13, 16]):
        given = judge()._weights, np.pad(x, ((0, 16 - len(x)), (0, 0)), constant_values=np.nan), len(x), None
        exact = judge()._scans.in_float64(judge()._scans.exact, given)
        np.testing.assert_allclose(exact, oracle.gru(weights, x), rtol=0, atol=FLOAT64_TOLERANCE)


def branching(x: Any, n: Any) -> Any:
    """Every operation that has a program of its own, and some that change bits or dtypes."""
    x = jax.nn.relu(jax.checkpoint(jnp.sin)(x))  # a derivative of its own; recomputed
    x = jax.lax.cond(n > 2, lambda x: x / 3, lambda x: x * 3, x)
    x = jax.lax.while_loop(lambda a: a[1] < n, lambda a: (a[0] + 1 / (2 + a[0]), a[1] + 1), (x, jnp.zeros_like(n)))[0]
    x, steps = jax.lax.scan(lambda c, y: (c + y / 7, c.sum()), x, jnp.arange(6, dtype=x.dtype)[:, None], reverse=True)
    return jax.jit(jnp.tanh)(x).sum() + steps.mean() + jnp.linalg.norm(x) + x @ x


@pytest.mark.parametrize("n", [4, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.usefixtures("compiled_quickly")
def test_every_kind_of_operation_is_evaluated_in_float64(n: int) -> None:
    x = np.array([0.3, 1.7, -0.2], np.float32)
    program = jax.make_jaxpr(branching)(x, np.int32(n))

    @jax.jit
    def evaluated(x: Any, n: Any) -> Any:
        rounded = evaluate(program, [x, n], Roundings(jnp.uint32(1), jnp.bool_(True), 0.0))
        return branching(x.astype(jnp.float64), n), evaluate(program, [x, n])[0], rounded[0]

    with jax.enable_x64(True):
        wanted, ours, rounded = evaluated(x, np.int32(n))
    assert ours.dtype == np.float64 and abs(float(ours) - float(wanted)) < 1e-14 * abs(float(wanted))
    assert 1e-9 < abs(float(rounded) - float(wanted)) < 1e-5


def test_short_dtypes_within_a_program_are_widened_and_their_roundings_are_theirs() -> None:
    program = jax.make_jaxpr(lambda x: (x.astype(jnp.bfloat16) / 3).astype(jnp.float32))(np.float32(1))
    with jax.enable_x64(True):
        assert abs(float(evaluate(program, [np.float32(1)])[0]) - 1 / 3) < 1e-16
        draw = jax.jit(lambda i: evaluate(program, [np.float32(1)], Roundings(i, jnp.bool_(True), 0.0))[0])
        errors = [float(draw(np.uint32(i))) * 3 - 1 for i in range(20)]
    assert 2**-9 < max(map(abs, errors)) < 2 * 2**-8


# What passes


@pytest.mark.parametrize("kernel", ["xla", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_is_as_faithful_as_the_law_says(kind: str, kernel: str) -> None:
    rows = rows_like(kind, [0, 1, 9, 13, 16, 16, 500, 500, 500])
    features = encode(encoder_of(), rows, mesh=mesh_of(2), window_shape=SHAPE, kernel=kernel)
    for x, row in zip(rows, features, strict=True):
        found = judge()(row, x)
        # The native kernel sums in another order than the specification, which may be lucky with a row.
        assert found.is_faithful
        assert kernel == "native" or found.distance <= max(FLOOR, OF_SPECIFICATION * found.specification), found


def by_tanh(x: jax.Array) -> jax.Array:
    """A sigmoid without relative accuracy where it is nearly 0."""
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)


def test_a_gate_that_is_less_accurate_than_the_specification_s_would_be_seen() -> None:
    encoder = Encoder.from_seed(SEED, D, H)
    encoder.cell.gate_fn = by_tanh
    found = [judge()(scanned(x, encoder), x) for x in rows_like("random walks", [500] * 10, seed=1)]
    assert any(one.distance > max(FLOOR, OF_SPECIFICATION * one.specification) for one in found)
    assert all(one.distance < 1e-4 for one in found), "the weights are those of the judge: only roundings differ"


@pytest.mark.parametrize("kind", ["unit scale", "accelerations", "constant"])
def test_the_specification_itself_is_within_what_the_draws_allow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it has to be if the draws are a model of what float32 does."""
    monkeypatch.setattr(faithfulness, "OF_SPECIFICATION", 0.0)
    monkeypatch.setattr(faithfulness, "FLOOR", 0.0)
    ratios = []
    for x in rows_like(kind, [9, 11, 13, 16, 16, 500]):
        found = Judge(encoder_of())(scanned(x), x)
        ratios.append(found.distance / found.bound)
    assert 0.05 < max(ratios) <= 1


def test_a_cell_is_judged_by_what_it_computes_with_now() -> None:
    encoder, x = Encoder(drawn(Configured, D, H)), rows_like("unit scale", [9])[0]
    for factor in (1.0, 0.5):
        encoder.cell.gain.factor = factor
        assert Judge(encoder)(np.asarray(encoder(x)), x).is_faithful


# What does not


def float32_gru(x: np.ndarray, operands: Callable[[np.ndarray], np.ndarray] = lambda a: a) -> np.ndarray:
    """The GRU in numpy's float32, the operands of whose products are rounded first."""
    return oracle.gru_float32(encoder_of().cell, x, operands)


def to_bits(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rounding to so many significant bits."""

    def rounded(a: np.ndarray) -> np.ndarray:
        mantissa, exponent = np.frexp(a)
        return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent).astype(np.float32)

    return rounded


@functools.cache
def one_weight_changed() -> Encoder:
    encoder = Encoder.from_seed(SEED, D, H)
    kernel = encoder.cell.dense_h.kernel
    kernel[...] = kernel[...].at[1, 2 * H + 1].multiply(1.01)
    return encoder


def swapped(x: np.ndarray) -> np.ndarray:
    """The last but one step changes places with the one before."""
    return x[[*range(len(x) - 3), len(x) - 2, len(x) - 3, len(x) - 1]]


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "one weight is changed": lambda x, other: scanned(x, one_weight_changed()),
    "a step is lost": lambda x, other: scanned(np.delete(x, len(x) - 2, axis=0)),
    "two steps are swapped": lambda x, other: scanned(swapped(x)),
    "a neighbour's carry at the start": lambda x, other: scanned(x, carry=scanned(other)),
    "bfloat16": lambda x, other: scanned(x, encoder_of("bfloat16")),
    "float16": lambda x, other: scanned(x, encoder_of("float16")),
    "products of 11 bits, as TF32 has them": lambda x, other: float32_gru(x, to_bits(11)),
    "a neighbour's features": lambda x, other: scanned(other),
}


def judged(corruption: str, kind: str) -> list[Judgement]:
    rows = rows_like(kind, [9, 11, 13, 16] * 3)
    pairs = zip(rows, [*rows[1:], rows[0]], strict=True)
    return [judge()(CORRUPTIONS[corruption](x, other), x) for x, other in pairs]


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_what_is_wrong_is_caught_in_every_row(corruption: str) -> None:
    found = judged(corruption, "unit scale")
    assert not [one for one in found if one.is_faithful]


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_what_is_wrong_is_caught_on_raw_data(corruption: str) -> None:
    found = judged(corruption, "accelerations")
    assert sum(not one.is_faithful for one in found) >= len(found) // 2


@pytest.mark.usefixtures("compiled_quickly")
def test_encoders_whose_weights_have_other_dtypes_are_judged_by_programs_of_their_own() -> None:
    x = rows_like("unit scale", [9])[0]
    for dtype in (jnp.bfloat16, jnp.float32):
        encoder = Encoder(drawn(Scaled, D, H, scale=jnp.full(D, 1.003, dtype)))
        assert Judge(encoder)(scanned(x, encoder), x).specification < FLOOR  # or the bound would be as wrong


def test_another_float32_passes() -> None:
    for kind in KINDS:
        for x in rows_like(kind, [9, 11, 13, 16, 500]):
            found = judge()(float32_gru(x), x)
            assert found.is_faithful, found


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.soak), "float16"])
@pytest.mark.usefixtures("compiled_quickly")
def test_encoders_of_half_precision_are_held_to_their_own_roundings(dtype: str) -> None:
    half = Judge(encoder_of(dtype))
    for x in rows_like("unit scale", [9, 16]):
        assert half(scanned(x, encoder_of(dtype)), x).is_faithful
        assert not half(scanned(x[:-1], encoder_of(dtype)), x).is_faithful
        if dtype == "float16":
            assert not half(scanned(x, encoder_of("bfloat16")), x).is_faithful


def test_products_of_lower_precision_are_allowed_where_the_encoder_asks_for_them() -> None:
    x = rows_like("unit scale", [16])[0]
    features = float32_gru(x, to_bits(8))
    assert not judge()(features, x).is_faithful
    default = Judge(Encoder.from_seed(SEED, D, H, precision="default"))
    assert default(features, x).is_faithful
    assert not default(scanned(x[:-1]), x).is_faithful


@pytest.mark.soak
def test_products_of_high_precision_are_not_of_the_lowest() -> None:
    x = rows_like("unit scale", [16])[0]
    high = Judge(Encoder.from_seed(SEED, D, H, precision="high"))
    assert not high(float32_gru(x, to_bits(8)), x).is_faithful


def test_distances_of_what_is_no_number_or_of_another_shape() -> None:
    nan, one = np.array([np.nan, 1.0]), np.array([1.0, 1.0])
    assert distance_of(one, one) == distance_of(nan, nan) == 0
    assert distance_of(nan, one) == distance_of(one, nan) == distance_of(one, one[:1]) == float("inf")
    assert distance_of(np.array([np.inf]), np.array([np.inf])) == 0
    assert distance_of(np.array([202.0]), np.array([200.0])) == 0.01 and distance_of(np.zeros(0), np.zeros(0)) == 0


NARROW = {np.float16: 65504.0, np.float32: float(np.finfo(np.float32).max)}


@given(st.floats(-70000, 70000), st.sampled_from([*NARROW]), st.floats(-1, 1))
def test_a_rounded_feature_is_excused_its_rounding_and_no_more(exact: float, dtype: Any, share: float) -> None:
    exact = np.clip(exact, -NARROW[dtype], NARROW[dtype])
    truth, rounded = np.array([exact]), np.array([exact]).astype(dtype)
    assert distance_of(rounded, truth, are_rounded=True) == 0
    for side in (-np.inf, np.inf):
        with np.errstate(over="ignore"):
            neighbour = np.nextafter(rounded, dtype(side))
        if not np.isfinite(neighbour[0]):
            continue
        # As far as the truth is from the midpoint of the two: nothing only for a tie.
        midpoint = (float(rounded[0]) + float(neighbour[0])) / 2
        expected = abs(midpoint - exact) / max(1, abs(exact))
        assert distance_of(neighbour, truth, are_rounded=True) == pytest.approx(expected, rel=1e-12, abs=1e-300)
        between = np.array([float(rounded[0]) + share * (midpoint - float(rounded[0]))])
        with np.errstate(over="ignore"):
            rounds_to_it = between.astype(dtype)[0] == rounded[0]
        if rounds_to_it:
            assert distance_of(rounded, between, are_rounded=True) == 0


def test_rounded_features_that_are_no_numbers_are_as_others() -> None:
    nan, inf, most = np.float16([np.nan]), np.float16([np.inf]), np.float16([65504])
    assert distance_of(nan, np.array([np.nan]), True) == distance_of(inf, np.array([np.inf]), True) == 0
    assert distance_of(nan, np.array([1.0]), True) == distance_of(inf, np.array([65504.0]), True) == float("inf")
    assert distance_of(most, np.array([65520.0]), True) == 0 < distance_of(most, np.array([65521.0]), True)


def test_features_are_faithful_in_float16_if_they_were_before_and_each_changed_bit_is_seen() -> None:
    seen = dict.fromkeys((0, 5, 10, 15), 0)
    for seed, x in enumerate(rows_like("unit scale", [9, 11, 13, 16])):
        exact, stored = scanned(x), scanned(x).astype(np.float16)
        assert judge()(stored, x).is_faithful
        for feature in range(seed, H, 4):
            for bit in (0, 5, 10, 15):
                changed = stored.copy()
                changed.view(np.uint16)[feature] ^= 1 << bit
                midpoint = (float(stored[feature]) + float(changed[feature])) / 2
                # Else float32 may be on either side: nearly a tie, or near 0, where float16 is finer than the bound.
                if not abs(midpoint - float(exact[feature])) < 2 * FLOOR:
                    assert not judge()(changed, x).is_faithful
                    seen[bit] += 1
    assert min(seen.values()) >= H - 2
