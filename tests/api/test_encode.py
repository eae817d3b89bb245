"""Door 1: however the sequences arrive, `encode` gives the rows of the specification, in input order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pyarrow as pa
import pytest
from cells import Configured, drawn
from flax import nnx
from jax.sharding import AxisType

from scanrnn_dist.api.arrays import encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.input_spec import Category, InputSpec
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.spec import scan_rnn_forward

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


@pytest.mark.parametrize("max_steps", [0, 10, 10_000])
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
    rows = [np.zeros((2, D)), np.full((1, D), 1e300)]
    with pytest.raises(DataError, match=r"Sequence 1, step 0, feature 0: float64 value 1e\+300 would become inf"):
        small(rows)
    with pytest.raises(DataError, match=r"Sequence 1 holds a NaN or an infinity at step 0 .*too large for float32"):
        small(rows, lossy_cast=True)


INEXACT = np.array([[0.5, 1.0], [2.0, 0.1], [0.2, 0.3]])


@pytest.mark.parametrize(
    ("given", "arguments", "where"),
    [
        ([np.zeros((1, D)), INEXACT], {}, "Sequence 1, step 1, feature 1: float64 value 0.1"),
        ([np.zeros((1, D)).tolist(), INEXACT.tolist()], {}, "Sequence 1, step 1, feature 1: float64 value 0.1"),
        (np.stack([INEXACT * 0, INEXACT]), {}, "Sequence 1, step 1, feature 1: float64 value 0.1"),
        (np.stack([INEXACT, INEXACT]), {"seq_lengths": [1, 2]}, "Sequence 1, step 1, feature 1: float64 value 0.1"),
        (np.array([INEXACT * 0, INEXACT[:2], None], object)[:2], {}, "Sequence 1, step 1, feature 1: float64"),
        (pa.array([[[0.0, 0.0]], INEXACT.tolist()]), {}, "sequence 1, step 1: double value 0.1|float64 value 0.1"),
        ([np.array([[1, 2**24 + 1]])], {}, "Sequence 0, step 0, feature 1: int64 value 16777217"),
        ([np.array([[0, 2**63 - 1]])], {}, f"int64 value {2**63 - 1} would become 9.2233[0-9]*e\\+18"),
        ([[[2**53 + 1, 0.5]]], {}, f"Sequence 0, step 0, feature 0: int value {2**53 + 1} would become {2**53}"),
        ([[[0.5, 1]], [np.array([0.5, 1]), np.array([1, 2**62 + 1])]], {}, "Sequence 1, step 1, feature 1: int value"),
        ([np.array([[0.5, np.uint64(2**64 - 1)], None], object)[:1]], {}, f"feature 1: int value {2**64 - 1} would"),
    ],
)
def test_what_float32_cannot_hold_is_refused_as_featurize_does_and_rounded_if_told(
    given: Any, arguments: Any, where: str
) -> None:
    with pytest.raises(DataError, match=f"{where}.*lossy_cast=True"):
        small(given, **arguments)
    assert small(given, lossy_cast=True, **arguments).dtype == np.float32


def test_what_is_rounded_gives_the_features_of_what_it_is_rounded_to() -> None:
    rounded = small([INEXACT.astype(np.float32)])
    np.testing.assert_array_equal(small([INEXACT], lossy_cast=True), rounded)
    np.testing.assert_array_equal(small(pa.array([INEXACT.tolist()]), lossy_cast=True), rounded)


def test_a_number_beyond_a_length_need_not_fit() -> None:
    np.testing.assert_array_equal(small(INEXACT[None], [1]), small([INEXACT[:1].astype(np.float32)]))


def objects(parts: list[Any]) -> np.ndarray:
    array = np.empty(len(parts), object)
    array[:] = parts
    return array


MASKED = np.ma.masked_array(np.ones((3, D), np.float32), mask=[[False] * D, [False, True], [True, True]])


@pytest.mark.parametrize(
    ("given", "arguments", "where"),
    [
        ([np.ones((1, D)), MASKED], {}, "Sequence 1, step 1, feature 1 is masked"),
        ([np.ones((1, D)), list(MASKED)], {}, "Sequence 1, step 1, feature 1 is masked"),
        (np.ma.stack([MASKED, MASKED]), {}, "Sequence 0, step 1, feature 1 is masked.*seq_lengths"),
        (np.ma.stack([MASKED, MASKED]), {"seq_lengths": [1, 2]}, "Sequence 1, step 1, feature 1 is masked"),
        (np.ones((2, 3, D)), {"seq_lengths": np.ma.masked_array([1, 2], [False, True])}, "seq_lengths is masked"),
        ([np.ones((1, D))], {"initial_carry": np.ma.masked_array(np.ones((1, H)), True)}, "initial_carry.*masked"),
        ([np.ones((1, D))], {"initial_carry": [np.ma.masked_array(np.ones(H), True)]}, "initial_carry.*masked"),
        ([np.ones((1, D)), objects(list(MASKED))], {}, "Sequence 1, step 1, feature 1 is masked"),
        (np.ones((2, 3, D)), {"seq_lengths": [1, np.ma.masked]}, "seq_lengths is masked"),
    ],
)
def test_a_masked_value_is_not_computed_with(given: Any, arguments: Any, where: str) -> None:
    with pytest.raises(DataError, match=f"{where}"):
        small(given, **arguments)


def test_a_mask_that_hides_nothing_or_only_padding_is_as_good_as_none() -> None:
    plain = small([np.ones((1, D)), np.ones((3, D))])
    is_padding = np.arange(3) >= np.array([[1], [3]])
    padded = np.ma.masked_array(np.ones((2, 3, D)), mask=np.repeat(is_padding[:, :, None], D, axis=2))
    np.testing.assert_array_equal(small(padded, [1, 3]), plain)
    np.testing.assert_array_equal(small([np.ma.ones((1, D)), np.ma.ones((3, D))]), plain)


@pytest.mark.parametrize(
    ("carry", "message"),
    [
        (np.full((1, H), 0.1), "float64 value 0.1 .*lossy_cast=True"),
        ([[0.5] * (H - 1) + [2**53 + 1]], rf"initial_carry.*step 0, feature {H - 1}: int value {2**53 + 1}"),
        (np.array([[0.5] * H, [np.nan] * H]), r"initial_carry\[1\] holds"),
    ],
)
def test_initial_carries_follow_the_same_rule(carry: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small([np.ones((1, D))] * len(carry), initial_carry=carry)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.ones((2, D), complex)], "complex128; expected numbers. Make two features of a complex one"),
        ([np.ones((2, D), object)], r"object; expected numbers. .*x\.astype\(float\)"),
        ([np.ones((2, D), "M8[s]")], "datetime64.*seconds"),
        ([np.ones((2, D), "m8[s]")], "timedelta64.*seconds"),
        ([np.full((2, D), "1.5")], r"<U3; expected numbers. .*x\.astype\(float\)"),
        ([jnp.ones((2, D), jnp.bfloat16)], r"bfloat16; expected numbers. .*x\.astype\(np\.float32\)"),
        ([[[1.0, 2.0], [3.0]]], "Sequence 0, a list, is no array of numbers"),
        (np.ones((2, 3, D), complex), "A padded batch is complex128.*Make two features"),
    ],
)
def test_what_is_no_number_is_refused_with_what_to_do(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small(given)


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
        (ROWS, {"max_steps": "3"}, ConfigError, "max_steps is '3'; expected 0 or more"),
        (ROWS, {"nonfinite": "drop"}, ConfigError, "nonfinite is 'drop'; expected 'error' or 'propagate'"),
        (ROWS, {"seq_lengths": LENGTHS}, ConfigError, r"seq_lengths goes with a padded .*; the sequences are a list"),
        (Ragged.empty(D), {"seq_lengths": []}, ConfigError, "the sequences are a Ragged"),
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
        ([np.zeros((2, 9))], {}, DataError, r"\(2, 9\).*\(D, T\); expected is \(T, D\), time first: pass x\.T"),
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


def test_an_argument_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mesh is 4 \(int\); expected a jax\.sharding\.Mesh"):
        encode(ENCODER, ROWS, mesh=4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"window_shape is \(1, 2, 3\) \(tuple\); expected srd\.WindowShape"):
        encode(ENCODER, ROWS, window_shape=(1, 2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", ["xla", None])
def test_max_steps_hides_an_id_that_the_input_has_not(kernel: str | None) -> None:
    items = InputSpec((Category("item", size=3, encode="embedding", dimension=2),))
    encoder = Encoder.from_seed(0, None, 4, input=items)
    few = encode(encoder, [[[0], [1], [99]], [[2]]], max_steps=2, kernel=kernel)
    np.testing.assert_array_equal(few, encode(encoder, [[[0], [1]], [[2]]], kernel=kernel))
    with pytest.raises(DataError, match="Sequence 0, step 2"):
        encode(encoder, [[[0], [1], [99]], [[2]]], max_steps=3)


def test_max_steps_may_be_a_float_and_hides_a_nan_beyond_it() -> None:
    encoder = Encoder.from_seed(0, 2, 3)
    x = np.ones((5, 2), np.float32)
    x[3:] = np.nan
    few = encode(encoder, [x, x[:1]], max_steps=3.0)
    np.testing.assert_array_equal(few, encode(encoder, [x[:3], x[:1]]))
    with pytest.raises(DataError, match="Sequence 0 holds a NaN or an infinity at step 3"):
        encode(encoder, [x, x[:1]], max_steps=4)
    column = pa.array([x.tolist(), x[:1].tolist()], pa.list_(pa.list_(pa.float32())))
    np.testing.assert_array_equal(few, encode(encoder, column, max_steps=3))
    with pytest.raises(DataError, match="Sequence 0 holds a NaN or an infinity at step 3"):
        encode(encoder, column, max_steps=4)


def test_a_bare_cell_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"Encoder\(nnx.GRUCell\(...\)\)"):
        encode(drawn(nnx.GRUCell, 2, 3), [np.ones((5, 2))])


def test_a_cell_that_computes_with_something_else_now_gives_other_features() -> None:
    encoder = Encoder(drawn(Configured, D, H))
    for factor in (1.0, 0.5, 1.0):
        encoder.cell.gain.factor = factor
        features = encode(encoder, ROWS[:1], window_shape=WindowShape(2, 4, 4))
        np.testing.assert_allclose(features[0], encoder(ROWS[0]), rtol=0, atol=TOLERANCE)
