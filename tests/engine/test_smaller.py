"""Smaller static windows: which there are and which is next, that they change no bit, and that windows are filled."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any
from unittest import mock

import jax
import numpy as np
import oracle
import pytest
from cells import drawn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import (
    SEED,
    TOLERANCE,
    D,
    H,
    collect,
    counted_compilations,
    engine_of,
    mesh_of,
    random_rows,
)
from test_schedule import Player

from benchmarks.bench_occupancy import case
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.program import _compiled, _compiled_pick
from scanrnn_dist.engine.run import Run
from scanrnn_dist.engine.same_bits import gives_same_bits
from scanrnn_dist.engine.schedule import Tape
from scanrnn_dist.engine.smaller import (
    _KNOWN,
    LEAST_LANES,
    SmallerPrograms,
    Worth,
    next_shape,
    smaller_shapes,
    wasted_blocks,
)
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

SHAPE = WindowShape(lanes=32, block_steps=4, window_blocks=32)
ALWAYS = Worth(least=0, filled=0, few=0)
TAKEN = partial(SmallerPrograms, worth=ALWAYS, same_bits=lambda usual, smaller: True)
"""For tests of anything but bits, since nobody promises that a smaller window has those of the usual one."""
FEW_LANES = ((1, 16), (4, 8))
"""In place of `LADDER`: 32 lanes of 2 blocks, and 8 of 4. On a CPU, 64 lanes have other bits than 8."""
NO_LOOK_AHEAD = mock.patch("scanrnn_dist.engine.run.LOOK_AHEAD_BYTES", 0)
"""So that what waits is counted in windows."""
WINDOW_BYTES = 2 * 4 * D * SHAPE.lanes * SHAPE.window_steps
LENGTHS = [900, 511, 7, 0, *[20] * 700, 640]
SHAPES = st.builds(WindowShape, st.integers(1, 5000), st.integers(1, 8), st.integers(1, 600))


# The arithmetic


@given(shape=SHAPES)
def test_smaller_windows_are_smaller_and_few(shape: WindowShape) -> None:
    shapes = smaller_shapes(shape)
    assert shapes[0] == shape and len(set(shapes)) == len(shapes) <= 4
    for one in shapes[1:]:
        assert one.block_steps == shape.block_steps
        assert 1 <= one.window_blocks <= shape.window_blocks and 1 <= one.lanes <= shape.lanes
        assert (one.lanes, one.window_blocks) != (shape.lanes, shape.window_blocks)
        assert one.lanes == shape.lanes or one.lanes >= LEAST_LANES


@given(
    shape=SHAPES,
    devices=st.integers(1, 8),
    waiting=st.integers(0, 10_000),
    going_on=st.integers(0, 40_000),
    left=st.integers(1, 10**7),
)
def test_the_next_window_holds_all_rows_and_is_filled_or_the_lowest(
    shape: WindowShape, devices: int, waiting: int, going_on: int, left: int
) -> None:
    shapes = smaller_shapes(shape)
    going_on = min(going_on, devices * shape.lanes)
    chosen = next_shape(shapes, devices, waiting, going_on, left)
    assert chosen in shapes
    assert chosen.lanes == shape.lanes if waiting else devices * chosen.lanes >= going_on
    for other in shapes:
        if not waiting and devices * other.lanes >= going_on:
            assert chosen.lanes <= other.lanes
        if other.lanes == chosen.lanes:
            is_filled = left >= devices * chosen.lanes * chosen.window_blocks
            assert other.window_blocks >= chosen.window_blocks or is_filled
            assert left < devices * other.lanes * other.window_blocks or other.window_blocks <= chosen.window_blocks


@given(shape=SHAPES, devices=st.integers(1, 8), longest=st.integers(1, 3000), left=st.integers(1, 10**7))
def test_what_would_be_wasted_is_all_positions_but_those_of_use(
    shape: WindowShape, devices: int, longest: int, left: int
) -> None:
    wasted = wasted_blocks(shape, devices, longest, left)
    windows, rest = divmod(wasted + left // devices, shape.lanes * shape.window_blocks)
    assert wasted >= 0 and rest == 0

    def are_enough(windows: int) -> bool:
        height = windows * shape.window_blocks
        return height >= longest and devices * shape.lanes * height >= left

    assert are_enough(windows) and not are_enough(windows - 1)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=60),
    devices=st.integers(1, 3),
    lanes=st.sampled_from([8, 16, 64]),
    window_blocks=st.sampled_from([1, 5, 16, 32]),
)
def test_no_step_is_lost_on_the_way_through_smaller_windows(
    lengths: list[int], devices: int, lanes: int, window_blocks: int
) -> None:
    shapes = smaller_shapes(WindowShape(lanes, 4, window_blocks))
    tape, player = Tape(devices * lanes, 4, window_blocks), Player(devices * lanes, 4)
    starts = np.arange(len(lengths)) * 1000
    tape.add(starts, np.array(lengths, np.int64))
    while tape.blocks_left:
        shape = next_shape(shapes, devices, tape.blocks_waiting, tape.rows_cut, tape.blocks_left)
        longest = max(tape._cut["blocks"].tolist() + [int(group["blocks"].max()) for group in tape._order.groups])
        assert tape.longest_blocks == longest and tape.rows_cut == sum(row is not None for row in player.working)
        if devices * shape.lanes != tape.lanes:
            before, after = tape.move(devices, shape.lanes)
            moved = Player(devices * shape.lanes, 4, finished=player.finished, begun=player.begun)
            for old, new in zip(before, after, strict=True):
                moved.working[new] = player.working[old]
            player = moved
        player.play(tape.next_window(shape.window_blocks), shape.window_blocks)
    assert player.finished == {
        row: list(range(s, s + n)) for row, (s, n) in enumerate(zip(starts, lengths, strict=True))
    }


# The bits


@functools.cache
def static_engine(devices: int, shape: WindowShape = SHAPE) -> CompiledWindow:
    """CPU devices, as if they were accelerators; of the cells, this one is compiled in the least time."""
    encoder = Encoder.from_seed(SEED, D, H, cell="rnn")
    return CompiledWindow(encoder, mesh_of(devices), shape, is_static=True)


def expected(rows: list[np.ndarray]) -> np.ndarray:
    return oracle.rnn_rows(static_engine(2).encoder.cell, rows)


def featurized(
    rows: Sequence[np.ndarray],
    devices: int = 2,
    programs: Any = None,
    shape: WindowShape = SHAPE,
    batch: int = 10_000,
) -> tuple[Run, np.ndarray]:
    """A run as on accelerators, and the features of all rows; the smaller programs are worth it from the start."""
    engine = static_engine(devices, shape)
    with closing(Run(engine)) as run:
        run._smaller = (programs or partial(SmallerPrograms, worth=ALWAYS))(engine)
        for begin in range(0, len(rows), batch):
            run.submit(Ragged.from_sequences(rows[begin : begin + batch]))
        return run, collect(run, len(rows))


@settings(max_examples=8)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 40), st.sampled_from([0, 128, 300])), min_size=1, max_size=80),
    batch=st.integers(1, 80),
    more=st.lists(st.booleans(), min_size=80, max_size=80),
    same_bits=st.lists(st.booleans(), min_size=2, max_size=2),
    memory_bytes=st.sampled_from([1, 100_000, None]),
)
def test_rows_equal_the_written_equations_whatever_windows_they_go_through(
    lengths: list[int], batch: int, more: list[bool], same_bits: list[bool], memory_bytes: int | None
) -> None:
    engine, rows, finished = static_engine(2), random_rows(lengths), []
    features = np.full((len(rows), H), np.nan, np.float32)
    known = dict(zip([WindowShape(32, 4, 2), WindowShape(8, 4, 4)], same_bits, strict=True))
    _KNOWN.clear()
    with mock.patch("scanrnn_dist.engine.smaller.LADDER", FEW_LANES):
        smaller = SmallerPrograms(engine, ALWAYS, lambda usual, other: known[other.shape])
    with NO_LOOK_AHEAD, closing(Run(engine, memory_bytes)) as run:
        run._smaller = smaller
        for begin in range(0, len(rows), batch):
            run.submit(Ragged.from_sequences(rows[begin : begin + batch]), out=features[begin : begin + batch])
            finished += run.advance(more[begin])
        finished += run.results()
    assert sorted(np.concatenate(finished).tolist()) == list(range(len(rows)))
    np.testing.assert_allclose(features, expected(rows), rtol=0, atol=TOLERANCE)


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


class Usual(SmallerPrograms):
    """Never a smaller one."""

    def __init__(self, engine: CompiledWindow) -> None:
        super().__init__(engine)
        self._known.same_bits = dict.fromkeys(self._shapes[1:], False)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known yet, and the lanes are few."""
    monkeypatch.setattr("scanrnn_dist.engine.smaller.LADDER", FEW_LANES)
    _KNOWN.clear()


