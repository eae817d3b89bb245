"""What a command prints: its result to standard output, everything else to standard error."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

from scanrnn_dist.errors import ConfigError, ScanRNNError, StoppedError, UndoneError, one_line, shown
from scanrnn_dist.observe import SHOWN, ToStderr, as_shown, print_line


def check_is_new(file: Path, force: bool) -> None:
    """Refuse, without `force`, a file to write that is there already."""
    if not force and os.path.lexists(file):
        raise ConfigError(f"{file} is there already. Choose another name, or replace it with --force.")


def print_result(result: Any, as_json: bool = False) -> None:
    """A result as people read it, or as JSON."""
    try:
        print(json.dumps(_as_json(result), allow_nan=False) if as_json else shown(str(result)), flush=True)
    except BrokenPipeError:  # whoever read it has gone, as `head` does; what is printed from now on goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise not_printed(error) from error


def not_printed(error: OSError) -> StoppedError:
    """What to say of a result that standard output does not take."""
    return StoppedError(f"The result could not be printed: {error.strerror}. Nothing else failed.")


def print_error(error: ScanRNNError) -> int:
    """Print an error; its exit code."""
    print_line(error_line(error, f"{type(error).__name__}: "))
    return error.exit_code


def error_line(error: ScanRNNError, kind: str = "") -> str:
    """An error as it is printed: as one line unless it names many places, with its kind before it, or as JSON."""
    message = str(error) if isinstance(error, UndoneError) else one_line(str(error))
    if SHOWN.errors_as_json:
        return json.dumps({"error": message, "kind": type(error).__name__, "exit_code": error.exit_code})
    return as_shown(kind + message, logging.ERROR)


def log_to_stderr() -> None:
    """Have what the package logs printed."""
    logger = logging.getLogger("scanrnn_dist")
    if not any(isinstance(handler, ToStderr) for handler in logger.handlers):
        logger.addHandler(ToStderr())
    show_log(quiet=False, verbose=False, as_json=False)


def show_log(quiet: bool, verbose: bool, as_json: bool) -> None:
    """Choose what is printed beside results: warnings and errors, or also what the package decides; text or JSON."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose exclude one another; leave one out.")
    SHOWN.level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    SHOWN.as_json = as_json
    logging.getLogger("scanrnn_dist").setLevel(SHOWN.level)


def indented(value: Any) -> str:
    """The lines of a value, moved to the right."""
    return "\n".join(f"   {line}" for line in str(value).splitlines())


def _as_json(result: Any) -> Any:
    """What JSON can hold of a result: what it says itself, else its fields."""
    return _finite(result.to_json() if hasattr(result, "to_json") else dataclasses.asdict(result))


def _finite(value: Any) -> Any:
    """The value with None for each number that is not finite, which JSON has none for."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
