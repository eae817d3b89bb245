"""pyarrow's allocator in processes of the command line's own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from scanrnn_dist.source import choose_allocator

pytestmark = pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="pyarrow has no jemalloc here")


@pytest.mark.parametrize(("told", "backend"), [(None, "jemalloc"), ("system", "system")])
def test_jemalloc_is_used_unless_the_user_chose(
    told: str | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pa.default_memory_pool()
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        if told is not None:
            monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", told)
        choose_allocator()
        assert pa.default_memory_pool().backend_name == backend
    finally:
        pa.set_memory_pool(before)
