"""The process of a worker that its driver started: `python -m scanrnn_dist.launch.child FD [json]`, for `processes.py`.

It answers what comes through the pipe until that is closed, as when the driver dies; then it ends in order. Its
warnings are lines on standard error, as JSON where those of the driver are.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from scanrnn_dist.job import UnitWorker
from scanrnn_dist.launch.processes import OF_DRIVER
from scanrnn_dist.observe import SHOWN, ToStderr


def main() -> None:
    """Answer questions; a driver that is there no more asks none, and what is being done is stopped."""
    for number in OF_DRIVER:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_DRIVER)  # the driver blocked them
    SHOWN.as_json = "json" in sys.argv[2:]
    logging.basicConfig(format="%(message)s", handlers=[ToStderr()])
    worker, pipe = UnitWorker(), Connection(int(sys.argv[1]))
    while True:
        try:
            question, given = pipe.recv()
        except (EOFError, OSError):  # the latter in the midst of a question
            worker.answer("end", ("the driver has ended",))
            break
        with suppress(BrokenPipeError, ConnectionResetError):  # the driver has ended; the pipe says so next
            pipe.send(worker.answer(question, given))
    # Without Python's own end, as of a command: what was stopped may be anywhere.
    os._exit(0)


if __name__ == "__main__":
    main()
