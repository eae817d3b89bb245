"""`--config`: flags in a TOML file; and `--print-config`, which prints what was said as such a file.

A key is a flag without its dashes, or `source` and `destination`. What the command line says wins.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperOption

from scanrnn_dist.errors import ConfigError, did_you_mean, joined_names

_OF_THE_RUN = {"help", "config", "print_config"}
"""What a file cannot say."""


def read_config(path: str, command: str, params: Sequence[Any]) -> dict[str, Any]:
    """What a file says of a command's parameters, by their names, as typer takes them from a command line.

    Raises:
        ConfigError: no such file, no TOML, a key that the command does not have, or a value that no flag takes.
    """
    try:
        told = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"--config: there is no file {path}; expected a TOML file of flags.") from error
    except OSError as error:
        raise ConfigError(f"--config: {path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config: {path} is no TOML: {error}.") from error
    known = {key_of(param): param for param in params if param.name not in _OF_THE_RUN}
    values = {}
    for key, value in told.items():
        param = known.get(key.replace("_", "-"))
        if param is None:
            raise ConfigError(
                f"--config: {path} has a key {key!r} that `scanrnn {command}` does not take."
                f"{did_you_mean(key, known)} Keys are flags without their dashes, source and destination."
            )
        values[param.name] = _value(f"--config: {path}: {key}", param, value)
    return values


def config_text(ctx: typer.Context, params: Sequence[Any]) -> str:
    """What was said of a command, on its command line or in a file, as the text of a file that says the same."""
    lines, left = [f"# scanrnn {ctx.info_name} --config FILE"], []
    for param in params:
        if param.name in _OF_THE_RUN:
            continue
        source = ctx.get_parameter_source(param.name)
        value = ctx.params.get(param.name)
        if source is None or source.name not in ("COMMANDLINE", "DEFAULT_MAP") or value is None or value is False:
            left.append(key_of(param))
        else:
            lines.append(f"{key_of(param)} = {_toml(value)}")
    return "\n".join([*lines, "", *_wrapped("# The defaults hold for: ", left), ""])


def key_of(param: Any) -> str:
    """The key of a parameter."""
    longest: str = max(param.opts, key=len)
    return longest.lstrip("-").replace("_", "-") if isinstance(param, TyperOption) else str(param.name)


def _value(where: str, param: Any, value: Any) -> Any:
    """A value of TOML as words of a command line, or a flag."""
    if isinstance(param, TyperOption) and param.is_flag:
        if not isinstance(value, bool):
            raise ConfigError(f"{where} is {value!r}; expected true or false.")
        return value or None
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise ConfigError(f"{where} is {value!r}; expected a text, a number or a list of these.")
    words = [_word(where, each) for each in value] if isinstance(value, list) else [_word(where, value)]
    if isinstance(param, TyperArgument) and param.nargs == -1:
        return tuple(words)
    if param.multiple:
        return words
    if isinstance(value, list) and "," in (param.metavar or ""):
        return joined_names(words)
    if isinstance(value, list):
        raise ConfigError(f"{where} is {value!r}; expected one value.")
    return words[0]


def _word(where: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{where} holds {value!r}; expected a text or a number.")
    return value if isinstance(value, str) else repr(value)


def _toml(value: Any) -> str:
    """A value as TOML: JSON's texts and lists are TOML's too, but for one letter that only JSON takes as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        raise TypeError(value)
    words = [str(each) for each in value] if isinstance(value, list | tuple) else str(value)
    return json.dumps(words, ensure_ascii=False).replace("\x7f", "\\u007f")


def _wrapped(head: str, names: Sequence[str]) -> list[str]:
    """Names as lines of a comment."""
    import textwrap

    return textwrap.wrap(head + ", ".join(names) + ".", 100, subsequent_indent="#   ", break_on_hyphens=False)
