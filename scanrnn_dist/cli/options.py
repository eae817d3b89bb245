"""Arguments and options of the command line: their names, groups, bounds and help. Commands say what they do.

The flags of `JobOptions` stand in `JOB_FLAGS`, one for each field, and for each field of a field that is a dataclass
itself; those of how a job is run in `run_options.py`. `takes_flags` gives both to a command.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from scanrnn_dist.errors import option_name, split_names

if TYPE_CHECKING:
    from scanrnn_dist.input_spec import InputSpec

MOST = 2**31 - 1
"""Of numbers that could only be a slip where they are larger."""
MOST_DEVICES = 1024
"""CPU devices, each of which has threads of its own: 100,000 of them end the process from within JAX."""

WEIGHTS = "Weights: what SRC holds"
ENCODER = "Encoder: what computes the features"
LAYOUT = "Source: how the sequences are stored"
ROWS = "Rows: which ones, and how many steps"
BAD_ROWS = "Bad rows: what to do with them"
OUTPUT = "Output"
GOING_ON = "Continuing a job"
SHARING = "Sharing the work"
SPEED = "Devices, speed and memory"
RAY = "Ray"
GENERAL = "Result, and flags in a file"
GROUPS = (WEIGHTS, ENCODER, LAYOUT, ROWS, BAD_ROWS, OUTPUT, GOING_ON, SHARING, SPEED, RAY, "Options", GENERAL)
"""In the order in which a help shows them; then come those of completion and of the help itself."""


def option(text: str, *names: str, group: str | None = None, metavar: str | None = None, **more: Any) -> Any:
    """An option in a group of the help."""
    told: dict[str, Any] = {"show_default": False, **more}  # the text says it, with its unit
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=group, **told)


def count(text: str, most: int = MOST, *, group: str | None = None, metavar: str = "N") -> Any:
    """An option that takes a number from 1 on."""
    return option(text, group=group, metavar=metavar, min=1, max=most)


def columns(text: str, group: str | None = None) -> Any:
    """An option that takes names of columns."""

    def split(told: str | None) -> list[str] | None:
        return None if told is None else split_names(told)

    return option(text, group=group, metavar="A,B,...", callback=split)


def choice(text: str, *choices: str, group: str | None = None, default: str | None = None, name: str = "") -> Any:
    """An option that takes one of some words, which the shell can complete; the first is the default."""
    told = f"{text}: {', '.join(choices)} (default: {default or choices[0]})."
    names = (name,) if name else ()
    return option(told, *names, group=group, metavar="CHOICE", autocompletion=lambda: list(choices))


def flag(text: str, name: str, group: str | None = None) -> Any:
    """An option that takes no value."""
    return option(text, name, group=group)


Source = Annotated[list[str], typer.Argument(help="Parquet files, a folder, or a glob in quotes.", metavar="SRC...")]
Output = Annotated[str, typer.Argument(help="A folder or URI that featurize wrote to.", metavar="DST")]
InputFile = Annotated[
    Path | None,
    option(
        "A TOML file that says what a step holds, such as categories or times; inspect --statistics writes one.",
        "--input",
        group=LAYOUT,
        metavar="FILE",
    ),
]
Ids = Annotated[str | None, columns("Kept columns that identify a sequence, for `scanrnn update`.", OUTPUT)]
AllowMixed = Annotated[
    bool,
    flag(
        "Continue a job that was begun on another kind or model of device, or with other XLA flags or versions. "
        "Features may then differ in their last digits.",
        "--allow-mixed",
        GOING_ON,
    ),
]
MaxBadRows = Annotated[
    int | None,
    option("Stop once more than N bad rows were left out by a skip.", group=GOING_ON, metavar="N", min=0, max=MOST),
]
Retry = Annotated[bool, flag("Retry rows that crashed the process twice.", "--retry", GOING_ON)]
Memory = Annotated[
    str | None,
    option(
        "Memory for rows that are read, computed or written, such as 64MiB, beyond what Python and JAX take "
        "(default: 256MiB; on accelerators half of what the process may use). At least 32MiB.",
        "--memory",
        group=SPEED,
        metavar="BYTES",
    ),
]
CacheFolder = Annotated[
    Path | None,
    option("Keep compiled programs in this folder, so that later runs start sooner.", group=SPEED, metavar="DIR"),
]
Devices = Annotated[int | None, count("Number of CPU devices (default: one per core).", MOST_DEVICES, group=SPEED)]
Json = Annotated[bool, flag("Print the result as JSON, and an error as JSON too.", "--json", GENERAL)]

JOB_FLAGS: dict[str, Any] = {
    "layout": Annotated[
        str | None,
        option(
            "The layout of the sequences; needed only if several fit: list-columns, nested-lists, flat-lists, "
            "list-of-structs, struct-of-lists, tensors, long.",
            group=LAYOUT,
            metavar="NAME",
        ),
    ],
    "column": Annotated[
        str | None,
        option("The column of the sequences; a.b.c names a field within structs.", group=LAYOUT, metavar="NAME"),
    ],
    "features": Annotated[
        str | None,
        columns("Which features of a step to read: columns of lists, or fields of the structs in --column.", LAYOUT),
    ],
    "in_features": Annotated[
        int | None,
        count("Numbers per step, if one flat list holds the numbers of all steps, step after step.", group=LAYOUT),
    ],
    "group_by": Annotated[
        str | None, columns("For one step per row: the columns that say which sequence a row belongs to.", LAYOUT)
    ],
    "order_by": Annotated[str | None, columns("For one step per row: the columns that order the steps.", LAYOUT)],
    "sort": Annotated[
        bool,
        flag("For one step per row: first write a sorted copy of SRC to DST.sorted (needs DuckDB).", "--sort", LAYOUT),
    ],
    "keep": Annotated[str | None, columns("Columns of SRC to copy to the output (default: all others).", OUTPUT)],
    "rows_per_part": Annotated[
        int | None,
        count(
            "About how many rows an output file gets (default: 65,536, or fewer that take 512 MiB of SRC).",
            group=OUTPUT,
            metavar="ROWS",
        ),
    ],
    "max_steps": Annotated[
        int | None,
        option("Use only N steps of each sequence (default: all); see --truncate.", group=ROWS, metavar="N", min=0),
    ],
    "truncate": Annotated[str | None, choice("With --max-steps, which N steps to use", "head", "tail", group=ROWS)],
    "min_steps": Annotated[
        int | None, count("Sequences of fewer than N steps are too short; see --too-short.", group=ROWS)
    ],
    "initial_carry": Annotated[
        str | None,
        option(
            "The column with the state of the network before the first step (default: zeros).",
            group=ROWS,
            metavar="NAME",
        ),
    ],
    "lossy_cast": Annotated[
        bool, flag("Round numbers that float32 cannot hold exactly, instead of refusing them.", "--lossy-cast", ROWS)
    ],
    "bad_rows.bad_value": Annotated[
        str | None,
        choice(
            "A null, a NaN or an infinity within a sequence",
            "error",
            "drop-step",
            "zero",
            "forward-fill",
            "propagate",
            "skip",
            group=BAD_ROWS,
        ),
    ],
    "bad_rows.null_sequence": Annotated[
        str | None, choice("A null in place of a sequence", "error", "null", "skip", group=BAD_ROWS)
    ],
    "bad_rows.wrong_width": Annotated[
        str | None, choice("A step with another number of features than the others", "error", "skip", group=BAD_ROWS)
    ],
    "bad_rows.unequal_lengths": Annotated[
        str | None, choice("Features of one row with different numbers of steps", "error", "skip", group=BAD_ROWS)
    ],
    "bad_rows.empty_sequence": Annotated[
        str | None, choice("A sequence without steps", "initial-carry", "null", "error", "skip", group=BAD_ROWS)
    ],
    "bad_rows.too_short": Annotated[
        str | None, choice("Fewer steps than --min-steps", "skip", "error", "null", group=BAD_ROWS)
    ],
    "bad_rows.too_long": Annotated[
        str | None, choice("More steps than --max-steps", "truncate", "error", "skip", group=BAD_ROWS)
    ],
    "bad_rows.unreadable_file": Annotated[
        str | None, choice("A file that cannot be read", "error", "skip", group=BAD_ROWS)
    ],
    "ids": Ids,
    "keep_state": Annotated[
        bool,
        flag(
            "Also write each row's final state, so that `scanrnn update` can continue from it.", "--keep-state", OUTPUT
        ),
    ],
    "output.layout": Annotated[
        str | None,
        choice(
            "How features are stored; columns is one column per feature",
            "fixed_size_list",
            "list",
            "columns",
            "tensor",
            group=OUTPUT,
        ),
    ],
    "output.dtype": Annotated[
        str | None,
        choice(
            "Type of the features", "float16", "float32", group=OUTPUT, default="that of the encoder; float16 rounds"
        ),
    ],
    "output.compression": Annotated[
        str | None,
        choice(
            "Codec of all output columns",
            "zstd",
            "snappy",
            "gzip",
            "lz4",
            "none",
            group=OUTPUT,
            default="zstd, but none for features",
            name="--compression",
        ),
    ],
    "output.row_group_bytes": Annotated[
        int | None,
        option(
            "Smallest size of a row group of the output, as a plain number (default: 4194304).",
            "--row-group-bytes",
            group=OUTPUT,
            metavar="BYTES",
        ),
    ],
    "filter": Annotated[
        str | None,
        option(
            "Read only rows that match, such as \"label == 'walk' and n > 10\".", "--filter", group=ROWS, metavar="TEXT"
        ),
    ],
    "limit": Annotated[
        int | None, count("Read only the first N rows of SRC, before any filter, to try something out.", group=ROWS)
    ],
}
"""The flag of each field of `JobOptions`; that of a field `f` of its field `o`, which is a dataclass, as `o.f`."""

FILE_FLAGS: dict[str, Any] = {
    "config": Annotated[
        Path | None,
        option(
            "Read flags from this TOML file. A key is a flag without dashes, such as hidden = 64; also source and "
            "destination. The command line wins.",
            "--config",
            group=GENERAL,
            metavar="FILE",
            expose_value=False,
        ),
    ],
    "print_config": Annotated[
        bool,
        option(
            "Print the flags that are given, here and by --config, as such a file. Nothing else is done.",
            "--print-config",
            group=GENERAL,
            expose_value=False,
        ),
    ],
}
"""The flags of a file of flags, which `Command` deals with."""


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the defaults of the functions behind stand in one place."""
    return {name: value for name, value in options.items() if value is not None and value is not False and value != []}


