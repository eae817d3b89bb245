"""An encoder with an input: its scan is the specification's over transformed steps, and its tables are parameters."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from cells import at_once, drawn
from flax import nnx
from jax.flatten_util import ravel_pytree
from sources import mesh_of

from scanrnn_dist.api import encode
from scanrnn_dist.encoder import file
from scanrnn_dist.encoder.encoder import Encoder
from scanrnn_dist.encoder.file import FORMAT, variables_of
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.same_bits import gives_same_bits
from scanrnn_dist.engine.smaller import drain_shapes
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.faithfulness import Judge
from scanrnn_dist.input_spec import UNKNOWN_ID, Category, InputSpec, Number, Time
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

SPEC = InputSpec(
    (
        Number("dwell", log1p=True, mean=1.0, std=2.0, clip=(-3, 3)),
        Category("item", size=7, encode="embedding", dimension=3, unknown="zeros"),
        Category("colour", values=("red", "blue"), unknown="own"),
        Time("when", unit="h"),
        Category("page.kind", values=(10, -5, 7), encode="embedding", dimension=2, unknown="own"),
    )
)
FINGERPRINT_OF_ONES = "3c27a0cbfe80f229a15127f310c699bb7beaf27349d594a3b3cadd2c41c1e9b1"
"""As it was before encoders had inputs."""
WIDTH = 1 + 3 + 3 + 1 + 2
H = 5
SOAK = pytest.mark.soak
SHAPE = WindowShape(lanes=4, block_steps=4, window_blocks=6)


def test_what_is_no_seed_and_no_tables_is_refused() -> None:
    cell = drawn(nnx.GRUCell, WIDTH, H)
    for tables in (2**63, None, "a"):
        with pytest.raises(ConfigError, match=r"The seed is .*; expected a whole number of at most 64 bits"):
            Encoder(cell, input=SPEC, tables=tables)  # type: ignore[arg-type]
    words = {name: np.full(shape, "a") for name, shape in SPEC.tables.items()}
    with pytest.raises(ConfigError, match=r"'item' holds values of type .*; expected numbers"):
        Encoder(cell, input=SPEC, tables=words)
    one, other = (Encoder(cell, input=SPEC, tables=seed) for seed in (3, np.int64(3)))
    assert one.fingerprint == other.fingerprint
    with pytest.raises(ConfigError, match="were given without an input"):
        Encoder.from_seed(0, 2, H, tables={"item": np.zeros((3, 2))})


def test_tables_may_be_given_beside_random_cells() -> None:
    tables = {name: np.full(shape, 0.5, np.float32) for name, shape in SPEC.tables.items()}
    given, drawn_ones = (variables_of(Encoder.from_seed(0, None, H, input=SPEC, **o)) for o in ({"tables": tables}, {}))
    for name, array in given.items():
        wanted = tables[name.removeprefix("input.")] if name.startswith("input.") else drawn_ones[name]
        np.testing.assert_array_equal(array, wanted)


def test_weights_that_are_nan_are_told_of_when_they_are_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder.from_seed(0, 2, H)
    encoder.save(tmp_path / "good.safetensors")
    Encoder.load(tmp_path / "good.safetensors")
    assert not caplog.text
    encoder.cell.dense_h.kernel[...] = encoder.cell.dense_h.kernel[...].at[0, 0].set(jnp.nan)
    encoder.save(tmp_path / "bad.safetensors")
    Encoder.load(tmp_path / "bad.safetensors")
    assert "bad.safetensors holds NaN, so features will be NaN: 0.dense_h.kernel." in caplog.text


def rows_of(spec: InputSpec = SPEC, seed: int = 0) -> list[np.ndarray]:
    """Travelling values of some rows, unknown items among them."""
    rng = np.random.default_rng(seed)
    rows = [spec.drawn(rng, (int(length),)) for length in [0, 1, 8, 30, *rng.integers(0, 20, 12)]]
    for row in rows:
        row[rng.random(len(row)) < 0.2, 1] = UNKNOWN_ID
    return rows


def transformed(encoder: Encoder, x: np.ndarray) -> np.ndarray:
    """What the cell gets of travelling steps, in plain numpy."""
    spec = encoder.input
    assert spec is not None
    tables = {name: variables_of(encoder)[f"input.{name}"] for name in spec.tables}
    steps = np.zeros((len(x), spec.width), np.float32)
    for index, (column, place) in enumerate(zip(spec.columns, spec.places, strict=True)):
        for step, value in enumerate(x[:, index]):
            if not isinstance(column, Category):
                steps[step, place] = value
            elif value >= 0:
                one_hot = np.eye(column.ids, dtype=np.float32)[int(value)]
                steps[step, place] = tables[column.name][int(value)] if column.name in tables else one_hot
    return steps


def without_input(encoder: Encoder, **options: Any) -> Encoder:
    """The cells alone."""
    layers = [(layer.forward, layer.backward) if encoder.is_bidirectional else layer for layer in encoder.layers]
    return Encoder(layers, readout=encoder.readout_names, scan=encoder.scan, **options)


KINDS: dict[str, dict[str, Any]] = {
    "gru": {},
    "stack": {"num_layers": 2, "cell": "lstm", "readout": "last+mean"},
    "bidirectional": {"num_layers": 2, "bidirectional": True, "readout": "last+max"},
    "steps": {"readout": "steps"},
    "nnx scan": {"scan": "nnx", "cell": "rnn"},
}


@pytest.mark.parametrize("name", [name if name == "gru" else pytest.param(name, marks=SOAK) for name in KINDS])
def test_a_rows_features_are_the_scan_over_its_transformed_steps(name: str) -> None:
    encoder = Encoder.from_seed(3, None, H, input=SPEC, **KINDS[name])
    assert (encoder.in_features, encoder.layers[0].in_features, encoder.input) == (5, WIDTH, SPEC)
    plain, rows = without_input(encoder), rows_of()
    wanted = encode(plain, [transformed(encoder, row) for row in rows], mesh=mesh_of(2), window_shape=SHAPE)
    one, other = at_once(encoder, rows[3]), at_once(plain, transformed(encoder, rows[3]))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    features = encode(encoder, rows, mesh=mesh_of(2), window_shape=SHAPE)
    if isinstance(features, Ragged) and isinstance(wanted, Ragged):
        features, wanted = features.values, wanted.values
    np.testing.assert_allclose(features, wanted, rtol=0, atol=1e-6)
    assert encoder.flops_per_step == plain.flops_per_step


def test_an_id_that_is_no_whole_number_gives_nan() -> None:
    encoder, row = Encoder.from_seed(4, None, H, input=SPEC), rows_of()[3].copy()
    assert np.isfinite(encoder(row)).all()
    row[0, [isinstance(column, Category) for column in SPEC.columns].index(True)] = 0.5
    assert np.isnan(encoder(row)).all()


def test_a_lookup_gives_the_bits_of_the_table() -> None:
    encoder = Encoder.from_seed(0, None, H, input=SPEC)
    row = np.concatenate(rows_of())
    assert encoder.step_input is not None
    np.testing.assert_array_equal(jax.jit(jax.vmap(encoder.step_input))(row), transformed(encoder, row))


def test_an_id_that_a_column_has_not_is_refused_and_on_a_device_a_nan() -> None:
    encoder, rows = Encoder.from_seed(0, None, H, input=SPEC), rows_of()
    for index, wrong in ((1, 7), (1, -2), (1, 1.5), (2, 3), (4, -1)):
        row = rows[3].copy()
        row[5, index] = wrong
        name = SPEC.columns[index].name
        with pytest.raises(DataError, match=rf"Sequence 1, step 5: column '{name}' has the id .*; expected a whole"):
            encode(encoder, Ragged.from_sequences([rows[2], row, rows[2]]).slice(0, 3))
        if wrong != 1.5:
            assert np.isnan(encoder(row)).all()


def test_names_and_values_of_an_input_may_be_the_word_float64(tmp_path: Path) -> None:
    spec = InputSpec((Number("float64"), Category("dtype", values=("float32", "float64"))))
    encoder = Encoder.from_seed(0, None, H, input=spec)
    encoder.save(tmp_path / "encoder.safetensors")
    for read in (Encoder.load(tmp_path / "encoder.safetensors"), pickle.loads(pickle.dumps(encoder))):
        assert read.fingerprint == encoder.fingerprint


# Gradients


@pytest.mark.usefixtures("compiled_quickly")
def test_the_gradient_of_tables_is_that_of_finite_differences() -> None:
    with jax.enable_x64(True):
        cell = drawn(nnx.SimpleCell, WIDTH, 3, dtype=jnp.float64, param_dtype=jnp.float64)
        encoder = Encoder(cell, input=SPEC, readout="last+mean")
        graphdef, tables, rest = nnx.split(encoder, lambda path, _: "tables" in path, ...)
        x = jnp.asarray(rows_of()[3], jnp.float64)
        at, unravel = ravel_pytree(tables)
        assert (at.dtype, at.size) == (np.float64, 7 * 3 + 4 * 2)

        @jax.jit
        @jax.value_and_grad
        def loss(flat: jax.Array) -> jax.Array:
            features = nnx.merge(graphdef, unravel(flat), rest)(x)
            return jnp.dot(features, jnp.arange(1.0, 1.0 + features.size))

        at = np.asarray(at)
        gradient = np.asarray(loss(at)[1])
        steps = 1e-5 * np.eye(at.size)
        wanted = np.array([float(loss(at + step)[0]) - float(loss(at - step)[0]) for step in steps]) / 2e-5
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-8)  # as in test_gradients.py


@pytest.mark.soak
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gradient_of_a_table_is_that_of_a_product_with_one_hot_vectors(bidirectional: bool) -> None:
    table = Encoder.from_seed(0, None, H, input=SPEC).step_input.tables[0][...]  # type: ignore[union-attr]
    items = InputSpec((Category("item", size=7, encode="embedding", dimension=3),))
    encoder = Encoder.from_seed(0, None, H, input=items, bidirectional=bidirectional)
    plain, lengths = without_input(encoder), np.array([6, 0, 4], np.int32)
    ids = np.random.default_rng(0).integers(0, 7, (3, 6))

    graphdef, tables, rest = nnx.split(encoder, lambda path, _: "tables" in path, ...)

    def looked_up(table: jax.Array) -> jax.Array:
        own = nnx.merge(graphdef, jax.tree.map(lambda _: table, tables), rest)
        return jnp.square(own(ids[..., None].astype(np.float32), lengths)).sum()

    def multiplied(table: jax.Array) -> jax.Array:
        return jnp.square(plain(jax.nn.one_hot(ids, 7) @ table, lengths)).sum()

    gradient = jax.grad(looked_up)(table)
    assert np.abs(gradient).max() > 0.01
    np.testing.assert_allclose(gradient, jax.grad(multiplied)(table), rtol=0, atol=1e-6)  # sums of some ten terms


# Seeds, fingerprints, files


def test_cells_do_not_depend_on_tables_nor_a_table_on_the_others() -> None:
    encoder = Encoder.from_seed(7, None, H, input=SPEC)
    with_input, plain = variables_of(encoder), variables_of(Encoder.from_seed(7, WIDTH, H))
    assert with_input.keys() - plain.keys() == {"input.item", "input.page.kind"}
    for name, array in plain.items():
        np.testing.assert_array_equal(with_input[name], array)
    alone = Encoder.from_seed(7, None, H, input=InputSpec((SPEC.columns[4], SPEC.columns[1])))
    np.testing.assert_array_equal(variables_of(alone)["input.item"], with_input["input.item"])
    alike = InputSpec(tuple(Category(name, size=4, encode="embedding", dimension=2) for name in ("aa", "ab")))
    tables = variables_of(Encoder.from_seed(7, None, H, input=alike))
    assert not np.array_equal(tables["input.aa"], tables["input.ab"])
    assert not np.array_equal(
        variables_of(Encoder.from_seed(8, None, H, input=SPEC))["input.item"], with_input["input.item"]
    )
    assert abs(variables_of(Encoder.from_seed(0, None, H, input=large()))["input.item"].std() - 1) < 0.01


def large(**changes: Any) -> InputSpec:
    return InputSpec((Category("item", **{"size": 10_000, "encode": "embedding", "dimension": 4, **changes}),))


def other_table() -> Encoder:
    encoder = Encoder.from_seed(0, None, H, input=SPEC)
    assert encoder.step_input is not None
    table = encoder.step_input.tables[0]
    table[...] = table[...].at[0, 0].add(1e-6)
    return encoder


def changed(index: int, column: Any) -> Encoder:
    return Encoder.from_seed(0, None, H, input=InputSpec((*SPEC.columns[:index], column, *SPEC.columns[index + 1 :])))


@pytest.mark.parametrize(
    "other",
    [
        other_table,
        lambda: Encoder.from_seed(0, WIDTH, H),
        lambda: changed(0, Number("dwell", log1p=True, mean=1.0, std=2.5, clip=(-3, 3))),
        lambda: changed(2, Category("colour", values=("blue", "red"), unknown="own")),
        lambda: changed(3, Time("when", unit="min")),
    ],
)
def test_whatever_changes_the_features_changes_the_fingerprint(other: Callable[[], Encoder]) -> None:
    fingerprint = Encoder.from_seed(0, None, H, input=SPEC).fingerprint
    assert other().fingerprint != fingerprint == Encoder.from_seed(0, None, H, input=SPEC).fingerprint


@pytest.mark.parametrize("name", ["gru", pytest.param("bidirectional", marks=SOAK)])
def test_the_file_gives_back_input_and_tables(name: str, tmp_path: Path) -> None:
    encoder, path = Encoder.from_seed(3, None, H, input=SPEC, **KINDS[name]), tmp_path / "e.safetensors"
    encoder.save(path)
    loaded = Encoder.load(path)
    assert (loaded.input, loaded.fingerprint) == (SPEC, encoder.fingerprint)
    np.testing.assert_array_equal(at_once(loaded, rows_of()[3]), at_once(encoder, rows_of()[3]))
    assert safetensors.numpy.load_file(path)["input.page.kind"].shape == (4, 2)


def test_an_encoder_without_input_has_the_file_and_the_fingerprint_that_it_had(tmp_path: Path) -> None:
    encoder, path = Encoder.from_seed(0, 3, 5), tmp_path / "e.safetensors"
    assert "input" not in encoder.architecture
    # With weights of ones, which no version of JAX draws anew.
    nnx.update(encoder, jax.tree.map(jnp.ones_like, nnx.state(encoder)))
    assert encoder.fingerprint == FINGERPRINT_OF_ONES
    encoder.save(path)
    with safetensors.safe_open(path, "numpy") as opened:
        assert opened.metadata()["format"] == FORMAT
        assert sorted(json.loads(opened.metadata()["architecture"])) == [
            "initial_carry", "layers", "precision", "readout", "scan",
        ]  # fmt: skip


def spoiled(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change weights and architecture of an encoder's file."""
    weights = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as opened:
        metadata = opened.metadata()
    architecture = json.loads(metadata["architecture"])
    change(weights, architecture)
    safetensors.numpy.save_file(weights, path, {**metadata, "architecture": json.dumps(architecture)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, a: w.pop("input.item"), r"damaged .*'item': missing, expected \(7, 3\)"),
        (lambda w, a: w.update({"input.item": np.zeros((7, 4), "f4")}), r"'item': \(7, 4\), expected \(7, 3\)"),
        (lambda w, a: w.update({"input.item": np.zeros((7, 3), "f2")}), r"input\.item: .*float16"),
        (lambda w, a: w.update({"input.other": np.zeros((7, 3), "f4")}), r"input\.other: .*expected none"),
        (lambda w, a: a["input"]["column"][1].update(size=10**9), "has 1,000,000,000 ids; expected at most"),
        (lambda w, a: a["input"]["column"][1].update(dimension=10**9), r"expected \(7, 1000000000\)|takes 10 numbers"),
        (lambda w, a: a["input"]["column"].pop(), "layer takes 10 numbers per step, and the input's columns give"),
        (lambda w, a: a.update(input=7), "An input holds int"),
    ],
)  # fmt: skip
def test_a_file_whose_tables_do_not_fit_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    Encoder.from_seed(0, None, H, input=SPEC).save(path)
    spoiled(path, change)
    with pytest.raises(DataError, match=message):
        Encoder.load(path)


