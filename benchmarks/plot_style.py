"""How the plots look: colours, titles, and how they are saved."""

# matplotlib is of the extra [bench], which the checks do without

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
COLOURS = ("#c2410c", "#1d4ed8", "#0e9f6e", "#8b5cf6", "#eab308", "#a16207", "#9aa5b1")
"""Of series, in order."""
DASHES = (0, (5, 3))
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
    "savefig.dpi": 140,
}


def titled(axes: Axes, title: str, note: str) -> None:
    """A title, and a note in small print below it, of one line or more."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11, pad=20 + 11 * note.count("\n"))
    axes.annotate(
        note, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8, color=MUTED, va="bottom"
    )


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 128 colours, a third as large as one of all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
