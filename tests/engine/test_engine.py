"""The engine gives the numbers of the written equations, and the bits of a row depend on that row alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cells import at_once, drawn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.engine import Engine
from scanrnn_dist.engine.host_buffers import ValueStream
from scanrnn_dist.engine.mesh import default_mesh
from scanrnn_dist.engine.run import Run
from scanrnn_dist.engine.shapes import default_window_shape
from scanrnn_dist.engine.submissions import Submissions
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

TOLERANCE = 1e-6  # the bound of the design for float32 at precision "highest"
SEED, D, H = 3, 3, 7
SHAPE = WindowShape(lanes=5, block_steps=4, window_blocks=6)  # 24 steps a window: most rows below are cut


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))


@functools.cache
def engine_of(devices: int, shape: WindowShape = SHAPE) -> Engine:
    """Compiled once for all tests."""
    return Engine(Encoder.from_seed(SEED, D, H), mesh_of(devices), shape)


def random_rows(lengths: Any, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(int(length), D)).astype(np.float32) for length in lengths]


def mixed_lengths(rows: int, seed: int = 0) -> np.ndarray:
    """Lengths 0, 1, of whole blocks and not, and one far beyond a window."""
    lengths = np.random.default_rng(seed).integers(0, 40, rows)
    lengths[:6] = [0, 1, 8, 24, 300, 0]
    return lengths


NO_FEATURES = np.empty((1, 0), np.float32)


def collect(run: Run, rows: int) -> np.ndarray:
    """The features of all rows by number, none of which is finished yet; each must come exactly once."""
    rooms = [batch.out for batch in run._submissions.batches]
    for room in rooms:
        room.fill(np.nan)
    numbers = np.concatenate([np.zeros(0, np.int64), *run.results()])
    assert sorted(numbers.tolist()) == list(range(rows))
    features = np.concatenate([np.zeros((0, run.engine.encoder.out_features), np.float32), *rooms])
    assert features.dtype == np.float32
    return features


def features_of(engine: Engine, rows: list[np.ndarray]) -> np.ndarray:
    """The features of rows that are submitted at once."""
    run = engine.run()
    run.submit(Ragged.from_sequences(rows))
    return collect(run, len(rows))


def expected(rows: list[np.ndarray]) -> np.ndarray:
    return oracle.gru_rows(engine_of(2).encoder.cell, rows)


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


# The numbers


def test_it_equals_the_written_equations() -> None:
    rows = random_rows(mixed_lengths(60))
    features = features_of(engine_of(2), rows)
    np.testing.assert_allclose(features, expected(rows), rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(features[0], np.zeros(H, np.float32))


@settings(max_examples=15)
@given(
    batches=st.lists(st.lists(st.integers(0, 70), max_size=25), min_size=1, max_size=5),
    advances=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_rows_may_be_submitted_while_others_run(batches: list[list[int]], advances: int, seed: int) -> None:
    run = engine_of(2).run()
    rows = random_rows([length for batch in batches for length in batch], seed)
    features, begin = np.full((len(rows), H), np.nan, np.float32), 0
    wanted = expected(rows) if rows else features
    numbers: list[int] = []

    def take(finished: list[np.ndarray]) -> None:
        for some in finished:
            np.testing.assert_allclose(features[some], wanted[some], rtol=0, atol=TOLERANCE)
            numbers.extend(some.tolist())

    for batch in batches:
        end = begin + len(batch)
        run.submit(Ragged.from_sequences(rows[begin:end]) if batch else Ragged.empty(D), out=features[begin:end])
        begin = end
        for _ in range(advances):
            take(run.advance())
    take(run.results())
    assert sorted(numbers) == list(range(len(rows)))
    assert not run.is_busy and run._tape.blocks_left == 0


def test_values_are_let_go_once_their_rows_are_sent() -> None:
    run = engine_of(2).run()
    for seed in range(3):
        run.submit(Ragged.from_sequences(random_rows([24] * 10, seed)))  # fills one window
    held = []
    while run.is_busy:
        run.advance()
        held.append([batch.first_row for batch in run._submissions.batches if batch.unread])
    assert held[:3] == [[10, 20], [20], []]


def test_the_arrays_of_the_caller_are_never_written_to() -> None:
    batches = [Ragged.from_sequences(random_rows([24] * 10, seed)) for seed in range(4)]
    before = [ragged.values.copy() for ragged in batches]
    run = engine_of(2).run()
    for ragged in batches:
        ragged.values.flags.writeable = False
        run.submit(ragged)
        run.advance()
    run.results()
    for ragged, values in zip(batches, before, strict=True):
        np.testing.assert_array_equal(ragged.values, values)


def test_the_arena_holds_what_is_live_and_half_as_much_again() -> None:
    submissions = Submissions()
    stream = ValueStream(submissions, in_features=1)
    live: dict[int, np.ndarray] = {}
    rng = np.random.default_rng(0)
    starts, greatest = {}, 0
    for row in range(200):
        values = rng.standard_normal((int(rng.integers(0, 100)), 1), np.float32)
        batch = submissions.add(Ragged(values, np.array([0, len(values)])), np.array([len(values)]), NO_FEATURES)
        stream.add(batch, values)
        starts[row] = int(batch.starts[0])
        live[row] = values
        greatest = max(greatest, sum(value.nbytes for value in live.values()))
        for other, value in live.items():
            out = np.zeros((1, 1, len(value), 1, 1), np.float32)
            stream.copy(np.full((1, 1, 1), starts[other]), out)
            np.testing.assert_array_equal(out.ravel(), value.ravel())
        while len(live) > 8 or (live and rng.random() < 0.4):
            gone = int(rng.choice(list(live)))
            del live[gone]
            submissions.count_read(np.array([gone]))
        assert stream.nbytes <= greatest * 3 // 2


def test_many_small_batches_are_not_walked_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    submissions = Submissions()
    stream = ValueStream(submissions, in_features=1)
    looked: list[int] = []
    find = ValueStream._find_gaps

    def watched(self: ValueStream, batch: Any) -> Any:
        others = find(self, batch)
        looked.append(len(others))
        return others

    monkeypatch.setattr(ValueStream, "_find_gaps", watched)
    for begin in range(0, 2_000, 500):
        for _ in range(500):
            values = np.zeros((3, 1), np.float32)
            stream.add(submissions.add(Ragged(values, np.array([0, 3])), np.array([3]), NO_FEATURES), values)
        submissions.count_read(np.arange(begin, begin + 500, 2))
    assert len(looked) < 50


def test_values_that_are_a_view_are_brought_into_order_once() -> None:
    """Or each window would copy all of them."""
    values = np.arange(24, dtype=np.float32).reshape(6, 4)[:, :2]
    submissions = Submissions()
    stream = ValueStream(submissions, in_features=2)
    stream.add(submissions.add(Ragged(values, np.array([0, 6])), np.array([6]), NO_FEATURES), values)
    assert stream._arena.flags.c_contiguous
    out = np.zeros((1, 1, 6, 1, 2), np.float32)
    stream.copy(np.zeros((1, 1, 1), np.int64), out)
    np.testing.assert_array_equal(out[0, 0, :, 0], values)


def test_a_slice_of_a_larger_batch_gives_the_rows_of_the_slice() -> None:
    rows = random_rows(mixed_lengths(30))
    whole = Ragged.from_sequences(rows)
    run = engine_of(2).run()
    run.submit(Ragged(whole.values, whole.offsets[10:21]))
    run.submit(Ragged(whole.values, whole.offsets[:5]))
    np.testing.assert_allclose(collect(run, 14), expected(rows[10:20] + rows[:4]), rtol=0, atol=TOLERANCE)


def test_features_that_lie_in_another_order_in_memory_are_the_same() -> None:
    rows = random_rows([30, 2, 9])
    ragged = Ragged.from_sequences(rows)
    run = engine_of(2).run()
    run.submit(Ragged(np.asfortranarray(ragged.values), ragged.offsets))
    np.testing.assert_allclose(collect(run, 3), expected(rows), rtol=0, atol=TOLERANCE)


def test_a_long_sequence_crosses_many_windows_without_losing_a_digit() -> None:
    rows = random_rows([3_000, 3])
    np.testing.assert_allclose(features_of(engine_of(1), rows), expected(rows), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("length", [0, 1])
def test_windows_in_which_more_rows_end_than_the_usual_way_has_room_for(length: int) -> None:
    engine = engine_of(2)
    assert engine.ends_capacity < SHAPE.lanes * SHAPE.window_blocks
    rows = random_rows([length] * 250)
    np.testing.assert_allclose(features_of(engine, rows), expected(rows), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("max_steps", [0, 1, 10, 1000])
def test_max_steps_is_the_T_of_the_specification(max_steps: int) -> None:
    rows = random_rows(mixed_lengths(30))
    run = engine_of(2).run()
    run.submit(Ragged.from_sequences(rows), max_steps)
    wanted = expected([row[:max_steps] for row in rows])
    np.testing.assert_allclose(collect(run, 30), wanted, rtol=0, atol=TOLERANCE)
    assert run.statistics.steps == sum(min(len(row), max_steps) for row in rows)


class Initial(nnx.SimpleCell):
    """A cell whose initial carry is learned, and not zeros."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial = nnx.Param(jnp.arange(1.0, 1.0 + self.hidden_features))

    def initialize_carry(self, *args: Any, **kwargs: Any) -> Any:
        return self.initial[...]


