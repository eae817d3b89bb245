"""`Claims`: which units are this process's to do, and who has to be told what becomes of them."""

from __future__ import annotations

from typing import Protocol

from scanrnn_dist.records import AttemptLog, PartRecord
from scanrnn_dist.source import Unit


class Claims(Protocol):
    """Units that are this process's to do, and whoever has to be told what becomes of them."""

    log: AttemptLog
    """Where this process writes down what it does."""

    def check_job(self) -> None:
        """Raise `StoppedError` if the job is not this process's to work on any more; before a part is named."""

    def finished(self, unit: Unit, rows: int) -> None:
        """Take note of rows of a unit that are computed; `StoppedError` as above, as far as it is known."""

    def committed(self, unit: Unit, record: PartRecord) -> None:
        """Take note of a unit whose part is recorded."""

    def failed(self, unit: Unit, reason: str) -> None:
        """Take note of a unit that failed."""

    def set_aside(self, unit: Unit, reason: str) -> None:
        """Take note of a unit that is set aside as a whole, before `committed`."""

    def tell(self) -> None:
        """Tell the user how many rows were finished, if it is here that this is known."""
