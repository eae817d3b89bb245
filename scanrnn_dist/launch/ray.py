"""A Ray cluster: a pool of workers that are actors, placed and kept by Ray.

Ray decides where an actor runs, waits for nodes that are still to come, and tells of those that died. Which units an
actor does, the driver tells (`job/hand_out.py`); the records, and so `status` and a resume by any other executor, are
the same as without Ray.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import Any

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Answer, HandOut, UnitWorker, WorkerDied


class RayExecutor(HandOut):
    """Workers that are actors of a Ray cluster.

    Args:
        address: of the cluster, as of `ray.init`; None for the one that this process is in or finds, else a new one on
            this machine. Where Ray was begun in this process already, that is used.
        workers: how many actors; as many as the cluster has room for now when None.
        cpus_per_worker: CPUs that Ray sets aside for each, which are its CPU devices.
        gpus_per_worker: GPUs of each; 1 suits, since a process that feeds one is busy.

    Raises:
        ConfigError: Ray is not installed, cannot be reached, or has no room for one worker.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus_per_worker: int = 1,
        gpus_per_worker: int = 0,
    ) -> None:
        super().__init__(RayPool(address, workers, cpus_per_worker, gpus_per_worker))


class RayPool:
    """The actors, as `HandOut` asks them; for the arguments see `RayExecutor`."""

    has_own_processes = True
    memory_bytes: int | None = None

    def __init__(self, address: str | None, workers: int | None, cpus_per_worker: int, gpus_per_worker: int) -> None:
        self._ray = ray = _started(address)
        room = ray.cluster_resources()
        rooms = [int(room.get("CPU", 0)) // max(1, cpus_per_worker)]
        rooms += [int(room.get("GPU", 0)) // gpus_per_worker] if gpus_per_worker else []
        self.count = workers if workers is not None else min(rooms)
        if self.count < 1:
            raise ConfigError(
                f"The Ray cluster has {room.get('CPU', 0):g} CPUs and {room.get('GPU', 0):g} GPUs; a worker takes "
                f"{cpus_per_worker} CPUs and {gpus_per_worker} GPUs. Ask for less, or say --workers to wait for nodes."
            )
        options = {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker, "max_restarts": 0}
        self._actor = ray.remote(_Actor).options(**options)
        self._devices = cpus_per_worker
        self._actors: dict[int, Any] = {}
        self._asked: dict[int, deque[Any]] = {}
        self._started = 0

    def start(self) -> int:
        """Ask Ray for one more actor; its number."""
        self._started += 1
        self._actors[self._started] = self._actor.remote(self._devices)
        self._asked[self._started] = deque()
        return self._started

    def ask(self, worker: int, question: str, *given: Any) -> None:
        """Call an actor, which answers in the order of the calls."""
        self._asked[worker].append(self._actors[worker].answer.remote(question, given))

    def wait(self, seconds: float | None = None) -> tuple[int, Answer | WorkerDied] | None:
        """The next answer of any actor, or its death."""
        first = {asked[0]: worker for worker, asked in self._asked.items() if asked}
        ready, _ = self._ray.wait(list(first), num_returns=1, timeout=seconds)
        if not ready:
            return None
        worker = first[ready[0]]
        self._asked[worker].popleft()
        try:
            return worker, self._ray.get(ready[0])
        except self._ray.exceptions.RayActorError as error:
            self._actors.pop(worker)
            self._asked.pop(worker)
            return worker, WorkerDied(" ".join(str(error).split())[:300])

    def stop(self, worker: int) -> None:
        """Have Ray end an actor."""
        self._asked.pop(worker, None)
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor)


class _Actor:
    """A worker within Ray."""

    def __init__(self, devices: int) -> None:
        # Before JAX is started: Ray counts CPUs and pins nothing, so that JAX would take all cores.
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(devices))
        self._worker = UnitWorker()

    def answer(self, question: str, given: tuple[Any, ...]) -> Answer:
        """As `UnitWorker.answer`."""
        return self._worker.answer(question, given)


def _started(address: str | None) -> Any:
    """Ray, begun in this process."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed; expected the extra: pip install 'scanrnn_dist[ray]'.") from error
    if not ray.is_initialized():
        try:
            ray.init(address, logging_level=logging.WARNING, include_dashboard=False if address is None else None)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"The Ray cluster cannot be reached: {' '.join(str(error).split())[:300]}") from error
    return ray
