"""Outputs of every layout: verified, repaired, gone on with, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import D, H, features_of, featurize, random_rows, some_lengths, write_source
from test_verify import recorded_again

from scanrnn_dist.api import verify
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.job import JobOptions
from scanrnn_dist.records import Output, read_features, read_matrices
from scanrnn_dist.storage import open_store

ROWS = 12
LAYOUTS = ("fixed_size_list", "list", "columns", "tensor")
OUTPUTS = [Output(layout, dtype) for layout in LAYOUTS for dtype in (None, "float16")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source `in`, and its output in each layout and dtype in a folder of its own; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_source(folder / "in/a.parquet", random_rows(some_lengths(ROWS)), row_group_size=4)
    for output in OUTPUTS:
        featurize(folder / "in", folder / name_of(output), rows_per_part=4, output=output)
    return folder


def name_of(output: Output) -> str:
    return f"{output.layout}-{output.dtype}"


def all_features(out: Path) -> np.ndarray:
    store, names = open_store(out), sorted(path.name for path in out.glob("part-*"))
    return np.concatenate([matrix for name in names for matrix in read_matrices(store, name)])


@pytest.mark.parametrize("output", OUTPUTS, ids=name_of)
def test_every_layout_holds_the_same_numbers_and_is_verified(finished: Path, output: Output) -> None:
    out, plain = finished / name_of(output), features_of(finished / name_of(Output()))
    assert all_features(out).tobytes() == plain.astype(output.dtype or "float32").tobytes()
    result = verify(out, sample=ROWS)
    assert (result.sampled, result.rows_compared) == (ROWS, ROWS)
    assert 0 <= result.greatest_distance <= 1e-6 and result.rounded_to == output.dtype
    assert ("greatest distances, without the rounding to float16:" in str(result)) == (output.dtype == "float16")


@pytest.mark.parametrize("output", OUTPUTS, ids=name_of)
def test_one_changed_bit_of_a_feature_is_seen(finished: Path, tmp_path: Path, output: Output) -> None:
    out = Path(shutil.copytree(finished / name_of(output), tmp_path / "out"))
    part = out / "part-00001.parquet"
    table, vectors = pq.read_table(part), np.concatenate([*read_matrices(open_store(out), part.name)])
    row, feature = np.unravel_index(np.abs(vectors).argmax(), vectors.shape)
    # The last bit of float16; of float32, whose rounding the bound excuses, one that is worth more than that.
    vectors.view(f"u{vectors.itemsize}")[row, feature] ^= 1 if output.dtype else 1 << 10
    rest = [column.combine_chunks() for column in table.select(["id"]).columns]
    write_again(part, table, rest, vectors, output)
    recorded_again(out)
    with pytest.raises(
        DataError, match=rf"part-00001\.parquet, row {row}: the features are .* from the row scanned alone"
    ):
        verify(out, sample=ROWS)


def test_features_of_a_narrower_dtype_than_the_job_s_are_not_taken_for_rounded(finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished / name_of(Output()), tmp_path / "out"))
    shutil.copy(finished / name_of(Output(dtype="float16")) / "part-00001.parquet", out)
    recorded_again(out)
    with pytest.raises(DataError, match=r"part-00001\.parquet.*the features are float16; expected float32"):
        verify(out, sample=ROWS)


def write_again(part: Path, table: pa.Table, kept: list[pa.Array], vectors: np.ndarray, output: Output) -> None:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), H)
    features = {
        "fixed_size_list": lambda: [flat],
        "list": lambda: [flat.cast(pa.list_(flat.type.value_type))],
        "columns": lambda: [pa.array(column) for column in np.ascontiguousarray(vectors.T)],
        "tensor": lambda: [pa.ExtensionArray.from_storage(table.schema.field("features").type, flat)],
    }[output.layout]()
    pq.write_table(pa.table([*kept, *features], schema=table.schema), part)


@pytest.mark.parametrize("output", [*OUTPUTS[:4:3], *OUTPUTS[4::3]], ids=name_of)  # each layout, each dtype twice
def test_a_part_is_made_again_with_the_same_bytes(finished: Path, tmp_path: Path, output: Output) -> None:
    out = Path(shutil.copytree(finished / name_of(output), tmp_path / "out"))
    before = {path: path.read_bytes() for path in out.glob("part-*")}
    (out / "part-00001.parquet").unlink()
    (out / "part-00002.parquet").write_bytes(b"other")
    assert verify(out, repair=True).repaired == ("part-00001.parquet", "part-00002.parquet")
    assert {path: path.read_bytes() for path in out.glob("part-*")} == before


def test_a_job_goes_on_and_takes_changes_in_its_layout_and_in_no_other(tmp_path: Path) -> None:
    out, output = tmp_path / "out", Output("columns", "float16", "lz4")
    write_source(tmp_path / "in/a.parquet", random_rows([3] * 4))
    featurize(tmp_path / "in", out, output=output)
    with pytest.raises(
        ConfigError, match="output_dtype was float16 and is not given; output_layout was columns and is list"
    ):
        featurize(tmp_path / "in", out, output=Output("list", compression="lz4"))
    write_source(tmp_path / "in/b.parquet", random_rows([3] * 4, 1))
    assert featurize(tmp_path / "in", out, output=output, accept_changes=True).parts == 1
    assert all_features(out).shape == (8, H)
    verify(out)
    featurize(tmp_path / "in", out, output=Output("list"), restart=True)
    assert pq.read_schema(out / "part-00000.parquet").field("features").type == pa.list_(pa.float32())
    verify(out)


def test_options_of_the_output_survive_the_records() -> None:
    options = JobOptions(output=Output("tensor", row_group_bytes=7))
    assert JobOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert JobOptions.from_json({"output": {"layout": "list"}, "source": "x"}).output == Output("list")
    assert JobOptions.from_json({}).output == Output()


def test_a_layout_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    ids = pa.array(range(4))
    source = write_source(tmp_path / "in.parquet", random_rows([3] * 4), feature_1=ids)
    with pytest.raises(ConfigError, match="A kept column is named 'feature_1'"):
        featurize(source, tmp_path / "out", output=Output("columns"))
    with pytest.raises(ConfigError, match="'tensor' holds one vector per row, and the readout 'steps'"):
        featurize(source, tmp_path / "out", steps_encoder(), output=Output("tensor"))
    assert not (tmp_path / "out").exists()


def steps_encoder() -> Encoder:
    return Encoder.from_seed(0, D, H, readout="steps")


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_features_of_steps_as_plain_lists_are_verified(tmp_path: Path, dtype: str | None) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows([0, 3, 1, 0]))
    featurize(source, tmp_path / "out", steps_encoder(), output=Output("list", dtype))
    assert verify(tmp_path / "out").sampled == 4
    found = read_features(open_store(tmp_path / "out"), "part-00000.parquet", np.arange(4))
    assert [row.shape for row in found if row is not None] == [(0, H), (3, H), (1, H), (0, H)]
