"""The page of a report: `page.html` filled with numbers, and a script library in it, so that it needs no network.

Whatever is of the data, names of columns and files too, is text there, never markup: jinja2 escapes what stands in the
page, `as_script` what a script reads, and `plot_text` what Plotly would take for markup.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from scanrnn_dist.disk import whole_file
from scanrnn_dist.errors import ConfigError, StoppedError, counted
from scanrnn_dist.job import command_that_continues
from scanrnn_dist.report.numbers import ReportNumbers
from scanrnn_dist.report.plots import feature_plot, groups_of, map_plot, throughput_plot

NEEDED = ("plotly", "jinja2")
_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Args:
        destination: the job that it is about.
        path: the file.
        state: of the job, as `Status` tells it.
        rows: of the output that were looked at.
    """

    destination: str
    path: str
    state: str
    rows: int

    def __str__(self) -> str:
        looked_at = f"{counted(self.rows, 'row')} looked at"
        return f"report   {self.path}: {self.destination} is {self.state}; {looked_at}. Open it in a browser."


def check_can_draw() -> None:
    """Refuse to begin where a package is missing; raises `ConfigError`."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"A report needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. In a "
            "checkout of scanrnn_dist, run: pip install '.[report]'"
        )


def write_report(numbers: ReportNumbers, path: str | os.PathLike[str], refresh_seconds: int | None = None) -> Report:
    """Write the page about a job to one file, which replaces one that stands there.

    Args:
        numbers: of the job, from `read_numbers`.
        path: the file.
        refresh_seconds: after which the browser reads the file again; None for never.

    Returns:
        Where it is.

    Raises:
        ConfigError: a package is missing, or the path is not one to write to.
        StoppedError: the disk refuses.
    """
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"is in no folder: there is no {path.parent}"
        raise ConfigError(f"{path} {what}; expected a file to write. Choose another with --output.")
    content = page_of(numbers, refresh_seconds).encode()
    try:
        with whole_file(path) as write:
            write(content)
    except OSError as error:
        raise StoppedError(f"{path} could not be written: {error.strerror}. Choose another with --output.") from error
    return Report(numbers.status.destination, str(path), numbers.status.state, numbers.features.rows)


def page_of(numbers: ReportNumbers, refresh_seconds: int | None = None) -> str:
    """The page as text."""
    check_can_draw()
    import jinja2
    import plotly.offline
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)  # fmt: skip
    environment.filters["thousands"] = "{:,}".format
    environment.filters["short"] = "{:.4g}".format
    environment.filters["percent"] = "{:.1%}".format
    environment.filters["time"] = lambda seconds: f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
    environment.filters["duration"] = duration
    environment.filters["rows"] = lambda count: counted(count, "row")
    plots = [throughput_plot(numbers.throughput), feature_plot(numbers.features), map_plot(numbers.sample, numbers.map)]
    return environment.from_string(_TEMPLATE.read_text()).render(
        numbers=numbers, status=numbers.status, features=numbers.features, sample=numbers.sample,
        groups=_groups(numbers), made=datetime.now(), refresh=refresh_seconds,
        continues=command_that_continues(numbers.status.destination), choices=numbers.status.counts,
        verifies=f"scanrnn verify {shlex.quote(numbers.status.destination)}",
        library=Markup(plotly.offline.get_plotlyjs()),
        plots=Markup(as_script({plot["id"]: plot for plot in plots if plot})),
    )  # fmt: skip


def as_script(value: Any) -> str:
    r"""JSON that may stand in a `<script>` of a page: nothing in it ends the script or begins a comment.

    Example:
        >>> as_script(["</script>", "<!--"])
        '["<\\/script>", "\\u003c!--"]'
    """
    return json.dumps(value, allow_nan=False).replace("</", "<\\/").replace("<!--", "\\u003c!--")


def duration(seconds: float) -> str:
    """A time in words: `0.41 s`, `3:05:00`."""
    return f"{seconds:.2f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _groups(numbers: ReportNumbers) -> list[dict[str, Any]]:
    """Of each value that colours the map: how many rows it has, and where they stand on average."""
    if numbers.map is None:
        return []
    names, which = groups_of(numbers.sample)
    counts = Counter(which.tolist())
    return [
        {"name": name, "rows": counts[number], "place": numbers.map.places[which == number].mean(0).tolist()}
        for number, name in enumerate(names)
    ]
