"""States of nnx modules come back bit for bit from safetensors files and Orbax checkpoints, or are refused whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from cells import drawn
from flax import nnx

from scanrnn_dist.encoder import Encoder, value_of, without_key
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.weights import from_orbax, from_state

TRAINED = 1


def trained() -> Encoder:
    return Encoder.from_seed(TRAINED, 3, 5)


def fresh() -> Encoder:
    return Encoder.from_seed(0, 3, 5)


def names_of(module: nnx.Module, prefix: str = "") -> dict[str, np.ndarray]:
    leaves = nnx.to_flat_state(nnx.state(module))
    return {prefix + ".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}


@pytest.mark.parametrize("part", ["encoder", "cell"])
@pytest.mark.parametrize("prefix", ["", "model.rnn."])
def test_a_state_in_a_safetensors_file(part: str, prefix: str, tmp_path: Path) -> None:
    arrays = names_of(trained() if part == "encoder" else trained().cell, prefix)
    if prefix:
        arrays["head.kernel"] = np.zeros((2, 2), np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "state.safetensors")
    into = fresh()
    restored = from_state(into, tmp_path / "state.safetensors", prefix=prefix or None)
    assert restored.fingerprint == trained().fingerprint
    assert into.fingerprint == fresh().fingerprint, "the encoder that was given has changed"


def test_everything_wrong_in_a_state_is_listed() -> None:
    arrays = names_of(trained().cell)
    arrays["dense_h.bias"] = np.zeros(15, np.float32)
    arrays["dense_i.kernel"] = arrays["dense_i.kernel"].T
    del arrays["dense_i.bias"]
    with pytest.raises(DataError) as caught:
        from_state(fresh(), arrays)
    for wrong in (
        "dense_h.bias: (15,), expected none",
        "dense_i.kernel: (15, 3), expected (3, 15)",
        "dense_i.bias: missing, expected (15,)",
    ):
        assert wrong in str(caught.value)
    with pytest.raises(ConfigError, match="holds nothing below 'rnn'"):
        from_state(fresh(), arrays, prefix="rnn")


def test_what_is_no_state_and_no_path_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected arrays by name, or the path of a \.safetensors or \.npz file"):
        from_state(fresh(), trained())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected the path of a checkpoint"):
        from_orbax(fresh(), nnx.state(trained()))  # type: ignore[arg-type]


def kept_in(dtype: Any, seed: int = 0) -> Encoder:
    return Encoder(drawn(nnx.GRUCell, 3, 5, seed, param_dtype=dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_are_held_against_the_dtype_that_the_encoder_keeps_them_in(dtype: str) -> None:
    plain = names_of(fresh())
    with jax.enable_x64(dtype == "float64"):
        own = kept_in(jnp.dtype(dtype), TRAINED)
        assert from_state(kept_in(jnp.dtype(dtype)), names_of(own)).fingerprint == own.fingerprint
        given = from_state(kept_in(jnp.dtype(dtype)), plain, lossy_cast=True)
        assert given.cell.dense_i.kernel.dtype == jnp.dtype(dtype)
        if dtype == "float64":
            assert from_state(kept_in(jnp.float64), plain).fingerprint == given.fingerprint
            return
        with pytest.raises(DataError, match=rf"float32 holds numbers that {dtype} cannot; .* \(--lossy-cast\)"):
            from_state(kept_in(jnp.dtype(dtype)), plain)


class Counting(nnx.GRUCell):
    """A cell that counts its steps in a variable of its own."""

    def __init__(self, *args: Any, n: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n = nnx.Variable(jnp.asarray(n, jnp.int32))

    def __call__(self, carry: Any, inputs: Any) -> Any:
        self.n[...] += 1
        return super().__call__(carry, inputs)


def test_whole_numbers_that_a_cell_has_are_restored_and_no_others() -> None:
    counted, given = (Encoder(drawn(Counting, 3, 5, n=n), scan="nnx") for n in (7, 0))
    assert from_state(given, names_of(counted)).cell.n[...] == 7
    with pytest.raises(DataError, match=r"n: float32, expected int32"):
        from_state(counted, names_of(counted) | {"layers.0.n": np.float32(7)}, lossy_cast=True)


class Keeping(nnx.GRUCell):
    """Keeps something beside its weights."""

    def __init__(self, *args: Any, kept: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept = kept


@pytest.mark.parametrize("of_file", [True, False])
@pytest.mark.parametrize(
    "kept",
    [lambda value: nnx.Variable(value / 10), nnx.Variable, lambda value: jnp.full(5, value, jnp.float32),
     lambda value: np.full(5, value, np.float32)],
)  # fmt: skip
def test_plain_numbers_and_arrays_that_a_cell_keeps_are_restored(kept: Any, of_file: bool, tmp_path: Path) -> None:
    wanted, given = (Encoder(drawn(Keeping, 3, 5, seed, kept=kept(n))) for seed, n in ((TRAINED, 7), (0, 1)))
    if of_file:
        leaves = nnx.to_flat_state(nnx.state(wanted))
        restored = from_state(given, {".".join(map(str, path)): value_of(leaf) for path, leaf in leaves})
    else:
        restored = from_orbax(given, saved(tmp_path / "checkpoint", nnx.state(wanted)))
    assert restored.fingerprint == wanted.fingerprint != given.fingerprint


def test_a_plain_whole_number_takes_that_of_a_state_that_jax_has_narrowed() -> None:
    state = names_of(Encoder(drawn(Counting, 3, 5, n=7), scan="nnx"))
    counted = drawn(Counting, 3, 5, n=0)
    counted.n.set_value(0)
    restored = from_state(Encoder(counted, scan="nnx"), state)
    assert restored.cell.n.get_value() == 7


def saved(folder: Path, item: Any) -> Path:
    """A checkpoint of Orbax."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, item)
        checkpointer.wait_until_finished()
    return folder


