"""Draw a comparison: bars per workload, one for each contender, in rows of workloads.

What is drawn is a `Quantity` of each contender's figures; one that failed has no bar, but a word in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.contenders import CONTENDERS
from benchmarks.plot_style import DASHES, GRID, INK, MUTED, titled
from benchmarks.workloads import WORKLOADS

NAMES = {
    "ours": ("scanrnn_dist", "#c2410c"),
    "ours-xla": ("scanrnn_dist, XLA's program", "#fdba74"),
    "vmap": ("vmap(scan), buckets", "#1d4ed8"),
    "nnx": ("nnx.RNN, buckets", "#0e9f6e"),
    "onnx": ("ONNX Runtime", "#8b5cf6"),
    "torch": ("torch, packed", "#eab308"),
    "torch as shipped": ("torch as shipped", "#a16207"),
    "ray": ("Ray Data, torch", "#9aa5b1"),
}
"""What a contender is called in a plot, and its colour."""
MOST_IN_A_ROW = 5
Figures = dict[str, Any]


@dataclass(frozen=True)
class Quantity:
    """What is drawn of a contender.

    Args:
        title, axis, note: texts above the plot, beside it, and in small print.
        of: a contender's figures and the workload's result to median, least and most; None where it was not measured.
        text: a value as it stands above its bar.
        full: a value at which a line is drawn.
        has_ratio: whether how ours compares with the fastest opponent stands below each workload.
    """

    title: str
    axis: str
    note: str
    of: Callable[[Figures, Figures], tuple[float, float, float] | None]
    text: Callable[[float], str]
    full: float = 0.0
    has_ratio: bool = True


def _gflops(figures: Figures, result: Figures) -> tuple[float, float, float] | None:
    rates = figures.get("gflops")
    return (rates["median"], rates["min"], rates["max"]) if rates else None


def _share(figures: Figures, result: Figures) -> tuple[float, float, float] | None:
    rates, product = _gflops(figures, result), result.get("product_gflops")
    if rates is None or product is None:
        return None
    median, least, most = (100 * rate / product["median"] for rate in rates)
    return median, least, most


def _seconds(figures: Figures, result: Figures) -> tuple[float, float, float] | None:
    taken = sorted(figures.get("seconds", []))
    return (taken[len(taken) // 2], taken[0], taken[-1]) if taken and "failed" not in figures else None


def _memory(figures: Figures, result: Figures) -> tuple[float, float, float] | None:
    peak = figures.get("peak_mib")
    return (peak, peak, peak) if peak else None


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


ROUNDS = "bars: medians; whiskers: worst and best round; "
WORK = "useful GFLOP/s: 6 H (D + H) per real step"
SHARE = Quantity(
    "What each makes of the machine, Parquet to Parquet",
    "useful work, % of the\nmatrix product",
    "medians, worst and best round; dashed: the machine's own matrix product, measured in turn with them",
    _share,
    _short,
    full=100,
)
WARM = Quantity("Parquet to Parquet, warm processes", WORK, ROUNDS + "higher is better", _gflops, _short)
COMPUTE = Quantity("Rows in memory, compute alone", WORK, ROUNDS + "higher is better", _gflops, _short)
COLD = Quantity(
    "Parquet to Parquet, whole processes: start, imports and compilation included",
    "seconds",
    ROUNDS + "lower is better",
    _seconds,
    lambda seconds: f"{seconds:.1f}",
)
MEMORY = Quantity(
    "Peak memory of a warm process, Parquet to Parquet",
    "MiB",
    "proportional set size of a process and all that it started; lower is better",
    _memory,
    lambda mib: f"{mib:,.0f}",
    has_ratio=False,
)


def pictures(name: str, results: Figures, on: Figures) -> dict[str, Figure]:
    """The plots of one comparison, by file name; `name` is that of its results, and `on` the machine."""
    if name != "warm":
        return {f"comparison-{name}": draw({"cold": COLD, "compute": COMPUTE}.get(name, WARM), results, on)}
    drawn = {"comparison-warm": draw(WARM, results, on), "comparison-memory": draw(MEMORY, results, on)}
    if any("product_gflops" in result for result in results.values()):
        drawn["comparison"] = draw(SHARE, results, on)
    return drawn


def draw(quantity: Quantity, results: Figures, on: Figures) -> Figure:
    """Bars of every contender on every workload."""
    workloads = [name for name in WORKLOADS if name in results]
    names = [name for name in CONTENDERS if any(name in results[w]["contenders"] for w in workloads)]
    rows = -(-len(workloads) // MOST_IN_A_ROW)
    in_a_row = -(-len(workloads) // rows)
    figure = Figure(figsize=(9, 1 + 3.2 * rows), layout="constrained")
    for row in range(rows):
        axes = figure.add_subplot(rows, 1, row + 1)
        chosen = workloads[row * in_a_row : (row + 1) * in_a_row]
        _draw_row(axes, quantity, {w: results[w] for w in chosen}, names, in_a_row)
        if row == 0:
            titled(axes, quantity.title, "\n".join(filter(None, [quantity.note, _machine(on)])))
            handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=1)
    return figure


def _draw_row(axes: Axes, quantity: Quantity, results: Figures, names: list[str], groups: int) -> None:
    """The bars of some workloads, with room for so many groups of them."""
    width = 0.84 / len(names)
    top = quantity.full
    for place, name in enumerate(names):
        title, colour = NAMES.get(name, (name, MUTED))
        axes.bar([0], [0], 0, color=colour, label=title)  # in the legend, whatever is drawn of it
        for group, result in enumerate(results.values()):
            x = group + (place - (len(names) - 1) / 2) * width
            figures = result["contenders"].get(name, {})
            found = quantity.of(figures, result)
            if found is None:
                if "failed" in figures:
                    _bar_label(axes, x, 0, "failed", is_bold=False, rotation=90)
                continue
            median, least, most = found
            axes.bar(x, median, 0.9 * width, color=colour)
            if most > least:
                errors = [[median - least], [most - median]]
                axes.errorbar(x, median, errors, fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.8, capthick=0.8)
            top = max(top, most)
            _bar_label(axes, x, most, quantity.text(median), is_bold=name == "ours")
    if quantity.full:
        axes.axhline(quantity.full, color=INK, lw=1, ls=DASHES)
    axes.set_xticks(range(len(results)), [_workload_label(*named, quantity.has_ratio) for named in results.items()])
    axes.tick_params(axis="x", length=0, pad=5, labelsize=8.5)
    axes.set_xlim(-0.5, groups - 0.5)
    axes.set_ylim(0, 1.12 * top or 1)
    axes.set_ylabel(quantity.axis)
    axes.grid(axis="y", color=GRID)


def _bar_label(axes: Axes, x: float, y: float, text: str, is_bold: bool, rotation: int = 0) -> None:
    """The figure above a bar's whisker."""
    axes.annotate(
        text, (x, y), (0, 2), textcoords="offset points", ha="center", va="bottom", rotation=rotation,
        fontsize=7.5, color=INK if is_bold else MUTED, fontweight="bold" if is_bold else "normal",
    )  # fmt: skip


def _workload_label(name: str, result: Figures, has_ratio: bool) -> str:
    """A workload's name, what its rows are, its sizes, and how ours compares."""
    workload = WORKLOADS[name]
    kind, rows = workload.title.split(": ", 1)
    rows = rows.replace(", ", "\n").replace(" of ", "\nof ")
    lines = [f"{name} {kind}", rows, f"D {workload.in_features}, H {workload.hidden}"]
    if has_ratio and "ratio" in result:
        lines.append(f"ours: {result['ratio']:.2f} x fastest")
    return "\n".join(lines)


def _machine(on: Figures) -> str:
    """The machine in a few words; empty where that was not kept."""
    if "processor" not in on:
        return ""
    vectors = "with AVX-512" if on.get("avx512") else "without AVX-512"
    return f"{on['cores']} cores, {on['processor']} (family {on['family_and_model'][0]}) {vectors}"
