"""What `scanrnn inspect` prints of a source: its columns, its layouts, lengths as a histogram, features as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from scanrnn_dist.cli.drawing import Column, bar, folded, shortened, shows, table
from scanrnn_dist.errors import counted, one_line, some_of

if TYPE_CHECKING:
    from scanrnn_dist.job import Inspection, Measured, Sequences

_LABEL = 10
"""Letters of what stands before a line."""
_COLUMNS_TOLD, _LAYOUTS_TOLD, _FEATURES_TOLD, _VALUES_TOLD = 40, 12, 32, 8


def told_of(found: Inspection, width: int) -> str:
    """What was found, in lines of about so many letters."""
    size = _bytes(found.nbytes)
    lines = [
        *_line("files", f"{found.files:,}, {size} together; the first is {found.first}", width),
        *_line("rows", f"{found.rows:,} in {counted(found.row_groups, 'row group')}", width),
    ]
    left_out = [f"left out: {path}: {one_line(reason)}" for path, reason in found.left_out.items()]
    for line in _some(left_out, _VALUES_TOLD):
        lines += folded(line, width, " " * _LABEL, _LABEL + 2)
    lines += _of_columns(found, width)
    lines += [line for told in found.drift for line in _line("differ", told, width)]
    lines += _of_layouts(found, width)
    if found.sequences is not None:
        lines += ["", *_of_sequences(found.sequences, width)]
    if found.measured is not None:
        lines += ["", *_of_steps(found.measured, found.sequences, width)]
    return "\n".join(lines)


def _of_columns(found: Inspection, width: int) -> list[str]:
    """A line for each column."""
    told = found.columns[:_COLUMNS_TOLD]
    spelled, plain = set(found.spelled), found.plain
    nulls = ["folder name" if n in spelled else f"{plain.nulls[n]:,}" if n in plain.nulls else "" for n, _ in told]
    columns = [
        Column("column", [name for name, _ in told], is_text=True),
        Column("type", [_simpler(type) for _, type in told], is_text=True),
        Column("nulls", nulls, matters=8),
    ]
    if any(plain.nans.values()):
        nans = [f"{plain.nans[name]:,}" if name in plain.nans else "" for name, _ in told]
        columns.append(Column("NaN", nans, matters=7))
    lines = ["", *table(columns, width, indent=0)]
    if len(found.columns) > len(told):
        lines.append(f"... ({len(found.columns) - len(told):,} more; --json prints all)")
    for name, reason in found.unreadable.items():
        lines += folded(f"{name}: cannot be read: {reason}", width)
    if plain.nulls and not plain.is_whole:
        lines += folded(f"Nulls are counted in {plain.rows:,} of the rows; --scan counts in all.", width)
    return [*lines, ""]


def _of_layouts(found: Inspection, width: int) -> list[str]:
    """How sequences may stand in the columns, and the flags that choose between several ways."""
    if found.sequences is not None and len(found.layouts) == 1:
        return [*_line("layout", found.sequences.words, width), *_line("", found.sequences.flags, width)]
    if not found.layouts:
        return _line("layout", f"none found. {found.no_layout}", width)
    lines = _line("layout", f"{len(found.layouts)} are possible. Choose one by its flags:", width)
    told = found.layouts[:_LAYOUTS_TOLD]
    for words, same in groupby(told, key=lambda it: it[1]):
        lines += [f"  {words}", *(f"    {flags}" for flags, _ in same)]
    if len(found.layouts) > len(told):
        lines.append(f"  ... ({len(found.layouts) - len(told):,} more; --json prints all)")
    return lines


def _of_sequences(told: Sequences, width: int) -> list[str]:
    """How many sequences there are, how long they are, and what is read of them."""
    from scanrnn_dist.job import left_out_in_words

    features = "an unknown number of features" if told.in_features is None else counted(told.in_features, "feature")
    lines = _line("sequences", f"{told.count:,} in {told.described}, {features} per step", width)
    if told.left_out:
        lines += _line("left out", left_out_in_words(told.left_out), width)
    if told.for_input:
        lines += _line("--input", f"takes {some_of(told.for_input, _VALUES_TOLD)} too, as categories or times", width)
    if told.lengths is not None and told.mean is not None:
        least, median, most = told.lengths
        span = f"{least:,} to {most:,} steps" if least < most else f"always {counted(least, 'step')}"
        middle = f", median {median:,g}, mean {told.mean:,.1f}" if least < most else ""
        lines += _line("lengths", f"{span}{middle}, of {_which(told)}", width)
    for kind, count in told.faults.items():
        lines += _line("", f"{counted(count, 'row')} of these with {kind.replace('_', ' ')}", width)
    return [*lines, *histogram(told, width)] if len(told.histogram) > 1 else lines


def histogram(told: Sequences, width: int) -> list[str]:
    """A bar for each range of lengths, with how many sequences have it."""
    names = [f"{it.first:,}" if it.first == it.last else f"{it.first:,} - {it.last:,}" for it in told.histogram]
    counts = [f"{it.count:,}" for it in told.histogram]
    total, most = sum(it.count for it in told.histogram), max(it.count for it in told.histogram)
    left, right = max(map(len, [*names, "steps"])), max(map(len, [*counts, "sequences"]))
    room = max(8, width - 2 - left - 2 - right - 2 - 6 - 2)
    plain = not shows("█▏")
    lines = [f"  {'steps'.rjust(left)}  {'sequences'.rjust(right)}"]
    for name, count, it in zip(names, counts, told.histogram, strict=True):
        share = f"{it.count / total:.1%}".rjust(6)
        line = f"  {name.rjust(left)}  {count.rjust(right)}  {share}  {bar(it.count / most, room, plain)}"
        lines.append(line.rstrip())
    return lines


def _which(told: Sequences) -> str:
    """Which sequences were read."""
    if told.is_whole:
        return "all sequences"
    groups = counted(told.row_groups, "row group")
    return f"{told.rows:,} sequences, the first ones of {groups} (--scan reads all)"


def _of_steps(told: Measured, sequences: Sequences | None, width: int) -> list[str]:
    """A table of what steps hold."""
    if not told.columns:
        return _line("steps", "; ".join(told.notes) or "none", width)
    columns = told.to_json()["columns"][:_FEATURES_TOLD]
    numbers = {name: [_number(it.get(name)) for it in columns] for name in ("min", "mean", "max", "std")}
    types = dict(sequences.features) if sequences is not None else {}
    shown = [
        Column("feature", [it["name"] for it in columns], is_text=True),
        Column("type", [_simpler(types.get(it["name"], it["kind"])) for it in columns], is_text=True, matters=2),
    ]
    for name, label in (("nulls", "nulls"), ("nans", "NaN"), ("infinite", "infinite")):
        if any(it[name] for it in columns):
            shown.append(Column(label, [f"{it[name]:,}" for it in columns]))
    shown += [Column(name, cells, matters=4 + (name == "mean")) for name, cells in numbers.items()]
    if any(it["values"] for it in columns):
        shown.append(Column("values", [_values(it["values"]) for it in columns], is_text=True, matters=3))
    of = "all sequences" if sequences is None or sequences.is_whole else "these sequences"
    none = "" if any(it["unusable"] for it in columns) else "; no null, no NaN, nothing infinite"
    lines = _line("steps", f"{told.steps:,} of {of}{none}", width)
    lines += table(shown, width)
    if len(told.columns) > len(columns):
        lines.append(f"  ... ({len(told.columns) - len(columns):,} more; --json prints all)")
    return lines


def _line(label: str, text: str, width: int) -> list[str]:
    """A label, and a text beside it."""
    return folded(text, width, f"{label:<{_LABEL}}", _LABEL)


def _some(lines: Sequence[str], most: int) -> list[str]:
    return list(lines) if len(lines) <= most else [*lines[:most], f"... ({len(lines) - most:,} more)"]


def _simpler(type: str) -> str:
    """A type as people write it: `list<list<float>>`."""
    return one_line(type).replace("element: ", "").replace("item: ", "")


def _bytes(count: int) -> str:
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"


def _number(number: float | None) -> str:
    if number is None or not math.isfinite(number):
        return "-"
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e7 else f"{number:.4g}"


def _values(values: list[Any] | None) -> str:
    """Distinct values, if they are few; else how many, if that is known."""
    if values is None:
        return "many"
    told = ", ".join(shortened(repr(value), 20) for value in values)
    return told if len(values) <= _VALUES_TOLD else f"{len(values):,} different"
