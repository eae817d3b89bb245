"""Every example in a docstring runs and gives what it shows."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import scanrnn_dist

PACKAGE = Path(scanrnn_dist.__file__).parent
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]
NAMES = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in WITH_EXAMPLES]


@pytest.mark.parametrize("name", [name.removesuffix(".__init__") for name in NAMES])
@pytest.mark.usefixtures("compiled_quickly")
def test_the_examples_run(name: str) -> None:
    if name == "scanrnn_dist.sklearn":
        pytest.importorskip("sklearn")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
