"""Whatever the cells, layers, directions and readout: the engine gives what the encoder gives for a row alone.

Each law is tried here with the encoders that differ most; with the rest of the table behind `-m soak`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cells import at_once, drawn
from flax import nnx
from jax.sharding import AxisType, Mesh

from scanrnn_dist.api import BatchFeaturizer, encode, featurize, verify
from scanrnn_dist.encoder.architecture import with_recurrent_bias
from scanrnn_dist.encoder.encoder import Encoder, State
from scanrnn_dist.engine import Engine
from scanrnn_dist.engine.bidirectional import BidirectionalEngine
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

TOLERANCE = 1e-6  # the bound of the design for float32 at precision "highest"
FLOAT64_TOLERANCE = 1e-14  # of features below 1: 45 roundings
D, H = 3, 5
SOAK, SWEEP = pytest.mark.soak, pytest.mark.sweep
SWEPT = ("optimized lstm", "simple", "recurrent biases", "filled carry", "bidirectional lstm", "bidirectional steps")
"""Encoders that differ little from another one of the table."""
SHAPE = WindowShape(lanes=4, block_steps=4, window_blocks=6)


class Counting(nnx.SimpleCell):
    """A cell whose inputs grow with a counter of its own, which it changes in every step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = nnx.Variable(jnp.ones(()))

    def __call__(self, carry: Any, inputs: Any) -> Any:
        new = super().__call__(carry, inputs * self.steps[...])
        self.steps[...] = self.steps[...] + 0.5
        return new


class TreeCell(nnx.RNNCellBase):
    """A user's cell: plain numbers, a carry of several arrays, one of whole numbers, outputs of another size."""

    def __init__(self, in_features: int, rngs: nnx.Rngs) -> None:
        self.in_features = in_features
        self.inner = drawn(nnx.SimpleCell, in_features, 4)
        self.number, self.rate = nnx.Variable(3), nnx.Param(0.5)
        kernel = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
        self.out = nnx.Linear(4, 2, kernel_init=lambda *_, **__: jax.device_put(kernel), rngs=rngs)

    def __call__(self, carry: Any, inputs: Any) -> Any:
        inner, y = self.inner(carry["inner"], inputs)
        return {"inner": inner, "count": carry["count"] + 1}, self.out(y)

    def initialize_carry(self, input_shape: Any, rngs: Any = None, carry_init: Any = None) -> Any:
        return {"inner": self.inner.initialize_carry(input_shape, rngs), "count": jnp.zeros((), jnp.int32)}

    @property
    def num_feature_axes(self) -> int:
        return 1


class Turning(nnx.RNNCellBase):
    """A cell of which the carry, that after a step, or the output is complex."""

    in_features = D

    def __init__(self, where: str) -> None:
        self.where = where

    def __call__(self, carry: Any, inputs: Any) -> Any:
        h = carry / 2 + inputs
        new = h * np.complex64(1j) if self.where == "carry after a step" else h
        return new, h.astype(jnp.complex64) if self.where == "output" else h.real

    def initialize_carry(self, input_shape: Any, rngs: Any = None, carry_init: Any = None) -> Any:
        return jnp.zeros(D, jnp.complex64 if self.where == "carry" else jnp.float32)

    @property
    def num_feature_axes(self) -> int:
        return 1


class Doubled(Encoder):
    """An encoder with a readout of its own."""

    def readout(self, state: State) -> jax.Array:
        return jnp.concatenate([super().readout(state)] * 2)


class Halved(Encoder):
    """An encoder with a step of its own."""

    def step(self, state: State, x_t: jax.Array) -> tuple[State, jax.Array]:
        return super().step(state, x_t / 2)


class Begun(Encoder):
    """An encoder with a first state of its own."""

    def initial_state(self, carry: jax.Array | None = None) -> State:
        return super().initial_state(jnp.ones(self.carry_features) if carry is None else carry)


