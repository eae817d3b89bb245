"""Other readers find exactly the rows of an output, also while it is made anew.

`python tests/test_readers.py` prints the tables of the documentation.

A reader that is not installed is passed over; the extra `readers` installs them.
"""

from __future__ import annotations

import glob
import importlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from faults import watched
from sources import H, encoder_of, featurize, random_rows, write_source

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.records import RECORDS, RESTART, Output

ROWS = 12
WAYS = ("DST", "DST/*.parquet", "DST/**/*.parquet")
LAYOUTS = ("fixed_size_list", "list", "columns", "tensor")
CODECS = ("none", "zstd", "snappy", "gzip", "lz4")
Rows = list[dict[str, Any]]


def _files(path: str) -> Any:
    return path if os.path.isdir(path) else sorted(glob.glob(path, recursive=True))


def _polars(path: str) -> Rows:
    import polars

    return polars.read_parquet(path).to_dicts()


def _duckdb(path: str) -> Rows:
    import duckdb

    found = duckdb.sql(f"SELECT * FROM read_parquet('{path}')")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def _pandas(path: str) -> Rows:
    import pandas

    return pandas.read_parquet(_files(path)).to_dict("records")


def _load_dataset(path: str) -> Rows:
    return _loaded(path) if os.path.isdir(path) else _load_parquet(path)


def _load_parquet(path: str) -> Rows:
    return _loaded("parquet", **{"data_dir" if os.path.isdir(path) else "data_files": path})


def _loaded(name: str, **options: str) -> Rows:
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        return datasets.load_dataset(name, split="train", cache_dir=cache, **options).to_list()


def _from_parquet(path: str) -> Rows:
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        return datasets.Dataset.from_parquet(path, cache_dir=cache).to_list()


READERS: dict[str, tuple[str, Callable[[str], Rows]]] = {
    "polars.read_parquet": ("polars", _polars),
    "DuckDB read_parquet": ("duckdb", _duckdb),
    "pandas.read_parquet": ("pandas", _pandas),
    "pyarrow.parquet.read_table": ("pyarrow", lambda path: pq.read_table(_files(path)).to_pylist()),
    "pyarrow.dataset.dataset": ("pyarrow", lambda path: ds.dataset(_files(path)).to_table().to_pylist()),
    "datasets.load_dataset": ("datasets", _load_dataset),
    'datasets.load_dataset("parquet")': ("datasets", _load_parquet),
    "datasets.Dataset.from_parquet": ("datasets", _from_parquet),
}
REFUSED = {
    (reader, "DST")
    for reader in ("polars.read_parquet", 'datasets.load_dataset("parquet")', "datasets.Dataset.from_parquet")
}
"""These want files: the first two refuse a folder that holds anything but Parquet files, the last one any folder."""


def make_output(folder: Path) -> Path:
    """A finished output of three parts that is being made anew, two parts of which stand already."""
    source = folder / "in.parquet"
    label = {"names": [f"class {i}" for i in range(ROWS)], "_type": "ClassLabel"}
    number = {"feature": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}, "_type": "List"}
    said = f'{{"info": {{"features": {{"id": {label}, "sequence": {number}}}}}}}'.replace("'", '"')
    columns = {
        "id": pa.array(range(ROWS), pa.int64()),
        "sequence": pa.array([row.tolist() for row in random_rows([3] * ROWS)], pa.list_(pa.list_(pa.float32()))),
    }
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": said}), source, row_group_size=4)
    output = folder / "out"
    featurize(source, output, rows_per_part=4)

    def stop(kind: str, name: str) -> None:
        if (kind, name) == ("rename", f"{RESTART}/part-00002.parquet"):
            raise StoppedError("as a full disk would")

    with pytest.raises(StoppedError):
        featurize(source, watched(output, stop), encoder_of(seed=9), rows_per_part=4, restart=True)
    assert (output / "_SUCCESS").exists()
    # As of a machine that is named as a split of a data set.
    (output / RECORDS / "commits/train-7.1.00000000.jsonl").write_text('{"id": 1, "features": []}\n')
    return output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("readers"))


