"""The driver of a job whose units are done by workers: it hands units to whoever asks, the longest first.

It holds the job's one lease, and needs no device: what the job is computed with is asked of a worker. A worker that
died is replaced; what it had in hand is left to the next round of `attempt.py`, which knows what was committed, and has
units that may end their process done alone. Which workers there are, and how questions reach them, is for the pools in
`launch/`; what a worker does is `worker.py`'s.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.attempt import Attempt
from scanrnn_dist.job.computation import Computation, InFeatures
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.job.open_job import OpenJob
from scanrnn_dist.job.options import Handling
from scanrnn_dist.job.pipeline import Done
from scanrnn_dist.job.worker import Answer, EngineFacts, Orders, Task
from scanrnn_dist.protocols import Stage
from scanrnn_dist.records import JobRecords
from scanrnn_dist.storage import LocalStore

AT_A_TIME = 16
"""A worker that asks gets so small a part of what an even share of the steps left would be: many units at first, single
ones at the end, so that all workers end together (guided self-scheduling; Polychronopoulos and Kuck, 1987)."""
NEWS_SECONDS = 0.5
"""A worker that needs nothing tells what happened so often; of many workers, each more seldom."""
NEWS_PER_SECOND = 200
STARTS_FAILED = 3
"""So many more deaths than workers, one after the other and before one could begin, end the job."""
DEATHS_IN_VAIN = 10
"""So many deaths of each worker, one after the other and no unit done meanwhile, end the job."""
END_SECONDS = 15.0
"""So long workers may take to end in order; then they are ended."""

logger = logging.getLogger("scanrnn_dist")


class WorkerDied(Exception):
    """A worker is not there any more; the text says what is known of its end."""


class Pool(Protocol):
    """Workers that can be asked; one pool serves one job."""

    has_own_processes: bool
    """Whether a worker's process is there for it alone."""

    @property
    def memory_bytes(self) -> int | None:
        """An eighth of what each may use, where they share a machine; None for one of what it finds."""

    @property
    def count(self) -> int:
        """How many work at the same time; some may have to wait for a place."""

    def start(self) -> Any:
        """Begin one more, and name it; whether it comes up, `wait` tells."""

    def ask(self, worker: Any, question: str, *given: Any) -> None:
        """Ask a worker; its answers come in the order of the questions."""

    def wait(self, seconds: float | None = None) -> tuple[Any, Answer | WorkerDied] | None:
        """The next answer of any worker, or its death, which is told once; None after so many seconds."""

    def stop(self, worker: Any) -> None:
        """End a worker, whatever it does."""


@dataclass
class _Hand:
    """One worker, as its driver sees it."""

    worker: Any
    attempt: str = ""  # its name, once it has begun
    replaces: str = ""  # the name of the one that died, whose place it took
    questions: deque[str] = field(default_factory=deque)  # that it has not answered
    is_in_round: bool = False


class UnitsLeft:
    """Units that nobody has, the longest first; `values` of all units of the job.

    Those within a factor of two keep their order, so that a worker gets units of one file, which it opens once.
    """

    def __init__(self, numbers: Sequence[int], values: Sequence[int] | np.ndarray) -> None:
        self._numbers = deque(sorted(map(int, numbers), key=lambda unit: (-int(values[unit]).bit_length(), unit)))
        self._values, self._sum = values, sum(int(values[unit]) for unit in self._numbers)

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def take(self, part: float | None) -> tuple[int, ...]:
        """As many units as hold this part of the values left, one at least, if there is one; one if None."""
        least, units = self._sum - (part or 0.0) * self._sum, list[int]()
        while self._numbers:
            after = self._sum - int(self._values[self._numbers[0]])
            if units and (part is None or after < least):
                break
            units.append(self._numbers.popleft())
            self._sum = after
        return tuple(units)


