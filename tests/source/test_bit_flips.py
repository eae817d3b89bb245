"""One flipped bit in a page's header or in the footer: the rows are right all the same, or the file is refused.

A page's checksum does not cover its header, and a footer has none. Three small files with checksums: nested lists in
several row groups and pages; kept strings, dictionaries, integers and times beside them; nulls in fixed-size lists and
structs, in pages of the second version. Each bit is flipped in a process of its own that may end.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import bit_flips
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

STEPS = pa.list_(pa.list_(pa.float32()))
ROWS: list[Any] = [[[1.5, 2.5]] * length for length in (3, 0, 1, 5, 2, 4, 1, 0, 3, 2, 6, 1)]


def write_nested(path: Path) -> None:
    rows = [[[step + row, row / 4] for step in range(len(steps))] for row, steps in enumerate(ROWS)]
    table = pa.table({"seq": pa.array(rows, STEPS)})
    write(table, path, compression="none", use_dictionary=False, data_page_size=16, write_batch_size=4)


def write_kept(path: Path) -> None:
    table = pa.table(
        {
            "name": pa.array([None if row == 4 else f"n{row % 3}" for row in range(12)]),
            "kind": pa.array(["a", "b", "a", "c"] * 3).dictionary_encode(),
            "id": pa.array(range(12), pa.int64()),
            "at": pa.array([datetime.datetime(2020, 1, 1 + row) for row in range(12)], pa.timestamp("us", "UTC")),
            "seq": pa.array(ROWS, STEPS),
        }
    )
    write(table, path, compression="snappy")


def write_second_version(path: Path) -> None:
    table = pa.table(
        {
            "pair": pa.array([None if row % 5 == 0 else [row, None] for row in range(12)], pa.list_(pa.int32(), 2)),
            "what": pa.array([None if row == 2 else {"x": row, "y": [row] * (row % 3)} for row in range(12)]),
            "seq": pa.array(ROWS, pa.list_(pa.list_(pa.float32(), 2))),
        }
    )
    write(table, path, compression="none", data_page_version="2.0")


def write(table: pa.Table, path: Path, **options: Any) -> None:
    pq.write_table(table, path, row_group_size=6, write_page_checksum=True, **options)


FILES = {"nested": write_nested, "kept": write_kept, "second": write_second_version}


def outcomes(paths: list[Path], step: int) -> dict[str, Counter[str]]:
    """What becomes of every `step`-th bit of each file; the process is begun anew behind one that ends it."""
    found: dict[str, Counter[str]] = {path.stem: Counter() for path in paths}
    left, first = paths, 0
    while left:
        command = [sys.executable, bit_flips.__file__, str(first), str(step), *map(str, left)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
        assert done.returncode <= 0, done.stderr[-2000:]  # a negative one is that of a signal
        lines = [line.split() for line in done.stdout.splitlines()]
        # "metadata": rows, names and types are right; free text beside them is not, which nothing else tells of.
        bad = [line for line in lines if line[2] not in ("right", "refused", "metadata")]
        assert not bad, bad[:3]
        for name, _, outcome, *_ in lines:
            found[name][outcome] += 1
        while left and found[left[0].stem].total() == len(range(0, len(bit_flips.places(left[0].read_bytes())), step)):
            left = left[1:]
        if left:
            found[left[0].stem]["died"] += 1
            first = step * found[left[0].stem].total()
    return found


@pytest.mark.parametrize(
    "step", [809, pytest.param(37, marks=pytest.mark.soak), pytest.param(1, marks=pytest.mark.sweep)]
)
def test_a_flipped_bit_gives_the_right_rows_or_an_error(tmp_path: Path, step: int) -> None:
    """Every `step`-th bit; a step is odd, so that all eight bits of a byte are met."""
    paths = [tmp_path / f"{name}.parquet" for name in FILES]
    for path, write_file in zip(paths, FILES.values(), strict=True):
        write_file(path)
    found = outcomes(paths, step)
    print(found)
    for of_file in found.values():
        assert of_file["refused"] > of_file["right"] > 0 and not of_file["died"]


def test_what_pyarrow_does_not_see_is_seen(tmp_path: Path) -> None:
    """Among the bits of the headers of pages, every third here, some lose steps in silence, checksums or not."""
    write_nested(tmp_path / "a.parquet")
    content, right = (tmp_path / "a.parquet").read_bytes(), bit_flips.rows_of(tmp_path / "a.parquet")
    table = pq.read_table(pa.BufferReader(content))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    unseen = 0
    for bit in [place for place in bit_flips.places(content) if place < 8 * footer][::3]:
        changed = bit_flips.flipped(content, bit)
        try:
            read = pq.ParquetFile(pa.BufferReader(changed), page_checksum_verification=True).read()
        except (OSError, pa.ArrowException):
            continue
        if not read.equals(table):
            (tmp_path / "b.parquet").write_bytes(changed)
            assert bit_flips.outcome(tmp_path / "b.parquet", right)[0] == "refused"
            unseen += 1
    assert unseen > 3
