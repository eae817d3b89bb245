"""README's commands and Python examples work in the order in which they stand; `.ci/run` takes its commands from it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import commands, entry_of

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
EXAMPLES = [block for kind, block in BLOCKS if kind == "python"]


@pytest.mark.parametrize("block", EXAMPLES, ids=range(len(EXAMPLES)))
@pytest.mark.usefixtures("compiled_quickly")
def test_python_examples_run_as_printed(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "import torch" in block:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.soak
def test_all_blocks_work_in_the_order_in_which_they_stand(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    run("scanrnn", "demo")  # the first block does it, once it has installed the package
    for kind, block in BLOCKS:
        if "import torch" in block:
            pytest.importorskip("torch")
        if kind == "python":
            run(sys.executable, "-c", block)
        elif ours := [command for command in commands(block) if entry_of(command) is None]:
            run("bash", "-euc", "\n".join(ours))
    assert (tmp_path / "torch-features" / "_SUCCESS").exists()


def test_the_two_commands_stand_alone_on_their_lines() -> None:
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("scanrnn demo")
    assert commands[1].endswith("-m pytest -n auto")
    assert 'grep -m1 "^python3 -m venv .*-m pytest -n auto$" README.md' in (ROOT / ".ci" / "run").read_text()
