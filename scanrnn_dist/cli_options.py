"""Arguments and options of the command line: their names, bounds and help. What they do is the commands' affair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MOST = 2**31 - 1
"""Of numbers that could only be a slip where they are larger."""
MOST_DEVICES = 1024
"""CPU devices, each of which has threads of its own: 100,000 of them end the process from within JAX."""

Source = Annotated[list[str], typer.Argument(help="Parquet file(s), a folder, or a glob in quotes.", metavar="SRC...")]
Destination = Annotated[
    str, typer.Argument(help="A folder or URI that is new, empty, or holds this same job.", metavar="DST")
]
Output = Annotated[str, typer.Argument(help="A folder or URI that featurize wrote to.", metavar="DST")]
Column = Annotated[str | None, typer.Option(help="The column that holds the sequences, if several could.")]
Keep = Annotated[str | None, typer.Option(help="Columns to carry along, with commas; all others if not given.")]
EncoderFile = Annotated[Path | None, typer.Option("--encoder", help="An encoder file (.safetensors).")]
Hidden = Annotated[int | None, typer.Option(help="Hidden features of a GRU with random weights.", min=1, max=MOST)]
Seed = Annotated[int | None, typer.Option(help="Seed of these weights. 0 if not given.")]
InitialCarry = Annotated[
    str | None, typer.Option("--initial-carry", help="Column with each row's own initial carry.", metavar="COLUMN")
]
MaxSteps = Annotated[int | None, typer.Option(help="Of each sequence, take the first so many steps.", min=0)]
RowsPerPart = Annotated[
    int | None, typer.Option(help="Rows of an output file, about. 65536 if not given.", min=1, max=MOST)
]
LossyCast = Annotated[bool, typer.Option("--lossy-cast", help="Round float64 and wide integers to float32.")]
Devices = Annotated[int | None, typer.Option(help="CPU devices. One per core if not given.", min=1, max=MOST_DEVICES)]
Lanes = Annotated[int | None, typer.Option(help="Lanes per device, instead of what suits the device.", min=1, max=MOST)]
BlockSteps = Annotated[int | None, typer.Option(help="Steps of a block, the grain at which rows end.", min=1, max=MOST)]
WindowBlocks = Annotated[int | None, typer.Option(help="Blocks of a lane in one call of the program.", min=1, max=MOST)]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--compilation-cache", help="Keep compiled programs in this folder of yours.", metavar="DIR"),
]
ProfileFolder = Annotated[
    Path | None,
    typer.Option("--profile", help="Write a trace for TensorBoard and Perfetto to this folder.", metavar="DIR"),
]
ProfileSeconds = Annotated[
    float | None, typer.Option(help="How much --profile traces, once compiled. 2 if not given.", min=0, max=MOST)
]
Rounds = Annotated[int | None, typer.Option(help="Rounds of every shape. 7 if not given.", min=1, max=MOST)]
ShareText = Annotated[
    str | None,
    typer.Option("--shard", help="Do the K-th of N shares only; auto: as Slurm or Kubernetes says.", metavar="K/N"),
]
Steal = Annotated[bool, typer.Option("--steal", help="Once done, take over the shares of processes that stopped.")]
AllowMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Go on with a job of another device kind, XLA flags or versions.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Begin anew; the old output is replaced once the new one is complete.")
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Files of SRC were changed, added or removed: do their rows again, keep all other parts.",
    ),
]
Repair = Annotated[
    bool, typer.Option("--repair", help="First make parts again that are missing or changed; remove surplus ones.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Retry units that crashed the process again and again.")]
LockSeconds = Annotated[
    float | None,
    typer.Option("--lock-seconds", help="Not heard of for so long, a process has stopped. 60 if not given.", min=0.1),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
