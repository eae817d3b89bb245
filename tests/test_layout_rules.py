"""The laws of the house, folder by folder: read from the source, then tried. The rooms are named in `house.py`."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from house import (
    FLOORS,
    PACKAGE,
    ROOT,
    everything_below,
    files,
    imported,
    outside_packages,
    picture,
    purposes,
    rooms,
    rooms_imported,
)

KNOW_NO_JAX = [
    "errors",
    "disk",
    "allocator",
    "native",
    "plain",
    "ragged",
    "input_spec",
    "draws",
    "kinds",
    "protocols",
    "storage",
    "observe",
    "source",
    "records",
    "job",
    "launch",
    "report",
]
KNOW_NO_ARROW = [
    "errors",
    "disk",
    "allocator",
    "native",
    "plain",
    "ragged",
    "input_spec",
    "draws",
    "kinds",
    "protocols",
    "spec",
    "observe",
    "encoder",
    "engine",
    "weights",
    "faithfulness",
]
SEE_BOTH_HALVES = {"api", "launch", "cli", "ray", "sklearn", "__main__"}
FACES = sorted(path.parent for path in PACKAGE.rglob("*/__init__.py"))
USERS = [*files(), *sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "pipelines").rglob("*.py"))]


def test_every_room_has_its_floor() -> None:
    named = [room for floor in FLOORS for room in floor]
    assert set(named) == rooms() and len(named) == len(set(named))


@pytest.mark.parametrize("room", sorted(rooms()))
def test_imports_run_downwards_only(room: str) -> None:
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    assert not {other for other in rooms_imported(room) if floor_of[other] <= floor_of[room]}


def modules_of(name: str) -> Iterator[Path]:
    """The files that importing a dotted name of the package loads, its faces aside."""
    parts = name.split(".")[1:]
    for end in (len(parts), len(parts) - 1):
        path = PACKAGE.joinpath(*parts[:end])
        if end and path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
            return  # whether by `import a.b` or by `from a.b import name`
        if end and (path / "__init__.py").is_file():
            yield path / "__init__.py"


def test_no_file_imports_in_a_circle() -> None:
    below = {path: {one for name in imported(path) if name.startswith("scanrnn_dist.") for one in modules_of(name)}
             for path in files()}  # fmt: skip
    top = PACKAGE / "__init__.py"
    TopologicalSorter({path: its - {path, top} for path, its in below.items()}).prepare()  # a circle is an error


def folder_of(name: str) -> Path | None:
    """The deepest folder of the package that a dotted name reaches into, if it names a file inside of it."""
    parts = name.split(".")[1:]
    for end in range(len(parts), 1, -1):
        if PACKAGE.joinpath(*parts[:end]).with_suffix(".py").is_file():
            return PACKAGE.joinpath(*parts[: end - 1])
        if (PACKAGE.joinpath(*parts[:end]) / "__init__.py").is_file():
            return PACKAGE.joinpath(*parts[: end - 1])  # a folder within a folder is that one's inside
    return None


@pytest.mark.parametrize("path", USERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_is_entered_by_its_face(path: Path) -> None:
    reached = {name: folder_of(name) for name in imported(path) if name.startswith("scanrnn_dist.")}
    assert not {name for name, folder in reached.items() if folder is not None and folder not in path.parents}


@pytest.mark.parametrize("folder", FACES, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_a_face_says_what_the_room_is_for_and_shows_what_others_use(folder: Path) -> None:
    tree = ast.parse((folder / "__init__.py").read_text())
    assert len((ast.get_docstring(tree) or "").splitlines()) in range(1, 8)
    shown = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    name = ".".join(("scanrnn_dist", *folder.relative_to(PACKAGE).parts))
    outside = folder if folder.parent == PACKAGE else folder / "__init__.py"  # a folder within a folder serves that one
    paths = [*USERS, PACKAGE / "__init__.py", *sorted((ROOT / "tests").rglob("*.py"))]
    names = {one for path in paths if outside not in path.parents for one in imported(path)}
    used = {one.rpartition(".")[2] for one in names if one.rpartition(".")[0] == name}
    told = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert not {one for one in shown - used if one not in told}, "nobody outside uses these"


@pytest.mark.parametrize("room", KNOW_NO_JAX)
def test_data_and_jobs_know_no_jax(room: str) -> None:
    assert not outside_packages(everything_below(room)) & {"jax", "jaxlib", "flax"}


@pytest.mark.parametrize("room", KNOW_NO_ARROW)
def test_what_computes_knows_no_arrow(room: str) -> None:
    assert "pyarrow" not in outside_packages(everything_below(room))


def test_only_the_doors_see_both_halves() -> None:
    assert {room for room in rooms() if {"engine", "job"} <= everything_below(room)} <= SEE_BOTH_HALVES
    assert not {"source", "records"} & everything_below("engine")


def test_the_rules_see_an_import_within_a_function() -> None:
    assert "scanrnn_dist.source.to_ragged" in imported(PACKAGE / "api/sequences.py")


def test_every_option_of_a_job_has_its_flag() -> None:
    from scanrnn_dist.cli.options import JOB_FLAGS
    from scanrnn_dist.job import JobOptions

    def names(options: object) -> Iterator[str]:
        for field in dataclasses.fields(options):  # type: ignore[arg-type]
            value = getattr(options, field.name)
            inner = names(value) if dataclasses.is_dataclass(value) else [""]
            yield from (f"{field.name}.{name}".rstrip(".") for name in inner)

    assert list(names(JobOptions())) == list(JOB_FLAGS)


def test_the_choices_that_flags_name_are_those_there_are() -> None:
    from scanrnn_dist.cli.options import JOB_FLAGS
    from scanrnn_dist.source.bad_rows import CHOICES

    told = {name: JOB_FLAGS[f"bad_rows.{name}"].__metadata__[0].autocompletion() for name in CHOICES}
    assert told == {name: list(choices) for name, choices in CHOICES.items()}


def test_the_picture_is_true() -> None:
    page = (ROOT / "docs/house.md").read_text()
    assert picture() in page and purposes() in page, "put what `python tests/house.py` prints into docs/house.md"


def test_every_public_name_is_found() -> None:
    import scanrnn_dist

    assert sorted(scanrnn_dist._MODULE_OF) == sorted(scanrnn_dist.__all__)
    for name, module in scanrnn_dist._MODULE_OF.items():
        assert f"scanrnn_dist.{module}.{name}" in imported(PACKAGE / "__init__.py")
        assert getattr(scanrnn_dist, name).__module__.startswith(f"scanrnn_dist.{module}")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = scanrnn_dist.nothing


def test_public_modules_need_no_import_and_jobs_no_jax() -> None:
    code = """
import inspect, sys, scanrnn_dist as srd
modules = {"encoder", "errors", "input_spec", "ray", "source", "weights"}
listed = set(dir(srd))
assert listed - {"sklearn"} == {*srd.__all__, *modules, "__version__"}, listed
assert not {"jax", "flax", "pyarrow", "sklearn"} & set(sys.modules)

import scanrnn_dist.job
assert not {"jax", "flax"} & set(sys.modules)
assert all(getattr(srd, name).__name__ == f"scanrnn_dist.{name}" for name in modules)

sys.modules["sklearn"] = None  # as where it is not installed
assert "sklearn" not in dir(srd)
inspect.getmembers(srd)  # as `help` does
try:
    srd.sklearn
except ModuleNotFoundError as error:
    assert "sklearn" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
