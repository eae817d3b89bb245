"""One job for all tests of a page, since they only look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from evil import evil_job

from scanrnn_dist.report import page


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evil_job(tmp_path_factory.mktemp("page"))


@pytest.fixture
def needs_extra() -> None:
    for name in page.NEEDED:
        pytest.importorskip(name)
