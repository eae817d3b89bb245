"""A Ray cluster: a pool of workers that are actors, placed and kept by Ray.

Ray decides where an actor runs, waits for nodes that are still to come, and tells of those that died. Which units an
actor does, the driver tells (`job/hand_out.py`); the records, and so `status` and a resume by any other executor, are
the same as without Ray.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Answer, HandOut, WorkerDied
from scanrnn_dist.launch.ray_actor import Actor, Said
from scanrnn_dist.launch.ray_cluster import Cluster
from scanrnn_dist.observe import MEMORY_SHARE

PATIENCE_SECONDS = 10.0
"""A person is told after so long that workers wait for a place, and again after twice that, and so on."""

logger = logging.getLogger("scanrnn_dist")


class RayExecutor(HandOut):
    """Workers that are actors of a Ray cluster. Ray is begun, or reached, when there is work to do.

    Args:
        address: of the cluster, as of `ray.init`: "local" for a new one on this machine; None for the one that
            `RAY_ADDRESS` names or that was started here by `ray start`, else a new one. Where this process has begun
            Ray already, that is used, and left running at the end.
        workers: how many actors; as many as the cluster has room for when the job begins, if None.
        cpus_per_worker: CPUs that Ray sets aside for each, which are its CPU devices.
        gpus_per_worker: GPUs of each; 1 suits, since a process that feeds one is busy. With 0 they compute on CPUs.

    Raises:
        ConfigError: Ray is not installed, an address of Ray Client, or numbers below 1 (of GPUs, below 0). When it is
            used: the cluster cannot be reached, or has no room for one worker.

    Example:
        >>> executor = RayExecutor("10.0.0.1:6379", workers=16, gpus_per_worker=1)  # doctest: +SKIP
        >>> featurize(encoder, "s3://bucket/in", "s3://bucket/out", executor=executor)  # doctest: +SKIP
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus_per_worker: int = 1,
        gpus_per_worker: int = 0,
    ) -> None:
        self._actors = RayPool(address, workers, cpus_per_worker, gpus_per_worker)
        super().__init__(self._actors)

    def close(self, reason: str) -> None:
        """As of all; and Ray ends, if it was begun here."""
        try:
            super().close(reason)
        finally:
            self._actors.leave()


