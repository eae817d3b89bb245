"""Imports go downwards only, and what must not need JAX or pyarrow does not: read from the source, then tried."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "scanrnn_dist"

LEVELS = [
    {"spec", "errors", "float64"},
    {"architecture", "layers", "readouts", "ragged", "tape", "mesh", "progress", "profiling", "compilation_cache"},
    {"memory", "backend"},
    {"distributed", "cli_options"},
    {"encoder_file", "step_outputs"},
    {"encoder"},
    {"program", "feed", "weights", "faithfulness"},
    {"engine", "dataset"},
    {"narrow"},
    {"run"},
    {"layered"},
    {"stream"},
    {"job", "arrays", "verify", "tune"},
    {"demo", "cli_encoder"},
    {"cli", "__main__"},
]
"""The parts of the package, lowest first; `dataset` is one part."""

KNOWS_NO_JAX = {"errors", "ragged", "tape", "feed", "dataset", "distributed"}
KNOWS_NO_ARROW = {
    *("spec", "architecture", "layers", "readouts", "encoder", "encoder_file"),
    *("program", "engine", "narrow", "run", "layered", "mesh", "profiling", "weights"),
    *("float64", "faithfulness"),
}
PUBLIC_NAMES = "__init__"  # loads every name when it is first used, so it stands outside the order


def part_of(path: Path) -> str:
    """`dataset` for all that lies there, else the module's name."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, as full dotted names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; write the full name"
            assert node.module is not None
            # `from scanrnn_dist import tape` imports scanrnn_dist.tape
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = {path: imported(path) for path in FILES}


def parts_imported(part: str) -> set[str]:
    """The other parts of the package that a part imports."""
    names = set().union(*(IMPORTS[path] for path in FILES if part_of(path) == part))
    return {name.split(".")[1] for name in names if name.startswith("scanrnn_dist.")} - {part}


PARTS = sorted({part_of(path) for path in FILES} - {PUBLIC_NAMES})


def everything_below(part: str) -> set[str]:
    """A part and all that it imports, directly or not."""
    reached, ahead = set(), {part}
    while ahead:
        reached |= ahead
        ahead = set().union(*map(parts_imported, ahead)) - reached
    return reached


def outside_packages(parts: set[str]) -> set[str]:
    """Top-level names of all that these parts import."""
    return {name.split(".")[0] for path in FILES if part_of(path) in parts for name in IMPORTS[path]}


def test_every_part_has_its_place() -> None:
    assert set(PARTS) <= set().union(*LEVELS), "give the new part a level above"


@pytest.mark.parametrize("part", PARTS)
def test_imports_go_downwards_only(part: str) -> None:
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    upwards = {other for other in parts_imported(part) if level[other] > level[part]}
    assert not upwards
    assert part not in everything_below(part) - {part}
    for other in parts_imported(part):
        assert part not in everything_below(other), f"{part} and {other} import one another"


def test_the_two_halves_do_not_know_one_another() -> None:
    assert "engine" not in everything_below("dataset")
    assert "dataset" not in everything_below("engine")


@pytest.mark.parametrize("part", sorted(KNOWS_NO_JAX))
def test_scheduling_and_data_know_no_jax(part: str) -> None:
    assert not outside_packages(everything_below(part)) & {"jax", "jaxlib", "flax"}


@pytest.mark.parametrize("part", sorted(KNOWS_NO_ARROW))
def test_the_engine_knows_no_arrow(part: str) -> None:
    assert "pyarrow" not in outside_packages(everything_below(part))


def test_the_rules_see_an_import_within_a_function() -> None:
    assert "dataset" in parts_imported("arrays")


def test_importing_the_package_and_the_reader_loads_no_jax() -> None:
    code = "import sys, scanrnn_dist, scanrnn_dist.job; sys.exit(bool({'jax', 'flax'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True)


def test_every_public_name_is_found() -> None:
    import scanrnn_dist

    assert sorted(scanrnn_dist._MODULE_OF) == dir(scanrnn_dist) == sorted(scanrnn_dist.__all__)
    for name, module in scanrnn_dist._MODULE_OF.items():
        assert f"scanrnn_dist.{module}.{name}" in IMPORTS[PACKAGE / "__init__.py"]
        if (PACKAGE / f"{module}.py").exists():
            assert getattr(scanrnn_dist, name).__module__ == f"scanrnn_dist.{module}"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = scanrnn_dist.nothing