class Doubled(Encoder):
    """An encoder whose readout is longer than its carry."""

    def readout(self, state: Any) -> Any:
        features = super().readout(state)
        return jnp.concatenate([features, 2 * features])


def with_recurrent_biases() -> Encoder:
    cell = drawn(nnx.GRUCell, D, H)
    cell.dense_h.use_bias, cell.dense_h.bias = True, nnx.Param(jnp.arange(3.0 * H) / H)
    return Encoder(cell)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Encoder(drawn(Initial, D, H)),
        lambda: Doubled(drawn(nnx.SimpleCell, D, H)),
        *(
            pytest.param(make, marks=pytest.mark.soak)  # by default in test_native.py and test_encoders.py
            for make in (lambda: Encoder(drawn(nnx.SimpleCell, D, H)), with_recurrent_biases)
        ),
    ],
    ids=["learned initial carry", "longer readout", "other cell", "recurrent biases"],
)
@pytest.mark.usefixtures("compiled_quickly")
def test_any_cell_and_readout_give_what_the_encoder_gives(make: Callable[[], Encoder]) -> None:
    encoder = make()
    rows = random_rows([0, 30, 3, 0, 11, 26], seed=2)
    padded = np.stack([np.pad(row, ((0, 30 - len(row)), (0, 0))) for row in rows])
    before = np.asarray(at_once(encoder, padded, np.array([len(row) for row in rows])))
    # One lane of one device, so that what is donated could be the weight itself.
    features = features_of(Engine(encoder, mesh_of(1), WindowShape(1, 4, 6)), rows)
    for row, wanted in zip(features, before, strict=True):
        np.testing.assert_allclose(row, wanted, rtol=0, atol=TOLERANCE * max(1, float(np.abs(wanted).max())))
    after = at_once(encoder, padded, np.array([len(row) for row in rows]))
    np.testing.assert_array_equal(after, before)


