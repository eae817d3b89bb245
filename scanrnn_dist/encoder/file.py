"""An encoder as one safetensors file: its weights, and in the header what it is; and the hash over both.

Never pickle, no code. `encoder.py` calls this, and hands over its class, which is not known here; a cell's description
is `architecture.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from safetensors import SafetensorError, deserialize, safe_open

from scanrnn_dist.disk import whole_file
from scanrnn_dist.encoder.architecture import ADDRESS, build
from scanrnn_dist.errors import ConfigError, DataError, StoppedError, some_of
from scanrnn_dist.input_spec import InputSpec

logger = logging.getLogger("scanrnn_dist")

FORMAT = "scanrnn_dist.encoder/2"
"""Stands in the header of an encoder file; the number rises when an older reader would misread a newer file."""
MOST_HEADER_BYTES = 40_000_000
"""safetensors reads no header of more than 100,000,000; within it, quotes and backslashes of the JSON are doubled."""
_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "C64": np.complex64,
    "F16": np.float16, "F32": np.float32, "F64": np.float64, "BF16": jnp.bfloat16,
}  # fmt: skip
"""By safetensors' names: those that numpy has, and bfloat16. A foreign file may hold others beside the weights."""
_WHOLE = re.compile(r"\d+")
_FEW = 10_000_000
"""An architecture that by its sizes asks for fewer weights is not held against those that are there: it takes 25 ms."""
ORIGIN_OF_SUFFIX = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), "torch"),
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".npz"), "keras"),
    ".onnx": "onnx",
}
"""What `scanrnn encoder convert --from` reads, by the ends of their names."""
PRODUCTS = {"torch": "PyTorch", "keras": "Keras", "onnx": "ONNX", "orbax": "Orbax", "safetensors": "a flax NNX state"}
"""What each of them is called."""
ORIGIN_OF_NAME = {"weight_hh_l0": "torch", "recurrent_kernel": "keras", "kernel": "safetensors --like FILE"}
"""The same, by what stands in the names of weights."""


