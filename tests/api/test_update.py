"""An output that is updated by slices is, bit for bit, the one that all steps at once would give."""

from __future__ import annotations

import itertools
import mmap
import shlex
import shutil
import sys
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crashing import Job, Scenario, Zygote, killed_at_each, sorts_of
from faults import Died
from odd_values import ODD, SOME, stored
from sources import (
    D,
    H,
    build_encoders_once,
    categories,
    command_line_in_this_process,
    encoder_of,
    entries,
    featurize,
    leftovers,
    mesh_of,
    random_rows,
    resume,
    write_source,
)

from scanrnn_dist.api import update, updating, verify
from scanrnn_dist.cli import app as cli
from scanrnn_dist.encoder import Encoder, State
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import MemoryShares, in_order, new_steps, quarantined, read_status
from scanrnn_dist.job import continued as continuing
from scanrnn_dist.job import plan as planning
from scanrnn_dist.job.new_steps import NewSteps
from scanrnn_dist.records import RESTART, Output
from scanrnn_dist.source import BadRows, Chunk, ReadOptions, schemas
from scanrnn_dist.source.layouts import find
from scanrnn_dist.source.layouts.find import LAYOUTS
from scanrnn_dist.storage import LocalStore

IDS = 37


@pytest.fixture(autouse=True)
def _encoders_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    build_encoders_once(monkeypatch)


def slices(parts: int, seed: int = 0) -> tuple[dict[int, np.ndarray], list[dict[int, np.ndarray]]]:
    """All steps of each id, and the same cut into slices, of which an id need not have any."""
    rng = np.random.default_rng(seed)
    whole = dict(enumerate(random_rows(rng.choice([0, 1, 4, 9, 40], IDS), seed)))
    cut: list[dict[int, np.ndarray]] = [{} for _ in range(parts)]
    for number, row in whole.items():
        bounds = [0, *np.sort(rng.integers(0, len(row) + 1, parts - 1)), len(row)]
        for part, (begin, end) in enumerate(itertools.pairwise(bounds)):
            if end > begin or (part == number % parts):
                cut[part][number] = row[begin:end]
    return whole, cut


def write(path: Path, rows: dict[int, np.ndarray], seed: int = 0) -> Path:
    """A file of rows in any order, with an id of two columns and a label."""
    order = np.random.default_rng(seed).permutation(list(rows))
    numbers = [int(number) for number in order]
    return write_source(
        path, [rows[number] for number in numbers], id=pa.array(numbers, pa.int64()),
        kind=pa.array([f"k{number % 3}" for number in numbers], pa.string()),
    )  # fmt: skip


def continued(destination: Any, source: Path, **options: Any) -> Any:
    return update(destination, source, mesh=mesh_of(1), **options)


def by_id(destination: Path) -> dict[tuple[int, str], tuple[bytes, bytes]]:
    """The bits of features and state of each id."""
    table = pq.read_table(destination)
    columns = (
        np.asarray(table[name].combine_chunks().flatten()).reshape(len(table), -1) for name in ("features", "state")
    )
    features, states = columns
    keys = zip(table["id"].to_pylist(), table["kind"].to_pylist(), strict=True)
    found = {key: (features[row].tobytes(), states[row].tobytes()) for row, key in enumerate(keys)}
    assert len(found) == len(table), "an id stands twice"
    return found


@pytest.mark.parametrize("is_same", [True, False], ids=["the same steps", "others"])
def test_of_two_updates_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_same: bool) -> None:
    """One has read what stands there, and another one is published before it begins."""
    rows = dict(enumerate(random_rows([3, 4, 5, 2])))
    featurize(write(tmp_path / "0.parquet", {0: rows[0]}), tmp_path / "out", keep_state=True, ids=["id", "kind"])
    first = write(tmp_path / "1.parquet", {0 if is_same else 1: rows[1]})
    second = first if is_same else write(tmp_path / "2.parquet", {0: rows[2], 2: rows[3]})
    run = updating.run_job

    def after_another(*given: Any) -> Any:
        monkeypatch.setattr(updating, "run_job", run)
        continued(tmp_path / "out", first)
        return run(*given)

    monkeypatch.setattr(updating, "run_job", after_another)
    with pytest.raises(StoppedError, match="does not hold the job any more that this process began with"):
        continued(tmp_path / "out", second)
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == ([0] if is_same else [0, 1])
    if is_same:
        with pytest.raises(ConfigError, match=r"were applied to .* before"):
            continued(tmp_path / "out", second)
    else:
        continued(tmp_path / "out", second)
        assert pq.read_table(tmp_path / "out")["id"].to_pylist() == [0, 1, 2]
    assert verify(tmp_path / "out").rows == len(pq.read_table(tmp_path / "out"))


def test_the_command_that_began_an_updated_output_is_told_what_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dict(enumerate(random_rows([3, 4])))
    first, out = write(tmp_path / "0.parquet", {0: rows[0]}), tmp_path / "out"
    options: dict[str, Any] = {"keep_state": True, "ids": ["id", "kind"]}
    featurize(first, out, **options)
    continued(out, write(tmp_path / "1.parquet", {1: rows[1]}))
    for accept_changes in (False, True):
        with pytest.raises(ConfigError, match=r"was continued by scanrnn update.* To add steps, update it again"):
            featurize(first, out, accept_changes=accept_changes, **options)
    flags = [str(first), str(out), "--hidden", "4", "--keep-state", "--ids", "id,kind"]
    command_line_in_this_process(monkeypatch, columns=120)
    assert cli.run(["plan", *flags]) == ConfigError.exit_code
    assert "was continued by scanrnn update" in capsys.readouterr().err
    assert featurize(first, out, restart=True, **options).rows == 1


@pytest.mark.parametrize("policy", ["bad_value", "empty_sequence"])
def test_rows_that_were_set_aside_are_not_begun_anew(tmp_path: Path, policy: str) -> None:
    rows = dict(enumerate(random_rows([3, 4])))
    bad = rows[1] * np.nan if policy == "bad_value" else rows[1][:0]
    bad_rows = BadRows(**{policy: "skip"})
    out = tmp_path / "out"
    source = write(tmp_path / "0.parquet", {0: rows[0], 1: bad})
    featurize(source, out, keep_state=True, ids=["id", "kind"], bad_rows=bad_rows)
    steps = write(tmp_path / "1.parquet", {1: rows[1]})
    if policy == "empty_sequence":  # of which no step is missing
        assert continued(out, steps).rows == 2
        return
    with pytest.raises(ConfigError, match=r"lacks rows that were set aside \(1\)"):
        continued(out, steps)
    assert quarantined(out)["id"].to_pylist() == [1]


NONE = np.empty((0, D), np.float32)


def test_rows_without_steps_stay_listed_until_they_have_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dict(enumerate(random_rows([3, 4, 0, 0, 2, 0, 5])))
    bad_rows, out, at_once = BadRows(empty_sequence="skip"), tmp_path / "out", tmp_path / "at once"
    how: dict[str, Any] = {"keep_state": True, "ids": ["id", "kind"], "bad_rows": bad_rows}
    featurize(write(tmp_path / "whole.parquet", whole), at_once, **how)
    first = {0: whole[0], **dict.fromkeys([1, 2, 3, 4], NONE)}
    featurize(write(tmp_path / "0.parquet", first), out, rows_per_part=2, **how)
    days = [{0: NONE, 1: whole[1], 2: NONE, 5: NONE, 6: NONE}, {4: whole[4]}, {5: NONE, 6: whole[6]}]
    listed = [{2, 3, 4, 5, 6}, {2, 3, 5, 6}, {2, 3, 5}]
    for number, (day, ids) in enumerate(zip(days, listed, strict=True), 1):
        source, before = write(tmp_path / f"{number}.parquet", day), quarantined(out)
        with monkeypatch.context() as patched, pytest.raises(StoppedError):
            patched.setattr(LocalStore, "_name", stopping_at("part-00001"))
            continued(out, source)
        assert quarantined(out) == before
        report, aside = continued(out, source), quarantined(out)
        assert set(aside["id"].to_pylist()) == ids and len(aside) == len(ids) == report.set_aside
        assert report.rows_before > 0 and read_status(out).counts == ({"empty_sequence skip": 2} if number == 1 else {})
        found = verify(out)
        assert (found.rows, found.set_aside) == (len(by_id(out)), len(ids)) and not leftovers(out)
    assert by_id(out) == by_id(at_once)
    assert set(quarantined(at_once)["id"].to_pylist()) == listed[-1]
    held = entries(out)
    report = continued(out, write(tmp_path / "4.parquet", {0: NONE, 3: NONE}))
    assert (report.rows, report.rows_before) == (0, len(by_id(out))) and entries(out) == held
    continued(out, write(tmp_path / "5.parquet", {7: NONE}))
    assert set(quarantined(out)["id"].to_pylist()) == {2, 3, 5, 7} and by_id(out) == by_id(at_once)


