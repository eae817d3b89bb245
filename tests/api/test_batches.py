"""Batches of other engines: the rows are those of `encode`, whatever the layout, the pieces and the process."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest
from cells import drawn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import SEED, SEQUENCE, SHAPE, D, H, encoder_of, random_rows

from scanrnn_dist.api import BatchFeaturizer, encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError, LayoutError, ScanRNNError
from scanrnn_dist.input_spec import InputSpec, Number
from scanrnn_dist.ray import FeaturizeBatches
from scanrnn_dist.records import Output
from scanrnn_dist.source import BadRows

ROWS = random_rows([3, 0, 40, 1, 7, 90, 2])


def table_of(rows: list[Any], **columns: Any) -> pa.Table:
    lists = [row if row is None or isinstance(row, list) else row.tolist() for row in rows]
    return pa.table({"id": range(len(rows)), "sequence": pa.array(lists, SEQUENCE), **columns})


def featurizer_of(**options: Any) -> BatchFeaturizer:
    return BatchFeaturizer(encoder_of(), **{"window_shape": SHAPE, **options})


def features_of(table: pa.Table) -> np.ndarray:
    return np.stack(table["features"].to_pylist()).astype(np.float32)


@given(st.lists(st.integers(0, len(ROWS)), max_size=4), st.lists(st.integers(0, 60), max_size=8), st.booleans())
@settings(max_examples=8)
def test_rows_are_those_of_encode_however_a_table_is_cut(cuts: list[int], lengths: list[int], as_stream: bool) -> None:
    rows = [*ROWS, *random_rows(lengths, seed=1)]
    bounds = [0, *sorted(cuts), len(rows)]
    whole = table_of(rows, text=pa.array(map(str, range(len(rows)))))
    table = pa.concat_tables(whole[begin:end] for begin, end in pairwise(bounds))
    featurizer = featurizer_of()
    if as_stream:
        result = pa.Table.from_batches(featurizer.stream(table.to_batches()), featurizer.schema(table.schema))
    else:
        result = featurizer(table)
    assert result.drop(["features"]).equals(whole.drop(["sequence"]))
    assert features_of(result).tobytes() == encode(encoder_of(), rows, window_shape=SHAPE).tobytes()
    assert result.schema.field("features").type == pa.list_(pa.float32(), H)


def test_any_layout_is_found_or_asked_for() -> None:
    rows = random_rows([3, 5])
    expected = encode(encoder_of(), rows, window_shape=SHAPE)
    by_feature = {name: pa.array([row[:, nth].tolist() for row in rows]) for nth, name in enumerate("xyz")}
    flat = pa.array([row.reshape(-1).tolist() for row in rows], pa.list_(pa.float32()))
    structs = pa.array([[dict(zip("xyz", step.tolist(), strict=True)) for step in row] for row in rows])
    for table, options in [
        (pa.table({"id": [1, 2], **by_feature}), {"features": ["x", "y", "z"], "lossy_cast": True}),
        (pa.table({"id": [1, 2], "flat": flat}), {"column": "flat", "in_features": D}),
        (pa.table({"id": [1, 2], "steps": structs}), {"lossy_cast": True}),
    ]:
        result = featurizer_of(**options)(table)
        assert result.column_names == ["id", "features"]
        assert np.array_equal(features_of(result), expected)


def test_an_input_may_be_of_lists_whose_numbers_have_no_names() -> None:
    spec = InputSpec(tuple(Number(str(feature), mean=0.5, std=2.0) for feature in range(D)))
    encoder = Encoder.from_seed(SEED, None, H, input=spec)
    result = BatchFeaturizer(encoder, in_features=D, window_shape=SHAPE)(table_of(ROWS))
    scaled = [((row.astype(np.float64) - 0.5) / 2).astype(np.float32) for row in ROWS]
    assert features_of(result).tobytes() == encode(encoder, scaled, window_shape=SHAPE).tobytes()


def test_an_input_over_lists_whose_type_fixes_no_width_needs_to_be_told_it() -> None:
    spec = InputSpec(tuple(Number(str(feature)) for feature in range(D)))
    encoder = Encoder.from_seed(SEED, None, H, input=spec)
    table = table_of([[[1.0] * (D - 1)], [[1.0] * D], [[1.0] * (D + 2)], [[2.0] * D]])
    for ask in (BatchFeaturizer(encoder), lambda table: BatchFeaturizer(encoder).schema(table.schema)):
        with pytest.raises(ConfigError, match=r"type of column 'sequence' does not say how many.*Give in_features=N"):
            ask(table)
    skips = BadRows(wrong_width="skip")
    featurizer = BatchFeaturizer(encoder, in_features=D, bad_rows=skips, window_shape=SHAPE)
    whole = featurizer(table)
    assert whole["id"].to_pylist() == [1, 3]
    assert pa.concat_tables(featurizer(table[row : row + 1]) for row in range(4)).equals(whole)


@pytest.mark.parametrize("rows", [[], [[], []], [[[1.0] * 6], []]])
@pytest.mark.parametrize("choice", ["error", "skip"])
def test_a_type_that_fixes_other_features_is_refused_whatever_the_rows_are(
    rows: list[list[list[float]]], choice: str
) -> None:
    table = pa.table({"sequence": pa.array(rows, pa.list_(pa.list_(pa.float32(), 6)))})
    bad_rows = BadRows(wrong_width=choice)
    told = rf"encoder takes {D} features per step; there are 6 in column 'sequence'"
    for ask in (featurizer_of(bad_rows=bad_rows), lambda table: featurizer_of().schema(table.schema)):
        with pytest.raises(ConfigError, match=told):
            ask(table)
    with pytest.raises(ConfigError, match=r"\[6\]>, 6 features a step; --in-features says"):
        featurizer_of(in_features=D)(table)


@pytest.mark.parametrize(("row", "kind"), [(None, "null_sequence"), ([[1.0, float("nan"), 1.0]], "bad_value")])
def test_an_error_names_the_argument_that_leaves_such_rows_out(row: Any, kind: str) -> None:
    table = table_of([ROWS[0], row])
    with pytest.raises(DataError) as caught:
        featurizer_of()(table)
    told = str(caught.value).rpartition("bad_rows=")[2].removesuffix(".")
    assert told == f'BadRows({kind}="skip")' and caught.value.policy == kind
    assert featurizer_of(bad_rows=eval(told))(table)["id"].to_pylist() == [0]


def test_bad_rows_are_treated_as_asked(caplog: pytest.LogCaptureFixture) -> None:
    good = random_rows([3])[0]
    table = table_of([good, None, [[1.0, float("nan"), 1.0]], good])
    with pytest.raises(DataError, match="row 1 of the batch: the sequence is null"):
        featurizer_of()(pa.concat_tables([table]))
    with pytest.raises(DataError, match="row 6 of the batch, step 0: feature 1 is nan"):
        featurizer_of(bad_rows=BadRows(null_sequence="null"))(pa.concat_tables([table[:2], table[:2], table]))
    with caplog.at_level(logging.WARNING, "scanrnn_dist"):
        result = featurizer_of(bad_rows=BadRows(null_sequence="null", bad_value="skip"))(table)
    assert "1 of 4 rows of a batch are set aside" in caplog.text
    assert result["id"].to_pylist() == [0, 1, 3]
    assert result["features"].null_count == 1 and result["features"][1].as_py() is None
    propagated = featurizer_of(bad_rows=BadRows("propagate", null_sequence="skip"))(table)
    expected = encode(encoder_of(), [good, [[1.0, float("nan"), 1.0]]], nonfinite="propagate", window_shape=SHAPE)
    assert np.array_equal(features_of(propagated)[:2], expected, equal_nan=True)


def test_options_act_as_they_do_in_featurize() -> None:
    carries = np.random.default_rng(0).standard_normal((len(ROWS), H)).astype(np.float32)
    table = table_of(ROWS, carry=pa.FixedSizeListArray.from_arrays(pa.array(carries.reshape(-1)), H))
    result = featurizer_of(column="sequence", initial_carry="carry", max_steps=5, truncate="tail")(table)
    expected = encode(encoder_of(), [row[-5:] for row in ROWS], initial_carry=carries, window_shape=SHAPE)
    assert np.array_equal(features_of(result), expected)
    result = featurizer_of(keep=[], output=Output("columns", dtype="float16"))(table_of(ROWS))
    assert result.column_names == [f"feature_{number}" for number in range(H)]
    assert result.schema.types == [pa.float16()] * H


def test_rows_whose_features_are_null_need_no_carry() -> None:
    carries = [None, [0.5] * H]
    table = table_of([None, ROWS[1]], carry=pa.array(carries, pa.list_(pa.float32())))
    featurizer = featurizer_of(column="sequence", initial_carry="carry", bad_rows=BadRows(null_sequence="null"))
    expected = encode(encoder_of(), [ROWS[1]], initial_carry=np.array(carries[1:]), window_shape=SHAPE)
    assert featurizer(table)["features"].to_pylist() == [None, expected[0].tolist()]


@pytest.mark.parametrize(("keep", "told"), [(["id"], "is not kept"), (["id", "carry"], "is int64; expected a list")])
def test_a_column_that_can_hold_no_carries_is_refused(keep: list[str], told: str) -> None:
    table = table_of(ROWS, carry=pa.array(range(len(ROWS))))
    with pytest.raises(ConfigError, match=f"The initial carries' column 'carry' {told}"):
        featurizer_of(column="sequence", initial_carry="carry", keep=keep)(table)


def test_a_bad_carry_is_named_by_its_row_of_the_batch() -> None:
    def piece(first: list[Any], carries: list[Any]) -> pa.Table:
        return table_of([first, [[0.5] * D]], carry=pa.array(carries, pa.list_(pa.float32())))

    good = [0.5] * H
    two = pa.concat_tables([piece([[1.0] * D], [good, good]), piece([[1.0] * D], [good, None])])
    with pytest.raises(DataError, match=r"^row 3 of the batch: 'carry' is null"):
        featurizer_of(column="sequence", initial_carry="carry")(two)
    featurizer = featurizer_of(column="sequence", initial_carry="carry", bad_rows=BadRows(bad_value="skip"))
    with pytest.raises(DataError, match=r"^row 1 of the batch: 'carry' is null"):
        featurizer(piece([[float("nan")] * D], [good, None]))


@pytest.mark.parametrize("readout", ["last", "steps"])
def test_a_feature_that_the_dtype_cannot_hold_is_named_by_its_row_of_the_batch(readout: str) -> None:
    carries = pa.array([[0.5] * H, [0.5] * H, [0.5] * H, [1e6] * H], pa.list_(pa.float32()))
    table = table_of([[[float("nan")] * D], *[[[0.5] * D]] * 3], carry=carries)
    featurizer = BatchFeaturizer(
        Encoder.from_seed(SEED, D, H, readout=readout), column="sequence", initial_carry="carry", window_shape=SHAPE,
        bad_rows=BadRows(bad_value="skip"), output=Output(dtype="float16"),
    )  # fmt: skip
    for first in (1, 2, 4):
        with pytest.raises(DataError, match=r"^row 3 of the batch: feature \d is .* expected at most 65504"):
            featurizer(pa.concat_tables([table[:first], table[first:]]))


def test_pieces_of_the_result_hold_the_steps_of_their_own_rows_alone() -> None:
    table = pa.concat_tables(table_of(random_rows([8])) for _ in range(20))
    encoder = Encoder.from_seed(SEED, D, H, readout="steps")
    result = BatchFeaturizer(encoder, keep=[], output=Output(dtype="float16"), window_shape=SHAPE)(table)
    assert result["features"].num_chunks == 20
    assert result.get_total_buffer_size() < 2 * result.nbytes


def test_a_kept_column_that_stands_twice_is_refused() -> None:
    table = table_of(ROWS)
    twice = table.append_column("id", table["id"])
    with pytest.raises(ConfigError, match="several columns 'id' in the batch"):
        featurizer_of()(twice)
    assert featurizer_of(keep=[])(twice).num_rows == len(ROWS)


def test_an_empty_batch_gives_an_empty_one() -> None:
    empty = table_of(ROWS)[:0]
    batches = (empty, pa.Table.from_batches([], empty.schema), pa.RecordBatch.from_pylist([], empty.schema))
    for batch in batches:
        result = featurizer_of()(batch)
        assert (result.num_rows, result.schema) == (0, featurizer_of().schema(empty.schema))


@pytest.mark.parametrize(
    ("columns", "options", "error", "says"),
    [
        ({"sequence": [1, 2]}, {}, LayoutError, "the batch"),
        ({"sequence": [[[1.0] * D]], "other": [[[1.0] * D]]}, {"lossy_cast": True}, LayoutError, "2 ways"),
        ({"sequence": [[[1.0] * D]], "features": [1]}, {}, ConfigError, "kept column is named 'features'"),
        ({"sequence": [[[1.0] * D]]}, {"keep": ["id"]}, ConfigError, "no column 'id' to keep in the batch"),
        ({"sequence": [[[1.0] * 2]]}, {"lossy_cast": True}, LayoutError, "2 features|expected 3"),
        ({"sequence": [[[1.0] * D]]}, {"layout": "long"}, ScanRNNError, "long"),
    ],
)
def test_what_does_not_fit_is_refused(columns: dict[str, Any], options: Any, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        featurizer_of(**options)(pa.table(columns))


def test_a_frame_of_another_library_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"The batch is a list; expected a pyarrow Table or RecordBatch"):
        BatchFeaturizer(encoder_of())([{"sequence": [[1.0]]}])  # type: ignore[arg-type]


def test_a_dataset_of_hugging_face_is_told_its_format() -> None:
    data = pytest.importorskip("datasets").Dataset(table_of(ROWS))
    with pytest.raises(ConfigError, match=r'dataset\.with_format\("arrow"\)\.map\(\.\.\.\) of Hugging Face'):
        data.map(featurizer_of(), batched=True)
    featured = data.with_format("arrow").map(featurizer_of(), batched=True)
    assert featured.column_names == ["id", "features"]


def test_what_is_no_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="The encoder is a int"):
        BatchFeaturizer(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"The encoder is a GRUCell; expected an Encoder"):
        BatchFeaturizer(drawn(nnx.GRUCell, D, H))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected an Encoder"):
        _ = BatchFeaturizer(lambda: 3).encoder  # type: ignore[arg-type, return-value]


def test_an_argument_of_another_kind_is_refused_at_once() -> None:
    for name in ("output", "bad_rows", "window_shape"):
        with pytest.raises(ConfigError, match=f"{name} is 'columns'"):
            BatchFeaturizer(encoder_of(), **{name: "columns"})  # type: ignore[arg-type]


def test_a_module_of_pytorch_is_no_function_that_returns_an_encoder() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ConfigError, match=r"The encoder is a GRU; expected an Encoder"):
        BatchFeaturizer(torch.nn.GRU(D, H))


def test_the_encoder_may_be_given_in_several_ways(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    encoder_of().save(path)
    for given_as in (path, str(path), path.read_bytes(), lambda: Encoder.from_seed(SEED, D, H)):
        assert BatchFeaturizer(given_as).encoder.fingerprint == encoder_of().fingerprint


def test_a_path_travels_with_the_hash_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    not_there = pickle.loads(pickle.dumps(BatchFeaturizer(path)))
    encoder_of().save(path)
    assert not_there.encoder.fingerprint == encoder_of().fingerprint
    loaded, before = BatchFeaturizer(path), pickle.dumps(BatchFeaturizer(path))
    assert pickle.loads(before).encoder.fingerprint == loaded.encoder.fingerprint == encoder_of().fingerprint
    Encoder.from_seed(SEED + 1, D, H).save(path)
    assert pickle.dumps(BatchFeaturizer(path)) != before, "a cache would give the features of the old file"
    assert pickle.dumps(loaded) == before
    for travelled in (pickle.loads(before), pickle.loads(pickle.dumps(pickle.loads(before)))):
        with pytest.raises(ConfigError, match=r"encoder\.safetensors has the SHA-256 .*; expected .* came with"):
            _ = travelled.encoder


def test_features_of_a_file_that_was_replaced_are_in_no_cache(tmp_path: Path) -> None:
    path, data = tmp_path / "encoder.safetensors", pytest.importorskip("datasets").Dataset(table_of(ROWS))
    data.save_to_disk(tmp_path / "data")  # only then there is a cache, of files
    data = data.load_from_disk(tmp_path / "data").with_format("arrow")
    for seed in (SEED, SEED + 1):
        encoder = Encoder.from_seed(seed, D, H)
        encoder.save(path)
        featured = data.map(BatchFeaturizer(path, window_shape=SHAPE), batched=True)
        expected = encode(encoder, ROWS, window_shape=SHAPE)
        assert np.array_equal(features_of(featured.with_format("arrow")[:]), expected)


@pytest.mark.soak
def test_another_process_unpickles_without_starting_jax_and_gives_the_same_bits() -> None:
    featurizer, table = featurizer_of(), table_of(ROWS)
    assert featurizer(table).num_rows == len(ROWS)  # what it has made by now does not travel
    code = (
        "import pickle, sys; featurizer, table = pickle.load(sys.stdin.buffer);"
        "import jax; jax.config.update('jax_num_cpu_devices', 3); result = featurizer(table);"
        "sys.stdout.buffer.write(pickle.dumps((jax.local_device_count(), result)))"
    )
    own = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    given_in = pickle.dumps((featurizer, table))
    run = subprocess.run([sys.executable, "-c", code], input=given_in, capture_output=True, env=own, timeout=120)
    assert run.returncode == 0, run.stderr.decode()
    devices, result = pickle.loads(run.stdout)
    assert devices == 3 and result.equals(featurizer(table))


def test_outside_of_an_actor_the_class_for_ray_is_a_batch_featurizer() -> None:
    assert FeaturizeBatches(encoder_of(), window_shape=SHAPE)(table_of(ROWS)).equals(featurizer_of()(table_of(ROWS)))


class OwnCell(nnx.SimpleCell):
    """A cell that no file can hold."""


def doubled(encoder: Encoder) -> None:
    kernel = encoder.cell.dense_h.kernel
    kernel[...] = 2 * kernel[...]


class Headed(Encoder):
    """An encoder with a layer of its own."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        self.head = nnx.Linear(H, 2, rngs=nnx.Rngs(0))

    def readout(self, state: Any) -> jax.Array:
        return self.head(super().readout(state))  # type: ignore[no-any-return]


