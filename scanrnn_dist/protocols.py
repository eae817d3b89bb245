"""How a caller may have the stages of reading and writing named, in a profiler's trace, without one known here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Stage = Callable[[str], AbstractContextManager[Any]]
"""Takes a stage's name; within the context that it gives, the stage runs. `contextlib.nullcontext` names nothing."""
