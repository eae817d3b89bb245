"""`scanrnn report DST`: one HTML page about a job, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.options import option
from scanrnn_dist.cli.printing import print_result
from scanrnn_dist.cli.process import leave_pandas_out


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
    as_json: flags.Json = False,
) -> None:
    """Write one HTML page about the job in DST: what it is, its speed, its features. The page opens offline."""
    leave_pandas_out()
    from scanrnn_dist.report import check_can_draw, read_numbers, write_report

    check_can_draw()
    numbers = read_numbers(destination, colour)
    name = numbers.status.destination.rstrip("/").rpartition("/")[2] or "job"
    print_result(write_report(numbers, output or Path(f"{name}-report.html")), as_json)
