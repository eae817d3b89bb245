"""The page of a report: `template/` filled with numbers, and a script library in it, so that it needs no network.

Whatever is of the data, names of columns and files too, is text there, never markup: jinja2 escapes what stands in the
page, `as_script` what a script reads, and `plot_text` what Plotly would take for markup.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from scanrnn_dist.disk import whole_file
from scanrnn_dist.errors import ConfigError, StoppedError, counted
from scanrnn_dist.job import command_that_continues, is_of_restart
from scanrnn_dist.observe import as_text
from scanrnn_dist.report.numbers import ReportNumbers
from scanrnn_dist.report.plots import feature_plot, groups_of, in_words, lengths_plot, map_plot, throughput_plot
from scanrnn_dist.storage import check_is_outside

NEEDED = ("plotly", "jinja2")
NEWS_SECONDS = 5.0
"""A live page asks for news so often: reading the sample anew takes about 1 s of a core."""
_TEMPLATES = Path(__file__).with_name("template")


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

    _repr_pretty_ = as_text

    def __str__(self) -> str:
        looked_at = f"{counted(self.rows, 'row')} looked at"
        return f"report   {self.path}: {self.destination} is {self.state}; {looked_at}. Open it in a browser."


def check_can_draw() -> None:
    """Refuse to begin where a package is missing; raises `ConfigError`."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"A report needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. In a "
            "checkout of scanrnn_dist, run: pip install -e '.[report]'"
        )


def write_report(numbers: ReportNumbers, path: str | os.PathLike[str]) -> Report:
    """Write the page about a job to one file, which replaces one that stands there.

    Args:
        numbers: of the job, from `read_numbers`.
        path: the file.

    Returns:
        Where it is.

    Raises:
        ConfigError: a package is missing, or the path is not one to write to, as one within the destination.
        StoppedError: the disk refuses.
    """
    path = Path(path)
    check_is_outside(path, numbers.status.destination)
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"is in no folder: there is no {path.parent}"
        raise ConfigError(f"{path} {what}; expected a file to write. Choose another with --output.")
    content = page_of(numbers).encode()
    try:
        with whole_file(path) as write:
            write(content)
    except OSError as error:
        raise StoppedError(f"{path} could not be written: {error.strerror}. Choose another with --output.") from error
    return Report(numbers.status.destination, str(path), numbers.status.state, numbers.features.rows)


def page_of(numbers: ReportNumbers, live: bool = False) -> str:
    """The page as text; a live one asks the server that it comes from for news."""
    check_can_draw()
    library, script = _library(), _own("page.js")
    hashes = " ".join(f"'sha256-{_hash(text)}'" for text in (library, script))
    connect = "'self'" if live else "'none'"
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    scripts = {
        "library": _markup(library),
        "script": _markup(script),
        "plots": _markup(as_script(_plots(numbers))),
    }
    page: str = _environment().get_template("page.html").render(
        **_told(numbers), **scripts, policy=policy, live=live, news_seconds=NEWS_SECONDS,
        following=following_in_words(numbers.status.state), style=_markup(_own("page.css")),
    )  # fmt: skip
    return page


def news_of(numbers: ReportNumbers) -> dict[str, Any]:
    """What a live page shows anew: its text as HTML, its plots, its title."""
    told = _told(numbers)
    status = numbers.status
    body = _environment().get_template("body.html").render(**told)
    title = f"Job {status.destination}: {status.state}"
    following = following_in_words(status.state)
    return {"body": body, "plots": _plots(numbers), "title": title, "state": status.state, "following": following}


def following_in_words(state: str) -> str:
    """What a live page says of itself, of a job in this state."""
    if state == "running":
        return "The page follows the job."
    if state == "complete":
        return "The job is complete: this page does not change any more."
    return f"Nobody works on the job, which is {state}. The page shows it when somebody continues."


def _told(numbers: ReportNumbers) -> dict[str, Any]:
    """What the templates name."""
    named = numbers.named
    return {
        "numbers": numbers, "status": numbers.status, "features": numbers.features, "sample": numbers.sample,
        "groups": _groups(numbers), "made": datetime.now(), "choices": numbers.status.counts, "work": numbers.work,
        "lengths": numbers.lengths, "bars": numbers.lengths.counts.bars(), "check": numbers.check,
        "continues": "" if is_of_restart(numbers.status.destination) else command_that_continues(named),
        "verifies": f"scanrnn verify {shlex.quote(named)}",
    }  # fmt: skip


def _plots(numbers: ReportNumbers) -> dict[str, Any]:
    """The plots, by the places where they are drawn."""
    plots = [
        throughput_plot(numbers.throughput),
        lengths_plot(numbers.lengths),
        feature_plot(numbers.features),
        map_plot(numbers.sample, numbers.map),
    ]
    return {plot["id"]: plot for plot in plots if plot}


@cache
def _environment() -> Any:
    """Fills the templates; whatever is no template's own text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "thousands": "{:,}".format, "short": "{:.4g}".format, "percent": "{:.1%}".format, "duration": duration,
        "time": lambda seconds: f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}", "counted": counted,
        "rows": lambda count: counted(count, "row"), "bar": in_words,
        "numbered": lambda things: list(enumerate(things, 1)),
    }  # fmt: skip
    return environment


@cache
def _library() -> str:
    """Plotly's script, as it may stand in a page: nothing in it ends the script, lines end as a browser reads them."""
    import plotly.offline

    script: str = plotly.offline.get_plotlyjs()
    return script.replace("</script", "<\\/script").replace("\r\n", "\n").replace("\r", "\n")


def _own(name: str) -> str:
    return (_TEMPLATES / name).read_text("utf-8")


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


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