class HandOut:
    """An `Executor` whose work is done by the workers of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._hands: list[_Hand] = []
        self._asked: Computation | None = None
        self.width: int | None = None  # features per step of the source, where they matter

    @property
    def at_once(self) -> int:
        """As many as there are workers."""
        return self._pool.count

    def computation(self, asked: Computation) -> Computation:
        """What workers say of it; begins a job."""
        self._asked = asked
        self._starts_failed = self._deaths_in_vain = 0
        return _Elsewhere(asked, self)

    def one_says(self, question: str, *given: Any) -> Any:
        """The answer of any worker to a question that all would answer alike."""
        self._start_missing()
        asked: _Hand | None = None
        while True:
            if asked not in self._hands:  # nobody yet, or it died
                asked = next((hand for hand in self._hands if not hand.questions), None)  # one that is up
                if asked is not None:
                    self._ask(asked, question, *given)
            told = self._next()
            if told is not None and told[0] is asked and told[1] == question:
                return told[2]

    def do(
        self,
        opened: OpenJob,
        handling: Handling,
        attempt: Attempt,
        numbers: Sequence[int],
        alone: bool,
    ) -> Done:
        """Hand these units to the workers until all are done, or lost with a worker."""
        left, done = UnitsLeft(numbers, opened.plan.units.values), Done()
        self._attempt, self._task = attempt, self._task_of(opened, handling, attempt)
        self._start_missing()
        for hand in self._hands:
            if hand.attempt:
                self._give(hand, left, alone)
            elif "begin" not in hand.questions:
                self._begin(hand)
        while left or any(hand.is_in_round for hand in self._hands):
            told = self._next()
            if told is None:
                continue
            hand, question, value = told
            if question == "begin":
                hand.attempt, self._starts_failed = value, 0
                attempt.helpers.add(value)
                self._give(hand, left, alone)
            elif question == "exchange":
                self._take_in(value.events, opened)
                if value.done is not None:
                    done += value.done
                    hand.is_in_round = False
                    self._give(hand, left, alone)  # if fewer workers are up than there are units to be done alone
                elif value.wants:
                    self._give(hand, left, alone)
                else:
                    self._order(hand, (), is_last=alone, alone=alone)
        return done

    def close(self, reason: str) -> None:
        """Have all workers end, in order where they can; the second time there is nobody left.

        Those that are not up yet, as where a cluster has no room for them, are not waited for.
        """
        until = time.monotonic() + END_SECONDS
        try:
            for hand in self._hands:
                if hand.attempt or "begin" in hand.questions:
                    self._ask(hand, "end", reason)
            asked = {hand.worker: hand for hand in self._hands if "end" in hand.questions}
            while any("takes" not in hand.questions for hand in asked.values()):
                if (told := self._pool.wait(max(0.0, until - time.monotonic()))) is None:
                    break
                worker, answer = told
                if worker in asked and (isinstance(answer, WorkerDied) or asked[worker].questions.popleft() == "end"):
                    del asked[worker]
        finally:
            hands, self._hands = self._hands, []
            for hand in hands:
                self._pool.stop(hand.worker)

    def _task_of(self, opened: OpenJob, handling: Handling, attempt: Attempt) -> Task:
        memory = Memory(handling.memory_bytes, self._pool.memory_bytes)
        return Task(
            opened.destination, _found_from_anywhere(opened.records), opened.job, opened.options, attempt.share, memory,
            handling.allow_mixed, self._pool.has_own_processes,
        )  # fmt: skip

    def _start_missing(self) -> None:
        first_new = len(self._hands)
        while len(self._hands) < self._pool.count:
            self._hands.append(_Hand(self._pool.start()))
        for hand in self._hands[first_new:]:  # one whose pipe is too small for an encoder is waited for
            self._ask(hand, "takes", self._asked)

    def _begin(self, hand: _Hand) -> None:
        self._ask(hand, "begin", self._task, self.width, hand.replaces)

    def _give(self, hand: _Hand, left: UnitsLeft, alone: bool) -> None:
        """Give a worker its next units, if there are some; it has to hear that there are none."""
        if left or hand.is_in_round:
            units = left.take(None if alone else 1 / (AT_A_TIME * self._pool.count))
            self._attempt.handed |= dict.fromkeys(units, hand.attempt)
            self._order(hand, units, is_last=alone or not left, alone=alone)

    def _order(self, hand: _Hand, units: tuple[int, ...], is_last: bool, alone: bool) -> None:
        """Have a worker do these units too, and tell what happened."""
        seconds = max(NEWS_SECONDS, self._pool.count / NEWS_PER_SECOND)
        hand.is_in_round = True
        self._ask(hand, "exchange", Orders(units, is_last, alone, seconds))

    def _take_in(self, events: Sequence[Any], opened: OpenJob) -> None:
        """Tell the attempt what became of units."""
        for event in events:
            unit = opened.plan.units[event.unit]
            getattr(self._attempt, event.what)(unit, *event.given)
            if event.what in ("committed", "failed"):
                self._deaths_in_vain = 0
        self._attempt.tell()

    def _ask(self, hand: _Hand, question: str, *given: Any) -> None:
        hand.questions.append(question)
        self._pool.ask(hand.worker, question, *given)

    def _next(self) -> tuple[_Hand, str, Any] | None:
        """The next answer: of whom, to which question, what; None after a death, which is dealt with.

        Raises:
            ScanRNNError: a worker could not do what it was asked.
            StoppedError: workers die again and again.
        """
        told = self._pool.wait()
        assert told is not None, "it waits for ever"
        worker, answer = told
        hand = next((hand for hand in self._hands if hand.worker == worker), None)
        if hand is None:
            return None
        if isinstance(answer, WorkerDied):
            self._bury(hand, str(answer))
            return None
        question = hand.questions.popleft()
        if answer.error is not None:
            raise answer.error
        if answer.defect:
            raise RuntimeError(f"A worker met a defect:\n{answer.defect}")
        return hand, question, answer.value

    def _bury(self, hand: _Hand, reason: str) -> None:
        """Leave the units of a worker that died to the next round, and have another one take its place."""
        self._hands.remove(hand)
        self._starts_failed += not hand.attempt
        self._deaths_in_vain += 1
        logger.warning("The worker %s died: %s. Another one takes its place.", hand.attempt or hand.worker, reason)
        has_no_hope = self._starts_failed >= STARTS_FAILED + self._pool.count
        if has_no_hope or self._deaths_in_vain > DEATHS_IN_VAIN * self._pool.count:
            raise StoppedError(
                f"Workers die again and again; the last one said: {reason}. What was saved stays saved. Remove the "
                "cause, then run the same command again."
            )
        self._start_missing()
        self._hands[-1].replaces = hand.attempt or hand.replaces
        if hand.attempt:
            self._attempt.lost(hand.attempt)
        if hand.attempt or "begin" in hand.questions:
            self._begin(self._hands[-1])


class _Elsewhere:
    """A `Computation` that workers have; nothing of it is started here."""

    def __init__(self, asked: Computation, workers: HandOut) -> None:
        self._asked, self._workers = asked, workers
        # Of what, since any worker may be asked next.
        self._described: tuple[int | None, Mapping[str, Any] | None] = (None, None)

    @property
    def stage(self) -> Stage:
        """Names nothing: no stage is worked on here."""
        return nullcontext

    @property
    def input(self) -> InputSpec | None:
        """What a step holds."""
        return self._asked.input

    def is_known(self, job: Mapping[str, Any]) -> bool | None:
        """The same as `is_recorded`, as far as it can be told without devices."""
        return self._asked.is_known(job)

    def is_recorded(self, job: Mapping[str, Any], in_features: InFeatures) -> bool:
        """Whether the job of a record is of this encoder; no worker is asked where the same was asked for before."""
        known = self._asked.is_known(job)
        if known is None:
            known = bool(self._workers.one_says("is_recorded", job, self._note_width(in_features)))
        return known

    def described(self, in_features: InFeatures, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All that the bits of the features depend on."""
        self._described = self._note_width(in_features), like
        told: dict[str, Any] = self._workers.one_says("described", *self._described)
        return told

    def engine(self, own_carries: bool, keep_state: bool) -> EngineFacts:
        """What is known of the engine."""
        facts: EngineFacts = self._workers.one_says("engine", own_carries, keep_state, *self._described)
        return facts

    def encoder_content(self) -> bytes | None:
        """The file of the encoder."""
        content: bytes | None = self._workers.one_says("encoder_content", *self._described)
        return content

    def _note_width(self, in_features: InFeatures) -> int | None:
        """Note down the features per step of the source, where workers have to know them."""
        self._workers.width = in_features() if self.input is None else None
        return self._workers.width


def _found_from_anywhere(records: JobRecords) -> JobRecords:
    """The records as a worker finds them that was started in another folder; what guards them stays with the driver."""
    store = records.store
    return JobRecords(replace(store, root=os.path.abspath(store.root)) if isinstance(store, LocalStore) else store)
