"""The commands `scanrnn encoder make | convert | inspect`: encoder files from a seed or from other people's weights.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanrnn_dist.cli.options import InputFile, Json, count, given, read_input
from scanrnn_dist.cli.printing import indented
from scanrnn_dist.cli.process import start_jax
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.observe import check_fits

if TYPE_CHECKING:
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.input_spec import InputSpec

encoder_app = typer.Typer(help="Encoder files: make, convert, inspect.", no_args_is_help=True)


class Kind(StrEnum):
    """Kinds of cells."""

    gru = "gru"
    lstm = "lstm"
    rnn = "rnn"


class Origin(StrEnum):
    """Where weights come from."""

    torch = "torch"
    keras = "keras"
    onnx = "onnx"
    orbax = "orbax"
    safetensors = "safetensors"


TAKES = {
    Origin.torch: {"kind", "prefix", "nonlinearity", "lossy_cast", "readout", "input", "embedding"},
    Origin.keras: {"kind", "prefix", "reset_after", "lossy_cast", "readout"},
    Origin.onnx: {"node", "lossy_cast", "readout"},
    Origin.orbax: {"like", "prefix", "lossy_cast"},
    Origin.safetensors: {"like", "prefix", "lossy_cast"},
}
"""The options that `convert` takes, by origin."""

MOST_VALUES = 6
"""Of a vocabulary that are printed."""
MOST_LAYERS = 1024
"""That are built one by one."""

Out = Annotated[Path, typer.Argument(help="The encoder file to write (.safetensors).", metavar="OUT")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")]
Readout = Annotated[
    str | None,
    typer.Option(
        help="Which outputs become the features: last, mean, max, steps, or several as last+mean (default last).",
        metavar="NAME",
    ),
]


@encoder_app.command()
def make(
    out: Out,
    hidden: Annotated[int, count("Hidden features of every layer.")],
    in_features: Annotated[int | None, count("Features per step; needed unless --input says them.")] = None,
    input: InputFile = None,
    cell: Annotated[Kind | None, typer.Option(help="The kind of cell (default gru).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.", metavar="N")] = 0,
    num_layers: Annotated[
        int | None, count("Number of layers, each reading the outputs of the one before (default 1).", MOST_LAYERS)
    ] = None,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="Read every sequence in both directions.")
    ] = False,
    readout: Readout = None,
    initial_carry: Annotated[
        float | None, typer.Option(help="Value of the state before the first step (default 0).", metavar="X")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Data type of the computation, such as float32 or bfloat16 (default float32).", metavar="TYPE"
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Precision of matrix products: highest, high or default (default highest).", metavar="NAME"),
    ] = None,
    scan: Annotated[
        str | None,
        typer.Option(
            help="How the cell is run over the steps: lax, or nnx if it changes variables of its own (default lax).",
            metavar="lax|nnx",
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
        input=input and read_input(input), cell=cell and cell.value, num_layers=num_layers, bidirectional=bidirectional,
        readout=readout, initial_carry=initial_carry, dtype=dtype, precision=precision, scan=scan,
    )  # fmt: skip
    _write(random_encoder(seed, in_features, hidden, **options), out, as_json)


@encoder_app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A file of weights, or an Orbax checkpoint's folder.", metavar="SRC")],
    out: Out,
    origin: Annotated[Origin, typer.Option("--from", help="What wrote SRC; safetensors means a state of flax nnx.")],
    kind: Annotated[
        Kind | None, typer.Option(help="The kind of cell that you expect; another one is an error.")
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(help="Start of the names of the weights to read. For Keras, once per layer.", metavar="NAME"),
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="Name of an ONNX node; once per layer, first layer first.", metavar="NAME")
    ] = None,
    nonlinearity: Annotated[
        str | None, typer.Option(help="Nonlinearity of a PyTorch RNN: tanh or relu (default tanh).", metavar="NAME")
    ] = None,
    reset_after: Annotated[
        bool, typer.Option("--reset-after", help="Say that a Keras GRU without biases was made with reset_after=True.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(help="An encoder file with the architecture of SRC; needed for a state of nnx.", metavar="FILE"),
    ] = None,
    input: InputFile = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(help="Which PyTorch weight is the table of a column of --input.", metavar="COLUMN=NAME"),
    ] = None,
    lossy_cast: Annotated[bool, typer.Option("--lossy-cast", help="Round weights that float32 cannot hold.")] = False,
    readout: Readout = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an encoder with the weights of SRC, a file of PyTorch, Keras, ONNX or flax (Orbax, safetensors)."""
    options = given(
        kind=kind and kind.value, prefix=prefix, node=node, nonlinearity=nonlinearity, reset_after=reset_after,
        like=like, input=input, embedding=embedding, lossy_cast=lossy_cast, readout=readout,
    )  # fmt: skip
    surplus = sorted(options.keys() - TAKES[origin])
    if surplus:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in surplus)
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

    _print(Encoder.load(file), as_json)


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

    if origin is Origin.keras:
        return weights.from_keras(source, **options)
    if origin is Origin.onnx:
        return weights.from_onnx(source, **options)
    prefixes = options.pop("prefix", [])
    if len(prefixes) > 1:
        raise ConfigError(f"--prefix was given {len(prefixes)} times; --from {origin} takes one.")
    options |= {"prefix": prefixes[0]} if prefixes else {}
    if origin is Origin.torch:
        options |= {"input": read_input(options["input"])} if "input" in options else {}
        options |= {"embeddings": _by_column(options.pop("embedding"))} if "embedding" in options else {}
        return weights.from_torch(source, **options)
    if "like" not in options:
        raise ConfigError(
            f"--from {origin} holds weights alone: give the architecture with --like FILE, an encoder file of any "
            "weights (scanrnn encoder make)."
        )
    into = Encoder.load(options.pop("like"))
    read = weights.from_orbax if origin is Origin.orbax else weights.from_state
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
    if not force and os.path.lexists(out):
        raise ConfigError(f"{out} is there already. Choose another name, or replace it with --force.")


