"""One budget of memory for a job, `--memory`, and who takes what of it.

The budget is for all that is held of rows: while they are read, while they wait, and until they are written. It comes
on top of the process itself, which is Python, JAX, pyarrow and the compiled programs: some 300 MiB. A single row that
needs more than its share is read all the same, and takes what pyarrow needs for it on top as well.
Each part gets its share handed to it by `pipeline.py`; how it keeps to it is its own affair.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.observe import share_of_memory
from scanrnn_dist.source import Source

LEAST_BYTES = 32 << 20
"""With less, a share would be smaller than the one chunk that its part has to hold."""
USUAL_BYTES = 256 << 20
"""Of a job on CPU, unless an eighth of what the process may use is less."""
_OF_ROOM = 4
"""Of a job on accelerators, whose windows are large: half of what the process may use, which is four eighths."""
_SORTING_BYTES = 1_000_000_000
_LEAST_SORTING_BYTES = 256 << 20
"""DuckDB gives up with 64 MB for two threads and 10 columns; 128 MB do."""
_PARTS = 32


@dataclass(frozen=True)
class MemoryShares:
    """The most bytes that each part of a job holds.

    Args:
        read_ahead: decoded rows that nobody took yet; one chunk more may wait.
        look_ahead: the values of rows that the engine has, and that wait for their turn or are worked on.
        open: features and kept columns of rows that wait for an earlier, longer row.
        unwritten: the same of rows that wait to be written.
        requests: what was asked of a bucket, and is not decoded.
        working: a chunk while it is decoded and converted, a row group while it is encoded, and freed memory that
            allocators keep.
    """

    read_ahead: int
    look_ahead: int
    open: int
    unwritten: int
    requests: int
    working: int

    @classmethod
    def of(cls, budget: int = USUAL_BYTES, is_static: bool = False) -> MemoryShares:
        """The shares of a budget: in fixed ratios, but what goes beyond the usual one is for rows that wait.

        On accelerators, if `is_static`, as much for those that wait for their turn as for those that wait for others.

        Example:
            >>> MemoryShares.of(64 << 20).look_ahead >> 20, MemoryShares.of(1 << 30).read_ahead >> 20
            (8, 8)
        """
        small = min(budget, USUAL_BYTES)
        ahead, opened = (6, 6) if is_static else (4, 8)
        return cls(
            read_ahead=1 * small // _PARTS,
            look_ahead=ahead * budget // _PARTS,
            open=opened * budget // _PARTS,
            unwritten=4 * small // _PARTS,
            requests=7 * budget // _PARTS,
            working=8 * small // _PARTS,
        )

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(astuple(self))

    @property
    def kept(self) -> int:
        """Of `working`, what pyarrow's allocator may keep of freed memory; the chunk that is decoded needs the rest."""
        return self.working // 2

    @property
    def chunk(self) -> int:
        """Of `working`, the chunk, the unit of reading, by its decoded bytes: 4 MiB of the usual budget.

        While it is decoded, buffers that grow and levels take several times as much. Small ones are decoded into memory
        that is still in the caches, and was touched before: 0.13 s for 136 MB, against 0.19 s in chunks of 16 MB. Each
        costs some 0.3 ms of Python: in chunks of 2 MB a job of W1 takes 3 % more processor time, one of W2 as much.
        """
        return max(1, self.working // 16)

    @property
    def piece(self) -> int:
        """Of `open`, what comes of rows that the engine is given together: 8 MiB of the usual budget.

        A chunk of short rows may give many times its own bytes: 4 MiB of rows of 10 steps of 4 numbers become 205 MiB
        of vectors of 2,048.
        """
        return max(1, self.working // 8)


@dataclass(frozen=True)
class Memory:
    """What a job may take of the memory of one process.

    Args:
        told: the budget that the user gave; None for the usual one.
        room: an eighth of what the process may use; None to look.

    Raises:
        ConfigError: a budget below `LEAST_BYTES`.
    """

    told: int | None = None
    room: int | None = None

    def __post_init__(self) -> None:
        if self.told is not None and self.told < LEAST_BYTES:
            raise ConfigError(
                f"--memory is {self.told:,} bytes; expected at least {LEAST_BYTES >> 20}MiB, with which rows can be "
                "read, computed and written at the same time. It comes on top of what Python, JAX and pyarrow take."
            )

    @property
    def row_bytes(self) -> int:
        """What one page or one row may decode to: an eighth of what the process may use, or the budget if it is more.

        A smaller budget does not refuse rows that fit into the memory.
        """
        return max(self._room, self.told or 0)

    def budget(self, is_static: bool) -> int:
        """The bytes to share: `told`, else what suits the devices, and is there."""
        if self.told is not None:
            return self.told
        return max(LEAST_BYTES, _OF_ROOM * self._room if is_static else min(USUAL_BYTES, self._room))

    def shares(self, is_static: bool) -> MemoryShares:
        """The shares of a job, on accelerators if `is_static`."""
        return MemoryShares.of(self.budget(is_static), is_static)

    @property
    def sorting_bytes(self) -> int:
        """What `--sort` may hold, which ends before the job begins."""
        return _SORTING_BYTES if self.told is None else max(_LEAST_SORTING_BYTES, self.told)

    def bounded(self, source: Source, is_static: bool = False) -> Source:
        """A source that is read within its share."""
        shares = self.shares(is_static)
        return replace(source, memory_bytes=self.row_bytes, request_bytes=shares.requests, kept_bytes=shares.kept)

    @property
    def _room(self) -> int:
        return share_of_memory() if self.room is None else self.room
