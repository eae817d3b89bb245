"""An `Encoder` is the cell of the specification, is differentiable, and survives its file bit for bit."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import shlex
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import safetensors.numpy
from cells import at_once, drawn
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from scanrnn_dist.encoder.architecture import with_recurrent_bias
from scanrnn_dist.encoder.encoder import Encoder, State
from scanrnn_dist.encoder.file import FORMAT, read_safetensors, variables_of
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.spec import scan_rnn_forward

TOLERANCE = 1e-6  # the bound of the design for float32 at precision "highest"
GRADIENT_TOLERANCE = (
    2e-5  # gradients here are below 10 and sum some tens of float32 terms, each right to 1e-7 of itself
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def parameters(module: nnx.Module) -> dict[str, np.ndarray]:
    """Every parameter by its path."""
    leaves = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}


def hard_encoder(seed: int = 0) -> Encoder:
    return Encoder(drawn(nnx.GRUCell, 3, 5, seed, gate_fn=jax.nn.hard_sigmoid))


def narrowed(arrays: Any, dtype: Any = None) -> Any:
    """A `promote_dtype` of one's own: products in bfloat16."""
    return tuple(None if array is None else array.astype(jnp.bfloat16) for array in arrays)


@pytest.mark.parametrize(
    ("seed", "D", "H"),
    [(7, 3, 5), *(pytest.param(*one, marks=pytest.mark.soak) for one in [(0, 1, 1), (1, 12, 64)])],
)
def test_the_seed_alone_fixes_the_weights(seed: int, D: int, H: int) -> None:
    ours = parameters(Encoder.from_seed(seed, D, H).cell)
    theirs = parameters(nnx.GRUCell(in_features=D, hidden_features=H, rngs=nnx.Rngs(seed)))
    assert ours.keys() == theirs.keys() and len(ours) == 3
    for name in ours:
        np.testing.assert_array_equal(ours[name].view(np.uint32), theirs[name].view(np.uint32))


