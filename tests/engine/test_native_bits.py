"""The native kernel's bits: of every instruction set, compiler and number of lanes the same; and no fault in memory.

`native_bits.cpp` runs the kernel without Python. It is compiled here for this machine, with sanitizers, and for ARM.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "scanrnn_dist" / "native" / "cpp"
FLAGS = ["-std=c++17", "-O1", "-g", "-pthread", "-ffp-contract=off", "-w", f"-I{NATIVE}"]
HERE = (
    {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mfma"]} if platform.machine() == "x86_64" else {"neon": []}
)

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="Tried on Linux alone."),
]


def hashes_of(
    folder: Path, compiler: str, units: dict[str, list[str]], *flags: str, emulator: str | None = None
) -> set[str]:
    """The hashes that the kernels of `units` print, each compiled with its own flags."""
    if shutil.which(compiler) is None:
        pytest.skip(f"There is no {compiler}.")
    objects = [folder / f"{name}.o" for name in (*units, "main")]
    sources = [*(NATIVE / f"{name}.cpp" for name in units), Path(__file__).with_name("native_bits.cpp")]
    compiling = [
        subprocess.Popen([compiler, *FLAGS, *own, *flags, "-c", source, "-o", made])
        for source, made, own in zip(sources, objects, [*units.values(), []], strict=True)
    ]
    assert all(process.wait() == 0 for process in compiling)
    program = folder / "program"
    subprocess.run([compiler, "-pthread", *flags, *objects, "-o", program], check=True)
    done = subprocess.run([*([emulator] if emulator else []), program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.split()[1] for line in done.stdout.splitlines()}


def test_all_instruction_sets_and_compilers_give_the_same_bits(tmp_path):
    hashes = hashes_of(tmp_path, "g++", HERE)
    assert len(hashes) == 1
    for compiler in ("clang++", "clang++-16", "aarch64-linux-gnu-g++"):
        if shutil.which(compiler) is None:
            continue
        if compiler.startswith("clang"):
            assert hashes_of(tmp_path, compiler, HERE, "-O3") == hashes
        elif emulator := shutil.which("qemu-aarch64"):
            assert hashes_of(tmp_path, compiler, {"neon": []}, "-O3", "-static", emulator=emulator) == hashes


@pytest.mark.parametrize("faults", ["address,undefined", "thread"])
def test_no_sanitizer_finds_a_fault(faults, tmp_path):
    assert len(hashes_of(tmp_path, "g++", HERE, f"-fsanitize={faults}", "-fno-sanitize-recover=all")) == 1
