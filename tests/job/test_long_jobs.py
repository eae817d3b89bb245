"""Jobs of long format: real data as plain Python rebuilds it, shares, kills, changed sources, `verify`."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from crashing import Job, Scenario, Zygote, assert_same, assert_whole, killed_at_each, output_of, sorts_of
from sources import SHAPE, TOLERANCE, D, H, encoder_of, features_of, featurize, specification

from scanrnn_dist.api import verify
from scanrnn_dist.errors import DataError
from scanrnn_dist.job import Sharing, read_status

LONG: dict[str, Any] = {"group_by": ["id"], "order_by": ["t"], "features": [f"x{nth}" for nth in range(D)]}
LENGTHS = [1, 4, 9, 4, 4, 40, 1, 9, 4, 1, 4, 9]

WRITTEN: dict[str, Any] = {"row_group_size": 6, "compression": "none", "use_dictionary": False}


def write_events(folder: Path, lengths: list[int], cuts: list[int], seed: int = 0) -> Path:
    """Sequences in files that begin before these rows, in row groups of 6, the steps of each in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, ids = np.random.default_rng(seed), np.repeat(np.arange(len(lengths)), lengths)
    values = rng.normal(size=(len(ids), D)).astype(np.float32)
    columns = {name: values[:, nth] for nth, name in enumerate(LONG["features"])}
    table = pa.table({"id": ids, "t": rng.permutation(len(ids)), **columns})
    bounds = [0, *cuts, len(table)]
    for number, begin in enumerate(bounds[:-1]):
        part = table.slice(begin, bounds[number + 1] - begin)
        pq.write_table(part, folder / f"{number:02}.parquet", **WRITTEN)
    return folder


