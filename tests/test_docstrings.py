"""Every example in a docstring runs and gives what it shows."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import scanrnn_dist

MODULES = ["scanrnn_dist", *(module.name for module in pkgutil.walk_packages(scanrnn_dist.__path__, "scanrnn_dist."))]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_run(name: str) -> None:
    if name == "scanrnn_dist.sklearn":
        pytest.importorskip("sklearn")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