class RayPool:
    """The actors, as `HandOut` asks them; for the arguments see `RayExecutor`."""

    has_own_processes = True

    def __init__(self, address: str | None, workers: int | None, cpus_per_worker: int, gpus_per_worker: int) -> None:
        for name, number, least in (
            ("workers", 1 if workers is None else workers, 1),
            ("cpus_per_worker", cpus_per_worker, 1),
            ("gpus_per_worker", gpus_per_worker, 0),
        ):
            if number < least:
                raise ConfigError(f"{name} is {number}; expected {least} or more.")
        self._cluster = Cluster(address)
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("Ray is not installed; expected the extra: pip install -e '.[ray]'.")
        self._workers, self._cpus, self._gpus = workers, cpus_per_worker, gpus_per_worker
        self._count: int | None = None
        self._actors: dict[int, Any] = {}
        self._asked: dict[int, deque[Future[Any]]] = {}
        self._answered = queue.SimpleQueue[int]()  # workers that have answered something; told by a thread of Ray's
        self._stored: dict[int, tuple[Any, Any]] = {}
        self._waiting: dict[int, float] = {}  # workers that have not answered yet, and since when
        self._patience_seconds = PATIENCE_SECONDS
        self._started = 0

    @property
    def count(self) -> int:
        """So many actors as were asked for, or as there is room for."""
        if self._count is None:
            self._count = self._workers or self._cluster.room(self._cpus, self._gpus)
        return self._count

    @property
    def memory_bytes(self) -> int | None:
        """What reading may hold: an eighth of what the actor may use, which is an even share of its node's."""
        memory = self._cluster.memory_bytes(self._cpus, self._gpus)
        return None if memory is None else max(1, memory // MEMORY_SHARE)

    def start(self) -> int:
        """Ask Ray for one more actor; its number."""
        self._started += 1
        self._asked[self._started] = deque()
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_restarts": 0}
        actor = self._cluster.ray.remote(Actor).options(**options)
        self._actors[self._started] = actor.remote(self._cpus, self._gpus)
        self._waiting[self._started] = time.monotonic()
        return self._started

    def ask(self, worker: int, question: str, *given: Any) -> None:
        """Call an actor, which answers in the order of the calls."""
        if question == "takes":  # all are told the same, an encoder of many MB with it
            given = tuple(map(self._once, given))
        future = self._actors[worker].answer.remote(question, *given).future()
        self._asked[worker].append(future)
        # Not `ray.wait`, which swallows what a handler of signals raises, and looks at all that is asked each time.
        future.add_done_callback(lambda _: self._answered.put(worker))

    def wait(self, seconds: float | None = None) -> tuple[int, Answer | WorkerDied] | None:
        """The next answer of any actor, or its death."""
        while True:
            try:
                worker = self._answered.get(timeout=PATIENCE_SECONDS if seconds is None else seconds)
            except queue.Empty:
                if seconds is not None:
                    return None
                worker = 0
            if seconds is None and self._cluster.head_answers():
                self._tell_who_waits()
            asked = self._asked.get(worker)
            if not asked or not asked[0].done():  # it was stopped, or the one before is still on its way
                continue
            future = asked.popleft()
            if asked and asked[0].done():
                self._answered.put(worker)
            return worker, self._heard(worker, future)

    def stop(self, worker: int) -> None:
        """Have Ray end an actor."""
        self._asked.pop(worker, None)
        self._waiting.pop(worker, None)
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._cluster.ray.kill(actor)

    def leave(self) -> None:
        """End Ray, if it was begun here; another job would begin it again."""
        self._stored.clear()
        self._count, self._patience_seconds = None, PATIENCE_SECONDS
        self._cluster.leave()

    def _heard(self, worker: int, future: Future[Any]) -> Answer | WorkerDied:
        """What came of a call."""
        errors = self._cluster.ray.exceptions
        try:
            said: Said = future.result()
        except errors.RayActorError as error:
            if error.actor_init_failed:  # it stays: more is asked of it, were it only to end
                told = ConfigError(
                    "A node of the Ray cluster cannot begin a worker. All nodes need the same scanrnn_dist with its "
                    f"dependencies. Ray says: {_last_line(error)}"
                )
                return Answer(error=told)
            self.stop(worker)  # one that cannot be reached may live on
            return WorkerDied(_in_short(error))
        except errors.RayTaskError as error:
            return Answer(defect=str(error))
        except errors.RayError as error:  # such as an answer that was lost with its node
            self.stop(worker)
            return WorkerDied(_in_short(error))
        self._waiting.pop(worker, None)
        for level, message in said.warnings:
            logger.log(level, "%s", message)
        return said.answer

    def _once(self, value: Any) -> Any:
        """A reference to what is kept in Ray's store, put there the first time."""
        if id(value) not in self._stored:
            self._stored[id(value)] = value, self._cluster.ray.put(value)
        return self._stored[id(value)][1]

    def _tell_who_waits(self) -> None:
        """Say that workers have had no place for long, as where the cluster is busy or too small."""
        waits_since = min(self._waiting.values(), default=None)
        if waits_since is None or time.monotonic() - waits_since < self._patience_seconds:
            return
        logger.warning(
            "%d of %d workers are not up after %.0f s. Each takes %d CPUs and %d GPUs of one node; the Ray cluster has "
            "%s. %s",
            *(len(self._waiting), len(self._actors), self._patience_seconds, self._cpus, self._gpus),
            self._cluster.free(),
            "The others go on." if len(self._waiting) < len(self._actors) else "Nothing is done before one is up.",
        )
        self._patience_seconds *= 2


_NAMES = ("class_name:", "actor_id:", "namespace:", "name:")


def _in_short(error: Exception) -> str:
    """An error of Ray's as one line, without what names nothing that the reader knows."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if not line.startswith(_NAMES))[:300]


def _last_line(error: Exception) -> str:
    """What a traceback ends with."""
    return str(error).strip().splitlines()[-1].strip()[:300]
