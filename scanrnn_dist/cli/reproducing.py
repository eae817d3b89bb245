"""The command that makes an output again, from the records of its job: flags for all that the output depends on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from scanrnn_dist.cli.options import JOB_FLAGS
from scanrnn_dist.errors import flag_of, joined_names, option_name

_SIZES = ("lanes", "block_steps", "window_blocks")
_MOST_FILES = 4


def command_that_makes(job: Mapping[str, Any], source: str | list[str], destination: str, has_encoder: bool) -> str:
    """The command, a flag a line; nothing where no command makes it.

    Args:
        job: its record.
        source: as it was named, absolute; empty where that is not known.
        destination: where the output stands, with a copy of the encoder in its records if `has_encoder`.
        has_encoder: whether it has.

    Example:
        >>> job = {"options": {"max_steps": 7}, "recipe": {"hidden_features": 64, "seed": 0}}
        >>> print(command_that_makes({**job, "window": {}, "environment": {}}, "/in", "/out", True))
        scanrnn featurize /in /out-again \\
           --hidden 64 --seed 0 \\
           --max-steps 7
    """
    from scanrnn_dist.job import APPLIED
    from scanrnn_dist.records import RESTART
    from scanrnn_dist.storage import is_uri, split_query

    destination = destination if is_uri(destination) else os.path.abspath(destination)
    encoder = _encoder_of(job, destination, has_encoder)
    sources = [source] if isinstance(source, str) else source
    if not encoder or job["options"].get(APPLIED) or not source or len(sources) > _MOST_FILES:
        return ""
    where, query = split_query(destination)
    where = where.removesuffix(f"/{RESTART}")
    is_bucket = is_uri(where) and "/" not in where.partition("://")[2]
    first = ["scanrnn", "featurize", *sources, f"{where}{'/' if is_bucket else '-'}again{query}"]
    sizes = [word for name in _SIZES if name in job["window"] for word in (flag_of(name), str(job["window"][name]))]
    kernel = ["--kernel", job["environment"]["kernel"]] if job["environment"].get("kernel") else []
    lines = [first, encoder, *_options_of(job["options"]), sizes + kernel]
    return " \\\n   ".join(shlex.join(words) for words in lines if words)


def _encoder_of(job: Mapping[str, Any], destination: str, has_encoder: bool) -> list[str]:
    """The flags of the encoder: how it was drawn, or the file in the records of the job."""
    recipe = job.get("recipe", {})
    if "seed" in recipe and "input" not in recipe:
        return ["--hidden", str(recipe["hidden_features"]), "--seed", str(recipe["seed"])]
    from scanrnn_dist.records import ENCODER
    from scanrnn_dist.storage import is_uri

    if not has_encoder or is_uri(destination):
        return []
    return ["--encoder", f"{destination.rstrip('/')}/{ENCODER}"]


def _options_of(told: Mapping[str, Any]) -> Iterator[list[str]]:
    """The flags of options that are not what they are when nothing is said."""
    from scanrnn_dist.job import JobOptions

    for name, value in JobOptions.from_json(told).changed().items():
        option = JOB_FLAGS[name].__metadata__[0]  # typer keeps the first of its own names as the default
        names = [each for each in (option.default, *(option.param_decls or ())) if str(each).startswith("--")]
        named = names[0] if names else flag_of(option_name(name))
        if value is True:
            yield [named]
        else:
            yield [named, joined_names(value) if isinstance(value, tuple | list) else str(value)]
