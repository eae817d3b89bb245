"""Training an encoder and judging features, by the scripts themselves and by their functions on 1 and 8 devices."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import sys
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx
from pyarrow.fs import FileSystem
from s3_server import S3Server
from sources import SEQUENCE, mesh_of

import scanrnn_dist as srd
from scanrnn_dist.encoder.file import variables_of
from scanrnn_dist.engine import replicated, sharded
from scanrnn_dist.input_spec import Category, InputSpec, Number
from scanrnn_dist.records import Output
from scanrnn_dist.records.output import DTYPES, LAYOUTS

optax = pytest.importorskip("optax", reason="of the extra [train]")
pytest.importorskip("sklearn", reason="of the extra [train]")

PIPELINES = Path(__file__).parent.parent / "pipelines"
KINDS = ("falling", "flat", "rising")
DEVICES_TOLERANCE = 1e-5
"""Relative to the largest weight, after 9 steps: devices only change the order of float32 sums, 1e-7 of a gradient, and
Adam divides by the gradient's size, so that small entries are hit harder."""


def script(name: str) -> ModuleType:
    """A pipeline as a module."""
    spec = importlib.util.spec_from_file_location(name, PIPELINES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


train_encoder, evaluate_features = script("train_encoder"), script("evaluate_features")


@pytest.fixture(autouse=True)
def lenient_promotion() -> Iterator[None]:
    """Optax raises a float to the power of a step count, which is an integer."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def write_source(path: Path, rows: int, seed: int) -> None:
    """Noisy slopes of three kinds, far from zero and of different scales; their lengths are of two buckets."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, rows)
    sequences = []
    for kind in kinds:
        time = np.arange(rng.integers(5, 17))
        slope = (kind - 1) * time + 0.3 * rng.standard_normal(len(time))
        sequences.append(np.stack([100 + slope, 0.01 * rng.standard_normal(len(time))], 1).tolist())
    columns = {"kind": [KINDS[kind] for kind in kinds], "sequence": pa.array(sequences, SEQUENCE)}
    columns["score"] = rng.standard_normal(rows)
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slopes")
    for split, rows in (("train", 90), ("test", 60)):
        (folder / f"split={split}").mkdir()
        write_source(folder / f"split={split}" / "a.parquet", rows, seed=rows)
    return folder


def run_here(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: object) -> None:
    """Run a script in this process, whose devices are given, on two of them."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(len(jax.devices())))
    monkeypatch.setattr(srd, "default_mesh", lambda: mesh_of(2))
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
    script.main()


@pytest.mark.usefixtures("compiled_quickly")
def test_train_featurize_evaluate(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--label", "kind", "--hidden", 16, "--epochs", 15)
    run_here(monkeypatch, train_encoder, source / "split=train", tmp_path / "a.safetensors", *options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "90 rows of 2 features, 3 classes, 2 devices"
    assert lines[1].startswith("epoch 1/15: loss ") and lines[15].startswith("epoch 15/15: loss ")
    rows, labels, _ = train_encoder.read_labelled(source / "split=train", "kind", None)
    settings = train_encoder.Settings(hidden=16, epochs=15)
    train_encoder.train(rows, labels, settings, mesh_of(2), lambda line: None).save(tmp_path / "b.safetensors")
    by_script, by_call = (srd.Encoder.load(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert by_script.fingerprint == by_call.fingerprint
    srd.featurize(srd.Encoder.load(tmp_path / "a.safetensors"), source, tmp_path / "trained")
    srd.featurize(srd.Encoder.from_seed(0, 2, 16), source, tmp_path / "random")
    run_here(monkeypatch, evaluate_features, tmp_path / "random", tmp_path / "trained", "--label", "kind")
    header, random, best = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "data set features train rows test rows train accuracy test accuracy"
    for line, name in ((random, "random"), (best, "trained")):
        assert line.split()[:4] == [str(tmp_path / name), "16", "90", "60"]
    assert float(best.split()[-1]) >= 0.9  # by chance 0.33
    two = f"{tmp_path / 'trained'},{tmp_path / 'random'}"
    assert evaluate_features.evaluate(two, "kind", "split")[1:4] == (16, 150, 150)


def test_numbers_that_float32_cannot_hold_are_rounded_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.array([9 * [[0.1, 0.5]], 9 * [[0.2, 0.5]]])
    pq.write_table(pa.table({"kind": ["a", "b"], "sequence": values.tolist()}), tmp_path / "a.parquet")
    options = (tmp_path / "a.parquet", tmp_path / "a.safetensors", "--label", "kind")
    monkeypatch.setattr(sys, "argv", ["train_encoder.py", *map(str, options)])
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(len(jax.devices())))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PIPELINES / "train_encoder.py"), run_name="__main__")
    assert ended.value.code == 3 and "Allow rounding with --lossy-cast" in capsys.readouterr().err
    taken = list[srd.Ragged]()

    def train(rows: srd.Ragged, *_: Any, **options: Any) -> srd.Encoder:
        taken.append(rows)
        return srd.Encoder.from_seed(0, 2, 2)

    monkeypatch.setattr(train_encoder, "train", train)
    run_here(monkeypatch, train_encoder, *options, "--lossy-cast")
    np.testing.assert_array_equal(taken[0].values, values.astype(np.float32).reshape(-1, 2))
    assert (tmp_path / "a.safetensors").exists()


@pytest.mark.soak
def test_one_device_equals_eight(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels, classes = train_encoder.read_labelled(source / "split=train", "kind", None)
    assert classes == list(KINDS)
    settings = train_encoder.Settings(hidden=8, epochs=3, batch=30)  # 30: not a multiple of the devices
    lines: dict[int, list[str]] = {1: [], 8: []}
    step, shares = train_encoder.train_step, list[float]()

    def train_step(model: Any, optimizer: Any, x: jax.Array, *others: jax.Array) -> Any:
        shares.append(len(x) / x.sharding.shard_shape(x.shape)[0])
        return step(model, optimizer, x, *others)

    monkeypatch.setattr(train_encoder, "train_step", train_step)
    encoders = [train_encoder.train(rows, labels, settings, mesh_of(n), lines[n].append) for n in lines]
    assert shares == 9 * [1] + 9 * [8], "each device has its share of the rows"
    one, eight = (variables_of(encoder) for encoder in encoders)
    for name in one:
        np.testing.assert_allclose(
            eight[name], one[name], rtol=0, atol=DEVICES_TOLERANCE * max(1, abs(one[name]).max())
        )
    assert len(lines[1]) == 3


def test_devices_exchange_sums_and_nothing_else(source: Path) -> None:
    rows, labels, _ = train_encoder.read_labelled(source / "split=train", "kind", None)
    mesh = mesh_of(8)
    model = train_encoder.Classifier(srd.Encoder.from_seed(0, 2, 2), 2, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    for module in (model, optimizer):
        nnx.update(module, jax.device_put(nnx.state(module), replicated(mesh)))
    batch = jax.device_put(train_encoder.padded(rows, labels, np.arange(16), 16), sharded(mesh))
    program = train_encoder.train_step.lower(model, optimizer, *batch).compile().as_text()
    assert "all-reduce" in program
    assert not [name for name in ("all-gather", "all-to-all", "collective-permute") if name in program]


def test_the_scaling_is_folded_into_the_cell() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((9, 3)) * [1, 10, 0.1] + [5, 0, -1]).astype(np.float32)
    encoder = srd.Encoder.from_seed(0, 3, 5)
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    wanted = encoder(((x - mean) / scale).astype(np.float32))
    train_encoder.fold_scaling(encoder.cell, mean, scale)
    np.testing.assert_allclose(encoder(x), wanted, rtol=0, atol=1e-5)  # float32 of values up to 50, in the products


@pytest.mark.usefixtures("compiled_quickly")
def test_a_constant_far_from_zero_is_trained_with() -> None:
    rng = np.random.default_rng(0)
    near = [(rng.standard_normal((9, 2)) * [1, 0] + [0, 1e7]).astype(np.float32) for _ in range(4)]
    rows = srd.Ragged.from_sequences(near)
    settings = train_encoder.Settings(hidden=16, epochs=45)  # so many classes, units and steps as above: compiled once
    encoder = train_encoder.train(rows, np.arange(4, dtype=np.int32) % 3, settings, mesh_of(2), lambda line: None)
    assert abs(np.asarray(encoder.cell.dense_i.kernel[...])[1]).max() < 1e-6


def test_means_too_far_from_zero_to_be_folded_are_refused_before_the_training() -> None:
    rng, base = np.random.default_rng(0), 1e5
    near = [(rng.standard_normal((9, 2)) * [1, 3] + [0, 900]).astype(np.float32) for _ in range(4)]
    labels, settings = np.arange(4, dtype=np.int32) % 2, train_encoder.Settings(hidden=2, epochs=1)
    train_encoder.check_foldable(*train_encoder.scaling_of(srd.Ragged.from_sequences(near), None), None)
    far = srd.Ragged.from_sequences([row + np.float32([0, base]) for row in near])
    lines = list[str]()
    with pytest.raises(srd.DataError, match=r"^Feature 1 has the mean 100,9.* and .* --statistics --output FILE"):
        train_encoder.train(far, labels, settings, mesh_of(1), lines.append)
    named = InputSpec((Number("x"), Number("pressure")))
    with pytest.raises(srd.DataError, match=r"^Column 'pressure' has the mean "):
        train_encoder.train(far, labels, settings, mesh_of(1), lines.append, named)
    assert not lines


ITEMS, ELSEWHERE = 15, 5
SESSIONS = InputSpec(
    (
        Number("dwell"),
        Category("item", size=ITEMS, encode="embedding", dimension=8, unknown="zeros"),
        Category("device", values=("phone", "tablet"), unknown="own"),
    )
)


def sessions(rows: int, seed: int) -> tuple[srd.Ragged, np.ndarray]:
    """Travelling steps of sessions, and a class that the items alone tell: whether more of them are even or odd.

    The last few items never occur, dwell times are far from zero, and some items are unknown.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 2, rows).astype(np.int32)
    each = []
    for kind in kinds:
        steps = int(rng.integers(4, 9))
        x = SESSIONS.drawn(rng, (steps,))
        x[:, 0] = 1000 + 300 * x[:, 0]
        like = np.where(rng.random(steps) < 0.97, kind, 1 - kind)
        x[:, 1] = np.where(rng.random(steps) < 0.1, -1, 2 * rng.integers(0, (ITEMS - ELSEWHERE) // 2, steps) + like)
        each.append(x)
    return srd.Ragged.from_sequences(each), kinds


@pytest.mark.usefixtures("compiled_quickly")
def test_tables_are_trained_along_with_the_cell(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    (rows, labels), (others, wanted) = sessions(200, 0), sessions(200, 1)
    settings, lines = train_encoder.Settings(hidden=16, epochs=10, learning_rate=0.01), list[str]()
    trained = train_encoder.train(rows, labels, settings, mesh_of(1), lines.append, input=SESSIONS)
    trained.save(tmp_path / "e.safetensors")
    loaded = srd.Encoder.load(tmp_path / "e.safetensors")
    assert loaded.input == SESSIONS and len(lines) == 10
    # The last epoch's accuracy is of standardised steps, those of the features are of raw ones.
    features, unseen = srd.encode(loaded, rows), srd.encode(loaded, others)
    accuracy = LogisticRegression(max_iter=1000).fit(features, labels).score(unseen, wanted)
    assert accuracy >= 0.95 and float(lines[-1].split()[-1]) >= 0.95  # untrained 0.52
    before = variables_of(srd.Encoder.from_seed(settings.seed, None, 16, input=SESSIONS))["input.item"]
    after = variables_of(loaded)["input.item"]
    np.testing.assert_array_equal(after[-ELSEWHERE:], before[-ELSEWHERE:])
    assert (after[:-ELSEWHERE] != before[:-ELSEWHERE]).any(1).mean() > 0.9


def test_ids_are_not_scaled_and_the_scaling_of_numbers_is_folded_into_their_place() -> None:
    rows, _ = sessions(9, 0)
    mean, scale = train_encoder.scaling_of(rows, SESSIONS)
    assert mean[0] > 500 and scale[0] > 100 and mean[1:].tolist() == [0, 0] and scale[1:].tolist() == [1, 1]
    encoder, x = srd.Encoder.from_seed(0, None, 5, input=SESSIONS), rows.row(0)
    wanted = encoder(((x - mean) / scale).astype(np.float32))
    widths = [column.width for column in SESSIONS.columns]
    train_encoder.fold_scaling(encoder.cell, np.repeat(mean, widths), np.repeat(scale, widths))
    np.testing.assert_allclose(encoder(x), wanted, rtol=0, atol=1e-5)  # float32 of values up to 2,000, in the products


def test_every_row_is_in_one_batch_and_few_lengths_are_compiled() -> None:
    lengths = np.random.default_rng(0).integers(0, 100, 205)
    batches = train_encoder.epoch_batches(lengths, 10, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(205))
    assert sorted(map(len, batches)) == [5] + 20 * [10]
    assert train_encoder.bucket(np.array([0, 1, 8, 9, 16, 17, 100])).tolist() == [8, 8, 8, 16, 16, 32, 128]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--label", "knd"), 2, "There is no column 'knd'; expected one of ['kind', 'sequence', 'score']"),
        (("--label", "score"), 2, "Column 'score' is double; expected classes"),
        (("--label", "kind", "--batch", 0), 2, "batch is 0; expected a number above 0"),
        (("--label", "kind", "--seed", -1), 2, "seed is -1; expected a whole number"),
        (("--label", "kind", "--sequence", "kind"), 3, "column 'kind' of"),
    ],
)
def test_wrong_training_arguments_are_told(
    options: tuple[object, ...], code: int, message: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (source / "split=train", tmp_path / "e.safetensors", *options)
    with pytest.raises(srd.ScanRNNError, match=re.escape(message)) as told:
        run_here(monkeypatch, train_encoder, *given)
    assert told.value.exit_code == code and not list(tmp_path.iterdir())


def test_a_place_that_no_encoder_can_be_written_to_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, message in ((tmp_path, "is a folder; expected the file"), (tmp_path / "no" / "e", "There is no folder")):
        with pytest.raises(srd.ConfigError, match=message):
            run_here(monkeypatch, train_encoder, tmp_path / "no source", path, "--label", "kind")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(srd.ConfigError, match="may not be written to"):
        run_here(monkeypatch, train_encoder, tmp_path / "no source", tmp_path / "e", "--label", "kind")


def features_file(path: Path, **columns: Any) -> str:
    rows = len(next(iter(columns.values())))
    features = pa.array(np.eye(rows, 2, dtype=np.float32).tolist(), pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"features": features, **columns}), path)
    return str(path)


