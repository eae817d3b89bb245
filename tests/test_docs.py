"""The Python examples of the pages in `docs/` run as printed."""

import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
BLOCKS = [
    pytest.param(page, block, id=f"{page.stem}-{nth}")
    for page in PAGES
    for nth, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


def test_there_are_examples() -> None:
    assert {param.values[0].stem for param in BLOCKS} >= {"encoders", "weights"}


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_examples_run_as_printed(page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(page), "exec"), {})
