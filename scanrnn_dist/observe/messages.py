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


@dataclass
class Shown:
    """What is printed in this process; `scanrnn --quiet`, `--verbose` and `--log-format` set it.

    Args:
        level: lines that matter less are left out; progress is of level INFO.
        as_json: whether a line is a JSON object.
    """

    level: int = logging.INFO
    as_json: bool = False


SHOWN = Shown()


def to_stderr(line: str, level: int = logging.INFO, event: Mapping[str, Any] | None = None) -> None:
    """Print a line, unless it matters less than what is to be shown; as JSON, the fields of `event` in its place."""
    if level < SHOWN.level:
        return
    if SHOWN.as_json:
        told = {"time": f"{datetime.now():%Y-%m-%dT%H:%M:%S}", "level": logging.getLevelName(level).lower()}
        line = json.dumps({**told, **({"message": line} if event is None else event)})
    with suppress(OSError):  # nobody reads it any more, as `tee` once Ctrl-C has ended it: no reason to end a job
        print(line, file=sys.stderr, flush=True)
