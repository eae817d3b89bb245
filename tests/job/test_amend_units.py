"""What of one plan is found again in another, and what of its logs is taken over."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.job.restart import spans_of
from scanrnn_dist.ragged import running_sums
from scanrnn_dist.records import COMMITS, read_commits, renumbered_logs
from scanrnn_dist.records.attempt_log import PartRecord, Took
from scanrnn_dist.source import FileTable, Units, found_again, new_files, unchanged
from scanrnn_dist.storage import LocalStore

Listed = dict[str, tuple[int, list[list[int]]]]
"""Size and units of each file, of every unit the rows of its row groups."""

sources = st.dictionaries(
    st.sampled_from("abcde"),
    st.tuples(st.integers(0, 1), st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), max_size=3)),
    max_size=5,
)


def units_of(source: Listed) -> Units:
    names = sorted(source)
    sizes = np.array([source[name][0] for name in names], np.int64)
    files = FileTable(pa.array(names, pa.large_string()), sizes, np.zeros(len(names), np.int64))
    file = [number for number, name in enumerate(names) for _ in source[name][1]]
    groups = [unit for name in names for unit in source[name][1]]
    zeros = np.zeros(len(groups), np.int64)
    rows = np.array([rows for unit in groups for rows in unit], np.int64)
    lengths = np.array([len(unit) for unit in groups], np.int64)
    return Units(files, np.array(file, np.int32), running_sums(lengths), rows, zeros, zeros)


sources_with_units = sources.filter(lambda source: any(units for _, units in source.values()))


@given(sources_with_units, sources_with_units)
def test_a_unit_is_found_again_where_its_file_and_its_row_groups_are_the_same(before: Listed, now: Listed) -> None:
    old, new = units_of(before), units_of(now)
    found = found_again(new, old, unchanged(new.files, old.files))
    olds = list(old)
    assert len(found) == len(new)
    for unit, number in zip(new, found.tolist(), strict=True):
        same = [
            it.index
            for it in olds
            if (it.file, it.row_group_begin, it.group_rows) == (unit.file, unit.row_group_begin, unit.group_rows)
        ]
        assert [number] == (same or [-1])


@given(sources, sources)
def test_files_are_unchanged_new_or_neither(before: Listed, now: Listed) -> None:
    old, new = units_of(before).files, units_of(now).files
    for file, place in zip(old, unchanged(old, new).tolist(), strict=True):
        assert (place >= 0) == (file in list(new)) and (place < 0 or new[place] == file)
    assert [new[index].path for index in new_files(old, new).tolist()] == sorted(now.keys() - before.keys())


@given(st.sets(st.integers(0, 30)))
def test_spans_are_the_numbers_and_as_few_as_can_be(numbers: set[int]) -> None:
    spans = spans_of(np.array(sorted(numbers), np.int64))
    assert [number for begin, end in spans for number in range(begin, end)] == sorted(numbers)
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))


def test_logs_are_taken_over_with_who_committed_what_under_other_numbers(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path), "host.1.00000000")

    def header(attempt: str, job: str = "old", **told: object) -> dict[str, object]:
        return {"attempt": attempt, "job": job, "started": 0.0, "share": [1, 1], **told}

    def record(unit: int, sha256: str, finished: float) -> dict[str, object]:
        return {**asdict(PartRecord(unit, 10 + unit, 7, sha256)), "finished": finished}

    logs = {
        # In a bucket an attempt has several, and only the first has the header.
        "a.1.00000001.000000": [header("a", environment=1), {"begin": 2}, record(2, "first", 1.0)],
        "a.1.00000001.000001": [{"begin": 0}, record(0, "kept", 2.0)],
        "b.1.00000001": [header("b"), {"begin": 3}, record(2, "later", 3.0), record(3, "x", 4.0)],
        "c.1.00000001": [header("c", job="another"), record(1, "other", 5.0)],
        "d.1.00000001": [header("d"), {"begin": 1}, {"end": "done", "took": {"seconds": 3.5}}],
    }
    for name, lines in logs.items():
        cut = '{"unit": 3, "ro' if name[0] == "b" else ""
        store.write(
            f"{COMMITS}/{name}.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode() + cut.encode()
        )
    new = LocalStore(str(tmp_path / "new"), "host.1.00000000")
    new.prepare()
    for name, content in renumbered_logs(store, "old", "new", {2: 4, 0: 1}):
        new.write(name, content)
    commits = read_commits(new, "new", np.array([0, 10, 0, 0, 12]))
    assert commits.records.to_pylist() == [
        asdict(PartRecord(1, 10, 7, "kept")),
        asdict(PartRecord(4, 12, 7, "later")),
    ]
    assert [header["attempt"] for header in commits.headers] == ["a", "b", "d"]
    assert commits.headers[0]["environment"] == 1
    assert [it.took for it in commits.history] == [None, None, Took(3.5)]
    assert commits.fatal == [] and commits.by_attempt["a.1.00000001-new"] == (2, 22)
