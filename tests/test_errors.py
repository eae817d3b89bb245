"""Every class of error has its exit code, and its place in the index of errors."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import scanrnn_dist
from scanrnn_dist.api import featurize
from scanrnn_dist.cli.options import JOB_FLAGS
from scanrnn_dist.cli.run_options import RunFlags
from scanrnn_dist.errors import ConfigError, DataError, ScanRNNError, StoppedError, option_name

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()


def classes() -> set[type[ScanRNNError]]:
    """All classes of errors that any module has."""
    for module in pkgutil.walk_packages(scanrnn_dist.__path__, "scanrnn_dist."):
        if not module.name.endswith(("__main__", "sklearn")):
            importlib.import_module(module.name)
    found, left = set(), [ScanRNNError]
    while left:
        one = left.pop()
        found.add(one)
        left += [each for each in one.__subclasses__() if each.__module__.startswith("scanrnn_dist.")]
    return found


def test_every_class_that_users_see_stands_in_the_index() -> None:
    missing = {kind.__name__ for kind in classes() if kind.__name__[0] != "_" and f"`{kind.__name__}`" not in PAGE}
    assert not missing


@pytest.mark.parametrize(("kind", "code"), [(ConfigError, 2), (DataError, 3), (StoppedError, 4)])
def test_every_class_ends_with_a_code_that_the_index_explains(kind: type[ScanRNNError], code: int) -> None:
    assert all(each.exit_code == code for each in classes() if issubclass(each, kind))
    assert f"| {code} | `{kind.__name__}`" in PAGE


def test_every_flag_is_an_argument_of_that_name_or_has_its_own_in_the_index() -> None:
    arguments = inspect.signature(featurize).parameters
    flags = {*map(option_name, JOB_FLAGS), *(field.name for field in dataclasses.fields(RunFlags))}
    table = PAGE.partition("| flag | argument")[2].partition("\n\n")[0]
    named = {flag.replace("-", "_") for flag in re.findall("`--([a-z-]+)", table)}
    assert named - {"encoder"} == flags - set(arguments)


def said_by_the_package() -> list[str]:
    """All texts of the package's code, with an ellipsis for what is put into them."""
    texts = []
    for path in Path(scanrnn_dist.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(each.value if isinstance(each, ast.Constant) else "…" for each in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_the_messages_that_the_index_quotes_are_those_of_the_package() -> None:
    table = PAGE.partition("| it says |")[2].partition("\n\n")[0]
    quoted = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
    texts = said_by_the_package()
    for message in quoted:
        pieces = [re.escape(piece.strip()) for piece in message.replace("`", "").split("...")]
        assert any(re.search(".*".join(pieces), text) for text in texts), message
    assert len(quoted) > 5
