"""The process of a command: its devices, its signals, its exit codes, and how it ends."""

from __future__ import annotations

import gc
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from scanrnn_dist.cli.command import call
from scanrnn_dist.cli.printing import error_line, log_to_stderr, not_printed, print_error
from scanrnn_dist.disk import is_within
from scanrnn_dist.errors import ConfigError, ScanRNNError, StoppedError, check_is_text, not_text, stopped_by_machine
from scanrnn_dist.observe import (
    SHOWN,
    as_shown,
    available_cores,
    check_cpus_compute,
    cpu_devices_are_chosen,
    print_line,
)

CTRL_C, UNREAD = 130, 1
SHOW_CURSOR = "\x1b[?25h"
NOTHING = "Nothing was written."


_OWNED: list[bool] = []
"""Not empty in a process that is there for one command alone, so that nobody else minds what becomes of it."""


def run_app(app: typer.Typer, arguments: list[str], owns_process: bool = False) -> int:
    """Run the command line; errors are printed, and the exit code is returned."""
    if owns_process:
        _OWNED.append(True)
        if isinstance(sys.stdout, io.TextIOWrapper):  # letters that the terminal lacks, as stderr shows them
            sys.stdout.reconfigure(errors="backslashreplace")
    has_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (signal.SIGTERM, signal.SIGINT, *([] if has_nohup else [signal.SIGHUP])):
        signal.signal(number, SIGNALS.handle)
    log_to_stderr()
    SIGNALS.rest, SIGNALS.had_job, SHOWN.errors_as_json = NOTHING, False, "--json" in arguments
    try:
        return _called(app, arguments)
    except ScanRNNError as error:
        return print_error(error)
    except SystemExit as end:  # how typer ends: 0, 1 if nobody reads stdout, 2 for wrong usage, 130 for Ctrl-C
        if end.code == UNREAD and not SIGNALS.had_job:
            return 0
        if end.code not in (CTRL_C, UNREAD):
            return end.code if isinstance(end.code, int) else 0
        print_line(_stopped())
        return StoppedError.exit_code
    except Exception as error:
        if not owns_process:
            raise
        from scanrnn_dist.cli.defects import tell_defect

        commands: Any = typer.main.get_command(app)
        command = next((word for word in arguments if word in commands.commands), "")
        return tell_defect(error, command, SIGNALS.rest)


def _called(app: typer.Typer, arguments: list[str]) -> int:
    """Run the command line; what the machine refuses, or where a name is no text, is put into words."""
    try:
        for argument in arguments:
            check_is_text(argument)
        raise SystemExit(call(app, arguments))
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        raise not_text(error.object) from error
    except (OSError, MemoryError, RuntimeError) as error:  # the machine's affair, or a defect
        stopped = stopped_by_machine(error, SIGNALS.rest)
        if stopped is None:
            raise
        raise stopped from error


def end_process(code: int) -> None:
    """End this process with an exit code, once all that was printed has gone out."""
    for stream in (sys.stdout, sys.stderr):  # None where it was closed before the start
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            pass  # whoever read it has gone, as `head` does
        except OSError as error:
            if stream is sys.stdout and not code:
                print_error(not_printed(error))
                code = StoppedError.exit_code
    # Without Python's own end: what was interrupted may be anywhere, and waiting for its threads serves nobody. Also, a
    # thread of pyarrow that lets go of Python's bytes then ends the process by SIGABRT: 3 of 40 `verify`, under load.
    os._exit(code)


def _stopped() -> str:
    """The line that tells of a command that ends at once."""
    return error_line(StoppedError(f"Stopped. {SIGNALS.rest}"))


def _write_to_stderr(line: str, stderr: int = 2) -> None:
    """Write at once, even from a handler of signals; it may be that nobody reads it any more."""
    of_terminal = "\n" if os.isatty(stderr) else ""  # where "^C" or a bar stands on a line without an end
    of_bar = SHOW_CURSOR if SHOWN.has_bar else ""
    with suppress(OSError):
        os.write(stderr, f"{of_terminal}{of_bar}{line}\n".encode())


def _stderr_alone() -> int:
    """Standard error by another number; what others write to it from now on, such as a bar, goes nowhere."""
    try:
        alone = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    except OSError:  # it is closed
        return 2
    return alone


