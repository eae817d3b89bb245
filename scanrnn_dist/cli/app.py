"""Door 3: the command line, `scanrnn`. Each command reads its flags, asks a door, and prints the result.

Nothing heavy is imported before a command needs it, so that `--help` answers at once; JAX is started when something is
to be computed. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as package_version
from typing import Annotated

import typer

from scanrnn_dist.cli.bench import bench
from scanrnn_dist.cli.command import Group, use_commands
from scanrnn_dist.cli.encoder import encoder_app
from scanrnn_dist.cli.featurize import featurize, update
from scanrnn_dist.cli.first_steps import demo
from scanrnn_dist.cli.inspect import inspect_source
from scanrnn_dist.cli.outputs import clean, export, status, verify
from scanrnn_dist.cli.plan import plan
from scanrnn_dist.cli.printing import show_log
from scanrnn_dist.cli.process import end_process, run_app
from scanrnn_dist.cli.report import report
from scanrnn_dist.cli.resume import resume
from scanrnn_dist.errors import ConfigError

EXIT_CODES = "Exit codes: 0 done; 1 a defect of ours; 2 wrong usage; 3 bad data; 4 stopped early."

app = typer.Typer(
    name="scanrnn",
    cls=Group,
    help=f"One feature vector per sequence, from Parquet to Parquet, on all devices.\n\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("inspect")(inspect_source)
for command in (demo, plan, featurize, resume, update, bench, verify, status, report, export, clean):
    app.command()(command)
app.add_typer(encoder_app, name="encoder", cls=Group)
use_commands(app, encoder_app)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print versions.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also print what is decided on the way.")] = False,
    log_format: Annotated[
        str,
        typer.Option(help="Print progress and messages as text, or as one JSON object a line.", metavar="text|json"),
    ] = "text",
) -> None:
    if log_format not in ("text", "json"):
        raise ConfigError(f"--log-format is {log_format!r}; expected text or json.")
    show_log(quiet, verbose, log_format == "json")
    if version:
        packages = ("scanrnn_dist", "jax", "flax", "numpy", "pyarrow")
        print(", ".join(f"{package} {package_version(package)}" for package in packages))
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise ConfigError("No command was given; see scanrnn --help.")


def main() -> None:
    """Run the command line and end the process with the exit code that fits."""
    end_process(run(sys.argv[1:], owns_process=True))


def run(arguments: list[str], owns_process: bool = False) -> int:
    """Run the command line; errors are printed, and the exit code is returned."""
    return run_app(app, arguments, owns_process)
