"""Draw what the benchmarks measured: the comparison, and the growth of cost beside its laws.

    python -m benchmarks.run --json benchmarks/results/warm.json
    python -m benchmarks.run --compute --json benchmarks/results/compute.json
    python -m benchmarks.run --cold --json benchmarks/results/cold.json
    python -m benchmarks.bench_growth --json benchmarks/results/growth.json
    python -m benchmarks.plots                       # benchmarks/results/*.json -> benchmarks/plots/*.png

A comparison is drawn as `comparison-<name>.png`, each part of the growth as `growth-<part>.png`. What was measured in
several runs may stand in several files: those named alike up to the first hyphen (`warm-W1.json`, `warm-W2.json`) are
drawn as one. A file holds the results alone, as `--json` writes them, or the benchmark's whole last line.
"""

# matplotlib is of the extra [bench], which the checks do without

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from benchmarks.contenders import CONTENDERS
from benchmarks.laws import LAWS
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent
TITLES = {
    "warm": "Parquet to Parquet, warm processes",
    "compute": "Rows in memory, compute alone",
    "cold": "Parquet to Parquet, whole processes: start, imports and compilation included",
}
"""Of comparisons, by the name of their file; another name is its own title."""
GROWTH_TITLES = {
    "rows": "Time against rows",
    "T": "Time against the length of the rows",
    "H": "Time against the hidden features",
    "devices": "Time against devices",
    "memory": "Peak memory against rows",
}
INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
COLOURS = ("#c2410c", "#1d4ed8", "#0e9f6e", "#8b5cf6", "#eab308", "#a16207", "#9aa5b1")
"""Ours first, then the opponents in order; the first ones also of series."""
DASHES = (0, (5, 3))
TOLD = 0.1
"""From this on, relative, a point's distance from its law is written beside it."""
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of each run, by file name up to the first hyphen; raises `SystemExit` where there are none."""
    merged: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        merged.setdefault(path.stem.split("-")[0], {}).update(document.get("results", document))
    if not merged:
        raise SystemExit(f"No *.json in {folder}; the benchmarks write them there with --json.")
    return merged


def draw_comparison(title: str, results: dict[str, Any]) -> Figure:
    """Bars per workload, one for each contender: median useful GFLOP/s, whiskers from the worst to the best round."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.add_subplot()
    workloads = [name for name in WORKLOADS if name in results]
    names = [name for name in CONTENDERS if any(name in results[w]["contenders"] for w in workloads)]
    width = 0.84 / len(names)
    top = 0.0
    for place, name in enumerate(names):
        colour = COLOURS[list(CONTENDERS).index(name) % len(COLOURS)]
        rates = {w: results[w]["contenders"][name]["gflops"] for w in workloads if name in results[w]["contenders"]}
        x = np.array([workloads.index(w) for w in rates]) + (place - (len(names) - 1) / 2) * width
        medians, worst, best = (np.array([rate[key] for rate in rates.values()]) for key in ("median", "min", "max"))
        axes.bar(x, medians, 0.9 * width, color=colour, label=name)
        whiskers = [medians - worst, best - medians]
        axes.errorbar(x, medians, whiskers, fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.8, capthick=0.8)
        top = max(top, *best)
        for at, median, high in zip(x, medians, best, strict=True):
            _bar_label(axes, at, high, f"{median:.0f}" if median >= 10 else f"{median:.1f}", is_bold=name == "ours")
    axes.set_xticks(range(len(workloads)), [_workload_label(name, results[name]) for name in workloads])
    axes.tick_params(axis="x", length=0, pad=6, labelsize=8.5)
    axes.set_xlim(-0.5, len(workloads) - 0.5)
    axes.set_ylim(0, 1.08 * top)
    axes.set_ylabel("useful GFLOP/s: 6 H (D + H) per real step")
    axes.grid(axis="y", color=GRID)
    _title(axes, title, "bars: medians; whiskers: worst and best round; higher is better")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=len(names), handlelength=1)
    return figure


def _bar_label(axes: Axes, x: float, y: float, text: str, is_bold: bool) -> None:
    """The figure above a bar's whisker."""
    axes.annotate(
        text, (x, y), (0, 2), textcoords="offset points", ha="center", va="bottom",
        fontsize=7, color=INK if is_bold else MUTED, fontweight="bold" if is_bold else "normal",
    )  # fmt: skip


def _workload_label(name: str, result: dict[str, Any]) -> str:
    """A workload's name, what its rows are, its sizes, and how ours compares."""
    workload = WORKLOADS[name]
    kind, rows = workload.title.split(": ", 1)
    lines = [f"{name} {kind}", *rows.split(", "), f"D {workload.in_features}, H {workload.hidden}"]
    if "ratio" in result:
        lines.append(f"ours: {result['ratio']:.2f} x the fastest")
    return "\n".join(lines)


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
            _mark(axes, series["parameters"]["full"], "fewer rows\nthan lanes")
    axes.plot([], [], color=MUTED, lw=1.3, ls=DASHES, label=f"law: {part['law']}")
    axes.set_xlabel(law.x_label)
    axes.set_ylabel(law.y_label)
    ticks = sorted({point["x"] for series in part["series"].values() for point in series["points"]})
    _number_axes(axes, ticks)
    axes.grid(color=GRID, lw=0.8)
    axes.legend(loc="best", fontsize=8.5)
    note = f"points: medians; whiskers: best and worst round; figures: times the law, from {TOLD:.0%} off on"
    _title(axes, GROWTH_TITLES[name], note)
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


def _title(axes: Axes, title: str, note: str) -> None:
    """A title, and a note in small print below it."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11, pad=20)
    axes.annotate(
        note, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8, color=MUTED, va="bottom"
    )


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 128 colours, a third as large as one of all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Parse, read, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="the folder with the JSON files")
    parser.add_argument("--plots", type=Path, default=HERE / "plots", help="the folder for the PNG files")
    arguments = parser.parse_args()
    arguments.plots.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figures = {}
        for name, results in read_results(arguments.results).items():
            if any("contenders" in result for result in results.values()):
                figures[f"comparison-{name}"] = draw_comparison(TITLES.get(name, name), results)
            for part in LAWS.keys() & results.keys():
                figures[f"growth-{part}"] = draw_growth(part, results[part])
        for name, figure in sorted(figures.items()):
            path = arguments.plots / f"{name}.png"
            save(figure, path)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
