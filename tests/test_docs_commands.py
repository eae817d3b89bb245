"""The commands that the documentation shows: the real command line reads each, flags and files exist.

Each command runs in a test (`test_docs_stories.py`), or `doc_blocks.NOT_RUN` says why it does not.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from doc_blocks import (
    BLOCK,
    NOT_INSTALLED,
    NOT_RUN,
    PAGES,
    PROGRAMS,
    ROOT,
    all_commands,
    blocks,
    commands,
    entry_of,
    name_of,
    scanrnn_commands,
    words_of,
)
from typer.core import TyperGroup

from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli.command import told_of
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import InputSpec

ALL: Any = typer.main.get_command(cli.app)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = [*all_commands()]


def read_by_the_command_line(words: list[str]) -> None:
    """Have the real parser read a command, and do nothing."""
    group: Any = ALL
    context = group.make_context("scanrnn", list(words))
    rest = [*context._protected_args, *context.args]
    while isinstance(group, TyperGroup) and rest:
        name, group, rest = group.resolve_command(context, rest)
        context = group.make_context(name, rest, parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_command_line_reads_each_command(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for title, text in ((title, text) for kind, title, text in blocks(page) if kind == "toml"):
        (tmp_path / (title or "untitled.toml")).write_text(text)
    for text in (text for kind, _, text in blocks(page) if kind == "sh"):
        for words in (words for command in commands(text) for words in scanrnn_commands(command)):
            try:
                with redirect_stdout(StringIO()):
                    read_by_the_command_line(words)
            except typer.Exit:
                pass  # the command had only to print
            except Exception as error:
                pytest.fail(f"{page.name} shows `scanrnn {shlex.join(words)}`: {error}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_other_programs_have_the_flags_that_are_shown(page: Path) -> None:
    text = "".join(block for kind, _, block in blocks(page) if kind == "sh")
    for words in map(words_of, commands(text)):
        names = [word for word in words if word.endswith(".py") or word.startswith(("benchmarks.", "scanrnn_dist."))]
        if Path(words[0]).name != "python" or "pytest" in words or not names:
            continue
        path = ROOT / (names[0] if names[0].endswith(".py") else names[0].replace(".", "/"))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert path.exists(), f"{page.name}: {words}"
        said = path.read_text()
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            field = rf'"{flag}"|^    {flag[2:].replace("-", "_")}: '  # of a dataclass whose fields are flags
            assert re.search(field, said, re.MULTILINE), f"{page.name}: {words}: {flag}"


FILES = [(page, title, text) for page in PAGES for kind, title, text in blocks(page) if kind == "toml"]


@pytest.mark.parametrize(("page", "title", "text"), FILES, ids=[f"{name_of(page)}-{title}" for page, title, _ in FILES])
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


# What no test runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_test_knows_each_block(page: Path) -> None:
    fences = re.findall(r"^ *```.*", page.read_text(), re.MULTILINE)
    told = blocks(page)
    assert len(fences) == 2 * len(told), "a block begins at the start of a line with its kind, and ends"
    kinds = {kind for kind, _, _ in told}
    assert kinds <= {"sh", "python", "toml", "text", "mermaid"}
    if "python" in kinds:
        assert page.parent.name == "docs" or page.name == "README.md", "test_docs.py and test_readme.py run Python"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_command_runs_or_the_table_says_why_not(page: Path) -> None:
    for command in (command for name, command in COMMANDS if name == name_of(page) and entry_of(command) is None):
        program = Path(words_of(command)[0]).name
        assert program in PROGRAMS, f"{command}: no test runs it, and doc_blocks.NOT_RUN does not say why"


def test_each_entry_of_the_table_is_needed_and_names_tests_that_exist() -> None:
    used = Counter(entry_of(command) for _, command in COMMANDS)
    assert {pattern for pattern in NOT_RUN if not used[pattern]} == set()
    for why in NOT_RUN.values():
        for path in re.findall(r"[\w/]+\.py", why):
            assert (ROOT / "tests" / path.removeprefix("tests/")).exists(), why


SAYING = [*PAGES, ROOT / "mkdocs.yml", *sorted((ROOT / "scanrnn_dist").rglob("*.py"))]


def test_extras_that_are_named_exist() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    named = {
        (path.name, extra)
        for path in SAYING
        for found in re.findall(r"""["']\.\[([\w,-]+)\]["']""", path.read_text())
        for extra in found.split(",")
    }
    assert len(named) > 20 and {(path, extra) for path, extra in named if extra not in extras} == set()


def test_a_checkout_is_installed_with_e_so_that_the_library_is_built_in_it() -> None:
    found = [line for path in SAYING for line in re.findall(r"pip install [\"']?\..*", path.read_text())]
    assert found == []


def test_packages_that_python_imports_are_brought_by_an_extra_or_the_table_says_why_not() -> None:
    extras = [name for names in PROJECT["project"]["optional-dependencies"].values() for name in names]
    told = {re.split(r"[^\w-]", name)[0] for name in [*PROJECT["project"]["dependencies"], *extras]}
    brought = told | {"sklearn", "orbax", "scanrnn_dist"}  # scikit-learn, with flax, ours
    imported = {
        name
        for page in PAGES
        for kind, _, text in blocks(page)
        if kind == "python"
        for name in re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE)
    }
    assert imported - brought - sys.stdlib_module_names == set(NOT_INSTALLED)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_markers_of_tests_that_are_named_exist(page: Path) -> None:
    markers = {marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    prose = BLOCK.sub("", page.read_text())
    spans = [span for span in re.findall(r"`([^`]*)`", prose) if "-m pytest" in span]
    for words in [
        *map(shlex.split, spans),
        *(words_of(command) for name, command in COMMANDS if name == name_of(page)),
    ]:
        for word in (word for word in words if word.startswith("tests/") and "pytest" in words):
            assert [*ROOT.glob(word)], f"{page.name}: {word}"
        for flag, told in pairwise(words[words.index("pytest") :] if "pytest" in words else []):
            if flag == "-m":
                assert set(re.findall(r"\w+", told)) - {"not", "and", "or"} <= markers, f"{page.name}: {told}"


def test_a_pod_runs_what_the_page_shows() -> None:
    yaml = pytest.importorskip("yaml")
    spec = yaml.safe_load((ROOT / "pipelines" / "featurize_kubernetes.yaml").read_text())["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    words = [part for word in container["command"] for part in (word.split("=") if word[:2] == "--" else [word])]
    assert words in [words_of(command) for page, command in COMMANDS if page == "docs/clusters"]


def test_commands_in_the_comments_of_scripts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = []
    for path in [ROOT / "Dockerfile", *sorted((ROOT / "pipelines").glob("*.sh"))]:
        for line in path.read_text().splitlines():
            if found := re.match(r"(?:# docker run .*|exec .*)\bscanrnn (featurize .*)", line):
                told.append(shlex.split(found.group(1).replace('"$@"', "a b").replace("$PROCESSES", "2")))
    assert len(told) == 3
    for words in told:
        read_by_the_command_line(words)
