"""One budget of memory: the shares add up, each part keeps to its own, and no budget changes a bit."""

from __future__ import annotations

import logging
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from holding import hold
from hypothesis import given
from hypothesis import strategies as st
from sources import NAN, SHAPE, D, H, features_of, featurize, random_rows, write_source

from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.bidirectional import BidirectionalRun
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Handling, Memory, MemoryShares, Plan, in_order, quarantined
from scanrnn_dist.job.memory import LEAST_BYTES, USUAL_BYTES
from scanrnn_dist.job.write_behind import WriteBehind
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records import Output, quarantine
from scanrnn_dist.records.output import LAYOUTS
from scanrnn_dist.source import BadRows, open_source, unit_reader
from scanrnn_dist.source.parquet import budget as reading

budgets = st.integers(LEAST_BYTES, 2**45)


@given(budgets, budgets, st.booleans())
def test_shares_add_up_to_no_more_than_the_budget_and_grow_with_it(one: int, other: int, is_static: bool) -> None:
    less, more = sorted((one, other))
    shares = [MemoryShares.of(less, is_static), MemoryShares.of(more, is_static)]
    assert shares[1].total <= more and all(share > 0 for share in astuple(shares[0]))
    assert all(a <= b for a, b in zip(*map(astuple, shares), strict=True))
    assert shares[0].total > less - len(fields(MemoryShares)) or less > USUAL_BYTES, "all of a usual one is shared"


def test_the_usual_shares_are_those_of_the_usual_budget() -> None:
    usual = MemoryShares.of()
    assert usual.total == USUAL_BYTES and Memory(room=8 << 30).shares(is_static=False) == usual
    for is_static in (False, True):
        most = MemoryShares.of(64 << 30, is_static)
        assert (most.chunk, most.piece) == (usual.chunk, usual.piece)


@given(st.none() | budgets, st.integers(1, 2**45), st.booleans())
def test_a_job_takes_what_it_is_told_and_else_no_more_than_the_process_may_use(
    told: int | None, room: int, is_static: bool
) -> None:
    memory = Memory(told, room)
    budget = memory.budget(is_static)
    if told is not None:
        assert budget == told
    else:
        assert budget <= max(LEAST_BYTES, 4 * room if is_static else min(room, USUAL_BYTES))
    # A small budget refuses no row that fits into the memory.
    assert memory.row_bytes == max(room, told or 0)


def test_a_budget_that_is_too_small_is_refused_with_the_least_that_works() -> None:
    with pytest.raises(ConfigError, match="--memory is 33,554,431 bytes; expected at least 32MiB"):
        Handling(memory_bytes=LEAST_BYTES - 1)
    assert Handling(memory_bytes=LEAST_BYTES).memory.shares(is_static=False).total == LEAST_BYTES


def test_the_parts_of_a_job_are_handed_the_shares_of_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: dict[str, Any] = {}
    chunks, writer, stream = Plan.chunks, WriteBehind.__init__, in_order.Stream.__init__

    def chunks_of(plan: Any, *given: Any, **how: Any) -> Any:
        handed.update(read_ahead=how["prefetch_bytes"], kept=plan.source.kept_bytes, requests=plan.source.request_bytes)
        return chunks(plan, *given, **how)

    def written(self: Any, *given: Any, **how: Any) -> None:
        writer(self, *given, **how)
        handed["unwritten"] = self._most_waiting_bytes

    def streamed(self: Any, engine: Any, chunks: Any, options: Any, shares: MemoryShares) -> None:
        stream(self, engine, chunks, options, shares)
        handed.update(open=self._open_bytes, total=self._shares.total)

    monkeypatch.setattr(Plan, "chunks", chunks_of)
    monkeypatch.setattr(WriteBehind, "__init__", written)
    monkeypatch.setattr(in_order.Stream, "__init__", streamed)
    path = write_source(tmp_path / "a.parquet", random_rows([3, 5]))
    featurize(path, tmp_path / "out", memory_bytes=64 << 20)
    shares = MemoryShares.of(64 << 20)
    assert handed == {name: getattr(shares, name) for name in handed} and len(handed) == 6


