"""States of flax NNX modules, in a safetensors file or an Orbax checkpoint, into an encoder of the same architecture.

A state holds weights and no architecture, so the `Encoder` to restore into is given. Names are paths within the
encoder, without what they all begin with where the state does without it too: a state of its only cell has
`dense_h.kernel`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scanrnn_dist.encoder import Encoder, is_key, value_of, without_key
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.kinds import check_kind
from scanrnn_dist.weights.files import Named, Source, checked_weights, flat, read_named, read_npz, read_tensors

METADATA = "_METADATA"
"""The file by which a folder is known to be a checkpoint of Orbax."""


def from_state(encoder: Encoder, source: Source, *, prefix: str | None = None, lossy_cast: bool = False) -> Encoder:
    """A copy of an encoder with the weights of an nnx state; the encoder itself is not changed.

    Args:
        encoder: of the architecture that the state belongs to; without keys of random numbers there, its own stay.
        source: arrays by dotted names, or a `.safetensors` or `.npz` file of such.
        prefix: what stands before the names, such as `model.rnn`; the rest of the source is not looked at.
        lossy_cast: round weights that the encoder's dtypes cannot hold.

    Raises:
        ConfigError: no such file.
        DataError: lists every weight that is missing, surplus or misshapen.

    Example:
        >>> trained, fresh = Encoder.from_seed(1, 3, 5), Encoder.from_seed(0, 3, 5)
        >>> names = {".".join(path): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(trained.cell))}
        >>> from_state(fresh, names).fingerprint == trained.fingerprint
        True
    """
    readers = {".safetensors": read_tensors, ".npz": read_npz}
    named, where = read_named(source, readers, "arrays by name, or the path of a .safetensors or .npz file")
    return _restored(encoder, named, where, prefix, lossy_cast)


def from_orbax(
    encoder: Encoder, folder: str | os.PathLike[str], *, prefix: str | None = None, lossy_cast: bool = False
) -> Encoder:
    """A copy of an encoder with the weights of an Orbax checkpoint of an nnx state, or of its pure dictionary.

    Args:
        encoder: of the architecture that the state belongs to; without keys of random numbers there, its own stay.
        folder: of the checkpoint itself, which for a `CheckpointManager` is `STEP/default`.
        prefix: where in the checkpoint the state stands, such as `params.rnn`.
        lossy_cast: round weights that the encoder's dtypes cannot hold.

    Raises:
        ConfigError: the folder is no checkpoint; those below it are named.
        DataError: the checkpoint cannot be read, or lists every weight that is missing, surplus or misshapen.
    """
    check_kind("folder", folder, str | os.PathLike, "the path of a checkpoint")
    path = Path(folder).resolve()
    if not (path / METADATA).is_file():
        found = [*sorted(path.glob(f"*/{METADATA}")), *sorted(path.glob(f"*/*/{METADATA}"))]
        below = ", ".join(str(metadata.parent.relative_to(path)) for metadata in found)
        hint = f" There are checkpoints below it: {below}." if below else ""
        raise ConfigError(f"{folder} is no Orbax checkpoint (it has no {METADATA}).{hint}")
    return _restored(encoder, _read_checkpoint(path), str(folder), prefix, lossy_cast)


def _restored(encoder: Encoder, named: Named, where: str, prefix: str | None, lossy_cast: bool) -> Encoder:
    """The encoder's copy with the arrays of these names; it keeps its keys of random numbers where they have none."""
    own = {name: without_key(array) for name, array in _below(named, prefix, where).items()}
    graphdef, state = nnx.split(encoder)
    variables = nnx.to_flat_state(state)
    names = [".".join(map(str, path)) for path, _ in variables]
    skipped = _skipped(names, own)
    leaves = {name.removeprefix(skipped): leaf for name, (_, leaf) in zip(names, variables, strict=True)}
    values = {name: value_of(leaf) for name, leaf in leaves.items() if name in own or not _is_random(leaf)}
    asked = {name: np.asarray(without_key(value)) for name, value in values.items()}
    expected = {name: array.shape for name, array in asked.items()}
    dtypes = {name: array.dtype for name, array in asked.items()}
    weights = checked_weights(own, expected, where, lossy_cast=lossy_cast, dtypes=dtypes)
    filled = [
        (path, _filled(leaf, weights.get(name)))
        for (path, _), (name, leaf) in zip(variables, leaves.items(), strict=True)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def _is_random(leaf: Any) -> bool:
    """Whether a variable is a key of random numbers, or counts what was drawn by one."""
    return isinstance(leaf, nnx.RngState) or is_key(value_of(leaf))


def _filled(leaf: Any, numbers: np.ndarray | None) -> Any:
    """A leaf of a state with these numbers in the place of its own, which it keeps if there are none."""
    value = value_of(leaf)
    value = value if numbers is None else _in_place_of(value, numbers)
    return leaf.replace(value) if isinstance(leaf, nnx.Variable) else value


def _in_place_of(value: Any, numbers: np.ndarray) -> Any:
    """Numbers as what stands in their place: an array, a plain number or a key of random numbers."""
    if isinstance(value, int | float):
        return numbers.item()
    given = jnp.asarray(numbers)
    return jax.random.wrap_key_data(given, impl=jax.random.key_impl(value)) if is_key(value) else given


def _skipped(leaves: Sequence[str], own: Named) -> str:
    """The part that begins all of the encoder's names and that the arrays' names do without; nothing if none helps."""
    names = [name.split(".") for name in leaves]
    starts = [""]
    for parts in zip(*names, strict=False):
        if len(set(parts)) > 1:
            break
        starts.append(f"{starts[-1]}{parts[0]}.")
    return next((start for start in starts if any(name.removeprefix(start) in own for name in leaves)), "")


def _below(named: Named, prefix: str | None, where: str) -> Named:
    """The arrays below a prefix, by the rest of their names."""
    if not prefix:
        return named
    dotted = prefix.rstrip(".") + "."
    own = {name.removeprefix(dotted): array for name, array in named.items() if name.startswith(dotted)}
    if not own:
        raise ConfigError(f"{where} holds nothing below {prefix!r}; it holds {sorted(named)[:8]}.")
    return own


def _read_checkpoint(path: Path) -> Named:
    """All arrays of a checkpoint by dotted names, as numpy arrays whatever devices they were saved from."""
    import orbax.checkpoint as ocp

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(path).item_metadata
            if metadata is None:  # orbax logs why, and raises nothing
                raise ValueError(f"its {METADATA} does not say what it holds.")
            as_numpy = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), metadata.tree)
            restored = checkpointer.restore(path, restore_args=as_numpy)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a readable Orbax checkpoint: {error}") from error
    arrays = flat(restored, (Mapping, list, tuple))
    return {name.removesuffix(".value"): array for name, array in arrays.items()}  # nnx puts it below each variable