def stacked(kinds: str) -> list[nnx.RNNCellBase]:
    """One cell per letter: g, l, o, s; each takes the outputs of the one before."""
    cells = {"g": nnx.GRUCell, "l": nnx.LSTMCell, "o": nnx.OptimizedLSTMCell, "s": nnx.SimpleCell}
    sizes = [D, 5, 4, 6]
    return [drawn(cells[k], sizes[i], sizes[i + 1], seed=i) for i, k in enumerate(kinds)]


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "gru": lambda: Encoder(stacked("g")),
    "lstm": lambda: Encoder(stacked("l"), readout="last+max"),
    "optimized lstm": lambda: Encoder(stacked("o"), readout="mean"),
    "simple": lambda: Encoder(stacked("s"), readout="max+mean+last"),
    "recurrent biases": lambda: Encoder(with_recurrent_bias(drawn(nnx.GRUCell, D, H), nnx.Rngs(1))),
    "stack": lambda: Encoder(stacked("gos"), readout="last+mean"),
    "filled carry": lambda: Encoder(stacked("lg"), initial_carry=0.25),
    "steps": lambda: Encoder(stacked("gl"), readout="steps"),
    "own variables": lambda: Encoder(drawn(Counting, D, H), scan="nnx", readout="last+mean"),
    "tree": lambda: Encoder(TreeCell(D, nnx.Rngs(0)), readout="last+mean"),
    "bidirectional": lambda: Encoder.from_seed(0, D, H, bidirectional=True, num_layers=2, readout="last+mean"),
    "bidirectional lstm": lambda: Encoder.from_seed(0, D, H, cell="lstm", bidirectional=True, readout="last+max"),
    "bidirectional steps": lambda: Encoder.from_seed(0, D, H, cell="rnn", bidirectional=True, readout="steps"),
    "bfloat16": lambda: Encoder.from_seed(0, D, H, dtype="bfloat16"),
}


@functools.cache
def made(name: str) -> Encoder:
    """The encoder of this name, made once."""
    return ENCODERS[name]()


def table_with(*names: str, soaked: Collection[str] = ENCODERS.keys() - SWEPT) -> list[Any]:
    """All names of the table: these in the default run, others behind `-m soak`, the rest behind `-m sweep`."""
    assert {*names, *soaked} <= set(ENCODERS)
    return [name if name in names else pytest.param(name, marks=SOAK if name in soaked else SWEEP) for name in ENCODERS]


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))


def random_rows(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 8, 24, 90, 0, *rng.integers(0, 40, 30)]
    return [rng.normal(size=(int(length), D)).astype(np.float32) for length in lengths]


ROWS = random_rows()
MOST_STEPS = max(map(len, ROWS))


def encoded(encoder: Encoder, rows: list[np.ndarray], devices: int = 2, **options: Any) -> list[np.ndarray]:
    """The features of each row."""
    features = encode(encoder, rows, mesh=mesh_of(devices), window_shape=SHAPE, **options)
    return [features.row(i) for i in range(len(rows))] if isinstance(features, Ragged) else list(features)


def scanned(encoder: Encoder, rows: list[np.ndarray], carries: Any = None) -> list[np.ndarray]:
    """What the encoder gives for each row alone; padded, so that one program serves all lengths."""
    features = []
    for row, carry in zip(rows, itertools.repeat(None) if carries is None else carries, strict=False):
        padded = np.pad(row, ((0, MOST_STEPS - len(row)), (0, 0)))
        features.append(np.asarray(at_once(encoder, padded, np.int32(len(row)), carry)))
    return [each[: len(row)] for each, row in zip(features, rows, strict=True)] if encoder.gives_steps else features


@functools.cache
def plainly_encoded(name: str) -> list[np.ndarray]:
    """The features of `ROWS`, which several tests hold others against."""
    return encoded(made(name), ROWS)


