"""A notebook shows a result as `print` does, not with all of its fields."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from pathlib import Path

import pytest
from sources import featurize, random_rows, write_source

import scanrnn_dist
from scanrnn_dist.api import verify
from scanrnn_dist.job import clean, export, read_status

NOT_SHOWN = {"Measured", "Store", "Worker"}
"""Lines and names within other texts."""


def test_every_result_that_has_a_text_is_shown_as_it() -> None:
    missing = set()
    for module in pkgutil.walk_packages(scanrnn_dist.__path__, "scanrnn_dist."):
        if module.name.endswith(("__main__", "sklearn")) or module.name.startswith("scanrnn_dist.cli"):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            if dataclasses.is_dataclass(kind) and "__str__" in vars(kind) and "_repr_pretty_" not in vars(kind):
                missing.add(name)
    assert missing == NOT_SHOWN


def test_a_notebook_shows_the_text(tmp_path: Path) -> None:
    pretty = pytest.importorskip("IPython.lib.pretty").pretty
    source = write_source(tmp_path / "in.parquet", random_rows([3, 5]))
    report = featurize(source, tmp_path / "out")
    results = [report, verify(tmp_path / "out"), export(tmp_path / "out", tmp_path / "out.npy")]
    for result in (*results, read_status(tmp_path / "out"), clean(tmp_path / "out")):
        assert pretty(result) == str(result) != repr(result)
        assert repr(result).startswith(f"{type(result).__name__}(")