@pytest.mark.parametrize("T", [20, *(pytest.param(T, marks=pytest.mark.soak) for T in (0, 1))])
def test_one_sequence_equals_the_specification(T: int) -> None:
    x = normal(T, 3)
    encoder = Encoder.from_seed(4, 3, 5)
    np.testing.assert_allclose(encoder(x), scan_rnn_forward(4, x, 5, T), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(encoder(x), oracle.gru(oracle.weights_of(encoder.cell), x), rtol=0, atol=TOLERANCE)


def test_a_cell_with_recurrent_biases_has_the_equations_of_other_frameworks() -> None:
    cell = drawn(nnx.GRUCell, 3, 5)
    cell.dense_h.use_bias, cell.dense_h.bias = True, nnx.Param(normal(15))
    x = normal(20, 3)
    np.testing.assert_allclose(Encoder(cell)(x), oracle.gru(oracle.weights_of(cell), x), rtol=0, atol=TOLERANCE)


def test_recurrent_biases_leave_a_cell_its_promote_dtype() -> None:
    cell = with_recurrent_bias(drawn(nnx.GRUCell, 3, 5, promote_dtype=narrowed))
    assert cell.dense_h.promote_dtype is narrowed


def test_a_hard_sigmoid_cell_has_its_equations() -> None:
    x = normal(20, 3)
    wanted = oracle.gru(oracle.weights_of(hard_encoder().cell), x, oracle.hard_sigmoid)
    np.testing.assert_allclose(hard_encoder()(x), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [pytest.param((4,), marks=pytest.mark.soak), (2, 3)])
def test_leading_axes_are_a_batch_and_nothing_beyond_a_length_counts(batch: tuple[int, ...]) -> None:
    encoder = Encoder.from_seed(0, 3, 5)
    x = normal(*batch, 9, 3)
    lengths = np.random.default_rng(1).integers(0, 10, batch).astype(np.int32)
    lengths.flat[0], lengths.flat[-1] = 0, 9
    features = encoder(x, lengths)
    assert features.shape == (*batch, 5)
    spoiled = x.copy()
    for at in np.ndindex(batch):
        spoiled[(*at, slice(lengths[at], None))] = np.nan
        wanted = oracle.gru(oracle.weights_of(encoder.cell), x[at][: lengths[at]])
        np.testing.assert_allclose(features[at], wanted, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(encoder(spoiled, lengths), features)
    np.testing.assert_array_equal(features[(0,) * len(batch)], np.zeros(5, np.float32))


@pytest.mark.usefixtures("compiled_quickly")
def test_seq_lengths_may_be_integers_of_any_width() -> None:
    encoder = Encoder.from_seed(4, 3, 5, cell="rnn", bidirectional=True)
    x, lengths = normal(3, 700, 3), [5, 0, 100]
    wanted = encoder(x, np.array(lengths))
    for dtype in (np.int8, np.uint32):
        np.testing.assert_array_equal(encoder(x, np.array(lengths, dtype)), wanted)


def test_without_seq_lengths_all_steps_count() -> None:
    encoder = Encoder.from_seed(0, 3, 5)
    x = normal(2, 3, 9, 3)
    wanted = oracle.gru_rows(encoder.cell, [*x.reshape(6, 9, 3)])
    np.testing.assert_allclose(at_once(encoder, x).reshape(6, 5), wanted, rtol=0, atol=TOLERANCE)


def finite_difference(function: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """Central differences of a float64 function: right to about 1e-9 with this step."""
    gradient = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        up, down = at.astype(np.float64), at.astype(np.float64)
        up[index] += 1e-5
        down[index] -= 1e-5
        gradient[index] = (function(up) - function(down)) / 2e-5
    return gradient


@pytest.mark.usefixtures("compiled_quickly")
def test_the_gradients_are_those_of_the_written_equations() -> None:
    encoder = Encoder.from_seed(0, 2, 3)
    mix, x = normal(3, seed=5), normal(6, 2)
    gradient = nnx.jit(nnx.grad(lambda encoder, x: jnp.dot(encoder(x), mix), argnums=(0, 1)))
    of_weights, of_x = gradient(encoder, x)
    gradients = parameters(of_weights)
    weights = oracle.weights_of(encoder.cell)
    wanted = finite_difference(lambda x: float(oracle.gru(weights, x) @ mix), x)
    np.testing.assert_allclose(of_x, wanted, rtol=0, atol=GRADIENT_TOLERANCE)
    for side, name in (
        ("i", "layers.0.dense_i.kernel"),
        ("h", "layers.0.dense_h.kernel"),
        ("b", "layers.0.dense_i.bias"),
    ):
        for gate, letter in enumerate("rzn"):
            key = f"b_i{letter}" if side == "b" else f"W_{side}{letter}"

            def loss(changed: np.ndarray, key: str = key) -> float:
                return float(oracle.gru({**weights, key: changed}, x) @ mix)

            columns = slice(3 * gate, 3 * gate + 3)
            wanted = finite_difference(loss, weights[key])
            np.testing.assert_allclose(gradients[name][..., columns], wanted, rtol=0, atol=GRADIENT_TOLERANCE)


def test_it_says_its_sizes() -> None:
    encoder = Encoder.from_seed(0, 3, 7)
    assert (encoder.in_features, encoder.out_features) == (3, 7)
    assert encoder.flops_per_step == 6 * 7 * (3 + 7)


def test_time_and_features_swapped_is_told_so() -> None:
    encoder = Encoder.from_seed(0, 3, 5)
    with pytest.raises(
        ConfigError, match=r"\(3, 10\); expected \(\.\.\., T, 3\), features last\. .*\(D, T\); .*: pass x\.T"
    ):
        encoder(normal(3, 10))
    with pytest.raises(ConfigError, match=r"expected \(\.\.\., T, 3\), features last\.$"):
        encoder(normal(4, 10))


@pytest.mark.parametrize(("shape", "lengths"), [((3,), None), ((2, 4, 3), [1]), ((4, 3), [4])])
def test_axes_that_do_not_fit_are_refused(shape: tuple[int, ...], lengths: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Encoder.from_seed(0, 3, 5)(normal(*shape), lengths)


@pytest.mark.parametrize(("D", "H", "name"), [(0, 4, "in_features"), (3, -1, "hidden_features")])
def test_sizes_below_one_are_refused(D: int, H: int, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*; expected 1 or more"):
        Encoder.from_seed(0, D, H)


def test_what_is_no_cell_of_one_carry_is_refused() -> None:
    with pytest.raises(ConfigError, match="is Linear; expected a flax"):
        Encoder(nnx.Linear(3, 4, kernel_init=nnx.initializers.zeros_init(), rngs=nnx.Rngs(0)))
    for given, says in (
        (None, "is NoneType"),
        (nnx.GRUCell, "is ModuleMeta"),
        ("gru", r"is 'gru'; .* Encoder\.from_seed"),
    ):
        with pytest.raises(ConfigError, match=f"The cell {says}"):
            Encoder(given)  # type: ignore[arg-type]


def test_a_cell_that_lacks_a_method_is_told_which() -> None:
    class Half(nnx.RNNCellBase):
        in_features = 3

    with pytest.raises(ConfigError, match=r"Half has no initialize_carry\(input_shape, rngs\); give it one"):
        Encoder(Half())
    Half.initialize_carry = lambda self, input_shape, rngs=None: jnp.zeros(2)  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigError, match=r"Half has no __call__\(carry, inputs\); give it one"):
        Encoder(Half())


# Fingerprints


def test_equal_encoders_have_equal_fingerprints() -> None:
    assert Encoder.from_seed(3, 4, 5).fingerprint == Encoder.from_seed(3, 4, 5).fingerprint


def changed_weight() -> Encoder:
    encoder = Encoder.from_seed(0, 3, 5)
    kernel = encoder.cell.dense_h.kernel
    kernel[...] = kernel[...].at[1, 2].add(1e-6)
    return encoder


@pytest.mark.parametrize(
    "other",
    [
        changed_weight,
        lambda: Encoder.from_seed(1, 3, 5),
        lambda: Encoder.from_seed(0, 4, 5),
        lambda: Encoder.from_seed(0, 3, 6),
    ],
)
def test_whatever_changes_the_features_changes_the_fingerprint(other: Callable[[], Encoder]) -> None:
    assert other().fingerprint != Encoder.from_seed(0, 3, 5).fingerprint


def gru(**options: Any) -> Encoder:
    return Encoder(drawn(nnx.GRUCell, 3, 5, **options))


def simple(**options: Any) -> Encoder:
    return Encoder(drawn(nnx.SimpleCell, 3, 5, **options))


def seeded(**options: Any) -> Encoder:
    return Encoder.from_seed(0, 3, 5, **options)


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (gru, {"gate_fn": jax.nn.hard_sigmoid}),
        (gru, {"activation_fn": jax.nn.relu}),
        (simple, {"residual": True}),
        (seeded, {"dtype": "bfloat16"}),
        (seeded, {"readout": "mean"}),
        (seeded, {"initial_carry": 0.5}),
        (seeded, {"precision": "default"}),
        (seeded, {"scan": "nnx"}),
    ],
)
def test_each_option_changes_the_fingerprint(make: Callable[..., Encoder], option: dict[str, Any]) -> None:
    plain, other = make(), make(**option)
    jax.tree.map(np.testing.assert_array_equal, variables_of(plain), variables_of(other))  # the weights tell nothing
    assert plain.fingerprint != other.fingerprint


# The file


@pytest.mark.parametrize("make", [lambda: Encoder.from_seed(7, 3, 5), hard_encoder, changed_weight])
def test_the_file_gives_back_every_bit(make: Callable[[], Encoder], tmp_path: Path) -> None:
    encoder, path = make(), tmp_path / "encoder.safetensors"
    encoder.save(path)
    loaded = Encoder.load(path)
    before, after = parameters(encoder), parameters(loaded)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name].view(np.uint32), after[name].view(np.uint32))
    assert loaded.fingerprint == encoder.fingerprint
    x = normal(20, 3)
    np.testing.assert_array_equal(loaded(x), encoder(x))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_weights_that_a_cell_would_make_otherwise_are_not_saved_as_they_could_not_be_loaded(tmp_path: Path) -> None:
    encoder = Encoder.from_seed(0, 3, 8)
    nnx.update(encoder, jax.tree.map(lambda array: array.astype(jnp.bfloat16), nnx.state(encoder)))
    with pytest.raises(ConfigError, match=r"a weight is bfloat16\[8, 24\] where its cell makes float32\[8, 24\]"):
        encoder.save(tmp_path / "e.safetensors")
    with pytest.raises(ConfigError, match="a weight is bfloat16"):
        pickle.dumps(encoder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "array",
    [normal(15, 5).T, normal(10, 30)[::2, ::2], np.broadcast_to(normal(15), (5, 15))],
    ids=["transposed", "strided", "broadcast"],
)
def test_weights_that_numpy_holds_in_another_order_keep_their_places(array: np.ndarray, tmp_path: Path) -> None:
    encoder, path = Encoder.from_seed(0, 3, 5), tmp_path / "encoder.safetensors"
    encoder.cell.dense_h.kernel.set_value(array)
    assert encoder.cell.dense_h.kernel.get_value() is array and not array.flags.c_contiguous
    encoder.save(path)
    for again in (Encoder.load(path), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(again.cell.dense_h.kernel[...], array)
        assert again.fingerprint == encoder.fingerprint


def test_weights_that_were_written_otherwise_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, name = safetensors.numpy.save, "0.dense_i.bias"
    changed = lambda arrays, metadata: save({**arrays, name: arrays[name] + 1}, metadata)  # noqa: E731
    monkeypatch.setattr(safetensors.numpy, "save", changed)
    with pytest.raises(ConfigError, match=r"wrote other weights than it was given \(0\.dense_i\.bias\)"):
        Encoder.from_seed(0, 3, 5).save(tmp_path / "e.safetensors")
    assert not list(tmp_path.iterdir())


def test_save_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    Encoder.from_seed(0, 3, 5).save(path)
    Encoder.from_seed(1, 4, 6).save(str(path))
    assert Encoder.load(str(path)).fingerprint == Encoder.from_seed(1, 4, 6).fingerprint


def saved_parts(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Weights and metadata of a saved encoder, to be spoiled and written again."""
    encoder = Encoder.from_seed(0, 3, 5)
    encoder.save(path)
    weights = safetensors.numpy.load_file(path)
    return weights, {"format": FORMAT, "architecture": json.dumps(encoder.architecture)}


def test_a_missing_file_is_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no encoder file .*none\.safetensors"):
        Encoder.load(tmp_path / "none.safetensors")


def test_reading_a_file_takes_memory_for_its_weights_once(tmp_path: Path) -> None:
    right, wrong, size = tmp_path / "right.safetensors", tmp_path / "wrong.safetensors", 8_000_000
    safetensors.numpy.save_file({"a": np.ones(size // 8, np.float32), "b": np.ones(size // 8, np.float32)}, right)
    wrong.write_bytes(b"\xff" * size)

    def most_bytes(path: Path) -> int:
        """What reading holds at most; the pages of a file that is mapped are the system's."""
        tracemalloc.start()
        try:
            with contextlib.suppress(DataError):
                read_safetensors(path)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert size <= most_bytes(right) < 1.2 * size
    assert most_bytes(wrong) < 0.2 * size  # its header is read alone


@pytest.mark.parametrize("content", [b"", b"PAR1", bytes(64), b"\xff" * 64])
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"encoder\.safetensors is not a readable safetensors file"):
        Encoder.load(path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    saved_parts(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="not a readable safetensors file"):
        Encoder.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "scanrnn_dist.encoder/99"}])