def assert_same_bits(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("name", table_with("stack", "bfloat16"))  # own variables: of keys, see below
def test_the_engine_gives_what_the_encoder_gives_for_a_row_alone(name: str) -> None:
    encoder = made(name)
    tolerance = 0.02 if name == "bfloat16" else TOLERANCE  # a few roundings of 8 bits
    for features, alone in zip(plainly_encoded(name), scanned(encoder, ROWS), strict=True):
        assert alone.shape == features.shape and features.shape[-1] == encoder.out_features
        np.testing.assert_allclose(features, alone, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", table_with("stack", "steps", "bidirectional lstm"))
def test_the_bits_of_a_row_depend_on_that_row_alone(name: str) -> None:
    encoder = made(name)
    plain = plainly_encoded(name)
    order = np.random.default_rng(5).permutation(len(ROWS))
    assert_same_bits(encoded(encoder, [ROWS[i] for i in order], devices=3), [plain[i] for i in order])
    spoiled = [np.full_like(row, np.nan) if i % 3 == 0 else row for i, row in enumerate(ROWS)]
    beside_nan = encoded(encoder, spoiled, nonfinite="propagate")
    kept = [i for i in range(len(ROWS)) if i % 3]
    assert_same_bits([beside_nan[i] for i in kept], [plain[i] for i in kept])


@pytest.mark.parametrize("name", table_with("stack", soaked=["steps", "own variables", "bidirectional"]))
def test_a_padded_batch_gives_what_its_rows_give_alone(name: str) -> None:
    encoder = made(name)
    lengths = np.array([0, 5, 5], np.int32)
    padded = np.random.default_rng(0).normal(size=(3, 9, D)).astype(np.float32)
    spoiled = padded.copy()
    for row, length in enumerate(lengths):
        spoiled[row, length:] = np.nan
    tolerance = 0.02 if name == "bfloat16" else TOLERANCE
    features = np.asarray(at_once(encoder, spoiled, lengths))
    each = scanned(encoder, [steps[:length] for steps, length in zip(padded, lengths, strict=True)])
    for ours, alone, length in zip(features, each, lengths, strict=True):
        if encoder.gives_steps:
            assert not ours[length:].any()
            ours = ours[:length]
        np.testing.assert_allclose(ours, alone, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", table_with("stack", "bfloat16", soaked=["lstm", "bidirectional"]))
def test_its_file_gives_the_same_encoder(name: str, tmp_path: Path) -> None:
    if name in ("own variables", "tree"):
        pytest.skip("a cell of the user's own has no file")
    encoder = made(name)
    encoder.save(tmp_path / "encoder.safetensors")
    loaded = Encoder.load(tmp_path / "encoder.safetensors")
    assert loaded.fingerprint == encoder.fingerprint and loaded.architecture == encoder.architecture
    np.testing.assert_array_equal(scanned(loaded, [ROWS[4]])[0], scanned(encoder, [ROWS[4]])[0])


@pytest.mark.parametrize(
    "name", ["bidirectional steps", *(pytest.param(n, marks=SOAK) for n in ("lstm", "gru", "stack", "bidirectional"))]
)
def test_every_row_may_have_its_own_initial_carry(name: str) -> None:
    encoder = made(name)
    carries = np.random.default_rng(1).normal(size=(len(ROWS), encoder.carry_features)).astype(np.float32)
    own = encoded(encoder, ROWS, initial_carry=carries)
    for features, alone in zip(own, scanned(encoder, ROWS, carries), strict=True):
        np.testing.assert_allclose(features, alone, rtol=0, atol=TOLERANCE)
    if not encoder.gives_steps:
        assert np.abs(own[1] - plainly_encoded(name)[1]).max() > 1e-3
    with pytest.raises(DataError, match=f"expected one for each of {len(ROWS)} rows, {encoder.carry_features} numbers"):
        encoded(encoder, ROWS, initial_carry=carries[:, 1:])


def test_the_pooled_outputs_are_those_of_the_steps() -> None:
    x = np.random.default_rng(0).normal(size=(10_000, D)).astype(np.float32)
    steps = np.asarray(at_once(Encoder(stacked("s"), readout="steps"), x), np.float64)
    pooled = np.split(np.asarray(at_once(Encoder(stacked("s"), readout="last+mean+max"), x)), 3)
    for ours, wanted in zip(pooled, (steps[-1], steps.mean(axis=0), steps.max(axis=0)), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=TOLERANCE)


def test_the_backward_cell_reads_from_the_row_s_own_end() -> None:
    encoder = Encoder.from_seed(0, D, H, bidirectional=True)
    backward = Encoder(encoder.cells[1])
    for features, alone in zip(encoded(encoder, ROWS), scanned(backward, [row[::-1] for row in ROWS]), strict=True):
        np.testing.assert_allclose(features[H:], alone, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("compiled_quickly")
def test_directions_of_other_sizes_are_joined_readout_by_readout() -> None:
    pair = drawn(nnx.SimpleCell, D, 2), drawn(nnx.SimpleCell, D, 3, seed=1)
    there, back = (
        np.asarray(at_once(Encoder(cell, readout="last+mean"), ROWS[4][::way]))
        for cell, way in zip(pair, (1, -1), strict=True)
    )
    wanted = np.concatenate([there[:2], back[:3], there[2:], back[3:]])
    encoder = Encoder([pair], readout="last+mean")
    for features in (encoded(encoder, [ROWS[4]])[0], at_once(encoder, ROWS[4])):
        np.testing.assert_allclose(features, wanted, rtol=0, atol=TOLERANCE)


def test_the_first_layer_of_a_seed_is_that_of_the_specification() -> None:
    stack, alone = (Encoder.from_seed(7, D, H, num_layers=layers) for layers in (2, 1))
    assert Encoder(stack.layers[0]).fingerprint == alone.fingerprint


@pytest.mark.parametrize("bidirectional", [False, pytest.param(True, marks=SOAK)])
def test_nnx_scan_equals_lax_scan_for_cells_that_change_nothing(bidirectional: bool) -> None:
    one, other = (
        at_once(Encoder.from_seed(0, D, H, num_layers=2, bidirectional=bidirectional, scan=scan), ROWS[4])
        for scan in ("lax", "nnx")
    )
    np.testing.assert_array_equal(one, other)


def test_own_variables_start_anew_with_every_row_and_stay_as_they_were() -> None:
    encoder = made("own variables")
    grown = ROWS[4] * (1 + 0.5 * np.arange(len(ROWS[4]), dtype=np.float32))[:, None]
    plain = Encoder(drawn(nnx.SimpleCell, D, H), readout="last+mean")
    np.testing.assert_allclose(encoder(ROWS[4]), at_once(plain, grown), rtol=0, atol=TOLERANCE)
    assert float(encoder.cell.steps[...]) == 1.0

    @nnx.jit
    @nnx.grad
    def gradient(encoder: Encoder, x: jax.Array) -> jax.Array:
        return (encoder(x) ** 2).sum()

    ours, theirs = (jax.tree.leaves(gradient(*given)) for given in ((encoder, ROWS[4]), (plain, grown)))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)  # sums over steps whose inputs are up to 20
    assert float(encoder.cell.steps[...]) == 1.0


def test_cells_that_change_their_own_variables_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"change variables of their own in a step: 0\.steps.*scan='nnx'"):
        Encoder(drawn(Counting, D, H))


class Keyed(nnx.SimpleCell):
    """A cell with noise from a key of its own, which it splits in every step."""

    def __init__(self, *args: Any, key: jax.Array, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.key = nnx.Variable(key)

    def __call__(self, carry: Any, inputs: Any) -> Any:
        given = self.key[...]
        is_key = jnp.issubdtype(given.dtype, jax.dtypes.prng_key)
        kept, used = jax.random.split(given if is_key else jax.random.wrap_key_data(given))
        self.key[...] = kept if is_key else jax.random.key_data(kept)
        return super().__call__(carry, inputs + jax.random.uniform(used, inputs.shape))


@pytest.mark.usefixtures("compiled_quickly")
def test_a_key_that_changes_is_refused_and_its_numbers_are_taken() -> None:
    with pytest.raises(ConfigError, match=r"change a PRNG key in a step: 0\.key\. Expected numbers: keep "):
        Encoder(drawn(Keyed, D, H, key=jax.random.key(0)), scan="nnx")
    encoder = Encoder(drawn(Keyed, D, H, key=jax.random.key_data(jax.random.key(0))), scan="nnx")
    for features, alone in zip(encoded(encoder, JOB_ROWS), scanned(encoder, JOB_ROWS), strict=True):
        np.testing.assert_allclose(features, alone, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("where", ["carry", "carry after a step", "output"])
def test_cells_of_complex_numbers_are_refused(where: str, readout: str) -> None:
    told = f"The {where.split()[0]} of Turning is complex64; expected real numbers"
    for layers in (Turning(where), [(Turning(where), Turning(where))]):
        with pytest.raises(ConfigError, match=told):
            Encoder(layers, readout=readout)


@pytest.mark.parametrize(
    ("kind", "options", "not_called"),
    [
        (Doubled, {"bidirectional": True}, "bidirectional layers: readout"),
        (Halved, {"bidirectional": True}, "bidirectional layers: step"),
        (Begun, {"bidirectional": True}, "bidirectional layers: initial_state"),
        (Doubled, {"readout": "steps"}, "readout='steps': readout"),
    ],
)
def test_methods_of_a_subclass_that_would_not_be_called_are_refused(
    kind: type[Encoder], options: dict[str, Any], not_called: str
) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__} has methods of its own that do not go with {not_called}"):
        kind.from_seed(0, D, H, **options)


def test_help_shows_the_arguments_of_the_class_and_those_of_a_call() -> None:
    class Own(Encoder):
        def __init__(self, cell: Any, *, size: int = 3) -> None:
            super().__init__(cell)
            self.size = size

    names = {kind: list(inspect.signature(kind).parameters) for kind in (Encoder, Halved, Own)}
    assert names[Encoder] == names[Halved] == list(inspect.signature(Encoder.__init__).parameters)[1:]
    assert names[Own] == ["cell", "size"]
    assert list(inspect.signature(Encoder.from_seed(0, D, H)).parameters) == ["x", "seq_lengths", "initial_carry"]


def test_methods_of_a_subclass_that_are_called_are_taken() -> None:
    for kind in (Doubled, Begun, Halved):
        one, other = (at_once(kind.from_seed(0, D, H, cell="rnn", scan=scan), ROWS[4]) for scan in ("lax", "nnx"))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)  # compiled apart: last bits
    halved, plain = (kind.from_seed(0, D, H, cell="rnn", readout="steps") for kind in (Halved, Encoder))
    np.testing.assert_allclose(at_once(halved, ROWS[4]), at_once(plain, ROWS[4] / 2), rtol=0, atol=1e-7)


class Table(Encoder):
    """An encoder whose readout is no vector."""

    def readout(self, state: State) -> jax.Array:
        return jnp.stack([super().readout(state)] * 2)


class Rounded(Encoder):
    """An encoder whose readout is of another dtype."""

    def readout(self, state: State) -> jax.Array:
        return super().readout(state).astype(jnp.bfloat16)


class Cut(Encoder):
    """An encoder whose step leaves out some outputs."""

    def step(self, state: State, x_t: jax.Array) -> tuple[State, jax.Array]:
        new, y = super().step(state, x_t)
        return new, y[:2]


@pytest.mark.parametrize(
    ("kind", "readout", "told"),
    [
        (Table, "last", rf"readout of Table gives float32\[2, {H}\]; expected one vector, float32\[{2 * H}\]"),
        (Rounded, "last", rf"readout of Rounded gives bfloat16\[{H}\]; expected one vector, float32\[{H}\]"),
        (Cut, "steps", rf"step of Cut gives float32\[2\]; expected one vector, float32\[{H}\]"),
    ],
)
def test_what_does_not_fill_its_place_is_refused(kind: type[Encoder], readout: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        encoded(kind.from_seed(0, D, H, readout=readout), ROWS)


def pair_of(*in_features: int) -> tuple[nnx.GRUCell, ...]:
    return tuple(drawn(nnx.GRUCell, takes, 5) for takes in in_features)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (lambda: [], {}, "expected a cell, a list of cells"),
        (lambda: [*stacked("g"), tuple(stacked("gg"))], {}, r"\[GRUCell, \(GRUCell, GRUCell\)\]; expected a cell"),
        (lambda: [drawn(nnx.GRUCell, 3, 5), drawn(nnx.GRUCell, 3, 5)], {}, "do not fit together"),
        (lambda: [pair_of(3, 3), pair_of(5, 5)], {}, r"do not fit together: .* layer 1 take \[5, 5\] .* and get 10"),
        (lambda: [pair_of(3, 3), pair_of(10, 5)], {}, r"do not fit together: .* layer 1 take \[10, 5\] .* and get 10"),
        (lambda: [pair_of(3, 4)], {}, r"do not fit together: .* layer 0 take \[3, 4\] .* and get 3"),
        (lambda: stacked("g"), {"readout": "first"}, "readout is 'first'; expected one or several of last, mean, max"),
        (lambda: stacked("g"), {"readout": "steps+last"}, "'steps' alone"),
        (lambda: stacked("g"), {"scan": "loop"}, "scan is 'loop'"),
        (lambda: stacked("g"), {"precision": "most"}, "precision is 'most'"),
        (lambda: stacked("g"), {"initial_carry": float("nan")}, "initial_carry is nan; expected a number."),
        (
            lambda: stacked("g"),
            {"initial_carry": np.zeros(5)},
            r"initial_carry has the shape \(5,\); expected one number",
        ),
        (lambda: stacked("g"), {"readout": None}, "readout is None; expected one or several"),
        (lambda: stacked("g"), {"readout": [["last"]]}, r"readout is \[\['last'\]\]; expected one or several"),
    ],
)
def test_what_does_not_fit_is_refused(layers: Callable[[], Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Encoder(layers(), **options)


JOB_ROWS = [row for row in ROWS if len(row) == 0 or 16 < len(row) <= 32]
"""Empty ones and such that cross a window; two lengths only where lengths are padded to powers of two."""


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("tree", False),
        ("bidirectional steps", True),
        pytest.param("stack", True, marks=SOAK),
        *(pytest.param(name, False, marks=SOAK) for name in ("stack", "steps", "bidirectional", "bidirectional steps")),
        *(pytest.param(name, True, marks=SOAK) for name in ("steps", "bidirectional", "lstm")),
    ],
)
def test_a_job_writes_and_verifies_them_all(name: str, own: bool, tmp_path: Path) -> None:
    encoder, count = made(name), len(JOB_ROWS)
    carries = np.random.default_rng(1).normal(size=(count, encoder.carry_features)).astype(np.float32)
    columns = {"id": pa.array(range(count)), "sequence": pa.array([row.tolist() for row in JOB_ROWS])}
    schema = pa.schema([("id", pa.int64()), ("sequence", pa.list_(pa.list_(pa.float32())))])
    table = pa.table(columns, schema).append_column("h0", pa.array(list(carries), pa.list_(pa.float32())))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    options: dict[str, Any] = {"initial_carry": "h0"} if own else {}
    featurize(
        encoder, tmp_path / "in.parquet", tmp_path / "out", column="sequence", mesh=mesh_of(2), window_shape=SHAPE,
        rows_per_part=10, **options,
    )  # fmt: skip
    column = pq.read_table(tmp_path / "out")["features"]
    wanted = encoded(encoder, JOB_ROWS, initial_carry=carries if own else None)
    for ours, features in zip(column.to_pylist(), wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(ours, np.float32).reshape(features.shape), features)
    assert verify(tmp_path / "out", encoder=encoder).sampled == count


def test_a_carry_column_that_does_not_fit_is_named(tmp_path: Path) -> None:
    table = pa.table({"sequence": pa.array([[[1.0, 2.0, 3.0]]] * 2), "h0": pa.array([[0.0] * 5, [0.0] * 4])})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"row 1 .*'h0' holds 4 numbers; expected 5"):
        featurize(
            made("gru"), tmp_path / "in.parquet", tmp_path / "a", column="sequence", initial_carry="h0",
            lossy_cast=True,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="column 'h1' is not kept"):
        featurize(made("gru"), tmp_path / "in.parquet", tmp_path / "b", column="sequence", initial_carry="h1")