def test_an_output_of_which_all_rows_are_set_aside_goes_on(tmp_path: Path) -> None:
    out, rows = tmp_path / "out", random_rows([3])
    how: dict[str, Any] = {"keep_state": True, "ids": ["id"], "bad_rows": BadRows(empty_sequence="skip")}
    featurize(write(tmp_path / "0.parquet", {0: NONE}), out, **how)
    for day, ids in (({1: NONE}, [0, 1]), ({0: rows[0]}, [1])):
        continued(out, write(tmp_path / "1.parquet", day))
        assert quarantined(out)["id"].to_pylist() == ids and verify(out).rows == 2 - len(ids)


def test_where_no_steps_are_an_error_only_new_ids_need_some(tmp_path: Path) -> None:
    rows, out = random_rows([3, 4, 2]), tmp_path / "out"
    how: dict[str, Any] = {"keep_state": True, "ids": ["id"], "bad_rows": BadRows(empty_sequence="error")}
    featurize(write(tmp_path / "0.parquet", {0: rows[0], 1: rows[1]}), out, **how)
    held = entries(out)
    assert continued(out, write(tmp_path / "1.parquet", {0: NONE})).rows == 0
    with pytest.raises(DataError, match=r"^id=2 is a new id without steps; expected at least one"):
        continued(out, write(tmp_path / "2.parquet", {0: rows[2], 2: NONE}))
    assert entries(out) == held
    report = continued(out, write(tmp_path / "3.parquet", {0: rows[2], 1: NONE}))
    assert (report.rows, report.steps) == (2, 2)


def test_rows_set_aside_are_held_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a line is made for those alone that are set aside now, not for all that have no new steps."""
    mib, out, steps = 1 << 20, tmp_path / "out", random_rows([3])

    def day(name: int, rows: dict[int, np.ndarray], nbytes: int) -> Path:
        texts = [str(number) * nbytes for number in rows]
        return write_source(tmp_path / f"{name}.parquet", list(rows.values()), id=pa.array([*rows]), text=texts)

    how: dict[str, Any] = {"keep_state": True, "ids": ["id"], "bad_rows": BadRows(empty_sequence="skip")}
    featurize(day(0, dict.fromkeys(range(24), NONE), mib), out, **how)
    made, plans = list[int](), list[Any]()
    aside_batch = new_steps.aside_batch
    monkeypatch.setattr(new_steps, "aside_batch", lambda *given: made.append(len(given[2])) or aside_batch(*given))
    new = day(1, {**dict.fromkeys(range(12), NONE), 12: steps[0], 30: NONE}, 1)
    before = pa.total_allocated_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(updating, "run_job", lambda destination, plan, *rest: plans.append(plan))
        continued(out, new)
    assert pa.total_allocated_bytes() - before < mib
    reading = ReadOptions(plans[0].layout)
    for chunk in plans[0].chunks(plans[0].units, reading, prefetch_bytes=1, stage=nullcontext, on_chunk=None):
        assert pa.total_allocated_bytes() - before < 16 * mib
        assert len(chunk.sequences) or not chunk.sequences.values.nbytes
        del chunk
    assert made == [1]
    continued(out, new)
    listed = quarantined(out)
    assert listed["id"].to_pylist() == [*range(12), *range(13, 24), 30]
    assert listed["text"].to_pylist() == [str(number) * mib for number in listed["id"].to_pylist()[:-1]] + ["30"]


@pytest.mark.parametrize("where", ["part and list", "two lists", "one list"])
def test_an_id_that_stands_twice_in_parts_or_lists_is_refused_if_it_has_new_steps(tmp_path: Path, where: str) -> None:
    a, b, new = random_rows([3, 4, 2])
    rows = {"part and list": [a, b, NONE], "two lists": [a, NONE, NONE], "one list": [a, NONE, NONE]}[where]
    source, out = write_source(tmp_path / "0.parquet", rows, 1, id=pa.array([0, 1, 1])), tmp_path / "out"
    how: dict[str, Any] = {"keep_state": True, "ids": ["id"], "bad_rows": BadRows(empty_sequence="skip")}
    featurize(source, out, rows_per_part=1 if where == "two lists" else None, **how)
    held = entries(out)
    with pytest.raises(DataError, match="stands twice in the output"):
        continued(out, write_source(tmp_path / "1.parquet", [new], id=pa.array([1])))
    assert entries(out) == held
    continued(out, write_source(tmp_path / "2.parquet", [new], id=pa.array([0])))


def test_the_size_of_chunks_changes_no_byte_of_ordered_categories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, own, rows = set[bytes](), continuing.ContinuedPlan._all_chunks, random_rows([2] * 40)
    old = {"id": pa.array(range(40)), "text": ["a"] * 40, "kind": categories(0, 40, ordered=True)}
    kinds = pa.DictionaryArray.from_arrays(pa.array([2, 0, 3, 1], pa.int8()), ["z", "y", "x", "w"], ordered=True)
    texts = [letter * (5 << 20) for letter in "abcd"]  # after which a row group ends
    source = write_source(tmp_path / "0.parquet", rows, **old)
    new = write_source(tmp_path / "1.parquet", random_rows([2] * 4, 1), id=pa.array(range(4)), text=texts, kind=kinds)
    for size in (1, 1 << 20):
        out = tmp_path / f"out{size}"
        featurize(source, out, keep_state=True, ids=["id"])
        with monkeypatch.context() as patched:
            patched.setattr(
                continuing.ContinuedPlan,
                "_all_chunks",
                lambda self, units, _, on_chunk, size=size: own(self, units, size, on_chunk),
            )
            continued(out, new)
        (part,) = out.glob("*.parquet")
        assert pq.read_metadata(part).num_row_groups > 1
        made.add(part.read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("is_long", [False, True], ids=["nested", "long"])
def test_new_ids_that_are_set_aside_are_listed_as_featurize_lists_them(tmp_path: Path, is_long: bool) -> None:
    """Those that are the source's alone, in the long format with steps that are dropped."""
    encoder, out, first, new = encoder_of(0, 1, 4), tmp_path / "out", tmp_path / "0.parquet", tmp_path / "1.parquet"
    how: dict[str, Any] = {"keep_state": True, "rows_per_part": 2}
    how["bad_rows"] = BadRows(bad_value="drop-step", empty_sequence="skip")
    how |= {"group_by": ["id"], "order_by": ["t"]} if is_long else {"ids": ["id"]}
    nan, ids = float("nan"), np.repeat(np.arange(1, 9), 2)
    values = [nan, 0.5, nan, nan, 0.5, nan, nan, nan, nan, nan, 1.0, 0.5, nan, nan, nan, nan]
    for path, begin, end in ((first, 0, 4), (new, 2, 16)):
        if is_long:
            columns = {"id": ids[begin:end], "t": range(begin, end), "x": pa.array(values[begin:end], pa.float32())}
            pq.write_table(pa.table(columns), path, row_group_size=3)
        else:
            rows = np.array(values[begin:end], np.float32).reshape(-1, 2, 1)
            write_source(path, [*rows], row_group_size=3, id=pa.array(ids[begin:end:2]))
    featurize(first, out, encoder, **how)
    featurize(new, tmp_path / "alone", encoder, **how)
    continued(out, new)
    found, alone = (quarantined(folder).drop_columns("reason").to_pylist() for folder in (out, tmp_path / "alone"))
    assert [row["id"] for row in alone] == [2, 4, 5, 7, 8] and found[0]["id"] == 2 and found[0]["file"] == str(first)
    assert found[1:] == alone[1:]


def test_new_ids_without_steps_that_get_the_initial_carry_are_counted(tmp_path: Path) -> None:
    rows, out, count = random_rows([3]), tmp_path / "out", {"empty_sequence initial-carry": 2}
    featurize(write(tmp_path / "0.parquet", {0: rows[0], 1: NONE}), out, keep_state=True, ids=["id"])
    new = {0: NONE, 1: NONE, 2: rows[0], 3: NONE, 4: NONE}
    assert continued(out, write(tmp_path / "1.parquet", new)).counts == read_status(out).counts == count


