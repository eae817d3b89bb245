"""Door 3: the command line, `scanrnn`. Each command reads its flags, asks a door, and prints the result.

Nothing heavy is imported before a command needs it, so that `--help` answers at once; JAX is started when something is
to be computed. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.command import Group, use_commands
from scanrnn_dist.cli.computation import DEFAULT_HIDDEN, AskedComputation
from scanrnn_dist.cli.encoder import encoder_app
from scanrnn_dist.cli.executor import executor_of
from scanrnn_dist.cli.inspect import inspect_source
from scanrnn_dist.cli.options import bytes_told, given, one_or_many, read_input, takes_job_options
from scanrnn_dist.cli.printing import indented, print_result, to_stderr
from scanrnn_dist.cli.process import (
    SIGNALS,
    end_process,
    import_ahead,
    leave_pandas_out,
    run_app,
    start_devices,
    start_jax,
    use_cache,
)
from scanrnn_dist.errors import ConfigError

if TYPE_CHECKING:
    from scanrnn_dist.job import Executor, Handling, JobOptions, JobReport

EXIT_CODES = "Exit codes: 0 done; 1 a defect of ours; 2 wrong usage; 3 bad data; 4 stopped early."

app = typer.Typer(
    name="scanrnn",
    help=f"One feature vector per sequence, from Parquet to Parquet, on all devices. {EXIT_CODES}",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(encoder_app, name="encoder")
app.command("inspect")(inspect_source)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print versions.")] = False
) -> None:
    if version:
        packages = ("scanrnn_dist", "jax", "flax", "numpy", "pyarrow")
        print(", ".join(f"{package} {package_version(package)}" for package in packages))
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise ConfigError("No command was given; see scanrnn --help.")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where to put everything; new or empty.")] = Path("scanrnn-demo"),
    rows: Annotated[int, typer.Option(help="Recordings to make.", min=12)] = 3000,
    hidden: Annotated[int, typer.Option(help="Hidden features.", min=1)] = DEFAULT_HIDDEN,
    seed: Annotated[int, typer.Option(help="Of the data and of the weights.", min=0)] = 0,
    devices: flags.Devices = None,
    compilation_cache: flags.CacheFolder = None,
) -> None:
    """Make sensor data, featurize it on all cores, check it against the specification, say what to try next."""
    use_cache(compilation_cache)
    start_devices(devices)
    import pyarrow.parquet as pq

    from scanrnn_dist.api import verify as verify_output
    from scanrnn_dist.cli.demo import CLASSES, SENSORS, make_source, nearest_mean_accuracy
    from scanrnn_dist.job import Handling, JobOptions

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; choose another with --folder, or remove it.")
    source, destination = folder / "recordings", folder / "features"
    print(f"1. {rows:,} recordings of {len(CLASSES)} kinds of machine, {SENSORS} sensors each, in {source}")
    make_source(source, rows, seed)
    print(f"2. featurize: a GRU of {hidden} hidden features, random weights of seed {seed}")
    computation = AskedComputation(None, hidden, seed, {}, devices, check_fits=True)
    print(indented(_run_job(str(destination), str(source), JobOptions(), Handling(), computation)))
    print("3. verify: a sample of rows, each scanned alone as the specification says")
    print(indented(verify_output(destination)))
    table = pq.read_table(destination)
    features = table["features"].combine_chunks().flatten().to_numpy().reshape(rows, hidden)
    accuracy = nearest_mean_accuracy(features, table["kind"].to_numpy(zero_copy_only=False))
    print(f"   nearest class mean, on rows it has not seen: {accuracy:.0%} right (by chance {1 / len(CLASSES):.0%})")
    python, scanrnn = _as_called("python", sys.executable), _as_called("scanrnn", sys.argv[0])
    print("\nTry next:")
    print(f"   {python} -c \"import pyarrow.parquet as pq; print(pq.read_table('{destination}'))\"")
    print(f"   {scanrnn} plan {source}")
    print(f"   {scanrnn} featurize YOUR.parquet OUT --hidden {hidden} --seed {seed}")


@app.command()
@takes_job_options()
def plan(
    source: flags.Source,
    options: Any,
    encoder: flags.EncoderFile = None,
    hidden: flags.Hidden = None,
    input: flags.InputFile = None,
    devices: flags.Devices = None,
    kernel: flags.Kernel = None,
    lanes: flags.Lanes = None,
    block_steps: flags.BlockSteps = None,
    window_blocks: flags.WindowBlocks = None,
    memory: flags.Memory = None,
) -> None:
    """Show what featurize would do: files, rows, steps, parts, shapes, memory. Writes nothing."""
    sizes = given(lanes=lanes, block_steps=block_steps, window_blocks=window_blocks)
    computation = AskedComputation(
        encoder, hidden, None, sizes, devices, kernel=kernel, input=read_input(input), may_choose=True
    )
    start_devices(devices)
    from scanrnn_dist.api import explain
    from scanrnn_dist.job import Memory, plan_job

    told = Memory(bytes_told(memory))
    planned = plan_job(one_or_many(source), options, computation.input).within(told)
    on_devices = computation.on_devices(planned.in_features)
    print_result(explain(planned, on_devices, options.filter, told))


@app.command()
@takes_job_options()
def featurize(
    source: flags.Source,
    destination: flags.Destination,
    options: Any,
    encoder: flags.EncoderFile = None,
    hidden: flags.Hidden = None,
    seed: flags.Seed = None,
    input: flags.InputFile = None,
    devices: flags.Devices = None,
    processes: flags.Processes = None,
    engine: flags.Engine = None,
    address: flags.Address = None,
    workers: flags.Workers = None,
    cpus_per_worker: flags.CpusPerWorker = None,
    gpus_per_worker: flags.GpusPerWorker = None,
    kernel: flags.Kernel = None,
    lanes: flags.Lanes = None,
    block_steps: flags.BlockSteps = None,
    window_blocks: flags.WindowBlocks = None,
    shard: flags.ShareText = None,
    steal: flags.Steal = False,
    allow_mixed: flags.AllowMixed = False,
    restart: flags.Restart = False,
    accept_changes: flags.AcceptChanges = False,
    max_bad_rows: flags.MaxBadRows = None,
    retry: flags.Retry = False,
    memory: flags.Memory = None,
    lock_seconds: flags.LockSeconds = None,
    profile: flags.ProfileFolder = None,
    profile_seconds: flags.ProfileSeconds = None,
    compilation_cache: flags.CacheFolder = None,
    as_json: flags.Json = False,
) -> None:
    """Compute features of every row of SRC, and write them to DST, a Parquet data set in the same order.

    Give either --hidden (and --seed) for a GRU with random weights, or --encoder. If the command was stopped, run the
    same one again: it continues.
    """
    if profile is None and profile_seconds is not None:
        raise ConfigError("--profile-seconds is for --profile DIR, which was not given.")
    if profile is not None and profile.resolve().is_relative_to(Path(destination).resolve()):
        raise ConfigError(f"The trace's folder {profile} lies within the destination {destination}; choose another.")
    sizes = given(lanes=lanes, block_steps=block_steps, window_blocks=window_blocks)
    computation = AskedComputation(
        encoder,
        hidden,
        seed,
        sizes,
        devices,
        compilation_cache,
        kernel=kernel,
        input=read_input(input),
        check_fits=True,
    )
    from scanrnn_dist.job import Handling, Sharing

    told = given(share=_share(shard), expiry_seconds=lock_seconds)
    sharing = Sharing(**told, steal=steal, retry=retry, owns_process=True)
    handling = Handling(
        allow_mixed,
        restart,
        accept_changes,
        sharing=sharing,
        max_bad_rows=max_bad_rows,
        memory_bytes=bytes_told(memory),
    )
    ray = given(address=address, workers=workers, cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker)
    executor = executor_of(engine or "local", processes, devices, ray)
    traced: Any = nullcontext()
    if profile is not None:
        if executor is not None:
            raise ConfigError("--profile traces this process, and other processes compute; leave one of them out.")
        start_devices(devices)
        from scanrnn_dist.engine import profile as profiled

        traced = profiled(profile, **given(seconds=profile_seconds))
    if executor is None:
        if options.group_by is None and computation.input is None:  # else times may be ids or inputs
            leave_pandas_out()
        if not os.path.exists(destination):  # else there may be nothing to compute
            import_ahead()
    with traced:
        report = _run_job(destination, one_or_many(source), options, handling, computation, executor)
    if profile is not None:
        to_stderr(f"The trace is in {profile}: TensorBoard opens the folder, https://ui.perfetto.dev *.trace.json.gz.")
    print_result(report, as_json)


@app.command()
def update(
    destination: flags.Output,
    source: flags.NewSteps,
    ids: flags.Ids = None,
    devices: flags.Devices = None,
    allow_mixed: flags.AllowMixed = False,
    compilation_cache: flags.CacheFolder = None,
    as_json: flags.Json = False,
) -> None:
    """Continue the rows of DST, which was made with --keep-state, by the new steps of NEW.

    Afterwards DST holds the features of all steps so far, one row for each id. If the command was stopped, run the same
    one again.
    """
    use_cache(compilation_cache)
    start_devices(devices)
    from scanrnn_dist.api import update as update_output

    with _progress("update") as (on_start, on_rows):
        report = update_output(
            destination, one_or_many(source), ids=ids, allow_mixed=allow_mixed, on_start=on_start, on_rows=on_rows
        )
    print_result(report, as_json)


@app.command()
@takes_job_options("layout", "column", "features", "in_features", "group_by", "order_by")
def bench(
    source: flags.Source,
    options: Any,
    tune: Annotated[
        bool, typer.Option("--tune", help="Look for the fastest lanes, block steps, window blocks.")
    ] = False,
    encoder: flags.EncoderFile = None,
    hidden: flags.Hidden = None,
    input: flags.InputFile = None,
    devices: flags.Devices = None,
    kernel: flags.Kernel = None,
    lanes: flags.Lanes = None,
    block_steps: flags.BlockSteps = None,
    window_blocks: flags.WindowBlocks = None,
    rounds: flags.Rounds = None,
    memory: flags.Memory = None,
    compilation_cache: flags.CacheFolder = None,
    as_json: flags.Json = False,
) -> None:
    """Measure the engine on a sample of SRC, in memory; with --tune, say which flags make it fastest here.

    It starts from the shape that is given, or from the default of the devices.
    """
    sizes = given(lanes=lanes, block_steps=block_steps, window_blocks=window_blocks)
    computation = AskedComputation(
        encoder, hidden, None, sizes, devices, kernel=kernel, input=read_input(input), may_choose=True, check_fits=True
    )
    use_cache(compilation_cache)
    start_devices(devices)
    from scanrnn_dist.api import read_sample
    from scanrnn_dist.api import tune as tune_shape
    from scanrnn_dist.job import Memory, plan_job

    planned = plan_job(one_or_many(source), replace(options, keep=()), computation.input).within(
        Memory(bytes_told(memory))
    )
    on_devices = computation.on_devices(planned.in_features)
    sample = read_sample(planned, on_devices.encoder)
    told = given(candidates=None if tune else {}, rounds=rounds)
    shown = tune_shape(
        on_devices.encoder, sample, start=on_devices.shape, kernel=on_devices.kernel, say=to_stderr, **told
    )
    print_result(shown, as_json)


@app.command()
def verify(
    destination: flags.Output,
    sample: Annotated[
        int, typer.Option(help="How many rows to recompute from the source; 0 compares hashes alone.", min=0)
    ] = 32,
    seed: Annotated[int, typer.Option(help="Seed that chooses these rows.", min=0)] = 0,
    repair: flags.Repair = False,
    compilation_cache: flags.CacheFolder = None,
    as_json: flags.Json = False,
) -> None:
    """Check DST: hashes of all parts, kept columns against the source, and a sample of rows recomputed.

    If the job is unfinished, the parts that are committed are checked.
    """
    if repair:
        start_devices(None)  # as featurize does
    else:
        start_jax()
    use_cache(compilation_cache)
    from scanrnn_dist.api import verify as verify_output

    with SIGNALS.raising() if repair else nullcontext():
        result = verify_output(destination, sample=sample, seed=seed, repair=repair)
    print_result(result, as_json)


@app.command()
def status(destination: flags.Output, as_json: flags.Json = False) -> None:
    """Show how far the job in DST is: units, rows, rate, workers, estimated end. Changes nothing."""
    leave_pandas_out()
    from scanrnn_dist.job import read_status

    print_result(read_status(destination), as_json)


@app.command()
def export(
    destination: flags.Output,
    file: Annotated[Path, typer.Argument(help="The file to write, which numpy maps into memory.", metavar="FILE.npy")],
    as_json: flags.Json = False,
) -> None:
    """Write all features of DST, a finished output, to one .npy file of a row per input row, in input order."""
    from scanrnn_dist.job import export as export_output

    with SIGNALS.raising():
        result = export_output(destination, file)
    print_result(result, as_json)


@app.command()
def clean(
    destination: flags.Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: flags.Json = False,
) -> None:
    """Remove what crashed attempts left in DST, nothing else."""
    from scanrnn_dist.job import clean as clean_output

    print_result(clean_output(destination, dry_run=dry_run), as_json)


use_commands(app, encoder_app)


def main() -> None:
    """Run the command line and end the process with the exit code that fits."""
    end_process(run(sys.argv[1:], owns_process=True))


def run(arguments: list[str], owns_process: bool = False) -> int:
    """Run the command line; errors are printed, and the exit code is returned."""
    return run_app(app, arguments, owns_process)


def _run_job(
    destination: str,
    source: str | list[str],
    options: JobOptions,
    handling: Handling,
    computation: AskedComputation,
    executor: Executor | None = None,
) -> JobReport:
    """Do a job with a progress display."""
    from scanrnn_dist.job import run_job

    with _progress("featurize") as (on_start, on_rows):
        return run_job(destination, source, options, handling, computation, on_start, on_rows, executor)


@contextmanager
def _progress(what: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[int], None]]]:
    """What a job is to call when it starts and when rows are finished: it draws a bar, and heeds signals."""
    from scanrnn_dist.observe import rows_progress

    with SIGNALS.raising(), rows_progress(what) as progress:

        def advance(rows: int) -> None:
            SIGNALS.check()
            progress.advance(rows)

        yield progress.start, advance


def _share(shard: str | None) -> tuple[int, int] | None:
    """The share that --shard means, said where it was not told but seen."""
    if shard is None:
        return None
    from scanrnn_dist.launch import share_of

    share, seen = share_of(shard)
    if shard.startswith("auto"):
        to_stderr(f"--shard {shard} is {share[0]}/{share[1]}: {seen}.")
    return share


def _as_called(name: str, path: str) -> str:
    """How the reader can call a program: by its name if that finds this very one, else by its path."""
    found = shutil.which(name)
    is_it = found is not None and os.path.exists(path) and os.path.samefile(found, path)
    return name if is_it else os.path.relpath(path)
