"""Whatever the lengths, every step of every row is worked on once, in order, in one lane, and each row ends once.

The lanes are played in plain Python from the arrays of the windows alone, as the compiled program would.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scanrnn_dist.engine.schedule import Tape, Window
from scanrnn_dist.protocols import WindowShape


@dataclass
class Player:
    """The lanes of a job: what every one has worked on since its last reset, and the rows that came out."""

    lanes: int
    block_steps: int
    working: list[list[int] | None] = field(init=False)
    finished: dict[int, list[int]] = field(default_factory=dict)
    begun: int = 0

    def __post_init__(self) -> None:
        self.working = [None] * self.lanes

    def play(self, window: Window, window_blocks: int) -> None:
        """Work through one window, asserting what must hold of every block."""
        grid = (self.lanes, window.blocks)
        assert window.blocks <= window_blocks
        assert window.start.shape == window.count.shape == window.reset.shape == grid
        assert (window.start.dtype, window.count.dtype, window.reset.dtype) == (np.int64, np.int32, bool)
        assert ((window.count >= 0) & (window.count <= self.block_steps)).all()
        assert (np.diff(window.ends_lane) >= 0).all()
        ends = dict(
            zip(zip(window.ends_lane.tolist(), window.ends_block.tolist(), strict=True), window.rows, strict=True)
        )
        assert len(ends) == len(window.ends_lane), "two rows end in one block"
        for lane in range(self.lanes):
            for block in range(window.blocks):
                if not self.play_block(window, lane, block, ends.pop((lane, block), None)):
                    break
            if self.working[lane] is not None:
                assert window.blocks == window_blocks, "a row was cut before the end of the window"
        assert not ends, "a row ends in an idle block"

    def play_block(self, window: Window, lane: int, block: int, row: int | None) -> bool:
        """One block of one lane; whether the lane may go on after it."""
        count, start = int(window.count[lane, block]), int(window.start[lane, block])
        if window.reset[lane, block]:
            assert self.working[lane] is None, "a row begins where another has not ended"
            self.working[lane] = []
            self.begun += 1
        elif count == 0:
            assert self.working[lane] is None and row is None, "a lane pauses within a row"
            assert not window.count[lane, block:].any() and not window.reset[lane, block:].any(), (
                "a lane idles between rows"
            )
            return False
        steps = self.working[lane]
        assert steps is not None, "a lane works on no row"
        steps += range(start, start + count)
        if row is not None:
            assert row not in self.finished, "a row ends twice"
            self.finished[int(row)] = steps
            self.working[lane] = None
        else:
            assert count == self.block_steps, "padding within a row"
        return True


def play_job(
    lanes: int, block_steps: int, window_blocks: int, adds: list[list[int]], windows_between: list[int]
) -> Player:
    """Add batches of rows, with some windows after each, then windows until nothing is left; checks everything."""
    tape, player = Tape(lanes, block_steps, long_blocks=window_blocks), Player(lanes, block_steps)
    starts_of: list[int] = []
    lengths_of: list[int] = []
    stream = 7

    def one_window(more: bool) -> None:
        before = tape.blocks_left
        window = tape.next_window(window_blocks, more)
        laid = int(((window.count > 0) | window.reset).sum())
        assert laid > 0 and tape.blocks_left == before - laid
        assert not more or window.blocks <= max(1, before // lanes), "higher than what waits can fill"
        height = window.blocks if more else window_blocks
        player.play(window, height)
        lasts = not more or max(lengths_of) <= height * block_steps
        if player.begun < len(lengths_of) and lasts:
            busy = (window.count > 0) | window.reset
            assert busy.all() and window.blocks == height, "a lane idles while rows wait"

    for lengths, windows in zip(adds, windows_between, strict=True):
        starts = []
        for length in reversed(lengths):  # not in the order of the rows, and with gaps: starts are just given
            starts.append(stream)
            stream += length + 3
        starts.reverse()
        tape.add(np.array(starts, np.int64), np.array(lengths, np.int64))
        starts_of += starts
        lengths_of += lengths
        for _ in range(windows):
            if tape.ready_blocks:
                one_window(more=True)
            elif tape.blocks_left:
                one_window(more=False)
    while tape.blocks_left:
        one_window(more=False)
    wanted = {row: list(range(s, s + n)) for row, (s, n) in enumerate(zip(starts_of, lengths_of, strict=True))}
    assert player.finished == wanted
    assert tape.rows_added == player.begun == len(wanted)
    return player


LENGTHS = st.lists(st.sampled_from([0, 0, 1, 2, 3, 4, 5, 8, 16, 17]) | st.integers(0, 200), max_size=30)


@given(
    lanes=st.integers(1, 7),
    block_steps=st.integers(1, 6),
    window_blocks=st.integers(1, 9),
    adds=st.lists(st.tuples(LENGTHS, st.integers(0, 4)), max_size=5),
)
@example(lanes=2, block_steps=4, window_blocks=3, adds=[([0], 0), ([100, 0, 1], 2), ([], 1), ([12, 12, 12], 0)])
@example(lanes=3, block_steps=4, window_blocks=2, adds=[([8] * 6, 0)])
def test_every_step_of_every_row_is_worked_on_once_in_order_in_one_lane(
    lanes: int, block_steps: int, window_blocks: int, adds: list[tuple[list[int], int]]
) -> None:
    play_job(lanes, block_steps, window_blocks, [rows for rows, _ in adds], [windows for _, windows in adds])


def test_many_lanes_and_many_rows() -> None:
    lengths = np.random.default_rng(0).geometric(0.02, 3000) - 1
    play_job(48, 4, 32, [lengths[:1000].tolist(), lengths[1000:].tolist()], [2, 0])


def test_an_empty_tape_has_nothing_left() -> None:
    tape = Tape(3, 4)
    assert tape.blocks_left == 0
    tape.add(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert tape.blocks_left == 0 and tape.rows_added == 0


def started_numbers(tape: Tape, more: bool) -> dict[int, int]:
    """In which window, all being of one block, each row was begun that ended."""
    started: dict[int, int] = {}
    begun = [0] * tape.lanes
    number = 0
    while tape.ready_blocks if more else tape.blocks_left:
        window = tape.next_window(1, more)
        number += 1
        for lane in np.flatnonzero(window.reset[:, 0]):
            begun[lane] = number
        for lane, row in zip(window.ends_lane, window.rows, strict=True):
            started[int(row)] = begun[lane]
    return started


def test_rows_of_an_add_go_longest_first_and_after_those_of_earlier_adds_while_more_are_to_come() -> None:
    rng = np.random.default_rng(1)
    adds = [rng.integers(0, 60, 40) for _ in range(3)]
    tape = Tape(4, 4)
    for lengths in adds:
        tape.add(np.zeros(len(lengths), np.int64), lengths)
    started = started_numbers(tape, more=True)
    blocks, batch = np.maximum(1, -(-np.concatenate(adds) // 4)), np.repeat(np.arange(3), 40)
    order = sorted(started, key=lambda row: (batch[row], -blocks[row], row))
    assert len(order) >= 110
    assert (np.diff([started[row] for row in order]) >= 0).all()


def test_rows_that_are_short_for_what_is_left_keep_their_order_at_the_end_until_little_is_left() -> None:
    rng = np.random.default_rng(1)
    tape = Tape(4, 4)
    for _ in range(40):
        tape.add(np.zeros(100, np.int64), rng.integers(1, 9, 100))  # 1.5 blocks each: 1,500 are left for a lane
    tape.add(np.zeros(1, np.int64), np.array([400]))
    window = tape.next_window(200)
    assert 4000 in window.rows  # the long one, of 100 blocks
    assert np.sort(window.rows)[-2] < 800  # 4 lanes of 200 blocks: no row from far behind


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    devices=st.integers(1, 3),
    narrow_lanes=st.integers(4, 6),
    first=st.integers(1, 5),
)
def test_rows_that_move_to_other_lanes_lose_no_step(
    lengths: list[int], devices: int, narrow_lanes: int, first: int
) -> None:
    tape = Tape(12, 4)
    starts = np.arange(len(lengths)) * 1000
    tape.add(starts, np.array(lengths, np.int64))
    wide = Player(12, 4)
    wide.play(tape.next_window(first), first)
    if tape.blocks_waiting or not 0 < tape.rows_cut <= devices * narrow_lanes:
        return
    before, after = tape.move(devices, narrow_lanes)
    assert len(set(after.tolist())) == len(after) and after.max() < devices * narrow_lanes
    assert np.ptp(np.bincount(after // narrow_lanes, minlength=devices)) <= 1, "a device has two rows more than another"
    moved = Player(devices * narrow_lanes, 4, finished=wide.finished, begun=wide.begun)
    for old, new in zip(before, after, strict=True):
        moved.working[new] = wide.working[old]
    while tape.blocks_left:
        moved.play(tape.next_window(7), 7)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        assert moved.finished[row] == list(range(start, start + length))


def test_no_window_is_ready_while_a_lane_would_get_no_row() -> None:
    tape = Tape(4, 4)
    tape.add(np.zeros(3, np.int64), np.full(3, 4000))
    assert tape.ready_blocks == 0
    tape.add(np.zeros(1, np.int64), np.full(1, 4000))
    assert tape.ready_blocks == 500


def test_what_is_long_for_what_is_left_goes_longest_first_once_no_more_is_to_come() -> None:
    rng = np.random.default_rng(1)
    adds = [rng.integers(0, 60, 40) for _ in range(3)]
    tape = Tape(4, 4)
    for lengths in adds:
        tape.add(np.zeros(len(lengths), np.int64), lengths)
    started = started_numbers(tape, more=False)
    blocks = np.maximum(1, -(-np.concatenate(adds) // 4))
    order = sorted(started, key=lambda row: (-blocks[row], row))
    assert len(order) == 120
    assert (np.diff([started[row] for row in order]) >= 0).all()


def test_long_rows_go_before_all_that_wait() -> None:
    tape = Tape(2, 4, long_blocks=10)
    for lengths in ([8] * 20, [8, 44, 8, 400], [40, 8]):  # 44 steps are 11 blocks, 40 are 10
        tape.add(np.zeros(len(lengths), np.int64), np.array(lengths))
    started = started_numbers(tape, more=True)
    assert started[21] == 1
    assert min(started[row] for row in started if row != 21 and row != 23) > 1
    assert started[24] > 1


def test_long_rows_go_in_the_order_in_which_they_came_however_many_more_come() -> None:
    tape = Tape(2, 4, long_blocks=4)
    begun: list[int] = []
    for nth in range(20):
        tape.add(np.arange(2) * 32, np.array([32, 32] if nth else [32, 4]))
        if nth >= 2:
            begun += tape.next_window(4, more=True).begun.tolist()
    assert len(begun) > 12 and begun == [row for row in range(40) if row != 1][: len(begun)]


@pytest.mark.parametrize(("lanes", "rows", "blocks"), [(4, 16, 2), (3, 50, 1), (5, 40, 7)])
def test_equal_rows_of_whole_blocks_waste_nothing_before_the_rows_run_out(lanes: int, rows: int, blocks: int) -> None:
    tape = Tape(lanes, 4)
    tape.add(np.arange(rows) * 4 * blocks, np.full(rows, 4 * blocks))
    counts = []
    begun = 0
    while tape.blocks_left:
        window = tape.next_window(6)
        begun += int(window.reset.sum())
        counts.append((begun, window.count))
    full = [count for begun, count in counts if begun < rows]
    assert all((count == 4).all() and count.shape == (lanes, 6) for count in full)
    assert len(full) >= rows * blocks // (lanes * 6) - blocks


def test_rows_that_divide_evenly_fill_the_last_window_too() -> None:
    tape = Tape(4, 4)
    tape.add(np.arange(8) * 8, np.full(8, 8))
    window = tape.next_window(100)
    assert window.count.shape == (4, 4) and (window.count == 4).all()
    assert tape.blocks_left == 0


@given(
    lanes=st.integers(1, 8),
    head=st.lists(st.integers(0, 80), max_size=8),
    tail=st.lists(st.integers(0, 40), min_size=1, max_size=40),
)
def test_the_last_window_is_no_higher_than_equal_shares_and_one_row(
    lanes: int, head: list[int], tail: list[int]
) -> None:
    tape = Tape(lanes, 4)
    tape.add(np.zeros(len(head), np.int64), np.array(head, np.int64))
    if head:
        tape.next_window(2)  # some lanes now carry cut rows of different heights
    tape.add(np.zeros(len(tail), np.int64), np.array(tail, np.int64))
    blocks_left = tape.blocks_left
    window = tape.next_window(10_000)
    assert tape.blocks_left == 0
    busy = (window.count > 0) | window.reset
    heights = busy.sum(axis=1)
    carried = [int((busy[lane] & ~np.logical_or.accumulate(window.reset[lane])).sum()) for lane in range(lanes)]
    share = _water_level(carried, blocks_left - sum(carried))
    longest = max(1, -(-max([*tail, *head]) // 4))
    assert window.blocks == heights.max()
    # A lane takes rows until it is full, whole ones: the last of them sticks out by less than itself.
    assert heights.max() <= max(*carried, 0, share + longest - 1)


def _water_level(carried: list[int], waiting: int) -> int:
    """The least height at which all that waits fits above what is carried, by trying."""
    level = 0
    while sum(max(0, level - height) for height in carried) < waiting:
        level += 1
    return level


def test_window_shape_counts_steps() -> None:
    assert WindowShape(lanes=3, block_steps=4, window_blocks=5).window_steps == 20
