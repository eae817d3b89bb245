"""Pools of threads, which say what to do where Python takes no more work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from scanrnn_dist.errors import StoppedError

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Threads(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` that says what to do where Python lets it take nothing more."""

    def submit(self, do: Callable[_P, _R], /, *given: _P.args, **named: _P.kwargs) -> Future[_R]:
        """As of `ThreadPoolExecutor`.

        Raises:
            StoppedError: the program's main thread has ended.
        """
        try:
            return super().submit(do, *given, **named)
        except RuntimeError as error:
            if "shutdown" not in str(error):  # as Python ends, "interpreter shutdown" or only that of this pool
                raise
            raise StoppedError(
                "The program's main thread has ended, so that no work can be handed to other threads. Join the thread "
                "that calls scanrnn_dist before the program ends."
            ) from error
