"""Different commands on one destination in a bucket, in any order of their requests: none of them harms another's job.

What is held: after any request, where `_SUCCESS` stands, the job that stands is whole and has nothing of another's; and
in the end the command that began it, once more, finds it done or does it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaving import Beats, Command, MemoryObjects, Order, Ordered, Removal, in_order
from sources import random_rows, write_source

from scanrnn_dist.job import JobOptions, Plan, plan_job
from scanrnn_dist.records import part_name

Choices = list[tuple[int, int | str]]
"""Who is next, and for how many requests, or until which one."""
ANY_ORDER = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 80)), max_size=40)
FEW_AND_MANY = [
    6,
    pytest.param(40, marks=pytest.mark.soak),
    pytest.param(3000, marks=pytest.mark.sweep),
]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Plan]:
    """The same rows as two parts, and as three."""
    path = write_source(tmp_path_factory.mktemp("in") / "rows.parquet", random_rows([3] * 6), row_group_size=1)
    return {6 // rows: plan_job(str(path), JobOptions(rows_per_part=rows)) for rows in (3, 2)}


class Bucket:
    """The objects of an example, and what must hold of them."""

    def __init__(self, plans: dict[int, Plan], is_exact: bool = True) -> None:
        self.order = Order([], self.check)
        self.objects = MemoryObjects(is_exact, lambda: self.order.step("between a look and a write"))
        self.plans, self.wrong = plans, list[str]()

    def play(self, commands: Sequence[Command | Removal], choices: Choices, beats: int = 1) -> list[str]:
        """Run them together in an order, some time after what was before; how each ended."""
        self.order = order = Order(choices, self.check, self.order.seconds + 1000)
        beating, objects = Beats(order), Ordered(self.objects, order)
        ends = [""] * len(commands)

        def act(number: int, command: Command) -> Callable[[], None]:
            def run() -> None:
                ends[number] = command.run(objects)

            return run

        actors = {
            f"{number}, {it.encoder}{' restart' * it.restart}": act(number, it) for number, it in enumerate(commands)
        }
        actors |= {f"beat {number}": beating.beat for number in range(beats)}
        with in_order(order, beating):
            order.play(actors)
        assert all(ends), (ends, order.steps[-10:])
        return ends

    def stands(self) -> Command:
        """The command that began the job that stands."""
        job = json.loads(self.objects.held["out/__scanrnn/job.json"])
        count = 6 // job["options"]["rows_per_part"]
        return Command(job["encoder"]["fingerprint"], self.plans[count])

    def check(self) -> None:
        """What a reader may see."""
        held = self.objects.held
        if "out/_SUCCESS" not in held or self.wrong:
            return
        if "out/__scanrnn/job.json" not in held:
            self.wrong.append(f"_SUCCESS of no job after {self.order.steps[-8:]}")
            return
        command = self.stands()
        count = len(command.plan.units)
        expected = {f"out/{part_name(unit, count)}": command.part(unit) for unit in range(count)}
        parts = {key: content for key, content in held.items() if key.startswith("out/part-")}
        if parts != expected:
            self.wrong.append(f"_SUCCESS of {command.encoder} beside {parts} after {self.order.steps[-8:]}")
        listed = hashlib.sha256(held.get("out/__scanrnn/parts.table", b"")).hexdigest()
        if json.loads(held["out/_SUCCESS"])["parts_sha256"] != listed:
            self.wrong.append(f"_SUCCESS of another list of parts after {self.order.steps[-8:]}")

    def end(self) -> None:
        """Once more, alone, the command that began what stands; the first one may end the publication of another."""
        for _ in range(2):
            assert not self.wrong, self.wrong
            (ended,) = self.play([self.stands()], [], beats=0)
        assert ended == "done" and "out/_SUCCESS" in self.objects.held, ended
        assert not self.wrong, self.wrong


def two_different_jobs(plans: dict[int, Plan], choices: Choices, is_exact: bool = True) -> None:
    bucket = Bucket(plans, is_exact)
    ends = bucket.play([Command("A", plans[2]), Command("B", plans[3])], choices)
    assert ends.count("done") <= 1, "one of them says that the other one's output is its own"
    bucket.end()


def two_restarts_and_a_rerun(plans: dict[int, Plan], choices: Choices, is_exact: bool = True) -> None:
    bucket = Bucket(plans, is_exact)
    finished = Command("A", plans[3])
    assert bucket.play([finished], []) == ["done"]
    bucket.play([Command("B", plans[2], restart=True), Command("C", plans[3], restart=True), finished], choices)
    bucket.end()


def the_same_twice_and_a_restart(plans: dict[int, Plan], choices: Choices, is_exact: bool = True) -> None:
    bucket = Bucket(plans, is_exact)
    again = Command("B", plans[2], restart=True)
    bucket.play([Command("A", plans[3]), again, again], choices)
    bucket.end()


def shares_in_place_of_a_job_without_parts(plans: dict[int, Plan], choices: Choices, is_exact: bool = True) -> None:
    bucket = Bucket(plans, is_exact)
    assert bucket.play([Command("A", plans[3])], []) == ["done"]
    for key in [key for key in bucket.objects.held if key.startswith(("out/_SUCCESS", "out/part-"))]:
        del bucket.objects.held[key]
    ends = bucket.play([Command("B", plans[2], share=(share, 3)) for share in (1, 2, 3)], choices)
    assert not any("job that differs" in end for end in ends), ends
    bucket.end()


SCENES = [
    two_different_jobs,
    two_restarts_and_a_rerun,
    the_same_twice_and_a_restart,
    shares_in_place_of_a_job_without_parts,
]


@pytest.mark.parametrize("examples", FEW_AND_MANY)
@pytest.mark.parametrize("scene", SCENES)
def test_commands_in_any_order_leave_one_whole_job(
    plans: dict[int, Plan], scene: Callable[[dict[int, Plan], Choices], None], examples: int
) -> None:
    @settings(max_examples=examples)
    @given(ANY_ORDER)
    def holds(choices: Choices) -> None:
        scene(plans, choices)

    holds()


# The windows, one by one: what a condition closes is open without it -----------------------------------------------

END = "to the end"
BETWEEN = "between a look and a write"


def asleep_before(number: int, request: str, is_exact: bool) -> Choices:
    """One stands still just before a request; without conditions, after the look that it makes first."""
    return [(number, request), *([] if is_exact else [(number, BETWEEN)])]


def begun_in_one_second(plans: dict[int, Plan], is_exact: bool) -> None:
    """Both see no job; one is about to record its own while the other one does, works and ends."""
    order = [*asleep_before(1, "create out/__scanrnn/job.json", is_exact), (0, END), (1, END)]
    two_different_jobs(plans, order, is_exact)


def beat_in_flight(plans: dict[int, Plan], is_exact: bool) -> None:
    """A beat is on its way while the destination is removed and another job begun there, which must not see it."""
    bucket = Bucket(plans, is_exact)
    lease = "out/__scanrnn/workers/1-of-1.000001.json"
    begin: Choices = [(0, "create out/part-00001"), *asleep_before(3, f"replace {lease}", is_exact)]
    then: Choices = [(1, END), (2, "create out/part-00000"), (3, "which lease"), (2, END), (0, END)]
    commands = [Command("A", plans[2]), Removal(bucket.objects.held), Command("B", plans[3])]
    ends = bucket.play(commands, begin + then)
    assert ends[2] == "done" and ends[0].startswith("StoppedError"), ends
    bucket.end()


def sleeping_publisher(plans: dict[int, Plan], is_exact: bool) -> None:
    """One is about to move a part while another one ends the publication, and a third makes a restart beside it."""
    bucket = Bucket(plans, is_exact)
    assert bucket.play([Command("A", plans[3])], []) == ["done"]
    restart, again = Command("B", plans[3], restart=True), Command("C", plans[3], restart=True)
    order: Choices = [
        *asleep_before(0, "copy out/part-00001.parquet", is_exact),
        (1, "create out/__scanrnn/restart/part-00002"),
    ]
    bucket.play([restart, again], [*order, (0, "remove out/__scanrnn/restart"), (1, END), (0, END)])
    bucket.end()


def sleeping_remover(plans: dict[int, Plan], is_exact: bool) -> None:
    """One is about to remove a part of a restart that was given up while another one makes one there, and publishes."""
    bucket = Bucket(plans, is_exact)
    assert bucket.play([Command("A", plans[3])], []) == ["done"]
    order: Choices = [
        (0, "create out/__scanrnn/restart/__scanrnn/parts"),
        *asleep_before(1, "remove out/__scanrnn/restart/part-00002", is_exact),
        (2, "copy out/part-00002"),
        *[(1, END), (2, END), (0, END)],
    ]
    bucket.play([Command(name, plans[3], restart=True) for name in "BCD"], order)
    bucket.end()


@pytest.mark.parametrize("window", [begun_in_one_second, beat_in_flight, sleeping_publisher, sleeping_remover])
def test_a_condition_closes_each_window(
    plans: dict[int, Plan], window: Callable[[dict[int, Plan], bool], None]
) -> None:
    window(plans, True)
    with pytest.raises(AssertionError):
        window(plans, False)


def test_who_sleeps_before_it_tells_of_a_publication_tells_of_none_that_was_ended(plans: dict[int, Plan]) -> None:
    bucket = Bucket(plans)
    assert bucket.play([Command("A", plans[3])], []) == ["done"]
    restart, again = Command("B", plans[2], restart=True), Command("C", plans[3], restart=True)
    order: Choices = [(0, "copy out/__scanrnn/restart/__scanrnn/publishing"), (1, END), (0, END)]
    ends = bucket.play([restart, again], order)
    assert ends[0].startswith("StoppedError") and ends[1] == "done", ends
    assert not [key for key in bucket.objects.held if "/restart/" in key]
    bucket.end()


def test_a_record_that_comes_late_is_not_published_as_that_of_another_restart(plans: dict[int, Plan]) -> None:
    """One records its restart once another one's was moved; a third command ends that one's publication."""
    bucket = Bucket(plans)
    assert bucket.play([Command("A", plans[3])], []) == ["done"]
    commands = [Command("B", plans[2], restart=True), Command("C", plans[3], restart=True), Command("A", plans[3])]
    record = "create out/__scanrnn/restart/__scanrnn/job.json"
    bucket.play(commands, [(0, record), (1, "create out/_SUCCESS"), (0, END), (2, END), (1, END)])
    assert bucket.stands().encoder == "C"
    bucket.end()


def test_a_list_of_parts_that_comes_late_is_not_published_as_that_of_another_restart(plans: dict[int, Plan]) -> None:
    """One writes the list of its restart once another one's was moved; a third command ends that one's publication."""
    bucket = Bucket(plans)
    assert bucket.play([Command("A", plans[3])], []) == ["done"]
    commands = [Command("B", plans[2], restart=True), Command("C", plans[3], restart=True), Command("A", plans[3])]
    late, moved = "create out/__scanrnn/restart/__scanrnn/parts", "version out/__scanrnn/restart/__scanrnn/workers"
    made = "create out/__scanrnn/restart/_SUCCESS"
    bucket.play(commands, [(0, late), (1, made), (1, moved), (0, 1), (2, END), (0, END), (1, END)])
    assert bucket.stands().encoder == "C"
    bucket.end()


def test_a_restart_that_somebody_began_to_remove_is_not_published(plans: dict[int, Plan]) -> None:
    """One tells what comes while another one removes it, which a third command interrupts."""
    bucket = Bucket(plans)
    assert bucket.play([Command("A", plans[3])], []) == ["done"]
    commands = [Command("B", plans[2], restart=True), Command("C", plans[3], restart=True), Command("A", plans[3])]
    told, removed = "copy out/__scanrnn/restart/__scanrnn/publishing", "version out/__scanrnn/restart/_SUCCESS"
    bucket.play(
        commands, [(0, "read out/__scanrnn/job.json"), (1, told), (0, removed), (1, 1), (2, END), (0, END), (1, END)]
    )
    bucket.end()


def test_shares_that_find_the_same_damage_at_once_do_not_stop_one_another(plans: dict[int, Plan]) -> None:
    """The slower one has the whole destination, and finds it mended, when the faster one looks whether anybody has."""
    bucket, lease = Bucket(plans), "create out/__scanrnn/workers"
    assert bucket.play([Command("A", plans[2])], []) == ["done"]
    del bucket.objects.held["out/part-00001.parquet"]
    bucket.wrong.append("_SUCCESS stands beside the damage")
    begin: Choices = [(1, f"{lease}/0-of-0"), (0, f"{lease}/1-of-2"), (1, f"{lease}/0-of-0.000002"), (1, 1)]
    then: Choices = [(0, "sleep"), (1, END), (0, END)]
    shares = [Command("A", plans[2], share=(share, 2)) for share in (1, 2)]
    assert bucket.play(shares, begin + then, beats=0) == ["done", "done"]
    bucket.wrong.clear()
    bucket.end()


@pytest.mark.parametrize("other", [2, 3])
def test_who_sleeps_before_an_upload_leaves_no_part_where_the_job_that_stands_has_none(
    plans: dict[int, Plan], other: int
) -> None:
    bucket = Bucket(plans)
    order: Choices = [(0, "create out/part-00002"), (1, END), (2, END), (0, END)]
    ends = bucket.play([Command("A", plans[3]), Removal(bucket.objects.held), Command("B", plans[other])], order)
    assert ends[0].startswith("StoppedError: /bucket/out does not hold the job") and ends[2] == "done", ends
    bucket.wrong.clear()  # between the upload and the look that follows it
    bucket.check()
    bucket.end()
