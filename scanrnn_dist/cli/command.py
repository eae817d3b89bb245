"""What all commands have in common: how their words are read, and how their help looks.

What a flag means stands in `options.py`, examples in `examples.py`; the file of `--config` is read by `config.py`.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.exceptions import Abort, TyperException

from scanrnn_dist.cli.config import config_text, read_config
from scanrnn_dist.cli.examples import EXAMPLES
from scanrnn_dist.cli.options import GROUPS
from scanrnn_dist.errors import ConfigError, did_you_mean
from scanrnn_dist.observe import SHOWN

CTRL_C, WRONG_USAGE = 130, 2
HELP = "Help"
"""The last group of options."""
COMPLETION = "Completion of the shell"
_URI = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
"""How a URI begins once it was taken for a path."""
_LEAVE_OUT = ("--drop", "--exclude")
"""What others call the opposite of `--keep`."""


class Command(TyperCommand):
    """A command whose flags may stand in a file, each at most once on the command line, and whose help has examples."""

    def __init__(self, *given: Any, **told: Any) -> None:
        super().__init__(*given, **told)
        self.help = plain(self.help or "")

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, `--help` in a group at the end."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            _tidy(param)
            if param.name == "help":
                param.rich_help_panel = HELP
        return sorted(params, key=_group)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words, after the file of `--config`, and refuse what only this class can tell."""
        params = self.get_params(ctx)
        told, words, unknown = told_of(params, args)
        if not ctx.resilient_parsing:  # a shell that completes words wants no errors
            for param in params:
                _check_once(param, told.get(param.name, []))
            if "config" in told:
                ctx.default_map = read_config(os.path.expanduser(told["config"][0]), self.name or "", params)
                SHOWN.errors_as_json |= ctx.default_map.get("as_json") is True
        shows = "print_config" in told and not ctx.resilient_parsing
        arguments = [param for param in params if isinstance(param, TyperArgument) and param.required]
        if not (ctx.resilient_parsing or shows or unknown or "help" in told):
            asked = [param for param in arguments if ctx.lookup_default(param.name) is None]
            for param in asked[len(words) :]:
                raise ConfigError(_missing(ctx, arguments, param))
        try:
            for param in arguments:
                param.required = not shows
            rest: list[str] = super().parse_args(ctx, args)
        finally:
            for param in arguments:
                param.required = True
        for name, value in ctx.params.items():
            if isinstance(value, Path):
                if _URI.match(str(value)):
                    raise ConfigError(
                        f"{str(value).replace(':/', '://', 1)} is a URI; expected a file of this machine."
                    )
                ctx.params[name] = Path(
                    os.path.expanduser(value)
                )  # no shell does for --flag=~/file or in a file of flags
        if shows:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")  # as TOML is, whatever the terminal's
            print(config_text(ctx, params), end="")
            raise typer.Exit
        return rest

    def make_parser(self, ctx: Any) -> Any:
        """A parser that gives a single word to SRC, where typer would take it for DST."""
        parser = super().make_parser(ctx)
        arguments = [param for param in self.params if isinstance(param, TyperArgument)]
        if len(arguments) < 2 or arguments[0].nargs != -1:
            return parser
        first, last, parse = arguments[0].name, arguments[-1].name, parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, rest, order = parse(args)
            if not values.get(first) and values.get(last) is not None and ctx.lookup_default(first) is None:
                values[first], values[last] = (values[last],), None
            return values, rest, order

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] SRC... [DST]`."""
        pieces = [self.options_metavar or ""]
        for param in self.params:
            if isinstance(param, TyperArgument):
                name = param.display_name_raw.rstrip(".") + ("..." if param.nargs == -1 else "")
                pieces.append(name if param.required else f"[{name}]")
        return pieces

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help, with examples at its end."""
        super().format_help(ctx, formatter)
        if examples := EXAMPLES.get(words_of(ctx)):
            lines = [line for about, command in examples for line in (f" # {about}", f" {command}", "")]
            typer.echo("\n".join([" Examples:", "", *lines[:-1]]))


class Group(TyperGroup):
    """A group of commands, whose own flags stand in groups too."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters; those of completion and help in groups at the end."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            _tidy(param)
            if param.name in ("install_completion", "show_completion"):
                param.rich_help_panel = COMPLETION
            elif isinstance(param, TyperOption):
                param.rich_help_panel = HELP
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`COMMAND ...`."""
        return ["COMMAND ..."]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help: first the commands, then the flags of the group itself."""
        options = [param for param in self.get_params(ctx) if isinstance(param, TyperOption)]
        try:
            for param in options:
                param.hidden = True
            super().format_help(ctx, formatter)
        finally:
            for param in options:
                param.hidden = False
        _print_options(options)


def _print_options(options: Sequence[TyperOption]) -> None:
    """Panels of options, as typer draws them."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    for group in dict.fromkeys(option.rich_help_panel for option in options):
        table = Table.grid(padding=(0, 2))
        for option in options:
            if option.rich_help_panel == group:
                table.add_row(", ".join(sorted(option.opts)), option.help or "")
        Console(highlight=False).print(Panel(table, title=group, title_align="left", border_style="dim"))


def use_commands(*apps: typer.Typer) -> None:
    """Have all commands of some apps be such a `Command`."""
    for app in apps:
        for registered in app.registered_commands:
            registered.cls = Command


def call(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command; its exit code.

    Raises:
        ConfigError: the words are none that the command takes.
    """
    try:
        code = app(list(arguments), prog_name="scanrnn", standalone_mode=False)
    except Abort:
        return CTRL_C
    except TyperException as error:
        if not error.format_message():  # the help was shown, since no command was given
            return WRONG_USAGE
        raise ConfigError(_told_wrong(error)) from error
    return code if isinstance(code, int) else 0


def plain(text: str) -> str:
    """A help text without the line breaks of its source; paragraphs stay."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def words_of(ctx: Any) -> str:
    """The words that call a command, without the program's own: `encoder make`."""
    return ctx.command_path.partition(" ")[2]


def told_of(params: Sequence[Any], args: Sequence[str]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """What is said of each option, by its name; words that belong to none; flags that are not known or lack a value."""
    options = [param for param in params if isinstance(param, TyperOption)]
    by_flag = {flag: param for param in options for flag in (*param.opts, *param.secondary_opts)}
    told, words, unknown, rest = dict[str, list[str]](), list[str](), list[str](), list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        flag, has_value, value = word.partition("=")
        if (option := by_flag.get(flag)) is None:
            (unknown if word.startswith("-") and word != "-" else words).append(word)
        elif option.is_flag or has_value or rest:
            value = "" if option.is_flag else value if has_value else rest.pop(0)
            told.setdefault(option.name, []).append(value)
        else:
            unknown.append(word)
    return told, words, unknown


def _group(param: Any) -> int:
    """The place of a parameter's group in the help."""
    name = getattr(param, "rich_help_panel", None) or "Options"
    return len(GROUPS) if name not in GROUPS else -1 if isinstance(param, TyperArgument) else GROUPS.index(name)


def _tidy(param: Any) -> None:
    """Have the help show no bounds, and no type of a flag without a value and of an argument."""
    param._get_number_range_help_str = lambda: None
    if isinstance(param, TyperArgument):
        param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
    elif param.is_flag:
        param.metavar = ""


def _check_once(param: Any, values: Sequence[str]) -> None:
    """Refuse a flag that takes one value and was given two: the last one would be taken in silence."""
    if isinstance(param, TyperOption) and not param.multiple and len(set(values)) > 1:
        together = shlex.quote(",".join(values))
        joined = f", or give all at once: {param.opts[0]} {together}" if "," in (param.metavar or "") else ""
        raise ConfigError(
            f"{param.opts[0]} was given {len(values)} times: {', '.join(map(repr, values))}. It takes one value; leave "
            f"out the others{joined}."
        )


def _missing(ctx: Any, arguments: Sequence[TyperArgument], missing: TyperArgument) -> str:
    """What to say of a word that was forgotten."""
    name = missing.display_name_raw.rstrip(".")
    expected = " ".join(argument.display_name_raw for argument in arguments)
    about = f": {(missing.help or '')[:1].lower()}{(missing.help or '')[1:]}" if missing.help else "."
    return f"{name} is missing{about} Expected {ctx.command_path} {expected}; see {ctx.command_path} -h."


def _of_scanrnn(ctx: Any, flag: str) -> str:
    """What to say of a flag that stands before the command; nothing of any other."""
    root = ctx.find_root()
    for param in root.command.get_params(root) if ctx is not root else ():
        if flag in param.opts and param.name in ("quiet", "verbose", "log_format", "version"):
            value = f" {param.metavar}" if param.metavar else ""
            flag = max(param.opts, key=len)
            return f" {flag} stands before the command: scanrnn {flag}{value} {words_of(ctx)} ..."
    return ""


def _told_wrong(error: Any) -> str:
    """What typer says of a command line, with a near name and where to look further."""
    message = str(error.message).rstrip(".")
    ctx: Any = getattr(error, "ctx", None)
    flag = getattr(error, "option_name", None)
    if ctx is not None and flag and message.startswith("No such option"):
        flags = [each for param in ctx.command.get_params(ctx) for each in param.opts if each.startswith("--")]
        hint = _of_scanrnn(ctx, flag) or did_you_mean(flag, flags)
        if flag in _LEAVE_OUT and "--keep" in flags:
            hint = " To leave columns out of the output, name all others with --keep."
        message = f"There is no flag {flag}.{hint}"
    elif not message.startswith("No such command"):
        message = f"{error.format_message().rstrip('.')}."
    elif not message.endswith("?"):
        message = f"{message}."
    return f"{message} See {ctx.command_path} -h." if ctx is not None else message