@SOAK
def test_the_table_covers_every_readout_and_kind_of_cell() -> None:
    encoders = [made(name) for name in ENCODERS]
    kinds = {type(cell) for encoder in encoders for cell in encoder.cells}
    assert kinds >= {nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.SimpleCell}
    assert set(itertools.chain(*(e.readout_names for e in encoders))) == {"last", "mean", "max", "steps"}


@pytest.mark.usefixtures("compiled_quickly")
def test_a_later_layer_does_not_fall_behind() -> None:
    """What one layer gives waits for the next one within its look-ahead."""
    encoder = Encoder.from_seed(0, 2, 8, cell="rnn", num_layers=2, bidirectional=True)
    engine = BidirectionalEngine(encoder, mesh_of(1), WindowShape(4, 4, 6))
    slower = WindowShape(4, 4, 2)  # a third of the steps in a window
    engine.layers[1] = tuple(Engine(part, mesh_of(1), slower) for part in encoder.directions()[1])
    run = engine.run(memory_bytes=0)  # so two windows are
    rows = [np.zeros((40, 2), np.float32)] * 20
    worst = finished = 0
    for _ in range(60):
        while run.wants_rows:
            run.submit(Ragged.from_sequences(rows))
        finished += sum(map(len, run.advance(more=True)))
        worst = max(worst, *(4 * later._tape.blocks_left for layer in run._layers[1:] for later in layer.runs))
    finished += sum(map(len, run.results()))
    run.close()
    assert finished == run.statistics.rows >= 40
    assert worst <= 8 * 4 * 24  # two windows of 4 lanes, and what windows of the layer before hand on at once