@pytest.mark.parametrize(("choice", "count"), [("drop-step", 2), ("zero", 2 * D)])
def test_an_update_tells_what_it_did_to_bad_values(tmp_path: Path, choice: str, count: int) -> None:
    rows, out, name = random_rows([3] * 4), tmp_path / "out", f"bad_value {choice}"
    bad = {number: np.concatenate([row, row[:1] * np.nan]) for number, row in enumerate(rows)}
    how: dict[str, Any] = {"keep_state": True, "ids": ["id"], "bad_rows": BadRows(bad_value=choice)}
    featurize(write(tmp_path / "0.parquet", {0: bad[0]}), out, rows_per_part=1, **how)
    report = continued(out, write(tmp_path / "1.parquet", {0: bad[1], 1: bad[2], 2: rows[3]}))
    assert report.counts == read_status(out).counts == {name: count}
    told = f"{name} {count} {'steps' if choice == 'drop-step' else 'values'}"
    assert f"\nbad rows: {told}\n" in f"{report}\n"
    assert f"\nchoices    {told}, in the last update\n" in str(read_status(out))
    assert not continued(out, write(tmp_path / "2.parquet", {0: rows[2]})).counts
    if choice == "drop-step":
        held = entries(out)
        report = continued(out, write(tmp_path / "3.parquet", {0: bad[1][3:], 1: bad[1][3:]}))
        assert report.counts == {name: 2} and str(report).endswith(f"with 3 rows.\nbad rows: {told}")
        assert entries(out) == held


@pytest.mark.parametrize("where", ["output", "new steps"])
def test_files_that_were_left_out_end_an_update(tmp_path: Path, where: str) -> None:
    rows, out, skip = dict(enumerate(random_rows([3, 4, 5]))), tmp_path / "out", BadRows(unreadable_file="skip")
    for folder, number in (("first", 0), ("new", 1)):
        write(tmp_path / folder / "sound.parquet", {number: rows[number]})
    (tmp_path / ("first" if where == "output" else "new") / "broken.parquet").write_bytes(b"PAR1 and no footer PAR1")
    featurize(tmp_path / "first", out, keep_state=True, ids=["id", "kind"], bad_rows=skip)
    held = entries(out)
    error, told = (
        (ConfigError, r"lacks files that could not be read \(1\)")
        if where == "output"
        else (DataError, "broken.parquet cannot be read")
    )
    with pytest.raises(error, match=told):
        continued(out, tmp_path / "new")
    assert entries(out) == held


def test_parts_that_are_not_the_recorded_ones_are_not_continued(tmp_path: Path) -> None:
    """Such as one of before the last update, which was brought back from a copy."""
    _, cut = slices(3)
    out = tmp_path / "out"
    featurize(write(tmp_path / "0.parquet", cut[0]), out, keep_state=True, ids=["id"])
    (part,) = out.glob("part-*.parquet")
    older = part.read_bytes()
    continued(out, write(tmp_path / "1.parquet", cut[1]))
    part.write_bytes(older)
    held, new = entries(out), write(tmp_path / "2.parquet", cut[2])
    with pytest.raises(DataError, match=f"{part.name} changed after it was written.*nothing was changed"):
        continued(out, new)
    assert entries(out) == held
    pq.write_table(pq.read_table(part).drop_columns("id"), part)
    with pytest.raises(DataError, match=f"{part.name} changed after it was written"):
        continued(out, new)


