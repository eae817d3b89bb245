"""One process that forks the jobs that are killed, for all files of tests that kill; and few programs for `verify`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crashing import Zygote

from scanrnn_dist.faithfulness import judge


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote


@pytest.fixture(autouse=True)
def _rows_of_any_length_are_judged_by_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` compiles two for each encoder then, instead of two for each power of two."""
    monkeypatch.setattr(judge, "LEAST_STEPS", 64)
