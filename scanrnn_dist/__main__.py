"""Where `scanrnn` and `python -m scanrnn_dist` begin: signals are heeded before anything large is imported."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from scanrnn_dist.allocator import allocator_of_jobs
from scanrnn_dist.errors import ConfigError, StoppedError, check_platform


def main() -> None:
    """Run the command line; it puts its own handlers in place of this one."""
    if sys.stderr is None:
        _open_stderr()
    try:
        check_platform()
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    has_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (signal.SIGTERM, signal.SIGINT, *([] if has_nohup else [signal.SIGHUP])):
        signal.signal(number, _stop)
    # Imports make 300,000 objects that stay: to look for garbage among them took 0.19 of the 1.21 s of a short job.
    # Once JAX is there, `cli/process.py` has the garbage collector work as usual.
    gc.set_threshold(500_000)
    os.environ.update(allocator_of_jobs())  # before pyarrow is imported
    from scanrnn_dist.cli import main as run_command_line

    run_command_line()


def _open_stderr() -> None:
    """Have standard error that is closed lead nowhere; else the next file that is opened gets its number and lines."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.set_inheritable(2, True)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _stop(number: int, frame: Any) -> None:
    """End the process as the command line would, which is not there yet."""
    with suppress(OSError):  # nobody reads it any more
        os.write(2, b"Stopped before anything was begun.\n")
    os._exit(StoppedError.exit_code)


if __name__ == "__main__":
    main()