def test_new_steps_that_float32_does_not_hold_are_refused_with_a_way_that_an_update_has(tmp_path: Path) -> None:
    featurize(write(tmp_path / "0.parquet", {0: random_rows([3])[0]}), tmp_path / "out", keep_state=True, ids=["id"])
    sequence = pa.array([[[0.1] * D]], pa.list_(pa.list_(pa.float64())))
    pq.write_table(pa.table({"sequence": sequence, "id": [0], "kind": ["k0"]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"an update does as its output was made\), or write these numbers as float32"):
        continued(tmp_path / "out", tmp_path / "1.parquet")


def test_updates_without_steps_change_nothing_and_may_come_again(tmp_path: Path) -> None:
    rows, none = dict(enumerate(random_rows([3, 4]))), np.empty((0, D), np.float32)
    empty = write(tmp_path / "empty.parquet", {})
    for name, first in (("full", {0: rows[0]}), ("bare", {})):
        out = tmp_path / name
        featurize(write(tmp_path / f"{name}.parquet", first), out, keep_state=True, ids=["id"])
        continued(out, write(tmp_path / "some.parquet", {5: none}))  # which begins
        held, before = entries(out), len(first) + 1
        for source in (empty, empty, tmp_path / "some.parquet"):
            report = continued(out, source)
            assert report.is_complete and (report.rows, report.rows_before) == (0, before)
        assert entries(out) == held
        continued(out, write(tmp_path / "more.parquet", {5: rows[1]}))
        assert verify(out).rows == before


def test_an_empty_update_of_an_output_without_rows_leaves_it_readable(tmp_path: Path) -> None:
    empty, out = write(tmp_path / "empty.parquet", {}), tmp_path / "out"
    featurize(empty, out, keep_state=True, ids=["id"])
    assert continued(out, empty).is_complete and verify(out).rows == 0
    assert continued(out, write(tmp_path / "1.parquet", dict(enumerate(random_rows([3]))))).rows == 1


def test_a_row_without_new_steps_keeps_its_columns(tmp_path: Path) -> None:
    out, steps = tmp_path / "out", random_rows([3, 4])
    kinds = [pa.array(["a", "b"]), pa.array(["c", "d"])]
    featurize(write_source(tmp_path / "0.parquet", steps, kind=kinds[0]), out, keep_state=True, ids=["id"])
    continued(out, write_source(tmp_path / "1.parquet", [steps[0][:0], steps[1]], kind=kinds[1]))
    assert pq.read_table(out)["kind"].to_pylist() == ["a", "d"]


@pytest.mark.parametrize(
    ("kind", "is_old"),
    [("flat", False), ("ordered", False), ("in structs", False), ("flat", True), ("in structs", True)],
)
def test_old_and_new_rows_may_have_more_categories_together_than_the_indices_of_either_tell_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_old: bool
) -> None:
    def source(name: str, begin: int) -> Path:
        values = categories(begin, begin + 100, ordered=kind == "ordered")
        kinds = pa.StructArray.from_arrays([values], ["name"]) if kind == "in structs" else values
        ids = pa.array(range(begin, begin + 100))
        return write_source(tmp_path / f"{name}.parquet", random_rows([2] * 100, begin), 100, id=ids, kind=kinds)

    out = tmp_path / "out"
    with monkeypatch.context() as earlier:
        if is_old:
            earlier.setattr(schemas, "with_wide_indices", lambda kind: kind)
        featurize(source("0", 0), out, keep_state=True, ids=["id"])
    assert f"indices=int{8 if is_old else 32}" in str(pq.read_table(out).schema.field("kind").type)
    continued(out, source("1", 50))
    table = pq.read_table(out)
    values = table["kind"].to_pylist() if kind != "in structs" else [row["name"] for row in table["kind"].to_pylist()]
    assert dict(zip(table["id"].to_pylist(), values, strict=True)) == {number: f"k{number}" for number in range(150)}
    assert "indices=int32" in str(table.schema.field("kind").type) and verify(out).rows == 150


@pytest.mark.parametrize("is_begun", [False, True], ids=["continued", "with a new id"])
def test_a_kept_column_that_is_declared_not_null_may_be_null_in_the_output(tmp_path: Path, is_begun: bool) -> None:
    out, steps = tmp_path / "out", random_rows([3, 4])
    featurize(write_source(tmp_path / "0.parquet", steps, kind=pa.array([None, "b"])), out, keep_state=True, ids=["id"])
    declared = pq.read_table(
        write_source(tmp_path / "1.parquet", steps, id=pa.array([1, 2]), kind=pa.array(["c", "d"]))
    )
    names = [declared.schema.field(name).with_nullable(name != "kind") for name in declared.schema.names]
    pq.write_table(declared.cast(pa.schema(names))[: 1 + is_begun], tmp_path / "1.parquet")
    continued(out, tmp_path / "1.parquet")
    assert pq.read_table(out)["kind"].to_pylist() == [None, "c", "d"][: 2 + is_begun]


def test_events_whose_columns_are_all_declared_not_null_go_on(tmp_path: Path) -> None:
    out, encoder = tmp_path / "out", encoder_of(0, 1, 4)
    types = {"id": pa.int64(), "t": pa.int64(), "x": pa.float32()}
    names = [pa.field(name, kind, nullable=False) for name, kind in types.items()]
    for t in range(2):
        pq.write_table(pa.table({"id": [1], "t": [t], "x": [0.5]}, pa.schema(names)), tmp_path / f"{t}.parquet")
    featurize(tmp_path / "0.parquet", out, encoder, group_by=["id"], order_by=["t"], keep_state=True)
    continued(out, tmp_path / "1.parquet")
    assert pq.read_table(out, columns=["id", "t"]).to_pylist() == [{"id": 1, "t": 1}]


def test_old_rows_are_held_batch_by_batch_and_their_states_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dict(enumerate(random_rows([3] * 12)))
    monkeypatch.setattr(MemoryShares, "chunk", 1)  # a row group for each row
    how: dict[str, Any] = {"rows_per_part": 6, "output": Output(row_group_bytes=1)}
    featurize(write(tmp_path / "0.parquet", rows), tmp_path / "out", keep_state=True, ids=["id", "kind"], **how)
    plans: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(updating, "run_job", lambda destination, plan, *rest: plans.append(plan))
        continued(tmp_path / "out", write(tmp_path / "1.parquet", {0: rows[1]}))
    told: list[weakref.ref[Any]] = []
    alive: list[int] = []
    read_part, place = continuing.read_part, in_order.Stream._count_finished

    def watched(*given: Any) -> Any:
        for batch in read_part(*given):
            own = batch.slice(0)
            told.append(weakref.ref(own))
            yield own
            del own
            alive.append(sum(it() is not None for it in told))

    with monkeypatch.context() as patched:
        patched.setattr(continuing, "read_part", watched)
        for chunk in plans[0]._all_chunks(plans[0].units, 1 << 20, None):
            told.append(weakref.ref(chunk))
            assert chunk.nbytes >= chunk.sequences.values.nbytes + chunk.kept.nbytes + 4 * H * chunk.rows
            del chunk
    assert len(alive) == 12 and not any(alive)

    def placed(self: Any, finished: Any) -> None:
        assert all(item.chunk.states is None for item in self._open)
        place(self, finished)

    monkeypatch.setattr(in_order.Stream, "_count_finished", placed)
    continued(tmp_path / "out", tmp_path / "1.parquet")


def test_new_steps_come_in_chunks_of_the_size_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of rows that the output has, of which one has none, and those of new ids."""
    lengths = [9, 9, 0, 9, 9, 9, 9, 40, 1, 1]
    rows, plans = dict(enumerate(random_rows(lengths))), list[Any]()
    featurize(write(tmp_path / "0.parquet", dict(list(rows.items())[:5])), tmp_path / "out", keep_state=True)
    source = write(tmp_path / "1.parquet", rows)
    monkeypatch.setattr(updating, "run_job", lambda destination, plan, *rest: plans.append(plan))
    continued(tmp_path / "out", source, ids=["id", "kind"])
    chunks = list(plans[0]._all_chunks(plans[0].units, 4 * D * 18, None))
    assert all(chunk.sequences.values.nbytes <= 4 * D * 18 or len(chunk.sequences) == 1 for chunk in chunks)
    assert [chunk.begin for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])] and len(chunks) > 4
    assert [len(chunk.states) for chunk in chunks if chunk.states is not None] == [
        chunk.rows for chunk in chunks if chunk.begin < 5
    ]
    for chunk in chunks:
        for row, number in enumerate(chunk.kept["id"].to_pylist()):
            assert np.array_equal(chunk.sequences.row(row), rows[number])


@pytest.mark.parametrize("readout", [pytest.param("last", marks=pytest.mark.soak), "mean+max"])
def test_slices_come_to_the_bits_of_all_steps_at_once(tmp_path: Path, readout: str) -> None:
    encoder = Encoder.from_seed(0, D, 5, readout=readout)
    whole, cut = slices(3)
    at_once, out = tmp_path / "at once", tmp_path / "out"
    featurize(write(tmp_path / "whole.parquet", whole), at_once, encoder, keep_state=True)
    featurize(write(tmp_path / "0.parquet", cut[0]), out, encoder, keep_state=True, rows_per_part=5, ids=["id", "kind"])
    for number, part in enumerate(cut[1:], 1):
        before = pq.read_table(out)["id"].to_pylist()
        report = continued(out, write(tmp_path / f"{number}.parquet", part, number))
        assert report.steps == sum(map(len, part.values()))
        now = pq.read_table(out)["id"].to_pylist()
        assert now[: len(before)] == before  # new ids come last
        assert report.rows == len(now)
        assert verify(out).rows == len(now) and not leftovers(out)
    assert by_id(out) == by_id(at_once)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them.")
def test_an_update_that_is_killed_at_any_step_changes_nothing_or_all(tmp_path: Path) -> None:
    _, cut = slices(2, seed=1)
    first, new = (write(tmp_path / f"{number}.parquet", part) for number, part in enumerate(cut))
    before, undisturbed = tmp_path / "before", tmp_path / "undisturbed"
    featurize(first, before, keep_state=True, rows_per_part=12, ids=["id"])
    encoder_of().save(tmp_path / "encoder.safetensors")
    job = Job(tmp_path / "encoder.safetensors", new, {"is_update": True})
    shutil.copytree(before, undisturbed)
    old, names = by_id(before), itertools.count()

    def copied() -> Path:
        return Path(shutil.copytree(before, tmp_path / f"out-{next(names)}"))

    def check(out: Path) -> None:
        if (out / "_SUCCESS").exists():  # else the new output takes its place
            assert by_id(out) in (old, after)

    with Zygote(tmp_path) as zygote:
        run = zygote.start(job, undisturbed, may_cache=True)
        zygote.wait(run)
        assert run.exit_code == 0, run
        after = by_id(undisturbed)
        assert after != old

        def scenario() -> Scenario:
            destinations = yield from killed_at_each(zygote, job, sorts_of(run.steps), copied, check)
            last = zygote.start(job, destinations[-1])
            yield (last,)
            # Killed after the last step of all, it was done.
            assert last.exit_code == 0 or "were applied" in last.said, last
            for out in destinations:
                assert by_id(out) == after
                assert verify(out).rows == len(after) and not leftovers(out)

        zygote.play({"killed": scenario()})
        assert zygote.kills > 20


def write_events(path: Path, events: list[tuple[int, int, float, float]]) -> Path:
    """Events `(id, t, x, y)` in long format, at least one, an id's one after the other, those of ids in any order."""
    rng = np.random.default_rng(len(events))
    order = {number: place for place, number in enumerate(rng.permutation(IDS).tolist())}
    events = sorted(events, key=lambda event: (order[event[0]], rng.random()))
    columns = dict(zip(("id", "t", "x", "y"), zip(*events, strict=True), strict=True))
    types = {"x": pa.float32(), "y": pa.float32()}
    table = pa.table({name: pa.array(column, types.get(name)) for name, column in columns.items()})
    pq.write_table(table, path, row_group_size=50)
    return path


def test_events_of_each_day_come_to_the_bits_of_all_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    events = [(int(rng.integers(IDS)), t, *map(float, rng.normal(size=2))) for t in range(300)]
    encoder, at_once, out = encoder_of(0, 2, 5), tmp_path / "at once", tmp_path / "out"
    long = {"group_by": ["id"], "order_by": ["t"], "keep_state": True, "rows_per_part": 10}
    featurize(write_events(tmp_path / "all.parquet", events), at_once, encoder, **long)
    for day in range(3):
        part = write_events(tmp_path / f"{day}.parquet", events[100 * day : 100 * (day + 1)])
        if day == 0:
            featurize(part, out, encoder, **long)
        else:
            continued(out, part)
    tables = [pq.read_table(folder).sort_by("id") for folder in (out, at_once)]
    assert tables[0].column_names == ["id", "t", "state", "features"]
    assert tables[0].drop_columns([]).equals(tables[1])
    with pytest.raises(DataError, match=r"id=\d+: the first new step has t=1\d\d; expected one that comes after t=\d+"):
        continued(out, write_events(tmp_path / "late.parquet", events[150:180]))
    with pytest.raises(ConfigError, match="add t to --keep"):
        featurize(tmp_path / "all.parquet", tmp_path / "other", encoder, keep=["id"], **long)


def test_the_same_steps_are_not_applied_twice(tmp_path: Path) -> None:
    _, cut = slices(2)
    out = tmp_path / "out"
    featurize(write(tmp_path / "0.parquet", cut[0]), out, keep_state=True, ids=["id"])
    continued(out, write(tmp_path / "1.parquet", cut[1]))
    held = entries(out)
    with pytest.raises(ConfigError, match=r"were applied to .* before.*Nothing was changed"):
        continued(out, write(tmp_path / "the same elsewhere.parquet", cut[1]))
    with pytest.raises(ConfigError, match=r"were applied to .* before"):
        continued(out, write(tmp_path / "in another order.parquet", cut[1], seed=1))
    assert entries(out) == held


def test_new_steps_may_come_in_several_files_that_are_named_one_by_one(tmp_path: Path) -> None:
    rows, out = dict(enumerate(random_rows([3, 4, 5, 2]))), tmp_path / "out"
    featurize(write(tmp_path / "0.parquet", {0: rows[0]}), out, keep_state=True, ids=["id"])
    for days in ((1, 2), (1, 2, 3)):
        files = [write(tmp_path / f"{day}.parquet", {day: rows[day] + len(days)}) for day in days]
        continued(out, files)
        with pytest.raises(ConfigError, match=r"were applied to .* before"):
            continued(out, files[::-1])
    assert pq.read_table(out)["id"].to_pylist() == [0, 1, 2, 3] and verify(out).rows == 4


def test_the_steps_that_the_output_began_with_are_not_applied_again(tmp_path: Path) -> None:
    _, cut = slices(3)
    first, out = tmp_path / "first", tmp_path / "out"
    parts = [{number * IDS + id: row for id, row in part.items()} for number, part in enumerate(cut)]
    for number in range(2):
        write(first / f"{number}.parquet", parts[number])
    featurize(first, out, keep_state=True, ids=["id"])
    pq.write_table(pq.read_table(first), tmp_path / "in one file.parquet")
    shutil.copytree(first, tmp_path / "elsewhere")
    new = write(tmp_path / "new.parquet", parts[2])
    for seed in range(2):
        held = entries(out)
        for source in (first, first / "1.parquet", [new, first / "0.parquet"]):
            with pytest.raises(
                ConfigError, match=r"was made of .*\.parquet; applied once more, the steps of that file"
            ):
                continued(out, source)
        for source in (tmp_path / "elsewhere", tmp_path / "in one file.parquet"):
            with pytest.raises(ConfigError, match=r"were applied to .* before.*Nothing was changed"):
                continued(out, source)
        assert entries(out) == held
        continued(out, write(tmp_path / "other.parquet", dict(enumerate(random_rows([4], seed)))))


def test_other_steps_of_the_same_number_are_new_and_the_first_ones_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [dict(enumerate(random_rows([4, 4], seed))) for seed in range(4)]
    first, out, plans = write(tmp_path / "0.parquet", days[0]), tmp_path / "out", list[Any]()
    featurize(first, out, keep_state=True, ids=["id"])
    read = updating.read_new_steps
    monkeypatch.setattr(updating, "read_new_steps", lambda plan, *how: plans.append(plan.given) or read(plan, *how))
    for number, day in enumerate(days[1:], 1):
        continued(out, write(tmp_path / f"{number}.parquet", day))
    assert plans.count(str(first)) == 1 and len(plans) == 4
    first.unlink()  # its digest is recorded
    with pytest.raises(ConfigError, match=r"were applied to .* before"):
        continued(out, write(tmp_path / "copy.parquet", days[0]))
    assert verify(out).rows == 2


@pytest.mark.parametrize("name", ["1.parquet", "day 2/copy.parquet"])
def test_a_copy_in_the_folder_that_the_output_began_with_is_known(tmp_path: Path, name: str) -> None:
    first, out = tmp_path / "first", tmp_path / "out"
    write(first / "0.parquet", dict(enumerate(random_rows([4, 4]))))
    featurize(first, out, keep_state=True, ids=["id"])
    held, copy = entries(out), first / name
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(first / "0.parquet", copy)
    with pytest.raises(ConfigError, match=r"were applied to .* before"):
        continued(out, copy)
    assert entries(out) == held


def test_a_copy_is_known_right_after_a_restart_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, out = write(tmp_path / "first.parquet", dict(enumerate(random_rows([4, 4])))), tmp_path / "out"
    featurize(first, out, keep_state=True, ids=["id"])
    shutil.copyfile(first, tmp_path / "copy.parquet")
    monkeypatch.setattr(updating, "finish_publishing", lambda records: True)
    with pytest.raises(ConfigError, match=r"were applied to .* before"):
        continued(out, tmp_path / "copy.parquet")


@pytest.mark.parametrize("is_long", [False, True])
def test_a_file_without_rows_that_the_output_began_with_may_come_again(tmp_path: Path, is_long: bool) -> None:
    out = tmp_path / "out"
    if is_long:
        empty, new = tmp_path / "0.parquet", write_events(tmp_path / "1.parquet", [(3, 0, 1.0, 2.0)])
        pq.write_table(pq.read_table(new).slice(0, 0), empty)
        featurize(empty, out, encoder_of(0, 2, 5), keep_state=True, group_by=["id"], order_by=["t"])
    else:
        empty, new = write(tmp_path / "0.parquet", {}), write(tmp_path / "1.parquet", {3: random_rows([4])[0]})
        featurize(empty, out, keep_state=True, ids=["id"])
    continued(out, [empty, new])
    assert pq.read_table(out)["id"].to_pylist() == [3]


def test_a_file_of_events_in_which_no_sequence_begins_is_known(tmp_path: Path) -> None:
    first, out, at = tmp_path / "first", tmp_path / "out", 0
    first.mkdir()
    for number, ids in enumerate(([1, 1, 1], [1, 1], [1, 2])):
        values = pa.array(np.arange(at, at + len(ids)), pa.float32())
        pq.write_table(pa.table({"id": ids, "x": values, "y": values}), first / f"{number}.parquet")
        at += len(ids)
    featurize(first, out, encoder_of(0, 2, 5), keep_state=True, group_by=["id"])
    held = entries(out)
    new = first / "new.parquet"
    pq.write_table(pa.table({"id": [3], "x": pa.array([1.0], pa.float32()), "y": pa.array([1.0], pa.float32())}), new)
    for source in (first / "1.parquet", [first / "1.parquet", new]):
        with pytest.raises(ConfigError, match=r"was made of .*1\.parquet; applied once more"):
            continued(out, source)
    assert entries(out) == held


@pytest.mark.parametrize("are_as_many", [True, False], ids=["as many", "more"])
def test_what_the_output_began_with_need_not_be_reachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_as_many: bool
) -> None:
    """As a bucket without the network."""
    days = [dict(enumerate(random_rows([4, 4 + (not are_as_many)], seed))) for seed in range(3)]
    paths = [write(tmp_path / f"{number}.parquet", day) for number, day in enumerate(days)]
    out, find = tmp_path / "out", planning.filesystem_of
    featurize(paths[0], out, keep_state=True, ids=["id"])

    def refused(source: Any) -> Any:
        if source == str(paths[0]):
            raise StoppedError("no network")
        return find(source)

    monkeypatch.setattr(planning, "filesystem_of", refused)
    assert [continued(out, path).steps for path in paths[1:]] == [8 + (not are_as_many)] * 2
    with pytest.raises(ConfigError, match=r"was made of .*0\.parquet"):
        continued(out, paths[0])


