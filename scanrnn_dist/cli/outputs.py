"""The commands about an output that stands: `scanrnn verify`, `status`, `export`, `clean`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.options import flag, option
from scanrnn_dist.cli.printing import check_is_new, print_result
from scanrnn_dist.cli.process import SIGNALS, check_outside, leave_pandas_out, start_devices, start_jax, use_cache
from scanrnn_dist.errors import SAVED


def verify(
    destination: flags.Output,
    sample: Annotated[
        int,
        option("Rows to compute again from the source (default: 32); 0 compares hashes only.", metavar="ROWS", min=0),
    ] = 32,
    seed: Annotated[int, option("Seed that chooses these rows (default: 0).", metavar="N", min=0)] = 0,
    repair: Annotated[
        bool, flag("First make output files again that are missing or changed, and remove surplus ones.", "--repair")
    ] = False,
    allow_mixed: flags.AllowMixed = False,
    compilation_cache: flags.CacheFolder = None,
    as_json: flags.Json = False,
) -> None:
    """Check DST: all files against their hashes, kept columns against the source, a sample of rows computed again.

    If the job is unfinished, the parts that are committed are checked.
    """
    if repair:
        SIGNALS.rest = SAVED
        start_devices(None)  # as featurize does
    else:
        start_jax()
    check_outside("--compilation-cache", compilation_cache, destination)
    use_cache(compilation_cache)
    from scanrnn_dist.api import verify as verify_output

    with SIGNALS.raising() if repair else nullcontext():
        result = verify_output(destination, sample=sample, seed=seed, repair=repair, allow_mixed=allow_mixed)
    print_result(result, as_json)


def status(destination: flags.Output, as_json: flags.Json = False) -> None:
    """Show how far the job in DST is: rows, speed, who works on it, when it will end. Changes nothing."""
    leave_pandas_out()
    from scanrnn_dist.job import read_status

    print_result(read_status(destination), as_json)


def export(
    destination: flags.Output,
    file: Annotated[Path, typer.Argument(help="The file to write, which numpy maps into memory.", metavar="FILE.npy")],
    force: Annotated[bool, flag("Replace FILE.npy if it is there.", "--force")] = False,
    as_json: flags.Json = False,
) -> None:
    """Write all features of a finished job to one .npy file: one row for each row of the source, in its order."""
    from scanrnn_dist.job import export as export_output

    check_is_new(file, force)
    with SIGNALS.raising():
        result = export_output(destination, file)
    print_result(result, as_json)


def clean(
    destination: flags.Output,
    dry_run: Annotated[bool, flag("Only say what would be removed.", "--dry-run")] = False,
    as_json: flags.Json = False,
) -> None:
    """Remove what crashed processes left in DST, and nothing else."""
    SIGNALS.rest = SAVED
    from scanrnn_dist.job import clean as clean_output

    print_result(clean_output(destination, dry_run=dry_run), as_json)
