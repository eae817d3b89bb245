"""The parts of some units, written one after the other in a thread of their own, and recorded when they are whole.

One part is `part_file.py`'s, the records are `commit_log.py`'s.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.protocols import Stage
from scanrnn_dist.ragged import Ragged
from scanrnn_dist.records import AttemptLog, PartFile, part_name
from scanrnn_dist.source import Chunk, FailedUnit, Unit
from scanrnn_dist.storage import Store

WAITING_BYTES = 32 << 20
"""Finished chunks that may wait for the writer: as many as keep the devices busy while a part is synced."""


class WriteBehind:
    """Writes chunks to the part of their unit, in a thread of its own, and records each part that is whole.

    Args:
        store: the destination.
        schema: of the parts.
        units: how many the job has.
        log: where a part is recorded.
        check: called, in the thread, before a part gets its name; raises if it must not.
        stage: names the stages "write" and "commit".
        on_commit: called, in the thread, with each unit whose part is recorded.
        on_fail: called, in the thread, with each unit that failed, the reason, and its rows that were put before.
    """

    def __init__(
        self,
        store: Store,
        schema: pa.Schema,
        units: int,
        log: AttemptLog,
        check: Callable[[], None],
        stage: Stage = nullcontext,
        on_commit: Callable[[Unit], None] | None = None,
        on_fail: Callable[[Unit, str, int], None] | None = None,
    ) -> None:
        self.parts = 0
        self.wait_seconds = 0.0
        self._store, self._schema, self._units, self._log = store, schema, units, log
        self._check, self._stage, self._on_commit, self._on_fail = check, stage, on_commit, on_fail
        self._is_broken = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scanrnn-writer")
        self._pending: deque[tuple[Future[None], int]] = deque()
        self._waiting_bytes = 0
        self._part: PartFile | None = None
        self._filtered = 0  # rows of its unit

    def put(self, chunk: Chunk, features: np.ndarray | Ragged) -> None:
        """Have the next rows of a unit written; waits while more than `WAITING_BYTES` are not."""
        nbytes = chunk.kept.nbytes + (features.values.nbytes if isinstance(features, Ragged) else features.nbytes)
        self._submit(nbytes, self._write, chunk, features)

    def fail(self, failed: FailedUnit) -> None:
        """Have the part of a unit abandoned, where it was begun, and the unit recorded as failed."""
        self._submit(failed.nbytes, self._give_up, failed)

    def finish(self) -> None:
        """Wait for all that was put."""
        self._wait(-1)

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, *exception: Any) -> None:
        """Let the thread end; a part that was begun and not committed leaves nothing behind."""
        self._thread.shutdown(cancel_futures=True)
        if self._part is not None:
            self._part.__exit__(*exception)

    def _submit(self, nbytes: int, do: Callable[..., None], *given: Any) -> None:
        """Have the thread do something, after all before; nothing more once one of them raised."""
        self._wait(WAITING_BYTES)
        self._pending.append((self._thread.submit(self._unless_broken, do, *given), nbytes))
        self._waiting_bytes += nbytes

    def _wait(self, most_bytes: int) -> None:
        """Take note of what is written, and wait until at most so many bytes are not."""
        begin = time.perf_counter()
        while self._pending and (self._waiting_bytes > most_bytes or self._pending[0][0].done()):
            written, nbytes = self._pending.popleft()
            self._waiting_bytes -= nbytes
            written.result()
        self.wait_seconds += time.perf_counter() - begin

    def _unless_broken(self, do: Callable[..., None], *given: Any) -> None:
        if self._is_broken:  # what was put before the error was seen
            return
        try:
            do(*given)
        except BaseException:
            self._is_broken = True
            raise

    def _write(self, chunk: Chunk, features: np.ndarray | Ragged) -> None:
        unit = chunk.unit
        if self._part is None:
            self._part = PartFile(self._store, part_name(unit.index, self._units), unit.index, self._schema)
            self._filtered = 0
        if self._part.unit != unit.index:
            raise AssertionError(f"rows of unit {unit.index} were put before unit {self._part.unit} was whole")
        with self._stage("write"):
            self._part.write(chunk.kept, features)
            self._filtered += chunk.filtered
        if chunk.is_last:
            part, self._part = self._part, None
            with self._stage("commit"):
                with part:
                    self._check()
                    record = replace(part.commit(), filtered=self._filtered)
                self._log.commit(record)
            self.parts += 1
            if self._on_commit is not None:
                self._on_commit(unit)

    def _give_up(self, failed: FailedUnit) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.abandon()
        self._log.fail(failed.unit.index, failed.reason)
        if self._on_fail is not None:
            self._on_fail(failed.unit, failed.reason, 0 if part is None else part.rows)