def _write(encoder: Encoder, out: Path, as_json: bool) -> None:
    """Save an encoder and say what was saved, where, and what to do with it."""
    from scanrnn_dist.encoder import in_words

    encoder.save(out)
    if as_json:
        _print(encoder, as_json)
        return
    print(f"Wrote {out}: {in_words(encoder)}.")
    file = shlex.quote(str(out))
    print(f"Details: scanrnn encoder inspect {file}. Use it: scanrnn featurize SRC DST --encoder {file}")


def _print(encoder: Encoder, as_json: bool) -> None:
    from scanrnn_dist.encoder import in_words

    description = {
        "summary": in_words(encoder),
        "architecture": encoder.architecture,
        "in_features": encoder.in_features,
        "out_features": encoder.out_features,
        "parameters": _shapes(encoder),
        "fingerprint": encoder.fingerprint,
    }
    print(json.dumps(description) if as_json else _table(description))


def _shapes(encoder: Encoder) -> dict[str, list[int]]:
    """The shapes of all parameters by name."""
    from flax import nnx

    leaves = nnx.to_flat_state(nnx.state(encoder, nnx.Param))
    shapes = {".".join(map(str, path)): list(leaf[...].shape) for path, leaf in leaves if path[0] == "layers"}
    return shapes | {
        f"input.{name}": list(shape) for name, shape in (encoder.input.tables if encoder.input else {}).items()
    }


def _column_line(column: dict[str, Any]) -> str:
    """What a person reads of a column of an input: `category, size 100000, encode embedding, dimension 32`."""
    values = column.get("values", [])
    long = {"values": f"{len(values):,}, {values[0]!r} to {values[-1]!r}"} if len(values) > MOST_VALUES else {}
    told = [f"{key} {value}" for key, value in (column | long).items() if key not in ("name", "kind")]
    return ", ".join([column["kind"], *told])


def _cells(layers: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The descriptions of all cells, by the names that begin those of their parameters."""
    for number, layer in enumerate(layers):
        if "forward" not in layer:
            yield f"layers.{number}", layer
        else:
            yield from ((f"layers.{number}.{way}", layer[way]) for way in ("forward", "backward"))


def _cell_line(cell: dict[str, Any]) -> str:
    """What a person reads of a cell: `GRUCell, activation_fn tanh, ...`; what is not set is left out."""
    told = [f"{key} {value}" for key, value in cell.items() if key != "cell" and value not in (None, False)]
    return ", ".join([cell["cell"], *told])


def _table(description: dict[str, Any]) -> str:
    """What a person reads of a description."""
    from scanrnn_dist.weights import flat

    summary = description["summary"]
    lines = [summary[:1].upper() + summary[1:]]
    architecture = dict(description["architecture"])
    columns = architecture.pop("input", {"column": []})["column"]
    sections = [
        ("cells:", {name: _cell_line(cell) for name, cell in _cells(architecture.pop("layers"))}),
        ("options:", flat(architecture, (dict, list))),
        ("parameters:", description["parameters"]),
    ]
    if columns:
        sections.insert(
            0, ("input:", {f"{n}. {each['name']}": _column_line(each) for n, each in enumerate(columns, 1)})
        )
    for title, values in sections:
        width = max(map(len, values), default=0)
        lines += [title, indented("\n".join(f"{name:{width}}  {value}" for name, value in values.items()))]
    return "\n".join([*lines, f"fingerprint: {description['fingerprint']}"])
