"""The native kernel: as right as the specification, and a row's bits depend on nothing but that row."""

from __future__ import annotations

import functools
import json
import platform
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from cells import at_once, drawn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import (
    SEED,
    H,
    command_line_in_this_process,
    encoder_of,
    mesh_of,
    needs_native,
    random_rows,
    some_lengths,
    write_source,
)

from scanrnn_dist.api import encode, featurize
from scanrnn_dist.cli import app as cli
from scanrnn_dist.encoder import Encoder, StatefulEncoder, with_recurrent_bias
from scanrnn_dist.engine import NativeEngine, build_engine, native_run
from scanrnn_dist.engine.building import chosen_kernel
from scanrnn_dist.engine.kernels import native_library
from scanrnn_dist.engine.kernels.library import CELLS
from scanrnn_dist.engine.native import TOLD
from scanrnn_dist.engine.row_queue import ROW, RowQueue, address_of, queue_of
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.faithfulness import Judge
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.native import library
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

D = 5
SHAPE = WindowShape(lanes=4, block_steps=4, window_blocks=6)
ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "gru": lambda H: Encoder.from_seed(0, D, H),
    "lstm": lambda H: Encoder.from_seed(0, D, H, cell="lstm"),
    "LSTMCell": lambda H: Encoder(drawn(nnx.LSTMCell, D, H)),
    "rnn": lambda H: Encoder.from_seed(0, D, H, cell="rnn"),
    "recurrent bias": lambda H: Encoder(with_recurrent_bias(drawn(nnx.GRUCell, D, 9, seed=3))),
    "stack": lambda H: Encoder([drawn(nnx.LSTMCell, D, H), drawn(nnx.GRUCell, H, 7, seed=1)]),
    "pools": lambda H: Encoder.from_seed(0, D, H, readout="mean+last+max", initial_carry=0.5),
    "steps": lambda H: Encoder.from_seed(0, D, H, cell="lstm", readout="steps"),
    "both directions": lambda H: Encoder.from_seed(0, D, H, num_layers=2, bidirectional=True),
}


@functools.cache
def made(name: str, hidden: int) -> Encoder:
    """The encoder of this name and size, made once: flax compiles what draws its weights."""
    return ENCODERS[name](hidden)


def encoded(encoder: Encoder, rows: list[np.ndarray], **options: Any) -> np.ndarray:
    """The features of rows, by the native kernel unless `options` say otherwise."""
    features = encode(
        encoder,
        rows,
        **{"mesh": mesh_of(2), "window_shape": SHAPE, "kernel": "native", "nonfinite": "propagate", **options},
    )
    return features.values if isinstance(features, Ragged) else np.asarray(features)


def padded(encoder: Encoder, rows: list[np.ndarray], carries: np.ndarray | None = None) -> np.ndarray:
    """The features of rows by the encoder itself, each scanned alone."""
    most = max(map(len, rows))
    x = [np.pad(row, ((0, most - len(row)), (0, 0))) for row in rows]
    given = zip(x, map(np.int32, map(len, rows)), [None] * len(rows) if carries is None else carries, strict=True)
    return np.stack([at_once(encoder, *each) for each in given])


SOAKED = ("LSTMCell", "recurrent bias", "stack", "steps", "both directions")
"""Encoders that differ little from another one of the table, or take long."""
NAMES = [pytest.param(name, marks=pytest.mark.soak) if name in SOAKED else name for name in ENCODERS]


@needs_native
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hidden", [16, *(pytest.param(hidden, marks=pytest.mark.soak) for hidden in (1, 33))])
def test_features_are_those_of_the_encoder(name: str, hidden: int) -> None:
    encoder = made(name, hidden)
    rows = random_rows([0, 1, 3, 90, 7, 64, 0, 12, 5, 40], in_features=D)
    by_encoder = padded(encoder, rows)
    if encoder.gives_steps:
        by_encoder = np.concatenate([steps[: len(row)] for steps, row in zip(by_encoder, rows, strict=True)])
    np.testing.assert_allclose(encoded(encoder, rows), by_encoder, rtol=0, atol=1e-6)