def encoder_content(kind: type, encoder: Any) -> bytes:
    """Architecture and weights, as one safetensors file."""
    reason = why_no_file(kind, encoder) or _why_not_read_back(kind, encoder)
    if reason is not None:
        raise ConfigError(f"The encoder cannot be written to a file: {reason}")
    metadata = {"format": FORMAT, "architecture": json.dumps(encoder.architecture)}
    if len(metadata["architecture"]) > MOST_HEADER_BYTES:
        has = (
            f"its architecture takes {len(metadata['architecture']):,} bytes as JSON, of at most {MOST_HEADER_BYTES:,}"
        )
        remedy = "Number the values of its input's columns, and give their size."
        raise ConfigError(f"The encoder cannot be written to a file: {has}. {remedy}")
    variables = variables_of(encoder)
    content = _in_order(safetensors.numpy.save(variables, metadata))
    written = _tensors(content)
    if other := [name for name, array in variables.items() if written[name].tobytes() != array.tobytes()]:
        given = f"safetensors {safetensors.__version__} wrote other weights than it was given ({some_of(other, 4)})"
        raise ConfigError(f"The encoder cannot be written to a file: {given}. Install another version of it.")
    return content


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its header sorted, whose metadata safetensors writes in an order that changes.

    Equal encoders are equal bytes then, by which Hugging Face `datasets` finds what it has computed before.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(_header(content), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return b"".join([len(header).to_bytes(8, "little"), header, memoryview(content)[8 + size :]])


def _header(content: bytes) -> Any:
    """What the header of a safetensors file says."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def _tensors(content: bytes) -> dict[str, np.ndarray]:
    """All tensors of an encoder file by name."""
    views = dict(deserialize(content))
    return {name: np.frombuffer(it["data"], _DTYPES[it["dtype"]]).reshape(it["shape"]) for name, it in views.items()}


def _tensor(file: Any, name: str) -> np.ndarray:
    """A tensor of an open safetensors file, or a `stand_in`."""
    part = file.get_slice(name)  # nothing is read by this
    dtype, shape = part.get_dtype(), part.get_shape()
    array: np.ndarray = file.get_tensor(name) if dtype in _DTYPES else stand_in(dtype, shape)
    return array


def stand_in(kind: str, shape: Iterable[int]) -> np.ndarray:
    """In the place of an array that numpy cannot hold: its shape, no numbers, and a dtype whose one field says why."""
    return np.broadcast_to(np.zeros((), [(kind, "V1")]), tuple(shape))


def save_encoder(kind: type, encoder: Any, path: str | os.PathLike[str]) -> None:
    """Write an encoder's file, whole or not at all; an existing one is replaced."""
    content, path = encoder_content(kind, encoder), Path(path)
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {path.parent} to write {path.name} to.")
    try:
        with whole_file(path) as write:
            write(content)
    except OSError as error:
        raise StoppedError(f"{path} could not be written: {error.strerror or error}.") from error


def load_encoder(kind: type, path: str | os.PathLike[str]) -> Any:
    """The encoder, of the class `kind`, of a file that `save_encoder` wrote."""
    try:
        weights, metadata = read_safetensors(path)
    except FileNotFoundError as error:
        raise ConfigError(f"There is no encoder file {path}.") from error
    except DataError as error:
        raise DataError(_told_as_foreign(path, []) or f"{error}.") from error
    if metadata.get("format") != FORMAT:
        other = f"is of format {metadata['format']!r}" if "format" in metadata else ""
        found = other or f"holds {some_of(sorted(weights), 4)} alone"
        is_ours = metadata.get("format", "").startswith(FORMAT.rpartition("/")[0])  # of another version
        foreign = "" if is_ours else _told_as_foreign(path, weights)
        raise DataError(foreign or f"{path} {found}; expected {FORMAT!r}, written by Encoder.save.")
    return _encoder_of(kind, weights, metadata.get("architecture"), str(path))


def encoder_of_content(kind: type, content: bytes, where: str = "The content") -> Any:
    """The encoder, of the class `kind`, of what `encoder_content` gave, or what a file of it holds."""
    try:
        weights, metadata = _tensors(content), _header(content)["__metadata__"]
        architecture, version = metadata["architecture"], metadata.get("format")
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{where} is no encoder file, or a damaged one: {error}.") from error
    if version != FORMAT:
        raise DataError(f"{where} is of format {version!r}; expected {FORMAT!r}, as of Encoder.save.")
    return _encoder_of(kind, weights, architecture, where)


def _encoder_of(kind: type, weights: dict[str, np.ndarray], architecture: str | None, where: str) -> Any:
    """The encoder of an architecture, as JSON, with these weights, which were found there."""
    held, asked, encoder = sum(array.size for array in weights.values()), 0, None
    try:
        told = json.loads(architecture or "{}")
        layers = json.dumps(told["layers"])
        would_round = '"float64"' in layers and not jax.config.read("jax_enable_x64")  # an input may have such a name
        sizes = [int(size) for size in _WHOLE.findall(layers)]
        if not would_round and len(sizes) * max(sizes, default=0) ** 2 > _FEW:
            shapes = nnx.eval_shape(lambda: build_encoder(kind, told, weights))
            asked = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(shapes.layers)))
        if not would_round and asked <= held:
            encoder = build_encoder(kind, told, weights)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        shown = repr(architecture)[:1000]
        raise DataError(f"{where} has a damaged or unknown architecture {shown}: {error}") from error
    if would_round:
        raise ConfigError(f"{where} holds an encoder of float64, which JAX would round; set JAX_ENABLE_X64=1 for it.")
    if encoder is None:
        raise DataError(
            f"{where} holds other weights than its architecture asks for: {held:,} numbers, expected {asked:,}."
        )
    set_variables(encoder, weights, where)
    return encoder


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a safetensors file by name, and what its header says besides; `FileNotFoundError` if none."""
    try:
        # `safe_open` maps a file whose header is right; of one that it may not read, it says that there is none.
        with open(path, "rb"), safe_open(path, framework="numpy") as file:
            return {name: _tensor(file, name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise StoppedError(f"{path} could not be read: {error.strerror or error}. Check its access rights.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}") from error


def _told_as_foreign(path: str | os.PathLike[str], names: Iterable[str]) -> str:
    """Whose weights these are, where the file's name or the names of its weights say so, and what converts them."""
    path = Path(path)
    by_suffix = ORIGIN_OF_SUFFIX.get(path.suffix, "orbax --like FILE" if path.is_dir() else "")
    by_name = (origin for mark, origin in ORIGIN_OF_NAME.items() if any(mark in name for name in names))
    if not (origin := next(by_name, by_suffix)):
        return ""
    made = path.with_suffix(".encoder.safetensors" if path.suffix == ".safetensors" else ".safetensors")
    like = ", FILE being an encoder file of that architecture (scanrnn encoder make)" if "--like" in origin else ""
    found = "is a folder, such as one of" if path.is_dir() else "holds weights of"
    return (
        f"{path} {found} {PRODUCTS[origin.partition(' ')[0]]}; expected an encoder file. Convert them first: "
        f"scanrnn encoder convert {shlex.quote(str(path))} {shlex.quote(str(made))} --from {origin}{like}"
    )


