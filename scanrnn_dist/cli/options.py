"""Arguments and options of the command line: their names, bounds and help. What they do is the commands' affair.

The flags of `JobOptions` stand in `JOB_FLAGS`, one for each field, and for each field of a field that is a dataclass
itself; `takes_job_options` gives them to a command.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

if TYPE_CHECKING:
    from scanrnn_dist.input_spec import InputSpec

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


def choice(text: str, *choices: str) -> Any:
    """An option that takes one of some words, the first of which is the default."""
    return typer.Option(help=f"{text} (default {choices[0]}).", metavar="|".join(choices))


Source = Annotated[list[str], typer.Argument(help="Parquet file(s), a folder, or a glob in quotes.", metavar="SRC...")]
NewSteps = Annotated[
    list[str], typer.Argument(help="New steps, in the layout of the source that DST was made of.", metavar="NEW...")
]
Destination = Annotated[
    str, typer.Argument(help="A folder or URI that is new, empty, or holds this same job.", metavar="DST")
]
Output = Annotated[str, typer.Argument(help="A folder or URI that featurize wrote to.", metavar="DST")]
Column = Annotated[str | None, typer.Option(help="The column that holds the sequences, or a field of structs, a.b.c.")]
LayoutName = Annotated[
    str | None, typer.Option(help="How the sequences stand in the columns; needed only if several layouts fit.")
]
Features = Annotated[
    str | None, columns("Features of a step: columns of lists, or fields of structs in --column, separated by commas.")
]
InFeatures = Annotated[
    int | None, count("Features per step, where the lists of a column hold them one after the other.")
]
GroupBy = Annotated[str | None, columns("One step per row: columns that say which sequence it belongs to.")]
OrderBy = Annotated[str | None, columns("One step per row: columns that order the steps of a sequence.")]
Sort = Annotated[
    bool,
    typer.Option("--sort", help="One step per row: first write a sorted copy of SRC to DST.sorted (needs DuckDB)."),
]
Keep = Annotated[str | None, columns("Columns to copy to the output, separated by commas (default: all others).")]
EncoderFile = Annotated[Path | None, typer.Option("--encoder", help="An encoder file (.safetensors).")]
Hidden = Annotated[int | None, count("Hidden features of a GRU with random weights.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the random weights (default 0).")]
InputFile = Annotated[
    Path | None,
    typer.Option("--input", help="A TOML file that says what a step holds: docs/encoders.md.", metavar="FILE"),
]
InitialCarry = Annotated[str | None, typer.Option(help="Column with each row's own initial carry.", metavar="COLUMN")]
MaxSteps = Annotated[int | None, typer.Option(help="Use only N steps of each sequence; see --truncate.", min=0)]
Truncate = Annotated[str | None, choice("With --max-steps, use the first or the last N steps", "head", "tail")]
MinSteps = Annotated[int | None, count("Sequences of fewer steps are too short; see --too-short.")]
BadValue = Annotated[
    str | None,
    choice(
        "What to do about a null, a NaN or an infinity within a sequence",
        "error", "drop-step", "zero", "forward-fill", "propagate", "skip",
    ),
]  # fmt: skip
NullSequence = Annotated[str | None, choice("What to do about a null sequence", "error", "null", "skip")]
WrongWidth = Annotated[str | None, choice("What to do about steps of another number of features", "error", "skip")]
UnequalLengths = Annotated[str | None, choice("What to do about features of unequal lengths", "error", "skip")]
EmptySequence = Annotated[
    str | None, choice("What to do about a sequence without steps", "initial-carry", "null", "error", "skip")
]
TooShort = Annotated[str | None, choice("What to do about fewer steps than --min-steps", "skip", "error", "null")]
TooLong = Annotated[str | None, choice("What to do about more steps than --max-steps", "truncate", "error", "skip")]
UnreadableFile = Annotated[str | None, choice("What to do about a file that cannot be read", "error", "skip")]
MaxBadRows = Annotated[
    int | None, typer.Option(help="Stop once more than N rows were set aside, by skip.", min=0, max=MOST)
]
RowsPerPart = Annotated[int | None, count("About how many rows an output file gets (default 65536).")]
LossyCast = Annotated[
    bool, typer.Option("--lossy-cast", help="Round numbers that float32 cannot hold exactly, instead of refusing them.")
]
Ids = Annotated[str | None, columns("Kept columns that tell whose sequence a row is, for `scanrnn update`.")]
KeepState = Annotated[
    bool, typer.Option("--keep-state", help="Also write each row's final state, for `scanrnn update` to continue.")
]
OutputLayout = Annotated[
    str | None,
    typer.Option(help="How features are stored: fixed_size_list (default), list, columns (one per feature), tensor."),
]
OutputDtype = Annotated[
    str | None, typer.Option(help="Round features to float16 or float32 (default: as the encoder computes them).")
]
Compression = Annotated[
    str | None,
    typer.Option(
        "--compression",
        help="Codec of all output columns: zstd, snappy, gzip, lz4, none (default: zstd, but none for features).",
    ),
]
RowGroupBytes = Annotated[
    int | None, typer.Option("--row-group-bytes", help="Least bytes of an output row group (default 4 MiB).")
]
RowFilter = Annotated[
    str | None,
    typer.Option("--filter", help="Read only rows that match, such as \"label == 'walk' and n > 10\".", metavar="TEXT"),
]
Limit = Annotated[int | None, count("Read only the first N rows of SRC, before any filter, to try something out.")]
Processes = Annotated[
    int | None,
    count("Work in N processes of this machine, each with one GPU or a share of the cores (default: one per GPU)."),
]
Engine = Annotated[
    str | None, choice("Who does the units: this machine, or the workers of a Ray cluster", "local", "ray")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: HOST:PORT of the cluster's head, auto for that of this machine, or local to begin one "
        "(default: as RAY_ADDRESS says, else that of this machine, else begin one).",
    ),
]
Workers = Annotated[
    int | None, count("With --engine ray: number of workers (default: as many as the cluster has room for).")
]
CpusPerWorker = Annotated[int | None, count("With --engine ray: CPUs of each worker, and its CPU devices (default 1).")]
GpusPerWorker = Annotated[int | None, count("With --engine ray: GPUs of each worker; 1 is best (default: none).")]
Devices = Annotated[int | None, count("Number of CPU devices (default: one per core).", MOST_DEVICES)]
Kernel = Annotated[
    str | None,
    typer.Option(
        help="What computes: native, for usual cells on a CPU, or xla, for any "
        "(default: the job's; of a new one native, where it can be had).",
        metavar="native|xla",
    ),
]
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
    typer.Option(
        help="Do only the K-th of N shares. With auto, whatever started this process says which: Slurm, MPI, torchrun, "
        "a TPU pod, a cloud's batch service, or Kubernetes (as auto/N).",
        metavar="K/N",
    ),
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
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Memory for rows that are read, computed or written, such as 64MiB, beyond what Python and JAX take "
        "(default: 256MiB; on accelerators half of what the process may use). At least 32MiB.",
        metavar="BYTES",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

JOB_FLAGS: dict[str, Any] = {
    "layout": LayoutName,
    "column": Column,
    "features": Features,
    "in_features": InFeatures,
    "group_by": GroupBy,
    "order_by": OrderBy,
    "sort": Sort,
    "keep": Keep,
    "rows_per_part": RowsPerPart,
    "max_steps": MaxSteps,
    "truncate": Truncate,
    "min_steps": MinSteps,
    "initial_carry": InitialCarry,
    "lossy_cast": LossyCast,
    "bad_rows.bad_value": BadValue,
    "bad_rows.null_sequence": NullSequence,
    "bad_rows.wrong_width": WrongWidth,
    "bad_rows.unequal_lengths": UnequalLengths,
    "bad_rows.empty_sequence": EmptySequence,
    "bad_rows.too_short": TooShort,
    "bad_rows.too_long": TooLong,
    "bad_rows.unreadable_file": UnreadableFile,
    "ids": Ids,
    "keep_state": KeepState,
    "output.layout": OutputLayout,
    "output.dtype": OutputDtype,
    "output.compression": Compression,
    "output.row_group_bytes": RowGroupBytes,
    "filter": RowFilter,
    "limit": Limit,
}
"""The flag of each field of `JobOptions`; that of a field `f` of its field `o`, which is a dataclass, as `o.f`."""


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the defaults of the functions behind stand in one place."""
    return {name: value for name, value in options.items() if value is not None and value is not False and value != []}


