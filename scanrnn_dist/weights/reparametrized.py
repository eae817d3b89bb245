"""PyTorch's weights that a state dict holds in parts: computed where the rule is certain, refused where it is not.

    weight norm   w = g v / |v|, the norm over all axes along which g has size 1: `_g` and `_v` beside one another, or
                  `parametrizations.*.original0` and `original1`
    pruning       w = orig * mask

What else stands beside a weight under a name of its own (spectral norm, weight drop, a parametrization of one's own)
gives a weight that the state dict alone does not tell, even where a weight of the plain name is there too: weight drop
leaves that of its last training step. A parametrization of one's own with two originals of the shapes of weight norm is
taken for it, unless the module is there to tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import jax.numpy as jnp
import numpy as np

from scanrnn_dist.errors import DataError, some_of
from scanrnn_dist.weights.files import Named

_PART = re.compile(r"(?P<path>(?:.*\.)?)(?P<weight>(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?)(?P<part>[._].+)")
_WHOLE = re.compile(r"(?:.*\.)?(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?")
Parts = dict[str, np.ndarray]
"""Arrays by the ends of their names."""


def whole_weights(named: Named, computed: Collection[str] = ()) -> tuple[Named, dict[str, list[str]]]:
    """The arrays with every weight that is certain in place of its parts.

    And, by the path of the RNN they stand in, the names of the parts that make no certain weight; among them are those
    of the `computed`, weights that are known to follow another rule.
    """
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name in named:
        if (match := _PART.fullmatch(name)) and not _WHOLE.fullmatch(name):
            path = match["path"].removesuffix("parametrizations.")
            groups.setdefault((path, match["weight"]), {})[match["part"]] = name
    whole, uncertain = dict(named), dict[str, list[str]]()
    for (path, weight), names in groups.items():
        is_doubted = path + weight in named or path + weight in computed
        rule = None if is_doubted else _RULES.get(frozenset(names))
        parts = {} if rule is None else {part: np.asarray(named[name]) for part, name in names.items()}
        is_held = not any(array.dtype.names for array in parts.values())  # none is a `stand_in`
        array = rule(parts) if rule is not None and is_held else None
        if array is None:
            uncertain.setdefault(path, []).extend(sorted(names.values()))
        else:
            whole[path + weight] = array
            for name in names.values():
                del whole[name]
    return whole, uncertain


def refuse_uncertain(uncertain: dict[str, list[str]], prefix: str, where: str) -> None:
    """Refuse parts that belong to the RNN of a prefix, or to the module that it stands in, as weight drop's do."""
    around = re.sub(r"[^.]+\.$", "", prefix)
    names = [*uncertain.get(prefix, []), *(uncertain.get(around, []) if around != prefix else [])]
    if names:
        raise DataError(
            f"{where} holds weights in parts, from which those that the RNN computes with do not follow: "
            f"{some_of(names, 6)}. Expected plain weights. Make them plain, then save the state dict again: call "
            "model.eval(), and torch.nn.utils.parametrize.remove_parametrizations(rnn, name), remove_weight_norm, "
            "remove_spectral_norm or prune.remove; of weight drop, keep each _raw weight under the name without _raw."
        )


def _weight_norm(g: np.ndarray, v: np.ndarray) -> np.ndarray | None:
    """`g v / |v|` in float64, rounded once to the type of v; None where the shapes are others than of weight norm."""
    along = tuple(axis for axis, size in enumerate(g.shape) if size == 1) if g.ndim else tuple(range(v.ndim))
    fits = g.ndim == 0 or (g.ndim == v.ndim and all(g.shape[axis] in (1, v.shape[axis]) for axis in range(v.ndim)))
    if not fits or not along or not (_is_float(g) and _is_float(v)):
        return None
    wide = v.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # a v of zeros has no direction: NaN, which is refused
        array: np.ndarray = g.astype(np.float64) * wide / np.sqrt((wide**2).sum(along, keepdims=True))
    return array.astype(v.dtype)


def _pruned(orig: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """`orig * mask`; None where the mask is none of zeros and ones, or of another shape."""
    is_mask = orig.shape == mask.shape and np.isin(mask, (0, 1)).all()
    return orig * mask.astype(orig.dtype) if is_mask else None


def _is_float(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))  # bfloat16 too


_RULES: dict[frozenset[str], Callable[[Parts], np.ndarray | None]] = {
    frozenset({"_g", "_v"}): lambda parts: _weight_norm(parts["_g"], parts["_v"]),
    frozenset({".original0", ".original1"}): lambda parts: _weight_norm(parts[".original0"], parts[".original1"]),
    frozenset({"_orig", "_mask"}): lambda parts: _pruned(parts["_orig"], parts["_mask"]),
}
