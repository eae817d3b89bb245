"""In a notebook progress is a bar, where widgets are installed, and it ends at what was done."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
for name in ("ipykernel", "ipywidgets"):
    pytest.importorskip(name)

CODE = """
from scanrnn_dist.observe import rows_progress
with rows_progress("featurize", 4000) as rows:
    for _ in range(4):
        rows.advance(1000)
"""
STATE = "application/vnd.jupyter.widget-state+json"


@pytest.mark.soak
def test_a_notebook_shows_a_bar_that_ends_at_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    nbclient.NotebookClient(notebook, timeout=60, store_widget_state=True).execute()
    assert [it for it in notebook.cells[0].outputs if it.output_type == "stream"] == []
    models = notebook.metadata["widgets"][STATE]["state"].values()
    shown = [it["data"]["text/plain"] for model in models for it in model["state"].get("outputs", [])]
    assert "4,000 of 4,000 rows (100%)" in re.sub(r"\x1b\[[0-9;]*m", "", shown[-1]) and "━" in shown[-1]