@pytest.fixture(scope="module")
def run_and_features() -> tuple[Run, np.ndarray]:
    """A run through few lanes, and the features of rows of `LENGTHS`."""
    with mock.patch("scanrnn_dist.engine.smaller.LADDER", FEW_LANES):
        _KNOWN.clear()
        return featurized(random_rows(LENGTHS))


@pytest.mark.usefixtures("few")
def test_smaller_windows_change_no_bit_and_leave_fewer_positions_idle(
    run_and_features: tuple[Run, np.ndarray],
) -> None:
    engine, rows = static_engine(2), random_rows(LENGTHS)
    if not all(gives_same_bits(engine, engine.with_shape(shape)) for shape in smaller_shapes(SHAPE)[1:]):
        pytest.skip("This XLA gives smaller windows other bits than the usual one.")
    usual_run, usual = featurized(rows, programs=Usual)
    assert usual_run.engine.shape == SHAPE
    run, features = run_and_features
    assert run.engine.shape == WindowShape(8, 4, 4)
    assert_same_bits(features, usual)
    assert run.statistics.positions < usual_run.statistics.positions / 2
    assert usual_run.statistics.positions == usual_run.statistics.windows * 2 * 32 * 4 * 32


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("devices", "programs"),
    [
        (1, Usual),  # few lanes are compiled for two devices already
        *(pytest.param(devices, None, marks=pytest.mark.soak) for devices in (1, 8)),
    ],
)
def test_devices_order_and_batches_change_no_bit_in_windows_as_of_accelerators(
    devices: int, programs: Any, run_and_features: tuple[Run, np.ndarray]
) -> None:
    rows, (_, wanted) = random_rows(LENGTHS), run_and_features
    order = np.random.default_rng(devices).permutation(len(rows))
    shuffled = featurized([rows[i] for i in order], devices, programs, batch=100)[1]
    assert_same_bits(shuffled, wanted[order])