def test_wrong_features_are_told(tmp_path: Path) -> None:
    path = features_file(tmp_path / "a.parquet", kind=["a", "b"], split=["train", "valid"])
    with pytest.raises(srd.ConfigError, match="has no column 'knd'; it has"):
        evaluate_features.evaluate(path, "knd", "split")
    with pytest.raises(srd.DataError, match=r"No row of .* has 'test' in column 'split'; its values are"):
        evaluate_features.evaluate(path, "kind", "split")
    with pytest.raises(srd.ConfigError, match="cannot be read as Parquet"):
        evaluate_features.evaluate(str(tmp_path / "none"), "kind", "split")
    (tmp_path / "half" / "__scanrnn").mkdir(parents=True)
    for half in (tmp_path / "half", (tmp_path / "half").as_uri()):
        with pytest.raises(srd.DataError, match="has no _SUCCESS"):
            evaluate_features.evaluate(str(half), "kind", "split")
    good = [0.0, 1.0]
    for vectors, bad in (([good, None, good], 1), ([good, [1.0, float("nan")], good], 1), ([None, None, None], 2)):
        features = pa.array(vectors, pa.list_(pa.float32(), 2))
        kinds = {"kind": ["a", "b", "a"], "split": ["train", "train", "test"]}
        pq.write_table(pa.table({"features": features, **kinds}), tmp_path / "c.parquet")
        with pytest.raises(srd.DataError, match=f"features of {bad} rows are null or not finite"):
            evaluate_features.evaluate(str(tmp_path / "c.parquet"), "kind", "split")
    alike = features_file(tmp_path / "b.parquet", kind=["a", "a", "b"], split=["train", "train", "test"])
    with pytest.raises(srd.DataError, match="expected two classes or more"):
        evaluate_features.evaluate(alike, "kind", "split")


def test_features_in_a_bucket_are_judged_if_they_are_whole(source: Path, s3: S3Server) -> None:
    destination = s3.uri("bucket/out")
    srd.featurize(srd.Encoder.from_seed(0, 2, 3), source, destination)
    assert evaluate_features.evaluate(destination, "kind", "split").features == 3
    filesystem, root = FileSystem.from_uri(destination)
    filesystem.delete_file(f"{root}/_SUCCESS")
    with pytest.raises(srd.DataError, match="has no _SUCCESS"):
        evaluate_features.evaluate(destination, "kind", "split")


@pytest.mark.parametrize("dtype", DTYPES)
def test_features_of_every_layout_are_judged_alike(source: Path, tmp_path: Path, dtype: str) -> None:
    encoder, results = srd.Encoder.from_seed(0, 2, 3), set()
    for layout in LAYOUTS:
        srd.featurize(encoder, source, tmp_path / layout, output=Output(layout, dtype))
        results.add(evaluate_features.evaluate(str(tmp_path / layout), "kind", "split")[1:])
    assert len(results) == 1 and results.pop()[0] == 3


def test_features_of_every_step_are_refused_as_such(source: Path, tmp_path: Path) -> None:
    srd.featurize(srd.Encoder.from_seed(0, 2, 3, readout="steps"), source, tmp_path / "out")
    with pytest.raises(srd.DataError, match=r"expected one vector in each row.*not one of each step"):
        evaluate_features.evaluate(str(tmp_path / "out"), "kind", "split")


@pytest.mark.parametrize(
    "values",
    [
        [0.5, 1.5, 0.5],
        [Decimal("0.5"), Decimal("1.5"), Decimal("0.5")],
        [date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 1)],
        [datetime(2020, 1, 1), datetime(2020, 1, 2), datetime(2020, 1, 1)],
        [b"a", b"b", b"a"],
    ],
    ids=lambda values: type(values[0]).__name__,
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, values: list[object]) -> None:
    path = features_file(tmp_path / "a.parquet", kind=values, split=["train", "train", "test"])
    with pytest.raises(srd.ConfigError, match="expected classes: strings, integers or booleans"):
        evaluate_features.evaluate(path, "kind", "split")


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_labels_are_texts_in_every_form(tmp_path: Path, kind: pa.DataType) -> None:
    labels = pa.array(["a", "b", "a"]).cast(kind)
    pq.write_table(pa.table({"kind": labels, "sequence": pa.array([[[0.5]]] * 3, SEQUENCE)}), tmp_path / "in.parquet")
    assert train_encoder.read_labelled(tmp_path / "in.parquet", "kind", None)[2] == ["a", "b"]
    path = features_file(tmp_path / "a.parquet", kind=labels, split=["train", "train", "test"])
    assert evaluate_features.evaluate(path, "kind", "split").features == 2


