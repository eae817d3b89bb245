"""How cost should grow, as formulas: fitted to what `bench_growth` measures, drawn by `plots`. Numpy only.

A law says the shape; its scale is fitted to the medians, all points weighing the same in relative terms. So a point's
*ratio* to the law, 1 where the law holds, tells where the shape departs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Parameters = dict[str, float]


@dataclass(frozen=True)
class Law:
    """One law: its formula in words, its axes, and how it is evaluated and fitted.

    Args:
        formula: the law as a reader writes it.
        x_label, y_label: what is on the axes, with units.
        curve: `(x, parameters)` to y.
        fit: `(x, y, what is known beforehand)` to the parameters.
    """

    formula: str
    x_label: str
    y_label: str
    curve: Callable[[np.ndarray, Parameters], np.ndarray]
    fit: Callable[[np.ndarray, np.ndarray, Parameters], Parameters]


def fit_line(x: np.ndarray, y: np.ndarray, known: Parameters) -> Parameters:
    """`a` and `b` of `a + b x`, least squares of the relative errors, so that the small points fix `a`."""
    a, b = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones(len(x)), rcond=None)[0]
    return {"a": float(a), "b": float(b)}


def fit_scale(shape: Callable[[np.ndarray, Parameters], np.ndarray]) -> Callable[..., Parameters]:
    """A fit of `c` in `c * shape(x)`: the median of the points' own."""

    def fit(x: np.ndarray, y: np.ndarray, known: Parameters) -> Parameters:
        return {"c": float(np.median(y / shape(x, known))), **known}

    return fit


def scaled(formula: str, x: str, y: str, shape: Callable[[np.ndarray, Parameters], np.ndarray]) -> Law:
    """The law `c * shape(x)`."""
    return Law(formula, x, y, lambda x, p: p["c"] * shape(x, p), fit_scale(shape))


def fit_longest(x: np.ndarray, y: np.ndarray, known: Parameters) -> Parameters:
    """`c` up to `filled`, where rows fill all lanes; and `full`, from where on the longest row is all of the time."""
    c = float(np.median(y[x <= known["filled"]]))
    return {"c": c, "full": c * float(x[-1] / y[-1])}


LAWS = {
    "rows": Law(
        "a + b · rows",
        "rows",
        "seconds, Parquet to Parquet",
        lambda x, p: p["a"] + p["b"] * x,
        fit_line,
    ),
    "T": Law(
        "constant, then ∝ T: what the longest row takes",
        "steps per row, T (the total of steps is the same everywhere)",
        "nanoseconds per step, rows in memory",
        lambda x, p: p["c"] * np.maximum(1, x / p["full"]),
        fit_longest,
    ),
    "H": scaled(
        "∝ H · (D + H)",
        "hidden features, H",
        "microseconds per step, rows in memory",
        lambda x, p: x * (p["D"] + x),
    ),
    "devices": Law(
        "1 device's time / devices",
        "CPU devices",
        "seconds",
        lambda x, p: p["one"] / x,
        lambda x, y, known: {"one": float(y[x.argmin()] * x.min())},
    ),
    "memory": scaled(
        "flat",
        "rows",
        "peak memory of the process, MiB",
        lambda x, p: np.ones(len(x)),
    ),
}
"""By what is varied."""


def compared(name: str, measured: dict[float, list[float]], known: Parameters | None = None) -> dict[str, Any]:
    """Rounds of measurements by x, as points beside the fitted law: median, worst, best, the law's value, the ratio."""
    x = np.array(list(measured), np.float64)
    y = np.array([float(np.median(rounds)) for rounds in measured.values()])
    parameters = LAWS[name].fit(x, y, known or {})
    expected = LAWS[name].curve(x, parameters)
    points = [
        {
            "x": at,
            "median": _short(median),
            "min": _short(min(rounds)),
            "max": _short(max(rounds)),
            "law": _short(law),
            "ratio": round(float(median / law), 3),
        }
        for (at, rounds), median, law in zip(measured.items(), y, expected, strict=True)
    ]
    return {"parameters": {key: _short(value) for key, value in parameters.items()}, "points": points}


def _short(value: float) -> float:
    """Four digits that count."""
    return float(f"{value:.4g}")