class Signals:
    """SIGTERM, SIGINT, SIGHUP. While a job runs they raise, and it ends in order; else, and the second time, they exit.

    What a handler raises can be lost: Python drops it inside a callback of the garbage collector, and JAX has one. So
    it is remembered, and `check` raises it again.
    """

    def __init__(self) -> None:
        self.job_runs = False
        self.had_job = False
        """Whether one ran in this command."""
        self.stopped_by = ""
        self.rest = NOTHING
        """What is said after "Stopped."; commands that write more than one file at their end say it as they begin."""
        self._stopped: StoppedError | None = None

    def handle(self, number: int, frame: Any) -> None:
        """Raise, or end the process."""
        if self._stopped is not None or not self.job_runs:
            _write_to_stderr(_stopped(), _stderr_alone())
            os._exit(StoppedError.exit_code)
        self.stopped_by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self._stopped = StoppedError(f"Stopped by {self.stopped_by}. {self.rest}")
        _write_to_stderr(as_shown(f"{self.stopped_by}: stopping...", logging.WARNING))
        raise self._stopped

    def check(self) -> None:
        """Raise once more what was raised and lost."""
        if self._stopped is not None:
            raise self._stopped

    @contextmanager
    def raising(self) -> Iterator[None]:
        """In here a job runs."""
        before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self.job_runs, self.had_job, self._stopped, self.stopped_by = True, True, None, ""
        try:
            yield
            self.check()
        except Exception:  # maybe what became of ours in a library, as DuckDB's "Query interrupted"
            self.check()
            raise
        finally:
            self.job_runs, sys.unraisablehook = False, before

    def _unraisable(self, lost: Any) -> None:
        if not isinstance(lost.exc_value, StoppedError):
            sys.__unraisablehook__(lost)


SIGNALS = Signals()


def start_devices(devices: int | None) -> None:
    """Fix what can only be fixed before the first use of JAX; never over the user's own."""
    start_jax(None if cpu_devices_are_chosen(devices) else devices or available_cores())
    if devices is not None:
        import jax

        check_cpus_compute(devices, jax.default_backend())


def start_jax(cpu_devices: int | None = None) -> None:
    """Import JAX and have it find its devices; of the CPU so many, or as many as JAX takes.

    Raises:
        ConfigError: JAX does not start: there is no such platform, or a variable of its own says what it cannot read.
    """
    wait_for_imports()
    try:
        import jax

        if cpu_devices is not None:
            jax.config.update("jax_num_cpu_devices", cpu_devices)
        jax.local_devices()
        gc.freeze()  # what is imported stays: no collection looks at it again
        gc.set_threshold(USUAL_OBJECTS)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # the last: a plugin is missing
        platforms = os.environ.get("JAX_PLATFORMS")
        said = " ".join(str(error).split()).rstrip(". ") or "it finds no device"
        if not platforms:
            raise ConfigError(f"JAX does not start: {said}. Correct the variables that it reads.") from error
        raise ConfigError(
            f"JAX does not start with JAX_PLATFORMS={platforms}: {said}. Unset it to use the devices there are, or "
            "install what JAX needs for that platform (for NVIDIA GPUs: pip install -e '.[cuda]')."
        ) from error


USUAL_OBJECTS = 700
"""Made and not freed, after so many Python looks for garbage; see `__main__.py`."""
_AHEAD: list[threading.Thread] = []
"""The thread that imports JAX, if there is one."""


def import_ahead() -> None:
    """Import JAX and flax in a thread of its own: the plan mostly waits for the process that looks at footers.

    What fails here fails again where the import is needed, and is told there. Nobody else may import them meanwhile
    (`wait_for_imports`): two threads in one package can meet it half made.
    """

    def work() -> None:
        with suppress(Exception):
            import flax.nnx  # noqa: F401
            import jax  # noqa: F401

    _AHEAD.append(threading.Thread(target=work, name="import ahead", daemon=True))
    _AHEAD[-1].start()


def wait_for_imports() -> None:
    """Come before whatever imports JAX."""
    while _AHEAD:
        _AHEAD.pop().join()


def leave_pandas_out() -> None:
    """Have pyarrow do without pandas in a process of the command line's own: importing it takes 0.2 s.

    pyarrow imports it with the first array that is made, to know a pandas object when it sees one, which no command
    meets; and to make Python objects of times in nanoseconds, which `source/layouts/values.py` makes by itself.
    """
    import pyarrow as pa

    if _OWNED and "pandas" not in sys.modules:
        finder: Any = _NoPandas()
        sys.meta_path.insert(0, finder)
        try:
            pa.array([0])  # tries to import it, in Python and in C++, and never again
        finally:
            sys.meta_path.remove(finder)


class _NoPandas:
    """Among the finders of modules, one that says that there is no pandas."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """As finders have it: None where another one is to look."""
        if name == "pandas":
            raise ImportError("pandas is left out.")


def check_outside(flag: str, folder: Path | None, destination: str | None) -> None:
    """Refuse a folder within a destination: its files would not be the job's."""
    if folder is None or destination is None:
        return
    from scanrnn_dist.storage import resolve

    _, uri, within = resolve(destination)
    if uri is None and is_within(folder, within):
        raise ConfigError(f"The folder {folder} of {flag} lies within the destination {destination}; choose another.")


def use_cache(folder: Path | None) -> None:
    """Keep compiled programs in a folder, if one is given; before the first use of JAX."""
    wait_for_imports()
    if folder is not None:
        from scanrnn_dist.engine import use_compilation_cache

        use_compilation_cache(folder)
