"""Door 3: the command line, `scanrnn`. Owns the process: devices, flags, signals, exit codes, what is printed.

Nothing heavy is imported before a command needs it, so that `--help` answers at once. Results go to standard output,
progress and errors to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanrnn_dist.cli.encoder import encoder_app, random_encoder
from scanrnn_dist.cli.options import (
    AcceptChanges,
    AllowMixed,
    BlockSteps,
    CacheFolder,
    Column,
    Destination,
    Devices,
    EncoderFile,
    Hidden,
    InitialCarry,
    Json,
    Keep,
    Lanes,
    LockSeconds,
    LossyCast,
    MaxSteps,
    Output,
    ProfileFolder,
    ProfileSeconds,
    Repair,
    Restart,
    Retry,
    Rounds,
    RowsPerPart,
    Seed,
    ShareText,
    Source,
    Steal,
    WindowBlocks,
)
from scanrnn_dist.engine import start_jax
from scanrnn_dist.errors import ConfigError, ScanRNNError, StoppedError, UndoneError, check_is_text, not_text, one_line
from scanrnn_dist.observe import check_fits, in_mib, usable_bytes

if TYPE_CHECKING:
    from scanrnn_dist.api import JobReport
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.engine import WindowShape
    from scanrnn_dist.job import Plan

CTRL_C, UNREAD = 130, 1
STOPPED = "Stopped. What was committed is whole; the same command goes on from there."
TOO_WIDE = ("Windows of this shape", "Choose fewer --lanes, --block-steps, --window-blocks or --devices.")
DEFAULT_HIDDEN = 64
"""Where a command can do without being told: demo and plan."""
EXIT_CODES = "Exit codes: 0 done; 1 a defect of ours; 2 wrong usage; 3 bad data; 4 stopped early."

app = typer.Typer(
    name="scanrnn",
    help=f"One feature vector per sequence, from Parquet to Parquet, on all devices. {EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(encoder_app, name="encoder")


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
    devices: Devices = None,
    compilation_cache: CacheFolder = None,
) -> None:
    """Make sensor data, featurize it on all cores, check it against the specification, say what to try next."""
    _use_cache(compilation_cache)
    _start_jax(devices)
    import pyarrow.parquet as pq

    from scanrnn_dist.api import verify as verify_output
    from scanrnn_dist.cli.demo import CLASSES, SENSORS, make_source, nearest_mean_accuracy
    from scanrnn_dist.job import plan_job

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; choose another with --folder, or remove it.")
    source, destination = folder / "recordings", folder / "features"
    print(f"1. {rows:,} recordings of {len(CLASSES)} kinds of machine, {SENSORS} sensors each, in {source}")
    make_source(source, rows, seed)
    print(f"2. featurize: a GRU of {hidden} hidden features, random weights of seed {seed}")
    planned = plan_job(source)
    print(_indented(_featurize(planned, _encoder(planned, None, hidden, seed), str(destination), {})))
    print("3. verify: a sample of rows, each scanned alone as the specification says")
    print(_indented(verify_output(destination)))
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
def plan(
    source: Source,
    column: Column = None,
    keep: Keep = None,
    encoder: EncoderFile = None,
    hidden: Hidden = None,
    rows_per_part: RowsPerPart = None,
    devices: Devices = None,
    lanes: Lanes = None,
    block_steps: BlockSteps = None,
    window_blocks: WindowBlocks = None,
) -> None:
    """Show what featurize would do: files, rows, steps, parts, shapes, memory. Writes nothing."""
    _check_one_encoder(encoder, hidden)
    _start_jax(devices)
    from scanrnn_dist.job import plan_job

    planned = plan_job(_one_or_many(source), **_given(column=column, keep=_names(keep), rows_per_part=rows_per_part))
    sizes = _given(lanes=lanes, block_steps=block_steps, window_blocks=window_blocks)
    _print_result(_described(planned, _encoder(planned, encoder, hidden, 0), sizes))


@app.command()
def featurize(
    source: Source,
    destination: Destination,
    column: Column = None,
    keep: Keep = None,
    encoder: EncoderFile = None,
    hidden: Hidden = None,
    seed: Seed = None,
    max_steps: MaxSteps = None,
    initial_carry: InitialCarry = None,
    rows_per_part: RowsPerPart = None,
    lossy_cast: LossyCast = False,
    devices: Devices = None,
    lanes: Lanes = None,
    block_steps: BlockSteps = None,
    window_blocks: WindowBlocks = None,
    shard: ShareText = None,
    steal: Steal = False,
    allow_mixed: AllowMixed = False,
    restart: Restart = False,
    accept_changes: AcceptChanges = False,
    retry: Retry = False,
    lock_seconds: LockSeconds = None,
    profile: ProfileFolder = None,
    profile_seconds: ProfileSeconds = None,
    compilation_cache: CacheFolder = None,
    as_json: Json = False,
) -> None:
    """Compute features of every row of SRC, and write them to DST, a Parquet data set in the same order.

    Give either --hidden (and --seed) for a GRU with random weights, or --encoder. If the command was stopped, run the
    same one again: it continues.
    """
    if (encoder is None) == (hidden is None):
        raise ConfigError("Give either --hidden (and --seed) for random weights, or --encoder FILE; one of them.")
    if encoder is not None and seed is not None:
        raise ConfigError("--seed is for random weights; those of --encoder are in the file. Leave one out.")
    if profile is None and profile_seconds is not None:
        raise ConfigError("--profile-seconds is for --profile DIR, which was not given.")
    if profile is not None and profile.resolve().is_relative_to(Path(destination).resolve()):
        raise ConfigError(f"The trace's folder {profile} lies within the destination {destination}; choose another.")
    _use_cache(compilation_cache)
    _start_jax(devices)
    from scanrnn_dist.engine import profile as profiled
    from scanrnn_dist.job import Sharing, plan_for

    chosen_share = _share(shard)
    columns = _given(column=column, keep=_names(keep), rows_per_part=rows_per_part)
    if restart and accept_changes:
        raise ConfigError("--restart begins anew, and --accept-changes keeps what is done: leave one of them out.")
    planned = plan_for(destination, _one_or_many(source), restart=restart, accept_changes=accept_changes, **columns)
    chosen = _encoder(planned, encoder, hidden, seed or 0)
    sizes = _given(lanes=lanes, block_steps=block_steps, window_blocks=window_blocks)
    with nullcontext() if profile is None else profiled(profile, **_given(seconds=profile_seconds)):
        sharing = Sharing(
            **_given(share=chosen_share, expiry_seconds=lock_seconds), steal=steal, retry=retry, owns_process=True
        )
        options = _given(max_steps=max_steps, initial_carry=initial_carry, lossy_cast=lossy_cast, sharing=sharing)
        flags = {"allow_mixed": allow_mixed, "restart": restart, "accept_changes": accept_changes}
        report = _featurize(planned, chosen, destination, sizes, **options, **flags)
    if profile is not None:
        _to_stderr(f"The trace is in {profile}: TensorBoard opens the folder, https://ui.perfetto.dev *.trace.json.gz.")
    _print_result(dataclasses.asdict(report) if as_json else report)


@app.command()
def bench(
    source: Source,
    tune: Annotated[
        bool, typer.Option("--tune", help="Look for the fastest lanes, block steps, window blocks.")
    ] = False,
    column: Column = None,
    encoder: EncoderFile = None,
    hidden: Hidden = None,
    devices: Devices = None,
    lanes: Lanes = None,
    block_steps: BlockSteps = None,
    window_blocks: WindowBlocks = None,
    rounds: Rounds = None,
    compilation_cache: CacheFolder = None,
    as_json: Json = False,
) -> None:
    """Measure the engine on a sample of SRC, in memory; with --tune, say which flags make it fastest here.

    It starts from the shape that is given, or from the default of the devices.
    """
    _check_one_encoder(encoder, hidden)
    _use_cache(compilation_cache)
    _start_jax(devices)
    from scanrnn_dist.api import read_sample
    from scanrnn_dist.api import tune as tune_shape
    from scanrnn_dist.job import plan_job

    planned = plan_job(_one_or_many(source), **_given(column=column, keep=[]))
    chosen = _encoder(planned, encoder, hidden, 0)
    shape = _window_shape(chosen, _given(lanes=lanes, block_steps=block_steps, window_blocks=window_blocks))
    check_fits(_window_bytes(chosen, shape), *TOO_WIDE)
    vary: dict[str, tuple[int, ...]] | None = None if tune else {}
    tuning = tune_shape(
        chosen, read_sample(planned, chosen), start=shape, say=_to_stderr, candidates=vary, **_given(rounds=rounds)
    )
    _print_result(dataclasses.asdict(tuning) if as_json else tuning)


@app.command()
def verify(
    destination: Output,
    sample: Annotated[
        int, typer.Option(help="How many rows to recompute from the source; 0 compares hashes alone.", min=0)
    ] = 32,
    seed: Annotated[int, typer.Option(help="Seed that chooses these rows.", min=0)] = 0,
    repair: Repair = False,
    compilation_cache: CacheFolder = None,
    as_json: Json = False,
) -> None:
    """Check DST: hashes of all parts, kept columns against the source, and a sample of rows recomputed.

    If the job is unfinished, the parts that are committed are checked.
    """
    if repair:
        _start_jax(None)  # as featurize does
    else:
        start_jax()
    _use_cache(compilation_cache)
    from scanrnn_dist.api import verify as verify_output

    with _SIGNALS.raising() if repair else nullcontext():
        result = verify_output(destination, sample=sample, seed=seed, repair=repair)
    _print_result(dataclasses.asdict(result) if as_json else result)


@app.command()
def status(destination: Output, as_json: Json = False) -> None:
    """Show how far the job in DST is: units, rows, rate, workers, estimated end. Changes nothing."""
    from scanrnn_dist.job import read_status

    found = read_status(destination)
    _print_result(found.to_json() if as_json else found)


@app.command()
def clean(
    destination: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what crashed attempts left in DST, nothing else."""
    from scanrnn_dist.job import clean as clean_output

    result = clean_output(destination, dry_run=dry_run)
    _print_result(dataclasses.asdict(result) if as_json else result)


