"""Small shares of a job's memory, so that few rows fill what large ones would."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanrnn_dist.job import Memory, MemoryShares


def hold(monkeypatch: pytest.MonkeyPatch, **shares: int) -> None:
    """Have the parts of each job hold so many bytes, whatever the budget; others hold their usual share."""
    monkeypatch.setattr(Memory, "shares", lambda memory, is_static: replace(MemoryShares.of(), **shares))