def test_a_stopped_update_goes_on_though_the_first_source_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [dict(enumerate(random_rows([4, 4], day), 2 * day)) for day in range(2)]
    first, new = (write(tmp_path / f"{number}.parquet", day) for number, day in enumerate(days))
    out = tmp_path / "out"
    featurize(first, out, keep_state=True, ids=["id"], rows_per_part=2)
    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(LocalStore, "_name", stopping_at("part-00001"))
        continued(out, new)
    copy = shutil.copyfile(first, tmp_path / "copy.parquet")
    first.unlink()
    assert continued(out, new).rows_before == 2
    with pytest.raises(ConfigError, match=r"were applied to .* before"):  # as read before it was gone
        continued(out, copy)


def test_a_job_that_is_to_be_sorted_is_told_of_updates_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, long = tmp_path / "out", {"keep_state": True, "group_by": ["id"], "order_by": ["t"]}
    paths = [write_events(tmp_path / f"{t}.parquet", [(1, t, 0.5, 0.5)]) for t in range(2)]
    featurize(paths[0], out, encoder_of(0, 2, 5), **long)
    continued(out, paths[1])
    with pytest.raises(ConfigError, match="was continued by scanrnn update"):
        featurize(paths[0], out, encoder_of(0, 2, 5), sort=True, **long)
    flags = ["--hidden", "5", "--keep-state", "--group-by", "id", "--order-by", "t", "--sort"]
    command_line_in_this_process(monkeypatch, columns=120)
    assert cli.run(["plan", str(paths[0]), str(out), *flags]) == ConfigError.exit_code
    assert "was continued by scanrnn update" in capsys.readouterr().err


@pytest.mark.parametrize("is_ordered", [True, False], ids=["ordered", "not ordered"])
def test_of_a_sorted_source_the_copy_and_all_steps_are_known(tmp_path: Path, is_ordered: bool) -> None:
    pytest.importorskip("duckdb", reason="--sort needs the extra 'duckdb'.")
    source, out = tmp_path / "first", tmp_path / "out"
    source.mkdir()
    events = [(number, number, 0.5, 0.5) for number in range(4)]
    paths = [write_events(source / f"{number}.parquet", events[2 * number :][:2]) for number in range(2)]
    how: dict[str, Any] = {"group_by": ["id"], "sort": True, "keep_state": True, "features": ["x", "y"]}
    how |= {"order_by": ["t"]} if is_ordered else {}
    featurize(source, out, encoder_of(0, 2, 5), **how)
    held = entries(out)
    for given, refused in ((source, r"were applied to .* before"), (tmp_path / "out.sorted", "was made of")):
        with pytest.raises(ConfigError, match=refused):
            continued(out, given)
    if is_ordered:
        with pytest.raises(DataError, match="expected one that comes after"):
            continued(out, paths[0])
        assert entries(out) == held
    else:
        assert continued(out, paths[0]).steps == 2  # as docs/updates.md says


