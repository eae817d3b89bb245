"""A sequence that is continued from the state that was kept gives the bits of the whole sequence at once."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sources import SHAPE, mesh_of, random_rows
from test_encoders import Begun, Doubled, Halved

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.encoder.kept_state import StatefulEncoder
from scanrnn_dist.engine import build_engine
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import InputSpec, Time
from scanrnn_dist.ragged import Ragged

D, H = 3, 5
ENCODERS: dict[str, Any] = {
    "gru": lambda: Encoder.from_seed(0, D, H),
    "lstm": lambda: Encoder.from_seed(0, D, H, cell="lstm"),
    "two layers": lambda: Encoder.from_seed(0, D, H, num_layers=2),
    "pools": lambda: Encoder.from_seed(0, D, H, readout="last+mean+max"),
    "mean alone": lambda: Encoder.from_seed(0, D, H, readout="mean"),
    "bfloat16": lambda: Encoder.from_seed(0, D, H, cell="rnn", dtype=jnp.bfloat16, readout="max+mean"),
    "filled": lambda: Encoder.from_seed(0, D, H, initial_carry=0.25),
}


def run(engine: Any, rows: Ragged, states: np.ndarray) -> np.ndarray:
    features = np.empty((len(rows), engine.out_features), np.float32)
    with closing(engine.run()) as stream:
        stream.submit(rows, None, states, features)
        stream.results()
    return features


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.soak) if n in ("two layers", "filled", "mean alone") else n for n in ENCODERS],
)
def test_continued_rows_have_the_bits_of_whole_ones(name: str) -> None:
    plain = ENCODERS[name]()
    encoder = StatefulEncoder(plain)
    F = plain.out_features
    assert encoder.out_features == F + encoder.state_features
    engine = build_engine(encoder, mesh_of(2), SHAPE, own_carries=True)
    lengths = np.random.default_rng(1).choice([0, 1, 4, 9, 40, 77], 60)
    rows = random_rows(lengths, in_features=D)
    first = np.tile(np.asarray(encoder._vector(encoder.initial_state())), (len(rows), 1))
    whole = run(engine, Ragged.from_sequences(rows), first)
    states = first
    cuts = [np.random.default_rng(2).integers(0, length + 1) for length in lengths]
    pairs = list(zip(rows, cuts, strict=True))
    for part in ([row[:cut] for row, cut in pairs], [row[cut:] for row, cut in pairs]):
        continued = run(engine, Ragged.from_sequences(part), states)
        states = continued[:, F:]
    assert continued.tobytes() == whole.tobytes()
    # And the features are those of an engine that keeps no state.
    bare = build_engine(plain, mesh_of(2), SHAPE)
    features = np.full((len(rows), F), np.nan, np.float32)
    with closing(bare.run()) as stream:
        stream.submit(Ragged.from_sequences(rows), out=features)
        stream.results()
    assert np.array_equal(whole[:, :F], features)


def test_many_steps_are_counted_exactly() -> None:
    encoder = StatefulEncoder(Encoder.from_seed(0, D, H, readout="mean"))
    state = encoder.initial_state()
    state = state._replace(pools={**state.pools, "count": jnp.int32(2**31 - 5)})
    again = encoder.initial_state(encoder._vector(state))
    assert int(again.pools["count"]) == 2**31 - 5


class Counting(nnx.RNNCellBase):
    """A cell whose carry holds a whole number."""

    in_features = D

    def initialize_carry(self, shape: Any, rngs: Any = None, carry_init: Any = None) -> Any:
        return jnp.zeros(H), jnp.zeros((), jnp.int32)

    def __call__(self, carry: Any, x: jax.Array) -> Any:
        h = jnp.tanh(carry[0] + x.sum())
        return (h, carry[1] + 1), h

    @property
    def num_feature_axes(self) -> int:
        return 1


def test_a_cell_without_products_is_some_work_too() -> None:
    assert Encoder(Counting()).flops_per_step == 1  # it divides


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (lambda: Doubled.from_seed(0, D, H), "Doubled has methods of its own, readout, with which no state is kept"),
        (lambda: Halved.from_seed(0, D, H), "Halved has methods of its own, step, with which no state is kept"),
        (lambda: Begun.from_seed(0, D, H), "Begun has methods of its own, initial_state, with which no state is kept"),
        (lambda: Encoder.from_seed(0, D, H, bidirectional=True), "from its end"),
        (lambda: Encoder.from_seed(0, D, H, readout="steps"), "outputs of steps"),
        (lambda: Encoder(Counting()), "A carry is int32"),
        (lambda: Encoder.from_seed(0, None, H, input=InputSpec((Time("t"),))), "'t'.*difference to the step before"),
    ],
)
def test_what_cannot_be_continued_is_refused(encoder: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        StatefulEncoder(encoder())
