r"""Rows to lanes: which steps of which rows every lane of a window works on. Pure numpy integer arithmetic.

Every lane is a tape. Rows are laid on it one after the other, each padded to whole blocks; the carry is reset where a
row starts and emitted where it ends, and a row that crosses the end of a window is cut and goes on in the same lane in
the next one. So the windows of a job all have one shape, whatever the lengths.

      lane 0   | row 3 .......... | row 1 .... | row 7 ..>|   the row that crosses the end is cut,
      lane 1   |>... row 2 | row 5 ......... | row 4 ....>|   ... and goes on in the same lane
               block 0                         block K - 1

This module knows lengths and positions, no values and no JAX; `engine.py` copies the values to where it says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WindowShape:
    """The shape of one window of the compiled program, the same for the whole job.

    Args:
        lanes: lanes per device.
        block_steps: steps per block, the grain at which a row starts and ends.
        window_blocks: blocks per lane and window, `K`.
    """

    lanes: int
    block_steps: int
    window_blocks: int

    @property
    def window_steps(self) -> int:
        """Steps per lane and window."""
        return self.block_steps * self.window_blocks


@dataclass(frozen=True)
class Window:
    """What every lane does in one window; the arrays are `(L, K')`, lanes by blocks, with `K' <= K` blocks in use.

    Args:
        start: int64, the step of the value stream at which the block begins; means nothing where the block is idle.
        count: int32, steps of the block that are real, the first so many; 0 where it is idle or its row is empty.
        reset: bool, whether a row begins here, that is whether the carry becomes the initial one.
        ends_lane, ends_block: `(E,)` int64, the blocks whose carry is the final one of a row, in order of lanes.
        rows: `(E,)` int64, the numbers of these rows.
    """

    start: np.ndarray
    count: np.ndarray
    reset: np.ndarray
    ends_lane: np.ndarray
    ends_block: np.ndarray
    rows: np.ndarray

    @property
    def blocks(self) -> int:
        """Blocks in use, `K'`; every lane is idle from there on."""
        return self.start.shape[1]


@dataclass
class _Pieces:
    """Rows, or what is left of cut ones, as columns: which row, from which step, how many steps, and of what lane."""

    row: np.ndarray
    start: np.ndarray
    steps: np.ndarray
    blocks: np.ndarray
    is_new: np.ndarray
    lane: np.ndarray

    def select(self, index: np.ndarray | slice) -> _Pieces:
        """The pieces at `index`; a slice gives views."""
        return _Pieces(*(column[index] for column in self._columns()))

    def joined(self, other: _Pieces) -> _Pieces:
        """These pieces and then the `other` ones."""
        return _Pieces(*(np.concatenate(both) for both in zip(self._columns(), other._columns(), strict=True)))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.row, self.start, self.steps, self.blocks, self.is_new, self.lane


class Tape:
    """The rows that wait, the rows that were cut, and how the next window is filled with them.

    Rows are numbered in the order of `add`. Those of one `add` go longest first, so that the end of the job does not
    wait for one lane that got a long row late; those of a later `add` come after those of an earlier one, so that no
    row waits for ever.

    Example:
        >>> tape = Tape(lanes=1, block_steps=4)
        >>> tape.add(starts=np.array([0, 3]), lengths=np.array([3, 6]))
        >>> window = tape.next_window(window_blocks=8)
        >>> window.count[0].tolist(), window.rows.tolist()
        ([4, 2, 3], [1, 0])
    """

    def __init__(self, lanes: int, block_steps: int) -> None:
        """An empty tape of so many `lanes`, over all devices."""
        self.lanes = lanes
        self.block_steps = block_steps
        self.rows_added = 0
        self._set_waiting(self._pieces(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)))
        self._cut = self._waiting

    @property
    def blocks_left(self) -> int:
        """Blocks that are not laid yet, those of cut rows included."""
        return self._blocks_waiting + int(self._cut.blocks.sum())

    @property
    def _blocks_waiting(self) -> int:
        return int(self._end[-1] - self._laid_before(self._head)) if len(self._end) else 0

    def add(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Append rows, each `lengths[i]` steps that begin at `starts[i]` of the value stream; both `(n,)` integers."""
        order = np.argsort(-lengths, kind="stable")
        new = self._pieces(self.rows_added + order, starts[order], lengths[order])
        self.rows_added += len(order)
        self._set_waiting(self._waiting.select(slice(self._head, None)).joined(new))

    def next_window(self, window_blocks: int) -> Window:
        """Lay as many rows as fit into `window_blocks` blocks per lane; what is left stays for the next window.

        When all that is left fits, every lane gets an equal share, and the window is as short as that allows.
        """
        carried = np.zeros(self.lanes, np.int64)
        carried[self._cut.lane] = self._cut.blocks
        height = min(window_blocks, self._equal_share(carried))
        pieces = self._cut.joined(self._take(np.maximum(height - carried, 0)))
        pieces = pieces.select(np.argsort(pieces.lane, kind="stable"))  # lane by lane, what was cut before what is new
        return self._lay(pieces, window_blocks)

    def _pieces(self, row: np.ndarray, start: np.ndarray, steps: np.ndarray) -> _Pieces:
        """Whole rows; an empty one takes a block too, in which its initial carry is emitted."""
        blocks = np.maximum(1, -(-steps // self.block_steps))
        return _Pieces(row, start, steps, blocks, np.ones(len(row), bool), np.zeros(len(row), np.int64))

    def _set_waiting(self, waiting: _Pieces) -> None:
        self._waiting, self._end, self._head = waiting, np.cumsum(waiting.blocks), 0

    def _laid_before(self, index: int) -> int:
        return int(self._end[index - 1]) if index else 0

    def _equal_share(self, carried: np.ndarray) -> int:
        """The height to which all lanes are filled when every waiting block is laid, as water finds its level."""
        level = np.sort(carried)
        # poured[i]: blocks that fit when the i + 1 lowest lanes are filled to the height of lane i
        poured = level * np.arange(1, len(level) + 1) - np.cumsum(level)
        lanes = max(1, int(np.searchsorted(poured, self._blocks_waiting, side="left")))
        return -(-(self._blocks_waiting + int(level[:lanes].sum())) // lanes)

    def _take(self, free: np.ndarray) -> _Pieces:
        """Give each lane the next waiting rows until its `free` blocks are full; the last of them may cross the end."""
        begin, lanes = self._head, np.flatnonzero(free)
        heads = np.full(len(lanes) + 1, len(self._end))
        for i, room in enumerate(free[lanes]):
            heads[i] = self._head
            if self._head == len(self._end):
                break
            # the rows that begin before the lane is full: the predecessor of each ends before
            full = self._laid_before(self._head) + room
            self._head = min(int(np.searchsorted(self._end, full, side="left")) + 1, len(self._end))
        heads[len(lanes)] = self._head
        taken = self._waiting.select(slice(begin, self._head))
        taken.lane = np.repeat(lanes, np.diff(heads))
        return taken

    def _lay(self, pieces: _Pieces, window_blocks: int) -> Window:
        """Turn pieces, in order of lanes, into the blocks of a window; what crosses its end becomes `_cut`."""
        lane_blocks = np.bincount(pieces.lane, pieces.blocks, self.lanes).astype(np.int64)
        used = np.minimum(lane_blocks, window_blocks)
        width = int(used.max(initial=0))
        # where a piece begins on its lane: the blocks before it, less those of the lanes before
        first = np.cumsum(pieces.blocks) - pieces.blocks - (np.cumsum(lane_blocks) - lane_blocks)[pieces.lane]
        laid = np.minimum(pieces.blocks, window_blocks - first)
        at = pieces.lane * width + first

        # Work per block is two passes over one array; the rest is per row and per lane.
        nth = np.arange(self.lanes * width) * self.block_steps
        base = np.zeros(self.lanes * width, np.int64)
        base[at] = np.diff(pieces.start - at * self.block_steps, prepend=0)
        start = np.cumsum(base, out=base) + nth
        count = np.full((self.lanes, width), self.block_steps, np.int32)
        for lane in np.flatnonzero(used < width):
            count[lane, used[lane] :] = 0
        reset = np.zeros(self.lanes * width, bool)
        reset[at[pieces.is_new]] = True

        done = laid == pieces.blocks
        ends = (first + laid - 1)[done]
        count[pieces.lane[done], ends] = (pieces.steps - (pieces.blocks - 1) * self.block_steps)[done]
        self._cut = self._left_over(pieces.select(~done), laid[~done])
        grid = (self.lanes, width)
        return Window(start.reshape(grid), count, reset.reshape(grid), pieces.lane[done], ends, pieces.row[done])

    def _left_over(self, cut: _Pieces, laid: np.ndarray) -> _Pieces:
        """What remains of cut pieces after so many blocks were `laid`."""
        steps = laid * self.block_steps
        not_new = np.zeros(len(laid), bool)
        return _Pieces(cut.row, cut.start + steps, cut.steps - steps, cut.blocks - laid, not_new, cut.lane)