@pytest.mark.parametrize("what", ["gone", "others now"])
def test_first_steps_that_cannot_be_read_any_more_hinder_no_update(tmp_path: Path, what: str) -> None:
    """Such as those of a file that gets the steps of each day."""
    days = [dict(enumerate(random_rows([4, 4], seed))) for seed in range(2)]
    source, out = write(tmp_path / "new.parquet", days[0]), tmp_path / "out"
    featurize(source, out, keep_state=True, ids=["id"])
    source.unlink()
    assert continued(out, write(source if what == "others now" else tmp_path / "1.parquet", days[1])).rows == 2


def stopping_at(part: str) -> Any:
    """Names what is written aside, and stops where that is this part."""
    name = LocalStore._name

    def stops(self: LocalStore, aside: str, path: str, *how: Any) -> None:
        if part in path:
            raise StoppedError("SIGTERM")
        name(self, aside, path, *how)

    return stops


@pytest.mark.parametrize("change", ["nothing", "the order", "a kept column"])
def test_an_update_goes_on_only_with_the_same_rows_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Which new ids are in which part depends on their order, and what stands beside them on the kept columns."""
    steps, out, new = random_rows([1] * 6), tmp_path / "out", tmp_path / "1.parquet"
    first = write_source(tmp_path / "0.parquet", steps[4:], id=pa.array([4, 5]), kind=pa.array(["old", None]))
    featurize(first, out, keep_state=True, ids=["id"], rows_per_part=2)
    write_source(new, steps[:4], kind=pa.array(["a", None, "a", "a"]))
    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(LocalStore, "_name", stopping_at("part-00002"))
        continued(out, new)
    assert (out / RESTART / "part-00001.parquet.staged").exists()
    ids, kinds = [0, 1, 2, 3], ["a", None, "a", "a"]
    if change == "the order":
        ids, kinds = [2, 3, 0, 1], ["a", "a", "a", None]
    if change == "a kept column":
        kinds = ["b", None, "b", "b"]
    write_source(new, [steps[number] for number in ids], id=pa.array(ids), kind=pa.array(kinds))
    assert continued(out, new).rows_before == (4 if change == "nothing" else 0)
    assert pq.read_table(out)["id"].to_pylist() == [4, 5, *ids]
    assert pq.read_table(out)["kind"].to_pylist() == ["old", None, *kinds]
    assert verify(out).rows == 6 and not leftovers(out)


def test_each_old_row_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cut = slices(2)
    featurize(write(tmp_path / "0.parquet", cut[0]), tmp_path / "out", keep_state=True, ids=["id"], rows_per_part=5)
    looked_up: list[int] = []
    own = NewSteps.rows_of
    monkeypatch.setattr(NewSteps, "rows_of", lambda self, table: looked_up.append(len(table)) or own(self, table))
    continued(tmp_path / "out", write(tmp_path / "1.parquet", cut[1]))
    assert sum(looked_up) == len(cut[0]) > 0


def test_new_rows_without_steps_fill_the_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their ids and digests."""
    empty = np.zeros((0, D), np.float32)
    featurize(write(tmp_path / "0.parquet", {0: empty}), tmp_path / "out", keep_state=True, ids=["id"])
    source = write(tmp_path / "1.parquet", dict.fromkeys(range(2000), empty))
    needed: list[int] = []
    monkeypatch.setattr(new_steps, "check_fits", lambda nbytes, *_: needed.append(nbytes))
    continued(tmp_path / "out", source)
    assert needed[-1] > 2000 * 200


def test_kept_columns_of_more_than_one_array_holds_are_to_come_in_several_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, out, half = {0: random_rows([3])[0]}, tmp_path / "out", 1 << 30
    featurize(write(tmp_path / "0.parquet", row), out, keep_state=True, ids=["id"])
    memory = pa.py_buffer(mmap.mmap(-1, half))  # which takes none as long as nobody writes to it
    kinds = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, half], np.int32)), memory])
    read = new_steps.read_chunks

    def twice(*given: Any) -> Iterator[Chunk]:
        for chunk in read(*given):
            kept = chunk.kept.set_column(chunk.kept.schema.get_field_index("kind"), "kind", kinds)
            yield from [replace(chunk, kept=kept)] * 2

    monkeypatch.setattr(new_steps, "read_chunks", twice)
    monkeypatch.setattr(new_steps, "check_fits", lambda *_: None)
    held = entries(out)
    with pytest.raises(ConfigError, match=r"which is 2 GiB for texts\. Give them in several updates"):
        continued(out, write(tmp_path / "1.parquet", row))
    assert entries(out) == held


def test_an_empty_update_may_have_columns_of_any_type(tmp_path: Path) -> None:
    def at(rows: int) -> Path:
        uuids = pa.nulls(rows, pa.list_(pa.uuid()))
        return write_source(tmp_path / f"{rows}.parquet", random_rows([2] * rows), uuids=uuids)

    featurize(at(3), tmp_path / "out", keep_state=True, ids=["id"])
    held = entries(tmp_path / "out")
    assert continued(tmp_path / "out", at(0)).rows == 0
    assert entries(tmp_path / "out") == held


def test_the_same_steps_are_known_by_ids_in_another_order_and_other_ids_refused(tmp_path: Path) -> None:
    rows, out = dict(enumerate(random_rows([3, 4]))), tmp_path / "out"
    first, new = write(tmp_path / "0.parquet", {0: rows[0]}), write(tmp_path / "1.parquet", {0: rows[1]})
    featurize(first, out, keep_state=True)
    continued(out, new, ids=["id", "kind", "id"])
    held = entries(out)
    for ids in (["kind", "id"], ["id", "kind", "id"]):
        with pytest.raises(ConfigError, match=r"were applied to .* before"):
            continued(out, new, ids=ids)
    for ids in (["id"], ["kind"]):
        with pytest.raises(
            ConfigError, match=r"^The sequences of .* are identified by \['id', 'kind'\]; expected these"
        ):
            continued(out, new, ids=ids)
    assert entries(out) == held


def test_steps_may_be_ordered_by_views_of_text(tmp_path: Path) -> None:
    def day(name: str) -> Path:
        columns = {
            "id": pa.array(["a"], pa.string_view()),
            "t": pa.array([name], pa.string_view()),
            "x": pa.array([7.0]),
        }
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        return tmp_path / f"{name}.parquet"

    out, encoder = tmp_path / "out", encoder_of(0, 1, 4)
    featurize(
        day("1"), out, encoder, group_by=["id"], order_by=["t"], features=["x"], keep=["id", "t"], keep_state=True
    )
    continued(out, day("3"))
    with pytest.raises(DataError, match="id='a': the first new step has t='2'; expected one that comes after t='3'"):
        continued(out, day("2"))


def test_steps_may_be_ordered_by_folders(tmp_path: Path) -> None:
    def days(name: str, *numbers: int) -> Path:
        for number in numbers:
            path = tmp_path / f"{name}/id=7/day={number}/a.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(pa.table({"t": [0, 1], "x": pa.array([7.0, number], pa.float32())}), path)
        return tmp_path / name

    out, encoder = tmp_path / "out", encoder_of(0, 1, 4)
    featurize(
        days("begun", 1, 2), out, encoder, group_by=["id"], order_by=["day", "t"], features=["x"], keep_state=True
    )
    assert pq.read_table(out).select(["id", "day", "t"]).to_pylist() == [{"id": 7, "day": 2, "t": 1}]
    verify(out)
    with pytest.raises(DataError, match=r"day=2, t=0; expected one that comes after day=2, t=1"):
        continued(out, days("again", 2, 3))
    continued(out, days("later", 3, 4))
    assert pq.read_table(out)["day"].to_pylist() == [4]


@pytest.mark.parametrize("unit", ["ns", "s"])
def test_the_same_values_at_another_time_are_other_steps(tmp_path: Path, unit: str) -> None:
    def day(number: int) -> Path:
        path, times = tmp_path / f"{number}.parquet", pa.array([10**9 * number + 1], pa.timestamp(unit))
        pq.write_table(pa.table({"id": [1], "t": times, "x": pa.array([7.0], pa.float32())}), path)
        return path

    out, encoder = tmp_path / "out", encoder_of(0, 1, 4)
    featurize(day(1), out, encoder, group_by=["id"], order_by=["t"], features=["x"], keep=["id", "t"], keep_state=True)
    for number in (2, 3):
        continued(out, day(number))
    with pytest.raises(ConfigError, match=r"were applied to .* before"):
        continued(out, day(3))
    together = encoder(np.full((3, 1), 7, np.float32))
    np.testing.assert_allclose(pq.read_table(out)["features"].to_pylist(), [together], atol=1e-6)


