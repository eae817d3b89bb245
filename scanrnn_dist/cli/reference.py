"""The reference of all commands as Markdown, made from the command line itself: `python -m scanrnn_dist.cli.reference`.

For the documentation; nothing is computed, and neither JAX nor pyarrow is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from scanrnn_dist.cli.app import app
from scanrnn_dist.cli.command import plain
from scanrnn_dist.cli.examples import EXAMPLES


def reference() -> str:
    """All commands, each with its usage, examples, and a table for each group of its flags.

    Example:
        >>> reference().splitlines()[0]
        '# Command reference'
    """
    lines = ["# Command reference", ""]
    for words, context in contexts():
        lines += _of_command(words, context)
    return "\n".join(lines).rstrip() + "\n"


def contexts() -> Iterator[tuple[str, typer.Context]]:
    """The words that call each command, and its context; the program itself first, without words."""
    root = typer.main.get_command(app)
    yield from _below(root.make_context("scanrnn", [], resilient_parsing=True))


def groups_of(context: typer.Context) -> dict[str, list[Any]]:
    """The parameters of a command by the group that its help shows them in."""
    groups: dict[str, list[Any]] = {}
    for param in context.command.get_params(context):
        default = "Arguments" if isinstance(param, TyperArgument) else "Options"
        if not getattr(param, "hidden", False):
            groups.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(param)
    return dict(sorted(groups.items(), key=lambda group: group[0] != "Arguments"))


def _below(context: Any, words: str = "") -> Iterator[tuple[str, typer.Context]]:
    yield words, context
    if isinstance(context.command, TyperGroup):
        for name, command in context.command.commands.items():
            below = command.make_context(name, [], parent=context, resilient_parsing=True)
            yield from _below(below, f"{words} {name}".strip())


def _of_command(words: str, context: Any) -> list[str]:
    command = context.command
    usage = " ".join([f"scanrnn {words}".strip(), *command.collect_usage_pieces(context)])
    lines = [f"## `scanrnn {words}`", ""] if words else []
    lines += [plain(command.help or ""), "", "```text", usage, "```", ""]
    if examples := EXAMPLES.get(words):
        shown = [line for about, example in examples for line in (f"# {about}", example)]
        lines += ["```sh", *shown, "```", ""]
    if isinstance(command, TyperGroup):
        lines += ["| command | what it does |", "|---|---|"]
        lines += [
            f"| [`{name}`](#scanrnn-{f'{words} {name}'.strip().replace(' ', '-')}) "
            f"| {_cell(plain(each.help or '').split(chr(10))[0])} |"
            for name, each in command.commands.items()
        ]
        lines.append("")
    for group, params in groups_of(context).items():
        rows = [_row(param, context) for param in params]
        lines += [f"**{group}**", "", "| | value | |", "|---|---|---|", *rows, ""]
    return lines


def _row(param: Any, context: typer.Context) -> str:
    """A line of a table: the flag, what it takes, what it does."""
    name = ", ".join(sorted(param.opts)) if isinstance(param, TyperOption) else param.display_name_raw
    value = param.display_type_rich(ctx=context)
    return f"| `{name}` | {_cell(f'`{value}`' if value else '')} | {_cell(param.help or '')} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print(reference(), end="")