@pytest.mark.soak
def test_speakers_are_told_apart(shared_data: Path, tmp_path: Path) -> None:
    vowels = shared_data / "japanese_vowels"
    rows, labels, classes = train_encoder.read_labelled(vowels / "split=train", "label", None)
    assert (len(rows), len(classes)) == (270, 9)
    settings = train_encoder.Settings(hidden=256)
    encoder = train_encoder.train(rows, labels, settings, mesh_of(min(2, len(jax.devices()))), lambda line: None)
    srd.featurize(encoder, vowels, tmp_path / "trained", mesh=mesh_of(2))
    assert evaluate_features.evaluate(str(tmp_path / "trained"), "label", "split").test_accuracy >= 0.95


@pytest.mark.soak
def test_a_session_model_goes_from_two_list_columns_to_the_features_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rng, count, rows = np.random.default_rng(0), 100_000, 120
    lengths = rng.integers(0, 12, rows)
    items = [rng.integers(0, count, length).tolist() for length in lengths]
    dwell = [rng.exponential(30, length).tolist() for length in lengths]
    lists = {"item_id": pa.array(items, pa.list_(pa.int64())), "dwell": pa.array(dwell, pa.list_(pa.float64()))}
    bought = [bool(sum(row) % 2) for row in items]
    pq.write_table(pa.table({"session": range(rows), **lists, "bought": bought}), tmp_path / "sessions.parquet")
    (tmp_path / "spec.toml").write_text(
        f'[[column]]\nname = "item_id"\nkind = "category"\nsize = {count}\nencode = "embedding"\ndimension = 8\n'
        '[[column]]\nname = "dwell"\nkind = "number"\nlog1p = true\nmean = 3.0\nstd = 1.2\n'
    )
    spec = InputSpec.load(tmp_path / "spec.toml")
    trained = train_encoder.read_labelled(tmp_path / "sessions.parquet", "bought", None, spec)
    settings = train_encoder.Settings(hidden=16, epochs=1)
    train_encoder.train(*trained[:2], settings, mesh_of(2), lambda line: None, spec).save(tmp_path / "e.safetensors")
    encoder = srd.Encoder.load(tmp_path / "e.safetensors")
    srd.featurize(encoder, tmp_path / "sessions.parquet", tmp_path / "out", mesh=mesh_of(2))

    weights = {name: torch.from_numpy(array.copy()) for name, array in variables_of(encoder).items()}
    embedding = torch.nn.Embedding.from_pretrained(weights["input.item_id"])
    gru = torch.nn.GRU(9, 16)
    state = {"weight_ih_l0": weights["0.dense_i.kernel"].T, "bias_ih_l0": weights["0.dense_i.bias"],
             "weight_hh_l0": weights["0.dense_h.kernel"].T, "bias_hh_l0": torch.zeros(48)}  # fmt: skip
    gru.load_state_dict(state)
    wanted = np.zeros((rows, 16), np.float32)
    with torch.no_grad():
        for row in np.flatnonzero(lengths):
            scaled = torch.from_numpy(((np.log1p(dwell[row]) - 3.0) / 1.2).astype(np.float32))
            steps = torch.cat([embedding(torch.tensor(items[row])), scaled[:, None]], 1)
            wanted[row] = gru(steps)[1][0].numpy()
    features = np.stack(pq.read_table(tmp_path / "out")["features"].to_numpy())
    np.testing.assert_allclose(features, wanted, rtol=0, atol=2e-6)