def test_what_cannot_be_continued_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    _, cut = slices(2)
    first, new = (write(tmp_path / f"{number}.parquet", part) for number, part in enumerate(cut))
    bare, out = tmp_path / "bare", tmp_path / "out"
    featurize(first, bare)
    with pytest.raises(ConfigError, match=r"holds no states.*--keep-state"):
        continued(bare, new, ids=["id"])
    featurize(first, out, keep_state=True)
    held = entries(out)
    with pytest.raises(ConfigError, match=r"which columns identify a sequence.*'id', 'kind'"):
        continued(out, new)
    with pytest.raises(ConfigError, match="no kept columns"):
        continued(out, new, ids=["nope"])
    with pytest.raises(ConfigError, match="fingerprint"):
        continued(out, new, ids=["id"], encoder=encoder_of(seed=9))
    kinds = {"kind": pa.array(["a", "b"])}
    twice = write_source(tmp_path / "twice.parquet", random_rows([3, 4]), id=pa.array([5, 5]), **kinds)
    with pytest.raises(DataError, match="id=5 stands in rows 0 and 1"):
        continued(out, twice, ids=["id"])
    text = write_source(tmp_path / "text.parquet", random_rows([3, 4]), id=pa.array(["5", "6"]), **kinds)
    with pytest.raises(DataError, match=r"'id' is string in the new steps and int64 in .*Cast"):
        continued(out, text, ids=["id"])
    null = write_source(tmp_path / "null.parquet", random_rows([3, 4]), id=pa.array([None, 6], pa.int64()), **kinds)
    with pytest.raises(DataError, match="Row 0 of the new steps has no id"):
        continued(out, null, ids=["id"])
    assert entries(out) == held


def test_ids_that_are_lists_or_nan_are_refused_and_views_of_text_are_found(tmp_path: Path) -> None:
    def source(name: str, ids: pa.Array) -> Path:
        return write_source(tmp_path / f"{name}.parquet", random_rows([3] * len(ids)), id=ids)

    featurize(source("numbers", pa.array([1.0, 2.0])), tmp_path / "numbers", keep_state=True)
    with pytest.raises(DataError, match="Row 0 of the new steps has no id"):
        continued(tmp_path / "numbers", source("nan", pa.array([float("nan")])), ids=["id"])
    with pytest.raises(ConfigError, match=r"The ids in 'id' are list<.*expected numbers, texts or times"):
        continued(tmp_path / "numbers", source("lists", pa.array([[5]])), ids=["id"])
    with pytest.raises(ConfigError, match=r"The ids in 'id' are extension<.*expected numbers, texts or times"):
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((1, 2, 2)))
        continued(tmp_path / "numbers", source("tensors", tensors), ids=["id"])
    featurize(source("texts", pa.array(["a", "b"], pa.string_view())), tmp_path / "texts", keep_state=True)
    continued(tmp_path / "texts", source("more", pa.array(["c", "a"], pa.string_view())), ids="id")
    assert pq.read_table(tmp_path / "texts")["id"].to_pylist() == ["a", "b", "c"]


def steps_of(path: Path, values: list[float], **columns: pa.Array) -> Path:
    """Sequences of one step of one number."""
    nested = pa.array([[[value]] for value in values], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({**columns, "sequence": nested}), path)
    return path


def test_ids_an_hour_apart_where_clocks_are_set_back_are_two(tmp_path: Path) -> None:
    """Of which Python says that they are equal, as both are 2:30 in Berlin."""
    hours = stored([1603585800, 1603585800 + 3600], pa.timestamp("s", "Europe/Berlin"))
    encoder, out = encoder_of(0, 1, 4), tmp_path / "out"
    first = steps_of(tmp_path / "0.parquet", [1.0], start=hours[:1])
    featurize(first, out, encoder, keep_state=True, ids=["start"])
    continued(out, steps_of(tmp_path / "1.parquet", [2.0], start=hours[1:]))
    table = pq.read_table(out)
    assert table["start"].cast(pa.int64()).to_pylist() == [1603585800000, 1603585800000 + 3600000]
    weights = oracle.weights_of(encoder.cell)
    alone = [oracle.gru(weights, [[value]]) for value in (1.0, 2.0)]
    np.testing.assert_allclose(table["features"].to_pylist(), alone, atol=1e-6)
    continued(out, steps_of(tmp_path / "2.parquet", [3.0, 4.0], start=hours))
    together = [oracle.gru(weights, [[value], [value + 2]]) for value in (1.0, 2.0)]
    np.testing.assert_allclose(pq.read_table(out)["features"].to_pylist(), together, atol=1e-6)


def test_steps_an_hour_later_where_clocks_are_set_back_are_later(tmp_path: Path) -> None:
    def at(number: int) -> Path:
        times = stored([1603585800 + 1800 * number], pa.timestamp("s", "Europe/Berlin"))
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"id": [1], "t": times, "x": pa.array([7.0], pa.float32())}), path)
        return path

    out, encoder = tmp_path / "out", encoder_of(0, 1, 4)
    featurize(at(1), out, encoder, group_by=["id"], order_by=["t"], features=["x"], keep=["id", "t"], keep_state=True)
    continued(out, at(2))  # 2:30 in winter time
    told = r"t=2020-10-25 02:30:00\+02:00; expected one that comes after t=2020-10-25 02:30:00\+01:00"
    with pytest.raises(DataError, match=told):
        continued(out, at(0))


@pytest.mark.parametrize("new", [pa.timestamp("ms", "UTC"), pa.timestamp("us")], ids=["another unit", "no zone"])
def test_new_steps_whose_times_are_of_another_type_are_refused(tmp_path: Path, new: pa.DataType) -> None:
    def at(number: int, kind: pa.DataType) -> Path:
        path = tmp_path / f"{number}.parquet"
        columns = {"id": [1], "t": pa.array([number], pa.int64()).cast(kind), "x": pa.array([7.0], pa.float32())}
        pq.write_table(pa.table(columns), path)
        return path

    long = {"group_by": ["id"], "order_by": ["t"], "features": ["x"], "keep": ["id", "t"], "keep_state": True}
    out = tmp_path / "out"
    featurize(at(1, pa.timestamp("us", "UTC")), out, encoder_of(0, 1, 4), **long)
    with pytest.raises(DataError, match=r"'t' is timestamp.* in the new steps and timestamp.*Cast"):
        continued(out, at(2, new))


@pytest.mark.parametrize("name", SOME)
def test_ids_that_python_does_not_have_are_found(tmp_path: Path, name: str) -> None:
    ids, encoder, out = ODD[name].slice(0, 2), encoder_of(0, 1, 4), tmp_path / "out"
    featurize(steps_of(tmp_path / "0.parquet", [1.0], id=ids[:1]), out, encoder, keep_state=True, ids=["id"])
    continued(out, steps_of(tmp_path / "1.parquet", [2.0, 3.0], id=ids))
    told = [oracle.gru(oracle.weights_of(encoder.cell), values) for values in ([[1.0], [2.0]], [[3.0]])]
    np.testing.assert_allclose(pq.read_table(out)["features"].to_pylist(), told, atol=1e-6)
    twice = pa.concat_arrays([ids[:1], ids[:1]])
    with pytest.raises(DataError, match=r"id=.* stands in rows 0 and 1 of the new steps"):
        continued(out, steps_of(tmp_path / "2.parquet", [2.0, 3.0], id=twice))


def test_rows_of_an_updated_output_are_not_made_again_from_one_source(tmp_path: Path) -> None:
    _, cut = slices(2)
    out = tmp_path / "out"
    featurize(write(tmp_path / "0.parquet", cut[0]), out, keep_state=True, ids=["id"])
    continued(out, write(tmp_path / "1.parquet", cut[1]))
    assert verify(out, repair=True).repaired == ()
    report = resume(out)  # though the source has other steps by now
    assert report.is_complete and report.rows == 0 and report.rows_before == verify(out).rows
    part, surplus = out / "part-00000.parquet", out / "part-00009.parquet"
    shutil.copy(part, surplus)
    with pytest.raises(DataError, match=r"part-00009.*`scanrnn verify --repair` removes them\.$"):
        verify(out)
    assert verify(out, repair=True).repaired == (surplus.name,)
    shutil.copy(part, surplus)
    part.unlink()
    told = "bring what is damaged back from a copy, or featurize all steps anew"
    with pytest.raises(DataError, match=rf"is missing; expected \d+ rows\. The output was updated: {told}\.$"):
        verify(out)
    assert f" parts are missing or changed; {told}\n" in str(read_status(out))
    for mend in (lambda: verify(out, repair=True), lambda: resume(out)):
        with pytest.raises(ConfigError, match=rf"continued by updates.*: {told}\.$"):
            mend()
    assert (out / "_SUCCESS").exists() and not surplus.exists()