def takes_flags(
    names: Sequence[str] = (), run: type | None = None, run_names: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags, in place of its arguments `options` and `run`, and those of a file of flags.

    Args:
        names: fields of `JobOptions` whose flags are taken; all when empty.
        run: a dataclass whose fields are annotated by flags, for `run`.
        run_names: its fields that are taken; all when empty.
    """
    flags = {name: flag for name, flag in JOB_FLAGS.items() if not names or {name, name.partition(".")[0]} & set(names)}
    of_run = {} if run is None else get_type_hints(run, include_extras=True)
    of_run = {name: flag for name, flag in of_run.items() if not run_names or name in run_names}
    of_options = {option_name(name): flag for name, flag in flags.items()}
    tables = {"options": of_options, "run": of_run}

    def with_flags(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        parameters = []
        for parameter in inspect.signature(command).parameters.values():
            for name, flag in tables.get(parameter.name, {}).items():
                parameters.append(parameter.replace(name=name, annotation=flag, default=_default(flag)))
            if parameter.name not in tables:
                parameters.append(parameter.replace(annotation=hints[parameter.name]))
        kind = inspect.Parameter.KEYWORD_ONLY
        for name, flag in FILE_FLAGS.items():
            parameters.append(inspect.Parameter(name, kind, default=_default(flag), annotation=flag))

        @functools.wraps(command)
        def called(**told: Any) -> None:
            from scanrnn_dist.job import JobOptions

            told = {name: it for name, it in told.items() if name not in FILE_FLAGS}
            if run is not None:
                told["run"] = run(**{name: told.pop(name) for name in of_run})
            options = {name: told.pop(option_name(name)) for name in flags}
            nested: dict[str, Any] = {}
            for name, it in options.items():
                if it is not None:  # to keep no column is not to keep all
                    outer, _, inner = name.rpartition(".")
                    (nested.setdefault(outer, {}) if outer else nested)[inner] = it
            command(**told, options=JobOptions.from_json(nested))

        signature = inspect.Signature([parameter.replace(kind=kind) for parameter in parameters])
        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return with_flags


def _default(flag: Any) -> Any:
    return False if get_args(flag)[0] is bool else None


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