def test_initial_carries_are_let_go_once_their_rows_have_begun() -> None:
    run = Engine(made("gru"), mesh_of(1), SHAPE, own_carries=True).run()
    for _ in range(5):
        run.submit(Ragged.from_sequences(ROWS), carries=np.zeros((len(ROWS), H), np.float32))
        run.results()
    run.close()
    assert not run._submissions.batches


def test_steps_beyond_max_steps_take_no_room() -> None:
    encoder = made("steps")
    long = np.broadcast_to(np.float32(0.5), (2 * 10**9, D))
    outputs = encode(
        encoder, Ragged(long, np.array([0, 10**9, 2 * 10**9])), mesh=mesh_of(1), window_shape=SHAPE, max_steps=4,
        nonfinite="propagate",
    )  # fmt: skip
    np.testing.assert_allclose(outputs.row(1), at_once(encoder, long[:4]), rtol=0, atol=TOLERANCE)
    everything = encode(encoder, ROWS, mesh=mesh_of(1), window_shape=SHAPE, max_steps=float("inf"))
    assert everything.lengths.tolist() == [len(row) for row in ROWS]


@pytest.mark.usefixtures("compiled_quickly")
def test_a_cell_with_dropout_has_a_fingerprint_and_features(tmp_path: Path) -> None:
    class Dropping(nnx.SimpleCell):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, carry: Any, inputs: Any) -> Any:
            return super().__call__(carry, self.drop(inputs))

    encoder = Encoder(drawn(Dropping, D, H), scan="nnx")
    assert len(encoder.fingerprint) == 64
    for features, alone in zip(encoded(encoder, JOB_ROWS), scanned(encoder, JOB_ROWS), strict=True):
        np.testing.assert_allclose(features, alone, rtol=0, atol=TOLERANCE)