def test_an_update_whose_publication_was_cut_short_is_ended_by_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, cut = slices(2)
    out = tmp_path / "out"
    featurize(write(tmp_path / "0.parquet", cut[0]), out, keep_state=True, ids=["id"], rows_per_part=12)
    old, new = by_id(out), write(tmp_path / "1.parquet", cut[1])
    move = LocalStore.move

    def dies(self: LocalStore, old_name: str, new_name: str, version: str | None = None) -> None:
        if new_name == "part-00001.parquet":
            raise Died
        move(self, old_name, new_name, version)

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(LocalStore, "move", dies)
        continued(out, new)
    for lease in (out / "__scanrnn/workers").glob("0-of-0.*"):
        lease.unlink()  # else it would be waited for: this process lives
    assert not (out / "_SUCCESS").exists()
    assert cli.run(["resume", str(out)]) == 0, capsys.readouterr().err
    assert "othing to do" in capsys.readouterr().out
    assert by_id(out) != old and verify(out).rows == len(by_id(out)) and not leftovers(out)


def test_resume_says_what_goes_on_with_an_update_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, cut = slices(3)
    first, *new = (write(tmp_path / f"day {number}.parquet", part) for number, part in enumerate(cut))
    out = tmp_path / "out"
    featurize(first, out, keep_state=True, ids=["id", "kind"])
    command_line_in_this_process(monkeypatch, columns=120)
    for source in new:  # of the second one the output was updated before
        with monkeypatch.context() as patched, pytest.raises(StoppedError):
            patched.setattr(LocalStore, "_name", stopping_at("part-"))
            continued(out, source)
        held = entries(out)
        command = f"scanrnn update {out} '{source}' --ids id,kind"
        assert cli.run(["resume", str(out)]) == StoppedError.exit_code
        said = capsys.readouterr().err
        assert "update was begun and is not finished" in said and f" Continue with: {command}. Or remove {out}/" in said
        status = read_status(out)
        assert status.restart is not None and status.restart.continues == command
        with monkeypatch.context() as patched:  # as where the layout is the user's own
            patched.setattr(find, "LAYOUTS", {name: kind for name, kind in LAYOUTS.items() if name != "nested-lists"})
            assert read_status(out) == status
        assert "\nupdate     a new output is made" in str(status)
        assert entries(out) == held
        assert cli.run(shlex.split(command)[1:]) == 0, capsys.readouterr().err
        assert cli.run(["resume", str(out)]) == 0 and verify(out).rows == len(by_id(out))


@pytest.mark.parametrize("what", ["a restart", "an update"])
def test_resume_tells_of_what_was_stopped_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Also of a source that changed since, or of a part that is damaged."""
    _, cut = slices(3)
    first, *new = (write(tmp_path / f"{number}.parquet", part) for number, part in enumerate(cut))
    out, how = tmp_path / "out", {"keep_state": True, "ids": ["id", "kind"]}
    featurize(first, out, **how)
    if what == "an update":
        continued(out, new[0])
    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(LocalStore, "_name", stopping_at("part-"))
        if what == "an update":
            continued(out, new[1])
        else:
            featurize(first, out, restart=True, **how)
    if what == "an update":
        (out / "part-00000.parquet").unlink()
    else:
        write(first, cut[1])
    held = entries(out)
    with pytest.raises(
        StoppedError, match=rf"{what} was begun and is not finished.* Continue with: .* to give it up\.$"
    ):
        resume(out)
    assert entries(out) == held


def test_status_and_verify_say_that_an_output_was_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, cut = slices(3)
    first, *new = (write(tmp_path / f"{number}.parquet", part) for number, part in enumerate(cut))
    out = tmp_path / "out"
    flags = ["--hidden", "4", "--keep-state", "--ids", "id"]
    command_line_in_this_process(monkeypatch, columns=120)
    assert cli.run(["featurize", str(first), str(out), *flags]) == 0
    encoder = read_status(out).job["encoder"]
    assert encoder.endswith("random weights of seed 0") and "updated" not in read_status(out).job
    for source in new:
        continued(out, source)
    told = read_status(out).job
    assert told["source"] == str(first) and told["updated"] == f"2 times, last with {new[-1]}"
    assert told["encoder"] == encoder
    capsys.readouterr()
    assert cli.run(["verify", str(out)]) == 0
    assert "not computed again: the output was updated" in capsys.readouterr().out
    assert verify(out).is_updated


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them.")
def test_bank_events_of_ten_days_each_killed_come_to_the_bits_of_all(tmp_path: Path, shared_data: Path) -> None:
    order = [("client_id", "ascending"), ("trans_date", "ascending")]
    events = pq.read_table(shared_data / "bank_events_long").sort_by(order)
    days = np.array_split(np.unique(events["trans_date"].to_numpy()), 10)
    dates = events["trans_date"].to_numpy()
    long = {"group_by": ["client_id"], "order_by": ["trans_date"], "keep_state": True, "lossy_cast": True}
    encoder = Encoder.from_seed(0, 2, 8)
    encoder.save(tmp_path / "encoder.safetensors")
    files = []
    for number, part in enumerate(days):
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(events.filter(pa.array((dates >= part[0]) & (dates <= part[-1]))), files[-1])
    featurize(files[0], tmp_path / "out", encoder, **long)
    rng = np.random.default_rng(0)
    with Zygote(tmp_path) as zygote:
        for number, path in enumerate(files[1:]):
            job = Job(tmp_path / "encoder.safetensors", path, {"is_update": True})
            killed = zygote.start(job, tmp_path / "out", fault=(int(rng.integers(5, 60)), "kill"))
            zygote.wait(killed)
            again = zygote.start(job, tmp_path / "out", may_cache=number == 0)
            zygote.wait(again)
            assert again.exit_code == 0 or "were applied" in again.said, again
        assert zygote.kills == 9
    featurize(shared_file(events, tmp_path), tmp_path / "whole", encoder, **long)
    columns = ["client_id", "trans_date", "state", "features"]
    out, whole = (pq.read_table(tmp_path / name).sort_by("client_id").select(columns) for name in ("out", "whole"))
    assert out.equals(whole) and len(out) == 100


def shared_file(events: pa.Table, folder: Path) -> Path:
    """All events as one file."""
    pq.write_table(events, folder / "all.parquet", row_group_size=250)
    return folder / "all.parquet"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bad_rows": BadRows(bad_value="forward-fill")}, "bad_value forward-fill"),  # would begin anew with zeros
        ({"bad_rows": BadRows(null_sequence="null")}, "null_sequence null"),
        ({"limit": 3}, "limit"),  # would leave out all other new steps
        ({"max_steps": 3}, "max_steps"),
        ({"filter": "n > 1"}, "filter"),  # later steps of a row that it left out would begin it anew
    ],
)
def test_what_later_steps_could_not_go_on_from_keeps_no_state(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows([3, 4]))
    with pytest.raises(ConfigError, match=f"^{named} and keep_state exclude one another"):
        featurize(source, tmp_path / "out", keep_state=True, **options)
    assert not (tmp_path / "out").exists()


def test_ids_that_no_kept_column_has_are_refused_at_once(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows([3, 4]), id=pa.array([1, 2]), n=pa.array([1, 2]))
    for keep in (None, ["n"]):
        with pytest.raises(ConfigError, match=r"^--ids names 'client', which is no kept column; expected some of \["):
            featurize(source, tmp_path / "out", keep_state=True, ids=["client"], keep=keep)
    with pytest.raises(ConfigError, match=r"^--ids names 'id', which is no kept column; expected some of \['n'\]"):
        featurize(source, tmp_path / "out", keep_state=True, ids=["id"], keep=["n"])
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_cannot_be_continued_is_refused_before_the_job_begins(tmp_path: Path) -> None:
    class Halved(Encoder):
        def step(self, state: State, x_t: Any) -> Any:
            return super().step(state, x_t / 2)

    source = write(tmp_path / "in.parquet", slices(1)[0])
    with pytest.raises(ConfigError, match="Halved has methods of its own, step, with which no state is kept"):
        featurize(source, tmp_path / "out", Halved.from_seed(0, D, 4), keep_state=True)
    assert not (tmp_path / "out").exists()