def rebuilt(source: Path, ids: str, order: str, features: list[str]) -> dict[Any, np.ndarray]:
    """Sequences by their ids, in plain Python."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for path in sorted(source.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found.setdefault(row[ids], []).append(row)
    return {
        key: np.array(
            [[row[name] for name in features] for row in sorted(rows, key=lambda row: row[order])], np.float32
        )
        for key, rows in found.items()
    }


def specified(source: Path) -> np.ndarray:
    return oracle.gru_rows(encoder_of().cell, list(rebuilt(source, "id", "t", LONG["features"]).values()))


REAL = [("bank_events_long", "client_id", "trans_date"), ("detector_pulses_long", "event_no", "t")]
FLOAT64_DISTANCE = 1e-5
"""Real data is not scaled: float32 itself is up to 3e-6 from float64 there, by `verify`."""


@pytest.mark.parametrize("is_specified", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("folder", "ids", "order"), REAL)
def test_real_data_gives_the_features_of_rows_that_plain_python_rebuilds(
    shared_data: Path, tmp_path: Path, folder: str, ids: str, order: str, is_specified: bool
) -> None:
    source = shared_data / folder
    names = pq.read_schema(next(source.glob("*.parquet"))).names
    features = [name for name in names if name not in (ids, order)]
    encoder = encoder_of(in_features=len(features))
    report = featurize(source, tmp_path / "out", encoder, group_by=[ids], order_by=[order], lossy_cast=True)
    table, rows = pq.read_table(tmp_path / "out"), rebuilt(source, ids, order, features)
    assert table.column_names == [ids, "features"] and table[ids].to_pylist() == list(rows)
    assert (report.rows, report.steps) == (len(rows), sum(map(len, rows.values())))
    sequences, found = list(rows.values()), features_of(tmp_path / "out")
    if is_specified:  # a compilation for each length
        assert np.abs(found - specification(sequences)).max() <= TOLERANCE
    with np.errstate(over="ignore"):  # a gate that is shut
        assert np.abs(found - oracle.gru_rows(encoder.cell, sequences)).max() <= FLOAT64_DISTANCE
    verified = verify(tmp_path / "out", sample=1)
    assert verified.rows == verified.rows_compared == len(rows)


CUTS = [[], [7], [6, 12, 30], [1, 2, 3, 60, 61]]
"""Where files begin: also in the middle of sequences, and such that one goes through a whole file."""


def each_and_all(cuts: list[list[int]], rows_per_part: list[int]) -> list[Any]:
    """Each of both by default, with the first of the other; all pairs behind `-m soak`."""
    pairs = itertools.product(cuts, rows_per_part)
    few = [(one, number) for one, number in pairs if one is cuts[-1] or number == rows_per_part[0]]
    rest = [pair for pair in itertools.product(cuts, rows_per_part) if pair not in few]
    return [*few, *(pytest.param(*pair, marks=pytest.mark.soak) for pair in rest)]


@pytest.mark.parametrize(("cuts", "rows_per_part"), each_and_all(CUTS, [3, 1, 100]))
def test_features_are_those_of_the_sequences_wherever_files_and_parts_end(
    tmp_path: Path, cuts: list[int], rows_per_part: int
) -> None:
    source = write_events(tmp_path / "in", LENGTHS, cuts)
    report = featurize(source, tmp_path / "out", rows_per_part=rows_per_part, **LONG)
    assert (report.rows, report.steps) == (len(LENGTHS), sum(LENGTHS))
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == list(range(len(LENGTHS)))
    assert np.abs(features_of(tmp_path / "out") - specified(source)).max() <= TOLERANCE
    assert verify(tmp_path / "out", sample=1).rows == len(LENGTHS)


def test_a_source_without_rows_gives_an_output_without_rows(tmp_path: Path) -> None:
    report = featurize(write_events(tmp_path / "in", [], [0]), tmp_path / "out", **LONG)
    assert (report.rows, report.is_complete) == (0, True)
    assert pq.read_table(tmp_path / "out").num_rows == 0 and verify(tmp_path / "out").parts == 1


def test_shares_are_done_one_by_one_and_status_counts_sequences(tmp_path: Path) -> None:
    source, out = write_events(tmp_path / "in", LENGTHS, CUTS[2]), tmp_path / "out"
    for number in range(3):
        options = {**LONG, "rows_per_part": 1, "sharing": Sharing(share=(number + 1, 3))}
        report = featurize(source, out, **options)
        assert 0 < report.rows < len(LENGTHS) and report.is_complete == (number == 2)
        status = read_status(out)
        assert status.rows == len(LENGTHS) and status.rows_committed == report.rows_before + report.rows
    assert np.abs(features_of(out) - specified(source)).max() <= TOLERANCE


def test_a_kept_column_that_is_not_the_sources_is_found(tmp_path: Path) -> None:
    source, out = write_events(tmp_path / "in", LENGTHS, CUTS[1]), tmp_path / "out"
    featurize(source, out, **LONG)
    path = source / "00.parquet"
    was, table = path.stat(), pq.read_table(path)
    table = table.set_column(0, "id", pc.subtract(11, table["id"]))  # of the same size
    pq.write_table(table, path, **WRITTEN)
    assert path.stat().st_size == was.st_size
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(DataError, match="the kept columns are not those of the source: 'id' differs"):
        verify(out)


# Changed sources ------------------------------------------------------------------------------------------------------


def changed(source: Path, change: str) -> None:
    """The source with other events in one file, or fewer or more files."""
    if change == "last":  # the last file begins with another sequence: the last one of the file before ends earlier
        path = sorted(source.iterdir())[-1]
        table = pq.read_table(path)
        pq.write_table(table.slice(1), path, **WRITTEN)
    elif change == "values":  # of that sequence too
        path = sorted(source.iterdir())[-1]
        table = pq.read_table(path)
        pq.write_table(table.set_column(2, "x0", pc.negate(table["x0"])), path, **WRITTEN)
    elif change == "new":
        table = pq.read_table(source / "00.parquet")
        ids = pa.array([1000 + number for number in range(len(table))])
        pq.write_table(table.set_column(0, "id", ids), source / "99.parquet", **WRITTEN)
    elif change == "first":  # a sequence that began in it begins in the next one now
        (source / "00.parquet").unlink()
    else:
        (source / "01.parquet").unlink()


FEW_CUTS, MANY_CUTS = [10, 30], [1, 2, 3, 60, 61]
AGAIN = {"last": (5, 5), "values": (4, 5), "new": (2, 1), "first": (1, 0), "gone": (3, 1)}
"""Parts, of 7 and of 10 or so, that hold a sequence with events in what changed, or other row groups than before."""


@pytest.mark.parametrize("change", AGAIN)
@pytest.mark.parametrize("cuts", [FEW_CUTS, pytest.param(MANY_CUTS, marks=pytest.mark.soak)])
def test_what_a_changed_file_concerns_is_done_again_and_nothing_else(
    tmp_path: Path, cuts: list[int], change: str
) -> None:
    source, out = write_events(tmp_path / "in", LENGTHS, cuts), tmp_path / "out"
    options = {**LONG, "rows_per_part": 1}
    featurize(source, out, **options)
    changed(source, change)
    with pytest.raises(DataError, match="--accept-changes"):
        # Also of a finished job.
        (out / "_SUCCESS").unlink()
        featurize(source, out, **options)
    report = featurize(source, out, accept_changes=True, **options)
    assert report.is_complete and report.parts == AGAIN[change][cuts is MANY_CUTS]
    featurize(source, tmp_path / "anew", **options)
    assert features_of(out).tobytes() == features_of(tmp_path / "anew").tobytes()
    assert pq.read_table(out)["id"].equals(pq.read_table(tmp_path / "anew")["id"])
    assert verify(out, sample=0).rows == report.rows + report.rows_before
    assert pq.read_table(out)["id"].to_pylist() == list(rebuilt(source, "id", "t", LONG["features"]))


# Kills ----------------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="Runs are forked, and end with who forked them.")
def test_a_job_that_is_killed_at_each_sort_of_step_is_as_undisturbed(zygote: Zygote, tmp_path: Path) -> None:
    source = write_events(tmp_path / "in", LENGTHS, CUTS[2])
    encoder_of().save(tmp_path / "encoder.safetensors")
    shape = SHAPE.lanes, SHAPE.block_steps, SHAPE.window_blocks
    job = Job(
        tmp_path / "encoder.safetensors", source,
        {**LONG, "rows_per_part": 3, "window_shape": shape, "sharing": {"retry": True}},
    )  # fmt: skip
    run = zygote.start(job, tmp_path / "undisturbed", may_cache=True)
    zygote.wait(run)
    assert run.exit_code == 0, run
    undisturbed = output_of(tmp_path / "undisturbed")
    assert len(undisturbed.parts) > 2
    features = np.frombuffer(undisturbed.features, np.float32).reshape(-1, H)
    assert np.abs(features - specified(source)).max() <= TOLERANCE
    sorts = [sort for sort in sorts_of(run.steps) if "part-" in sort or "commits" in sort or "table" in sort]
    before = zygote.kills

    def killed() -> Scenario:
        numbers = itertools.count()
        used = yield from killed_at_each(
            zygote, job, sorts, lambda: tmp_path / f"{next(numbers)}", lambda out: assert_whole(out, undisturbed)
        )
        for destination in used:
            last = zygote.start(job, destination)
            yield (last,)
            assert last.exit_code == 0, last
            assert_same(destination, undisturbed)

    zygote.play({"killed": killed()})
    assert zygote.kills - before == len(sorts) > 5