def test_float64_is_not_rounded_in_silence() -> None:
    with jax.enable_x64(True):
        encoders = [
            Encoder([drawn(nnx.GRUCell, D, H, dtype=jnp.float64, param_dtype=jnp.float64)], readout="steps"),
            Encoder([tuple(drawn(nnx.GRUCell, D, H, seed=i, param_dtype=jnp.float64) for i in range(2))]),
            Encoder([(drawn(nnx.GRUCell, D, H), drawn(nnx.GRUCell, D, H, seed=1, param_dtype=jnp.float64))]),
        ]
        for encoder in encoders:
            with pytest.raises(ConfigError, match="computes in float64"):
                encode(encoder, ROWS)


def test_a_file_may_hold_any_dtype_of_parameters(tmp_path: Path) -> None:
    cell = drawn(nnx.GRUCell, D, H, param_dtype=jnp.bfloat16)
    Encoder(cell).save(tmp_path / "e.safetensors")
    assert Encoder.load(tmp_path / "e.safetensors").fingerprint == Encoder(cell).fingerprint


@pytest.mark.usefixtures("compiled_quickly")
def test_float64_is_computed_and_written_by_a_job_where_the_encoder_computes_in_it(tmp_path: Path) -> None:
    rows = [row.tolist() for row in JOB_ROWS]
    pq.write_table(pa.table({"sequence": pa.array(rows, pa.list_(pa.list_(pa.float32())))}), tmp_path / "in.parquet")
    with jax.enable_x64(True):
        encoder = Encoder.from_seed(0, D, H, dtype="float64")
        featurize(encoder, tmp_path / "in.parquet", tmp_path / "out", mesh=mesh_of(2), window_shape=SHAPE)
        result = verify(tmp_path / "out", sample=100)
        in_memory = encode(encoder, JOB_ROWS, mesh=mesh_of(2), window_shape=SHAPE)
        encoder.save(tmp_path / "encoder.safetensors")
        Encoder(drawn(nnx.GRUCell, 4000, 2, dtype=jnp.float64)).save(tmp_path / "wide.safetensors")
    column = pq.read_table(tmp_path / "out")["features"].combine_chunks()
    assert column.type == pa.list_(pa.float64(), H)
    features = column.flatten().to_numpy().reshape(-1, H)
    wanted = oracle.gru_rows(encoder.cell, JOB_ROWS)
    np.testing.assert_allclose(features, wanted, rtol=0, atol=FLOAT64_TOLERANCE)
    assert in_memory.dtype == np.float64 and np.array_equal(in_memory, features)
    assert result.sampled == len(JOB_ROWS) and result.greatest_distance < FLOAT64_TOLERANCE
    for load in (Encoder.load, lambda path: verify(path.parent / "out")):
        with pytest.raises(ConfigError, match=r"set JAX_ENABLE_X64=1"):
            load(tmp_path / "encoder.safetensors")
    with pytest.raises(ConfigError, match=r"set JAX_ENABLE_X64=1"):
        Encoder.load(tmp_path / "wide.safetensors")


