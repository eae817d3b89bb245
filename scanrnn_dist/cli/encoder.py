"""The commands `scanrnn encoder make | convert | inspect`: encoder files from a seed or from other people's weights.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scanrnn_dist.cli.encoder_printing import print_encoder
from scanrnn_dist.cli.options import (
    ENCODER,
    GENERAL,
    LAYOUT,
    SPEED,
    WEIGHTS,
    InputFile,
    Json,
    count,
    flag,
    given,
    option,
    read_input,
)
from scanrnn_dist.cli.printing import check_is_new, print_result
from scanrnn_dist.cli.process import start_jax
from scanrnn_dist.errors import ConfigError, flag_of
from scanrnn_dist.observe import check_fits

if TYPE_CHECKING:
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.input_spec import InputSpec

encoder_app = typer.Typer(help="Encoder files: make, convert, inspect.", no_args_is_help=True)

Kind = Literal["gru", "lstm", "rnn"]
Origin = Literal["torch", "keras", "onnx", "orbax", "safetensors"]

TAKES: dict[Origin, set[str]] = {
    "torch": {"kind", "prefix", "nonlinearity", "lossy_cast", "readout", "input", "embedding"},
    "keras": {"kind", "prefix", "reset_after", "lossy_cast", "readout"},
    "onnx": {"node", "lossy_cast", "readout"},
    "orbax": {"like", "prefix", "lossy_cast"},
    "safetensors": {"like", "prefix", "lossy_cast"},
}
"""The options that `convert` takes, by origin."""

MOST_LAYERS = 1024
"""That are built one by one."""

Out = Annotated[Path, typer.Argument(help="The encoder file to write (.safetensors).", metavar="OUT")]
Force = Annotated[bool, flag("Replace OUT if it is there.", "--force", GENERAL)]
Readout = Annotated[
    str | None,
    option(
        "Which outputs become the features: last, mean, max, steps, last+mean (default: last).",
        group=ENCODER,
        metavar="CHOICE",
    ),
]


@encoder_app.command()
def make(
    out: Out,
    hidden: Annotated[int, count("Hidden features of every layer.", group=ENCODER)],
    in_features: Annotated[
        int | None, count("Features per step; needed unless --input says them.", group=ENCODER)
    ] = None,
    input: InputFile = None,
    cell: Annotated[Kind | None, option("The kind of cell (default: gru).", group=ENCODER)] = None,
    seed: Annotated[int, option("Seed of the random weights (default: 0).", group=ENCODER, metavar="N")] = 0,
    num_layers: Annotated[
        int | None,
        count("Number of layers, each reading the outputs of the one before (default: 1).", MOST_LAYERS, group=ENCODER),
    ] = None,
    bidirectional: Annotated[bool, flag("Read every sequence in both directions.", "--bidirectional", ENCODER)] = False,
    readout: Readout = None,
    initial_carry: Annotated[
        float | None,
        option("Value of every state before the first step (default: 0).", group=ENCODER, metavar="NUMBER"),
    ] = None,
    dtype: Annotated[
        str | None,
        option(
            "Data type of the computation, such as float32 or bfloat16 (default: float32).",
            group=SPEED,
            metavar="DTYPE",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        option(
            "Precision of matrix products: highest, high or default (default: highest).", group=SPEED, metavar="CHOICE"
        ),
    ] = None,
    scan: Annotated[
        str | None,
        option(
            "What runs the cell over the steps: lax, or nnx for cells that change their own variables (default: lax).",
            group=SPEED,
            metavar="CHOICE",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an encoder with random weights. The same seed gives the same weights."""
    _check_out(out, force)
    start_jax()
    if in_features is None and input is None:
        raise ConfigError(
            "Neither --in-features nor --input was given; expected how many numbers a step has, or what it holds."
        )
    options = given(
        input=input and read_input(input), cell=cell, num_layers=num_layers, bidirectional=bidirectional,
        readout=readout, initial_carry=initial_carry, dtype=dtype, precision=precision, scan=scan,
    )  # fmt: skip
    _write(random_encoder(seed, in_features, hidden, **options), out, as_json)


