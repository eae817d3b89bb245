"""The parts of some units, written one after the other in a thread of their own, and recorded when they are whole.

While the next part is written, another thread waits for the disk, or for the upload, then names the part and records
it. Beside a part, the rows of its unit that were set aside. One part is `part_file.py`'s, what is set aside
`quarantine.py`'s, the records are `attempt_log.py`'s.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.job.claims import Claims
from scanrnn_dist.protocols import Stage
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records import JobRecords, Output, PartFile, PartRecord, QuarantineFile, part_name
from scanrnn_dist.source import SKIP, WAITING_UNITS, Chunk, FailedUnit, Unit, count_name
from scanrnn_dist.threads import Threads


@dataclass
class _Begun:
    """The part of a unit that is being written, and what became of the rows that are not in it."""

    unit: Unit
    part: PartFile
    quarantine: QuarantineFile | None = None
    aside: int = 0
    filtered: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def end(self) -> None:
        """Write all of the part that is left to be written."""
        try:
            self.part.end()
        except BaseException:
            self.abandon()
            raise

    def commit(self, check: Callable[[], None]) -> PartRecord:
        """Name the rows that were set aside first, so that a part never stands without them."""
        with self.part:
            aside_sha256 = ""
            if self.quarantine is not None:
                with self.quarantine:
                    aside_sha256 = self.quarantine.commit(check)
            sha256 = self.part.commit(check)
        part, counts = self.part, json.dumps(self.counts, sort_keys=True)
        return PartRecord(
            self.unit.index, part.rows, part.size_bytes, sha256, self.aside, self.filtered, counts, aside_sha256
        )

    def abandon(self) -> None:
        """Remove what stands aside."""
        self.part.abandon()
        if self.quarantine is not None:
            self.quarantine.abandon()


class WriteBehind:
    """Writes chunks to the part of their unit, in a thread of its own, and records whole parts in another.

    Args:
        records, job: where the job is recorded, and its record.
        schema: of the parts.
        units: how many the job has.
        claims: whose log records parts; told what becomes of each unit, of a commit in the second thread.
        stage: names the stages "write" and "commit".
        output: how the parts are written.
        waiting_bytes: of what was put and is not written; enough keeps the devices busy while a part is synced.
    """

    def __init__(
        self,
        records: JobRecords,
        job: Mapping[str, Any],
        schema: pa.Schema,
        units: int,
        claims: Claims,
        stage: Stage,
        output: Output,
        waiting_bytes: int,
    ) -> None:
        self.wait_seconds = 0.0
        self._records, self._job = records, job
        self._store, self._schema, self._units, self._output = records.store, schema, units, output
        self._claims, self._stage = claims, stage
        self._most_waiting_bytes, self._is_broken = waiting_bytes, False
        self._thread = Threads(1, thread_name_prefix="scanrnn-writer")
        self._namer = Threads(1, thread_name_prefix="scanrnn-writer-names")
        self._named: Future[None] | None = None  # the part before the one that is written
        self._pending: deque[tuple[Future[None], int, bool]] = deque()
        self._waiting_bytes = self._waiting_units = 0
        self._begun: _Begun | None = None
        self._whole = -1  # the last unit whose part was whole

    def put(self, chunk: Chunk, features: np.ndarray | Ragged) -> None:
        """Have the next rows of a unit written; waits while too many are not."""
        nbytes = chunk.nbytes_kept + (features.values.nbytes if isinstance(features, Ragged) else features.nbytes)
        self._submit(nbytes, chunk.is_last, self._write, chunk, features)

    def fail(self, failed: FailedUnit) -> None:
        """Have the part of a unit abandoned, where it was begun, and the unit recorded as failed, or set aside."""
        self._submit(failed.nbytes, True, self._give_up if failed.aside is None else self._set_aside, failed)

    def finish(self) -> None:
        """Wait for all that was put."""
        self._wait(-1, 0)
        begin = time.perf_counter()
        self._wait_for_name()
        self.wait_seconds += time.perf_counter() - begin

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, *exception: Any) -> None:
        """Let the threads end; a part that was begun and not committed leaves nothing behind."""
        try:
            self._thread.shutdown(cancel_futures=True)
        finally:  # also after a second Ctrl-C: the log is closed next, and a part is abandoned that nobody writes
            self._thread.shutdown()
            self._namer.shutdown()
            if self._begun is not None and exception[0] is not None:
                self._begun.abandon()

    def _submit(self, nbytes: int, ends_unit: bool, do: Callable[..., None], *given: Any) -> None:
        """Have the thread do something, after all before; nothing more once one of them raised."""
        self._wait(self._most_waiting_bytes, WAITING_UNITS)
        self._pending.append((self._thread.submit(self._unless_broken, do, *given), nbytes, ends_unit))
        self._waiting_bytes += nbytes
        self._waiting_units += ends_unit

    def _wait(self, most_bytes: int, most_units: int) -> None:
        """Take note of what is written, and wait until at most so many bytes and units are not."""
        begin = time.perf_counter()
        while self._pending:
            is_full = self._waiting_bytes > most_bytes or self._waiting_units > most_units
            if not is_full and not self._pending[0][0].done():
                break
            written, nbytes, ends_unit = self._pending.popleft()
            self._waiting_bytes -= nbytes
            self._waiting_units -= ends_unit
            written.result()
        self.wait_seconds += time.perf_counter() - begin

    def _unless_broken(self, do: Callable[..., None], *given: Any) -> None:
        if self._is_broken:  # what was put before the error was seen
            return
        try:
            if self._named is not None and self._named.done():
                self._wait_for_name()  # no more is done if that raises
            do(*given)
        except BaseException:
            self._is_broken = True
            raise

    def _wait_for_name(self) -> None:
        """Wait until the part before is recorded, if one is on its way."""
        named, self._named = self._named, None
        if named is not None:
            named.result()

    def _write(self, chunk: Chunk, features: np.ndarray | Ragged) -> None:
        unit = chunk.unit
        if unit.index == self._whole:
            raise AssertionError(f"rows of unit {unit.index} were put after its part was whole")
        begun = self._begun = self._begun or self._new_part(unit)
        if begun.unit.index != unit.index:
            raise AssertionError(f"rows of unit {unit.index} were put before unit {begun.unit.index} was whole")
        with self._stage("write"):
            begun.part.write(chunk.kept, features, chunk.is_null)
            if chunk.aside is not None:
                if begun.quarantine is None:
                    begun.quarantine = QuarantineFile(self._store, unit.index, self._units, chunk.aside.schema)
                begun.quarantine.write(chunk.aside)
                begun.aside += chunk.aside.num_rows
            begun.filtered += chunk.filtered
            begun.counts.update(chunk.counts)
        if chunk.is_last:
            self._commit(begun)

    def _new_part(self, unit: Unit) -> _Begun:
        return _Begun(unit, PartFile(self._store, part_name(unit.index, self._units), self._schema, self._output))

    def _commit(self, begun: _Begun) -> None:
        """Have a part named and recorded once it is durable; one at a time, so that no more of them wait."""
        self._begun, self._whole = None, begun.unit.index
        with self._stage("commit"):
            begun.end()
        try:
            self._wait_for_name()
            self._named = self._namer.submit(self._name, begun)
        except BaseException:
            begun.abandon()
            raise

    def _name(self, begun: _Begun) -> None:
        with self._stage("commit"):
            record = begun.commit(self._claims.check_job)
            self._records.check_named(self._job, part_name(begun.unit.index, self._units))
            self._claims.log.commit(record)
        self._claims.committed(begun.unit, record)

    def _drop(self) -> None:
        """Abandon the part that was begun, if one was."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.abandon()

    def _give_up(self, failed: FailedUnit) -> None:
        self._drop()
        self._claims.log.fail(failed.unit.index, failed.reason)
        self._claims.failed(failed.unit, failed.reason)

    def _set_aside(self, failed: FailedUnit) -> None:
        """Commit a part without rows, and one line for all of them."""
        unit, line = failed.unit, failed.aside
        assert line is not None
        self._drop()
        begun = self._begun = self._new_part(unit)
        begun.aside, begun.counts = unit.rows, Counter({count_name("unreadable_file", SKIP): unit.rows})
        begun.quarantine = QuarantineFile(self._store, unit.index, self._units, line.schema)
        begun.quarantine.write(line)
        self._claims.set_aside(unit, failed.reason)
        self._commit(begun)
