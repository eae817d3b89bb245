"""Draw the comparison: useful work as a share of the machine's matrix product, a bar for each contender and workload.

The workloads stand in rows. A contender that failed has no bar, but a word in its place.
"""

from __future__ import annotations

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
TITLE = "What each makes of the machine, Parquet to Parquet"
NOTE = "medians, worst and best round; dashed: the machine's own matrix product, measured in turn with them"
Figures = dict[str, Any]


def draw(results: Figures, on: Figures) -> Figure:
    """Bars of every contender on every workload of a warm comparison; `on` is the machine."""
    workloads = [name for name in WORKLOADS if name in results]
    names = [name for name in CONTENDERS if any(name in results[w]["contenders"] for w in workloads)]
    rows = -(-len(workloads) // MOST_IN_A_ROW)
    in_a_row = -(-len(workloads) // rows)
    figure = Figure(figsize=(9, 1 + 3.2 * rows), layout="constrained")
    for row in range(rows):
        axes = figure.add_subplot(rows, 1, row + 1)
        chosen = workloads[row * in_a_row : (row + 1) * in_a_row]
        _draw_row(axes, {w: results[w] for w in chosen}, names, in_a_row)
        if row == 0:
            titled(axes, TITLE, f"{NOTE}\n{_machine(on)}")
            handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=1)
    return figure


def _draw_row(axes: Axes, results: Figures, names: list[str], groups: int) -> None:
    """The bars of some workloads, with room for so many groups of them."""
    width = 0.84 / len(names)
    top = 100.0
    for place, name in enumerate(names):
        title, colour = NAMES.get(name, (name, MUTED))
        axes.bar([0], [0], 0, color=colour, label=title)  # in the legend, whatever is drawn of it
        for group, result in enumerate(results.values()):
            x = group + (place - (len(names) - 1) / 2) * width
            figures = result["contenders"].get(name, {})
            if "gflops" not in figures:
                if "failed" in figures:
                    _bar_label(axes, x, 0, "failed", is_bold=False, rotation=90)
                continue
            shares = {key: 100 * rate / result["product_gflops"]["median"] for key, rate in figures["gflops"].items()}
            median, least, most = shares["median"], shares["min"], shares["max"]
            axes.bar(x, median, 0.9 * width, color=colour)
            errors = [[median - least], [most - median]]
            axes.errorbar(x, median, errors, fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.8, capthick=0.8)
            top = max(top, most)
            _bar_label(axes, x, most, f"{median:.0f}" if median >= 10 else f"{median:.1f}", is_bold=name == "ours")
    axes.axhline(100, color=INK, lw=1, ls=DASHES)
    axes.set_xticks(range(len(results)), [_workload_label(*named) for named in results.items()])
    axes.tick_params(axis="x", length=0, pad=5, labelsize=8.5)
    axes.set_xlim(-0.5, groups - 0.5)
    axes.set_ylim(0, 1.12 * top)
    axes.set_ylabel("useful work, % of the\nmatrix product")
    axes.grid(axis="y", color=GRID)


def _bar_label(axes: Axes, x: float, y: float, text: str, is_bold: bool, rotation: int = 0) -> None:
    """The figure above a bar's whisker."""
    axes.annotate(
        text, (x, y), (0, 2), textcoords="offset points", ha="center", va="bottom", rotation=rotation,
        fontsize=7.5, color=INK if is_bold else MUTED, fontweight="bold" if is_bold else "normal",
    )  # fmt: skip


def _workload_label(name: str, result: Figures) -> str:
    """A workload's name, what its rows are, its sizes, and how ours compares."""
    workload = WORKLOADS[name]
    kind, rows = workload.title.split(": ", 1)
    rows = rows.replace(", ", "\n").replace(" of ", "\nof ")
    lines = [f"{name} {kind}", rows, f"D {workload.in_features}, H {workload.hidden}"]
    if "ratio" in result:
        lines.append(f"ours: {result['ratio']:.2f} x fastest")
    return "\n".join(lines)


def _machine(on: Figures) -> str:
    """The machine in a few words."""
    vectors = "with AVX-512" if on["avx512"] else "without AVX-512"
    return f"{on['cores']} cores, {on['processor']} (family {on['family_and_model'][0]}) {vectors}"
