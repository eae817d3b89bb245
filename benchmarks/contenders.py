"""Who takes part: their names, modules, environments, and the children that the comparison commands.

A contender runs in a long-lived process of its own with its own environment, so that nobody's flags, threads or
allocator reach another. The child answers commands on a pipe and blocks in `read` while others are measured.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import OUR_SHAPES, Workload
from scanrnn_dist.allocator import allocator_of_jobs
from scanrnn_dist.encoder import Encoder

LONGEST_SECONDS = 300.0
"""For an answer, imports and compilations included: some 20 times as long as the slowest that was measured."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
KEEP_FREED = {
    # One arena: glibc's other arenas cannot hold a block above 64 MB, and map it anew at every call.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
XLA = {"XLA_FLAGS": "--xla_cpu_prefer_vector_width=512 --xla_cpu_multi_thread_eigen=false"}
INTEL = "int mkl_serv_intel_cpu(void) { return 1; }\nint mkl_serv_intel_cpu_true(void) { return 1; }\n"
"""MKL, which torch multiplies with, takes AVX2 and not AVX-512 on processors of other makers; this, preloaded, has it
take the best there is: 98 against 230 GFLOP/s a core on Zen 5."""


@dataclass(frozen=True)
class Contender:
    """A name, the opponent's module (None: scanrnn_dist itself), and what its environment adds.

    `choices` are options of ours that a job and an engine both have: a contender beside `ours` with another choice.
    """

    name: str
    module: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    mkl_as_intel: bool = False
    choices: dict[str, str] = field(default_factory=dict)

    def warm_command(self, workload: Workload, folder: Path) -> list[str]:
        """The command line of a process that answers commands about the workload."""
        last = json.dumps(self.choices) if self.module is None else str(weights_file(workload, folder))
        given = [self.module or "ours", workload.name, str(workload.file(folder)), last]
        return [sys.executable, "-m", "benchmarks.child", *given]

    def process_environment(self, folder: Path) -> dict[str, str]:
        """The environment of its process; what the caller's own says about threads, flags and memory is left out."""
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("XLA_", "JAX_", "MALLOC_", "ARROW_", "JE_ARROW_"))
        }
        own.pop("LD_PRELOAD", None)
        own.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has been compiled to bytecode
        preload = mkl_preload(folder) if self.mkl_as_intel else {}
        allocator = allocator_of_jobs(own) if self.module is None else {}
        return own | allocator | self.environment | preload

    def cold_command(self, workload: Workload, source: Path, destination: Path) -> list[str]:
        """The command line of a whole process that featurizes the workload once."""
        if self.module is None:
            given = [str(source), str(destination), "--hidden", str(workload.hidden), "--seed", "0"]
            if self.choices.get("kernel") == "xla" and workload.name in OUR_SHAPES:
                given += flags(asdict(OUR_SHAPES[workload.name]))
            given += flags(workload.options | self.choices)
            return [sys.executable, "-m", "scanrnn_dist", "featurize", *given]
        given = [str(source), str(destination), "--weights", str(weights_file(workload, source.parent)), "--once"]
        return [sys.executable, "-m", f"benchmarks.opponents.{self.module}", *given, "--workload", workload.name]


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line has them: a list is joined by commas."""
    told = {name: ",".join(value) if isinstance(value, list | tuple) else str(value) for name, value in options.items()}
    return [text for name, value in told.items() for text in (f"--{name.replace('_', '-')}", value)]


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("ours"),
        Contender("ours-xla", choices={"kernel": "xla"}),
        Contender("vmap", "vmap_buckets", ONE_THREAD | KEEP_FREED | XLA),
        Contender("nnx", "nnx_rnn", ONE_THREAD | KEEP_FREED | XLA),
        Contender("onnx", "onnx_gru", ONE_THREAD | KEEP_FREED),
        Contender("torch", "torch_packed", ONE_THREAD | KEEP_FREED, mkl_as_intel=True),
        Contender("torch as shipped", "torch_packed", ONE_THREAD),
        Contender("ray", "ray_torch", ONE_THREAD | KEEP_FREED, mkl_as_intel=True),
    )
}


def mkl_preload(folder: Path) -> dict[str, str]:
    """`LD_PRELOAD` with `INTEL`, compiled into the folder; empty where there is no compiler or no need."""
    library = folder / "mkl_as_intel.so"
    compiler = shutil.which("cc")
    if compiler is None or "AuthenticAMD" not in Path("/proc/cpuinfo").read_text():
        return {}
    if not library.exists():
        subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=INTEL.encode(), check=True)
    return {"LD_PRELOAD": str(library)}


def weights_file(workload: Workload, folder: Path) -> Path:
    """The weights of `Encoder.from_seed(0, D, H)` as the opponents read them; made if it is not there."""
    path = folder / f"weights-{workload.in_features}-{workload.hidden}.npz"
    if not path.exists():
        cell: Any = Encoder.from_seed(0, workload.in_features, workload.hidden).cell
        np.savez(
            path,
            W_i=np.asarray(cell.dense_i.kernel[...]),
            b_i=np.asarray(cell.dense_i.bias[...]),
            W_h=np.asarray(cell.dense_h.kernel[...]),
        )
    return path


class Failed(Exception):
    """A contender ended, answered wrongly or not in time; the message says which."""


class Child:
    """A running process that answers commands, one line each."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
            )
        self.log = log

    def ask(self, command: str, destination: Path | None = None, limit: float = LONGEST_SECONDS) -> Any:
        """Send a command, wait for its answer; raises `Failed` where none comes."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([command, str(destination or "")]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"ended with {self.process.wait()}; why stands in {self.log}") from None
        if not select.select([self.process.stdout], [], [], limit)[0]:
            self.process.kill()
            raise Failed(f"took more than {limit:g} s")
        answer = self.process.stdout.readline()
        if not answer:
            raise Failed(f"ended with {self.process.wait()}; why stands in {self.log}")
        return json.loads(answer)

    def stop(self) -> None:
        """End it by closing its pipe, or else by force."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
