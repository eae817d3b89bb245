"""The process that jobs are forked from in order to be killed: all is imported, no device and no thread is begun.

A Python that imports JAX, Flax and pyarrow takes 0.8 s, a fork of this one 10 ms. Each child begins JAX on its own and
runs a real job in 0.1 s; what of it is not real stands in `_replace`. `crashing.py` starts this file as a script and
speaks JSON lines with it. It asks, on standard input:

    {"run": 3, "encoder": file, "source": ..., "destination": ..., "options": {...}, "log": path without ending,
     "fault": [17, "kill"], ["sync _SUCCESS", "kill"] or null, "kill_after_seconds": 0.1 or null,
     "poison": [2, 9] or null, "may_cache": false}     (an option "is_update" asks for `update`)
    {"signal": 18, "run": 3}

and hears `{"ready": true}`, then `{"stopped": 3}` and `{"ended": 3, "status": -9}`. A child writes each step of its
input and output to `log.steps` before it takes it, and what it prints to `log.txt`.

No child outlives this process, and this process not the one that started it: the kernel sees to the first, the end of
standard input to the second.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.dataset  # noqa: F401 - so that no child imports it
from faults import Fault, watched
from flax import nnx
from jax._src import xla_bridge
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from safetensors import safe_open

from scanrnn_dist.api import data_sets as job
from scanrnn_dist.api import update
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.encoder import file as encoder_file
from scanrnn_dist.engine import environment
from scanrnn_dist.errors import ScanRNNError
from scanrnn_dist.job import Sharing
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.source import BadRows, decode, footer_child, footers

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Fork a child per request until standard input ends."""
    jax.config.update("jax_num_cpu_devices", 1)
    Path(sys.argv[1]).mkdir()
    os.fsync = lambda descriptor: None  # a kill loses nothing that was written
    environment._versions()  # which it keeps: 3 ms in every child
    gc.freeze()  # a child's collections then touch, and so copy, nothing of what is here
    children = _Children(events=os.dup(1))
    os.dup2(2, 1)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children.tell(ready=True)
    asked = b""
    while True:
        readable, _, _ = select.select([0, woken], [], [], children.seconds_to_kill())
        children.kill_those_due()
        if woken in readable:
            os.read(woken, 4096)
        children.reap()
        if 0 in readable:
            if not (more := os.read(0, 1 << 16)):
                break
            *lines, asked = (asked + more).split(b"\n")
            for request in map(json.loads, lines):
                children.signal(**request) if "signal" in request else children.fork(request)
    children.end()


class _Children:
    """The processes that were forked and have not ended, by the number of their run."""

    def __init__(self, events: int) -> None:
        self._events, self._processes = events, {}
        self._kill_at: dict[int, float] = {}

    def tell(self, **event: Any) -> None:
        """Write a line to whoever started this process."""
        os.write(self._events, json.dumps(event).encode() + b"\n")

    def fork(self, request: dict[str, Any]) -> None:
        """Begin a run."""
        encoder, number, zygote = _read(request["encoder"]), request["run"], os.getpid()
        threads = os.listdir("/proc/self/task")
        if len(threads) > 1:  # a lock that one of them holds would never be free in the child
            names = [Path(f"/proc/self/task/{thread}/comm").read_text().strip() for thread in threads]
            raise RuntimeError(f"The zygote has the threads {names}; expected one. What started the others?")
        process = os.fork()
        if process == 0:
            os.close(self._events)
            _run(request, encoder, zygote)
        self._processes[number] = process
        if request["kill_after_seconds"] is not None:
            self._kill_at[number] = time.monotonic() + request["kill_after_seconds"]

    def signal(self, signal: int, run: int) -> None:
        """Send a signal to a run; nothing if it ended. Only this process can know, since it is who reaps."""
        if run in self._processes:
            os.kill(self._processes[run], signal)

    def seconds_to_kill(self) -> float | None:
        """How long until the next one is due to be killed; None for none."""
        return max(0, min(self._kill_at.values()) - time.monotonic()) if self._kill_at else None

    def kill_those_due(self) -> None:
        """Kill the runs whose moment has come."""
        for run in [run for run, moment in self._kill_at.items() if moment <= time.monotonic()]:
            del self._kill_at[run]
            self.signal(signal.SIGKILL, run)

    def reap(self) -> None:
        """Tell of all that ended or stopped."""
        for run, process in list(self._processes.items()):
            ended, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
            if not ended:
                continue
            if os.WIFSTOPPED(status):
                self.tell(stopped=run)
                continue
            del self._processes[run]
            self._kill_at.pop(run, None)
            self.tell(ended=run, status=os.waitstatus_to_exitcode(status))

    def end(self) -> None:
        """Kill what is left, and wait until it is gone."""
        for process in self._processes.values():
            os.kill(process, signal.SIGKILL)
        for process in self._processes.values():
            os.waitpid(process, 0)


