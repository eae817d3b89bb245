"""pyarrow's allocator, in the processes of commands and of their workers."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

from scanrnn_dist.allocator import VARIABLE, allocator_of_jobs

pytestmark = pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="pyarrow has no jemalloc here")
PRINTS_IT = "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
COMMAND = f"""
import sys, types
sys.modules["scanrnn_dist.cli"] = types.SimpleNamespace(main=lambda: exec({PRINTS_IT!r}))
from scanrnn_dist.__main__ import main
main()
"""


@pytest.mark.parametrize(("told", "backend"), [(None, "jemalloc"), ("system", "system")])
def test_a_command_has_pyarrow_use_jemalloc_unless_the_user_chose(told: str | None, backend: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {} if told is None else {VARIABLE: told}
    done = subprocess.run([sys.executable, "-c", COMMAND], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{backend}\n" and not done.stderr


def test_pyarrow_takes_the_word_of_the_environment_for_all_that_it_allocates() -> None:
    environment = {**os.environ, VARIABLE: "system"} | allocator_of_jobs({})
    done = subprocess.run(
        [sys.executable, "-c", PRINTS_IT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "jemalloc\n"
