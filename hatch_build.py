"""The build hook: compiles the native kernel where a C++ compiler is; elsewhere the package installs without it.

Hatchling calls it for wheels and editable installs. `python hatch_build.py` builds into this tree, and with `--sanitize
FILE` a library that stops at its first fault. What the library does stands in its sources, who loads it in
`native/library.py`. How it was built, or why there is none, stands in `build.txt` beside it.

- `SCANRNN_NO_NATIVE=1`: build none.
- `SCANRNN_NATIVE=require`: where it cannot be built, the install stops.
- `CXX`: the compiler.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NATIVE = "scanrnn_dist/native/cpp"
LIBRARY, NOTE = "libscanrnn.so", "build.txt"

INSTRUCTION_SETS: dict[tuple[str, str], dict[str, list[str]]] = {
    ("linux", "x86_64"): {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"],
    },
    ("linux", "aarch64"): {"neon": []},
    ("darwin", "arm64"): {"neon": []},  # never tried: no such machine was at hand
}
"""Per machine, the sources for one instruction set each, and the flags only they get; all others must run anywhere."""

FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"),
    *("-ffunction-sections", "-fdata-sections", "-fno-exceptions", "-fno-rtti"),
    # A product and a sum are fused where the source says so, nowhere else: bits do not depend on the compiler.
    *("-ffp-contract=off", "-fno-math-errno"),
]
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
EXPORTED = "{ global: scanrnn_*; local: *; };"
LINKED = {  # libstdc++ is not needed at run time, and only what is used of it comes along
    "linux": ["-static-libstdc++", "-static-libgcc", "-s", "-Wl,--gc-sections", "-Wl,-z,defs"],
    "darwin": ["-Wl,-dead_strip"],
}
SECONDS = 300
"""A compiler that takes longer than this is given up."""


class NotBuilt(Exception):
    """Why there is no native kernel, as one sentence for a person."""


class Broken(NotBuilt):
    """All was there, and yet it did not compile."""


def compiler() -> list[str]:
    """The command of the C++ compiler.

    Raises:
        NotBuilt: There is none.
    """
    wanted = shlex.split(os.environ.get("CXX", ""))
    if wanted and shutil.which(wanted[0]):
        return wanted
    if wanted:
        raise NotBuilt(f"CXX={os.environ['CXX']!r} names a compiler that is not there")
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        raise NotBuilt("no C++ compiler: c++, g++ and clang++ are not on the PATH")
    return [found]


def sources(root: Path) -> dict[Path, list[str]]:
    """The files to compile on this machine, each with the flags only it gets.

    Raises:
        NotBuilt: None is wanted, or there is none for this machine.
    """
    if os.environ.get("SCANRNN_NO_NATIVE", "0") not in ("", "0"):
        raise NotBuilt("SCANRNN_NO_NATIVE was set when the package was built")
    here = INSTRUCTION_SETS.get((sys.platform, platform.machine()))
    if here is None:
        raise NotBuilt(f"there is none for {sys.platform} on {platform.machine()}")
    elsewhere = {name for sets in INSTRUCTION_SETS.values() for name in sets} - set(here)
    files = sorted(path for path in (root / NATIVE).glob("*.cpp") if path.stem not in elsewhere)
    if not {path.stem for path in files} & set(here):
        raise NotBuilt(f"there is no source for {' or '.join(here)} in {NATIVE}")
    return {path: here.get(path.stem, []) for path in files}


def headers() -> Path:
    """The folder of XLA's FFI headers, which are jaxlib's; JAX itself is not imported.

    Raises:
        NotBuilt: jaxlib is not there.
    """
    found = importlib.util.find_spec("jaxlib")
    for place in found.submodule_search_locations or [] if found else []:
        if (folder := Path(place) / "include").is_dir():
            return folder
    raise NotBuilt("jaxlib, whose headers are needed, was not there when the package was built")


def run(command: list[str]) -> str:
    """What `command` printed.

    Raises:
        Broken: It failed.
    """
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.CalledProcessError as error:
        raise Broken(f"it did not compile: {shlex.join(command)}\n{error.stderr}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Broken(f"it did not compile: {shlex.join(command)}: {error}") from error
    return done.stdout


def link(compile_with: list[str], objects: list[str], library: Path, sanitize: bool) -> None:
    """Make `library` of the compiled `objects`.

    Raises:
        Broken: It failed.
    """
    command = [*compile_with, "-shared", "-o", str(library), *objects]
    if sanitize:
        run([*command, *SANITIZE])
        return
    flags = LINKED[sys.platform]
    if sys.platform == "linux":
        exported = library.with_suffix(".map")
        exported.write_text(EXPORTED)
        flags = [*flags, f"-Wl,--version-script={exported}"]
    try:
        run([*command, *flags])
    except Broken:  # some systems have no static libstdc++
        run([*command, *(flag for flag in flags if not flag.startswith("-static"))])


def build(root: Path, to: Path, sanitize: bool = False) -> str:
    """Compile the sources under `root` and put the library at `to`.

    Returns:
        How it was built, as one line.

    Raises:
        NotBuilt: There is nothing to build it from, or with.
        Broken: The compiler failed.
    """
    files, compile_with, include = sources(root), compiler(), headers()
    flags = [*FLAGS, *(SANITIZE if sanitize else []), f"-I{include}"]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(files)) as pool:
        objects = {file: str(Path(folder) / f"{file.stem}.o") for file in files}
        commands = [[*compile_with, *flags, *files[f], "-c", str(f), "-o", objects[f]] for f in files]
        list(pool.map(run, commands))
        library = Path(folder) / LIBRARY
        link(compile_with, list(objects.values()), library, sanitize)
        beside = to.with_name(f"{to.name}.{os.getpid()}")
        shutil.copyfile(library, beside)
        os.replace(beside, to)  # whoever has the old one loaded keeps it
    version = next(iter(run([*compile_with, "--version"]).splitlines()), compile_with[0])
    return f"built by {version}: {', '.join(path.stem for path in files)}"


def build_or_say(root: Path, folder: Path) -> bool:
    """Put the library into `folder`, or none, and beside it a note that says how it was built, or why it was not.

    Raises:
        NotBuilt: `SCANRNN_NATIVE=require` is set, and there is none.
    """
    required = os.environ.get("SCANRNN_NATIVE") == "require"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        said, built = build(root, folder / LIBRARY), True
    except NotBuilt as error:
        if required:
            raise
        (folder / LIBRARY).unlink(missing_ok=True)
        said, built = str(error), False
    (folder / NOTE).write_text(said + "\n")
    return built


def wheel_tag(library: Path) -> str:
    """The tag of a wheel that holds `library`: any Python 3, on machines like this one with a C library new enough."""
    system = re.sub(r"[-.]", "_", sysconfig.get_platform())
    # From macOS 11 on pip takes a minor version of 0 only. A universal Python says "universal2", also on one processor.
    if sys.platform == "darwin":
        system = f"macosx_{platform.mac_ver()[0].partition('.')[0]}_0_{platform.machine()}"
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        machine = platform.machine()
        oldest = (2, 5) if machine == "x86_64" else (2, 17)  # there is no tag for older ones
        wanted = re.findall(rb"GLIBC_(\d+)\.(\d+)", library.read_bytes())  # the versions of the symbols it links to
        major, minor = max([oldest, *((int(a), int(b)) for a, b in wanted)])
        system = f"manylinux_{major}_{minor}_{machine}"
    return f"py3-none-{system}"


def get_build_hook() -> type:
    """Hatchling's hook; imported here, so that this file can run without hatchling."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class NativeKernel(BuildHookInterface):
        def dependencies(self) -> list[str]:
            """Who cannot compile needs no headers."""
            try:
                sources(Path(self.root))
                compiler()
            except NotBuilt:
                return []
            return ["jaxlib>=0.10"]

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            root = Path(self.root)
            self.folder = root / NATIVE if version == "editable" else Path(tempfile.mkdtemp())
            built = build_or_say(root, self.folder)
            if not built:
                self.app.display_warning(f"No native kernel: {(self.folder / NOTE).read_text().strip()}")
            if version == "editable":
                return
            for name in (LIBRARY, NOTE) if built else (NOTE,):
                build_data["force_include"][str(self.folder / name)] = f"{NATIVE}/{name}"
            if built:
                build_data |= {"pure_python": False, "tag": wheel_tag(self.folder / LIBRARY)}

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            if version != "editable":
                shutil.rmtree(self.folder)

    return NativeKernel


def main() -> int:
    """Build into this tree, for developers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sanitize", type=Path, metavar="FILE", help="write a library that stops at its first fault")
    root, wanted = Path(__file__).parent, parser.parse_args()
    try:
        if wanted.sanitize:
            print(build(root, wanted.sanitize, sanitize=True))
            return 0
        built = build_or_say(root, root / NATIVE)
    except NotBuilt as error:
        print(f"No native kernel: {error}", file=sys.stderr)
        return 1
    print((root / NATIVE / NOTE).read_text().strip())
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())
