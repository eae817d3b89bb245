"""Row groups and pages end where the rows say, and never where the batches end that rows come in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records import Output, PartFile, QuarantineFile, part_schema, quarantine, quarantine_name
from scanrnn_dist.records.output import LAYOUTS
from scanrnn_dist.source import aside_schema
from scanrnn_dist.source.parquet import vector_writer
from scanrnn_dist.storage import LocalStore

ROWS, SIZE = 1_000, 4
BATCHES = {"one": [ROWS], "odd": [1, 599, 3, 0, 397], "small": [61] * 17}
NAMES = pa.array(["one", "two", "three"])
SIZES = pa.array(["small", "large", "huge"])
OUTPUTS = [
    *(Output(layout) for layout in LAYOUTS),
    *(Output(layout, "float16", compression="zstd") for layout in LAYOUTS),
]


def name_of(output: Output) -> str:
    return f"{output.layout}-{output.compression}"


@cache
def kept_of(rows: int) -> pa.RecordBatch:
    """Columns of many types, with nulls; the texts fill more than a page of pyarrow's, which has 1 MiB."""
    rng = np.random.default_rng(0)
    texts = [None if n % 11 == 0 else f"{row:{n}}" for row, n in enumerate(rng.integers(0, 2_800, rows).tolist())]
    lists = [None if n % 7 == 0 else list(range(n)) for n in rng.integers(0, 30, rows)]
    batch = pa.record_batch({
        "id": pa.array(range(rows), pa.int64()),
        "few": pa.array(rng.integers(0, 9, rows), pa.int32()),
        "flag": pa.array([n % 5 < 2 if n % 3 else None for n in range(rows)]),
        "text": pa.array(texts),
        "view": pa.array([text and text[:40] for text in texts], pa.string_view()),
        "list": pa.array(lists, pa.list_(pa.int16())),
        "nested": pa.array([each and [each[:2], None, []] for each in lists], pa.list_(pa.list_(pa.float32()))),
        "struct": pa.array([text and {"a": text[:9], "b": 1.5} for text in texts]),
        "map": pa.array([[(text[:3], 1)] if text else None for text in texts], pa.map_(pa.string(), pa.int8())),
        "vector": pa.array([each and each[:1] * 3 for each in lists], pa.list_(pa.int16(), 3)),
    })  # fmt: skip
    names = pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 3, rows), pa.int32()), NAMES)
    sizes = pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 2, rows), pa.int8()), SIZES, ordered=True)
    return with_names(batch, names, sizes)


def with_names(batch: pa.RecordBatch, names: pa.DictionaryArray, sizes: pa.DictionaryArray) -> pa.RecordBatch:
    """Rows and their names, alone and within other values, of which some are null."""
    rows, is_null = len(batch), pa.array(batch["id"].to_numpy() % 5 == 0)
    twice, offsets = names.take(pa.array(np.arange(2 * rows) // 2)), np.arange(0, 2 * rows + 1, 2, np.int32)
    struct = pa.StructArray.from_arrays([names, batch["id"], sizes], ["name", "id", "size"], mask=is_null)
    lists = pa.ListArray.from_arrays(pa.array(offsets), twice, mask=is_null)
    pairs = pa.FixedSizeListArray.from_arrays(twice, 2, mask=is_null)
    fields = pa.map_(names.type, names.type)
    entries = pa.StructArray.from_arrays([twice, twice], fields=[fields.key_field, fields.item_field])
    maps = pa.Array.from_buffers(fields, rows, [None, pa.py_buffer(offsets)], children=[entries])
    deep = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32)), struct, mask=is_null)
    return pa.record_batch({
        **dict(zip(batch.schema.names, batch.columns, strict=True)), "name": names, "size": sizes,
        "named struct": struct, "named list": lists, "named pair": pairs, "named map": maps, "named structs": deep,
    })  # fmt: skip


