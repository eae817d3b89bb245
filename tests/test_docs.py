"""The Python examples and the queries of the pages in `docs/` run as printed."""

import os
import pydoc
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.job import JobOptions, in_features_of, plan_job
from scanrnn_dist.source import ReadOptions, read_chunks

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
OPTIONAL = ("datasets", "duckdb", "grain", "pandas", "polars", "pyspark", "ray", "sklearn", "torch")
CLUSTERS = re.compile(r"^import (pyspark|ray)\b", re.MULTILINE)
"""Examples that start processes of their own, which takes some seconds, and warns where JAX runs already."""
STORIES = ("layouts", "tutorial")
"""Pages whose blocks go on from one another: see below, and `test_docs_stories.py`."""
BLOCKS = [
    pytest.param(page, block, id=f"{page.stem}-{nth}", marks=[pytest.mark.soak] if CLUSTERS.search(block) else [])
    for page in PAGES
    for nth, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    if page.stem not in STORIES
]


def test_there_are_examples() -> None:
    assert {param.values[0].stem for param in BLOCKS} >= {"encoders", "weights"}


@pytest.mark.parametrize(("page", "block"), BLOCKS)
@pytest.mark.usefixtures("compiled_quickly")
def test_examples_run_as_printed(page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in OPTIONAL:
        if re.search(rf"^\s*(import|from) {name}\b", block, re.MULTILINE):
            pytest.importorskip(name)
    if CLUSTERS.search(block):
        own = {**os.environ, "PYSPARK_PYTHON": sys.executable}  # Spark would take whatever is called python3
        run = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=400, env=own)
        assert run.returncode == 0, run.stderr
        return
    exec(compile(block, str(page), "exec"), {})


def test_all_that_the_page_of_the_api_shows_is_there() -> None:
    names = re.findall(r"^::: (\S+)$", (PAGES[0].parent / "api.md").read_text(), re.MULTILINE)
    assert len(names) > 40
    for name in names:
        with suppress(pydoc.ErrorDuringImport):  # of a package that an extra brings
            assert pydoc.locate(name) is not None, name


@pytest.mark.soak
def test_the_tutorial_works_from_its_begin_to_its_end(tmp_path: Path) -> None:
    own = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    said = ""
    for kind, block in re.findall(
        r"```(python|sh)\n(.*?)```", (PAGES[0].parent / "tutorial.md").read_text(), re.DOTALL
    ):
        command = [sys.executable, "-c", block] if kind == "python" else ["bash", "-euc", block]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, env=own)
        assert run.returncode == 0, (block, run.stderr)
        said += run.stdout
    found = re.search("([0-9]+)% right, 33% by chance", said)
    assert found is not None and int(found.group(1)) > 60


RECIPES: list[str] = re.findall(r"`(COPY .*)` \|$", (PAGES[0].parent / "data.md").read_text(), re.MULTILINE)
TRANSPOSED = pa.array([[[1.0, 3.0], [2.0, 4.0]], [[5.0], [6.0]]], pa.list_(pa.list_(pa.float32())))
LAYOUTS: list[dict[str, Any]] = [
    {"id": [1, 2, 1], "t": [2, 1, 1], "x": [3.0, 5.0, 1.0], "y": [4.0, 6.0, 2.0]},
    {"id": [1, 2], "seq": [[["1", "2"], ["3", "4"]], [["5", "6"]]]},
    {"id": [1, 2], "seq": TRANSPOSED},
]
"""The same two sequences in each layout that has a recipe, in its order."""


@pytest.mark.parametrize(("recipe", "layout"), [*zip(RECIPES, LAYOUTS, strict=True)])
def test_recipes_make_sequences_of_other_layouts(
    recipe: str, layout: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table(layout), "in.parquet")
    duckdb.sql(recipe)
    plan = plan_job("out.parquet", JobOptions(column="seq", keep=["id"]))
    chunks = read_chunks(plan.source, plan.units, ReadOptions(plan.layout, ["id"], in_features_of(plan)))
    rows = {
        number: chunk.sequences.row(row).tolist()
        for chunk in chunks
        for row, number in enumerate(chunk.kept["id"].to_pylist())
    }
    assert rows == {1: [[1, 2], [3, 4]], 2: [[5, 6]]}
