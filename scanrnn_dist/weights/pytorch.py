"""PyTorch: layers from an `nn.GRU`, `nn.LSTM` or `nn.RNN`, wherever in a model it stands: a module, or its state dict.

PyTorch multiplies from the left (`W x`), so kernels are transposed; its gates are in flax's order already:
GRU r z n, LSTM i f g o. `batch_first` and `dropout` leave no trace in a state dict and do not matter here. Weights that
it holds in parts are `reparametrized`'s.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scanrnn_dist.encoder import Encoder, Layer, stand_in
from scanrnn_dist.errors import ConfigError, DataError, one_line, some_of
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.weights.cells import NONLINEARITIES, Direction, cell_of, kind_of, layers_of
from scanrnn_dist.weights.embeddings import table_names, tables_of
from scanrnn_dist.weights.files import (
    Named,
    Shape,
    Source,
    checked_weights,
    flat,
    optional_module,
    raise_if_any,
    read_named,
    read_tensors,
)
from scanrnn_dist.weights.reparametrized import refuse_uncertain, whole_weights

logger = logging.getLogger("scanrnn_dist")

NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d+)(_reverse)?$")
BACKWARD = "_reverse"


def from_torch(
    source: Source | Any,
    *,
    prefix: str | None = None,
    kind: str | None = None,
    nonlinearity: str | None = None,
    lossy_cast: bool = False,
    input: InputSpec | None = None,
    embeddings: Mapping[str, str] | None = None,
    **options: Any,
) -> Encoder:
    """An `Encoder` with the weights of a PyTorch RNN, and of `nn.Embedding`s that stand before it.

    Args:
        source: as of `torch_layers`, and so are `prefix`, `kind`, `nonlinearity` and `lossy_cast`.
        prefix: of the RNN.
        kind: of the RNN.
        nonlinearity: of the RNN.
        lossy_cast: of all weights.
        input: what a step holds, in the order in which the model joins it into the RNN's input.
        embeddings: for columns of `input` with an embedding, the name of its weight, such as `embedding.weight`; may be
            left out for those that only one weight has the shape of.
        options: those of `Encoder`.

    Raises:
        ConfigError: as `torch_layers`; or no weight, or several, that a column's table could be.
        DataError: as `torch_layers`; or a table of another shape than its column asks for.
    """
    named, uncertain, where = _read(source)
    chosen = table_names(named, input, embeddings or {}, _names_of_rnns(named), where) if input is not None else {}
    if embeddings and input is None:
        raise ConfigError(
            "embeddings (--embedding) were given without an input (--input) whose columns they belong to."
        )
    rest = {name: array for name, array in named.items() if name not in chosen.values()}
    layers = _layers(rest, uncertain, where, prefix, kind, nonlinearity, lossy_cast, source)
    if input is None:
        return Encoder(layers, **options)
    return Encoder(layers, input=input, tables=tables_of(named, chosen, input, where, lossy_cast), **options)


def torch_layers(
    source: Source | Any,
    *,
    prefix: str | None = None,
    kind: str | None = None,
    nonlinearity: str | None = None,
    lossy_cast: bool = False,
) -> list[Layer]:
    """The layers of an `nn.GRU`, `nn.LSTM` or `nn.RNN`, first layer first; pairs if it is bidirectional.

    Args:
        source: a module of PyTorch, be it the RNN or a model that holds it; its state dict, as tensors or numpy arrays;
            a `.safetensors` file; or a `.pt`, `.pth`, `.ckpt` or `.bin` file, for which torch has to be installed; it
            is read with `weights_only=True`.
        prefix: what stands before `weight_ih_l0`, such as `encoder.rnn`; may be left out if there is one RNN only.
        kind: `gru`, `lstm` or `rnn`; told by the shapes if left out.
        nonlinearity: of an `nn.RNN`, `tanh` or `relu`. A module says it itself, unless it was traced; other sources do
            not, and there it is `tanh` if left out.
        lossy_cast: round weights that float32 cannot hold.

    Raises:
        ConfigError: no such file or prefix, several RNNs to choose from, another nonlinearity than the module's, or
            none that it or the caller says, or torch is needed and missing.
        DataError: lists every weight that is missing, surplus or misshapen; a projection (`proj_size`) is refused, and
            so are weights in parts (`_raw`, parametrizations) but for weight norm and pruning, which are computed.

    Example:
        >>> H, D = 4, 3
        >>> state = {"weight_ih_l0": np.zeros((3 * H, D), "f4"), "weight_hh_l0": np.zeros((3 * H, H), "f4")}
        >>> torch_layers(state)[0].hidden_features
        4
    """
    return _layers(*_read(source), prefix, kind, nonlinearity, lossy_cast, source)


def _read(source: Any) -> tuple[Named, dict[str, list[str]], str]:
    """All weights by name, those that stand in parts that are not understood, and what to call the source."""
    is_module = _is_module(source)
    expected = "a module, its state_dict(), or the path of a file of torch.save or safetensors"
    nested, where = read_named(source.state_dict() if is_module else source, READERS, expected)
    named = {name: _numpy(array) if _is_tensor(array) else array for name, array in flat(nested).items()}
    where = f"The module {type(source).__name__}" if is_module else where
    computed = _parametrized(source) if is_module else set()
    return *whole_weights(named, computed), where  # a checkpoint may keep its state dict within others


def _parametrized(module: Any) -> set[str]:
    """The weights of a module that a parametrization computes, but for those of weight norm alone."""
    names = set()
    for path, part in module.named_modules(remove_duplicate=False):  # as its state dict
        of_weights = getattr(getattr(part, "parametrizations", None), "named_children", tuple)
        for weight, rules in of_weights():
            kinds = [getattr(rule, "original_name", type(rule).__name__) for rule in rules.children()]  # of traced ones
            if kinds != ["_WeightNorm"]:
                names.add(f"{path}.{weight}" if path else weight)
    return names


def _is_module(source: Any) -> bool:
    """Whether it is an `nn.Module`, told without importing torch."""
    return callable(getattr(source, "state_dict", None)) and callable(getattr(source, "named_modules", None))


def _is_tensor(array: Any) -> bool:
    return hasattr(array, "detach") and hasattr(array, "layout")


def _nonlinearities(source: Any) -> dict[str, str]:
    """The nonlinearity of each `nn.RNN` of a module, by its prefix; nothing of other sources, which do not tell."""
    modules = source.named_modules(remove_duplicate=False) if _is_module(source) else ()  # as its state dict
    modes = {f"{name}." if name else "": str(getattr(module, "mode", "")) for name, module in modules}
    return {name: mode.removeprefix("RNN_").lower() for name, mode in modes.items() if mode.startswith("RNN_")}


def _nonlinearity(told: str | None, own: str | None, where: str) -> str | None:
    """The nonlinearity that the user told or that of the module; None where neither says it."""
    if told is not None and told not in NONLINEARITIES:
        raise ConfigError(f"The nonlinearity is {told!r}; expected one of {sorted(NONLINEARITIES)}.")
    if None not in (told, own) and told != own:
        raise ConfigError(f"The nonlinearity is {told!r}, and that of {where} is {own!r}. Leave it out.")
    return told or own


def _names_of_rnns(named: Named) -> set[str]:
    """The weights that are of some RNN."""
    return {name for name in named if NAME.search(name)}


def _layers(
    named: Named,
    uncertain: dict[str, list[str]],
    where: str,
    prefix: str | None,
    kind: str | None,
    told_nonlinearity: str | None,
    lossy_cast: bool,
    source: Any,
) -> list[Layer]:
    """The layers among all weights, which were read from the source; see `torch_layers`."""
    prefix = _chosen_prefix(named, prefix, where, uncertain)
    nonlinearity = _nonlinearity(told_nonlinearity, _nonlinearities(source).get(prefix), where)
    where = f"{where}, prefix {prefix!r}," if prefix else where
    refuse_uncertain(uncertain, prefix, where)
    below = {name.removeprefix(prefix): array for name, array in named.items() if name.startswith(prefix)}
    direct = {name: array for name, array in below.items() if "." not in name}  # modules within it have a dot
    own = {name: array for name, array in direct.items() if NAME.match(name) or hasattr(array, "shape")}
    if projections := sorted(name for name in own if name.startswith("weight_hr_")):
        raise DataError(
            f"{where} holds an LSTM with projections ({', '.join(projections)}; proj_size); there is no cell for that. "
            "Train one without."
        )
    hidden_features, kind = _sizes(own, where, kind)
    if kind != "rnn" and nonlinearity == "relu":
        raise ConfigError(f"{where} holds a {kind}, which has no nonlinearity to choose; relu was given. Leave it out.")
    if kind == "rnn" and nonlinearity is None and _is_module(source):
        raise ConfigError(
            f"{where} does not say the nonlinearity of its RNN, as one that was traced does not. Say nonlinearity="
            "'tanh' or nonlinearity='relu', as its nn.RNN was made."
        )
    if kind == "rnn" and nonlinearity is None:
        told = "%s does not say the nonlinearity of its RNN; tanh is taken. If it is relu, say --nonlinearity relu."
        logger.warning(told, where)
    weights = checked_weights(own, _expected(own, kind, hidden_features), where, lossy_cast=lossy_cast)
    ends = [[f"l{layer}{way}" for way in _ways(weights)] for layer in range(_num_layers(weights))]
    return layers_of(
        [cell_of(kind, _direction(weights, end), nonlinearity or "tanh") for end in layer] for layer in ends
    )


def _chosen_prefix(named: Named, prefix: str | None, where: str, uncertain: dict[str, list[str]]) -> str:
    """The prefix of the RNN to take, with its dot; `named` has weights there."""
    found = sorted({name[: match.start()] for name in named if (match := NAME.search(name))})
    found = [each for each in found if not each or each.endswith(".")]
    if not found:
        for path in uncertain:
            refuse_uncertain(uncertain, path, where)
        is_quantized = any("_packed_params" in name or "_all_weight_values" in name for name in named)
        quantized = " They are of a quantized module; convert the one it was made of." if is_quantized else ""
        lacks = "no weights of an nn.GRU, nn.LSTM or nn.RNN (no name ends in weight_ih_l0)"
        raise DataError(f"{where} holds {lacks}; it holds {some_of(sorted(named), 8)}.{quantized}")
    if prefix is None:
        if len(found) > 1:
            raise ConfigError(f"{where} holds several RNNs; choose one with prefix (--prefix): {found}.")
        return found[0]
    dotted = prefix.rstrip(".") + "." if prefix else ""
    if dotted not in found:
        raise ConfigError(f"{where} holds no RNN with the prefix {prefix!r}; those it has: {found}.")
    return dotted


def _sizes(own: Named, where: str, told: str | None) -> tuple[int, str]:
    """Hidden features and kind, which the recurrent kernel of the first layer tells alone."""
    shape = np.shape(own.get("weight_hh_l0", ()))
    if len(shape) != 2:
        arrived = shape if "weight_hh_l0" in own else "missing"
        raise_if_any([f"weight_hh_l0: {arrived}, expected (gates * hidden, hidden)"], where)
    rows, hidden_features = shape
    return hidden_features, kind_of(rows, hidden_features, where, told)


def _expected(own: Named, kind: str, H: int) -> dict[str, Shape]:
    """Names and shapes of a whole RNN of as many layers, directions and biases as there is any sign of."""
    rows = np.asarray(own["weight_hh_l0"]).shape[0]
    ways = _ways(own)
    has_bias = any(name.startswith("bias_") for name in own)
    W_i = np.shape(own.get("weight_ih_l0", ()))
    D = W_i[1] if len(W_i) == 2 else "in_features"
    expected: dict[str, Shape] = {}
    for layer in range(_num_layers(own)):
        for way in ways:
            expected[f"weight_ih_l{layer}{way}"] = (rows, D if layer == 0 else len(ways) * H)
            expected[f"weight_hh_l{layer}{way}"] = (rows, H)
            if has_bias:
                expected[f"bias_ih_l{layer}{way}"] = expected[f"bias_hh_l{layer}{way}"] = (rows,)
    return expected


def _ways(own: Mapping[str, Any]) -> list[str]:
    """What ends the names of each direction."""
    return ["", BACKWARD] if any(name.endswith(BACKWARD) for name in own) else [""]


def _num_layers(own: Mapping[str, Any]) -> int:
    """One more than the highest layer there is any weight of, but no more layers than weights."""
    numbers = [int(match[2]) for name in own if (match := NAME.match(name))]
    return 1 + min(max(numbers), len(own))


def _direction(weights: dict[str, np.ndarray], at: str) -> Direction:
    """The weights whose names end in `at`, as flax has them."""
    W_i, W_h = weights[f"weight_ih_{at}"].T, weights[f"weight_hh_{at}"].T
    return Direction(W_i, W_h, weights.get(f"bias_ih_{at}"), weights.get(f"bias_hh_{at}"))


def _read_torch_file(path: Path) -> Named:
    """The tensors of a file of `torch.save`, by dotted names; only tensors and plain containers are let in."""
    torch = optional_module("torch", f"Reading {path}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no such file make it raise anything, KeyError and IndexError too
        holds = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = f"It holds an object of {holds[1]}." if holds else f"torch says: {one_line(str(error))[:300]}"
        raise DataError(
            f"{path} is not a file of plain tensors that torch.load(weights_only=True) reads. Save "
            f"model.state_dict(), not the model; from Python, from_torch(model) takes the model itself. {why}"
        ) from error
    if not isinstance(loaded, Mapping):
        raise DataError(f"{path} holds a {type(loaded).__name__}; expected a state dict. Save model.state_dict().")
    return {name: tensor for name, tensor in flat(loaded).items() if isinstance(tensor, torch.Tensor)}


def _numpy(tensor: Any) -> np.ndarray:
    """A tensor as a numpy array; bfloat16, which numpy lacks, as float32, which holds it exactly.

    One that is sparse, shorter or without data gets a `stand_in`, which is refused where it is a weight of the RNN.
    """
    try:
        own = tensor.detach().cpu()
        array: np.ndarray = (own.float() if str(own.dtype) == "torch.bfloat16" else own).numpy()
        return array
    except (TypeError, RuntimeError):
        return stand_in(f"{tensor.dtype} {tensor.layout} on {tensor.device}", tensor.shape)


READERS = {".safetensors": read_tensors, **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _read_torch_file)}