@cache
def _read(path: str) -> Encoder:
    """The encoder of a file, its weights numpy's: `Encoder.load` needs a device, and 0.14 s in every child.

    The structure that `Encoder.save` asks for is traced here, for the children.
    """
    with safe_open(path, framework="numpy") as file:
        architecture = json.loads(file.metadata()["architecture"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    encoder = nnx.eval_shape(lambda: encoder_file.build_encoder(Encoder, architecture))
    leaves = nnx.to_flat_state(nnx.state(encoder.layers))
    state = [(path, leaf.replace(weights[".".join(map(str, path))])) for path, leaf in leaves]
    nnx.update(encoder.layers, nnx.from_flat_state(state))
    encoder_file.why_no_file(Encoder, encoder)
    return encoder


# In the child ---------------------------------------------------------------------------------------------------------


def _run(request: dict[str, Any], encoder: Encoder, zygote: int) -> None:
    """Run the job and end with the exit code that the command line would have."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote:  # it ended before the line above
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = os.open(f"{request['log']}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        _replace(encoder, may_cache=request["may_cache"])
        if request["poison"] is not None:
            _kill_at_unit(*request["poison"])
        options = {name: _KINDS.get(name, _as_it_is)(value) for name, value in request["options"].items()}
        destination = watched(request["destination"], Fault(f"{request['log']}.steps", *request["fault"] or ()))
        if options.pop("is_update", False):
            update(destination, request["source"], encoder=encoder, **options)
        else:
            job.featurize(encoder, request["source"], destination, **options)
        code = 0
    except ScanRNNError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _as_it_is(value: Any) -> Any:
    return value


_KINDS: dict[str, Callable[[Any], Any]] = {
    "bad_rows": lambda told: BadRows(**told),
    "window_shape": lambda shape: WindowShape(*shape),
    "sharing": lambda told: Sharing(**{**told, "share": tuple(told.get("share", (1, 1)))}),
}
"""What JSON cannot say of an option."""


def _replace(encoder: Encoder, may_cache: bool) -> None:
    """Leave out what takes long and is not at stake; half of a run, all together."""
    footers._child = _InThisProcess  # a process of its own is another 0.15 s
    xla_bridge.discover_pjrt_plugins = lambda: None  # reads what each installed package offers
    jax.jit = partial(_Compiled, jax.jit, may_cache)
    computed, zeros = Encoder.initial_state, jax.eval_shape(encoder.initial_state)

    def first_state(encoder: Encoder, carry: Any = None) -> Any:
        # The engine's first call, 0.06 s; a GRU's is zero. All others are made while a program is traced.
        Encoder.initial_state = computed
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), zeros)

    Encoder.initial_state = first_state


class _Compiled:
    """In place of a function that is to be compiled: the program that an earlier run made of it, 0.1 s of CPU time.

    One that may be killed leaves none: a torn file would outlive it.
    """

    def __init__(self, jit: Callable[..., Any], may_cache: bool, function: Callable[..., Any], **options: Any) -> None:
        self._jitted, self._may_cache = jit(function, **options), may_cache

    def lower(self, *inputs: Any) -> _Compiled:
        """Nothing yet."""
        self._inputs = inputs
        return self

    def compile(self, options: Any = None) -> Any:
        """The program; that of the native kernel takes no options."""
        tree, leaves = jax.tree.structure((self._inputs, {})), jax.tree.leaves(self._inputs)
        what = f"{tree} {[(leaf.shape, leaf.dtype) for leaf in leaves]}"
        path = Path(sys.argv[1]) / hashlib.sha256(what.encode()).hexdigest()
        if path.exists():
            # State, features, emitted; of the native kernel states, lanes, what is told.
            out_tree = jax.tree.structure((0 if options is None else self._inputs[2], 0, 0))
            return deserialize_and_load(path.read_bytes(), tree, out_tree)
        compiled = self._jitted.lower(*self._inputs).compile(options)
        if self._may_cache:
            path.write_bytes(serialize(compiled)[0])
        return compiled


def _kill_at_unit(poison: int, number: int) -> None:
    """Have the reader of a unit end this process by a signal."""
    whole = decode.Decoder.unit_chunks

    def unit_chunks(self: Any, unit: Any) -> Any:
        if unit.index == poison:
            os.kill(os.getpid(), number)
        return whole(self, unit)

    decode.Decoder.unit_chunks = unit_chunks


class _InThisProcess:
    """Reads footers where it is asked."""

    def ask(self, path: str, size: int, tail: bytes) -> dict[str, Any]:
        """What the process of `footer_child.py` answers."""
        return footer_child.answer_of(path, size, tail)


if __name__ == "__main__":
    main()
