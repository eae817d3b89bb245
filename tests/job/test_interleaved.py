"""Different commands on one destination in a bucket, in any order of their requests: none of them harms another's job.

What is held: after any request, where `_SUCCESS` stands, the job that stands is whole and has nothing of another's; and
in the end the command that began it, once more, finds it done or does it.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interleaving import Beats, Command, MemoryObjects, Order, Ordered, in_order
from sources import random_rows, write_source

from scanrnn_dist.job import JobOptions, Plan, plan_job
from scanrnn_dist.records import part_name
from scanrnn_dist.storage.objects import Objects


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[Plan]:
    """The same rows as two parts, and as three."""
    path = write_source(tmp_path_factory.mktemp("in") / "rows.parquet", random_rows([3] * 6), row_group_size=1)
    return [plan_job(str(path), JobOptions(rows_per_part=rows)) for rows in (3, 2)]


def told(plans: list[Plan], encoder: str, count: int, restart: bool = False) -> Command:
    return Command(encoder, plans[count - 2], restart)


class Bucket:
    """The objects of an example, and what must hold of them."""

    def __init__(self, plans: list[Plan], choices: list[tuple[int, int]], is_exact: bool = True) -> None:
        self.order = Order(choices, self.check)
        self.objects = MemoryObjects(is_exact, lambda: self.order.step("between a look and a write"))
        self.plans, self.wrong = {len(plan.units): plan for plan in plans}, list[str]()

    def play(self, *commands: Command, beats: int = 1) -> dict[str, str]:
        """Run them together; how each ended."""
        order, beating, ends = self.order, Beats(self.order), dict[str, str]()
        objects = Ordered(self.objects, order)
        names = [f"{number}, {each.encoder}{' restart' * each.restart}" for number, each in enumerate(commands)]

        def act(name: str, command: Command) -> None:
            ends[name] = command.run(objects)

        actors = {name: lambda n=name, c=each: act(n, c) for name, each in zip(names, commands, strict=True)}
        actors |= {f"beat {number}": beating.beat for number in range(beats)}
        with in_order(order, beating):
            order.play(actors)
        assert set(ends) == set(names), (ends, order.steps[-10:])
        return ends

    def then(self, choices: list[tuple[int, int]]) -> None:
        """What is played from now on comes in this order."""
        self.order = Order(choices, self.check, self.order.seconds + 1000)

    def stands(self) -> tuple[str, int]:
        """The encoder of the job that stands, and of how many parts it is."""
        job = json.loads(self.objects.held["out/__scanrnn/job.json"])
        return job["encoder"]["fingerprint"], 2 if job["options"]["rows_per_part"] == 3 else 3

    def parts(self) -> dict[str, bytes]:
        return {key[4:]: content for key, content in self.objects.held.items() if key.startswith("out/part-")}

    def check(self) -> None:
        """What a reader may see."""
        if "out/_SUCCESS" in self.objects.held and "out/__scanrnn/job.json" not in self.objects.held:
            self.wrong.append(f"_SUCCESS of no job after {self.order.steps[-8:]}")
        elif "out/_SUCCESS" in self.objects.held and not self.wrong:
            encoder, count = self.stands()
            command = Command(encoder, self.plans[count])
            expected = {part_name(unit, count): command.part(unit) for unit in range(count)}
            if (parts := self.parts()) != expected:
                self.wrong.append(f"_SUCCESS of {encoder} beside {parts} after {self.order.steps[-8:]}")

    def end(self) -> None:
        """Once more, alone, whatever stands."""
        assert not self.wrong, self.wrong
        ended = ""
        for _ in range(2):  # the first may end the publication of another one
            self.then([])
            encoder, count = self.stands()
            (ended,) = self.play(Command(encoder, self.plans[count]), beats=0).values()
        assert ended == "done" and "out/_SUCCESS" in self.objects.held, ended
        assert not self.wrong, self.wrong


CHOICES = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60)), max_size=40)


@given(CHOICES)
def test_two_different_jobs(plans: list[Plan], choices: list[tuple[int, int]]) -> None:
    bucket = Bucket(plans, choices)
    ends = bucket.play(told(plans, "A", 2), told(plans, "B", 3))
    bucket.end()
    assert "done" in ends.values() or all(end.startswith("StoppedError") for end in ends.values()), ends


@given(CHOICES)
def test_two_restarts(plans: list[Plan], choices: list[tuple[int, int]]) -> None:
    bucket = Bucket(plans, [])
    assert set(bucket.play(told(plans, "A", 3), beats=0).values()) == {"done"}
    bucket.then(choices)
    ends = bucket.play(told(plans, "B", 2, restart=True), told(plans, "C", 3, restart=True), told(plans, "A", 3))
    bucket.end()
