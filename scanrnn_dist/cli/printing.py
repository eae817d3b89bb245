"""What a command prints: its result to standard output, everything else to standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from scanrnn_dist.errors import ScanRNNError, StoppedError, UndoneError, one_line

SAVED = "What is done is saved; run the same command to continue."
STOPPED = f"Stopped. {SAVED}"


def print_result(result: Any, as_json: bool = False) -> None:
    """A result as people read it, or as JSON."""
    try:
        print(json.dumps(_as_json(result)) if as_json else result, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoppedError(f"The result could not be printed: {error.strerror}. What is done is saved.") from error


def print_error(error: ScanRNNError, as_json: bool = False) -> int:
    """Print an error, as one line unless it names many places, or as JSON; its exit code."""
    message = str(error) if isinstance(error, UndoneError) else one_line(str(error))
    if as_json:
        told = {"error": message, "kind": type(error).__name__, "exit_code": error.exit_code}
        to_stderr(json.dumps(told))
        return error.exit_code
    to_stderr(f"{type(error).__name__}: {message}")
    return error.exit_code


def to_stderr(line: str) -> None:
    """Print a line that is no result."""
    print(line, file=sys.stderr)


def indented(value: Any) -> str:
    """The lines of a value, moved to the right."""
    return "\n".join(f"   {line}" for line in str(value).splitlines())


def _as_json(result: Any) -> Any:
    """What JSON can hold of a result: what it says itself, else its fields."""
    return result.to_json() if hasattr(result, "to_json") else dataclasses.asdict(result)