# The bits of a row


ROWS = random_rows(mixed_lengths(60))


@functools.cache
def bits_wanted() -> np.ndarray:
    return features_of(engine_of(2), ROWS)


def test_the_same_rows_give_the_same_bits_again() -> None:
    assert_same_bits(features_of(engine_of(2), ROWS), bits_wanted())


@pytest.mark.parametrize("seed", range(3))
def test_the_order_changes_no_bit(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(ROWS))
    assert_same_bits(features_of(engine_of(2), [ROWS[i] for i in order]), bits_wanted()[order])


@pytest.mark.parametrize("devices", [1, 8])  # 3 in test_encoders.py
def test_the_number_of_devices_changes_no_bit(devices: int) -> None:
    assert_same_bits(features_of(engine_of(devices), ROWS), bits_wanted())


def test_submitting_one_by_one_changes_no_bit() -> None:
    run = engine_of(2).run()
    for row in ROWS:
        run.submit(Ragged.from_sequences([row]))
    assert_same_bits(collect(run, len(ROWS)), bits_wanted())


def test_being_alone_changes_no_bit() -> None:
    for row in (1, 4, 17):
        assert_same_bits(features_of(engine_of(2), [ROWS[row]]), bits_wanted()[row : row + 1])


def test_other_neighbours_change_no_bit() -> None:
    others = random_rows(mixed_lengths(50, seed=1), seed=9)
    mixed = [row for pair in zip(others, ROWS[:50], strict=True) for row in pair]
    assert_same_bits(features_of(engine_of(2), mixed)[1::2], bits_wanted()[:50])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_neighbours_change_no_bit(bad: float) -> None:
    others = [np.full_like(row, bad) for row in random_rows(mixed_lengths(50, seed=1))]
    mixed = [row for pair in zip(others, ROWS[:50], strict=True) for row in pair]
    features = features_of(engine_of(2), mixed)
    assert_same_bits(features[1::2], bits_wanted()[:50])
    if np.isnan(bad):
        long_enough = np.array([len(row) > 0 for row in others])
        assert np.isnan(features[0::2][long_enough]).all()
        assert not features[0::2][~long_enough].any()


