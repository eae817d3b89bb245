"""The build hook: what it makes of the native kernel's sources, and what it says where it makes nothing of them."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(hook, tmp_path, monkeypatch):
    """A tree with one small source for each instruction set of this machine."""
    if hook.INSTRUCTION_SETS.get((sys.platform, hook.platform.machine())) is None:
        pytest.skip("There is no native kernel for this machine.")
    for name in ("CXX", "SCANRNN_NATIVE", "SCANRNN_NO_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    native = tmp_path / hook.NATIVE
    native.mkdir(parents=True)
    for name in {name for sets in hook.INSTRUCTION_SETS.values() for name in sets}:
        (native / f"{name}.cpp").write_text(f"float {name}_hidden(float a) {{ return a + 1; }}\n")
    return tmp_path


def compiled(hook, tree, source: str) -> bool:
    """Whether `source`, beside those of instruction sets, becomes a library in the tree."""
    (tree / hook.NATIVE / "ffi.cpp").write_text(source)
    return hook.build_or_say(tree, tree / hook.NATIVE)


def note(hook, tree) -> str:
    return (tree / hook.NATIVE / hook.NOTE).read_text()


GOOD = """
#include "xla/ffi/api/c_api.h"
extern "C" __attribute__((visibility("default"))) int scanrnn_seven() { return 7; }
"""


def compiler_is_here() -> bool:
    return any(map(shutil.which, ("c++", "g++", "clang++")))


@pytest.mark.skipif(not compiler_is_here(), reason="There is no C++ compiler.")
def test_a_compiler_makes_a_library_that_needs_little_and_shows_its_doors(hook, tree):
    assert compiled(hook, tree, GOOD)
    library = tree / hook.NATIVE / hook.LIBRARY
    assert ctypes.CDLL(str(library)).scanrnn_seven() == 7
    assert "_hidden" not in library.read_bytes().decode("latin-1")
    assert note(hook, tree).startswith("built by ")
    assert re.fullmatch(r"py3-none-(manylinux_2_\d+_\w+|linux_\w+|macosx_\w+)", hook.wheel_tag(library))


@pytest.mark.skipif(not compiler_is_here(), reason="There is no C++ compiler.")
def test_a_source_that_does_not_compile_is_told_and_leaves_no_old_library(hook, tree, monkeypatch):
    (tree / hook.NATIVE / hook.LIBRARY).write_bytes(b"of an earlier build")
    assert not compiled(hook, tree, "int nonsense( {")
    assert "nonsense" in note(hook, tree)
    assert not (tree / hook.NATIVE / hook.LIBRARY).exists()
    monkeypatch.setenv("SCANRNN_NATIVE", "require")
    with pytest.raises(hook.Broken, match="nonsense"):
        compiled(hook, tree, "int nonsense( {")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PATH": "/nowhere"}, "no C++ compiler"),
        ({"CXX": "no-such-compiler -O9"}, "no-such-compiler"),
        ({"SCANRNN_NO_NATIVE": "1"}, "SCANRNN_NO_NATIVE"),
    ],
)
def test_where_nothing_can_be_built_the_note_says_why(hook, tree, variables, said, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not compiled(hook, tree, GOOD)
    assert said in note(hook, tree)
    monkeypatch.setenv("SCANRNN_NATIVE", "require")
    with pytest.raises(hook.NotBuilt, match=re.escape(said)):
        compiled(hook, tree, GOOD)


def test_another_machine_gets_none(hook, tree, monkeypatch):
    monkeypatch.setattr(hook.platform, "machine", lambda: "riscv64")
    assert not compiled(hook, tree, GOOD)
    assert "riscv64" in note(hook, tree)


@pytest.mark.parametrize(("versions", "tag"), [("GLIBC_2.14 GLIBC_2.9 GLIBC_2.2.5", "2_14"), ("GLIBC_2.2.5", "2_5")])
def test_a_wheel_names_the_newest_c_library_that_a_symbol_asks_for(hook, versions, tag, tmp_path, monkeypatch):
    monkeypatch.setattr(hook.sys, "platform", "linux")
    monkeypatch.setattr(hook.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(hook.platform, "libc_ver", lambda: ("glibc", "2.99"))
    (tmp_path / "library").write_text(versions)
    assert hook.wheel_tag(tmp_path / "library") == f"py3-none-manylinux_{tag}_x86_64"


@pytest.mark.parametrize("python", ["macosx-14.5-arm64", "macosx-10.13-universal2"])
def test_a_wheel_of_macos_names_this_machine_as_pip_does(hook, python, tmp_path, monkeypatch):
    monkeypatch.setattr(hook.sys, "platform", "darwin")
    monkeypatch.setattr(hook.sysconfig, "get_platform", lambda: python)
    monkeypatch.setattr(hook.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(hook.platform, "mac_ver", lambda: ("14.5", ("", "", ""), "arm64"))
    assert hook.wheel_tag(tmp_path / "library") == "py3-none-macosx_14_0_arm64"


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("objdump"), reason="Reads ELF by objdump.")
def test_the_kernel_itself_needs_the_c_library_alone_and_shares_no_code_between_instruction_sets(hook, tmp_path):
    try:
        hook.build(ROOT, tmp_path / "library.so")
    except hook.NotBuilt as error:
        pytest.skip(str(error))
    dynamic = subprocess.run(
        ["objdump", "-p", tmp_path / "library.so"], capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"NEEDED +(\S+)", dynamic)) <= {"libc.so.6", "libm.so.6"}
    assert (tmp_path / "library.so").stat().st_size < 200_000
    for name, flags in hook.INSTRUCTION_SETS[sys.platform, hook.platform.machine()].items():
        made = tmp_path / f"{name}.o"
        source = ROOT / hook.NATIVE / f"{name}.cpp"
        hook.run([*hook.compiler(), *hook.FLAGS, *flags, "-c", str(source), "-o", str(made)])
        symbols = subprocess.run(
            ["nm", "-C", "--defined-only", made], capture_output=True, text=True, check=True
        ).stdout
        shared = [line for line in symbols.splitlines() if line.split()[1] in "WVu" and f"{name}::" not in line]
        assert not shared, "The linker keeps one of each, for all processors."


def built(kind: str, tmp_path: Path) -> Path:
    """An sdist or a wheel of this tree, made without a compiler."""
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env={**os.environ, "SCANRNN_NO_NATIVE": "1"})
    (made,) = tmp_path.iterdir()
    return made


def package_files() -> set[str]:
    """What stands in the package, but for what was made by Python or a compiler."""
    made = {".pyc", ".so", ".txt"}
    return {str(p.relative_to(ROOT)) for p in (ROOT / "scanrnn_dist").rglob("*.*") if p.suffix not in made}


@pytest.mark.soak  # 1 s; .ci/run has hatchling by then
def test_an_sdist_holds_what_a_wheel_is_made_of_and_nothing_else(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    others = {"PKG-INFO", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "hatch_build.py", ".gitignore"}
    assert names - others == package_files()
    assert {"hatch_build.py", "pyproject.toml", "README.md", "LICENSE"} <= names


@pytest.mark.soak
def test_a_wheel_holds_the_package_and_says_that_it_is_typed(tmp_path: Path) -> None:
    with zipfile.ZipFile(built("wheel", tmp_path)) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    sources = {name for name in package_files() if name.endswith((".cpp", ".h"))}
    assert names == package_files() - sources | {"scanrnn_dist/native/cpp/build.txt"}
    assert "scanrnn_dist/py.typed" in names
