r"""Rows to lanes: which steps of which rows every lane of a window works on. Pure numpy integer arithmetic.

Every lane is a tape. Rows are laid on it one after the other, each padded to whole blocks; the carry is reset where a
row starts and emitted where it ends, and a row that crosses the end of a window is cut and goes on in the same lane in
the next one. So the windows of a job all have one shape, whatever the lengths.

      lane 0   | row 3 .......... | row 1 .... | row 7 ..>|   the row that crosses the end is cut,
      lane 1   |>... row 2 | row 5 ......... | row 4 ....>|   ... and goes on in the same lane
               block 0                         block K - 1

This module knows lengths and positions, no values and no JAX; `run.py` copies the values to where it says.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from scanrnn_dist.engine.long_first import LongFirst, joined, longest_first

_NUMBERS = ("row", "start", "steps", "blocks", "lane")
_PIECE = np.dtype([*((name, "<i8") for name in _NUMBERS), ("is_new", "?")], align=True)
"""A row, or what is left of one that was cut: its number, from which step of the stream it goes, how many steps, how
many blocks those take, in which lane, and whether it begins there."""


@dataclass(frozen=True)
class Window:
    """What every lane does in one window; the arrays are `(L, K')`, lanes by blocks, with `K' <= K` blocks in use.

    Args:
        start: int64, the step of the value stream at which the block begins; means nothing where the block is idle.
        count: int32, steps of the block that are real, the first so many; 0 where it is idle or its row is empty.
        reset: bool, whether a row begins here, that is whether the carry becomes the initial one.
        ends_lane, ends_block: `(E,)` int64, the blocks whose carry is the final one of a row, in order of lanes.
        rows: `(E,)` int64, the numbers of these rows.
        begins_lane, begins_block, begun: `(B,)` int64, the blocks in which a row begins, and the numbers of these rows.
    """

    start: np.ndarray
    count: np.ndarray
    reset: np.ndarray
    ends_lane: np.ndarray
    ends_block: np.ndarray
    rows: np.ndarray
    begins_lane: np.ndarray
    begins_block: np.ndarray
    begun: np.ndarray

    @property
    def blocks(self) -> int:
        """Blocks in use, `K'`; every lane is idle from there on."""
        return self.start.shape[1]


class Tape:
    """The rows that wait, the rows that were cut, and how the next window is filled with them.

    Rows are numbered in the order of `add`. They go in the order of `LongFirst`, those longer than `long_blocks` being
    long, and the rows of one `add` longest first.

    Example:
        >>> tape = Tape(lanes=1, block_steps=4)
        >>> tape.add(starts=np.array([0, 3]), lengths=np.array([3, 6]))
        >>> window = tape.next_window(window_blocks=8)
        >>> window.count[0].tolist(), window.rows.tolist()
        ([4, 2, 3], [1, 0])
    """

    def __init__(self, lanes: int, block_steps: int, long_blocks: int = 2**62) -> None:
        """An empty tape of so many `lanes`, over all devices."""
        self.lanes, self.block_steps, self.long_blocks = lanes, block_steps, long_blocks
        self.rows_added = 0
        self._order = LongFirst("blocks", long_blocks)
        self.blocks_waiting = 0  # of the rows that no lane has begun yet
        self._rows_waiting = 0
        self._short_waiting = 0  # the same, no row counted with more than `long_blocks`
        self._cut = np.zeros(0, _PIECE)

    @property
    def blocks_left(self) -> int:
        """Blocks that are not laid yet, those of cut rows included."""
        return self.blocks_waiting + int(self._cut["blocks"].sum())

    @property
    def ready_blocks(self) -> int:
        """How high the next window may be, as long as more rows are to come.

        Half as high as what waits could fill the lanes: rows are no water, and what crosses a window's end fills no
        other lane, so without the other half some would find nothing left. And 0 while there are fewer rows than lanes
        without one: a lane that is left idle once stays behind to the end, a tenth of a job of ten rows a lane.
        """
        if self._rows_waiting < self.lanes - len(self._cut):
            return 0
        blocks, lanes = self._pour(self._short_waiting, self.long_blocks)
        return blocks // lanes // 2

    def add(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Append rows, each `lengths[i]` steps that begin at `starts[i]` of the value stream; both `(n,)` integers."""
        new = np.zeros(len(lengths), _PIECE)
        new["row"] = np.arange(self.rows_added, self.rows_added + len(lengths))
        new["start"], new["steps"], new["is_new"] = starts, lengths, True
        # An empty row takes a block too, in which its initial carry is emitted.
        new["blocks"] = np.maximum(1, -(-lengths // self.block_steps))
        self.rows_added += len(lengths)
        self._count(new, 1)
        self._order.add(new.take(longest_first(new["blocks"])))

    def next_window(self, window_blocks: int, more: bool = False) -> Window:
        """Lay as many rows as fit into `window_blocks` blocks per lane; what is left stays for the next window.

        With `more`, rows are still to come, and the window is as short as needed for every lane to be full. Without, if
        all that is left fits, every lane gets an equal share.
        """
        if more:
            height = window_blocks = min(window_blocks, self.ready_blocks)
        else:
            self._order.sort(self.blocks_waiting // self.lanes)
            blocks, lanes = self._pour(self.blocks_waiting, self.longest_cut_blocks)
            height = min(window_blocks, -(-blocks // lanes))
        free = np.full(self.lanes, height)
        free[self._cut["lane"]] -= self._cut["blocks"]
        pieces = joined([self._cut, self._take(np.maximum(free, 0), height)])
        pieces = pieces.take(np.argsort(pieces["lane"], kind="stable"))  # lane by lane, what was cut before what is new
        return self._lay(pieces, window_blocks)

    @property
    def longest_cut_blocks(self) -> int:
        """Blocks that are left of the longest row that was cut."""
        return int(self._cut["blocks"].max(initial=0))

    @property
    def longest_blocks(self) -> int:
        """Blocks that are left of the longest row of all."""
        return max([self.longest_cut_blocks, *(int(group["blocks"].max()) for group in self._order.groups)])

    @property
    def rows_cut(self) -> int:
        """Rows that a lane has begun and not ended."""
        return len(self._cut)

    def move(self, devices: int, lanes: int) -> tuple[np.ndarray, np.ndarray]:
        """Go on with `lanes` lanes on each device, to which the rows that were cut are dealt out, longest first.

        Returns:
            `(n,)` int64 each: the lanes that they were in, and the ones that they are in from now on.
        """
        order = longest_first(self._cut["blocks"])
        nth = np.arange(len(order))
        after = np.empty_like(nth)
        after[order] = nth % devices * lanes + nth // devices
        before = self._cut["lane"].copy()
        self._cut["lane"] = after
        self.lanes = devices * lanes
        return before, after

    def _count(self, pieces: np.ndarray, sign: int) -> None:
        """Count pieces among what waits, or, with `sign` -1, no longer."""
        self.blocks_waiting += sign * int(pieces["blocks"].sum())
        self._rows_waiting += sign * len(pieces)
        self._short_waiting += sign * int(np.minimum(pieces["blocks"], self.long_blocks).sum())

    def _pour(self, poured: int, highest: int) -> tuple[int, int]:
        """Pour so many blocks on the cut rows, as water finds its level.

        The blocks that then stand in the lanes it covers, and how many lanes those are; a cut row counts with at most
        `highest` blocks.
        """
        level = np.zeros(self.lanes, np.int64)
        level[self._cut["lane"]] = np.minimum(self._cut["blocks"], highest)
        level.sort()
        # fits[i]: blocks that fit when the i + 1 lowest lanes are filled to the height of lane i
        fits = level * np.arange(1, self.lanes + 1) - np.cumsum(level)
        lanes = max(1, int(np.searchsorted(fits, poured, side="left")))
        return poured + int(level[:lanes].sum()), lanes

    def _take(self, free: np.ndarray, height: int) -> np.ndarray:
        """Give each lane the next waiting rows until its `free` blocks are full; the last of them may cross the end."""
        lanes = np.flatnonzero(free)
        needed = int(free.sum()) + len(lanes) * height  # what crosses the end fills no other lane
        groups, waiting = [np.zeros(0, _PIECE)], self._order.groups
        while waiting and needed > 0:
            group = waiting.popleft()
            if len(group) > needed:  # each row takes a block at least
                waiting.appendleft(group[needed:])
            groups.append(group[:needed])
            needed -= int(np.minimum(groups[-1]["blocks"], height).sum())
        pool = joined(groups)
        end = np.cumsum(pool["blocks"])
        head, heads = 0, np.full(len(lanes) + 1, len(end))
        ends = memoryview(end)
        for i, room in enumerate(free[lanes].tolist()):
            heads[i] = head
            if head == len(ends):
                break
            # the rows that begin before the lane is full: the predecessor of each ends before; each takes a block
            full = (ends[head - 1] if head else 0) + room
            head = min(bisect_left(ends, full, head, min(head + room, len(ends))) + 1, len(ends))
        heads[len(lanes)] = head
        if head < len(end):
            waiting.appendleft(pool[head:])
        taken = pool[:head]
        taken["lane"] = np.repeat(lanes, np.diff(heads))
        self._count(taken, -1)
        return taken

    def _lay(self, pieces: np.ndarray, window_blocks: int) -> Window:
        """Turn pieces, in order of lanes, into the blocks of a window; what crosses its end becomes `_cut`."""
        lane, blocks, is_new = pieces["lane"], pieces["blocks"], pieces["is_new"]
        lane_blocks = np.bincount(lane, blocks, self.lanes).astype(np.int64)
        used = np.minimum(lane_blocks, window_blocks)
        width = int(used.max(initial=0))
        # where a piece begins on its lane: the blocks before it, less those of the lanes before
        first = np.cumsum(blocks) - blocks - (np.cumsum(lane_blocks) - lane_blocks)[lane]
        laid = np.minimum(blocks, window_blocks - first)
        at = lane * width + first

        # Work per block is two passes over one array; the rest is per row and per lane.
        nth = np.arange(self.lanes * width) * self.block_steps
        base = np.zeros(self.lanes * width, np.int64)
        base[at] = np.diff(pieces["start"] - at * self.block_steps, prepend=0)
        start = np.cumsum(base, out=base) + nth
        count = np.full((self.lanes, width), self.block_steps, np.int32)
        for unfilled in np.flatnonzero(used < width):
            count[unfilled, used[unfilled] :] = 0
        reset = np.zeros(self.lanes * width, bool)
        reset[at[is_new]] = True

        done = laid == blocks
        ends = (first + laid - 1)[done]
        count[lane[done], ends] = (pieces["steps"] - (blocks - 1) * self.block_steps)[done]
        self._cut, laid = pieces.compress(~done), laid[~done]
        self._cut["start"] += laid * self.block_steps
        self._cut["steps"] -= laid * self.block_steps
        self._cut["blocks"] -= laid
        self._cut["is_new"] = False
        grid = (self.lanes, width)
        return Window(
            start.reshape(grid), count, reset.reshape(grid), lane[done], ends, pieces["row"][done],
            lane[is_new], first[is_new], pieces["row"][is_new],
        )  # fmt: skip
