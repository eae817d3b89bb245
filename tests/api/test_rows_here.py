"""Rows in memory: whatever pieces they go to the engine in, features are the same, and few are held at a time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sources import mesh_of, needs_native

from scanrnn_dist.api import BatchFeaturizer, arrays, encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import build_engine
from scanrnn_dist.engine.submitting import LOOK_AHEAD_BYTES
from scanrnn_dist.errors import DataError
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged, running_sums

SHAPE = WindowShape(lanes=8, block_steps=4, window_blocks=4)
D, H, STEPS = 2, 32, 20


def rows_of(lengths: list[int]) -> Ragged:
    values = np.random.default_rng(0).standard_normal((sum(lengths), D), dtype=np.float32)
    return Ragged(values, np.cumsum([0, *lengths]))


def encoded(encoder: Encoder, rows: Ragged) -> None:
    encode(encoder, rows, window_shape=SHAPE)


def featurized(encoder: Encoder, rows: Ragged) -> None:
    steps = pa.FixedSizeListArray.from_arrays(pa.array(rows.values.reshape(-1)), D)
    table = pa.table({"sequence": pa.ListArray.from_arrays(pa.array(rows.offsets, pa.int32()), steps)})
    BatchFeaturizer(encoder, window_shape=SHAPE)(table)


def most_bytes(compute: Callable[..., None], encoder: Encoder, number: int) -> int:
    """What computing so many rows holds at most, of all that numpy allocates."""
    rows = rows_of([STEPS] * number)
    tracemalloc.start()
    try:
        compute(encoder, rows)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@needs_native  # XLA's runs let rows wait up to their look-ahead only, for which they allocate room at once
@pytest.mark.parametrize("compute", [encoded, featurized])
def test_outputs_between_layers_are_held_of_few_rows_only(compute: Callable[..., None]) -> None:
    few, many = 400, 1600  # threads decide how many rows lie between the layers: up to 1 MiB more or less
    encoder = Encoder.from_seed(0, D, H, num_layers=2, bidirectional=True)
    compute(encoder, rows_of([STEPS] * 9))  # what is compiled or loaded once
    more = most_bytes(compute, encoder, many) - most_bytes(compute, encoder, few)
    outputs_bytes = (many - few) * STEPS * 2 * H * 4  # of the first layer, in both directions
    assert more < outputs_bytes / 2


@pytest.mark.parametrize("kernel", ["xla", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_a_run_without_a_budget_wants_no_more_than_the_look_ahead(kernel: str, options: Any) -> None:
    rows = Ragged(np.zeros((LOOK_AHEAD_BYTES // (4 * D), D), np.float32), np.array([0, LOOK_AHEAD_BYTES // (4 * D)]))
    encoder = Encoder.from_seed(0, D, 5, readout="steps", **options)  # whose programs the test below takes too
    with closing(build_engine(encoder, mesh_of(2), SHAPE, True, kernel).run()) as run:
        assert run.wants_rows
        run.submit(rows, None, np.zeros((1, encoder.carry_features), np.float32))
        assert not run.wants_rows


@pytest.mark.parametrize(
    ("readout", "max_steps", "has_carries", "kernel"),
    [
        ("steps", 30, True, "xla"),
        pytest.param("steps", 30, True, "native", marks=needs_native),
        pytest.param("last", None, False, "native", marks=needs_native),
        pytest.param("last", None, False, "xla", marks=pytest.mark.soak),
        *(
            pytest.param(*case, kernel, marks=[pytest.mark.soak, *([needs_native] if kernel == "native" else [])])
            for case in (("last", 30, True), ("steps", None, False))
            for kernel in ("xla", "native")
        ),
    ],
)
def test_pieces_give_the_bits_of_one_submission(
    readout: str, max_steps: int | None, has_carries: bool, kernel: str
) -> None:
    encoder = Encoder.from_seed(0, D, 5, num_layers=2, bidirectional=True, readout=readout)
    mesh = mesh_of(2)  # so that a piece is 256 steps: the longest row is more
    lengths = [*np.random.default_rng(1).integers(0, 90, 150).tolist(), 400, *[0] * 600, 7]
    rows = rows_of([3, *lengths]).slice(1, len(lengths) + 1)  # which does not begin where its values do
    carries = None
    if has_carries:
        carries = np.random.default_rng(2).standard_normal((len(rows), encoder.carry_features), dtype=np.float32)
    run = build_engine(encoder, mesh, SHAPE, has_carries, kernel).run()
    counts = rows.lengths_within(max_steps) if readout == "steps" else np.ones(len(rows), np.int64)
    wanted = Ragged(np.full((counts.sum(), 10), np.nan, np.float32), running_sums(counts))
    run.submit(rows, max_steps, carries, wanted.values)
    assert sorted(np.concatenate(run.results()).tolist()) == list(range(len(rows)))
    run.close()
    found = encode(
        encoder, rows, mesh=mesh, window_shape=SHAPE, max_steps=max_steps, initial_carry=carries, kernel=kernel
    )  # fmt: skip
    np.testing.assert_array_equal(found.values if isinstance(found, Ragged) else found, wanted.values)


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_initial_carries_are_as_many_as_rows(rows: int) -> None:
    encoder = Encoder.from_seed(0, D, 5, num_layers=2, bidirectional=True)
    carries = np.zeros((rows, encoder.carry_features), np.float32)
    with pytest.raises(DataError, match=rf"The initial carries are \({rows}, 20\); expected one for each of 3 rows"):
        encode(encoder, rows_of([2, 0, 1]), window_shape=SHAPE, initial_carry=carries)


@pytest.mark.parametrize(("options", "is_whole"), [({}, True), ({"num_layers": 2, "bidirectional": True}, False)])
def test_rows_go_at_once_where_no_outputs_are_held(
    options: Any, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = []

    def build(*args: Any) -> Any:
        engine = build_engine(*args)
        run = engine.run()
        submit = run.submit
        monkeypatch.setattr(run, "submit", lambda rows, *rest: (submitted.append(rows.values), submit(rows, *rest)))
        monkeypatch.setattr(engine, "run", lambda: run)
        return engine

    monkeypatch.setattr(arrays, "build_engine", build)
    rows = rows_of([STEPS] * 500)
    encode(Encoder.from_seed(0, D, H, **options), rows, window_shape=SHAPE)
    assert all(np.shares_memory(values, rows.values) for values in submitted)
    assert (len(submitted) == 1) == is_whole and sum(map(len, submitted)) == len(rows.values)
