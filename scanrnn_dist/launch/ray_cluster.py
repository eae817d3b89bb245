"""The connection to a Ray cluster: found or begun when it is needed, and ended if it was begun here."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scanrnn_dist.errors import ConfigError, StoppedError, one_line

STORE_BYTES = 128 << 20
"""Of the object store of a Ray that is begun here, for the encoder's file; Ray would set aside 30 % of the memory."""
REACH_SECONDS = 10.0
"""Where nobody listens, Ray tries for more than two minutes, and then ends the process."""
LOOK_SECONDS = 10.0
"""So often it is seen whether the head is there."""
LOST_SECONDS = 30.0
"""A head that comes back within that time is waited for; after 60 s Ray itself ends the process, with exit code 1."""


class Cluster:
    """A Ray cluster, by its address as of `ray.init`.

    Raises:
        ConfigError: an address of Ray Client, which sends each call through a server.
    """

    def __init__(self, address: str | None) -> None:
        told = address or os.environ.get("RAY_ADDRESS", "")
        if told.startswith("ray://"):
            raise ConfigError(
                f"{told} is an address of Ray Client; expected HOST:PORT of the head. Run the command on a node of the "
                "cluster, or hand it to `ray job submit`."
            )
        self._address = address
        self._ray: Any = None
        self._is_ours = False
        self._looked = self._seen = 0.0

    @property
    def ray(self) -> Any:
        """The module, connected to the cluster.

        Raises:
            ConfigError: the cluster cannot be reached.
            StoppedError: SIGTERM came meanwhile.
        """
        if self._ray is None:
            import ray

            self._is_ours = not ray.is_initialized()
            if self._is_ours:
                _connect(ray, self._address)
            self._ray = ray
            self._looked = self._seen = time.monotonic()
        return self._ray

    def head_answers(self) -> bool:
        """Whether somebody answered at the head when it was last looked, which is now and then.

        Raises:
            StoppedError: nobody has for `LOST_SECONDS`.
        """
        now, address = time.monotonic(), self.ray.get_runtime_context().gcs_address
        if now - self._looked < LOOK_SECONDS:
            return self._seen == self._looked
        self._looked = now
        try:
            _knock(address, REACH_SECONDS / 2)
            self._seen = now
        except OSError as error:
            if now - self._seen > LOST_SECONDS:
                raise StoppedError(
                    f"The head of the Ray cluster at {address} is gone. What was saved stays saved; the same command "
                    "goes on, on another cluster or without Ray."
                ) from error
        return self._seen == self._looked

    def room(self, cpus: int, gpus: int) -> int:
        """How many workers the nodes have room for; none is spread over two.

        Raises:
            ConfigError: for not one.
        """
        nodes = self._nodes()
        room = sum(_room(node, cpus, gpus) for node in nodes)
        if room < 1:
            there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes[:5])
            raise ConfigError(
                f"No node of the Ray cluster has room for a worker of {cpus} CPUs and {gpus} GPUs; its {len(nodes)} "
                f"nodes have {there}. Ask for less, or say how many --workers, and they wait for nodes to come."
            )
        return room

    def memory_bytes(self, cpus: int, gpus: int) -> int | None:
        """What each worker of a node that is full of them has, where that is least; None if Ray does not know."""
        shares = [
            int(node["memory"]) // room
            for node in self._nodes()
            if (room := _room(node, cpus, gpus)) and node.get("memory")
        ]
        return min(shares, default=None)

    def free(self) -> str:
        """The CPUs and GPUs of all nodes, and how many of them nobody has, for a message."""
        has, free = self.ray.cluster_resources(), self.ray.available_resources()
        told = (f"{has.get(name, 0):g} {name}s ({free.get(name, 0):g} free)" for name in ("CPU", "GPU"))
        return " and ".join(told)

    def _nodes(self) -> list[dict[str, float]]:
        """What each node has."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def leave(self) -> None:
        """End the connection, and with it a cluster that was begun here."""
        ray, self._ray = self._ray, None
        if ray is not None and self._is_ours:
            with _handler_kept():
                ray.shutdown()


def _room(node: dict[str, float], cpus: int, gpus: int) -> int:
    """How many workers a node has room for."""
    return min(int(node.get(name, 0) // number) for name, number in (("CPU", cpus), ("GPU", gpus)) if number)


def _connect(ray: Any, address: str | None) -> None:
    """Reach the cluster, or begin one on this machine."""
    told = address or os.environ.get("RAY_ADDRESS")
    try:
        if told not in (None, "auto", "local"):
            _knock(str(told).rpartition("://")[2], REACH_SECONDS)
        with _handler_kept():
            try:
                _init(ray, address, object_store_memory=STORE_BYTES)
            except ValueError:  # it is for a cluster that is begun, and there is one already
                _init(ray, address)
    except SystemExit as error:
        raise StoppedError("Stopped while Ray was begun, before anything was done.") from error
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"The Ray cluster {told or 'of this machine'} cannot be reached: {one_line(str(error))[:300]}. Expected "
            "--address HOST:PORT of its head (`ray start --head` takes port 6379), auto, or local for a new one here."
        ) from error


def _knock(address: str, seconds: float) -> None:
    """Raise `OSError` or `ValueError` unless somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), seconds).close()


def _init(ray: Any, address: str | None, **options: Any) -> None:
    # What workers of ours have to say comes with their answers; Ray would print it among results.
    ray.init(address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False, **options)


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Whoever heeds SIGTERM does so again afterwards: Ray puts a handler in its place that exits with 15."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
