"""Who takes part: their names, modules, environments, and the children that the comparison commands.

A contender runs in a long-lived process of its own with its own environment, so that nobody's flags, threads or
allocator reach another. The child answers commands on a pipe and blocks in `read` while others are measured.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import OUR_SHAPES, Workload
from scanrnn_dist.encoder import Encoder

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
    """A name, the opponent's module (None: scanrnn_dist itself), and what its environment adds."""

    name: str
    module: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    mkl_as_intel: bool = False

    def process_environment(self, folder: Path) -> dict[str, str]:
        """The environment of its process; what the caller's own says about threads, flags and memory is left out."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_", "MALLOC_"))}
        own.pop("LD_PRELOAD", None)
        own.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has been compiled to bytecode
        preload = mkl_preload(folder) if self.mkl_as_intel else {}
        return own | self.environment | preload

    def cold_command(self, workload: Workload, source: Path, destination: Path) -> list[str]:
        """The command line of a whole process that featurizes the workload once."""
        if self.module is None:
            given = [str(source), str(destination), "--hidden", str(workload.hidden), "--seed", "0"]
            if workload.name in OUR_SHAPES:
                for name, number in asdict(OUR_SHAPES[workload.name]).items():
                    given += [f"--{name.replace('_', '-')}", str(number)]
            return [sys.executable, "-m", "scanrnn_dist", "featurize", *given]
        given = [str(source), str(destination), "--weights", str(weights_file(workload, source.parent)), "--once"]
        return [sys.executable, "-m", f"benchmarks.opponents.{self.module}", *given, "--workload", workload.name]


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("ours"),
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


class Child:
    """A running contender on one workload."""

    def __init__(self, contender: Contender, workload: Workload, folder: Path) -> None:
        given = [contender.module or "ours", workload.name, str(workload.file(folder))]
        given.append(str(weights_file(workload, folder)))
        log = folder / f"{contender.name.replace(' ', '-')}.log"
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.child", *given],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=contender.process_environment(folder),
                text=True,
            )
        self.log = log

    def ask(self, command: str, destination: Path | None = None) -> Any:
        """Send a command, wait for its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([command, str(destination or "")]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The child ended; why stands in {self.log}.")
        return json.loads(answer)

    def stop(self) -> None:
        """End it by closing its pipe."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)