@needs_native
@pytest.mark.parametrize("name", ["gru", *(pytest.param(name, marks=pytest.mark.soak) for name in ("lstm", "rnn"))])
def test_features_of_unscaled_data_are_as_near_to_float64_as_the_specification(name: str) -> None:
    """Closed gates have no absolute accuracy to spare; the judge holds each row against float64."""
    encoder = made(name, 32)
    rows = [scale * row for scale in (1, 30, 1000) for row in random_rows([60] * 8, in_features=D)]
    features = encoded(encoder, rows)
    judge = Judge(encoder)
    for row, found in zip(rows, features, strict=True):
        judgement = judge(found, row)
        assert judgement.distance <= judgement.bound, (judgement, row[:2])


@needs_native
@pytest.mark.parametrize("name", ["gru", *(pytest.param(name, marks=pytest.mark.soak) for name in ("lstm", "rnn"))])
def test_a_large_hidden_state_is_summed_up_in_parts(name: str) -> None:
    encoder = made(name, 300)  # two whole parts and one that is not
    rows = [scale * row for scale in (1, 100) for row in random_rows([5, 8], in_features=D)]
    judge = Judge(encoder)
    for row, found in zip(rows, encoded(encoder, rows), strict=True):
        judgement = judge(found, row)
        assert judgement.distance <= judgement.bound, (judgement, row[:2])


@needs_native
@pytest.mark.parametrize(
    "names", [[n for n in ENCODERS if n not in SOAKED], pytest.param([*ENCODERS], marks=pytest.mark.soak)]
)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_bits_of_a_row_depend_on_that_row_alone(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in names if name != "steps"]))
    encoder = made(name, 16)
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=10))
    rows = random_rows(lengths, in_features=D)
    alone = np.concatenate([encoded(encoder, [row], mesh=mesh_of(1)) for row in rows])
    order = data.draw(st.permutations(range(len(rows))))
    shape = WindowShape(data.draw(st.integers(1, 128)), 4, data.draw(st.integers(1, 30)))
    poisoned = [np.full((9, D), np.nan, np.float32), *(rows[i] for i in order)]
    mesh = mesh_of(data.draw(st.sampled_from([1, 2, 8])))
    found = encoded(encoder, poisoned, mesh=mesh, window_shape=shape)
    assert np.isnan(found[0]).all() or "both" in name
    np.testing.assert_array_equal(found[1:].view(np.uint32), alone[order].view(np.uint32))


@needs_native
@pytest.mark.parametrize(
    "cell",
    [pytest.param("gru", marks=pytest.mark.soak), *(pytest.param(n, marks=pytest.mark.sweep) for n in ("lstm", "rnn"))],
)
def test_the_bits_are_the_same_for_every_number_of_lanes(cell: str) -> None:
    encoder = Encoder.from_seed(0, D, 24, cell=cell)
    rows = random_rows(some_lengths(300), in_features=D)
    wanted = encoded(encoder, rows).view(np.uint32)
    for lanes in range(1, 129):
        found = encoded(encoder, rows, window_shape=WindowShape(lanes, 4, 30))
        np.testing.assert_array_equal(found.view(np.uint32), wanted)


def test_a_checkout_without_the_library_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.OTHER_PATH, raising=False)
    monkeypatch.setattr(library, "PATH", tmp_path / "libscanrnn.so")
    said = library.opened()
    assert isinstance(said, str) and "in a checkout run pip install -e . or python hatch_build.py" in said


@needs_native
def test_a_library_that_was_built_from_other_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [ROW.itemsize, queue_of(np.zeros(1, ROW), 1, False, 1, 1, (1, 1)).nbytes, 8 * TOLD]
    assert [int(size) for size in f"{library.LAYOUT:_}".split("_")[1:4]] == sizes
    refusal = "was built from other sources than this version of the package. In a checkout run python hatch_build.py"
    for number, content in enumerate((library.PATH.read_bytes(), Path(np.random.mtrand.__file__).read_bytes())):
        (tmp_path / f"{number}.so").write_bytes(content)
        monkeypatch.setenv(library.OTHER_PATH, str(tmp_path / f"{number}.so"))
        opened = library.opened()
        assert "1.so cannot be loaded: " in opened if number else not isinstance(opened, str)
    monkeypatch.setenv(library.OTHER_PATH, str(tmp_path / "2.so"))
    monkeypatch.setattr(library, "LAYOUT", library.LAYOUT + 10**15)
    (tmp_path / "2.so").write_bytes(library.PATH.read_bytes())
    with pytest.raises(ConfigError, match=rf"2\.so {refusal}"):
        native_library()


