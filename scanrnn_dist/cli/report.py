"""`scanrnn report DST`: one HTML page about a job, finished or not, as a file, or served while the job runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.options import flag, option
from scanrnn_dist.cli.printing import check_is_new, print_result
from scanrnn_dist.cli.process import leave_pandas_out, start_jax
from scanrnn_dist.cli.reproducing import command_that_makes
from scanrnn_dist.errors import ConfigError, DataError, ScanRNNError, StoppedError
from scanrnn_dist.observe import to_stderr

if TYPE_CHECKING:
    from scanrnn_dist.report import Check, ReportNumbers


def report(
    destination: flags.Output,
    output: Annotated[
        Path | None,
        option("The file to write (default: the name of DST, and -report.html, here).", metavar="FILE"),
    ] = None,
    force: Annotated[bool, flag("Replace the file of --output if it is there.", "--force")] = False,
    colour: Annotated[
        str | None,
        option("The kept column that colours the map (default: the first with at most 20 texts).", metavar="NAME"),
    ] = None,
    verify: Annotated[
        bool,
        flag("Also check the output as `scanrnn verify` does, and show what came of it; reads the source.", "--verify"),
    ] = False,
    live: Annotated[
        bool, flag("Write no file: serve the page to this machine, where it follows the job, until Ctrl-C.", "--live")
    ] = False,
    port: Annotated[
        int | None, option("With --live, the port of 127.0.0.1 (default: any free one).", metavar="N", min=0, max=65535)
    ] = None,
    as_json: flags.Json = False,
) -> None:
    """Write one HTML page about the job in DST: what it is, its speed, its features. The page opens offline."""
    if port is not None and not live:
        raise ConfigError("--port is for --live, which was not given.")
    for name, is_given in {"--output": output is not None, "--verify": verify}.items():
        if live and is_given:
            raise ConfigError(f"--live serves the page while the job runs, and writes no file: leave out {name}.")
    if output is not None:
        check_is_new(output, force)
    leave_pandas_out()
    from scanrnn_dist.job import records_to_read
    from scanrnn_dist.report import check_can_draw, read_numbers, write_report
    from scanrnn_dist.storage import check_is_outside

    check_can_draw()
    if live:
        _serve(destination, colour, port or 0, as_json)
        return
    root = records_to_read(destination).store.root
    page = output or Path(f"{os.path.basename(os.path.abspath(root)) or 'job'}-report.html")
    check_is_outside(page, root)
    numbers, wrong = read_numbers(destination, colour, command_of=command_that_makes), None
    if verify:
        check, wrong = _check(destination)
        numbers = replace(numbers, check=check)
    if page.exists() and output is None:
        to_stderr(f"{page} was there already, and is replaced.")
    print_result(write_report(numbers, page), as_json)
    if wrong is not None:
        raise wrong


def _check(destination: str) -> tuple[Check, ScanRNNError | None]:
    """What the check of the output found, or what is not right or not there, which is raised once it is written."""
    start_jax()
    from scanrnn_dist.api import verify
    from scanrnn_dist.report import Check

    try:
        return Check(verify(destination)), None
    except (ConfigError, DataError, StoppedError) as error:
        return Check(None, str(error), not isinstance(error, DataError)), error


@dataclass(frozen=True)
class Served:
    """Where a page is served."""

    destination: str
    url: str

    def __str__(self) -> str:
        return f"The page about {self.destination} is at {self.url} until Ctrl-C."


def _serve(destination: str, colour: str | None, port: int, as_json: bool) -> None:
    """Serve the page until Ctrl-C."""
    from scanrnn_dist.job import read_status
    from scanrnn_dist.report import LiveServer, read_numbers

    def look(before: ReportNumbers | None) -> ReportNumbers:
        return read_numbers(destination, colour, before, command_that_makes)

    if colour is None:
        read_status(destination)  # what is wrong with the destination is told here
    else:
        look(None)
    with LiveServer(look, port) as server, _ended_by_signal():
        print_result(Served(destination, server.url), as_json)
        server.serve_forever(poll_interval=0.2)
    to_stderr("The page is not served any more.")


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Leave what is inside when Ctrl-C is pressed, or the process is asked to end; that is how serving ends."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
