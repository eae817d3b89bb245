"""On a CPU the last rows move to a program of few lanes, with the same bits, or stay where they are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cells import Scaled, drawn
from flax import nnx
from sources import mesh_of

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.mesh import default_mesh
from scanrnn_dist.engine.run import Run
from scanrnn_dist.engine.same_bits import PROBE_BLOCKS, gives_same_bits
from scanrnn_dist.engine.smaller import _KNOWN, DRAIN_LANES, SmallerPrograms, Worth, drain_shapes, known_of
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

D, H = 3, 8
SHAPE = WindowShape(lanes=32, block_steps=4, window_blocks=16)
FEW_LANES = drain_shapes(SHAPE)[1]
LENGTHS = [1600, 1201, 7, *[20] * 600, 1000]
EAGER = partial(SmallerPrograms, worth=Worth(least=0, filled=0, few=0))
TAKEN = partial(SmallerPrograms, same_bits=lambda usual, few_lanes: True)
"""For tests of anything but bits, since nobody promises that few lanes have those of many."""


@pytest.fixture(autouse=True)
def _nothing_is_known() -> None:
    _KNOWN.clear()


@pytest.fixture(scope="module")
def few_lanes_have_the_bits() -> None:
    engines = [CompiledWindow(Encoder.from_seed(0, D, H), default_mesh(), shape) for shape in drain_shapes(SHAPE)]
    if not gives_same_bits(*engines):
        pytest.skip("This XLA gives few lanes other bits than many.")


def rows() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, D)).astype(np.float32) for length in LENGTHS]


def run_of(programs: Any = EAGER) -> Run:
    """A run through an engine of its own."""
    run = Run(CompiledWindow(Encoder.from_seed(0, D, H), default_mesh(), SHAPE))
    run._smaller = programs(run.engine)
    return run


def featurized(programs: Any = EAGER) -> tuple[Run, np.ndarray]:
    """The run and the features of all rows."""
    run = run_of(programs)
    features = np.full((len(LENGTHS), H), np.nan, np.float32)
    run.submit(Ragged.from_sequences(rows()), out=features)
    run.results()
    run.close()
    return run, features


@pytest.mark.usefixtures("few_lanes_have_the_bits")
def test_the_bits_are_those_of_all_lanes_and_fewer_positions_are_run() -> None:
    run, features = featurized()
    assert run.engine.shape == FEW_LANES
    wide_run, wide = featurized(SmallerPrograms)  # so little is wasted that it stays
    assert wide_run.engine.shape == SHAPE
    np.testing.assert_array_equal(features.view(np.uint32), wide.view(np.uint32))
    assert run.statistics.positions < wide_run.statistics.positions / 2
    wanted = oracle.gru_rows(run.engine.encoder.cell, rows()[:4])
    np.testing.assert_allclose(features[:4], wanted, rtol=0, atol=1e-6)


def test_it_stays_wide_where_the_bits_differ() -> None:
    asked = []
    differing = partial(EAGER, same_bits=lambda engine, few_lanes: bool(asked.append(1)))
    run, _ = featurized(differing)
    again, _ = featurized(differing)
    assert run.engine.shape == again.engine.shape == SHAPE and len(asked) == 1


def test_it_is_compiled_once_enough_was_wasted_over_all_runs() -> None:
    def engine_after(steps: int) -> CompiledWindow:
        """The last one of a run of a single row."""
        run = run_of(partial(TAKEN, worth=Worth(0.5 * a_thousand_steps, *[2.5 * a_thousand_steps] * 2)))
        run.submit(Ragged.from_sequences([np.zeros((steps + SHAPE.window_steps, D), np.float32)]))
        run.results()
        run.close()
        return run.engine

    flops_per_step = Encoder.from_seed(0, D, H).flops_per_step
    a_thousand_steps = 1000 * flops_per_step * (SHAPE.lanes - 1 / len(jax.devices()))  # of idle lanes on each device
    assert engine_after(400).shape == engine_after(400).shape == SHAPE  # too little to count
    assert [engine_after(1000).shape for _ in range(4)] == [SHAPE, SHAPE, FEW_LANES, FEW_LANES]
    assert engine_after(400).shape == SHAPE


def test_it_is_decided_anew_for_rows_that_come_later() -> None:
    a_thousand_steps = 1000 * SHAPE.lanes * Encoder.from_seed(0, D, H).flops_per_step
    run = run_of(partial(TAKEN, worth=Worth(least=a_thousand_steps, filled=0, few=0)))
    for steps, shape in ((500, SHAPE), (2000, FEW_LANES)):
        run.submit(Ragged.from_sequences([np.zeros((steps, D), np.float32)]))
        run.results()
        assert run.engine.shape == shape
    run.close()


@pytest.mark.usefixtures("compiled_quickly")
def test_what_is_known_of_an_encoder_is_not_known_of_one_with_other_weights() -> None:
    scales = (jax.device_put(np.ones(size, dtype)) for size, dtype in ((D, "f4"), (1, "f4"), (D, jnp.bfloat16)))
    encoders = [Encoder(drawn(Scaled, D, H, scale=scale)) for scale in scales]
    assert nnx.split(encoders[2])[0] == nnx.split(encoders[0])[0]
    mesh, shape = mesh_of(1), WindowShape(lanes=2, block_steps=4, window_blocks=2)
    known, *of_others, again = (known_of(CompiledWindow(e, mesh, shape)) for e in (*encoders, encoders[0]))
    assert known is again and not any(known is other for other in of_others)


def test_the_probe_sees_a_difference_in_the_last_bit() -> None:
    wide = replace(SHAPE, window_blocks=PROBE_BLOCKS)
    engines = [CompiledWindow(Encoder.from_seed(0, D, H), default_mesh(), shape) for shape in drain_shapes(wide)]
    if not gives_same_bits(*engines):
        pytest.skip("This XLA gives few lanes other bits than many.")
    weights = engines[1].encoder.cell.dense_h.kernel
    changed = np.array(weights[...])
    changed[0, 0] = np.nextafter(changed[0, 0], np.float32(9))
    weights[...] = jax.device_put(changed)
    nudged = CompiledWindow(engines[1].encoder, default_mesh(), engines[1].shape)
    assert not gives_same_bits(engines[0], nudged)


def test_the_probe_sees_no_difference_where_there_is_none() -> None:
    engine = CompiledWindow(Encoder.from_seed(0, D, H), default_mesh(), replace(SHAPE, window_blocks=PROBE_BLOCKS))
    assert gives_same_bits(engine, engine) and gives_same_bits(engine, engine.with_shape(engine.shape))


@pytest.mark.parametrize("weight", [0.0, np.nan])
def test_weights_whose_features_are_all_alike_tell_nothing_of_others(weight: float) -> None:
    encoder = Encoder.from_seed(0, D, H)
    alike = jax.tree.map(lambda array: jax.device_put(np.full_like(array, weight)), nnx.state(encoder))
    nnx.update(encoder, alike)
    run = Run(CompiledWindow(encoder, default_mesh(), SHAPE))
    run._smaller = EAGER(run.engine)
    run.submit(Ragged.from_sequences(rows()[:1]))
    run.results()
    run.close()
    assert run.engine.shape == SHAPE and not known_of(run.engine).same_bits


def test_few_lanes_are_narrow_already() -> None:
    shape = WindowShape(2 * DRAIN_LANES - 1, 4, 16)
    assert drain_shapes(shape) == [shape]


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.usefixtures("few_lanes_have_the_bits")
def test_rows_that_come_later_are_run_wide_again(more: bool) -> None:
    run = run_of()
    first, later = rows()[:3], rows()[3:]
    features = np.full((len(LENGTHS), H), np.nan, np.float32)
    run.submit(Ragged.from_sequences(first), out=features[:3])
    run.advance()
    run.advance()
    assert run.engine.shape == FEW_LANES
    run.submit(Ragged.from_sequences(later), out=features[3:])
    run.advance(more)
    assert run.engine.shape == SHAPE
    run.results()
    run.close()
    np.testing.assert_array_equal(features.view(np.uint32), featurized()[1].view(np.uint32))