@pytest.mark.parametrize(("needs", "path", "said"), [("", "no.so", "There is no no.so"), ("require", "", "is empty")])
def test_tests_that_need_the_kernel_do_not_begin_without(
    needs: str, path: str, said: str, tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    conftest = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))
    assert conftest is not None
    monkeypatch.setenv("SCANRNN_NATIVE", needs)
    monkeypatch.setenv("SCANRNN_NATIVE_LIBRARY", path and str(tmp_path / path))
    with pytest.raises(pytest.UsageError, match=said):
        conftest.pytest_configure()


class Frozen(nnx.Variable):
    """Of weights that an optimizer leaves alone."""


@needs_native
def test_a_frozen_cell_is_as_much_work_as_one_that_is_trained() -> None:
    trained, frozen = drawn(nnx.GRUCell, D, 7), drawn(nnx.GRUCell, D, 7)
    for kind, linear in ((nnx.Variable, frozen.dense_i), (Frozen, frozen.dense_h)):
        linear.kernel = kind(linear.kernel[...])
    frozen.keys = nnx.Rngs(0)
    assert Encoder(frozen).flops_per_step == Encoder(trained).flops_per_step == 6 * 7 * (D + 7)
    rows = random_rows([5, 2], in_features=D)
    found, wanted = (encoded(Encoder(each), rows, window_shape=None) for each in (frozen, trained))
    np.testing.assert_array_equal(found, wanted)


@needs_native
@pytest.mark.parametrize(
    "names", [["gru", "lstm", "rnn", "pools", "stack"], pytest.param([*ENCODERS], marks=pytest.mark.soak)]
)
def test_narrower_vectors_give_the_same_bits(names: list[str]) -> None:
    rows = random_rows(some_lengths(40), in_features=D)
    wanted = {name: encoded(made(name, 16), rows).view(np.uint32) for name in names}
    widest, of_one_unit = native_library(), np.array([CELLS["GRUCell"], D, 1], np.int64)
    choose, packed_floats = widest.functions.scanrnn_choose, {}
    try:
        for instructions in ("avx2", "avx512", "neon"):
            chosen = choose(instructions.encode()).decode()
            assert chosen in ("", instructions)
            if chosen:
                packed_floats[chosen] = widest.functions.scanrnn_packed_floats(of_one_unit.ctypes.data)
                for name in names:
                    found = encoded(ENCODERS[name](16), rows)
                    np.testing.assert_array_equal(found.view(np.uint32), wanted[name], err_msg=instructions)
    finally:
        choose(b"")
    assert widest.instructions in packed_floats
    assert platform.machine() != "x86_64" or "avx2" in packed_floats
    assert len(set(packed_floats.values())) == len(packed_floats), "vectors of another width have other panels"


@needs_native
@pytest.mark.parametrize(
    "name", ["pools", *(pytest.param(name, marks=pytest.mark.soak) for name in ("stack", *SOAKED[-1:]))]
)
def test_rows_begin_from_carries_of_their_own(name: str) -> None:
    encoder = made(name, 8)
    rows = random_rows([4, 0, 30, 2, 9], in_features=D)
    carries = np.random.default_rng(0).standard_normal((5, encoder.carry_features)).astype(np.float32)
    found = encoded(encoder, rows, initial_carry=carries)
    np.testing.assert_allclose(found, padded(encoder, rows, carries), rtol=0, atol=1e-6)


