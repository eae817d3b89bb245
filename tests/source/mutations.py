"""Mutates a Parquet file in random ways and says what the reader makes of each; run as a script.

    python tests/source/mutations.py FOLDER FIRST LAST

writes a line `number outcome text` for each mutation of the files in FOLDER (`*.parquet`, in the order of their names)
with the numbers FIRST to LAST, made from its number alone. Outcomes: `right` (all rows are the original's, bit for
bit), `rows` (as many rows, others), `wrong` (another number of rows), `refused` (a `DataError`, one line that names the
file), `raised` (anything else). A mutation that ends the process is one without a line; one that takes more than
`SECONDS` ends it, by SIGALRM.
"""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bit_flips
import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import DataError, StoppedError
from scanrnn_dist.source import footers, read_kept
from scanrnn_dist.source.source import open_source, plan_units

SECONDS = 20
MEMORY_BYTES = 256 << 20


def mutated(contents: list[bytes], number: int) -> tuple[int, bytes]:
    """Which file a mutation is of, and what it makes of it."""
    random = np.random.default_rng(number)
    index = int(random.integers(len(contents)))
    content, other = contents[index], contents[int(random.integers(len(contents)))]
    size = len(content)
    footer = size - 8 - int.from_bytes(content[-8:-4], "little")
    begin = int(random.integers(size if random.integers(3) == 0 else footer))  # most hit the pages
    end = min(size, begin + int(2 ** random.uniform(0, 9)))
    changed = bytearray(content)
    kind = int(random.integers(6))
    if kind == 0:  # one to four bits
        for bit in random.integers(8 * begin, 8 * size, size=int(random.integers(1, 5))):
            changed[bit // 8] ^= 1 << int(bit) % 8
    elif kind == 1:  # cut off, or out
        del changed[begin : size if random.integers(2) else end]
    elif kind == 2:  # the beginning of one file, the end of another
        changed[begin:] = other[min(begin, len(other)) :]
    elif kind == 3:
        changed[begin:end] = bytes(end - begin)
    elif kind == 4:  # a range stands twice: put in, or over what was there
        to = int(random.integers(size))
        changed[to : to if random.integers(2) else to + end - begin] = content[begin:end]
    else:
        changed[begin:end] = random.bytes(end - begin)
    return index, bytes(changed)


def rows_of(path: Path) -> pa.Table:
    """All columns of a file, as they are kept."""
    source = replace(open_source(path), memory_bytes=MEMORY_BYTES)
    if source.unreadable:
        raise DataError(f"{path}: {source.unreadable}")  # as a job that keeps all columns
    units = plan_units(source, 1)
    batches = [*read_kept(source, units, source.schema.names)]
    table = pa.Table.from_batches(batches, source.schema).combine_chunks()
    assert table.num_rows == source.rows, "every row that a footer promises is delivered"
    # Texts as bytes: those of a page without a checksum may be no UTF-8, and are passed on as they are.
    pa.table([_as_bytes(column) for column in table.columns], table.column_names).validate(full=True)
    return table


def _as_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return column.cast(pa.dictionary(column.type.index_type, pa.binary()))
    bare = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return column.cast(bare.get(column.type, column.type))


def outcome(path: Path, right: pa.Table) -> tuple[str, str]:
    """What becomes of a file, held against what it was."""
    try:
        table = rows_of(path)
    except DataError as error:
        return ("refused" if "\n" not in str(error) and path.name in str(error) else "raised"), str(error)
    except StoppedError as error:
        return "raised", str(error)
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    if table.num_rows != right.num_rows:
        return "wrong", f"{table.num_rows} rows of {right.num_rows}"
    # Their texts too, since 0.0 equals -0.0.
    if table.equals(right) and repr(table.to_pydict()) == repr(right.to_pydict()):
        return "right", ""
    if table.schema != right.schema:
        return "rows", f"{table.schema} is not {right.schema}"
    return "rows", " ".join(name for name in right.column_names if not table[name].equals(right[name]))


def sweep(folder: Path, numbers: range) -> Iterator[tuple[int, str, str]]:
    """`(number, outcome, text)` of the mutations of these numbers."""
    footers._child = bit_flips.InThisProcess  # type: ignore[assignment]
    paths = sorted(folder.glob("*.parquet"))
    contents, right = [path.read_bytes() for path in paths], [rows_of(path) for path in paths]
    changed = folder / f"mutated-{numbers.start}.mutant"
    for number in numbers:
        index, content = mutated(contents, number)
        changed.write_bytes(content)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        kind, text = outcome(changed, right[index])
        if kind in ("rows", "wrong") and outcome(changed, right[index])[0] == kind:
            # A splice may be the whole other file.
            kind = next((path.stem for path, whole in zip(paths, right, strict=True) if _is(changed, whole)), kind)
            kind = "right" if kind not in ("rows", "wrong") else kind
        signal.alarm(0)
        yield number, kind, f"{paths[index].stem} {' '.join(text.split())}"


def _is(path: Path, whole: pa.Table) -> bool:
    return outcome(path, whole)[0] == "right"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for one in sweep(Path(sys.argv[1]), range(*map(int, sys.argv[2:4]))):
        print(*one, flush=True)
