"""The command `scanrnn inspect`: what a source holds, as text, as JSON, and as a file for `--input`.

What is found and measured is `job/inspection.py`'s, how it is printed `inspected.py`'s. JAX is not started.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.drawing import terminal_width
from scanrnn_dist.cli.inspected import told_of
from scanrnn_dist.cli.options import GENERAL, bytes_told, flag, one_or_many, option, read_input, takes_flags
from scanrnn_dist.cli.printing import check_is_new, print_result
from scanrnn_dist.cli.process import leave_pandas_out
from scanrnn_dist.disk import whole_file
from scanrnn_dist.errors import ConfigError, StoppedError, one_line
from scanrnn_dist.observe import to_stderr

if TYPE_CHECKING:
    from scanrnn_dist.job import Inspection


@takes_flags(
    ("layout", "column", "features", "in_features", "group_by", "order_by", "limit", "bad_rows.unreadable_file")
)
def inspect_source(
    source: flags.Source,
    options: Any,
    scan: Annotated[
        bool, flag("Read all rows; without it, the first ones of 16 row groups, 10,000 in all.", "--scan", GENERAL)
    ] = False,
    statistics: Annotated[
        bool, flag("Read all rows, and print a file for --input that standardises features.", "--statistics", GENERAL)
    ] = False,
    input: flags.InputFile = None,
    output: Annotated[
        Path | None, option("With --statistics, write that file there.", group=GENERAL, metavar="FILE")
    ] = None,
    force: Annotated[bool, flag("Replace the file of --output if it is there.", "--force", GENERAL)] = False,
    memory: flags.Memory = None,
    as_json: flags.Json = False,
) -> None:
    """Show what SRC holds: columns, how sequences stand in them, how long they are, what their steps hold.

    Reads a sample and says which; --scan reads all rows. Memory stays bounded either way.
    """
    if output is not None and not statistics:
        raise ConfigError("--output is for --statistics, which was not given.")
    if output is not None:
        if output.is_dir() or not output.absolute().parent.is_dir():
            raise ConfigError(f"--output {output} is no place for a file; expected one in a folder that there is.")
        check_is_new(output, force)
    leave_pandas_out()
    from scanrnn_dist.job import inspect
    from scanrnn_dist.observe import rows_progress

    with rows_progress("inspect") as progress:
        found = inspect(
            one_or_many(source), options, scan=scan, statistics=statistics, input=read_input(input),
            memory_bytes=bytes_told(memory), on_start=progress.start, on_rows=progress.advance,
        )  # fmt: skip
    toml = _toml(found) if statistics else ""
    if output is not None:
        _write(output, toml)
    if as_json:
        print_result(found, as_json=True)
    else:
        print_result(told_of(found, terminal_width()) + (f"\n\n{toml}".rstrip() if toml and output is None else ""))


def _toml(found: Inspection) -> str:
    """What `--input` takes, with what it leaves out as comments."""
    if found.measured is None:
        return ""
    notes = "".join(f"# {one_line(note)}\n" for note in found.measured.notes)
    return notes + (found.measured.input.to_toml() if found.measured.input is not None else "")


def _write(path: Path, toml: str) -> None:
    if "[[column]]" not in toml:
        raise ConfigError(f"There is nothing to write to {path}: {toml.strip('# ').strip() or 'no feature was found'}.")
    try:
        with whole_file(path) as write:
            write(toml.encode())
    except OSError as error:
        raise StoppedError(f"--output {path} cannot be written: {error.strerror or error}.") from error
    to_stderr(f"{path} is written; use it with --input {shlex.quote(str(path))}.")