@pytest.mark.parametrize("part", ["encoder", "cell"])
@pytest.mark.parametrize("pure", [False, True])
def test_a_checkpoint_of_orbax(part: str, pure: bool, tmp_path: Path) -> None:
    state = nnx.state(trained() if part == "encoder" else trained().cell)
    folder = saved(tmp_path / "checkpoint", nnx.to_pure_dict(state) if pure else state)
    assert from_orbax(fresh(), folder).fingerprint == trained().fingerprint


def test_a_state_within_a_checkpoint_and_a_manager(tmp_path: Path) -> None:
    item = {"model": nnx.to_pure_dict(nnx.state(trained().cell)), "step": 7}
    with ocp.CheckpointManager(tmp_path / "manager") as manager:
        manager.save(3, args=ocp.args.StandardSave(item))
        manager.wait_until_finished()
    restored = from_orbax(fresh(), tmp_path / "manager" / "3" / "default", prefix="model")
    assert restored.fingerprint == trained().fingerprint
    with pytest.raises(ConfigError, match=r"is no Orbax checkpoint .* below it: 3/default\."):
        from_orbax(fresh(), tmp_path / "manager")


@pytest.mark.parametrize("prefix", ["model", "0.model"])
def test_a_state_beside_lists_and_tuples_as_an_optimizer_has(prefix: str, tmp_path: Path) -> None:
    optax = pytest.importorskip("optax", reason="of the extra [train]")
    weights = nnx.to_pure_dict(nnx.state(trained().cell))
    item = {"model": weights, "opt_state": optax.adam(1e-3).init(weights), "history": [np.zeros(2), np.ones(3)]}
    folder = saved(tmp_path / "checkpoint", item if prefix == "model" else (item,))
    assert from_orbax(fresh(), folder, prefix=prefix).fingerprint == trained().fingerprint


def test_a_checkpoint_of_another_architecture_or_none_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", nnx.state(trained().cell))
    with pytest.raises(DataError, match=r"dense_h\.kernel: \(5, 15\), expected \(6, 18\)"):
        from_orbax(Encoder.from_seed(0, 3, 6), folder)
    with pytest.raises(ConfigError, match=r"is no Orbax checkpoint \(it has no _METADATA\)\.$"):
        from_orbax(fresh(), tmp_path / "none")
    (folder / "_METADATA").write_text("{")
    with pytest.raises(DataError, match="is not a readable Orbax checkpoint"):
        from_orbax(fresh(), folder)


class Dropping(nnx.GRUCell):
    """A cell that drops some of what it gets, by a key of its own."""

    def __init__(self, *args: Any, own_seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(own_seed))
        self.own = nnx.Variable(jax.random.key(own_seed))

    def __call__(self, carry: Any, inputs: Any) -> Any:
        return super().__call__(carry, self.drop(inputs))


def dropping(seed: int) -> Encoder:
    return Encoder(drawn(Dropping, 3, 5, seed, own_seed=seed), scan="nnx")


def test_keys_of_random_numbers_are_restored_as_they_are_or_as_numbers(tmp_path: Path) -> None:
    wanted = dropping(TRAINED)
    given = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(wanted))}
    numbers = {name: np.asarray(without_key(array)) for name, array in given.items()}
    safetensors.numpy.save_file(numbers, tmp_path / "state.safetensors")
    for source in (given, numbers, tmp_path / "state.safetensors"):
        assert from_state(dropping(0), source).fingerprint == wanted.fingerprint


@pytest.mark.parametrize("pure", [False, True])
def test_keys_of_random_numbers_are_restored_from_a_checkpoint(pure: bool, tmp_path: Path) -> None:
    state = nnx.state(dropping(TRAINED))
    folder = saved(tmp_path / "checkpoint", nnx.to_pure_dict(state) if pure else state)
    assert from_orbax(dropping(0), folder).fingerprint == dropping(TRAINED).fingerprint


def test_a_state_of_weights_alone_leaves_the_encoder_its_keys(tmp_path: Path) -> None:
    weights, wanted = nnx.state(dropping(TRAINED), nnx.Param), dropping(0)
    nnx.update(wanted, weights)
    arrays = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(weights)}
    given, before = dropping(0), dropping(0).fingerprint
    for restored in (from_state(given, arrays), from_orbax(given, saved(tmp_path / "checkpoint", weights))):
        assert restored.fingerprint == wanted.fingerprint
        restored.cell.drop.rngs.count[...] += 1
        assert given.fingerprint == before, "the encoder that was given has changed"
    with pytest.raises(DataError, match=r"drop\.rngs\.key: \(4,\), expected \(2,\)"):
        from_state(given, arrays | {"layers.0.drop.rngs.key": jax.random.key(0, impl="rbg")})