def takes_job_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of `JobOptions`, or those of some of its fields, in place of its argument `options`."""
    flags = {name: flag for name, flag in JOB_FLAGS.items() if not names or {name, name.partition(".")[0]} & set(names)}

    def with_flags(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        parameters = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == "options":
                for name, flag in flags.items():
                    default = False if get_args(flag)[0] is bool else None
                    parameters.append(parameter.replace(name=_python_name(name), annotation=flag, default=default))
            else:
                parameters.append(parameter.replace(annotation=hints[parameter.name]))

        @functools.wraps(command)
        def called(**told: Any) -> None:
            from scanrnn_dist.job import JobOptions

            options = {name: told.pop(_python_name(name)) for name in flags}
            nested: dict[str, Any] = {}
            for name, it in options.items():
                if it is not None:  # to keep no column is not to keep all
                    outer, _, inner = name.rpartition(".")
                    (nested.setdefault(outer, {}) if outer else nested)[inner] = it
            command(**told, options=JobOptions.from_json(nested))

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return with_flags


def _python_name(name: str) -> str:
    """What Python calls the argument of a flag; typer makes the flag's name of it: --output-dtype, but --bad-value."""
    return name.removeprefix("bad_rows.").replace(".", "_")


def read_input(path: Path | None) -> InputSpec | None:
    """What a step holds, as a TOML file says it; None without one."""
    from scanrnn_dist.input_spec import InputSpec

    return None if path is None else InputSpec.load(path)


def one_or_many(source: list[str]) -> str | list[str]:
    """The source, as the doors take it."""
    return source[0] if len(source) == 1 else source


def bytes_told(told: str | None) -> int | None:
    """The bytes of --memory."""
    from scanrnn_dist.observe import bytes_of

    return None if told is None else bytes_of(told)
