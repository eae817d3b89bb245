"""What a process of the command line does before its work begins: which packages it imports, and what it compiles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.cli import process
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError

COMPILATION = "/jax/core/compile/backend_compile_duration"
RUN = """
import json, os, sys
from scanrnn_dist.cli import run
compiled = []
if "--count" in sys.argv:
    sys.argv.remove("--count")
    import jax
    jax.monitoring.register_event_duration_secs_listener(lambda name, seconds, **_: compiled.append(name))
code = run(sys.argv[1:], owns_process=True)
print(json.dumps({"code": code, "modules": sorted(sys.modules), "compiled": compiled}), flush=True)
os._exit(0)  # as the command does: pyarrow may abort a process whose threads are not done
"""


def told(*arguments: str) -> dict[str, Any]:
    """What a process of its own says, after a command, of itself."""
    run = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert said["code"] == 0, run.stderr
    return said


def source(folder: Path) -> Path:
    sequences = [np.ones((steps, 2), np.float32).tolist() for steps in (3, 0, 5)]
    pq.write_table(pa.table({"id": [1, 2, 3], "sequence": sequences}), folder / "in.parquet")
    return folder / "in.parquet"


@pytest.mark.parametrize("used", ["from scanrnn_dist import encode", "import scanrnn_dist.__main__ as m; m.main()"])
def test_windows_is_refused_with_what_works(used: str) -> None:
    code = f"import sys; sys.platform = 'win32'; {used}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = run.stderr.splitlines()[-1]
    assert "ConfigError: scanrnn_dist runs on Linux and macOS; on Windows, install and run it in WSL." in last
    assert run.returncode == 1 if "encode" in used else (run.returncode == 2 and run.stderr.count("\n") == 1)


def test_a_number_of_cpu_devices_is_refused_where_others_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "start_jax", lambda devices: None)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    process.start_devices(None)
    with pytest.raises(ConfigError, match="--devices is for CPUs, but here the TPUs compute: leave it out, or set"):
        process.start_devices(2)


def test_help_imports_neither_half() -> None:
    heavy = {"jax", "flax", "numpy", "pyarrow", "pandas", "orbax"}
    script = "import sys; from scanrnn_dist.cli import run\n"
    script += "print(run(['--help']), run(['encoder', 'convert', '--help']), *sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second, *modules = run.stdout.splitlines()[-1].split()
    assert (first, second) == ("0", "0") and "scanrnn_dist" in modules and not heavy & set(modules)


def test_status_imports_neither_jax_nor_pandas(tmp_path: Path, made_output: Path) -> None:
    assert not {"jax", "flax", "pandas", "scipy"} & set(told("status", str(made_output))["modules"])


@pytest.fixture
def made_output(tmp_path: Path) -> Path:
    """A small output of a job."""
    from scanrnn_dist.api import featurize

    featurize(Encoder.from_seed(0, 2, 3), source(tmp_path), tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.usefixtures("numpy_draws")
def test_weights_of_a_seed_and_a_first_carry_compile_nothing() -> None:
    compiled: list[str] = []

    def listen(name: str, seconds: float, **_: Any) -> None:
        if name == COMPILATION:
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for cell in ("gru", "lstm", "rnn"):
            encoder = Encoder.from_seed(0, 5, 19, cell=cell)  # sizes that no other test has
            encoder.initial_state()
            assert encoder.fingerprint
        assert not compiled
        jax.jit(lambda x: x + 19)(np.ones(19, np.float32))
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.soak
@pytest.mark.usefixtures("numpy_draws")
def test_a_plain_job_compiles_its_window_program_alone_and_leaves_packages_out(tmp_path: Path) -> None:
    options = ["--hidden", "3", "--seed", "0", "--devices", "1"]
    said = told("--count", "featurize", str(source(tmp_path)), str(tmp_path / "out"), *options)
    assert said["compiled"].count(COMPILATION) == 1
    assert not {"pandas", "scipy.linalg", "orbax", "tensorstore", "torch", "ray"} & set(said["modules"])
