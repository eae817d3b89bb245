"""The README's Python examples run as printed, and its commands are those that `.ci/run` takes from it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readme_has_examples():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_examples_run_as_printed(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_the_two_commands_stand_alone_on_their_lines():
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("scanrnn demo")
    assert commands[1].endswith("-m pytest -n auto")
    assert 'grep -m1 "^python3 -m venv .*-m pytest -n auto$" README.md' in (ROOT / ".ci" / "run").read_text()
