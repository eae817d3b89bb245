"""What a job is, in words, from its records alone: for `status`, and for whoever continues somebody else's job."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from scanrnn_dist.errors import counted, joined_names, option_name, some_of
from scanrnn_dist.job.computation import RECIPE
from scanrnn_dist.job.continued import APPLIED, FIRST_SOURCE
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.restart import is_of_restart
from scanrnn_dist.records import FILES, RESTART, UNITS, JobRecords, read_records
from scanrnn_dist.storage import split_query

CELLS = {"GRUCell": "GRU", "OptimizedLSTMCell": "LSTM", "LSTMCell": "LSTM", "SimpleCell": "simple RNN"}
"""What people call the cells, by their names in records."""
_WHERE = ("layout", "column", "features", "in_features", "group_by", "order_by", "keep")
"""Options that say where the sequences stand, which have a line of their own."""
_MOST_FILES = 4


def job_in_words(job: Mapping[str, Any], headers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What a job is, each thing under its name: source, sequences, encoder, options, who began it and when.

    Args:
        job: its record, `job.json`.
        headers: of the attempts at it, as their logs have them.
    """
    options = job["options"]
    told = {"source": options["source"]}
    if applied := options.get(APPLIED):
        told = {
            "source": options[FIRST_SOURCE],
            "updated": f"{counted(len(applied), 'time')}, last with {options['source']}",
        }
    told |= {
        "sequences": sequences_in_words(options),
        "encoder": encoder_in_words(job),
    }
    changed = JobOptions.from_json(options).changed().items()
    if shown := [_option_in_words(name, value) for name, value in changed if name not in _WHERE]:
        told["options"] = ", ".join(shown)
    environment, versions = job["environment"], job["environment"]["versions"]
    told["made with"] = (
        f"{environment['kernel']} kernel on {environment['device_kind']}, "
        f"scanrnn_dist {versions['scanrnn_dist']}, jax {versions['jax']}"
    )
    if began := min((header["started"] for header in headers), default=None):
        told["begun"] = f"{datetime.fromtimestamp(began):%Y-%m-%d %H:%M:%S}"
    return told


def sequences_in_words(options: Mapping[str, Any]) -> str:
    """Where the sequences stand: `column 'sequence' (nested-lists)`."""
    if options.get("group_by"):
        by = f"one step a row, grouped by {', '.join(options['group_by'])}"
        return by + (f", in the order of {', '.join(options['order_by'])}" if options.get("order_by") else "")
    if options.get("column"):
        return f"column {options['column']!r} ({options['layout']})"
    if options.get("features"):
        return f"columns {some_of(list(options['features']), 5)} ({options['layout']})"
    return str(options["layout"])


def encoder_in_words(job: Mapping[str, Any]) -> str:
    """What the encoder is: `GRU, 64 hidden features, random weights of seed 0`."""
    layers = job["encoder"]["architecture"]["layers"]
    is_bidirectional = any("forward" in layer for layer in layers)
    cells = [layer.get("forward", layer) for layer in layers]
    names = [CELLS.get(cell["cell"], cell["cell"]) for cell in cells]
    kinds = [f"{len(list(same))} layers of {name}" for name, same in groupby(names)] if len(names) > 1 else names
    hidden = ", ".join(dict.fromkeys(str(cell.get("hidden_features", "?")) for cell in cells))
    recipe = job.get(RECIPE, {})
    weights = f"random weights of seed {recipe['seed']}" if "seed" in recipe else "weights of a file or of Python"
    readout = job["encoder"]["architecture"]["readout"]
    what = ("bidirectional " if is_bidirectional else "") + ", ".join(kinds)
    return f"{what}, {hidden} hidden features" + (f", readout {readout}" if readout != "last" else "") + f", {weights}"


def command_that_continues(destination: str) -> str:
    """The command that goes on with a job that stands at a destination, whatever began it."""
    return f"scanrnn resume {shlex.quote(destination)}"


def way_to_continue(records: JobRecords, job: dict[str, Any]) -> str:
    """What goes on with a job that was stopped; with an update or a restart only the command that began it."""
    name = os.fspath(records.store)
    if not is_of_restart(records.store.root):
        return f"{command_that_continues(name)}, or the command that began it"
    if not job["options"].get(APPLIED):
        return "the command that began it, with --restart"
    given = source_of(records, job)
    files = [given] if isinstance(given, str) else given
    where, query = split_query(name)
    command = ["scanrnn", "update", where.removesuffix(f"/{RESTART}") + query, *files[:_MOST_FILES]]
    more = " ..." if len(files) > _MOST_FILES else ""
    return f"{shlex.join(command)}{more} --ids {shlex.quote(joined_names(job['options']['ids']))}"


def source_of(records: JobRecords, job: dict[str, Any]) -> str | list[str]:
    """The source as it was named, by the records alone: neither its layout nor its filesystem need be had here."""
    facts, _ = read_records(records.read_plan(job, FILES, UNITS))
    return facts.given


def _option_in_words(name: str, value: Any) -> str:
    """An option and its value: `max_steps 7`."""
    return f"{option_name(name)} {', '.join(map(str, value)) if isinstance(value, tuple) else value}"
