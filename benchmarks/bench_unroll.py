"""What the scan is for: tracing, compiling and program size of a GRU, by a Python loop over time and by `lax.scan`.

    python -m benchmarks.bench_unroll                # the table
    python -m benchmarks.bench_unroll --plot         # and benchmarks/plots/unroll.png

Each case is measured in a process of its own, warmed up by a case of one step; one that takes longer than
`--limit-seconds`, start included, is stopped and said to be. Covered: one sequence, its forward pass, on CPU; the
program is the optimised HLO as XLA prints it, its instructions those of all its computations; the scan's text is the
same at every T but for T itself, a digit longer at 2048 than at 512. Not covered: running time, which is
`bench_engine.py`'s, and gradients.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.harness import finish

HERE = Path(__file__).parent
PLOT = HERE / "plots" / "unroll.png"
QUANTITIES = {
    "trace_seconds": ("Tracing", "seconds"),
    "compile_seconds": ("Compiling", "seconds"),
    "hlo_bytes": ("Optimised HLO", "bytes of text"),
}
"""What is drawn: title and unit."""


def by_loop(cell: nnx.GRUCell, x: jax.Array) -> jax.Array:
    """The final carry of a sequence `(T, D)`; the trace holds the cell `T` times."""
    carry = jnp.zeros((cell.hidden_features,))
    for x_t in x:
        carry, _ = cell(carry, x_t)
    return carry


def by_scan(cell: nnx.GRUCell, x: jax.Array) -> jax.Array:
    """The same; the trace holds the cell once."""
    return jax.lax.scan(cell, jnp.zeros((cell.hidden_features,)), x)[0]


FORWARDS: dict[str, Callable[[nnx.GRUCell, jax.Array], jax.Array]] = {"loop": by_loop, "scan": by_scan}


def measure(kind: str, steps: int, in_features: int, hidden: int) -> dict[str, float]:
    """Seconds of tracing and of compiling (lowering included), and the size of the program; nothing is run."""
    graphdef, weights = nnx.split(nnx.GRUCell(in_features, hidden, rngs=nnx.Rngs(0)))

    def forward(weights: Any, x: jax.Array) -> jax.Array:
        return FORWARDS[kind](nnx.merge(graphdef, weights), x)

    begin = time.perf_counter()
    traced = jax.jit(forward).trace(weights, jax.ShapeDtypeStruct((steps, in_features), jnp.float32))
    middle = time.perf_counter()
    compiled = traced.lower().compile()
    end = time.perf_counter()
    text = compiled.as_text() or ""
    instructions = sum(" = " in line for line in text.splitlines())
    return {
        "trace_seconds": middle - begin,
        "compile_seconds": end - middle,
        "hlo_bytes": len(text.encode()),
        "hlo_instructions": instructions,
    }


def measure_in_child(case: list[str], limit_seconds: float) -> dict[str, float] | None:
    """`measure` in a new process; None if that took longer than it may."""
    command = [sys.executable, "-m", "benchmarks.bench_unroll", "--case", *case]
    try:
        child = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, timeout=limit_seconds, cwd=HERE.parent
        )
    except subprocess.TimeoutExpired:
        return None
    return json.loads(child.stdout.splitlines()[-1])


def median_of(rounds: list[dict[str, float] | None]) -> dict[str, float] | None:
    """The median of every quantity; None if a round was stopped."""
    whole = [measured for measured in rounds if measured is not None]
    if len(whole) < len(rounds):
        return None
    return {name: round(statistics.median(measured[name] for measured in whole), 5) for name in whole[0]}


def table_of(results: dict[str, dict[str, dict[str, float] | None]], limit_seconds: float) -> str:
    """A line for every case."""
    lines = ["kind     T     trace s   compile s   HLO bytes   HLO instructions"]
    for kind, series in results.items():
        for steps, measured in series.items():
            start = f"{kind}  {steps:>5}  "
            if measured is None:
                lines.append(f"{start}stopped after {limit_seconds:g} s")
                continue
            sizes = f"{measured['hlo_bytes']:10,.0f}   {measured['hlo_instructions']:16,.0f}"
            lines.append(f"{start}{measured['trace_seconds']:8.3f}   {measured['compile_seconds']:9.3f}  {sizes}")
    return "\n".join(lines)


def draw(results: dict[str, dict[str, dict[str, float] | None]], path: Path) -> None:
    """Each quantity against T, both axes logarithmic; the legend says what was stopped."""
    import matplotlib  # of the extra [bench]
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from benchmarks.plot_style import COLOURS, GRID, STYLE, save

    names = {"loop": "Python loop over time", "scan": "lax.scan"}
    colours = {"scan": COLOURS[0], "loop": COLOURS[1]}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, (quantity, (title, unit)) in zip(figure.subplots(1, 3), QUANTITIES.items(), strict=True):
            for kind, series in results.items():
                points = [(int(steps), measured[quantity]) for steps, measured in series.items() if measured]
                x, y = zip(*points, strict=True) if points else ((), ())
                stopped = [steps for steps, measured in series.items() if measured is None]
                label = names[kind] + (f" (stopped at T = {', '.join(stopped)})" if stopped else "")
                axes.plot(x, y, "o-", color=colours[kind], markersize=5.5, markeredgecolor="white", label=label)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(FixedLocator([int(steps) for steps in results["scan"]]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda steps, _: f"{steps:,.0f}"))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_locator(NullLocator())
            axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
            axes.set_xlabel("steps, T")
            axes.set_ylabel(unit)
            axes.grid(color=GRID, lw=0.8)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
        save(figure, path)


def main() -> None:
    """Parse, measure in children, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="128,512,2048", help="values of T, with commas")
    parser.add_argument("--in-features", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="medians of so many processes a case")
    parser.add_argument("--limit-seconds", type=float, default=120.0, help="what one process may take")
    parser.add_argument("--plot", action="store_true", help=f"draw {PLOT.parent.name}/{PLOT.name}")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        kind, *sizes = arguments.case
        steps, in_features, hidden = map(int, sizes)
        measure(kind, 1, in_features, hidden)
        print(json.dumps(measure(kind, steps, in_features, hidden)))
        return
    cases = [(kind, steps) for kind in FORWARDS for steps in arguments.steps.split(",")]
    rounds: dict[tuple[str, str], list[dict[str, float] | None]] = {case: [] for case in cases}
    for _ in range(arguments.rounds):
        for kind, steps in cases:
            sizes = [steps, str(arguments.in_features), str(arguments.hidden)]
            if None not in rounds[kind, steps]:
                rounds[kind, steps].append(measure_in_child([kind, *sizes], arguments.limit_seconds))
    results = {kind: {steps: median_of(rounds[kind, steps]) for k, steps in cases if k == kind} for kind in FORWARDS}
    print(table_of(results, arguments.limit_seconds))
    if arguments.plot:
        draw(results, PLOT)
        print(f"drew {PLOT.parent.name}/{PLOT.name}")
    finish("unroll", results)


if __name__ == "__main__":
    main()
