"""Different commands on one destination in a bucket, in any order of their requests: none of them harms another's job.

What is held: after any request, where `_SUCCESS` stands, the job that stands is whole and has nothing of another's; and
in the end the command that began it, once more, finds it done or does it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaving import Beats, Command, MemoryObjects, Order, Ordered, in_order
from sources import random_rows, write_source

from scanrnn_dist.job import JobOptions, Plan, plan_job
from scanrnn_dist.records import part_name

Choices = list[tuple[int, int]]
"""Who is next, and for how many requests."""
ANY_ORDER = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 80)), max_size=40)
FEW_AND_MANY = [10, pytest.param(200, marks=pytest.mark.soak), pytest.param(20_000, marks=pytest.mark.sweep)]


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

    def play(self, commands: list[Command], choices: Choices, beats: int = 1) -> list[str]:
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


SCENES = [two_different_jobs, two_restarts_and_a_rerun, the_same_twice_and_a_restart]


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