def test_a_foreign_safetensors_file_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights, _ = saved_parts(path)
    safetensors.numpy.save_file(weights, path, metadata)
    told = "holds weights of a flax NNX state; expected an encoder file"
    if metadata and "scanrnn" in metadata["format"]:
        told = r"is of format 'scanrnn_dist\.encoder/99'; expected 'scanrnn_dist\.encoder/2'"
    with pytest.raises(DataError, match=rf"model\.safetensors {told}"):
        Encoder.load(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.pt", "holds weights of PyTorch"),
        ("a b.ckpt", "holds weights of PyTorch"),
        ("a.onnx", "holds weights of ONNX"),
        ("a.h5", "holds weights of Keras"),
        ("a.keras", "holds weights of Keras"),
        ("folder", "is a folder, such as one of Orbax"),
    ],
)
def test_a_file_of_another_framework_is_named_with_the_command_that_converts_it(
    name: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK") if path.suffix else path.mkdir()
    with pytest.raises(DataError) as raised:
        Encoder.load(path)
    what, _, command = str(raised.value).partition("; expected an encoder file. Convert them first: ")
    assert what == f"{path} {told}"
    words = shlex.split(command)[:7]
    assert words[:5] == ["scanrnn", "encoder", "convert", str(path), str(path.with_suffix(".safetensors"))]
    assert words[5] == "--from" and words[6] in told.lower().replace("pytorch", "torch")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop("0.dense_h.kernel"), r"0\.dense_h\.kernel: missing, expected \(\(5, 15\)"),
        (lambda weights: weights.update({"0.dense_i.bias": np.zeros(14, np.float32)}), r"0\.dense_i\.bias: \(\(14,\)"),
        (lambda weights: weights.update({"0.dense_i.bias": np.zeros(15, np.float16)}), r"0\.dense_i\.bias: .*float16"),
        (
            lambda weights: weights.update({"0.dense_h.bias": np.zeros(15, np.float32)}),
            r"0\.dense_h\.bias: .*expected none",
        ),
    ],
)
def test_a_wrong_weight_is_named(spoil: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    weights, metadata = saved_parts(path)
    spoil(weights)
    safetensors.numpy.save_file(weights, path, metadata)
    with pytest.raises(DataError, match=message):
        Encoder.load(path)


class OtherCell(nnx.GRUCell):
    """A cell whose equations a file could not say."""


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (lambda: drawn(OtherCell, 3, 5), r"the cell is '.*OtherCell'; a file holds only \['GRUCell', "),
        (
            lambda: drawn(nnx.GRUCell, 3, 5, gate_fn=jax.nn.softplus),
            "gate_fn is '.*softplus'; a file holds",
        ),
        (lambda: drawn(nnx.GRUCell, 3, 5, activation_fn=jnp.sin), "activation_fn is '"),
        (lambda: drawn(nnx.GRUCell, 3, 5, carry_init=nnx.initializers.ones_init()), "carry_init"),
        (lambda: drawn(nnx.GRUCell, 3, 5, promote_dtype=narrowed), "it has a promote_dtype of its own"),
    ],
)
@pytest.mark.filterwarnings("ignore:carry_init is provided")
def test_save_refuses_what_load_could_not_build(cell: Callable[[], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Encoder(cell()).save(tmp_path / "encoder.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_changed_function_layer_dtype_variable_or_readout_changes_the_fingerprint() -> None:
    class Scaled(nnx.GRUCell):
        def __init__(self, factor: float) -> None:
            super().__init__(3, 5, rngs=nnx.Rngs(0))
            self.factor = nnx.Variable(jnp.asarray(factor))

    class Doubled(Encoder):
        def readout(self, state: State) -> jax.Array:
            return jnp.concatenate([super().readout(state)] * 2)

    def gated(factor: float) -> nnx.GRUCell:
        return drawn(nnx.GRUCell, 3, 5, gate_fn=lambda a: jax.nn.sigmoid(factor * a))

    def plain() -> nnx.GRUCell:
        return drawn(nnx.GRUCell, 3, 5)

    bf16 = plain()
    bf16.dense_i.dtype = jnp.bfloat16
    encoders = [Encoder(gated(1.0)), Encoder(gated(2.0)), Encoder(Scaled(1.0)), Encoder(Scaled(0.5))]
    encoders += [Encoder(plain()), Encoder(bf16), Doubled(plain())]
    with jax.numpy_dtype_promotion("standard"):  # the bfloat16 layer meets float32 ones
        assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    assert Encoder(gated(2.0)).fingerprint == Encoder(gated(2.0)).fingerprint


@pytest.mark.filterwarnings("ignore:carry_init is provided")
def test_an_array_that_a_function_brings_along_changes_the_fingerprint() -> None:
    h0, w = np.float32([0.1, 0.2, 0.3, 0.4, 0.5]), jnp.asarray([1.0, -1.0, 0.5, 2.0, 3.0])

    def begun(h0: np.ndarray) -> nnx.GRUCell:
        return drawn(nnx.GRUCell, 3, 5, carry_init=lambda key, shape, dtype: jnp.asarray(h0))

    def squashed(w: jax.Array, jitted: bool = False) -> nnx.SimpleCell:
        function = (lambda x: jax.jit(lambda x: jnp.tanh(w * x))(x)) if jitted else (lambda x: jnp.tanh(w * x))
        return drawn(nnx.SimpleCell, 3, 5, activation_fn=function)

    cells = [begun(h0), begun(2 * h0), squashed(w), squashed(2 * w), squashed(w, True), squashed(2 * w, True)]
    assert len({Encoder(cell).fingerprint for cell in cells}) == len(cells)
    assert Encoder(begun(h0)).fingerprint == Encoder(begun(h0.copy())).fingerprint


ANOTHER_PROCESS = """
import functools, jax
from cells import drawn
from flax import nnx
from scanrnn_dist import Encoder
class Sharp:
    def __call__(self, x): return jax.nn.relu(2 * x)
for function in (functools.partial(jax.nn.leaky_relu, negative_slope=0.1), Sharp()):
    print(Encoder(drawn(nnx.SimpleCell, 2, 3, activation_fn=function)).fingerprint)
named = drawn(nnx.SimpleCell, 2, 3)
named.words = frozenset({"one", "two", "three", "four", "five"})
print(Encoder(named).fingerprint)
"""


def test_functions_without_a_name_and_sets_have_the_same_fingerprint_in_every_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exec(ANOTHER_PROCESS, {"__name__": "__main__"})
    here = capsys.readouterr().out
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    told = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS], capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert told.stdout == here and len(set(here.split())) == 3, told.stderr


class OfJAX:
    """An object whose `dtype` is none of numpy's."""

    dtype = jnp.float32

    def __repr__(self) -> str:
        return "OfJAX"


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (OfJAX(), "OfJAX"),
        ({"unit": "s"}, "{'unit': 's'}"),
        ({"b", "a"}, ["'a'", "'b'"]),
        (jnp.bfloat16, "bfloat16"),
        (np.dtype("float16"), "float16"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_cell_may_have_attributes_of_any_kind(value: Any, described: Any) -> None:
    cell = drawn(OtherCell, 3, 5)
    cell.own = value
    encoder = Encoder(cell)
    assert encoder.architecture["layers"][0]["own"] == described and len(encoder.fingerprint) == 64


def test_variables_of_a_class_of_ones_own_change_the_fingerprint() -> None:
    class Own(Encoder):
        def __init__(self, of_layer: float, of_array: float, seed: int) -> None:
            super().__init__(drawn(nnx.GRUCell, 3, 5))
            self.head = nnx.Linear(5, 2, rngs=nnx.Rngs(0))
            self.head.kernel[...] *= of_layer
            self.first, self.key = np.full(5, of_array, np.float32), jax.random.key(seed)

        def readout(self, state: State) -> jax.Array:
            noise = jax.random.normal(self.key, (2,))
            return self.head(super().readout(state) + self.first) + noise  # type: ignore[no-any-return]

    encoders = [Own(1, 1, 0), Own(2, 1, 0), Own(1, 2, 0), Own(1, 1, 1)]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    assert Own(2, 1, 0).fingerprint == encoders[1].fingerprint


def test_what_is_done_with_a_carry_that_a_row_brings_changes_the_fingerprint() -> None:
    def begun(of_given: Callable[[jax.Array], jax.Array]) -> Encoder:
        class Begun(Encoder):
            def initial_state(self, carry: jax.Array | None = None) -> State:
                return super().initial_state(None if carry is None else of_given(carry))

        return Begun(drawn(nnx.GRUCell, 3, 5))

    def refused(carry: jax.Array) -> jax.Array:
        raise NotImplementedError("no carries")

    done = (lambda carry: carry, lambda carry: 2 * carry, lambda carry: carry + np.arange(5, dtype=np.float32), refused)
    assert len({begun(each).fingerprint for each in done}) == len(done)
    assert begun(done[1]).fingerprint == begun(lambda carry: 2 * carry).fingerprint


def test_a_class_that_is_called_with_steps_alone_has_a_fingerprint() -> None:
    class Narrow(Encoder):
        def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
            return super().__call__(x)

    assert len(Narrow(drawn(nnx.GRUCell, 3, 5)).fingerprint) == 64


def test_save_refuses_a_cell_or_a_readout_that_load_would_lose(tmp_path: Path) -> None:
    class Doubled(Encoder):
        def readout(self, state: State) -> jax.Array:
            return jnp.concatenate([super().readout(state)] * 2)

    odd = drawn(nnx.GRUCell, 3, 5)
    odd.dense_i = nnx.Linear(3, 15, use_bias=False, rngs=nnx.Rngs(0))
    assert type(Doubled.from_seed(0, 3, 5)) is Doubled
    for encoder, message in ((Doubled.from_seed(0, 3, 5), "class of its own"), (Encoder(odd), "were changed")):
        with pytest.raises(ConfigError, match=message):
            encoder.save(tmp_path / "encoder.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_readout_of_a_subclass_may_need_what_is_set_after_the_encoder_is_made() -> None:
    class Repeated(Encoder):
        def __init__(self, cell: nnx.RNNCellBase, times: int) -> None:
            super().__init__(cell)
            self.times = times

        def readout(self, state: State) -> jax.Array:
            return jnp.concatenate([super().readout(state)] * self.times)

    encoder = Repeated(drawn(nnx.GRUCell, 3, 5), times=3)
    assert encoder.out_features == encoder(jnp.ones((4, 3))).size == 15


@pytest.mark.parametrize(
    "architecture", [None, "{", "[]", '{"layers": [{"cell": "GRUCell"}]}', '{"layers": [{"cell": "OtherCell"}]}']
)
def test_load_names_a_file_whose_architecture_is_damaged(architecture: str | None, tmp_path: Path) -> None:
    metadata = {"format": FORMAT} | ({} if architecture is None else {"architecture": architecture})
    safetensors.numpy.save_file({}, tmp_path / "damaged.safetensors", metadata)
    with pytest.raises(DataError, match=r"damaged\.safetensors has a damaged or unknown architecture"):
        Encoder.load(tmp_path / "damaged.safetensors")


def test_an_architecture_larger_than_its_file_is_refused_before_it_is_built(tmp_path: Path) -> None:
    encoder = Encoder.from_seed(0, 2, 3)
    (layer,) = encoder.architecture["layers"]
    architecture = {**encoder.architecture, "layers": [{**layer, "hidden_features": 10**9}]}
    metadata = {"format": FORMAT, "architecture": json.dumps(architecture)}
    safetensors.numpy.save_file(variables_of(encoder), tmp_path / "a.safetensors", metadata)
    with pytest.raises(DataError, match=r"holds other weights .*: 54 numbers, expected 3,0"):
        Encoder.load(tmp_path / "a.safetensors")


def test_a_file_has_the_mode_of_other_new_files_and_needs_its_folder(tmp_path: Path) -> None:
    Encoder.from_seed(0, 3, 5).save(tmp_path / "encoder.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "encoder.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    with pytest.raises(ConfigError, match="There is no folder"):
        Encoder.from_seed(0, 3, 5).save(tmp_path / "missing" / "encoder.safetensors")


@pytest.mark.parametrize(
    "lengths",
    [
        *(np.array([-1, 2]), np.array([1, 9]), np.array([1.5, 2.0]), np.array([1])),
        *(np.array([2**32 + 1, 2**32]), [1, 2**32], [1, np.int64(2**32)], np.array([1, 2**63], np.uint64)),
    ],
)
def test_lengths_that_no_row_can_have_are_refused(lengths: Any) -> None:
    with pytest.raises(ConfigError, match="seq_lengths"):
        Encoder.from_seed(0, 3, 5)(np.zeros((2, 4, 3), np.float32), lengths)


WIDE = 3_000_000_000


@pytest.mark.parametrize(
    "x", [np.array([[WIDE]]), np.array([[2**63]], np.uint64), [[WIDE]], np.array([[True]]), jnp.array([[7]], jnp.int8)]
)
def test_wide_integers_are_the_floats_that_they_are_for_the_specification(x: Any) -> None:
    np.testing.assert_array_equal(Encoder.from_seed(0, 1, 2)(x), Encoder.from_seed(0, 1, 2)(np.array(x, np.float32)))


class OfAnotherLibrary:
    """An array that says how it becomes one of JAX, and is none of numpy."""

    def __jax_array__(self) -> jax.Array:
        return jnp.ones((4, 3))


def test_arrays_of_other_libraries_are_taken_as_jax_takes_them() -> None:
    encoder = Encoder.from_seed(0, 3, 2)
    np.testing.assert_array_equal(encoder(OfAnotherLibrary()), encoder(np.ones((4, 3))))


def test_so_are_those_of_an_initial_carry() -> None:
    encoder, x, carry = Encoder.from_seed(0, 1, 2), np.ones((1, 1), np.float32), np.array([WIDE, -WIDE])
    np.testing.assert_array_equal(encoder(x, None, carry), encoder(x, None, carry.astype(np.float32)))


@pytest.mark.parametrize("array", [np.array([[1 + 2j]]), jnp.array([[1 + 2j]]), np.array([["a"]]), np.array([[None]])])
def test_what_is_no_real_number_is_refused(array: Any) -> None:
    with pytest.raises(ConfigError, match="x is of dtype"):
        Encoder.from_seed(0, 1, 1)(array)
    with pytest.raises(ConfigError, match="initial_carry is of dtype"):
        Encoder.from_seed(0, 1, 1)(np.ones((1, 1)), None, array[0])


def test_numbers_of_float64_are_computed_on_in_the_dtype_of_the_encoder() -> None:
    x = normal(9, 3).astype(np.float64) / 3
    with jax.enable_x64(True):
        for dtype in (np.float32, np.float64):
            encoder = Encoder(drawn(nnx.GRUCell, 3, 5, param_dtype=dtype), readout="steps")
            wanted = encoder(x.astype(dtype))
            for given in (x, jnp.asarray(x)):
                found = encoder(given)
                assert found.dtype == dtype
                np.testing.assert_array_equal(found, wanted)
            gradient = jax.eval_shape(jax.grad(lambda x, encoder=encoder: encoder(x).sum()), jnp.asarray(x))
            assert gradient.dtype == np.float64


POOLED: dict[str, Any] = {"readout": "last+mean"}
BOTH_WAYS: dict[str, Any] = {"bidirectional": True, "cell": "lstm"}


@pytest.mark.parametrize(
    ("options", "is_set", "is_all_placed"),
    [
        case
        if case in ((POOLED, False, False), (BOTH_WAYS, True, True))
        else pytest.param(*case, marks=pytest.mark.soak)
        for case in itertools.product((POOLED, BOTH_WAYS), (False, True), (False, True))
    ],
)
@pytest.mark.usefixtures("compiled_quickly")
def test_a_batch_may_be_sharded_over_explicit_axes(options: dict[str, Any], is_set: bool, is_all_placed: bool) -> None:
    encoder, x, has_lengths = Encoder.from_seed(0, 3, 5, **options), normal(8, 4, 3), not is_set
    lengths, carries = np.arange(8) % 5 if has_lengths else np.full(8, 4), normal(8, encoder.carry_features)
    if is_all_placed and has_lengths:
        carries = np.zeros_like(carries)
    wanted = at_once(encoder, x, lengths, carries)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    rows = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh) if is_set else nullcontext():
        given = jax.device_put((x, lengths) if has_lengths else (x, None, carries), rows)
        found = encoder(*given) if is_all_placed else encoder(given[0], lengths, carries)
        assert found.sharding.spec[0] == "data"
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("compiled_quickly")
def test_weights_learn_from_a_batch_that_is_sharded_over_explicit_axes() -> None:
    encoder, x = Encoder.from_seed(0, 3, 5, cell="rnn"), normal(8, 4, 3)
    gradient = nnx.jit(nnx.grad(lambda encoder, x: encoder(x).sum()))
    wanted = gradient(encoder, x)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        found = gradient(encoder, jax.device_put(x, NamedSharding(mesh, P("data"))))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize(
    "options", [{"readout": "last+mean"}, pytest.param({"bidirectional": True, "cell": "lstm"}, marks=pytest.mark.soak)]
)
def test_within_shard_map_features_and_gradients_are_the_same(options: dict[str, Any]) -> None:
    encoder, x, lengths = Encoder.from_seed(0, 3, 5, **options), normal(8, 4, 3), np.arange(8) % 5
    graphdef, weights = nnx.split(encoder)

    def total(weights: Any, x: Any, lengths: Any) -> Any:
        features = nnx.merge(graphdef, weights)(x, lengths)
        return features.sum(), features

    def total_of_shards(*given: Any) -> Any:
        own, features = total(*given)
        return jax.lax.psum(own, "data"), features

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    in_specs = P(), P("data"), P("data")
    in_shards = jax.shard_map(total_of_shards, mesh=mesh, in_specs=in_specs, out_specs=(P(), P("data")))
    (wanted, found) = (
        jax.jit(jax.grad(function, has_aux=True))(weights, x, lengths) for function in (total, in_shards)
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=GRADIENT_TOLERANCE)


def test_a_call_is_traced_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    step, traced = Encoder.step, []
    monkeypatch.setattr(Encoder, "step", lambda self, *given: traced.append(1) or step(self, *given))
    x, of_shapes = normal(6, 3), []
    for seed in (0, 1):
        encoder = Encoder.from_seed(seed, 3, 5)
        for given in (x, x[None], x[:4], x):
            features = encoder(given)
        of_shapes.append(len(traced))
        np.testing.assert_array_equal(features, scan_rnn_forward(seed, x, 5, 6))
    assert of_shapes[0] == of_shapes[1]


@pytest.mark.parametrize("options", [{"readout": "last+mean"}, {"readout": "steps", "bidirectional": True}])
def test_no_steps_need_no_jit(options: dict[str, Any]) -> None:
    encoder, x = Encoder.from_seed(0, 3, 5, **options), np.zeros((0, 3), np.float32)
    wanted = encoder(x)
    with jax.disable_jit():
        found = encoder(x)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype) and not found.any()


def test_sizes_may_be_numbers_of_numpy() -> None:
    plain, given = (Encoder(drawn(nnx.GRUCell, kind(3), kind(5))) for kind in (int, np.int64))
    assert given.architecture == plain.architecture and given.fingerprint == plain.fingerprint
    assert pickle.loads(pickle.dumps(given)).fingerprint == plain.fingerprint
    for yes in (np.True_, np.False_):
        both = Encoder.from_seed(0, np.int64(3), np.int32(5), num_layers=np.int8(2), bidirectional=yes)
        assert both.fingerprint == Encoder.from_seed(0, 3, 5, num_layers=2, bidirectional=bool(yes)).fingerprint
