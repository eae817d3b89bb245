"""Lines that are no results: which of them are printed, and as what. They go to standard error."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scanrnn_dist.errors import one_line, shown


@dataclass
class Shown:
    """What is printed in this process; `scanrnn --quiet`, `--verbose` and `--log-format` set it.

    Args:
        level: lines that matter less are left out; progress is of level INFO.
        as_json: whether a line is a JSON object.
        errors_as_json: whether an error is one, as the result of a command would be.
        has_bar: whether a bar is drawn just now: it stands on a line without an end, and has hidden the cursor.
    """

    level: int = logging.INFO
    as_json: bool = False
    errors_as_json: bool = False
    has_bar: bool = False


SHOWN = Shown()


def to_stderr(line: str, level: int = logging.INFO, event: Mapping[str, Any] | None = None) -> None:
    """Print a line, unless it matters less than what is to be shown; as JSON, the fields of `event` in its place."""
    _print(line, "", level, event)


def _print(line: str, more: str, level: int, event: Mapping[str, Any] | None = None) -> None:
    """Print one line, whatever names stand in it, and more lines, as of a traceback."""
    if level >= SHOWN.level:
        print_line(as_shown((line if SHOWN.as_json else one_line(line)) + more, level, event))


def as_shown(line: str, level: int, event: Mapping[str, Any] | None = None) -> str:
    """The line as it is printed."""
    if not SHOWN.as_json:
        return shown(line)
    told = {"time": f"{datetime.now():%Y-%m-%dT%H:%M:%S}", "level": logging.getLevelName(level).lower()}
    return json.dumps({**told, **({"message": line} if event is None else event)})


def print_line(line: str) -> None:
    """Print what is to be shown as it is."""
    if sys.stderr is None:  # it was closed before the start; print would take standard output for it
        return
    with suppress(OSError):  # nobody reads it any more, as `tee` once Ctrl-C has ended it: no reason to end a job
        print(line, file=sys.stderr, flush=True)


class ToStderr(logging.Handler):
    """Prints what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message, and the traceback where it has one."""
        message = record.getMessage()
        _print(message, self.format(record).removeprefix(message), record.levelno)
