"""Door 1: however the sequences arrive, `encode` gives the rows of the specification, in input order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pyarrow as pa
import pytest
from flax import nnx
from jax.sharding import AxisType

from scanrnn_dist.arrays import encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.spec import scan_rnn_forward
from scanrnn_dist.tape import WindowShape

TOLERANCE = 1e-6  # the bound of the design for float32 at precision "highest"
SEED, D, H = 1, 2, 5
ENCODER = Encoder.from_seed(SEED, D, H)
LENGTHS = [3, 0, 40, 1, 17]
ROWS = [np.random.default_rng(i).normal(size=(n, D)).astype(np.float32) for i, n in enumerate(LENGTHS)]


def small(sequences: Any, *args: Any, **kwargs: Any) -> np.ndarray:
    """`encode` with a small program on two devices, which compiles fast."""
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    return encode(ENCODER, sequences, *args, mesh=mesh, window_shape=WindowShape(2, 4, 4), **kwargs)


def padded_rows() -> np.ndarray:
    padded = np.full((len(ROWS), max(LENGTHS), D), np.nan, np.float32)
    for row, values in enumerate(ROWS):
        padded[row, : len(values)] = values
    return padded


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """The bits that every form of `ROWS` must give, themselves held to the written equations."""
    features = small(ROWS)
    np.testing.assert_allclose(features, oracle.gru_rows(ENCODER.cell, ROWS), rtol=0, atol=TOLERANCE)
    assert features.dtype == np.float32
    return features


def arrow(kind: pa.DataType) -> pa.Array:
    flat = not pa.types.is_nested(kind.value_type)
    return pa.array([[float(step[0]) if flat else step for step in row.tolist()] for row in ROWS], kind)


NESTED = arrow(pa.list_(pa.list_(pa.float32())))
FORMS = {
    "tuple": lambda: tuple(ROWS),
    "padded": lambda: (padded_rows(), LENGTHS),
    "padded, lengths as float": lambda: (padded_rows(), np.array(LENGTHS, np.float64)),
    "padded float64": lambda: (padded_rows().astype(np.float64), np.array(LENGTHS)),
    "padded on a device": lambda: (jnp.asarray(padded_rows()), jnp.asarray(LENGTHS)),
    "array of arrays": lambda: np.array([*ROWS, None], dtype=object)[:-1],
    "ragged": lambda: Ragged.from_sequences(ROWS),
    "lists of lists": lambda: [row.tolist() if len(row) else row for row in ROWS],
    "on a device": lambda: [jnp.asarray(row) for row in ROWS],
    "float64": lambda: [row.astype(np.float64) for row in ROWS],
    "list<list>": lambda: NESTED,
    "a slice": lambda: pa.concat_arrays([NESTED, NESTED]).slice(len(ROWS)),
    "list<fixed>": lambda: arrow(pa.list_(pa.list_(pa.float32(), D))),
    "large_list<large_list<double>>": lambda: arrow(pa.large_list(pa.large_list(pa.float64()))),
    "chunks": lambda: pa.chunked_array([NESTED.slice(0, 2), NESTED.slice(2)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bits(form: str, wanted: np.ndarray) -> None:
    given = FORMS[form]()
    features = small(*given) if form.startswith("padded") else small(given)
    np.testing.assert_array_equal(features.view(np.uint32), wanted.view(np.uint32))


def test_one_feature_per_step_may_be_a_plain_list_in_arrow() -> None:
    encoder = Encoder.from_seed(SEED, 1, H)
    column = pa.array([[1.0, 2.0, 3.0], [], [4.0]], pa.list_(pa.float32()))
    rows = [np.array(row, np.float32).reshape(-1, 1) for row in column.to_pylist()]
    np.testing.assert_array_equal(encode(encoder, column), encode(encoder, rows))


def test_a_padded_array_without_lengths_is_all_real() -> None:
    whole = np.stack([ROWS[2], -ROWS[2]])
    np.testing.assert_array_equal(small(whole), small(list(whole)))


def test_the_defaults_give_the_specification() -> None:
    features = encode(ENCODER, ROWS)
    for row, features_of_row in zip(ROWS, features, strict=True):
        of_the_specification = scan_rnn_forward(SEED, row, H, len(row))
        np.testing.assert_allclose(features_of_row, of_the_specification, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("max_steps", [0, 2, 10, 10_000])
def test_max_steps_is_the_T_of_the_specification(max_steps: int) -> None:
    features = small(ROWS, max_steps=max_steps)
    for row, features_of_row in zip(ROWS, features, strict=True):
        of_the_specification = scan_rnn_forward(SEED, row, H, max_steps)
        np.testing.assert_allclose(features_of_row, of_the_specification, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "sequences", [[], (), Ragged.empty(D), np.zeros((0, 4, D)), pa.array([], pa.list_(pa.list_(pa.float32())))]
)
def test_no_sequences_give_no_rows(sequences: Any) -> None:
    assert small(sequences).shape == (0, H)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_are_refused_with_their_row_and_step(bad: float) -> None:
    rows = [row.copy() for row in ROWS]
    rows[2][7, 1] = bad
    with pytest.raises(DataError, match="Sequence 2 holds a NaN or an infinity at step 7"):
        small(rows)
    with pytest.raises(DataError, match="sequence 2"):
        small(pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float32()))))


@pytest.mark.parametrize("as_arrow", [False, True])
def test_a_nonfinite_value_that_may_pass_reaches_its_own_row_only(as_arrow: bool, wanted: np.ndarray) -> None:
    rows = [row.copy() for row in ROWS]
    rows[2][7, 1] = np.nan
    given = pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float32()))) if as_arrow else rows
    features = small(given, nonfinite="propagate")
    assert np.isnan(features[2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(features[others].view(np.uint32), wanted[others].view(np.uint32))


def test_a_float64_beyond_float32_is_refused_with_its_row() -> None:
    with pytest.raises(DataError, match="Sequence 1 holds a NaN or an infinity at step 0"):
        small([np.zeros((2, D)), np.full((1, D), 1e300)])


def test_what_lies_beyond_a_length_is_not_looked_at(wanted: np.ndarray) -> None:
    assert np.isnan(padded_rows()).any()
    np.testing.assert_array_equal(small(padded_rows(), LENGTHS), wanted)


def test_the_arguments_are_left_as_they_were() -> None:
    rows = [row.copy() for row in ROWS]
    small(rows, max_steps=5)
    for row, before in zip(rows, ROWS, strict=True):
        np.testing.assert_array_equal(row, before)


def test_a_progress_bar_needs_no_terminal(capsys: pytest.CaptureFixture[str], wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(small(ROWS, show_progress=True), wanted)
    shown = capsys.readouterr()
    assert "\x1b[" not in shown.out + shown.err


def test_without_a_progress_bar_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    small(ROWS)
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


@pytest.mark.parametrize(
    ("sequences", "arguments", "error", "message"),
    [
        (ROWS, {"max_steps": -1}, ConfigError, "max_steps is -1; expected 0 or more"),
        (ROWS, {"nonfinite": "drop"}, ConfigError, "nonfinite is 'drop'; expected 'error' or 'propagate'"),
        (ROWS, {"seq_lengths": LENGTHS}, ConfigError, r"seq_lengths goes with a padded .*; the sequences are a list"),
        (Ragged.empty(D), {"seq_lengths": []}, ConfigError, "the sequences are a Ragged"),
        (iter(ROWS), {}, ConfigError, "expected a list of .* arrays, a padded"),
        (3, {}, ConfigError, "The sequences are a int"),
        (ROWS[0], {}, DataError, r"one array of shape \(3, 2\); for a single sequence \(T, D\), pass \[x\]"),
        (np.zeros(3), {}, DataError, r"A padded batch is float64\[3\]; expected numbers \(N, T, D\)"),
        (np.zeros((2, 4, D)), {"seq_lengths": [4, 5]}, DataError, r"seq_lengths\[1\] is 5; expected .* from 0 to 4"),
        (
            [np.zeros((4, 3))],
            {},
            DataError,
            r"Sequence 0 has shape \(4, 3\): 3 features per step, and the encoder takes 2\.$",
        ),
        ([np.zeros((2, 9))], {}, DataError, r"\(2, 9\).*\(D, T\)\? Expected is \(T, D\): pass x\.T"),
        ([np.zeros((2, 9)), np.zeros((2, 8))], {}, DataError, r"Sequence 1 .*pass x\.T"),
        (np.zeros((5, 2, 9)), {}, DataError, r"Sequence 0 has shape \(2, 9\).*pass x\.T"),
        ([np.zeros((4, D)), np.zeros(4)], {}, DataError, r"Sequence 1 has shape \(4,\)"),
        (["ab"], {}, DataError, "Sequence 0 has shape"),
        (Ragged.empty(3), {}, DataError, "3 features per step, and the encoder takes 2"),
        (pa.array(["a"]), {}, DataError, "string"),
        (pa.array([[[1.0, 2.0]], None], pa.list_(pa.list_(pa.float32()))), {}, DataError, "sequence 1"),
        (pa.array([[[1.0, 2.0]], [[1.0]]], pa.list_(pa.list_(pa.float32()))), {}, DataError, "sequence 1"),
    ],
)
def test_what_does_not_fit_is_refused(sequences: Any, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(sequences, **arguments)


def test_max_steps_may_be_a_float_and_hides_a_nan_beyond_it() -> None:
    encoder = Encoder.from_seed(0, 2, 3)
    x = np.ones((5, 2), np.float32)
    x[3:] = np.nan
    few = encode(encoder, [x, x[:1]], max_steps=3.0)
    np.testing.assert_array_equal(few, encode(encoder, [x[:3], x[:1]]))
    with pytest.raises(DataError, match="Sequence 0 holds a NaN or an infinity at step 3"):
        encode(encoder, [x, x[:1]], max_steps=4)


def test_a_bare_cell_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"Encoder\(nnx.GRUCell\(...\)\)"):
        encode(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)), [np.ones((5, 2))])
