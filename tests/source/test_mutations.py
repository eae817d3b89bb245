"""Files that were mutated at random: the rows are right all the same, or the file is refused; nothing dies or hangs.

Small files of several writers. With checksums a wrong row is a failure; without them a wrong number of rows, a death, a
hang or a traceback is, since nothing tells of a changed value. The footer's process is left out for speed: what ends
that in a job ends the process of this test.
"""

from __future__ import annotations

import datetime
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import bit_flips
import mutations
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.source import footer_child, footers

ROWS = [[[step + row / 4, row - 7.5] for step in range(row * 7 % 5)] for row in range(40)]


def table() -> pa.Table:
    """Sequences and columns beside them, with nulls."""
    texts = [None if row % 7 == 3 else f"text {row * row}" for row in range(40)]
    return pa.table(
        {
            "seq": pa.array(ROWS, pa.list_(pa.list_(pa.float32()))),
            "pair": pa.array([None if row % 5 == 0 else [row, None] for row in range(40)], pa.list_(pa.int32(), 2)),
            "what": pa.array([{"x": row, "y": ["a", None] * (row % 3)} for row in range(40)]),
            "text": pa.array(texts),
            "kind": pa.array(["a", "b", None, "cc"] * 10).dictionary_encode(),
            "at": pa.array([datetime.datetime(2020, 1, 1 + row % 9) for row in range(40)], pa.timestamp("us", "UTC")),
            "is": pa.array([row % 3 == 0 for row in range(40)]),
        }
    )


def write_with_checksums(folder: Path) -> None:
    options: dict[str, Any] = {"write_page_checksum": True}
    pq.write_table(table(), folder / "a.parquet", row_group_size=16, **options)
    pq.write_table(table(), folder / "b.parquet", compression="zstd", data_page_version="2.0", **options)
    small = {"data_page_size": 64, "write_batch_size": 8, "use_dictionary": False, "compression": "none"}
    pq.write_table(table(), folder / "c.parquet", row_group_size=20, **small, **options)
    strings = table().select(["seq", "text"]).slice(3, 30)
    encodings = {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False}
    pq.write_table(strings, folder / "d.parquet", compression="gzip", **encodings, **options)


def write_without_checksums(folder: Path) -> None:
    pq.write_table(table(), folder / "a.parquet", row_group_size=16)
    pq.write_table(table(), folder / "b.parquet", compression="none", data_page_version="2.0")
    small = {"data_page_size": 64, "write_batch_size": 8, "use_dictionary": False, "compression": "none"}
    pq.write_table(table(), folder / "c.parquet", row_group_size=20, **small)
    few = table().select(["seq", "text", "is"])
    try:
        import polars

        polars.from_arrow(few).write_parquet(folder / "d.parquet", row_group_size=16)
    except ImportError:
        pass
    try:
        import duckdb

        connection = duckdb.connect()
        connection.register("few", few)
        connection.execute(f"COPY few TO '{folder / 'e.parquet'}' (FORMAT parquet)")
    except ImportError:
        pass


def outcomes(folder: Path, first: int, last: int) -> tuple[Counter[str], list[str]]:
    """What becomes of these mutations, and the lines that say what is bad."""
    found: Counter[str] = Counter()
    bad = []
    while first < last:
        command = [sys.executable, mutations.__file__, str(folder), str(first), str(last)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
        assert done.returncode <= 0, done.stderr[-2000:]  # a negative one is that of a signal
        lines = done.stdout.splitlines()
        found.update(line.split()[1] for line in lines)
        bad += [line for line in lines if line.split()[1] not in ("right", "refused")]
        first += len(lines)
        if first < last:
            found["died"] += 1
            bad.append(f"{first} died {done.returncode} {done.stderr[-200:]}")
            first += 1
    return found, bad


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 30), pytest.param(30, 1000, marks=pytest.mark.soak), pytest.param(1000, 20_000, marks=pytest.mark.sweep)],
)
@pytest.mark.parametrize("has_checksums", [True, False])
def test_a_mutated_file_gives_the_right_rows_or_an_error(
    tmp_path: Path, first: int, last: int, has_checksums: bool
) -> None:
    (write_with_checksums if has_checksums else write_without_checksums)(tmp_path)
    found, bad = outcomes(tmp_path, first, last)
    print(found)
    wrong = [line for line in bad if has_checksums or line.split()[1] != "rows"]
    assert not wrong, wrong[:5]
    assert found["refused"] > found["right"] > 0 and sum(found.values()) == last - first


@pytest.mark.parametrize(("script", "swept"), [(bit_flips, "a.parquet"), (mutations, ".")])
def test_a_hang_is_not_taken_for_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: ModuleType, swept: str
) -> None:
    """While a changed file is opened, a timer runs whose signal ends the process."""
    timers, answer_of = [], footer_child.answer_of

    def watched(path: str, *told: Any) -> Any:
        if not path.endswith("a.parquet"):
            timers.append((signal.getsignal(signal.SIGALRM), 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 20))
            signal.setitimer(signal.ITIMER_REAL, 1000)  # or it might end this process
        return answer_of(path, *told)

    monkeypatch.setattr(footers, "_child", footers._child)  # which a sweep replaces
    monkeypatch.setattr(footer_child, "answer_of", watched)
    pq.write_table(table(), tmp_path / "a.parquet")
    assert len(list(script.sweep(tmp_path / swept, range(1)))) == 1
    assert set(timers) == {(signal.SIG_DFL, True)} and signal.getitimer(signal.ITIMER_REAL)[0] == 0
