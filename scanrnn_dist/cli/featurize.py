"""The commands that compute features: `scanrnn featurize` and `scanrnn update`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Annotated, Any

import typer

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli import running
from scanrnn_dist.cli.options import given, one_or_many, takes_flags
from scanrnn_dist.cli.printing import print_result
from scanrnn_dist.cli.process import SIGNALS, check_outside, import_ahead, leave_pandas_out, start_devices, use_cache
from scanrnn_dist.cli.run_options import RunFlags
from scanrnn_dist.errors import SAVED, ConfigError
from scanrnn_dist.observe import to_stderr


@takes_flags(run=RunFlags)
def featurize(
    source: flags.Source,
    destination: Annotated[
        str, typer.Argument(help="A folder or URI that is new, empty, or holds this same job.", metavar="DST")
    ],
    options: Any,
    run: Any,
    as_json: flags.Json = False,
) -> None:
    """Compute features of every row of SRC, and write them to DST, a Parquet data set in the same order.

    Give either --hidden (and --seed) for a GRU with random weights, or --encoder. If the command was stopped, run the
    same one again: it continues.
    """
    SIGNALS.rest = SAVED
    check_folders(run, destination)
    computation, handling = run.computation(), run.handling()
    executor = run.executor()
    traced = _traced(run)
    if executor is None:
        _prepare(destination)
    with traced:
        report = running.run_shown(destination, one_or_many(source), options, handling, computation, executor)
    if run.profile is not None:
        to_stderr(f"The trace is in {run.profile}: TensorBoard opens the folder, ui.perfetto.dev *.trace.json.gz.")
    print_result(report, as_json)


def update(
    destination: flags.Output,
    source: Annotated[
        list[str], typer.Argument(help="Files of new steps, in the same layout as the source of DST.", metavar="NEW...")
    ],
    ids: flags.Ids = None,
    devices: flags.Devices = None,
    allow_mixed: flags.AllowMixed = False,
    compilation_cache: flags.CacheFolder = None,
    as_json: flags.Json = False,
) -> None:
    """Add the new steps in NEW to the rows of DST, which was made with --keep-state.

    Afterwards DST holds the features of all steps so far, one row for each id. If the command was stopped, run the same
    one again.
    """
    SIGNALS.rest = SAVED
    check_outside("--compilation-cache", compilation_cache, destination)
    use_cache(compilation_cache)
    start_devices(devices)
    from scanrnn_dist.api import update as update_output

    with running.progress("update") as (on_start, on_rows):
        report = update_output(
            destination, one_or_many(source), ids=ids, allow_mixed=allow_mixed, on_start=on_start, on_rows=on_rows
        )
    print_result(report, as_json)


def check_folders(run: RunFlags, destination: str | None) -> None:
    """Refuse folders of files that are not the job's within its destination, and seconds of no trace."""
    if run.profile is None and run.profile_seconds is not None:
        raise ConfigError("--profile-seconds is for --profile DIR, which was not given.")
    check_outside("--profile", run.profile, destination)
    check_outside("--compilation-cache", run.compilation_cache, destination)


def _traced(run: RunFlags) -> Any:
    """What writes the trace of --profile, which begins in here."""
    if run.profile is None:
        return nullcontext()
    start_devices(run.devices)
    from scanrnn_dist.engine import profile

    return profile(run.profile, **given(seconds=run.profile_seconds))


def _prepare(destination: str) -> None:
    """Save time of the start, where this process does the work."""
    leave_pandas_out()
    if not os.path.exists(destination):  # else there may be nothing to compute
        import_ahead()