def test_values_that_belong_to_no_row_change_no_bit() -> None:
    ragged = Ragged.from_sequences(ROWS)
    garbage = np.full((9, D), np.nan, np.float32)
    run = engine_of(2).run()
    run.submit(Ragged(np.concatenate([garbage, ragged.values, garbage]), ragged.offsets + len(garbage)))
    assert_same_bits(collect(run, len(ROWS)), bits_wanted())


# Meshes and shapes


def test_a_second_mesh_axis_repeats_the_work_and_changes_no_bit() -> None:
    devices = np.array(jax.devices()[:4]).reshape(2, 2)
    mesh = Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    engine = Engine(Encoder.from_seed(SEED, D, H), mesh, SHAPE)
    assert engine.devices == 2
    assert_same_bits(features_of(engine, ROWS), bits_wanted())


def test_a_mesh_without_the_axis_data_is_refused() -> None:
    mesh = jax.make_mesh((2,), ("batch",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    with pytest.raises(ConfigError, match=r"axes \('batch',\); sequences are sharded over one named 'data'"):
        Engine(Encoder.from_seed(SEED, D, H), mesh, SHAPE)


def test_a_mesh_with_devices_of_other_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = mesh_of(2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(ConfigError, match=r"devices of processes \[0\]; this one is 1"):
        Engine(Encoder.from_seed(SEED, D, H), mesh, SHAPE)


@pytest.mark.parametrize("shape", [WindowShape(0, 4, 6), WindowShape(5, 0, 6), WindowShape(5, 4, -1)])
def test_a_shape_with_a_number_below_one_is_refused(shape: WindowShape) -> None:
    with pytest.raises(ConfigError, match="has a number below 1"):
        Engine(Encoder.from_seed(SEED, D, H), mesh_of(1), shape)


@pytest.mark.parametrize("shape", [WindowShape(1, 1, 1), WindowShape(2, 5, 3)])
def test_every_shape_gives_the_same_numbers(shape: WindowShape) -> None:
    rows = random_rows([0, 1, 2, 3, 5, 15, 47, 0, 1])
    features = features_of(Engine(Encoder.from_seed(SEED, D, H), mesh_of(2), shape), rows)
    np.testing.assert_allclose(features, expected(rows), rtol=0, atol=TOLERANCE)


def test_all_local_devices_are_the_default() -> None:
    mesh = default_mesh()
    assert mesh.shape == {"data": 8}
    for in_features, out_features in ((1, 1), (12, 64), (4096, 4096)):
        shape = default_window_shape(mesh, in_features, out_features)
        assert min(shape.lanes, shape.block_steps, shape.window_blocks) >= 1


def test_other_numbers_of_features_are_refused() -> None:
    with pytest.raises(DataError, match="have 4 features per step; the encoder takes 3"):
        engine_of(2).run().submit(Ragged.empty(4))


# The program


@contextmanager
def counted_compilations() -> Iterator[list[str]]:
    """Every program that JAX compiles meanwhile."""
    events: list[str] = []
    is_on = True

    def listen(event: str, duration: float, **_: Any) -> None:
        if is_on and event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        is_on = False


@pytest.mark.usefixtures("no_compilation_cache")
def test_an_engine_compiles_once_and_its_runs_never() -> None:
    features_of(engine_of(2), ROWS)  # whatever jax.numpy compiles for itself the first time
    with counted_compilations() as events:
        engine = Engine(Encoder.from_seed(SEED, D, H), mesh_of(2), WindowShape(5, 4, 7))
    # Encoder.from_seed draws weights, whose small programs were compiled for engine_of(2) already.
    assert len(events) == engine.compilations == 1
    with counted_compilations() as events:
        for rows in (ROWS, ROWS[:1], random_rows([1] * 200), random_rows([500])):
            features_of(engine, rows)
    assert events == []
    assert engine.run().statistics.compilations == 1
    with counted_compilations() as events:
        twin = Engine(Encoder.from_seed(SEED + 1, D, H), mesh_of(2), WindowShape(5, 4, 7))
    assert len(events) == twin.compilations == 0
    assert np.abs(features_of(twin, ROWS) - features_of(engine, ROWS)).max() > 0.1, "the weights are the other one's"
    swish = Encoder(drawn(nnx.GRUCell, D, H, SEED, activation_fn=nnx.swish))
    assert Engine(swish, mesh_of(2), WindowShape(5, 4, 7)).compilations == 1


def test_a_compilation_would_be_counted() -> None:
    double = jax.jit(lambda x: 2 * x)
    with counted_compilations() as events:
        for length in (2, 3, 3):
            double(np.zeros(length, np.float32)).block_until_ready()
    assert len(events) == 2


@pytest.mark.parametrize("devices", [2, 8])
def test_the_program_holds_no_collective(devices: int) -> None:
    text = engine_of(devices).program.as_text()
    assert "while" in text and f"num_partitions={devices}" in text
    collectives = (
        "all-reduce",
        "all-gather",
        "all-to-all",
        "collective-permute",
        "reduce-scatter",
        "collective-broadcast",
    )
    assert not [name for name in collectives if name in text]


def test_a_collective_would_be_seen() -> None:
    mesh = mesh_of(2)
    data = jax.sharding.PartitionSpec("data")
    total = jax.shard_map(
        lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=data, out_specs=jax.sharding.PartitionSpec()
    )
    assert "all-reduce" in jax.jit(total).lower(np.zeros(2, np.float32)).compile().as_text()


# The statistics


def test_statistics_add_up() -> None:
    run = engine_of(2).run()
    assert run.statistics.occupancy == 1.0 and not run.is_busy and run.wants_rows
    run.submit(Ragged.from_sequences(ROWS[:30]))
    run.submit(Ragged.from_sequences(ROWS[30:]))
    blocks = sum(max(1, -(-len(row) // 4)) for row in ROWS)
    assert run.is_busy and run._tape.blocks_left == blocks
    collect(run, len(ROWS))
    statistics = run.statistics
    assert (statistics.rows, statistics.steps) == (60, sum(map(len, ROWS)))
    lane_steps = 2 * SHAPE.lanes * SHAPE.block_steps
    assert statistics.positions % lane_steps == 0
    assert statistics.positions <= statistics.windows * lane_steps * SHAPE.window_blocks
    assert statistics.positions >= 4 * blocks
    assert statistics.occupancy == statistics.steps / statistics.positions
    assert 0 < statistics.occupancy <= 1
    assert statistics.device_wait_seconds >= 0


def test_rows_that_fill_every_lane_waste_nothing() -> None:
    run = engine_of(2).run()
    run.submit(Ragged.from_sequences(random_rows([24] * 30)))
    collect(run, 30)
    assert run.statistics.occupancy == 1.0 and run.statistics.windows == 3


def test_rows_are_wanted_until_two_windows_wait() -> None:
    run = engine_of(2).run()
    assert run.wants_rows
    run.submit(Ragged.from_sequences(random_rows([24] * 30)))
    assert run.wants_rows, "the look-ahead is given in bytes"
    run = engine_of(2).run(memory_bytes=0)
    for _ in range(2):
        assert run.wants_rows
        run.submit(Ragged.from_sequences(random_rows([24] * 10)))
    assert not run.wants_rows
    run.advance()
    assert run.wants_rows
