"""Flips bits of a Parquet file one after the other and says what the reader makes of each; run as a script.

    python tests/source/bit_flips.py FIRST STEP FILE ...

writes a line `file bit outcome text` for each of the places FIRST, FIRST + STEP, ... among the bits of page headers and
the footer of the first file, and for 0, STEP, ... of each further one; `bit` is counted from the beginning of the file.
Outcomes: `right` (rows, names and types are the file's), `refused` (a `DataError`), `metadata` (right but for free text
in the metadata), `wrong`, `raised` (anything else). A bit that ends the process is one without a line; one that takes
more than `SECONDS` ends it, by SIGALRM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.source import footer_child, footers
from scanrnn_dist.source.decode import ReadOptions
from scanrnn_dist.source.parquet.thrift import I32, key, read_struct
from scanrnn_dist.source.read_ahead import read_chunks

SECONDS = 20


def places(content: bytes) -> list[int]:
    """Every bit of the page headers, the footer, its length and the last four bytes."""
    metadata = pq.read_metadata(pa.BufferReader(content))
    length = int.from_bytes(content[-8:-4], "little")
    spans = [(len(content) - 8 - length, len(content))]
    for group in range(metadata.num_row_groups):
        for leaf in range(metadata.num_columns):
            column = metadata.row_group(group).column(leaf)
            begin = column.dictionary_page_offset or column.data_page_offset
            end = begin + column.total_compressed_size
            while begin < end:
                header, after = read_struct(content, begin)
                spans.append((begin, after))
                begin = after + header[key(3, I32)]
    return [8 * byte + bit for begin, end in sorted(spans) for byte in range(begin, end) for bit in range(8)]


def flipped(content: bytes, bit: int) -> bytes:
    """The bytes with one bit the other way."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def rows_of(path: Path) -> tuple[list[Any], pa.Table]:
    """The sequences and the kept columns, as a job would get them."""
    plan = plan_job(path, JobOptions(column="seq"))
    options = ReadOptions(plan.layout, plan.keep, in_features=2, lossy_cast=True, chunk_bytes=400)
    chunks = read_chunks(plan.source, plan.units, options)
    sequences, kept = [], []
    for chunk in chunks:
        sequences += [chunk.sequences.row(row).tolist() for row in range(len(chunk.sequences))]
        kept.append(chunk.kept)
    return sequences, pa.Table.from_batches(kept, plan.kept_schema)


def outcome(path: Path, right: tuple[list[Any], pa.Table]) -> tuple[str, str]:
    """What becomes of a file, held against what it was."""
    try:
        sequences, kept = rows_of(path)
    except ConfigError as error:  # of steps that would have another number of features
        return ("refused" if "in column 'seq'" in str(error) else "raised"), str(error)
    except DataError as error:
        one_line = "\n" not in str(error) and path.name in str(error)
        return ("refused" if one_line else "raised"), str(error)
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    if sequences != right[0] or not kept.equals(right[1]):
        return "wrong", f"{sequences == right[0]} {[field.name for field in kept.schema]} {kept.equals(right[1])}"
    return ("right" if kept.schema.equals(right[1].schema, check_metadata=True) else "metadata"), ""


class InThisProcess:
    """Reads footers where it is asked; a process of its own for each would take minutes."""

    def ask(self, path: str, size: int, tail: bytes) -> dict[str, Any]:
        """What `footer_child.py` answers, or its end."""
        return footer_child.answer_of(path, size, tail)


def sweep(path: Path, numbers: range) -> Iterator[tuple[int, str, str]]:
    """`(bit, outcome, text)` of the places of these numbers."""
    footers._child = InThisProcess  # type: ignore[assignment]
    content = path.read_bytes()
    right, bits = rows_of(path), places(content)
    changed = path.with_name(f"flipped-{numbers.start}.parquet")
    for number in numbers:
        changed.write_bytes(flipped(content, bits[number]))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        kind, text = outcome(changed, right)
        signal.alarm(0)
        yield bits[number], kind, " ".join(text.split())


if __name__ == "__main__":
    first, step, *files = sys.argv[1:]
    for path, begin in zip(map(Path, files), [int(first)] + [0] * len(files), strict=False):
        for one in sweep(path, range(begin, len(places(path.read_bytes())), int(step))):
            print(path.stem, *one, flush=True)