def main() -> None:
    """Run the command line and end the process with the exit code that fits."""
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):  # None where it was closed before the start
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            pass  # whoever read it has gone, as `head` does
        except OSError:
            code = code or StoppedError.exit_code  # `_print_result` has told
    # Without Python's own end: what was interrupted may be anywhere, and waiting for its threads serves nobody. Also, a
    # thread of pyarrow that lets go of Python's bytes then ends the process by SIGABRT: 3 of 40 `verify`, under load.
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line; errors are printed, and the exit code is returned."""
    has_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (signal.SIGTERM, signal.SIGINT, *([] if has_nohup else [signal.SIGHUP])):
        signal.signal(number, _SIGNALS.handle)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("scanrnn_dist").setLevel(logging.INFO)
    try:
        for argument in arguments:
            check_is_text(argument)
        app(arguments, prog_name="scanrnn")
    except ScanRNNError as error:
        return _told(error)
    except OSError as error:  # what nobody closer to it has put into words: the machine's affair, not a defect
        name = f" ({error.filename})" if error.filename else ""
        return _told(StoppedError(f"{error.strerror or error}{name}. {STOPPED}"))
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        return _told(not_text(error.object))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):  # JAX's
            raise
        what = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = "Choose fewer --lanes, --window-blocks or --hidden, or find more memory."
        print(f"Out of memory: {what}. {remedy} {STOPPED}", file=sys.stderr)
        return StoppedError.exit_code
    except SystemExit as end:  # how typer ends: 0, 1 if nobody reads stdout, 2 for wrong usage, 130 for Ctrl-C
        if end.code == UNREAD:
            return 0
        if end.code != CTRL_C:
            return end.code if isinstance(end.code, int) else 0
        print(STOPPED, file=sys.stderr)
        return StoppedError.exit_code
    return 0


def _told(error: ScanRNNError) -> int:
    """Print an error, as one line unless it names many places; its exit code."""
    message = str(error) if isinstance(error, UndoneError) else one_line(str(error))
    print(f"{type(error).__name__}: {message}", file=sys.stderr)
    return error.exit_code


class _Signals:
    """SIGTERM, SIGINT, SIGHUP. While a job runs they raise, and it ends in order; else, and the second time, they exit.

    What a handler raises can be lost: Python drops it inside a callback of the garbage collector, and JAX has one. So
    it is remembered, and `check` raises it again.
    """

    def __init__(self) -> None:
        self.job_runs = False
        self._stopped: StoppedError | None = None

    def handle(self, number: int, frame: Any) -> None:
        """Raise, or end the process."""
        if self._stopped is not None or not self.job_runs:
            os.write(2, f"{STOPPED}\n".encode())
            os._exit(StoppedError.exit_code)
        os.write(2, f"{signal.Signals(number).name}: stopping...\n".encode())
        self._stopped = StoppedError(f"{signal.Signals(number).name}. {STOPPED}")
        raise self._stopped

    def check(self) -> None:
        """Raise once more what was raised and lost."""
        if self._stopped is not None:
            raise self._stopped

    @contextmanager
    def raising(self) -> Iterator[None]:
        """In here a job runs."""
        before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self.job_runs, self._stopped = True, None
        try:
            yield
            self.check()
        finally:
            self.job_runs, sys.unraisablehook = False, before

    def _unraisable(self, lost: Any) -> None:
        if not isinstance(lost.exc_value, StoppedError):
            sys.__unraisablehook__(lost)


_SIGNALS = _Signals()


def _start_jax(devices: int | None) -> None:
    """Fix what can only be fixed before the first use of JAX and pyarrow; never over the user's own."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags or "JAX_NUM_CPU_DEVICES" in os.environ:
        if devices is not None:
            raise ConfigError("--devices and XLA_FLAGS or JAX_NUM_CPU_DEVICES both set the CPU devices; leave one out.")
        start_jax()
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    start_jax(devices or cores)