def spans(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends = np.minimum(np.cumsum(sizes), ROWS).tolist()
    return list(zip([0, *ends], ends, strict=False))


def as_read(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with a dictionary of the batch's own, in which some are that no row has: as pyarrow reads them."""
    if "name" not in batch.schema.names:
        return batch
    names = [f"none of {len(batch)}", *sorted(set(batch["name"].to_pylist()), reverse=len(batch) % 2 == 0), "none"]
    numbers = pa.array(map(names.index, batch["name"].to_pylist()), pa.int32())
    own = pa.DictionaryArray.from_arrays(numbers, names)
    first = next(nth for nth, name in enumerate(batch.schema.names) if name == "name")
    before = batch.select(batch.schema.names[:first])
    return pa.record_batch(with_names(before, own, batch["size"]).columns, schema=batch.schema)


def part_of(folder: Path, output: Output, kept: pa.RecordBatch, steps: bool, sizes: Sequence[int]) -> Path:
    rng = np.random.default_rng(1)
    is_null = rng.random(ROWS) < 0.01
    features: Any = rng.normal(size=(ROWS, SIZE)).astype(np.float32)
    if steps:
        features = Ragged.from_sequences([features[: int(n)] for n in rng.integers(0, 4, ROWS)])
    schema = part_schema(kept.schema, SIZE, {}, steps, np.float32, output)
    with PartFile(LocalStore(str(folder), "host.1.00000000"), "a.parquet", schema, output) as part:
        for begin, end in spans(sizes):
            some = features.slice(begin, end) if steps else features[begin:end]
            part.write(as_read(kept.slice(begin, end - begin)), some, is_null[begin:end])
        part.commit()
    return folder / "a.parquet"


def cases() -> Iterator[Any]:
    """Outputs, whether they are of all steps, of small row groups, and with columns of all types; by default a few.

    A layout of the features differs from others beside numbers too.
    """
    kinds = [*((output, False) for output in OUTPUTS), (Output(), True), (Output("list", compression="zstd"), True)]
    for (output, steps), is_small, all_types in itertools.product(kinds, [True, False], [True, False]):
        is_usual, is_packed_list = output == Output(), output.layout == "list" and output.compression is not None
        if all_types:
            is_few = (is_usual and (is_small or not steps)) or (is_packed_list and is_small and not steps)
        else:
            is_few = is_usual or (is_small and (not output.compression or is_packed_list))
        columns, groups = "all types" if all_types else "numbers", "small" if is_small else "large"
        name = f"{name_of(output)}-steps {steps}-{groups}-{columns}"
        yield pytest.param(output, steps, is_small, all_types, id=name, marks=[] if is_few else pytest.mark.soak)


@pytest.mark.parametrize(("output", "steps", "is_small", "all_types"), list(cases()))
def test_the_batches_that_rows_come_in_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Output, steps: bool, is_small: bool, all_types: bool
) -> None:
    monkeypatch.setattr(vector_writer, "PAGE_BYTES", 1 << 13)
    row_group_bytes = (1 << 16 if all_types else 1 << 13) if is_small else 4 << 20
    output = Output(output.layout, output.dtype, output.compression, row_group_bytes)
    kept = kept_of(ROWS) if all_types else kept_of(ROWS).select(["id"])
    written = {}
    for name, sizes in BATCHES.items():
        (tmp_path / name).mkdir()
        written[name] = part_of(tmp_path / name, output, kept, steps, sizes)
    assert len({path.read_bytes() for path in written.values()}) == 1
    table = pq.read_table(written["odd"])
    assert table.select(kept.schema.names).to_pylist() == kept.to_pylist()
    groups = pq.read_metadata(written["one"]).num_row_groups
    assert groups > 1 if is_small else groups == 1


def test_a_row_group_ends_with_the_row_that_fills_it(tmp_path: Path) -> None:
    """Each of these takes 8 bytes as a number, 4 and 12 as a text, 16 as features: 40 in all."""
    kept = pa.record_batch({"id": pa.array(range(ROWS)), "text": ["x" * 12] * ROWS})
    for nbytes, rows in ((4_000, 100), (4_001, 101), (10_001, 251)):
        part = part_of(tmp_path, Output(row_group_bytes=nbytes), kept, False, BATCHES["odd"])
        groups = pq.read_metadata(part)
        found = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
        assert sum(found) == ROWS and set(found[:-1]) == {rows} and found[-1] <= rows


def test_the_batches_that_rows_are_set_aside_in_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "ROW_GROUP_BYTES", 1 << 16)
    kept = kept_of(ROWS)
    schema = aside_schema(kept.schema)
    own = [
        pa.array([f"{field.name} {n % 3}" for n in range(ROWS)] if pa.types.is_string(field.type) else range(ROWS))
        for field in list(schema)[: -len(kept.schema)]
    ]
    rows, contents = pa.RecordBatch.from_arrays([*own, *kept.columns], schema=schema), set()
    for name, sizes in BATCHES.items():
        (tmp_path / name).mkdir()
        store = LocalStore(str(tmp_path / name), "host.1.00000000")
        with QuarantineFile(store, 0, 1, schema) as aside:
            for begin, end in spans(sizes):
                aside.write(as_read(rows.slice(begin, end - begin)))
            aside.commit()
        contents.add(Path(store.path(quarantine_name(0, 1))).read_bytes())
    assert len(contents) == 1 and pq.read_metadata(pa.BufferReader(contents.pop())).num_row_groups > 3


TEXTS = pa.array([f"{number:020}" for number in range(50_000)])


def own_dictionary(begin: int, ordered: bool) -> pa.DictionaryArray:
    """500 values with a dictionary of their own, of 1 MB, as a reader makes them of a column of 50,000 texts."""
    numbers = pa.array(range(begin, begin + 500), pa.int32())
    return pa.DictionaryArray.from_arrays(numbers, pa.concat_arrays([TEXTS]), ordered=ordered)


VECTOR = pa.list_(pa.float32(), 768)
KEPT: dict[str, Callable[[int], pa.Array]] = {
    "vectors that are null": lambda begin: pa.nulls(500, VECTOR),
    "vectors in structs that are null": lambda begin: pa.nulls(500, pa.struct([("v", VECTOR)])),
    "a large dictionary": lambda begin: own_dictionary(begin, False),
    "an ordered one": lambda begin: own_dictionary(begin, True),
    "a large dictionary in structs": lambda begin: pa.StructArray.from_arrays([own_dictionary(begin, False)], ["name"]),
}


@pytest.mark.parametrize("kind", KEPT)
def test_rows_that_wait_for_their_row_group_take_about_its_bytes(tmp_path: Path, kind: str) -> None:
    """Of 40 batches of more than 1 MB each; where dictionaries are large, the rows themselves take less than 1 MB."""
    schema = pa.schema({"kept": KEPT[kind](0).type})
    store = LocalStore(str(tmp_path), "host.1.00000000")
    part = PartFile(store, "a.parquet", part_schema(schema, SIZE, {}))
    aside = QuarantineFile(store, 0, 1, schema)
    for write in (lambda batch: part.write(batch, np.zeros((500, SIZE), np.float32)), aside.write):
        before, most = pa.total_allocated_bytes(), 0
        for begin in range(0, 20_000, 500):
            write(pa.record_batch([KEPT[kind](begin)], schema=schema))
            most = max(most, pa.total_allocated_bytes() - before)
        assert most < 8 << 20
    for file in (part, aside):
        file.commit()