@pytest.mark.usefixtures("run_and_features")  # for whatever jax.numpy compiles for itself the first time
@pytest.mark.usefixtures("few", "no_compilation_cache", "compiled_quickly")
def test_each_smaller_window_is_compiled_once() -> None:
    shape = WindowShape(lanes=32, block_steps=3, window_blocks=34)  # of no other test
    rows = random_rows(LENGTHS)
    compiled, picks = (cache.cache_info().misses for cache in (_compiled, _compiled_pick))
    with counted_compilations() as events:
        run, _ = featurized(rows, programs=TAKEN, shape=shape)
    names = {str(one) for one in run._smaller._programs}
    assert names == {str(one) for one in smaller_shapes(shape)}
    own = _compiled.cache_info().misses - compiled
    picks = _compiled_pick.cache_info().misses - picks
    assert own == 3 and run.statistics.compilations == own + picks <= len(events)
    with counted_compilations() as events:
        again, _ = featurized(rows, programs=TAKEN, shape=shape)
    assert not events and again.statistics.compilations == static_engine(2, shape).compilations


def test_trip_counts_are_constants_in_every_window_of_an_accelerator() -> None:
    def has_constant_loops(engine: CompiledWindow) -> bool:
        loops = [line for line in engine.program.as_text().splitlines() if " while(" in line]
        assert loops
        return all("known_trip_count" in line for line in loops)

    for shape in (SHAPE, WindowShape(32, 4, 2), WindowShape(8, 4, 4)):
        assert has_constant_loops(static_engine(2).with_shape(shape))
    assert not has_constant_loops(engine_of(2))


@pytest.mark.usefixtures("few")
def test_it_stays_with_the_usual_window_where_the_bits_differ() -> None:
    rows, asked = random_rows(LENGTHS), []

    def differ(usual: CompiledWindow, other: CompiledWindow) -> bool:
        asked.append(other.shape)
        return False

    differing = partial(SmallerPrograms, worth=ALWAYS, same_bits=differ)
    for _ in range(2):
        run, _ = featurized(rows, programs=differing)
        assert run.engine.shape == SHAPE and run.statistics.windows * 2 * 32 * 128 == run.statistics.positions
    assert sorted(asked, key=str) == sorted(smaller_shapes(SHAPE)[1:], key=str)