@needs_native
@pytest.mark.parametrize("name", ["gru", "pools", pytest.param("stack", marks=pytest.mark.soak)])
def test_a_row_in_two_halves_has_the_bits_of_the_whole(name: str) -> None:
    encoder = made(name, 16)
    rows = random_rows([50, 3, 700], in_features=D)
    stateful = StatefulEncoder(encoder)
    first = encoded(
        stateful, [row[: len(row) // 3] for row in rows], initial_carry=np.stack([stateful.first_state] * 3)
    )
    states = first[:, -stateful.state_features :]
    rest = encoded(stateful, [row[len(row) // 3 :] for row in rows], initial_carry=states)
    whole = encoded(stateful, rows, initial_carry=np.stack([stateful.first_state] * 3))
    np.testing.assert_array_equal(rest.view(np.uint32), whole.view(np.uint32))
    np.testing.assert_array_equal(
        whole[:, : encoder.out_features].view(np.uint32), encoded(encoder, rows).view(np.uint32)
    )


@needs_native
def test_rows_that_come_while_others_are_at_work_are_finished_too() -> None:
    encoder = encoder_of(in_features=D, hidden=16)
    engine = build_engine(encoder, mesh_of(2), SHAPE, kernel="native")
    rng = np.random.default_rng(0)
    rows, rooms, numbers = [], [], []
    with closing(engine.run()) as run:
        for _ in range(30):
            more = random_rows(rng.integers(0, 300, rng.integers(0, 40)), int(rng.integers(99)), in_features=D)
            rows += more
            rooms.append(np.full((len(more), 16), np.nan, np.float32))
            run.submit(Ragged.from_sequences(more) if more else Ragged.empty(D), out=rooms[-1])
            numbers += run.advance(more=bool(rng.integers(4)))
        numbers += run.results()
        assert not run.is_busy and run.statistics.rows == len(rows)
        assert sorted(np.concatenate(numbers).tolist()) == list(range(len(rows)))
        assert not run._submissions.batches, "the values of finished rows are let go"
        assert run.statistics.steps == sum(map(len, rows)) <= run.statistics.positions
    wanted = encoded(encoder, rows)
    np.testing.assert_array_equal(np.concatenate(rooms).view(np.uint32), wanted.view(np.uint32))


@needs_native
def test_a_window_ends_although_its_rows_are_long_and_no_row_is_lost() -> None:
    encoder = encoder_of(in_features=D, hidden=16)
    engine = build_engine(encoder, mesh_of(2), SHAPE, kernel="native")
    rows = random_rows([3000, 10] * 20, in_features=D)
    features = np.full((len(rows), 16), np.nan, np.float32)
    with closing(engine.run()) as run:
        run.submit(Ragged.from_sequences(rows), out=features)
        before = 0
        while run.is_busy:
            fetched = run.advance(more=run._queue.rows > 10)
            most = 2 * len(fetched) * SHAPE.lanes * native_run.MOST_WINDOWS * SHAPE.window_steps
            assert run.statistics.positions - before <= most
            before = run.statistics.positions
        assert run.statistics.steps == sum(map(len, rows)) and not run._submissions.batches
    wanted = encoded(encoder, rows)
    np.testing.assert_array_equal(features.view(np.uint32), wanted.view(np.uint32))


@needs_native
def test_long_rows_go_on_in_few_windows_once_no_others_are_left() -> None:
    engine = build_engine(encoder_of(in_features=D, hidden=16), mesh_of(2), SHAPE, kernel="native")
    steps = 200 * SHAPE.window_steps
    with closing(engine.run()) as run:
        run.submit(Ragged.from_sequences(random_rows([steps] * 3, in_features=D)))
        list(run.results())
        assert 200 <= run.statistics.windows <= 205
        assert run.statistics.positions >= 2 * steps * SHAPE.lanes, "no device does all of them"


@needs_native
def test_a_device_with_a_long_row_leaves_the_last_ones_to_the_others() -> None:
    engine = NativeEngine(encoder_of(), mesh_of(1), WindowShape(16, 4, 16))
    x, lengths = np.zeros((1000, D), np.float32), [1000, *[100] * 9]
    rows = np.zeros(len(lengths), ROW)
    rows["x"], rows["left"], rows["number"] = x.ctypes.data, lengths, np.arange(len(lengths))
    queue = queue_of(rows, 2, False, 32, 32, (D, H))  # of two devices; this one plays both, one after the other
    taken = []
    for _ in range(2):
        state, in_lanes, told = *engine.free_lanes(), engine.new_told()
        after = engine.program(*engine.weights, state, in_lanes, told, address_of(queue))[1]
        numbers = np.asarray(after)[0].view(ROW)["number"].ravel()
        taken.append(sorted(numbers[numbers >= 0].tolist()))
    assert taken == [[0], list(range(1, 10))]


@needs_native
def test_a_window_ends_by_its_work_and_the_bits_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows([90, 3, 70, 0, 41, 64], in_features=D)
    wanted = encoded(made("gru", 16), rows)
    most_steps = 3
    engine = build_engine(made("gru", 16), mesh_of(2), SHAPE, kernel="native")
    flop = most_steps * SHAPE.lanes * engine.flops_per_step // native_run.MOST_WINDOWS
    monkeypatch.setattr(native_run, "NATIVE_WINDOW_FLOP", flop + 1)
    features = np.full((len(rows), 16), np.nan, np.float32)
    with closing(engine.run()) as run:
        run.submit(Ragged.from_sequences(rows), out=features)
        run.results()
        assert run.statistics.windows >= 90 / most_steps
    np.testing.assert_array_equal(features.view(np.uint32), wanted.view(np.uint32))


@given(data=st.data())
def test_every_row_is_taken_once(data: st.DataObject) -> None:
    queue = RowQueue(lanes=data.draw(st.integers(1, 5)), long_steps=data.draw(st.integers(1, 50)))
    added, taken, number = [], [], 0
    for more in data.draw(st.lists(st.booleans(), max_size=12)):
        rows = np.zeros(data.draw(st.integers(0, 6)), ROW)
        rows["left"] = data.draw(st.lists(st.integers(0, 100), min_size=len(rows), max_size=len(rows)))
        rows["number"] = np.arange(number, number := number + len(rows))
        queue.add(rows)
        added += rows.tolist()
        steps, most = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 5))
        got = queue.take(steps, most, more)
        assert len(got) <= most and (len(got) < 2 or np.maximum(got["left"], 1)[:-1].sum() < steps)
        gone = data.draw(st.integers(0, len(got)))
        queue.give_back(got[gone:])
        taken += got[:gone].tolist()
        assert queue.rows == len(added) - len(taken)
    while queue.rows:
        taken += queue.take(10**6, 10**6, False).tolist()
    assert queue.steps == 0 and sorted(taken) == sorted(added)


def test_long_rows_go_in_the_order_in_which_they_came_however_many_more_come() -> None:
    queue, taken = RowQueue(lanes=1, long_steps=10), []
    for nth in range(20):
        rows = np.zeros(2, ROW)
        rows["left"], rows["number"] = (20, 20 if nth else 5), (2 * nth, 2 * nth + 1)
        queue.add(rows)
        if nth >= 2:
            taken += queue.take(20, 10, more=True)["number"].tolist()
    assert taken == [0, *range(2, 19)]


def test_long_rows_go_first_at_the_end_and_short_ones_in_order() -> None:
    queue = RowQueue(lanes=1, long_steps=1000)
    rows = np.zeros(200, ROW)
    rows["left"], rows["number"] = 2, np.arange(200)
    rows["left"][[50, 120, 7]] = 90, 300, 2000
    queue.add(rows)
    assert queue.take(10**6, 3, True)["number"].tolist() == [7, 0, 1]
    assert queue.take(10**6, 5, False)["number"].tolist() == [120, 50, 2, 3, 4]


def through_bfloat16(arrays: Any, **options: Any) -> Any:
    """A `promote_dtype` of one's own."""
    return tuple(None if array is None else array.astype(jnp.bfloat16).astype(jnp.float32) for array in arrays)


def ones_of_bfloat16(key: Any, shape: Any, dtype: Any) -> Any:
    """A `carry_init` whose dtype the cell keeps in each step."""
    return jnp.ones(shape, jnp.bfloat16)


def with_product(**options: Any) -> Encoder:
    """A GRU whose recurrent product is another one."""
    cell = drawn(nnx.GRUCell, 2, 3)
    for name, value in options.items():
        setattr(cell.dense_h, name, value)
    return Encoder(cell)


def with_one_bias() -> Encoder:
    """A GRU all of whose gates have the same bias: JAX repeats it, and the kernel would read on behind it."""
    cell = drawn(nnx.GRUCell, 2, 3)
    cell.dense_i.bias = nnx.Param(jnp.ones(1))
    return Encoder(cell)


def with_lora() -> Encoder:
    cell = drawn(nnx.GRUCell, 2, 3)
    cell.dense_h = nnx.LoRA(3, 1, 9, base_module=cell.dense_h, rngs=nnx.Rngs(0))  # which has no kernel of its own
    return Encoder(cell)


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        (lambda: Encoder(drawn(nnx.SimpleCell, 2, 3, residual=True)), "residual"),
        (lambda: Encoder(drawn(nnx.GRUCell, 2, 3, activation_fn=nnx.relu)), "other activations"),
        (lambda: Encoder.from_seed(0, 2, 3, dtype="bfloat16"), "does not compute in float32"),
        (lambda: Encoder(drawn(nnx.GRUCell, 2, 3, promote_dtype=through_bfloat16)), "products of its own"),
        (lambda: Encoder(drawn(nnx.LSTMCell, 2, 3, promote_dtype=through_bfloat16)), "products of its own"),
        (lambda: with_product(preferred_element_type=jnp.bfloat16), "products of its own"),
        (lambda: with_product(precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32), "products of its own"),
        (lambda: Encoder(drawn(nnx.GRUCell, 2, 3, carry_init=ones_of_bfloat16)), r"its carry is bfloat16\[3\]"),
        (
            lambda: Encoder.from_seed(
                0, None, 3, input=InputSpec.from_dict({"column": [{"name": "a", "kind": "number"}]})
            ),
            "input",
        ),
        (with_one_bias, "weights of other shapes"),
        (with_lora, "products of its own"),
        (lambda: Encoder(drawn(type("Own", (nnx.GRUCell,), {}), 2, 3)), "it has a Own"),
    ],
)
@pytest.mark.filterwarnings("ignore:carry_init is provided")
def test_other_encoders_are_left_to_xla(encoder: Any, why: str) -> None:
    made = encoder()
    assert chosen_kernel(made, mesh_of(1)) == "xla"
    with pytest.raises(ConfigError, match=f"There is no native kernel here.*{why}.*choose 'xla'"):
        build_engine(made, mesh_of(1), SHAPE, kernel="native")


def of_larger_cells(encoder: Encoder) -> None:
    nnx.update(encoder, nnx.state(made("gru", 2 * H)))


def another_layer(encoder: Encoder) -> None:
    encoder.layers[0] = drawn(nnx.GRUCell, D, 2 * H)


def as_torch_has_it(encoder: Encoder) -> None:
    encoder.cell.dense_i.kernel = nnx.Param(encoder.cell.dense_i.kernel[...].T)


def one_bias(encoder: Encoder) -> None:
    encoder.cell.dense_i.bias = nnx.Param(jnp.ones(1))


@pytest.mark.parametrize("change", [of_larger_cells, another_layer, as_torch_has_it, one_bias])
@pytest.mark.parametrize("kernel", [None, "xla"])
def test_weights_that_got_other_shapes_are_refused(change: Any, kernel: str | None, tmp_path: Path) -> None:
    encoder = Encoder.from_seed(0, D, H)
    change(encoder)
    with pytest.raises(ConfigError, match=r"do not fit together: layers\.0\..* when the encoder was built, and has"):
        encoded(encoder, random_rows([3], D), kernel=kernel)
    write_source(tmp_path / "in.parquet", random_rows([3], D))
    with pytest.raises(ConfigError, match="do not fit together"):
        featurize(encoder, tmp_path / "in.parquet", tmp_path / "out", kernel=kernel)


@needs_native
def test_the_kernel_is_not_given_other_sizes_than_the_encoder_says() -> None:
    encoder = Encoder.from_seed(0, D, H)
    encoder.readout_names = ("last", "mean")
    with pytest.raises(ConfigError, match=f"says {H} features and a state of {2 * H}, and its layers give {2 * H} and"):
        build_engine(encoder, mesh_of(1), SHAPE, kernel="native")


@needs_native
@pytest.mark.parametrize(
    "precision", [jax.lax.Precision.HIGHEST, "highest", (jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST)], ids=str
)
def test_a_precision_of_products_makes_no_difference_on_a_cpu(precision: Any) -> None:
    assert build_engine(with_product(precision=precision), mesh_of(1), SHAPE).kernel == "native"


def test_a_kernel_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="The kernel is 'cuda'; expected one of native, xla"):
        encode(encoder_of(), random_rows([3]), kernel="cuda")


