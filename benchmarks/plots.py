"""Draw what the benchmarks measured: the comparison, and the growth of cost beside its laws.

    python -m benchmarks.run --json benchmarks/results/warm.json
    python -m benchmarks.bench_growth --json benchmarks/results/growth.json
    python -m benchmarks.plots                       # benchmarks/results/*.json -> benchmarks/plots/*.png

The warm comparison is drawn as `comparison.png`, which README shows, and each part of the growth as
`growth-<part>.png`; other results are not drawn. What was measured in several runs may stand in several files: those
named alike up to the first hyphen (`warm-W1.json`, `warm-W2.json`) are drawn as one. A file is what `--json` writes, or
the benchmark's whole last line.
"""

# matplotlib is of the extra [bench], which the checks do without

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.laws import LAWS
from benchmarks.plot_comparison import draw
from benchmarks.plot_style import COLOURS, DASHES, GRID, MUTED, STYLE, save, titled

HERE = Path(__file__).parent
GROWTH_TITLES = {
    "rows": "Time against rows",
    "T": "Time against the length of the rows",
    "H": "Time against the hidden features",
    "devices": "Time against devices",
    "memory": "Peak memory against rows",
}
TOLD = 0.1
"""From this on, relative, a point's distance from its law is written beside it."""


def read_results(folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The results of each run and its machine, by file name up to the first hyphen; `SystemExit` if there are none."""
    merged: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        results, on = merged.setdefault(path.stem.split("-")[0], ({}, {}))
        results.update(document.get("results", document))
        on.update(document.get("machine", {}))
    if not merged:
        raise SystemExit(f"No *.json in {folder}; the benchmarks write them there with --json.")
    return merged


def draw_growth(name: str, part: dict[str, Any]) -> Figure:
    """Measured points, with whiskers from the best to the worst round, and the law's line, both axes logarithmic."""
    law = LAWS[name]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for nth, (title, series) in enumerate(part["series"].items()):
        x, median, low, high = (np.array([p[key] for p in series["points"]]) for key in ("x", "median", "min", "max"))
        line = np.geomspace(x.min(), x.max(), 400)
        axes.plot(line, law.curve(line, series["parameters"]), color=COLOURS[nth], lw=1.3, ls=DASHES, alpha=0.8)
        aside = x * 1.035 ** (nth - (len(part["series"]) - 1) / 2)
        axes.errorbar(
            aside, median, [median - low, high - median], fmt="o", color=COLOURS[nth], markersize=5.5,
            markeredgecolor="white", markeredgewidth=0.8, elinewidth=1, capsize=2.5, label=f"measured: {title}",
        )  # fmt: skip
        for at, point in zip(aside, series["points"], strict=True):
            if abs(point["ratio"] - 1) >= TOLD:
                _ratio_label(axes, at, point, COLOURS[nth])
        if "full" in series["parameters"]:
            _mark(axes, series["parameters"]["full"], "longest\nrow only")
    axes.plot([], [], color=MUTED, lw=1.3, ls=DASHES, label=f"law: {part['law']}")
    axes.set_xlabel(law.x_label)
    axes.set_ylabel(law.y_label)
    ticks = sorted({point["x"] for series in part["series"].values() for point in series["points"]})
    _number_axes(axes, ticks)
    axes.grid(color=GRID, lw=0.8)
    axes.legend(loc="best", fontsize=8.5)
    note = f"points: medians; whiskers: best and worst round; figures: times the law, from {TOLD:.0%} off on"
    titled(axes, GROWTH_TITLES[name], note)
    return figure


def _ratio_label(axes: Axes, x: float, point: dict[str, float], colour: str) -> None:
    """How many times the law a point is: above its whisker if it is more, below if less."""
    is_above = point["ratio"] > 1
    axes.annotate(
        f"{point['ratio']:.2f} x", (x, point["max" if is_above else "min"]), (0, 4 if is_above else -4),
        textcoords="offset points", ha="center", va="bottom" if is_above else "top", fontsize=8, color=colour,
    )  # fmt: skip


def _mark(axes: Axes, x: float, text: str) -> None:
    """A line up at `x`, and what is beyond it."""
    axes.axvline(x, color=MUTED, lw=0.9)
    axes.annotate(
        text, (x, 0), (4, 8), xycoords=("data", "axes fraction"), textcoords="offset points",
        fontsize=8, color=MUTED, va="bottom",
    )  # fmt: skip


def _number_axes(axes: Axes, points: list[float]) -> None:
    """Ticks where points stand, as far as there is room, and, up the y axis, at round numbers."""
    ticks = [points[-1]]
    for x in reversed(points[:-1]):
        if np.log(ticks[-1] / x) > 0.1 * np.log(points[-1] / points[0]):
            ticks.append(x)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _count(x)))
    low, high = axes.get_ylim()
    if high / low < 4:  # nearly flat: show how flat
        middle = (low * high) ** 0.5
        low, high = middle / 2.5, middle * 2.5
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 20 else (1, 2, 5) if high / low < 200 else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    axes.yaxis.set_major_locator(FixedLocator([step * 10.0**decade for decade in decades for step in steps]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)


def _count(x: float) -> str:
    """A number of things, short: 65,536, 300 k, 1 M."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if x >= unit and x % (unit / 10) == 0:
            return f"{x / unit:g}{name}"
    return f"{x:,g}"


def main() -> None:
    """Parse, read, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="the folder with the JSON files")
    parser.add_argument("--plots", type=Path, default=HERE / "plots", help="the folder for the PNG files")
    arguments = parser.parse_args()
    arguments.plots.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figures: dict[str, Figure] = {}
        for name, (results, on) in read_results(arguments.results).items():
            if name == "warm":
                figures["comparison"] = draw(results, on)
            for part in LAWS.keys() & results.keys():
                figures[f"growth-{part}"] = draw_growth(part, results[part])
        for name, figure in sorted(figures.items()):
            path = arguments.plots / f"{name}.png"
            save(figure, path)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
