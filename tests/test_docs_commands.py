"""The commands that the documentation shows: the real command line reads each, and those that can run here do.

A page is a story: its blocks of `sh`, and the `python` and `toml` that make their files, work in their order in one
folder. A block that wants a bucket, a cluster or a package index is only read. `text` below a block is what it prints.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sources
import typer
from typer.core import TyperGroup

from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli.command import told_of
from scanrnn_dist.cli.demo import make_source
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import InputSpec

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md")), ROOT / "pipelines/README.md"]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
ELSEWHERE = re.compile(
    r"[a-z0-9]+://|\b(srun|sbatch|kubectl|mpirun|torchrun|ray|pip|pytest|benchmarks|pipelines)\b"
    r"|\.onnx|\.h5|~/|workloads/|scanrnn-demo/"
)
"""A block that holds one of these is not run here: it wants what is not here, or has a test of its own."""
ALL: Any = typer.main.get_command(cli.app)
TOLD_ELSEWHERE = {"README", "tutorial", "CONTRIBUTING"}
"""Pages that `test_readme.py` and `test_docs.py` run as a reader would, and the one that runs the tests."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Kind, title and text of each block of a page."""
    return [found.groups(default="") for found in BLOCK.finditer(page.read_text())]  # type: ignore[misc]


def runs_here(kind: str, text: str) -> bool:
    """Whether a block is a shell's, and wants nothing that is not here."""
    return kind == "sh" and not ELSEWHERE.search(text)


def stories() -> list[Path]:
    """The pages with a block that runs here."""
    pages = [page for page in PAGES if page.stem not in TOLD_ELSEWHERE]
    return [page for page in pages if any(runs_here(kind, text) for kind, _, text in blocks(page))]


