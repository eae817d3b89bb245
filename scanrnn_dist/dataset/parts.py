"""All parts of a job, written one after the other in a thread of their own, and recorded when they are whole.

One part is `writer.py`'s, the records are `manifest.py`'s.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from scanrnn_dist.dataset.manifest import Manifest
from scanrnn_dist.dataset.source import Unit
from scanrnn_dist.dataset.writer import PartWriter

CHUNKS_TO_WRITE = 2
"""Finished chunks that may wait for the writer."""


class PartsWriter:
    """Writes chunks to the part of their unit, in a thread of its own, and records each part that is whole."""

    def __init__(self, manifest: Manifest, schema: pa.Schema, units: int) -> None:
        self.parts = 0
        self.wait_seconds = 0.0
        self._manifest, self._schema = manifest, schema
        self._digits = max(5, len(str(units - 1)))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scanrnn-writer")
        self._pending: deque[Future[None]] = deque()
        self._part: PartWriter | None = None

    def put(self, unit: Unit, kept: pa.RecordBatch, features: np.ndarray) -> None:
        """Have the next rows of a unit written; waits while `CHUNKS_TO_WRITE` are not."""
        self._wait(CHUNKS_TO_WRITE - 1)
        self._pending.append(self._thread.submit(self._write, unit, kept, features))

    def finish(self) -> None:
        """Wait for all that was put; an output without rows gets one empty part, which carries its schema."""
        self._wait(0)
        if self.parts == 0:
            self._commit(self._new_part(0), 0)

    def __enter__(self) -> PartsWriter:
        return self

    def __exit__(self, *exception: Any) -> None:
        """Let the thread end; a part that was begun and not committed leaves nothing behind."""
        self._thread.shutdown(cancel_futures=True)
        if self._part is not None:
            self._part.__exit__(*exception)

    def _wait(self, most: int) -> None:
        begin = time.perf_counter()
        while len(self._pending) > most:
            self._pending.popleft().result()
        self.wait_seconds += time.perf_counter() - begin

    def _new_part(self, unit: int) -> PartWriter:
        return PartWriter(self._manifest.destination / f"part-{unit:0{self._digits}}.parquet", self._schema)

    def _write(self, unit: Unit, kept: pa.RecordBatch, features: np.ndarray) -> None:
        self._part = self._part or self._new_part(unit.index)
        self._part.write(kept, features)
        if self._part.rows == unit.rows:
            part, self._part = self._part, None
            self._commit(part, unit.index)

    def _commit(self, part: PartWriter, unit: int) -> None:
        with part:
            record = part.commit()
        self._manifest.append_part(unit, record)
        self.parts += 1
