"""The command `scanrnn inspect`: what a source holds, as text, as JSON, and as a file for `--input`.

What is found and measured is `job/inspection.py`'s. JAX is not started.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.options import bytes_told, one_or_many, read_input, takes_job_options
from scanrnn_dist.cli.printing import print_result, to_stderr
from scanrnn_dist.errors import ConfigError, one_line

if TYPE_CHECKING:
    from scanrnn_dist.job import Inspection

_COLUMNS_TOLD, _FEATURES_TOLD, _VALUES_TOLD, _LETTERS = 60, 20, 8, 80


@takes_job_options(
    "layout", "column", "features", "in_features", "group_by", "order_by", "limit", "bad_rows.unreadable_file"
)
def inspect_source(
    source: flags.Source,
    options: Any,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Read all steps once, and print statistics of each feature.")
    ] = False,
    input: flags.InputFile = None,
    output: Annotated[
        Path | None, typer.Option(help="With --statistics, write them as a file for --input.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --output.")] = False,
    memory: flags.Memory = None,
    as_json: flags.Json = False,
) -> None:
    """Show what SRC holds: files, columns, the layout of the sequences, and how long they are.

    With --statistics also the mean, spread and range of every feature, and a file for --input that says them.
    """
    for name, told in {"--input": input, "--output": output}.items():
        if told is not None and not statistics:
            raise ConfigError(f"{name} is for --statistics, which was not given.")
    if output is not None:
        _check_may_write(output, force)
    from scanrnn_dist.job import inspect
    from scanrnn_dist.observe import rows_progress

    with rows_progress("inspect") as progress:
        found = inspect(
            one_or_many(source), options, statistics=statistics, input=read_input(input),
            memory_bytes=bytes_told(memory), on_start=progress.start, on_rows=progress.advance,
        )  # fmt: skip
    toml = _toml(found)
    if output is not None:
        _write(output, toml)
    if as_json:
        print_result(found, as_json=True)
    else:
        print_result(told_of(found) + (f"\n\n{toml}".rstrip() if statistics and output is None else ""))


def told_of(found: Inspection) -> str:
    """What was found, line by line."""
    left_out = [f"left out: {path}: {one_line(reason)}" for path, reason in found.left_out.items()]
    lines = [
        f"files:      {found.files:,} of {found.nbytes:,} bytes, the first {found.first}",
        f"rows:       {found.rows:,} in {found.row_groups:,} row groups",
        *(f"            {line}" for line in _some(left_out, _VALUES_TOLD)),
        "columns:",
        *_some([f"  {name}: {_short(type)}" for name, type in found.columns], _COLUMNS_TOLD),
        *(f"  {name}: cannot be read: {one_line(reason)}" for name, reason in found.unreadable.items()),
    ]
    if found.drift:
        lines += ["differences:", *(f"  {line}" for line in found.drift)]
    if found.no_layout is not None:
        text = found.no_layout.replace("; or --", ";\n  or --").replace("Choose it with --", "Choose it with\n     --")
        lines += ["sequences:  not known yet", f"  {text}"]
    return "\n".join([*lines, *_of_sequences(found), *_of_statistics(found)])


def _of_sequences(found: Inspection) -> list[str]:
    """The lines about the layout."""
    told = found.sequences
    if told is None:
        return []
    width = "an unknown number of" if told.in_features is None else f"{told.in_features:,}"
    lines = [
        f"sequences:  {told.count:,}, in {_short(told.described, 200)} ({told.words}), {width} features per step",
        f"            as with {_short(told.flags, 400)}",
    ]
    if told.lengths is not None:
        least, median, most = told.lengths
        of = "all" if told.rows == told.count else f"the first {told.rows:,}"
        lines.append(f"steps:      {least:,} to {most:,}, median {median:,g}, of {of} sequences")
    for kind, count in told.faults.items():
        lines.append(f"            {count:,} rows with {kind.replace('_', ' ')} among those looked at")
    features = [f"  {name}: {_short(type)}" for name, type in told.features]
    return [*lines, *(["features:", *_some(features, _FEATURES_TOLD)] if features and found.measured is None else [])]


def _of_statistics(found: Inspection) -> list[str]:
    """The lines about what steps hold, a table."""
    told = found.measured
    if told is None:
        return []
    rows = [["feature", "kind", "count", "unusable", "min", "max", "mean", "std", "values"]]
    for column in told.to_json()["columns"]:
        numbers = [_number(column.get(name)) for name in ("min", "max", "mean", "std")]
        counts = [f"{column['count']:,}", f"{column['unusable']:,}"]
        rows.append([_short(column["name"]), column["kind"], *counts, *numbers, _values(column["values"])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"all steps:  {told.steps:,} (unusable: null, NaN or infinite)", "", *lines]


def _toml(found: Inspection) -> str:
    """What `--input` takes, with what it leaves out as comments."""
    if found.measured is None:
        return ""
    notes = "".join(f"# {one_line(note)}\n" for note in found.measured.notes)
    return notes + (found.measured.input.to_toml() if found.measured.input is not None else "")


def _check_may_write(path: Path, force: bool) -> None:
    """Refuse before anything is read what would be refused afterwards."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"--output {path} is no place for a file; expected one in a folder that there is.")
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; choose another --output, or overwrite it with --force.")


def _write(path: Path, toml: str) -> None:
    if "[[column]]" not in toml:
        raise ConfigError(f"There is nothing to write to {path}: {toml.strip('# ').strip() or 'no feature was found'}.")
    try:
        path.write_text(toml, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {path} cannot be written: {error.strerror or error}.") from error
    to_stderr(f"{path} is written; use it with --input {path}.")


def _some(lines: Sequence[str], most: int) -> list[str]:
    return list(lines) if len(lines) <= most else [*lines[:most], f"  ... ({len(lines) - most:,} more)"]


def _number(number: float | None) -> str:
    return "-" if number is None or not math.isfinite(number) else f"{number:.6g}"


def _values(values: list[Any] | None) -> str:
    """Distinct values, if they are few; else how many, if that is known."""
    if values is None:
        return "many"
    told = ", ".join(_short(repr(value), 20) for value in values)
    return told if len(values) <= _VALUES_TOLD else f"{len(values):,} different"


def _short(text: str, letters: int = _LETTERS) -> str:
    text = one_line(text)
    return text if len(text) <= letters else f"{text[: letters - 3]}..."