@needs_native
def test_a_job_keeps_its_kernel_and_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows(some_lengths(30)))
    options: dict[str, Any] = {"rows_per_part": 10, "mesh": mesh_of(1), "window_shape": SHAPE}

    def begun(name: str, **more: Any) -> Path:
        out = tmp_path / name
        report = featurize(encoder_of(), source, out, **options, **more)
        assert f"by the {more.get('kernel', 'native')} kernel; " in str(report)
        for part in ("part-00001.parquet", "_SUCCESS"):
            (out / part).unlink()
        return out

    by_xla = begun("xla", kernel="xla")
    featurize(encoder_of(), source, by_xla, **options)
    assert json.loads((by_xla / "__scanrnn/job.json").read_text())["environment"]["kernel"] == "xla"
    command_line_in_this_process(monkeypatch, columns=120)
    by_command = begun("command", kernel="xla")
    flags = ["--hidden", str(H), "--seed", str(SEED), "--rows-per-part", "10"]
    assert cli.run(["plan", str(source), str(by_command), *flags]) == 0
    assert re.search(r"kernel: +xla\n(.|\n)*featurize would continue it", capsys.readouterr().out)
    assert cli.run(["resume", str(by_command)]) == 0 == cli.run(["status", str(by_command)])
    assert json.loads((by_command / "__scanrnn/job.json").read_text())["environment"]["kernel"] == "xla"
    by_native = begun("native")
    monkeypatch.setenv("SCANRNN_NATIVE_LIBRARY", "")
    with pytest.raises(ConfigError, match="kernel was native and is xla"):
        featurize(encoder_of(), source, by_native, **options)
    assert featurize(encoder_of(), source, by_native, **options, allow_mixed=True).is_complete
    assert pq.read_table(by_native).num_rows == 30


