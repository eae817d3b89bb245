"""The plots of a report as Plotly reads them: data and axes. Colours of text and grid are chosen in the page."""

from __future__ import annotations

import html
from collections import Counter
from typing import Any

import numpy as np

from scanrnn_dist.job import Bar
from scanrnn_dist.report.features import FeatureNumbers, Map
from scanrnn_dist.report.lengths import Lengths
from scanrnn_dist.report.sample import MOST_VALUES, Sample
from scanrnn_dist.report.throughput import Throughput

COLOURS = ("#2f86cc", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#999999")
GREY = COLOURS[-1]
"""Nearly those of Okabe and Ito, told apart by the colour-blind, on white and on black."""
SYMBOLS = ("circle", "diamond", "square")
OTHERS = "all others"


def plot_text(value: object) -> str:
    """A text that Plotly shows as it is, though it reads some markup.

    Example:
        >>> plot_text("<b>a & b</b>")
        '&lt;b&gt;a &amp; b&lt;/b&gt;'
    """
    return html.escape(" ".join(str(value).split())[:80], quote=False)


def groups_of(sample: Sample) -> tuple[list[str], np.ndarray]:
    """The values that colour the rows of a sample, most frequent first, and which of them each row has."""
    if not sample.colour or scale_of(sample) is not None:
        return [], np.zeros(len(sample.features), int)
    told = [("(null)" if value is None else str(value)) for value in sample.values]
    frequent = [name for name, _ in sorted(Counter(told).items(), key=lambda it: (-it[1], it[0]))]
    names = frequent if len(frequent) <= MOST_VALUES else [*frequent[: MOST_VALUES - 1], OTHERS]
    place = {name: min(number, len(names) - 1) for number, name in enumerate(frequent)}
    return names, np.array([place[name] for name in told], int)


def scale_of(sample: Sample) -> np.ndarray | None:
    """The numbers that colour the rows along a scale, where the column holds more than 20 different ones; else None."""
    there = [value for value in sample.values if value is not None]
    if len(set(there)) <= MOST_VALUES or not all(type(value) in (int, float) for value in there):
        return None
    return np.array([np.nan if value is None else value for value in sample.values], np.float64)


def throughput_plot(throughput: Throughput) -> dict[str, Any] | None:
    """Stacked bars, one colour for each attempt; None where nothing was saved."""
    if not throughput.names:
        return None
    middles = (throughput.edges[1:] + throughput.edges[:-1]) / 2
    width = float(throughput.edges[1])
    data = [
        {
            "type": "bar", "name": plot_text(name), "x": _numbers(middles), "y": _numbers(rates), "width": width,
            "marker": {"color": colour, "line": {"width": 0.6, "color": colour}},
            "hovertemplate": "%{y:,.0f} rows/s at %{x:.3~g} s<extra></extra>",
        }
        for name, rates, colour in zip(throughput.names, throughput.rates, COLOURS, strict=False)
    ]  # fmt: skip
    layout = {"barmode": "stack", "showlegend": len(data) > 1, **_axes("seconds of work", "rows per second")}
    layout["yaxis"]["tickformat"] = ",~s"
    return {"id": "throughput", "data": data, "layout": layout}


def lengths_plot(lengths: Lengths) -> dict[str, Any] | None:
    """A bar for each range of lengths; None where nothing could be read, or all are alike."""
    bars = lengths.counts.bars()
    if len(bars) < 2:
        return None
    data = {
        "type": "bar", "x": [in_words(bar) for bar in bars], "y": [bar.count for bar in bars],
        "marker": {"color": COLOURS[0]}, "hovertemplate": "%{y:,} sequences of %{x} steps<extra></extra>",
    }  # fmt: skip
    axes = _axes("steps", "sequences")
    axes["xaxis"]["type"] = "category"
    return {"id": "lengths", "data": [data], "layout": {"bargap": 0.08, **axes}}


def in_words(bar: Bar) -> str:
    """The lengths of a bar: `100-149`."""
    return f"{bar.first:,}" if bar.first == bar.last else f"{bar.first:,}\u2013{bar.last:,}"


def feature_plot(features: FeatureNumbers) -> dict[str, Any] | None:
    """The mean of each feature, bars of one standard deviation, and the least and greatest number."""
    if not features.rows:
        return None
    x = list(range(len(features.mean)))
    ends: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": x}
    up, down = ({"color": COLOURS[1], "size": 6, "symbol": f"triangle-{way}"} for way in ("up", "down"))
    data = [
        {**ends, "name": "greatest", "y": _numbers(features.greatest), "marker": up},
        {**ends, "name": "least", "y": _numbers(features.least), "marker": down},
        {
            "type": "scatter", "mode": "markers", "name": "mean ± sd", "x": x, "y": _numbers(features.mean),
            "marker": {"color": COLOURS[0], "size": 5},
            "error_y": {"type": "data", "array": _numbers(features.sd), "thickness": 1.5, "width": 0},
        },
    ]  # fmt: skip
    return {"id": "features", "data": data, "layout": {"showlegend": True, **_axes("feature", "value")}}


def map_plot(sample: Sample, found: Map | None) -> dict[str, Any] | None:
    """A point for each row of the sample; None where there is nothing to be seen."""
    if found is None:
        return None
    data: list[dict[str, Any]] = []
    names, which = groups_of(sample)
    for number, name in enumerate(names or ["rows"]):
        places = found.places[which == number]
        colour = GREY if name == OTHERS else COLOURS[number % len(COLOURS)]
        symbol = SYMBOLS[number // len(COLOURS) % len(SYMBOLS)]
        data.append({
            "type": "scatter", "mode": "markers", "name": plot_text(name), "x": _numbers(places[:, 0]),
            "y": _numbers(places[:, 1]), "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.7},
            "hovertemplate": "%{fullData.name}<extra></extra>",
        })  # fmt: skip
    scale = scale_of(sample)
    if scale is not None:
        bar = {"title": {"text": plot_text(sample.colour)}, "thickness": 12}
        colours = {"color": [number if np.isfinite(number) else None for number in scale.tolist()]}
        data[0]["marker"] |= {**colours, "colorscale": "Viridis", "showscale": True, "colorbar": bar}
        data[0]["hovertemplate"] = "%{marker.color}<extra></extra>"
    first, second = (
        f"component {number} ({share:.0%} of the variance)" for number, share in enumerate(found.shares, 1)
    )
    layout = {"showlegend": bool(names), **_axes(first, second)}
    return {"id": "map", "data": data, "layout": layout}


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _numbers(values: np.ndarray) -> list[float]:
    """Numbers with as many digits as can be seen."""
    return [float(f"{value:.5g}") for value in values]
