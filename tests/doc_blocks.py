"""The blocks of the documentation, the commands in them, and why some of these run in no test.

A block is what stands between two fences of a page. A command is a line of an `sh` block; one that ends in a backslash
goes on in the next line. Every command runs in a test, unless `NOT_RUN` says why it does not; a block of Python always
runs. `python tests/doc_blocks.py` prints all commands that do not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "pipelines/README.md"]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)

NOT_RUN = {
    r"^python3 -m venv .*(scanrnn demo|pytest -n auto)$": "`.ci/run` runs README's two lines in a fresh environment",
    r"^python3 -m venv ": "it needs a package index; `.ci/run` does the same step by step",
    r"^pip install ": "it needs a package index; test_docs_commands.py looks whether the extra exists",
    r"^source ": "it changes the reader's shell; the tests run what follows with the same programs on the path",
    r"\bpytest\b": "it runs the tests; test_docs_commands.py looks whether its files and markers exist",
    r"\bruff\b|^bash \.ci/run": "it checks the checkout; `.ci/run` does that before each change lands",
    r"\bhatch_build\.py$": "it compiles into the checkout; tests/test_hatch_build.py does that in a copy",
    r"-m benchmarks\.": "it takes minutes of an idle machine; test_docs_commands.py looks whether its flags exist",
    r"^kubectl ": "it needs a cluster; tests/test_pipelines_launchers.py runs the command of a pod",
    r"^ray job submit ": "it needs Ray's dashboard, which is not in the extra [ray]; what it hands over runs above it",
    r"\bgs://": "there is no server of Google's here; tests/storage/test_remote_options.py tries the URIs",
    r"\babfss://": "there is no server of Azure's here; tests/storage/test_remote_options.py tries the URIs",
    r"\bhf://": "it needs huggingface.co; tests/source/test_listing.py tries what such a source can be refused for",
    r"\bhdfs://": "it needs a cluster of Hadoop; tests/source/test_listing.py tries the same URI without one",
}
"""Why a command in which the expression is found is read by the tests, but not run. The first one that fits counts."""

RUN_BY_ANOTHER_TEST = {
    "README": "tests/test_readme.py",
    "docs/tutorial": "tests/test_docs.py",
    "pipelines/README": "tests/test_docs_stories.py",  # its block is one of docs/training.md, as a test there says
}
"""Pages that a test of their own runs; `test_docs_stories.py` runs all others."""

NOT_INSTALLED = {
    "pyspark": "500 MB and a Java; with both, `python -m pytest -m soak tests/test_docs.py` runs its block (Spark 4.3)",
}
"""Packages that blocks of Python import and no extra brings, so that `.ci/run` skips these blocks, and why."""

PROGRAMS = {"scanrnn", "python", "srun", "sbatch", "mpirun", "torchrun", "export", "cat"}
"""What `test_docs_stories.py` has, or has something that stands in for it."""


def name_of(page: Path) -> str:
    """A page as tests call it, such as docs/jobs."""
    return str(page.relative_to(ROOT).with_suffix(""))


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Kind, title and text of each block of a page."""
    return [found.groups(default="") for found in BLOCK.finditer(page.read_text())]  # type: ignore[misc]


def words_of(command: str) -> list[str]:
    """The words of a command, without its comment."""
    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    return list(words)


def commands(text: str) -> list[str]:
    """The commands of a block, with their comments; what goes on after a backslash is one command."""
    return [line for line in text.replace("\\\n", " ").splitlines() if words_of(line)]


def all_commands() -> Iterator[tuple[str, str]]:
    """Each command of the documentation, with the name of its page."""
    for page in PAGES:
        for kind, _, text in blocks(page):
            if kind == "sh":
                yield from ((name_of(page), command) for command in commands(text))


def entry_of(command: str) -> str | None:
    """The entry of `NOT_RUN` for a command; None for one that runs."""
    plain = re.sub(r"\s+#.*", "", command)
    return next((pattern for pattern in NOT_RUN if re.search(pattern, plain)), None)


def scanrnn_commands(command: str) -> Iterator[list[str]]:
    """What follows `scanrnn` in a command, up to the end of that program's words."""
    words = words_of(command)
    names = [Path(word).name for word in words]
    if "scanrnn" in names:
        rest = words[names.index("scanrnn") + 1 :]
        yield rest[: next((nth for nth, word in enumerate(rest) if set(word) <= set("<>|&;")), len(rest))]


def main() -> None:
    """Print the commands that run in no test, each reason once."""
    everything = list(all_commands())
    for pattern, why in NOT_RUN.items():
        print(f"{why}:")
        for page, command in everything:
            if entry_of(command) == pattern:
                print(f"    {page}: {command}")
    for package, why in NOT_INSTALLED.items():
        print(f"{why}:\n    Python with {package}")
    left = sum(entry_of(command) is not None for _, command in everything)
    print(f"{len(everything)} commands, {len(everything) - left} run, {left} do not.")


if __name__ == "__main__":
    main()