def variables_of(encoder: Any) -> dict[str, np.ndarray]:
    """Every variable as a numpy array, by name: `0.dense_i.kernel`, `0.forward.dense_i.kernel`, `input.item_id`."""
    return _as_arrays(_leaves(encoder.layers) | _tables(encoder))


def _own_variables(encoder: Any) -> dict[str, np.ndarray]:
    """What a class of somebody's own has besides: `self.head.kernel`. No file holds it."""
    leaves = _leaves(encoder).items()
    return _as_arrays(
        {f"self.{name}": leaf for name, leaf in leaves if not name.startswith(("layers.", "step_input."))}
    )


def _leaves(module: Any) -> dict[str, Any]:
    """What `nnx.state` has of a module, by dotted paths."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(module))}


def _as_arrays(leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Leaves of a state as arrays in C order, since safetensors writes memory as it lies, whatever the strides."""
    return {name: np.asarray(without_key(value_of(leaf)), order="C") for name, leaf in leaves.items()}


def _tables(encoder: Any) -> dict[str, Any]:
    """The embedding tables by name: `input.item_id`."""
    return {} if encoder.step_input is None else encoder.step_input.named_tables()


def why_no_file(kind: Any, encoder: Any) -> str | None:
    """Why a file could not hold all that an encoder is; None if its architecture makes the same but for the weights."""
    if type(encoder) is not kind:
        return f"{type(encoder).__name__} is a class of its own, and a file holds Encoder alone."
    try:
        rebuilt = _rebuilt_as(kind, encoder)[0]
    except (ValueError, TypeError, KeyError) as error:
        return str(error)
    if rebuilt != nnx.split(encoder)[0]:
        return "its cells were changed after they were built (other layers, dtypes or attributes)."
    return None


def _why_not_read_back(kind: Any, encoder: Any) -> str | None:
    """Which weights are not as the architecture makes them, as `set_variables` asks; None if all are."""
    own, made = nnx.split(encoder)[1], _rebuilt_as(kind, encoder)[1]
    for is_, asked in zip(jax.tree.leaves(own), jax.tree.leaves(made), strict=True):
        if (is_.shape, is_.dtype) != (asked.shape, asked.dtype):
            found, expected = f"{is_.dtype}{list(is_.shape)}", f"{asked.dtype}{list(asked.shape)}"
            return f"a weight is {found} where its cell makes {expected}. Make cells of this param_dtype and size."
    return None


def build_encoder(kind: type, architecture: dict[str, Any], weights: dict[str, np.ndarray] | None = None) -> Any:
    """The encoder of an architecture, raising `ConfigError` for one that a file cannot hold.

    Its weights are random; its embedding tables, which may be large, those of `weights`, if any.
    """
    layers = [
        (build(layer["forward"]), build(layer["backward"])) if "forward" in layer else build(layer)
        for layer in architecture["layers"]
    ]
    options = {name: architecture[name] for name in ("readout", "initial_carry", "scan", "precision")}
    if "input" in architecture:
        options["input"] = spec = InputSpec.from_dict(architecture["input"])
        if weights is not None:
            names = {name: f"input.{name}" for name in spec.tables}
            options["tables"] = {name: weights[own] for name, own in names.items() if own in weights}
    return kind(layers, **options)


def _rebuilt_as(kind: Any, encoder: Any) -> Any:
    """Structure, and shapes and dtypes of the weights, of what the architecture of an encoder makes."""
    is_wide = bool(jax.config.read("jax_enable_x64"))
    return _rebuilt(kind, json.dumps(encoder.architecture), is_wide)


@lru_cache(maxsize=16)
def _rebuilt(kind: type, architecture: str, is_wide: bool) -> Any:
    """As `_rebuilt_as`, of an architecture as JSON; takes 7 ms to trace.

    `is_wide` is `jax_enable_x64`, on which dtypes depend: it only tells apart what is cached.
    """
    return nnx.split(nnx.eval_shape(lambda: build_encoder(kind, json.loads(architecture))))