def rows_found(reader: str, way: str, output: Path) -> Rows | None:
    """What a reader finds; None where it raises."""
    try:
        found = READERS[reader][1](way.replace("DST", str(output)))
    except Exception as error:
        print(f"{reader} {way}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return sorted(found, key=lambda row: row["id"])


def expected_rows(output: Path) -> Rows:
    tables = [pq.ParquetFile(output / f"part-{part:05d}.parquet").read() for part in range(3)]
    return pa.concat_tables(tables).to_pylist()


def is_same(found: Rows | None, expected: Rows) -> bool:
    return found is not None and [(row["id"], np.float32(row["features"]).tobytes()) for row in found] == [
        (row["id"], np.float32(row["features"]).tobytes()) for row in expected
    ]


@pytest.mark.filterwarnings("ignore")  # of the readers
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_finds_exactly_the_rows(output: Path, reader: str, way: str) -> None:
    pytest.importorskip(READERS[reader][0])
    found = rows_found(reader, way, output)
    if (reader, way) in REFUSED:
        assert found is None
    else:
        assert is_same(found, expected_rows(output))


OUTPUTS = [Output(layout, dtype) for layout in LAYOUTS for dtype in (None, "float16")]
PACKED = [
    Output(layout, dtype, codec) for codec in CODECS for layout, dtype in (("list", None), ("columns", "float16"))
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same features in every layout and dtype, each in a folder of its own."""
    return make_layouts(tmp_path_factory.mktemp("layouts"))


def make_layouts(folder: Path) -> Path:
    source = write_source(folder / "in.parquet", random_rows([3] * ROWS), row_group_size=4)
    for output in (*OUTPUTS, *PACKED):
        featurize(source, folder / name_of(output), rows_per_part=4, output=output)
    return folder


def name_of(output: Output) -> str:
    return "-".join((output.layout, output.dtype or "float32", *([output.compression] if output.compression else [])))


def is_same_in(layouts: Path, output: Output, reader: str) -> bool:
    """Whether a reader finds the numbers of the default layout, or their rounding."""
    found = rows_found(reader, "DST/*.parquet", layouts / name_of(output))
    plain = np.array([row["features"] for row in expected_rows(layouts / name_of(Output()))], np.float32)
    expected = plain.astype(output.dtype or np.float32).astype(np.float64)
    if found is None or len(found) != ROWS:
        return False
    rows = [[row[f"feature_{i}"] for i in range(H)] if output.layout == "columns" else row["features"] for row in found]
    return np.array([np.array(row, np.float64) for row in rows]).tobytes() == expected.tobytes()


def each_codec_by_each_package() -> list[Any]:
    """All outputs by each reader; the packed ones by one reader of each package, by the others behind `-m soak`."""
    first = {package: reader for reader, (package, _) in reversed(READERS.items())}
    cases = itertools.product(READERS, [*OUTPUTS, *PACKED])
    return [
        pytest.param(
            reader, output, id=f"{reader}-{name_of(output)}",
            marks=[pytest.mark.soak] * (output in PACKED and reader not in first.values()),
        )
        for reader, output in cases
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of the readers
@pytest.mark.parametrize(("reader", "output"), each_codec_by_each_package())
def test_a_reader_finds_the_same_numbers_in_every_layout(layouts: Path, reader: str, output: Output) -> None:
    package = READERS[reader][0]
    pytest.importorskip(package)
    assert is_same_in(layouts, output, reader) == (package != "datasets" or output.layout != "tensor")


def test_only_parts_end_in_parquet(output: Path) -> None:
    assert list((output / RESTART).glob("part-*.parquet.staged"))
    assert sorted(output.rglob("*.parquet")) == sorted(output.glob("part-?????.parquet"))


@pytest.mark.filterwarnings("ignore")
def test_class_labels_are_there_for_datasets(output: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features.from_arrow_schema(pq.read_schema(output / "part-00000.parquet"))
    assert features["id"].int2str(3) == "class 3"
    assert list(features) == ["id", "features"]


@pytest.mark.filterwarnings("ignore")
def test_an_index_of_pandas_comes_back(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for sequence, x in (("sequence", "x"), (0, 1)):  # numbers as labels: `features` is none
        frame = pandas.DataFrame({sequence: [[0.5], [1.0]], x: [1, 2]}, index=pandas.Index([7, 9], name="stamp"))
        path = tmp_path / f"{x}.parquet"
        frame.to_parquet(path)
        featurize(path, tmp_path / f"{x}", encoder_of(in_features=1), column=str(sequence), lossy_cast=True)
        read = pandas.read_parquet(tmp_path / f"{x}")
        assert (read.index.name, read.index.tolist()) == ("stamp", [7, 9])
        assert read[str(x)].tolist() == [1, 2] and "features" in read


@pytest.mark.filterwarnings("ignore")
def test_ordered_categories_of_pandas_keep_their_order(tmp_path: Path) -> None:
    """In several row groups of the source and of several parts; none of these has the categories in their order."""
    pandas = pytest.importorskip("pandas")
    sizes = pandas.CategoricalDtype(["small", "medium", "large", "none has it"], ordered=True)
    found = ["large", "medium", None, "small"] * 50
    frame = pandas.DataFrame({"sequence": [[0.5]] * 200, "size": pandas.Categorical(found, dtype=sizes)})
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=60)
    encoder, output = encoder_of(in_features=1), Output(row_group_bytes=500)
    featurize(tmp_path / "a.parquet", tmp_path / "out", encoder, column="sequence", output=output, rows_per_part=60)
    read = pandas.read_parquet(tmp_path / "out")["size"]
    assert pq.read_metadata(tmp_path / "out/part-00000.parquet").num_row_groups > 1
    assert read.dtype == frame["size"].dtype and read.equals(frame["size"])
    assert (read < "medium").tolist() == [size == "small" for size in found]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ordered", [False, True])
def test_more_categories_of_pandas_than_int8_tells_apart_are_categories(tmp_path: Path, ordered: bool) -> None:
    pandas = pytest.importorskip("pandas")
    frames = [
        pandas.DataFrame({"sequence": [[0.5]] * 100, "kind": pandas.Categorical(names, names, ordered)})
        for names in ([f"k{number}" for number in range(begin, begin + 100)] for begin in (100, 200))
    ]
    tables = [pa.Table.from_pandas(frame, preserve_index=False) for frame in frames]
    assert tables[0].schema.field("kind").type.index_type == pa.int8()
    with pq.ParquetWriter(tmp_path / "a.parquet", tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    featurize(tmp_path / "a.parquet", tmp_path / "out", encoder_of(in_features=1), column="sequence")
    read = pandas.read_parquet(tmp_path / "out")["kind"]
    assert isinstance(read.dtype, pandas.CategoricalDtype) and read.dtype.ordered == ordered
    assert read.tolist() == [f"k{number}" for number in range(100, 300)]
    assert b"pandas" in pq.read_schema(tmp_path / "out/part-00000.parquet").metadata


def main() -> None:
    """Print the tables of the documentation."""
    from importlib.metadata import version

    with tempfile.TemporaryDirectory() as folder:
        output = make_output(Path(folder))
        expected = expected_rows(output)
        print("| reader | " + " | ".join(f"`{way}`" for way in WAYS) + " |\n|---|---|---|---|")
        for reader, (package, _) in READERS.items():
            if importlib.util.find_spec(package) is None:
                continue
            found = [rows_found(reader, way, output) for way in WAYS]
            told = ["refuses" if rows is None else "right" if is_same(rows, expected) else "WRONG" for rows in found]
            print(f"| {reader}, {version(package)} | " + " | ".join(told) + " |")
        layouts = make_layouts(Path(folder) / "layouts")
        print("\n| reader | " + " | ".join(f"`{name_of(output)}`" for output in OUTPUTS) + " |")
        print("|---" * (1 + len(OUTPUTS)) + "|")
        for reader, (package, _) in READERS.items():
            if importlib.util.find_spec(package) is not None:
                told = ["right" if is_same_in(layouts, output, reader) else "no" for output in OUTPUTS]
                print(f"| {reader} | " + " | ".join(told) + " |")


if __name__ == "__main__":
    main()