def doubled_head(encoder: Encoder) -> None:
    assert isinstance(encoder, Headed)
    encoder.head.kernel[...] *= 2


def filled(encoder: Encoder) -> None:
    encoder.fill = 0.5


def doubled_in_place(encoder: Encoder) -> None:
    kernel = encoder.cell.dense_h.kernel.get_value()
    kernel *= 2


def fresh() -> Encoder:
    return Encoder.from_seed(SEED, D, H)


def of_numpy() -> Encoder:
    encoder = fresh()
    encoder.cell.dense_h.kernel.set_value(np.array(encoder.cell.dense_h.kernel[...]))
    return encoder


@pytest.mark.parametrize(
    ("make", "change", "hashes"),
    [
        (fresh, doubled, 2),
        (fresh, filled, 2),
        (of_numpy, doubled_in_place, 4),
        (lambda: Encoder(drawn(OwnCell, D, H)), doubled, 4),
        (lambda: Headed(drawn(nnx.GRUCell, D, H)), doubled_head, 4),
    ],
)
def test_an_encoder_that_is_changed_between_batches_gives_its_new_features(
    make: Callable[[], Encoder], change: Callable[[Encoder], None], hashes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    own = Encoder.fingerprint.fget
    monkeypatch.setattr(Encoder, "fingerprint", property(lambda self: hashed.append(own(self)) or hashed[-1]))
    encoder = make()
    featurizer = BatchFeaturizer(encoder, window_shape=SHAPE)
    for _ in range(2):
        for _ in range(2):
            told = features_of(featurizer(table_of(ROWS)))
            assert told.tobytes() == encode(encoder, ROWS, window_shape=SHAPE).tobytes()
        change(encoder)
    assert len(hashed) == hashes, "the fingerprint is computed where something may be other than before, and only there"
