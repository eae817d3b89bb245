"""The reader: what comes out is what pyarrow's own reader gives, in order, within its bound, or a named error."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.source.decode import Chunk, ReadOptions
from scanrnn_dist.source.layouts.flat_lists import FlatLists
from scanrnn_dist.source.layouts.layout import Layout
from scanrnn_dist.source.layouts.list_columns import ListColumns
from scanrnn_dist.source.layouts.list_of_structs import ListOfStructs
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.layouts.struct_of_lists import StructOfLists
from scanrnn_dist.source.layouts.tensors import Tensors
from scanrnn_dist.source.read_ahead import WAITING_UNITS, Prefetched, read_chunks
from scanrnn_dist.source.source import Source, open_source, plan_units
from scanrnn_dist.source.taking import BadRows


def sequences(rows: int, in_features: int = 2, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-9, 9, (rng.integers(0, 6), in_features)).astype(np.float32).tolist() for _ in range(rows)]


def write(path: Path, rows: list[Any], row_group_size: int = 10, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {"seq": pa.array(rows, pa.list_(pa.list_(pa.float32()))), "id": pa.array(range(len(rows)), pa.int64())}
    table = pa.table({**own, **columns})
    pq.write_table(table, path, row_group_size=row_group_size)


def read(source: Source, rows_per_part: int = 20, prefetch_bytes: int = 64 << 20, **options: Any) -> list[Chunk]:
    layout = NestedLists(options.pop("column", "seq"))
    wanted = ReadOptions(layout, **{"keep": ["id"], **options})
    return list(read_chunks(source, plan_units(source, rows_per_part), wanted, prefetch_bytes=prefetch_bytes))


def rows_of(chunks: list[Chunk]) -> list[Any]:
    return [chunk.sequences.row(i).tolist() for chunk in chunks for i in range(len(chunk.sequences))]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "scanrnn-reader"]


@pytest.mark.parametrize("chunk_bytes", [1, 300, 1 << 20])
@pytest.mark.parametrize("prefetch_bytes", [1, 1000, 1 << 20])
def test_rows_come_as_written(tmp_path: Path, chunk_bytes: int, prefetch_bytes: int) -> None:
    expected = [sequences(47, seed=1), sequences(3, seed=2), [], sequences(31, seed=3)]
    for index, rows in enumerate(expected):
        write(tmp_path / f"part={index}" / "a.parquet", rows)
    source = open_source(tmp_path)
    options = {"chunk_bytes": chunk_bytes, "prefetch_bytes": prefetch_bytes}
    chunks = read(source, keep=["part", "id"], **options)
    assert rows_of(chunks) == [row for rows in expected for row in rows]
    kept = pa.Table.from_batches([chunk.kept for chunk in chunks])
    assert kept.to_pydict() == {
        "part": [index for index, rows in enumerate(expected) for _ in rows],
        "id": [row for rows in expected for row in range(len(rows))],
    }
    for chunk in chunks:
        assert len(chunk.sequences) == chunk.kept.num_rows > 0
        assert chunk.unit.first_row + chunk.numbers[0] == chunk.kept["id"][0].as_py()
    for chunk in read(source, keep=[], **options):
        assert chunk.kept.num_rows == len(chunk.sequences)
    assert not threads()


def test_names_with_dots_and_slashes_are_names(tmp_path: Path) -> None:
    rows = sequences(5)
    nested = pa.array([{"b": i, "c": -i} for i in range(5)])
    names = {"a": nested, "a.b": list("vwxyz"), "x/y.z": [1.5] * 5, "seq.list.element": [0] * 5, "s.q": pa.array(rows)}
    write(tmp_path / "a.parquet", rows, **names)
    source = open_source(tmp_path)
    for keep in (["a.b", "a", "x/y.z"], ["x/y.z", "a.b"], ["a"], ["seq.list.element"]):
        for column in ("s.q", "seq"):
            (chunk,) = read(source, column=column, keep=keep)
            assert chunk.kept.to_pydict() == pq.read_table(tmp_path / "a.parquet").select(keep).to_pydict()
            assert rows_of([chunk]) == rows


def test_an_error_comes_after_the_chunks_before_it_and_names_the_row(tmp_path: Path) -> None:
    rows = sequences(40)
    rows[33] = [[1.0, 2.0], [np.nan, 0.0]]
    write(tmp_path / "a.parquet", rows)
    source = open_source(tmp_path)
    options = ReadOptions(NestedLists("seq"), in_features=2, chunk_bytes=1)
    chunks = read_chunks(source, plan_units(source, 20), options, prefetch_bytes=100)
    seen = []
    with pytest.raises(
        DataError, match=r"a\.parquet, row group 3, row 3 \(row 33 of the file\), step 1: feature 0 is nan"
    ):
        for chunk in chunks:
            seen.append(chunk)
    assert rows_of(seen) == rows[:33]
    assert len(read(source, bad_rows=BadRows("propagate"))) > 0 and not threads()


def test_features_must_agree_across_chunks(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [[[1.0, 2.0]]])
    write(tmp_path / "b.parquet", [[[1.0, 2.0, 3.0]]])
    with pytest.raises(DataError, match=r"b\.parquet, row group 0, row 0 .*3 features; expected 2"):
        read(open_source(tmp_path))


@pytest.mark.parametrize(
    ("layout", "width"),
    [
        (NestedLists("x"), 1),
        (NestedLists("seq", 2), 2),
        (FlatLists("x", 2), 2),
        (ListColumns(("x", "y")), 2),
        (StructOfLists("lists", ("x",)), 1),
        (ListOfStructs("structs", ("x",)), 1),
        (Tensors("tensor"), 2),
    ],
)
def test_another_d_than_the_columns_say_is_refused_before_a_file_is_opened(
    tmp_path: Path, layout: Layout, width: int
) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((1, 3, 2), np.float32))
    x = pa.array([[1.0, 2.0]])
    write(
        tmp_path / "a.parquet", [[[1.0, 2.0]]], x=x, y=x, tensor=tensors, lists=pa.array([{"x": [1.0]}]),
        structs=pa.array([[{"x": 1.0}]]),
    )  # fmt: skip
    source = open_source(tmp_path)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(ConfigError, match=rf"^The encoder takes 3 features per step; there are {width} in column"):
        read_chunks(source, plan_units(source, 20), ReadOptions(layout, in_features=3))


def test_waiting_bytes_stay_below_the_limit_plus_one_chunk() -> None:
    """A source that looks at what waits before it makes a chunk; a slow consumer takes."""
    sizes = [*np.random.default_rng(0).integers(1, 400, 60).tolist(), 5000, 5000, 1]
    begun, waiting = SimpleQueue[Any](), list[int]()

    def source() -> Any:
        items = begun.get()
        for size in sizes:
            waiting.append(sum(chunk.nbytes for chunk in list(items)))
            yield FakeChunk(size)

    chunks, out = Prefetched(source(), 1000), []
    begun.put(chunks._queue.items)
    for chunk in chunks:
        out.append(chunk.nbytes)
        time.sleep(0.001)
    assert out == sizes and 0 < max(waiting) < 1000


def test_no_more_tiny_units_wait_than_may() -> None:
    made = taken = worst = 0

    def source() -> Any:
        nonlocal made, worst
        for _ in range(5 * WAITING_UNITS):
            made += 1
            worst = max(worst, made - taken)
            yield FakeChunk(1, is_last=True)

    for _ in Prefetched(source(), 1 << 20):
        taken += 1
        time.sleep(0.001)
    assert taken == 5 * WAITING_UNITS and 1 < worst <= WAITING_UNITS + 1


class FakeChunk(Chunk):
    """A chunk of a given size and nothing in it."""

    def __init__(self, size: int, is_last: bool = False) -> None:
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "ends", is_last)

    @property
    def is_last(self) -> bool:
        return self.ends  # type: ignore[attr-defined, no-any-return]

    @property
    def nbytes(self) -> int:
        return self.size  # type: ignore[attr-defined, no-any-return]


def test_closing_stops_the_thread(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", sequences(400))
    source = open_source(tmp_path)
    options = ReadOptions(NestedLists("seq"), in_features=2, chunk_bytes=1)
    chunks = read_chunks(source, plan_units(source, 20), options, prefetch_bytes=50)
    next(chunks)
    assert threads()
    chunks.close()
    assert not threads()


def test_chunks_are_of_the_size_asked_for_although_the_footer_misleads(tmp_path: Path) -> None:
    """Dictionary-encoded values take a hundredth of their decoded bytes; an unread column hides the small one."""
    rows = [[[1.0] * 8] * 50] * 4000
    write(tmp_path / "small.parquet", rows, row_group_size=4000)
    for chunk in read(open_source(tmp_path / "small.parquet"), chunk_bytes=1 << 18):
        assert chunk.nbytes < 2 << 18
    blob = pa.array(np.random.default_rng(0).bytes(10_000) for _ in range(500))
    write(tmp_path / "blob" / "a.parquet", [[[1.0]]] * 500, row_group_size=500, blob=blob)
    assert len(read(open_source(tmp_path / "blob"), chunk_bytes=1 << 18)) == 1


def test_the_chunks_of_a_unit_are_the_same_whatever_was_read_before(tmp_path: Path) -> None:
    """Rows that get longer, encoded better and better: what one unit teaches would cut the next one otherwise."""
    rows = [[[float(row % (1 + 400 // (1 + row)))] * 2] * (1 + row // 4) for row in range(400)]
    write(tmp_path / "a.parquet", rows, row_group_size=50)
    source = open_source(tmp_path)
    units = plan_units(source, 50, ["seq"])
    options = ReadOptions(NestedLists("seq"), ["id"], 2, chunk_bytes=3000)
    together = [(chunk.unit.index, len(chunk.sequences)) for chunk in read_chunks(source, units, options)]
    alone = [(unit.index, len(chunk.sequences)) for unit in units for chunk in read_chunks(source, [unit], options)]
    backwards = [units[index] for index in range(len(units))[::-1]]
    last_first = [(chunk.unit.index, len(chunk.sequences)) for chunk in read_chunks(source, backwards, options)]
    assert together == alone == sorted(last_first, key=lambda one: one[0]) and len(together) > 2 * len(units)


def test_rows_that_get_longer_within_a_unit_do_not_make_giant_chunks(tmp_path: Path) -> None:
    """The first rows have one step, the others 400: what the footer says of the lists is known."""
    write(tmp_path / "a.parquet", [[[1.0] * 2]] * 100 + [[[1.0] * 2] * 400] * 900, row_group_size=1000)
    source = open_source(tmp_path)
    options = ReadOptions(NestedLists("seq"), in_features=2, chunk_bytes=1 << 16)
    chunks = list(read_chunks(source, plan_units(source, 1000, ["seq"]), options))
    assert max(chunk.nbytes for chunk in chunks) < 3 << 15


CATEGORIES = pa.DictionaryArray.from_arrays(pa.array(range(1000), pa.int16()), [f"{row:0100d}" for row in range(1000)])


@pytest.mark.parametrize(
    "column",
    [
        CATEGORIES,
        pa.StructArray.from_arrays([CATEGORIES, pa.array(["text"] * 1000)], ["category", "text"]),
        pa.ListArray.from_arrays(pa.array(range(1001), pa.int32()), CATEGORIES),
    ],
    ids=["column", "struct", "list"],
)
def test_large_dictionaries_do_not_make_small_chunks(tmp_path: Path, column: pa.Array) -> None:
    """Each chunk has its dictionary, whole: the fewer rows in a chunk, the more dictionaries."""
    write(tmp_path / "a.parquet", [[[1.0]]] * 1000, row_group_size=1000, column=column)
    (chunk,) = read(open_source(tmp_path), rows_per_part=1000, keep=["column"], chunk_bytes=1 << 16)
    assert chunk.kept.column(0).to_pylist() == column.to_pylist()


def test_a_dictionary_that_becomes_texts_counts_as_texts(tmp_path: Path) -> None:
    """As where another file has texts: a thousand of one dictionary value take a thousand times as much."""
    text = "a" * 1000
    write(
        tmp_path / "a.parquet", [[[1.0]]] * 1000, row_group_size=1000, text=pa.array([text] * 1000).dictionary_encode()
    )
    write(tmp_path / "b.parquet", [[[1.0]]], text=pa.array([text]))
    chunks = read(open_source(tmp_path), rows_per_part=1000, keep=["text"], chunk_bytes=1 << 16)
    assert max(chunk.nbytes for chunk in chunks) < 3 << 15


def test_texts_that_get_longer_within_a_unit_do_not_make_giant_chunks(tmp_path: Path) -> None:
    """The first rows have one letter, the others 1,000: the footer says what all take as they are stored."""
    texts = pa.array(["a"] * 100 + [f"{row:01000d}" for row in range(900)])
    write(tmp_path / "a.parquet", [[[1.0]]] * 1000, row_group_size=1000, text=texts)
    chunks = read(open_source(tmp_path), rows_per_part=1000, keep=["text"], chunk_bytes=1 << 16)
    assert max(chunk.nbytes for chunk in chunks) < 3 << 15


def test_rows_promised_and_not_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", sequences(30))
    source = open_source(tmp_path)
    whole = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *a, **k: iter(list(whole(*a, **k))[:-1]))
    with pytest.raises(DataError, match=r"a\.parquet, row groups 0 to 1, promised 20 rows .* delivered \d+"):
        read(source, chunk_bytes=200)


def test_a_file_that_changed_or_went_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", sequences(30))
    source = open_source(tmp_path)
    write(tmp_path / "a.parquet", sequences(29))
    with pytest.raises(DataError, match=r"a\.parquet, row group 2, has 9 rows .* expected 10"):
        read(source)
    write(tmp_path / "a.parquet", sequences(20))
    with pytest.raises(DataError, match=r"a\.parquet, row group 2, has 0 rows in 0 row groups"):
        read(source)
    write(tmp_path / "a.parquet", sequences(30, seed=1))
    with pytest.raises(DataError, match=r"a\.parquet, row groups 0 to 1, has 20 rows in 2 row groups of \d+ bytes"):
        read(source)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read: FileNotFoundError"):
        read(source)


def test_a_flipped_bit_in_a_page_is_seen_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"seq": pa.array([[float(i)] for i in range(100)], pa.list_(pa.float32()))})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(77).tobytes())] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.parquet, row group 0, column 'seq': cannot be read: .*[cC]hecksum"):
        read(open_source(path), keep=[])


def test_wrong_arguments(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", sequences(3))
    source = open_source(tmp_path)
    for options, says in (
        ({"column": "nope"}, "'nope' is no column of the source"),
        ({"keep": ["nope"]}, "'nope' is no column of the source"),
        ({"keep": ["id", "id"]}, "hold a name twice"),
        ({"chunk_bytes": 0}, "chunk_bytes is 0; expected at least 1"),
        ({"prefetch_bytes": 0}, "prefetch_bytes is 0; expected at least 1"),
    ):
        with pytest.raises(ConfigError, match=says):
            read(source, **options)


def test_real_sequences_are_those_of_pyarrow(shared_data: Path) -> None:
    for name in ("japanese_vowels", "basic_motions"):
        chunks = read(
            open_source(shared_data / name), 100, column="sequence", keep=["id", "split"], chunk_bytes=1 << 14
        )
        table = pq.read_table(shared_data / name)
        assert rows_of(chunks) == table["sequence"].to_pylist()
        kept = pa.Table.from_batches([chunk.kept for chunk in chunks])
        assert kept["id"].to_pylist() == table["id"].to_pylist()
        assert kept["split"].to_pylist() == table["split"].cast(pa.string()).to_pylist()


EVERY_FILE = """
import sys
from pyarrow import fs
from scanrnn_dist.source.footers import read_footers
from scanrnn_dist.source.layouts import Asked, find_layout
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source import ReadOptions, read_chunks
from scanrnn_dist.source import open_source, plan_units
from scanrnn_dist.errors import DataError, LayoutError