@encoder_app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A file of weights, or an Orbax checkpoint's folder.", metavar="SRC")],
    out: Out,
    origin: Annotated[
        Origin,
        option(
            "What wrote SRC: torch, keras, onnx, orbax, or safetensors, a state of flax nnx.",
            "--from",
            group=WEIGHTS,
            metavar="FORMAT",
        ),
    ],
    kind: Annotated[
        Kind | None, option("The kind of cell that you expect; another one is an error.", group=WEIGHTS)
    ] = None,
    prefix: Annotated[
        list[str] | None,
        option("Start of the names of the weights to read. For Keras, once per layer.", group=WEIGHTS, metavar="NAME"),
    ] = None,
    node: Annotated[
        list[str] | None,
        option("Name of an ONNX node; once per layer, first layer first.", group=WEIGHTS, metavar="NAME"),
    ] = None,
    like: Annotated[
        Path | None,
        option(
            "An encoder file that has the architecture of SRC; needed for a state of nnx.",
            group=WEIGHTS,
            metavar="FILE",
        ),
    ] = None,
    lossy_cast: Annotated[
        bool, flag("Round weights that float32, or the dtype of --like, cannot hold.", "--lossy-cast", WEIGHTS)
    ] = False,
    nonlinearity: Annotated[
        str | None,
        option("Nonlinearity of a PyTorch RNN: tanh or relu (default: tanh).", group=ENCODER, metavar="CHOICE"),
    ] = None,
    reset_after: Annotated[
        bool, flag("Say that a Keras GRU without biases was made with reset_after=True.", "--reset-after", ENCODER)
    ] = False,
    readout: Readout = None,
    input: InputFile = None,
    embedding: Annotated[
        list[str] | None,
        option("Which PyTorch weight is the table of a column of --input.", group=LAYOUT, metavar="COLUMN=NAME"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an encoder with the weights of SRC, a file of PyTorch, Keras, ONNX or flax (Orbax, safetensors)."""
    options = given(
        kind=kind, prefix=prefix, node=node, nonlinearity=nonlinearity, reset_after=reset_after, like=like,
        input=input, embedding=embedding, lossy_cast=lossy_cast, readout=readout,
    )  # fmt: skip
    surplus = sorted(options.keys() - TAKES[origin])
    if surplus:
        flags = ", ".join(map(flag_of, surplus))
        raise ConfigError(f"--from {origin} takes no {flags}; see scanrnn encoder convert --help.")
    _check_out(out, force)
    start_jax()
    _write(_converted(source, origin, options), out, as_json)


@encoder_app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="An encoder file (.safetensors).", metavar="FILE")], as_json: Json = False
) -> None:
    """Show what an encoder file holds: architecture, shapes of parameters, fingerprint."""
    start_jax()
    from scanrnn_dist.encoder import Encoder

    print_encoder(Encoder.load(file), as_json)


def random_encoder(seed: int, in_features: int | None, hidden_features: int, **options: Any) -> Encoder:
    """`Encoder.from_seed`, unless the weights alone would take more than the memory: then a `ConfigError`."""
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.weights import GATES

    ways, layers = 1 + options.get("bidirectional", False), options.get("num_layers", 1)
    spec: InputSpec | None = options.get("input")
    if spec is not None:
        tables = sum(rows * dimension for rows, dimension in spec.tables.values())
        check_fits(4 * tables, "The embedding tables of the input", "Choose a smaller dimension or fewer ids.")
    first = spec.width if spec is not None else in_features or 0
    widths = first + (layers - 1) * ways * hidden_features + layers * hidden_features
    weights = GATES.get(options.get("cell", "gru"), 1) * ways * hidden_features * widths
    check_fits(4 * weights, f"Weights of {hidden_features} hidden features", "Choose fewer with --hidden.")
    return Encoder.from_seed(seed, in_features, hidden_features, **options)


def _converted(source: Path, origin: Origin, options: dict[str, Any]) -> Encoder:
    """The encoder that has the weights of a source."""
    from scanrnn_dist import weights
    from scanrnn_dist.encoder import Encoder

    if origin == "keras":
        return weights.from_keras(source, **options)
    if origin == "onnx":
        return weights.from_onnx(source, **options)
    prefixes = options.pop("prefix", [])
    if len(prefixes) > 1:
        raise ConfigError(f"--prefix was given {len(prefixes)} times; --from {origin} takes one.")
    options |= {"prefix": prefixes[0]} if prefixes else {}
    if origin == "torch":
        options |= {"input": read_input(options["input"])} if "input" in options else {}
        options |= {"embeddings": _by_column(options.pop("embedding"))} if "embedding" in options else {}
        return weights.from_torch(source, **options)
    if "like" not in options:
        raise ConfigError(
            f"--from {origin} holds weights alone: give the architecture with --like FILE, an encoder file of any "
            "weights (scanrnn encoder make)."
        )
    into = Encoder.load(options.pop("like"))
    read = weights.from_orbax if origin == "orbax" else weights.from_state
    return read(into, source, **options)


def _by_column(told: list[str]) -> dict[str, str]:
    """`COLUMN=NAME` as a mapping; a column's name may hold a `=`, that of a weight does not."""
    wrong = [each for each in told if not all(each.rpartition("="))]
    if wrong:
        raise ConfigError(f"--embedding is {wrong[0]!r}; expected COLUMN=NAME, such as item_id=embedding.weight.")
    return {column: name for column, _, name in (each.rpartition("=") for each in told)}


def _check_out(out: Path, force: bool) -> None:
    """Refuse a name that is none of an encoder file, and, without `force`, one that stands for something already."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out} ends in {out.suffix!r}; an encoder file ends in .safetensors.")
    check_is_new(out, force)


def _write(encoder: Encoder, out: Path, as_json: bool) -> None:
    """Save an encoder and say what was saved, where, and what to do with it."""
    from scanrnn_dist.encoder import in_words

    encoder.save(out)
    if as_json:
        print_encoder(encoder, as_json)
        return
    file = shlex.quote(str(out))
    print_result(
        f"Wrote {out}: {in_words(encoder)}.\n"
        f"Details: scanrnn encoder inspect {file}. Use it: scanrnn featurize SRC DST --encoder {file}"
    )