def _use_cache(folder: Path | None) -> None:
    """Keep compiled programs in a folder, if one is given; before the first use of JAX."""
    if folder is not None:
        from scanrnn_dist.engine import use_compilation_cache

        use_compilation_cache(folder)


def _check_one_encoder(encoder: Path | None, hidden: int | None) -> None:
    if encoder is not None and hidden is not None:
        raise ConfigError("Give either --hidden or --encoder FILE; not both.")


def _print_result(result: Any) -> None:
    """A result for people, or a dictionary as JSON."""
    try:
        print(json.dumps(result) if isinstance(result, dict) else result, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoppedError(
            f"The result could not be printed: {error.strerror}. What was committed is whole."
        ) from error


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the defaults of the functions behind stand in one place."""
    return {name: value for name, value in options.items() if value is not None}


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [name for name in given.split(",") if name]


def _one_or_many(source: list[str]) -> str | list[str]:
    return source[0] if len(source) == 1 else source


def _encoder(planned: Plan, file: Path | None, hidden: int | None, seed: int) -> Encoder:
    """The encoder of a file, or one of random weights for the features that the source has."""
    if file is not None:
        from scanrnn_dist.encoder import Encoder

        return Encoder.load(file)
    return random_encoder(seed, planned.in_features(), hidden or DEFAULT_HIDDEN)


def _window_shape(encoder: Encoder, sizes: dict[str, int]) -> WindowShape:
    """What suits the devices, but for the `sizes` that were given."""
    from scanrnn_dist.engine import default_mesh, window_shape_for

    return dataclasses.replace(window_shape_for(encoder, default_mesh()), **sizes)


def _share(shard: str | None) -> tuple[int, int] | None:
    """The share that --shard means, said where it was not told but seen."""
    if shard is None:
        return None
    from scanrnn_dist.launch import share_of

    share, seen = share_of(shard)
    if shard.startswith("auto"):
        _to_stderr(f"--shard {shard} is {share[0]}/{share[1]}: {seen}.")
    return share


def _featurize(planned: Plan, encoder: Encoder, destination: str, sizes: dict[str, int], **options: Any) -> JobReport:
    """Featurize with a progress display."""
    from scanrnn_dist.api import featurize as featurize_plan
    from scanrnn_dist.observe import rows_progress

    shape = _window_shape(encoder, sizes)
    check_fits(_window_bytes(encoder, shape), *TOO_WIDE)
    with _SIGNALS.raising(), rows_progress("featurize", planned.source.rows) as progress:

        def advance(rows: int) -> None:
            _SIGNALS.check()
            progress.advance(rows)

        options |= {"on_start": progress.start, "on_rows": advance}
        return featurize_plan(encoder, planned, destination, window_shape=shape, **options)


def _window_bytes(encoder: Encoder, shape: WindowShape) -> int:
    """What the windows in flight take of this machine's memory: what goes in, and on CPU what is emitted."""
    import jax

    from scanrnn_dist.engine import WINDOWS_IN_FLIGHT

    blocks = jax.local_device_count() * shape.lanes * shape.window_blocks
    emitted = encoder.out_features * (shape.block_steps if encoder.gives_steps else 1)
    is_here = jax.default_backend() == "cpu"  # a GPU or TPU emits to its own memory
    numbers = blocks * (shape.block_steps * encoder.in_features + emitted * is_here)
    programs = len(encoder.cells) if encoder.is_bidirectional else 1
    return WINDOWS_IN_FLIGHT * 4 * numbers * programs


def _described(planned: Plan, encoder: Encoder, sizes: dict[str, int]) -> str:
    """What `plan` prints."""
    import jax

    from scanrnn_dist.api import PREFETCH_BYTES
    from scanrnn_dist.engine import LOOK_AHEAD_BYTES
    from scanrnn_dist.job import OPEN_BYTES, WAITING_BYTES

    shape = _window_shape(encoder, sizes)
    rows, in_features, out_features = planned.source.rows, encoder.in_features, encoder.out_features
    window_bytes, usable = _window_bytes(encoder, shape), usable_bytes()
    memory = window_bytes + PREFETCH_BYTES + 2 * LOOK_AHEAD_BYTES + OPEN_BYTES + WAITING_BYTES
    fits = usable is None or window_bytes <= usable
    excess = "" if fits else f"; this process may use {in_mib(usable or 0)}, so featurize would refuse. {TOO_WIDE[1]}"
    steps = planned.mean_steps(in_features) * rows
    vector = f"fixed_size_list<float32>[{out_features}]"
    lines = {
        "source": f"{len(planned.source.files):,} files, {rows:,} rows, about {steps:,.0f} steps",
        "sequences": f"column {planned.column!r}, {in_features} features per step",
        "kept columns": ", ".join(planned.keep) or "none",
        "output": f"{len(planned.units):,} parts, features: {f'list<{vector}>' if encoder.gives_steps else vector}",
        "work": f"about {encoder.flops_per_step * steps / 1e9:,.1f} GFLOP",
        "devices": f"{jax.local_device_count()} x {jax.devices()[0].device_kind}",
        "window": f"{shape.lanes} lanes a device, {shape.window_steps} steps in blocks of {shape.block_steps}",
        "memory": f"about {in_mib(memory)} besides the program itself and one row group's pages{excess}",
    }
    return "\n".join(f"{name + ':':14}{text}" for name, text in lines.items())


def _as_called(name: str, path: str) -> str:
    """How the reader can call a program: by its name if that finds this very one, else by its path."""
    found = shutil.which(name)
    is_it = found is not None and os.path.exists(path) and os.path.samefile(found, path)
    return name if is_it else os.path.relpath(path)


def _indented(value: Any) -> str:
    return "\n".join(f"   {line}" for line in str(value).splitlines())


if __name__ == "__main__":
    main()
