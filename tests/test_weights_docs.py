"""The Python examples of the page about weights run as printed."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "weights.md"


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_examples_run_as_printed(block: str) -> None:
    exec(compile(block, str(PAGE), "exec"), {})
