"""A session model of item ids and dwell times computes what PyTorch's does, and tables that do not fit are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from stepping import TOLERANCE

from scanrnn_dist.api import encode
from scanrnn_dist.cli.app import run
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.input_spec import Category, InputSpec, Number
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.weights import from_torch, torch_layers

ITEMS, DIMENSION, H = 10_000, 16, 32
SPEC = InputSpec((Category("item_id", size=9, encode="embedding", dimension=2), Number("dwell")))


def state(**changes: Any) -> dict[str, np.ndarray]:
    """A state dict of an embedding of 9 items and a GRU."""
    rng = np.random.default_rng(0)
    shapes = {
        "embedding.weight": (9, 2),
        "gru.weight_ih_l0": (12, 3),
        "gru.weight_hh_l0": (12, 4),
        "gru.bias_ih_l0": (12,),
        "gru.bias_hh_l0": (12,),
        "head.weight": (5, 4),
        "head.bias": (5,),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | changes


@pytest.mark.parametrize("kind", ["GRU", pytest.param("LSTM", marks=pytest.mark.soak)])
@pytest.mark.usefixtures("compiled_quickly")
def test_a_session_model_gives_the_features_of_torch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(ITEMS, DIMENSION, padding_idx=0)
    rnn = getattr(torch.nn, kind)(DIMENSION + 1, H, num_layers=2, bidirectional=kind == "LSTM")
    model = torch.nn.ModuleDict({"embedding": embedding, "rnn": rnn, "head": torch.nn.Linear(H, ITEMS)})
    spec = InputSpec((Category("item_id", size=ITEMS, encode="embedding", dimension=DIMENSION), Number("dwell")))
    rng = np.random.default_rng(0)
    rows = [spec.drawn(rng, (length,)) for length in [1, 7, 30, 2, *rng.integers(1, 60, 20).tolist()]]
    rows[0][0, 0], rows[1][-1, 0] = 0, ITEMS - 1

    def joined(row: np.ndarray) -> Any:
        return torch.cat([embedding(torch.from_numpy(row[:, 0]).long()), torch.from_numpy(row[:, 1:])], 1)

    with torch.no_grad():
        final = rnn(torch.nn.utils.rnn.pack_sequence([joined(row) for row in rows], enforce_sorted=False))[1]
    final = (final[0] if kind == "LSTM" else final)[-2 if kind == "LSTM" else -1 :]
    wanted = final.transpose(0, 1).reshape(len(rows), -1).numpy()
    encoder = from_torch(model.state_dict(), input=spec, embeddings={"item_id": "embedding"})
    np.testing.assert_allclose(encode(encoder, Ragged.from_sequences(rows)), wanted, rtol=0, atol=TOLERANCE)


def test_a_table_is_found_by_its_shape_or_named() -> None:
    encoder = from_torch(state(), input=SPEC)
    np.testing.assert_array_equal(encoder.step_input.named_tables()["input.item_id"][...], state()["embedding.weight"])  # type: ignore[union-attr]
    rows = np.float32([[3, 0.5], [8, -1]])
    plain = Encoder(torch_layers(state()))
    np.testing.assert_array_equal(
        encoder(rows), plain(np.concatenate([state()["embedding.weight"][[3, 8]], rows[:, 1:]], 1))
    )
    two = state(**{"output.weight": np.ones((9, 2), np.float32)})
    with pytest.raises(ConfigError, match=r"several tables \(9, 2\): .*'output\.weight'\].*--embedding item_id="):
        from_torch(two, input=SPEC)
    spaced = InputSpec((replace(SPEC.columns[0], name="item id"), *SPEC.columns[1:]))
    with pytest.raises(ConfigError, match=r"by --embedding 'item id=NAME' / embeddings"):
        from_torch(two, input=spaced)
    for name in ("output", "output.weight"):
        fingerprint = from_torch(two, input=SPEC, embeddings={"item_id": name}).fingerprint
        assert fingerprint != from_torch(two, input=SPEC, embeddings={"item_id": "embedding"}).fingerprint


def test_what_is_no_array_is_passed_over() -> None:
    torch = pytest.importorskip("torch")
    other = {"epoch": 3, "sizes": [[1, 2], [3]], "moments": [torch.zeros(2), torch.zeros(3)]}
    assert (
        from_torch({"model": state(), **other}, input=SPEC).fingerprint == from_torch(state(), input=SPEC).fingerprint
    )
    rnn = {name: array for name, array in state().items() if name.startswith("gru.")}
    bare = {name.removeprefix("gru."): array for name, array in rnn.items()}
    assert from_torch(bare | other).fingerprint == from_torch(rnn).fingerprint
    with pytest.raises(DataError, match=r"weights in parts, .*: weight_hh_l0_raw\."):
        from_torch({**bare, "weight_hh_l0_raw": other["moments"]})


def test_an_embedding_beside_a_bare_rnn_is_no_surplus_weight() -> None:
    bare = {name.removeprefix("gru."): array for name, array in state().items() if not name.startswith("head.")}
    assert from_torch(bare, input=SPEC).fingerprint == from_torch(state(), input=SPEC).fingerprint


def test_columns_of_one_shape_want_their_names() -> None:
    spec = InputSpec((*SPEC.columns[:1], Category("shop", size=9, encode="embedding", dimension=2)))
    weights = state(**{"gru.weight_ih_l0": np.ones((12, 4), np.float32)})
    with pytest.raises(ConfigError, match=r"table 'embedding\.weight', which several columns could have"):
        from_torch(weights, input=spec)
    shared = from_torch(weights, input=spec, embeddings={"item_id": "embedding", "shop": "embedding"})
    assert len(shared.step_input.tables) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("weights", "embeddings", "error", "message"),
    [
        ({"embedding.weight": np.zeros((8, 2), "f4")}, {}, ConfigError, r"holds no table \(9, 2\); it holds embeddin"),
        ({"embedding.weight": np.zeros((8, 2), "f4")}, {"item_id": "embedding"}, DataError,
         r"Column 'item_id': .*embedding\.weight: \(8, 2\), expected \(9, 2\).*one row for each id, and one more with"),
        ({}, {"item_id": "items"}, ConfigError, r"holds no table 'items' for column 'item_id'; it holds embed"),
        ({}, {"dwell": "embedding"}, ConfigError, r"'dwell' is no column with an embedding; those .* \['item_id'\]"),
        ({"embedding.weight": np.full((9, 2), np.nan, "f4")}, {}, DataError, "holds a NaN"),
        ({"embedding.weight": np.full((9, 2), 0.1)}, {}, DataError, "float64 holds numbers that float32 cannot"),
        ({"gru.weight_ih_l0": np.zeros((12, 5), "f4")}, {}, ConfigError, "first layer takes 5 numbers per step, and"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(weights: Any, embeddings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        from_torch(state(**weights), input=SPEC, embeddings=embeddings)


def test_embeddings_belong_to_an_input() -> None:
    with pytest.raises(ConfigError, match="given without an input"):
        from_torch(state(), embeddings={"item_id": "embedding"})


TOML = """
[[column]]
name = "item_id"
kind = "category"
size = 9
encode = "embedding"
dimension = 2

[[column]]
name = "dwell"
kind = "number"
"""


def test_the_command_line_imports_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.toml").write_text(TOML)
    safetensors.numpy.save_file(state(), tmp_path / "model.safetensors")
    command = ["encoder", "convert", tmp_path / "model.safetensors", tmp_path / "e.safetensors", "--from", "torch"]
    command += ["--input", tmp_path / "spec.toml", "--embedding", "item_id=embedding.weight"]
    assert run([str(word) for word in command]) == 0
    assert Encoder.load(tmp_path / "e.safetensors").fingerprint == from_torch(state(), input=SPEC).fingerprint
    capsys.readouterr()
    assert run([*map(str, command[:-1]), "item_id", "--force"]) == 2
    assert "--embedding is 'item_id'; expected COLUMN=NAME" in capsys.readouterr().err
