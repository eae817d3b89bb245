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