def test_a_vocabulary_too_large_for_a_files_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MOST_HEADER_BYTES", 10_000)
    spec = InputSpec(
        (Category("item", values=tuple(f"{n:0100d}" for n in range(100)), encode="embedding", dimension=1),)
    )
    with pytest.raises(ConfigError, match="Number the values of its input's columns, and give their size"):
        Encoder.from_seed(0, None, H, input=spec).save(tmp_path / "e.safetensors")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Encoder.from_seed(0, 4, H, input=SPEC), "in_features is 4, and input has 5 columns"),
        (lambda: Encoder.from_seed(0, None, H), "in_features is None; expected"),
        (lambda: Encoder(drawn(nnx.GRUCell, 4, H), input=SPEC), "takes 4 numbers per step, .* give 10: dw"),
        (lambda: Encoder(drawn(nnx.GRUCell, 10, H), input="a.toml"), "The input is a str; expected an Inp"),
        (lambda: Encoder(drawn(nnx.GRUCell, 10, H), input=SPEC, tables={"item": np.zeros((7, 3))}),
         r"'page\.kind': missing, expected \(4, 2\)"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(make: Callable[[], Encoder], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# The judge, and the drain


@pytest.mark.usefixtures("compiled_quickly")
def test_the_judge_takes_ids_without_rounding_them() -> None:
    spec = InputSpec((Category("item", size=2**14, encode="embedding", dimension=2), Number("x")))
    encoder = Encoder.from_seed(0, None, H, cell="rnn", input=spec)
    row = spec.drawn(np.random.default_rng(0), (9,))
    row[:, 0] = 2**14 - 1 - np.arange(9)  # a rounding error of one part in 2**14 would be another item
    features = np.asarray(encoder(row))
    judge = Judge(encoder)
    judgement = judge(features, row)
    assert judgement.is_faithful and judgement.distance < 1e-6
    # The bound of a wrong row is what roundings alone could do, so they must not have changed an item.
    assert judge(features + 1, row).bound < 1e-4


@pytest.mark.soak
def test_the_drains_probe_sees_tables_and_cells() -> None:
    encoder = Encoder.from_seed(0, None, 8, input=SPEC)
    shapes = drain_shapes(WindowShape(lanes=16, block_steps=4, window_blocks=8))
    engine, few = (CompiledWindow(encoder, mesh_of(1), shape) for shape in shapes)
    if not gives_same_bits(engine, few):
        pytest.skip("This XLA gives few lanes other bits than many.")
    assert encoder.step_input is not None
    for weights in (encoder.cell.dense_h.kernel, *encoder.step_input.named_tables().values()):
        before = weights[...]
        weights[...] = before.at[-1, -1].multiply(1.001)
        assert not gives_same_bits(engine, CompiledWindow(encoder, mesh_of(1), shapes[1]))
        weights[...] = before