for path, footer in zip(sys.argv[1:], read_footers(fs.LocalFileSystem(), sys.argv[1:]), strict=True):
    print(path, end=" ", flush=True)
    if "error" in footer:
        print("refused:", footer["error"].strip().replace("\\n", " "), flush=True)
        continue
    try:
        source = open_source(path)
        layouts = [NestedLists(name) for name in source.schema.names[:3]]
        try:
            layouts = [find_layout(source.schema, Asked(), where=path)]
        except LayoutError:
            pass
        for layout in layouts:
            keep = [name for name in source.schema.names if name not in layout.columns(source.schema)]
            rows, units = 0, plan_units(source, 100)
            for chunk in read_chunks(source, units, ReadOptions(layout, keep, lossy_cast=True)):
                rows += len(chunk.sequences)
            assert rows == source.rows, (rows, source.rows)
        print("read", source.rows, flush=True)
    except DataError as error:
        assert path in str(error), error
        print("refused:", str(error).replace("\\n", " "), flush=True)
"""


def test_every_file_is_read_or_refused_with_its_name(shared_data: Path) -> None:
    """In a process of its own, all files one after the other: none may end it, and none may lose a row in silence."""
    # One declares (and holds) 2 GiB in 4 kB: legal, refused for its layout, and half a minute of decoding. Another one
    # is sound and keeps 1.2 GB in 180 kB: two seconds.
    long = ("large_string_map.brotli.parquet", "wide_kept_column.parquet")
    paths = sorted(str(path) for path in shared_data.rglob("*.parquet") if path.name not in long)
    done = subprocess.run(
        [sys.executable, "-c", EVERY_FILE, *paths], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    outcome = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert list(outcome) == paths
    read = {path for path, text in outcome.items() if text.startswith("read")}
    assert not [path for path in read if "hostile" in path]
    assert read >= {path for path in paths if "japanese_vowels" in path or "basic_motions" in path}
