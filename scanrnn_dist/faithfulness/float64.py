"""A traced program evaluated in float64: as it is, or with a rounding error made up after every operation.

The first says what the program gives without the rounding of its own dtypes. Several draws of the second say how far
those dtypes may come out: stochastic arithmetic (Parker, Monte Carlo Arithmetic, 1997). A program is known by its
operations, so cells need not be written for it. What is made of the numbers stands in `judge.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

FLOAT32_ROUNDOFF = 2.0**-24
CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
"""Operations that only call a program of their own."""
EXACT = {
    *("abs", "broadcast_in_dim", "ceil", "clamp", "concatenate", "copy", "copy_p", "dynamic_slice", "expand_dims"),
    *("dynamic_update_slice", "floor", "gather", "iota", "max", "min", "neg", "optimization_barrier", "pad"),
    *("reduce_max", "reduce_min", "reshape", "rev", "round", "select_n", "sign", "slice", "sort", "split"),
    *("squeeze", "stop_gradient", "transpose"),
}
"""Operations that round nothing, whatever the dtype."""


class Roundings(NamedTuple):
    """Where made-up rounding errors come from.

    Args:
        key: `()` uint32.
        anew: `()` bool, whether each step of a scan draws anew. Else all steps share one draw, as those of a row whose
            steps are all the same share their rounding errors, which then add up.
        products: the relative error of the operands of matrix products; 0 where they keep the bits of their dtype.
    """

    key: jax.Array
    anew: jax.Array
    products: float

    def of(self, number: int) -> Roundings:
        """Of the operation of this number, or the program in it."""
        return self._replace(key=_mixed(self.key ^ jnp.uint32(number + 1)))

    def at(self, step: jax.Array) -> Roundings:
        """Of one step of a scan."""
        return self._replace(key=_mixed(self.key + jnp.where(self.anew, step + 1, 0).astype(jnp.uint32)))


def evaluate(program: ClosedJaxpr, arguments: Sequence[Any], roundings: Roundings | None = None) -> list[jax.Array]:
    """The outputs of a traced program, every float in it float64; to be called with `jax.enable_x64(True)`.

    Args:
        program: from `jax.make_jaxpr`. An operation with a program of its own that is not known here (a kernel, say) is
            computed in its own dtypes.
        arguments: its flat arguments; cast to the dtypes that it was traced with.
        roundings: None for the exact program. Else every result gets a relative error of at most the unit roundoff of
            the dtype that the program has there; that of a matrix product is relative to the sum of all magnitudes.
    """
    expected: list[Any] = list(program.jaxpr.invars)  # newer versions of JAX give their dtype no type
    taken = [a if a.dtype == v.aval.dtype else a.astype(v.aval.dtype) for a, v in zip(arguments, expected, strict=True)]
    return _run(program.jaxpr, program.consts, [_wide(a) for a in taken], roundings)


def _run(jaxpr: Any, consts: Sequence[Any], arguments: list[Any], roundings: Roundings | None) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(_wide, consts), *arguments], strict=True))

    def read(atom: Any) -> Any:
        return values[atom] if not isinstance(atom, Literal) else _wide(jnp.asarray(atom.val, atom.aval.dtype))  # type: ignore[attr-defined]

    for number, eqn in enumerate(jaxpr.eqns):
        given = [read(atom) for atom in eqn.invars]
        results = _results(eqn, given, roundings and roundings.of(number))
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _results(eqn: Any, given: list[Any], roundings: Roundings | None) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        return _run(*_inner(next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)), given,
                    roundings)  # fmt: skip
    if name == "scan":
        return _scan(eqn, given, roundings)
    if name == "while":
        return _while(params, given, roundings)
    if name == "cond":
        branches = [lambda *a, b=branch: _run(*_inner(b), list(a), roundings) for branch in params["branches"]]
        return jax.lax.switch(given[0], branches, *given[1:])
    if name == "bitcast_convert_type" or any(hasattr(value, "eqns") for value in jax.tree.leaves(params)):
        given = [a.astype(v.aval.dtype) if _is_float(a.dtype) else a for a, v in zip(given, eqn.invars, strict=True)]
    else:
        params = {key: np.dtype(np.float64) if _is_float(value) else value for key, value in params.items()}
    results = eqn.primitive.bind(*given, **params)
    results = [_wide(result) for result in (results if eqn.primitive.multiple_results else [results])]
    if roundings is None or name in EXACT:
        return results
    return [_rounded(eqn, given, nth, result, roundings.of(nth)) for nth, result in enumerate(results)]


def _rounded(eqn: Any, given: list[Any], nth: int, result: Any, roundings: Roundings) -> Any:
    """A result with the error that it may have in the dtype of the program."""
    dtype = eqn.outvars[nth].aval.dtype
    if not _is_float(dtype):
        return result
    unit = float(jnp.finfo(dtype).eps) / 2
    if eqn.primitive.name == "convert_element_type":
        before = eqn.invars[0].aval.dtype
        if not _is_float(before) or float(jnp.finfo(before).eps) / 2 >= unit:
            return result
    if eqn.primitive.name == "dot_general":
        # Sums are kept in float32 at least, and each of their roundings is relative to what was summed up so far.
        params = dict(eqn.params, preferred_element_type=np.dtype(np.float64))
        magnitudes = eqn.primitive.bind(*map(jnp.abs, given), **params)
        result += min(unit, FLOAT32_ROUNDOFF) * magnitudes * _draw(roundings.of(1), result)
        if roundings.products:
            squares = jnp.sqrt(eqn.primitive.bind(*map(jnp.square, given), **params))
            result += roundings.products * squares * _draw(roundings.of(2), result)
    return result * (1 + unit * _draw(roundings, result))


def _draw(roundings: Roundings, like: Any) -> jax.Array:
    """Numbers from -1 to 1."""
    counter = jnp.arange(like.size, dtype=jnp.uint32).reshape(like.shape)
    return _mixed(_mixed(counter) ^ roundings.key).astype(jnp.float64) * 2.0**-31 - 1


def _mixed(bits: jax.Array) -> jax.Array:
    """32 other bits, by the end of MurmurHash3; JAX's own generator takes many times as long to compile."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def _scan(eqn: Any, given: list[Any], roundings: Roundings | None) -> list[Any]:
    """`jax.lax.scan` of the body."""
    params, body = eqn.params, _inner(eqn.params["jaxpr"])[0]
    # Constants, carry, inputs of the steps. Releases of JAX count them in other parameters; all of them stack inputs
    # and outputs of steps along one axis more.
    m = sum(outer.aval.ndim == own.aval.ndim for outer, own in zip(eqn.invars, body.invars, strict=True))
    n = m - sum(outer.aval.ndim == own.aval.ndim for outer, own in zip(eqn.outvars, body.outvars, strict=True))

    def step(carry: list[Any], at: tuple[Any, list[Any]]) -> tuple[list[Any], list[Any]]:
        t, x = at
        results = _run(*_inner(params["jaxpr"]), [*given[:n], *carry, *x], roundings and roundings.at(t))
        return results[: m - n], results[m - n :]

    steps = jnp.arange(params["length"])
    carry, stacked = jax.lax.scan(step, given[n:m], (steps, given[m:]), reverse=params["reverse"])
    return [*carry, *stacked]


def _while(params: dict[str, Any], given: list[Any], roundings: Roundings | None) -> list[Any]:
    """`jax.lax.while_loop` of condition and body; all rounds share one draw."""
    n, m = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

    def goes_on(carry: list[Any]) -> Any:
        return _run(*_inner(params["cond_jaxpr"]), [*given[:n], *carry], roundings)[0]

    def body(carry: list[Any]) -> list[Any]:
        return _run(*_inner(params["body_jaxpr"]), [*given[n:m], *carry], roundings)

    return jax.lax.while_loop(goes_on, body, given[m:])


def _inner(program: Any) -> tuple[Any, Sequence[Any]]:
    """A program, closed or open, and its constants."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def _is_float(dtype: Any) -> bool:
    """Whether this is a dtype, and of floats."""
    return isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, jnp.floating)


def _wide(value: Any) -> Any:
    """Floats as float64, anything else as it is."""
    return value.astype(jnp.float64) if _is_float(value.dtype) else value