def test_giant_rows_come_one_by_one_within_a_small_budget_and_keep_their_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = np.tile([400, 5, 7], 8)
    path = write_source(tmp_path / "a.parquet", random_rows(lengths))
    row_bytes = 400 * 4 * D
    monkeypatch.setattr(MemoryShares, "chunk", 1)
    values: list[int] = []
    place = in_order.Stream._count_finished

    def watched(self: Any, finished: Any) -> None:
        values.append(sum(chunk.values_bytes for chunk in self._open if chunk.rows_left))
        place(self, finished)

    monkeypatch.setattr(in_order.Stream, "_count_finished", watched)
    hold(monkeypatch, read_ahead=1)
    with caplog.at_level(logging.WARNING, logger="scanrnn_dist"):
        featurize(path, tmp_path / "free")
    assert max(values) > 2 * row_bytes and not caplog.records
    values.clear()
    small = dict.fromkeys(("read_ahead", "look_ahead", "open", "unwritten", "requests"), 0)
    hold(monkeypatch, **{**small, "open": row_bytes // 2, "read_ahead": 1, "working": 0})
    with caplog.at_level(logging.WARNING, logger="scanrnn_dist"):
        featurize(path, tmp_path / "small")
    assert max(values) <= row_bytes // 2 + row_bytes
    assert features_of(tmp_path / "small").tobytes() == features_of(tmp_path / "free").tobytes()
    assert len(caplog.records) == 1 and "A row of part 0 has values of" in caplog.text and "--memory" in caplog.text


WIDE: dict[str, dict[str, Any]] = {
    "short rows, wide features": {"hidden_features": 64},
    "outputs of steps": {"hidden_features": 16, "readout": "steps"},
    "own carries": {"hidden_features": 32},
}


@pytest.mark.parametrize("case", WIDE)
def test_rows_of_which_far_more_comes_than_was_read_are_taken_in_pieces_and_keep_their_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    rng, encoder = np.random.default_rng(0), Encoder.from_seed(0, D, **WIDE[case])
    rows: list[Any] = [row.tolist() for row in random_rows(rng.integers(0, 5, 300))]
    rows[7], rows[150], rows[299] = NAN, NAN, NAN
    carries = pa.array(rng.standard_normal((300, encoder.carry_features)).tolist(), pa.list_(pa.float32()))
    path = write_source(tmp_path / "a.parquet", rows, row_group_size=200, carry=carries)
    how: dict[str, Any] = {
        "column": "sequence", "bad_rows": BadRows(bad_value="skip", empty_sequence="null"), "max_steps": 3,
        "filter": "id < 40 or id > 60",
        "initial_carry": "carry" if case == "own carries" else None, "rows_per_part": 150,
    }  # fmt: skip
    written: list[int] = []
    put, place = WriteBehind.put, in_order.Stream._count_finished

    def watched(self: Any, chunk: Any, features: Any) -> None:
        written.append((features.values if isinstance(features, Ragged) else features).nbytes)
        put(self, chunk, features)

    def placed(self: Any, finished: Any) -> None:
        place(self, finished)
        chunks = [item for item in self._open if isinstance(item, in_order.OpenChunk)]
        unfinished = [chunk for chunk in chunks if chunk.rows_left]
        assert self._values_bytes == sum(chunk.values_bytes for chunk in unfinished)
        kept = sum(chunk.engine_bytes for chunk in unfinished)
        assert self._held_bytes == sum(item.nbytes for item in self._open) + kept
        assert self._open_units == sum(chunk.chunk.is_last for chunk in chunks)

    monkeypatch.setattr(WriteBehind, "put", watched)
    monkeypatch.setattr(in_order.Stream, "_count_finished", placed)
    reports = [featurize(path, tmp_path / "free", encoder, **how)]
    most_at_once, piece_bytes = max(written), 1024
    written.clear()
    monkeypatch.setattr(MemoryShares, "piece", piece_bytes)
    reports.append(featurize(path, tmp_path / "pieces", encoder, **how))
    assert max(written) <= piece_bytes < most_at_once // 8
    free, pieces = (pq.read_table(tmp_path / name) for name in ("free", "pieces"))
    assert pieces.equals(free) and 200 < len(free) < 300
    assert free["features"].null_count == pieces["features"].null_count > 0
    assert quarantined(tmp_path / "pieces").equals(quarantined(tmp_path / "free"))
    assert (reports[0].rows, reports[0].steps) == (reports[1].rows, reports[1].steps)


@pytest.mark.parametrize("kernel", [None, pytest.param("xla", marks=pytest.mark.soak)])
def test_what_is_kept_between_layers_stays_within_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str | None
) -> None:
    rows, steps = 400, 9
    path = write_source(tmp_path / "a.parquet", random_rows([steps] * rows), row_group_size=rows)
    encoder = Encoder.from_seed(0, D, H, num_layers=2, bidirectional=True)
    kept: list[int] = []
    advance = BidirectionalRun.advance

    def watched(self: Any, more: bool = False) -> Any:
        layers = self._layers[:-1]
        kept.append(sum(batch.given.values.nbytes for layer in layers for batch in layer._batches))
        return advance(self, more)

    monkeypatch.setattr(BidirectionalRun, "advance", watched)
    featurize(path, tmp_path / "free", encoder, kernel=kernel)
    assert max(kept) == rows * steps * 2 * H * 4, "those of all rows"
    kept.clear()
    bound = 20_000
    hold(monkeypatch, open=bound)
    monkeypatch.setattr(MemoryShares, "piece", bound // 8)
    featurize(path, tmp_path / "bound", encoder, kernel=kernel)
    assert 0 < max(kept) <= bound
    assert features_of(tmp_path / "bound").tobytes() == features_of(tmp_path / "free").tobytes()


OUTPUTS = {
    **{layout: Output(layout, row_group_bytes=1 << 15) for layout in LAYOUTS},
    "packed": Output(compression="zstd", row_group_bytes=1 << 15),
    "steps": Output(row_group_bytes=1 << 18),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 rows, one of them long and some bad, with texts beside them."""
    count, rng = 3_000, np.random.default_rng(0)
    rows: list[Any] = [row.tolist() for row in random_rows([900, *rng.integers(0, 50, count - 1)])]
    for row in range(7, count, 50):
        rows[row] = NAN
    texts = pa.array([None if n % 9 == 0 else "x" * int(n) for n in rng.integers(0, 300, count)])
    tags = pa.array([["tag"] * int(n) for n in rng.integers(0, 9, count)])
    path = tmp_path_factory.mktemp("large") / "a.parquet"
    return write_source(path, rows, row_group_size=1_000, text=texts, tags=tags)


@pytest.mark.parametrize(
    ("case", "keep"),
    [
        *((case, ["id", "text", "tags"]) for case in OUTPUTS),
        *(pytest.param(case, ["id"], marks=pytest.mark.soak) for case in OUTPUTS),
    ],
)
def test_the_least_budget_gives_the_same_bytes(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch, case: str, keep: list[str]
) -> None:
    monkeypatch.setattr(quarantine, "ROW_GROUP_BYTES", 1 << 10)
    encoder = Encoder.from_seed(0, D, H, readout="steps" if case == "steps" else "last")
    how: dict[str, Any] = {
        "column": "sequence", "keep": keep, "output": OUTPUTS[case], "rows_per_part": 3_000,
        "window_shape": replace(SHAPE, lanes=64), "bad_rows": BadRows(bad_value="skip", empty_sequence="null"),
    }  # fmt: skip
    written: list[list[bytes]] = []
    batches: list[int] = []
    put = WriteBehind.put

    def counted(self: WriteBehind, *given: Any) -> None:
        batches[-1] += 1
        put(self, *given)

    monkeypatch.setattr(WriteBehind, "put", counted)
    for name, memory_bytes in (("usual", None), ("least", LEAST_BYTES)):
        batches.append(0)
        featurize(large, tmp_path / name, encoder, memory_bytes=memory_bytes, **how)
        files = [*(tmp_path / name).glob("part-*"), *(tmp_path / name).glob("__scanrnn/quarantine/*")]
        written.append([file.read_bytes() for file in files])
    assert batches[1] > batches[0]
    assert len(written[0]) == 2 and written[0] == written[1]
    assert all(pq.read_metadata(pa.BufferReader(content)).num_row_groups > 1 for content in written[0])


@pytest.mark.parametrize(("chunk_bytes", "fetched"), [(4 << 20, 56 << 20), (1 << 18, 4 << 20)])
def test_of_a_bucket_as_much_is_fetched_as_there_is_room_for_and_less_where_few_rows_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, fetched: int
) -> None:
    path = write_source(tmp_path / "a.parquet", random_rows([3]))
    source = replace(open_source(path), request_bytes=56 << 20, kept_bytes=123)
    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr(unit_reader, "CheckedFile", lambda *given: opened.append(given))
    reader = unit_reader.UnitReader(
        source, [("id",)], (), frozenset(), None, chunk_bytes  # type: ignore[arg-type]
    )  # fmt: skip
    reader.open(type("Unit", (), {"file": source.files[0]}))  # type: ignore[arg-type]
    assert opened[0][-2:] == (123, fetched)


def test_freed_memory_is_given_back_once_it_may_be_much(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []

    class Pool:
        def release_unused(self) -> None:
            given_back.append(pa.total_allocated_bytes())

    pool = pa.default_memory_pool()
    held = reading.Budget(None, kept_bytes=1 << 20)
    monkeypatch.setattr(pa, "default_memory_pool", Pool)
    few = pa.allocate_buffer((1 << 20) - 4096, pool)
    held.give_back()
    assert not given_back
    many = pa.allocate_buffer(1 << 20, pool)
    held.give_back()
    held.give_back()
    assert len(given_back) == 1, "as buffers that grow leave others behind"
    del few, many
    held.give_back()
    assert len(given_back) == 2