@pytest.mark.usefixtures("few")
def test_few_rows_get_no_smaller_windows_until_much_was_wasted() -> None:
    rows = random_rows([40] * 3)
    per_run = 2 * 32 * 32 * 4 * static_engine(2).flops_per_step / 2
    worth = partial(TAKEN, worth=Worth(least=0, filled=0, few=2.5 * per_run))
    shapes = [featurized(rows, programs=worth)[0].engine.shape for _ in range(4)]
    assert shapes[:2] == [SHAPE] * 2 and shapes[3] != SHAPE
    _KNOWN.clear()
    many = random_rows([128] * 150)  # more than a window
    assert featurized(many, programs=worth)[0].engine.shape != SHAPE


# What is fetched


@pytest.mark.parametrize("length", [0, 5, 9, 30, 300])
@pytest.mark.usefixtures("few")
def test_picks_have_room_for_all_rows_that_end_and_give_the_same_numbers(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = random_rows([length] * (100 if length == 300 else 400))
    fetched: list[tuple[int, int, int]] = []
    fetch = Run._fetch

    def watched(self: Run, sent: Any) -> Any:
        arrays = sent.output.result().fetched
        fetched.append((sent.picks, sum(array.nbytes for array in arrays), len(sent.window.rows)))
        return fetch(self, sent)

    monkeypatch.setattr(Run, "_fetch", watched)
    features = featurized(rows, programs=Usual)[1]
    np.testing.assert_allclose(features, expected(rows), rtol=0, atol=TOLERANCE)
    blocks = -(-length // 4) or 1
    whole = 2 * 32 * 32 * H * 4
    for picks, nbytes, ended in fetched:
        assert picks or blocks == 1, "all is fetched, of rows of which two go on a block"
        # Room for a sixteenth of the blocks per pick.
        assert nbytes == (picks * whole // 16 if picks else whole)
        assert not picks or ended <= picks * 2 * 32 * 32 // 16
    assert max(picks for picks, _, _ in fetched) > 1 or length in (0, 300)


@pytest.mark.usefixtures("compiled_quickly")
def test_rows_are_picked_in_float64_where_the_caller_s_thread_alone_has_it() -> None:
    rows, picks = random_rows([5] * 400), _compiled_pick.cache_info().misses
    features = np.full((400, H), np.nan)
    with jax.enable_x64(True):
        encoder = Encoder(drawn(nnx.SimpleCell, D, H, dtype=np.float64))
        engine = CompiledWindow(encoder, mesh_of(2), SHAPE, is_static=True)
        with closing(Run(engine)) as run:
            run.submit(Ragged.from_sequences(rows), out=features)
            run.results()
        wanted = oracle.rnn_rows(encoder.cell, rows)
    assert _compiled_pick.cache_info().misses == picks + 1
    np.testing.assert_allclose(features, wanted, rtol=0, atol=1e-14)  # of features below 1: 45 roundings


# What waits


@pytest.mark.parametrize(("memory_bytes", "windows"), [(None, 4), (2 * WINDOW_BYTES, 2)])
def test_rows_wait_for_four_windows_or_as_the_memory_allows_and_stay_in_one_arena(
    memory_bytes: int | None, windows: int
) -> None:
    rows = random_rows([40] * 16)
    with NO_LOOK_AHEAD, closing(Run(static_engine(2), memory_bytes)) as run:
        submitted = 0
        for _ in range(3):
            while run.wants_rows:
                run.submit(Ragged.from_sequences(rows))
                submitted += 1
            assert 0 <= 4 * run._tape.blocks_waiting - windows * 2 * SHAPE.lanes * SHAPE.window_steps < 40 * 16
            run.advance(more=True)
        assert submitted > 6 and run._values.repacked_bytes == sum(row.nbytes for row in rows), "the first batch alone"
        run.results()


# Occupancy


@pytest.mark.parametrize("devices", [1, 8])
def test_windows_of_accelerators_are_filled(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.noop_engine.default_mesh", lambda: mesh_of(devices))
    shape = WindowShape(lanes=512, block_steps=4, window_blocks=64)
    worth = partial(SmallerPrograms, worth=ALWAYS)
    monkeypatch.setattr("scanrnn_dist.engine.run.SmallerPrograms", worth)
    figures = case(rows=4_700 * devices, in_features=1, hidden=H, shape=shape)
    assert figures["occupancy"] >= 0.95


@pytest.mark.soak
@pytest.mark.parametrize(("devices", "hidden"), [(1, 512), (8, 128)])
def test_windows_of_accelerators_are_filled_at_full_size(
    devices: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.noop_engine.default_mesh", lambda: mesh_of(devices))
    figures = case(rows=300_000, in_features=1, hidden=hidden)
    assert figures["occupancy"] >= 0.95
