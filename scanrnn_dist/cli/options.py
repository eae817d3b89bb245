"""Arguments and options of the command line: their names, bounds and help. What they do is the commands' affair.

The flags of `JobOptions` stand in `JOB_FLAGS`, one for each field; `takes_job_options` gives them to a command.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

MOST = 2**31 - 1
"""Of numbers that could only be a slip where they are larger."""
MOST_DEVICES = 1024
"""CPU devices, each of which has threads of its own: 100,000 of them end the process from within JAX."""


def count(text: str, most: int = MOST) -> Any:
    """An option that takes a number from 1 on."""
    return typer.Option(help=text, min=1, max=most)


def columns(text: str) -> Any:
    """An option that takes names of columns."""
    return typer.Option(
        help=text, callback=lambda told: None if told is None else [name for name in told.split(",") if name]
    )


Source = Annotated[list[str], typer.Argument(help="Parquet file(s), a folder, or a glob in quotes.", metavar="SRC...")]
Destination = Annotated[
    str, typer.Argument(help="A folder or URI that is new, empty, or holds this same job.", metavar="DST")
]
Output = Annotated[str, typer.Argument(help="A folder or URI that featurize wrote to.", metavar="DST")]
Column = Annotated[str | None, typer.Option(help="The column that holds the sequences; needed only if several could.")]
LayoutName = Annotated[
    str | None, typer.Option(help="How the sequences stand in the columns; needed only if several layouts fit.")
]
Features = Annotated[str | None, columns("Features of a step, in order, separated by commas.")]
InFeatures = Annotated[int | None, count("Features per step, where the column does not say how many.")]
GroupBy = Annotated[str | None, columns("One step per row: columns that say which sequence it belongs to.")]
OrderBy = Annotated[str | None, columns("One step per row: columns that order the steps of a sequence.")]
Keep = Annotated[str | None, columns("Columns to copy to the output, separated by commas (default: all others).")]
EncoderFile = Annotated[Path | None, typer.Option("--encoder", help="An encoder file (.safetensors).")]
Hidden = Annotated[int | None, count("Hidden features of a GRU with random weights.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the random weights (default 0).")]
InitialCarry = Annotated[str | None, typer.Option(help="Column with each row's own initial carry.", metavar="COLUMN")]
MaxSteps = Annotated[int | None, typer.Option(help="Use only the first N steps of each sequence.", min=0)]
RowsPerPart = Annotated[int | None, count("About how many rows an output file gets (default 65536).")]
LossyCast = Annotated[
    bool, typer.Option("--lossy-cast", help="Round numbers that float32 cannot hold exactly, instead of refusing them.")
]
RowFilter = Annotated[
    str | None,
    typer.Option("--filter", help="Read only rows that match, such as \"label == 'walk' and n > 10\".", metavar="TEXT"),
]
Limit = Annotated[int | None, count("Read only the first N rows of SRC, before any filter, to try something out.")]
Devices = Annotated[int | None, count("Number of CPU devices (default: one per core).", MOST_DEVICES)]
Lanes = Annotated[int | None, count("Rows computed side by side on each device (default: by the device).")]
BlockSteps = Annotated[int | None, count("Steps per block. A lane takes its next row only where a block begins.")]
WindowBlocks = Annotated[int | None, count("Blocks per lane in one call of the compiled program.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option(help="Keep compiled programs in this folder, so that later runs start sooner.", metavar="DIR"),
]
ProfileFolder = Annotated[
    Path | None, typer.Option(help="Write a trace for TensorBoard and Perfetto to this folder.", metavar="DIR")
]
ProfileSeconds = Annotated[
    float | None, typer.Option(help="Seconds that --profile traces, after compilation (default 2).", min=0, max=MOST)
]
Rounds = Annotated[int | None, count("How often every shape is measured (default 7).")]
ShareText = Annotated[
    str | None,
    typer.Option(help="Do only the K-th of N shares. With auto, Slurm or Kubernetes says which.", metavar="K/N"),
]
Steal = Annotated[
    bool, typer.Option("--steal", help="When this share is done, take over shares of processes that stopped.")
]
AllowMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Continue a job begun with another kind of device, XLA flags or versions.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Start from nothing. The new output replaces the old one when it is complete.")
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes", help="Accept that files of SRC were changed, added or removed: redo only their rows."
    ),
]
Repair = Annotated[
    bool, typer.Option("--repair", help="First rewrite parts that are missing or changed, and remove surplus ones.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Retry units that crashed the process twice.")]
LockSeconds = Annotated[
    float | None, typer.Option(help="Seconds of silence after which a process counts as dead (default 60).", min=0.1)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

JOB_FLAGS: dict[str, Any] = {
    "layout": LayoutName,
    "column": Column,
    "features": Features,
    "in_features": InFeatures,
    "group_by": GroupBy,
    "order_by": OrderBy,
    "keep": Keep,
    "rows_per_part": RowsPerPart,
    "max_steps": MaxSteps,
    "initial_carry": InitialCarry,
    "lossy_cast": LossyCast,
    "filter": RowFilter,
    "limit": Limit,
}
"""The flag of each field of `JobOptions`."""


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the defaults of the functions behind stand in one place."""
    return {name: value for name, value in options.items() if value is not None and value is not False and value != []}


def takes_job_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of `JobOptions`, or those of some of its fields, in place of its argument `options`."""
    flags = {name: JOB_FLAGS[name] for name in names or JOB_FLAGS}

    def with_flags(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        parameters = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == "options":
                for name, flag in flags.items():
                    default = False if flag is LossyCast else None
                    parameters.append(parameter.replace(name=name, annotation=flag, default=default))
            else:
                parameters.append(parameter.replace(annotation=hints[parameter.name]))

        @functools.wraps(command)
        def called(**told: Any) -> None:
            from scanrnn_dist.job import JobOptions

            options = {name: told.pop(name) for name in flags}  # to keep no column is not to keep all
            command(**told, options=JobOptions(**{name: it for name, it in options.items() if it is not None}))

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return with_flags