def lines_of(text: str) -> Iterator[list[str]]:
    """The words of each line of a shell, without comments; what goes on after a backslash is one line."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        if told := list(words):
            yield told


def commands_of(text: str) -> Iterator[list[str]]:
    """What follows each `scanrnn`, up to the end of the command."""
    for words in lines_of(text):
        names = [Path(word).name for word in words]
        if "scanrnn" in names:
            rest = words[names.index("scanrnn") + 1 :]
            yield rest[: next((nth for nth, word in enumerate(rest) if set(word) <= set("<>|&;")), len(rest))]


def read_by_the_command_line(words: list[str]) -> None:
    """Have the real parser read a command, and do nothing."""
    group: Any = ALL
    context = group.make_context("scanrnn", list(words))
    rest = [*context._protected_args, *context.args]
    while isinstance(group, TyperGroup) and rest:
        name, group, rest = group.resolve_command(context, rest)
        context = group.make_context(name, rest, parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_command_line_reads_each_command(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for title, text in ((title, text) for kind, title, text in blocks(page) if kind == "toml"):
        (tmp_path / (title or "untitled.toml")).write_text(text)
    for text in (text for kind, _, text in blocks(page) if kind == "sh"):
        for words in commands_of(text):
            try:
                with redirect_stdout(StringIO()):
                    read_by_the_command_line(words)
            except typer.Exit:
                pass  # the command had only to print
            except Exception as error:
                pytest.fail(f"{page.name} shows `scanrnn {shlex.join(words)}`: {error}")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_flags_in_the_text_are_flags(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text())
    assert not re.findall(r"^    (?:\$ )?(?:scanrnn|python|pip) .*", prose, re.MULTILINE), "commands stand in ```sh"
    for span in re.findall(r"`scanrnn ([^`]*)`", prose):
        group: Any = ALL
        words = shlex.split(span.replace("\n", " "))
        while isinstance(group, TyperGroup) and words and words[0][0] not in "-.C":
            assert words[0] in group.commands, f"{page.name} names `scanrnn {span}`"
            group = group.commands[words.pop(0)]
        told = told_of(group.get_params(typer.Context(group)), [*words, "the value of a flag at the end"])[2]
        assert not {word for word in told if word.startswith("--") and word != "--"}, f"{page.name}: `scanrnn {span}`"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_other_programs_have_the_flags_that_are_shown(page: Path) -> None:
    text = "".join(block for kind, _, block in blocks(page) if kind == "sh")
    for words in lines_of(text):
        names = [word for word in words if word.endswith(".py") or word.startswith(("benchmarks.", "scanrnn_dist."))]
        if Path(words[0]).name != "python" or "pytest" in words or not names:
            continue
        path = ROOT / (names[0] if names[0].endswith(".py") else names[0].replace(".", "/"))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert path.exists(), f"{page.name}: {words}"
        said = "".join(each.read_text() for each in {path, *path.parent.glob("*.py")})
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            field = rf'"{flag}"|^    {flag[2:].replace("-", "_")}: '  # of a dataclass whose fields are flags
            assert re.search(field, said, re.MULTILINE), f"{page.name}: {words}: {flag}"


FILES = [(page, title, text) for page in PAGES for kind, title, text in blocks(page) if kind == "toml"]


@pytest.mark.parametrize(("page", "title", "text"), FILES, ids=[f"{_name(page)}-{title}" for page, title, _ in FILES])
def test_files_are_read_by_what_they_are_for(page: Path, title: str, text: str, tmp_path: Path) -> None:
    (tmp_path / title).write_text(text)
    if "[[column]]" in text:
        assert InputSpec.load(tmp_path / title).width
    else:
        with redirect_stdout(StringIO()) as said, pytest.raises(typer.Exit):
            read_by_the_command_line(["featurize", "--config", str(tmp_path / title), "--print-config"])
        assert len(said.getvalue().splitlines()) > 2


def test_a_flag_that_is_none_is_found() -> None:
    with pytest.raises(ConfigError, match="--hiden"):
        try:
            read_by_the_command_line(["featurize", "a", "b", "--hiden", "64"])
        except typer.Exit:
            pytest.fail("no error")
        except Exception as error:
            raise ConfigError(str(error)) from error


# What runs here, runs -----------------------------------------------------------------------------------------------


def run_block(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the lines of a block, `scanrnn` in this process; what they print. A comment may name the exit code."""
    said = ""
    for line in text.replace("\\\n", " ").splitlines():
        words = next(lines_of(line), [])
        if not words:
            continue
        if words[0] != "scanrnn":
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            own = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
            run = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, timeout=100, env=own)
            assert run.returncode == 0, (line, run.stderr)
            said += run.stdout
            continue
        expected = re.search(r"#.*exit code ([0-9])", line)
        code = cli.run(next(commands_of(line)))
        out, err = capsys.readouterr()
        assert code == (int(expected.group(1)) if expected else 0), (line, out, err)
        if ">" in words:
            Path(words[words.index(">") + 1]).write_text(out)
        said += out
    return said


def features_of(out: Path) -> dict[str, tuple[float, ...]]:
    """The features of each row of an output, by its id."""
    table = pq.read_table(out)
    return dict(zip(table["id"].to_pylist(), map(tuple, table["features"].to_pylist()), strict=True))


@pytest.mark.soak
@pytest.mark.parametrize("page", stories(), ids=_name)
def test_the_blocks_of_a_page_work_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_source(tmp_path / "recordings", 60, seed=0)
    said = ""
    with sources.command_line_in_this_process(monkeypatch, columns=120):
        for kind, title, text in blocks(page):
            if kind == "toml" and title:
                (tmp_path / title).write_text(text)
            elif kind == "python":
                for name in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE):
                    pytest.importorskip(name)
                exec(compile(text, str(page), "exec", dont_inherit=True), {})
            elif kind == "sh":
                if "--sort" in text:
                    pytest.importorskip("duckdb")
                said = run_block(text, capsys) if runs_here(kind, text) else ""
            elif kind == "text" and said:
                shown = {line.strip() for line in text.splitlines()} - {"", "..."}
                assert shown <= {line.strip() for line in said.splitlines()}, (page.name, said)
    if page.stem == "layouts":
        outs = [out for out in tmp_path.glob("*-out") if out.name != "nested-out"]
        assert len(outs) == 8
        for out in outs:
            assert set(features_of(out).items()) <= set(features_of(tmp_path / "nested-out").items())
