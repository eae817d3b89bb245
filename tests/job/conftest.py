"""One process that forks the jobs that are killed, for all files of tests that kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crashing import Zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote
