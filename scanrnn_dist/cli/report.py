"""`scanrnn report DST`: one HTML page about a job, finished or not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.options import flag, option
from scanrnn_dist.cli.printing import print_result
from scanrnn_dist.cli.process import leave_pandas_out

LIVE_SECONDS = 10
"""Between two pages of a job that runs: reading the sample anew takes about 1 s of a core."""


def report(
    destination: flags.Output,
    output: Annotated[
        Path | None,
        option("The file to write (default: the name of DST, and -report.html, here).", metavar="FILE"),
    ] = None,
    colour: Annotated[
        str | None,
        option("The kept column that colours the map (default: the first with at most 20 texts).", metavar="NAME"),
    ] = None,
    live: Annotated[
        bool,
        flag("Write the page anew every 10 s while the job runs; the browser follows. Ends with the job.", "--live"),
    ] = False,
    as_json: flags.Json = False,
) -> None:
    """Write one HTML page about the job in DST: what it is, its speed, its features. The page opens offline."""
    leave_pandas_out()
    from scanrnn_dist.report import check_can_draw, read_numbers, write_report

    check_can_draw()
    numbers = read_numbers(destination, colour)
    name = numbers.status.destination.rstrip("/").rpartition("/")[2] or "job"
    path = output or Path(f"{name}-report.html")
    while live and numbers.status.state == "running":
        write_report(numbers, path, refresh_seconds=LIVE_SECONDS)
        time.sleep(LIVE_SECONDS)
        numbers = read_numbers(destination, colour)
    print_result(write_report(numbers, path), as_json)