@functools.cache
def large() -> Encoder:
    """An encoder whose windows take a while."""
    return Encoder(drawn(nnx.OptimizedLSTMCell, D, 300))


@needs_native
@pytest.mark.parametrize("is_interrupted_again", [False, True])
def test_what_the_kernel_reads_and_writes_is_there_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch, is_interrupted_again: bool
) -> None:
    """Also where Ctrl-C comes while the only window is waited for, or once more while the run is closed."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    engine = build_engine(large(), mesh_of(2), kernel="native")
    run = engine.run()
    run.submit(Ragged.from_sequences(random_rows([2000] * 64, in_features=D)))
    clock = SimpleNamespace(perf_counter=interrupted)  # the last call before it waits
    monkeypatch.setattr(native_run, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        run.results()
    monkeypatch.undo()
    (sent,) = run._sent
    while not (sent.told.running() or sent.told.done()):  # else `close` cancels it
        time.sleep(0.001)
    if is_interrupted_again:
        monkeypatch.setattr(run._dispatcher, "shutdown", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.close()
        monkeypatch.undo()
        assert run in native_run._AT_WORK
    run.close()
    assert sent.is_ready and run not in native_run._AT_WORK


@needs_native
def test_a_window_is_waited_for_although_sending_it_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = build_engine(large(), mesh_of(2), kernel="native").run()
    run.submit(Ragged.from_sequences(random_rows([500] * 64, in_features=D)))
    submit = run._dispatcher.submit

    def interrupted(*given: Any) -> None:
        submit(*given).exception()
        raise KeyboardInterrupt

    monkeypatch.setattr(run._dispatcher, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.results()
    run.close()
    assert run._on_devices.states.is_ready()


@pytest.mark.parametrize("kernel", [pytest.param("native", marks=needs_native), "xla"])
def test_no_rows_with_carries_of_their_own_are_no_rows(kernel: str) -> None:
    encoder = Encoder.from_seed(0, D, 9, bidirectional=True)
    features = encoded(encoder, [], initial_carry=np.zeros((0, 2 * 9), np.float32), kernel=kernel)
    assert features.shape == (0, 18)