def test_weights_of_float64_are_not_rounded_where_the_encoder_is_made() -> None:
    with jax.enable_x64(True):
        cell = drawn(nnx.GRUCell, D, H, param_dtype=jnp.float64)
    with pytest.raises(ConfigError, match="param_dtype is float64, which JAX would round"):
        Encoder(cell)


def test_an_encoder_is_told_in_one_line() -> None:
    two = Encoder([drawn(nnx.LSTMCell, 12, 64), drawn(nnx.LSTMCell, 64, 32)], readout="mean+max")
    assert repr(two) == (
        "Encoder(LSTM of 2 layers, 64 and 32 hidden features, readout mean+max, "
        "12 features per step -> 64 features, 32,128 weights)"
    )
    both = Encoder.from_seed(0, 12, 64, num_layers=2, bidirectional=True, readout="steps")
    assert str(both).startswith("Encoder(bidirectional GRU of 2 layers, 64 hidden features each way, readout steps")
    assert "-> 128 features per step" in repr(both)
    relu = Encoder(drawn(nnx.SimpleCell, 1, 1000, activation_fn=jax.nn.relu))
    assert "RNN (relu) of 1 layer, 1,000 hidden features, 1 feature per step -> 1,000 features" in repr(relu)


class _Keeping(nnx.SimpleCell):
    """Keeps something beside its weights."""

    def __init__(self, *args: Any, kept: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept = kept


PLAIN: list[Callable[[], Any]] = [
    lambda: nnx.Variable(3), lambda: nnx.Param(0.5), lambda: nnx.Variable(0.5), lambda: nnx.Variable(np.float32(2)),
    lambda: jnp.ones(H), lambda: np.ones(H, np.float32),
]  # fmt: skip


def keeping(kept: Callable[[], Any]) -> Encoder:
    return Encoder(drawn(_Keeping, D, H, kept=kept()))


@pytest.mark.parametrize("kept", PLAIN)
def test_a_cell_may_keep_plain_numbers_and_arrays(kept: Callable[[], Any]) -> None:
    encoder = keeping(kept)
    assert encode(encoder, ROWS[:2], mesh=mesh_of(1), window_shape=SHAPE).shape == (2, H)
    assert encoder.fingerprint == keeping(kept).fingerprint != Encoder(drawn(nnx.SimpleCell, D, H)).fingerprint
    assert repr(encoder).startswith("Encoder(_Keeping of 1 layer")


@SOAK  # by default the first two of them in the job of the cell "tree"
@pytest.mark.parametrize("kept", PLAIN)
def test_a_job_takes_a_cell_that_keeps_plain_numbers_and_arrays(kept: Callable[[], Any], tmp_path: Path) -> None:
    encoder = keeping(kept)
    rows = pa.table({"sequence": pa.array([row.tolist() for row in ROWS[:2]], pa.list_(pa.list_(pa.float32())))})
    pq.write_table(rows, tmp_path / "in.parquet")
    featurize(encoder, tmp_path / "in.parquet", tmp_path / "out", mesh=mesh_of(2), window_shape=SHAPE)
    assert verify(tmp_path / "out", encoder=encoder, sample=2).sampled == 2
    features = BatchFeaturizer(encoder, window_shape=SHAPE)(rows)["features"]
    assert features.to_pylist() == pq.read_table(tmp_path / "out")["features"].to_pylist()