def set_variables(encoder: Any, weights: dict[str, np.ndarray], where: str) -> None:
    """Give an encoder its weights by their dotted paths; a `DataError` lists all that are missing, surplus or wrong."""
    expected = {name: (array.shape, array.dtype) for name, array in variables_of(encoder).items()}
    arrived = {name: (array.shape, array.dtype) for name, array in weights.items()}
    if arrived != expected:
        names = [each for each in sorted(expected.keys() | arrived.keys()) if arrived.get(each) != expected.get(each)]
        wrong = [f"{each}: {arrived.get(each, 'missing')}, expected {expected.get(each, 'none')}" for each in names]
        raise DataError(f"{where} holds other weights than its architecture asks for: " + "; ".join(wrong))
    if lost := [name for name, array in weights.items() if np.isnan(array).any()]:
        logger.warning("%s holds NaN, so features will be NaN: %s.", where, some_of(lost, 4))
    for name, table in _tables(encoder).items():
        table[...] = jnp.asarray(weights[name])
    variables = nnx.to_flat_state(nnx.state(encoder.layers))
    state = [(path, leaf.replace(jnp.asarray(weights[".".join(map(str, path))]))) for path, leaf in variables]
    nnx.update(encoder.layers, nnx.from_flat_state(state))


def fingerprint_of(kind: type, encoder: Any) -> str:
    """SHA-256 over architecture and variables; where a file of the class `kind` could not hold it, also its trace."""
    digest = hashlib.sha256(json.dumps(encoder.architecture, sort_keys=True).encode())
    for traced in _traced(kind, encoder):
        digest.update(traced)
    for name, array in sorted((variables_of(encoder) | _own_variables(encoder)).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def structure_of(kind: type, encoder: Any) -> tuple[Any, bytes]:
    """By what compiled programs of encoders are told apart, their variables being arguments: a graphdef, and a hash.

    A graphdef has the attributes of cells, but not what stands in an object or a global that a cell of somebody's own
    computes with. The hash is over what JAX traces of it now.
    """
    digest = hashlib.sha256()
    for traced in _traced(kind, encoder):
        digest.update(traced)
    return nnx.split(encoder)[0], digest.digest()


def _traced(kind: Any, encoder: Any) -> Iterator[bytes]:
    """What JAX traces of a whole sequence of two steps, the variables being arguments; and the arrays in it.

    Nothing where a file of the class `kind` could hold the encoder, whose architecture then says all. A class with an
    `initial_state` of its own may do anything with a carry that a row brings, so that is traced too.
    """
    if why_no_file(kind, encoder) is None:
        return
    graphdef, variables = nnx.split(encoder)

    def features(variables: Any, x: jax.Array, carry: jax.Array | None = None) -> jax.Array:
        model = nnx.merge(graphdef, variables)
        return model(x) if carry is None else model(x, None, carry)

    float_ = jnp.result_type(float)  # shapes, since an array would lie on the mesh that is set
    x, carry = (jax.ShapeDtypeStruct(shape, float_) for shape in ((2, encoder.in_features), (encoder.carry_features,)))
    traces = [jax.make_jaxpr(features)(variables, x)]
    if type(encoder).initial_state is not kind.initial_state:
        with suppress(Exception):  # of any kind, of a class that takes no carries
            traces.append(jax.make_jaxpr(features)(variables, x, carry))
    for trace in traces:
        yield ADDRESS.sub("", str(trace)).encode()
        for array in _arrays_in(trace):
            yield np.asarray(without_key(array)).tobytes()


def value_of(leaf: Any) -> Any:
    """What a leaf of a state holds, a variable or a plain array: an array, or a plain number, which has no `[...]`."""
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def is_key(array: Any) -> bool:
    """Whether an array holds keys of random numbers, which numpy cannot hold."""
    return isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def without_key(array: Any) -> Any:
    """The numbers of a key of random numbers; any other array as it is."""
    return jax.random.key_data(array) if is_key(array) else array


def _arrays_in(trace: ClosedJaxpr | Jaxpr) -> Iterator[Any]:
    """The arrays that functions of an encoder bring along; a trace as text names their shapes only."""
    if isinstance(trace, ClosedJaxpr):
        yield from trace.consts
        trace = trace.jaxpr
    for equation in trace.eqns:
        yield from (each.val for each in equation.invars if isinstance(each, Literal) and np.ndim(each.val))
        for inner in jax.tree.leaves(equation.params):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _arrays_in(inner)
