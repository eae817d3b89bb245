"""Commands that work on one destination in a bucket at once, step by step in an order that a test chooses.

A step is one request; between two of them any other command may be next, for as long as the order says, so that each
command is also one that sleeps while the others go on. The clock moves only when a command waits: who waits for a lease
long enough takes it over from one that sleeps. Beats of leases are steps as well, and come in any order. All else is
the real thing: `run_job` with its leases, records, restarts and publications, but for the features, which are a line
that says whose they are.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import IO, Any

import pyarrow as pa

from scanrnn_dist.errors import ScanRNNError
from scanrnn_dist.job import Handling, JobOptions, Sharing, held_share, restart, work
from scanrnn_dist.job.pipeline import Done, begun_units
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.records import PartRecord, lease, part_name, workers
from scanrnn_dist.storage import ObjectStore, new_attempt
from scanrnn_dist.storage.objects import Objects

EXPIRY_SECONDS = 60.0
MOST_STEPS = 20_000
"""More of them are a command that hangs."""
HURRY = 100
"""So much faster than they ask for do waiting commands see the time pass, which saves steps."""


class MemoryObjects(Objects):
    """A bucket of S3, as it answers: versions are hashes of the content. One without conditions looks, then writes."""

    def __init__(self, is_exact: bool = True, between: Callable[[], None] = lambda: None) -> None:
        self.held: dict[str, bytes] = {}
        self._is_exact, self._between = is_exact, between

    def get(self, key: str) -> tuple[bytes, str]:
        if key not in self.held:
            raise FileNotFoundError(key)
        return self.held[key], _hash(self.held[key])

    def open(self, key: str) -> pa.NativeFile:
        return pa.BufferReader(self.get(key)[0])

    def version(self, key: str) -> str | None:
        return _hash(self.held[key]) if key in self.held else None

    def files(self, folder: str, is_deep: bool) -> Iterator[tuple[str, int]]:
        begin, found = f"{folder}/".lstrip("/"), {}
        for key, content in self.held.items():
            if key.startswith(begin):
                name, slash, _ = key[len(begin) :].partition("/")
                is_below = bool(slash) and not is_deep
                found[f"{begin}{name}/" if is_below else key] = 0 if is_below else len(content)
        yield from sorted(found.items())

    def put(self, key: str, content: bytes) -> None:
        self.held[key] = content

    def create(self, key: str, content: bytes) -> bool:
        return self._if(key, None, lambda: self.put(key, content)) or self.held.get(key) == content

    def replace(self, key: str, content: bytes, version: str) -> bool:
        return self._if(key, version, lambda: self.put(key, content)) or self.held.get(key) == content

    def upload(self, key: str, file: IO[bytes], size: int) -> None:
        file.seek(0)
        self.put(key, file.read())

    def copy(self, old: str, new: str, version: str | None = None) -> bool:
        def copy() -> None:
            self.held[new] = self.get(old)[0]

        if version is not None:
            return self._if(old, version, copy)
        copy()
        return True

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self.held.pop(key, None)

    def remove(self, key: str, version: str) -> None:
        self._if(key, version, lambda: self.delete([key]))

    def heeds_conditions(self, key: str, content: bytes) -> bool:
        return True  # a warning, but for one that does not

    def _if(self, key: str, version: str | None, then: Callable[[], None]) -> bool:
        is_met = self.version(key) == version
        if is_met and not self._is_exact:
            self._between()
        if is_met:
            with suppress(FileNotFoundError):
                then()
        return is_met


def _hash(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


# The order ------------------------------------------------------------------------------------------------------------


class Abandoned(BaseException):
    """In place of the end of a command that an example has no more use for."""


class Order:
    """Lets one of several threads go on at a time, up to its next step, as `choices` say; then one after the other.

    Args:
        choices: who is next, by the place among those that are not at their end, and for how many steps; or, by the
            place among all, up to a step whose name has a text in it.
        after_each: called between any two steps.
        at: what the clock shows, in seconds.
    """

    def __init__(
        self, choices: Sequence[tuple[int, int | str]], after_each: Callable[[], None], at: float = 1e9
    ) -> None:
        self.seconds, self.steps = at, list[str]()
        self._after_each = after_each
        self._choices: deque[tuple[int, int | str]] = deque(choices)
        self._pending: dict[str, str] = {}
        self._turns: dict[str, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self._at_end: set[str] = set()
        self._is_over, self._turn = False, 0

    def step(self, what: str = "") -> None:
        """Wait for the next turn of the calling thread; of one that is not in the order, do not."""
        name = threading.current_thread().name
        if name not in self._turns or self._is_over:
            return
        self._pending[name] = what
        self._back.release()
        self._turns[name].acquire()
        if self._is_over:
            raise Abandoned
        self.steps.append(f"{name}: {what}")
        self.seconds += 0.001

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.step("sleep")
        self.seconds += HURRY * seconds

    def play(self, actors: dict[str, Callable[[], None]]) -> None:
        """Have all of them run to their ends; those whose names begin with "beat" only as long as the others do."""

        def run(name: str, act: Callable[[], None]) -> None:
            self._turns[name].acquire()
            try:
                if not self._is_over:
                    act()
            except Abandoned:
                pass
            finally:
                self._at_end.add(name)
                self._back.release()

        self._turns = {name: threading.Semaphore(0) for name in actors}
        threads = {name: threading.Thread(target=run, args=(name, act), name=name) for name, act in actors.items()}
        for thread in threads.values():
            thread.start()
        try:
            while living := [name for name in actors if name not in self._at_end]:
                if all(name.startswith("beat") for name in living):
                    break
                self._turns[self._next(list(actors), living)].release()
                self._back.acquire()
                self._after_each()
                assert len(self.steps) < MOST_STEPS, self.steps[-20:]
        finally:
            self._is_over = True
            for name in threads:
                self._turns[name].release()
            for thread in threads.values():
                thread.join()

    def _next(self, actors: list[str], living: list[str]) -> str:
        """Whose turn it is."""
        while self._choices:
            who, what = self._choices[0]
            if isinstance(what, int):
                self._choices.popleft()
                self._choices.extendleft([(who, what - 1)] * (what > 1))
                return living[who % len(living)]
            if actors[who] in living and what not in self._pending.get(actors[who], ""):
                return actors[who]
            self._choices.popleft()
        self._turn += 1
        return living[self._turn % len(living)]


class Ordered(Objects):
    """Objects whose every request waits for its turn."""

    def __init__(self, within: Objects, order: Order) -> None:
        self._within, self._order = within, order


def _in_order(call: str) -> Any:
    def asked(self: Ordered, *given: Any, **named: Any) -> Any:
        path = given[1] if call == "copy" else given[0]
        self._order.step(f"{call} {path}")
        does = getattr(self._within, call)(*given, **named)
        return iter(list(does)) if call == "files" else does

    return asked


for _call in Objects.__abstractmethods__ | {"heeds_conditions", "exists", "read", "remove"}:
    setattr(Ordered, _call, _in_order(_call))
Ordered.__abstractmethods__ = frozenset()


# What is played -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """`scanrnn featurize` with an encoder, told by a letter, and parts of so many rows."""

    encoder: str
    plan: Any
    restart: bool = False
    share: tuple[int, int] = (1, 1)

    def part(self, unit: int) -> bytes:
        """What the part of a unit holds."""
        return f"{self.encoder}, {len(self.plan.units)} parts: {unit}".encode() * 3

    def run(self, objects: Objects) -> str:
        """How it ended."""
        store = ObjectStore("/bucket/out", new_attempt(), objects, "out")
        sharing = Sharing(self.share, expiry_seconds=EXPIRY_SECONDS)
        handling = Handling(sharing=sharing, restart=self.restart)
        options = JobOptions(rows_per_part=self.plan.rows_per_part)
        try:
            work.run_job(store, self.plan, options, handling, _Computation(self.encoder), executor=_Writing(self))
        except ScanRNNError as error:
            return f"{type(error).__name__}: {error}"
        return "done"


@dataclass(frozen=True)
class Removal:
    """Somebody removes the destination."""

    held: dict[str, bytes]
    encoder: str = "nothing"
    restart: bool = False

    def run(self, objects: Any) -> str:
        """Remove it."""
        objects.version("out/all of it")
        self.held.clear()
        return "removed"


@dataclass
class _Computation:
    """What stands for an encoder and devices."""

    encoder: str
    stage: Any = None
    input: Any = None

    def is_known(self, job: Any) -> bool:
        return bool(job["encoder"]["fingerprint"] == self.encoder)

    def is_recorded(self, job: Any, in_features: Any) -> bool:
        return self.is_known(job)

    def described(self, in_features: Any, like: Any = None) -> dict[str, Any]:
        return {
            "encoder": {"fingerprint": self.encoder, "architecture": {}},
            "window": vars(WindowShape(4, 4, 8)), "environment": {"device_kind": "cpu"},
        }  # fmt: skip

    def engine(self, own_carries: bool, keep_state: bool) -> Any:
        return SimpleNamespace(
            devices=1, flops_per_step=1, gives_steps=False, in_features=2, is_static=False, kernel="none",
            shape=WindowShape(1, 1, 1),
        )  # fmt: skip

    def encoder_content(self) -> bytes:
        return f"the encoder {self.encoder}".encode()


@dataclass
class _Writing:
    """An executor that has all parts at hand."""

    command: Command
    at_once: int = 1

    def computation(self, asked: Any) -> Any:
        return asked

    def do(self, opened: Any, handling: Any, claims: Any, numbers: Any, alone: bool) -> Done:
        records, count = opened.records, len(opened.plan.units)
        for unit in begun_units(opened.plan.units, numbers, alone, claims.log):
            content = self.command.part(unit.index)
            name = part_name(unit.index, count)
            file = records.store.new_file(name)
            try:
                file.write(content)
                file.commit(claims.check_job)
            except BaseException:
                file.abandon()
                raise
            records.check_named(opened.job, name)
            record = PartRecord(unit.index, unit.rows, len(content), hashlib.sha256(content).hexdigest())
            claims.log.commit(record)
            claims.committed(unit, record)
        return Done()

    def close(self, reason: str) -> None:
        pass


@dataclass
class Beats:
    """The threads of leases: what each of them does at its times is done in the order."""

    order: Order
    leases: list[Any] = field(default_factory=list)
    in_flight: set[int] = field(default_factory=set)

    def beat(self) -> None:
        """Beat for whichever lease is held, again and again."""
        number = 0
        while True:
            self.order.step("which lease")
            held = [each for each in self.leases if not each._released.is_set() and not each.is_lost]
            if held:
                number += 1
                lease = held[number % len(held)]
                self.in_flight.add(id(lease))
                try:
                    with suppress(ScanRNNError):
                        lease.beat()
                finally:
                    self.in_flight.discard(id(lease))


@contextmanager
def in_order(order: Order, beats: Beats) -> Iterator[None]:
    """The clock and the threads of leases are those of the order."""

    class Thread:
        """In place of that of a lease."""

        def __init__(self, target: Any, **_: Any) -> None:
            self._lease = target.__self__

        def start(self) -> None:
            beats.leases.append(self._lease)

        def join(self) -> None:
            while id(self._lease) in beats.in_flight:
                order.step("join")

    clock = SimpleNamespace(time=lambda: order.seconds, monotonic=lambda: order.seconds, sleep=order.sleep)
    patched = [(lease, "time", clock), (workers, "time", clock), (held_share, "time", clock)]
    patched += [
        (restart, "time", clock),
        (lease, "threading", SimpleNamespace(Thread=Thread, Lock=threading.Lock, Event=threading.Event)),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in patched]
    for module, name, other in patched:
        setattr(module, name, other)
    try:
        yield
    finally:
        for module, name, was in before:
            setattr(module, name, was)
