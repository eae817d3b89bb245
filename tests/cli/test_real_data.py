"""Real data as it is found: each command of docs/data.md gives the features of the rows that plain Python makes of it.

Rows are rebuilt from `pyarrow.Table.to_pylist`, the features are held to the specification of each row alone.
"""

from __future__ import annotations

import re
import shlex
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sources

from scanrnn_dist.api import computation
from scanrnn_dist.cli import app as cli
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.faithfulness import Judge
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.source import read_chunks

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
COMMANDS: list[str] = re.findall(r"\| `scanrnn (featurize .*)` \|$", PAGE.read_text(), re.MULTILINE)
HIDDEN = 64
MOST_JUDGED = 60
"""Of the rows of a data set about; where there are many more, every second one is, or every third."""


def rebuilt(row: dict[str, Any], options: dict[str, str]) -> np.ndarray:
    """The sequence of a row, `(T, D)`, by what the command says of it and no more."""
    features = options["--features"].split(",") if "--features" in options else None
    value: Any = row
    if "--column" in options or not (features or "--layout" in options):
        for name in options.get("--column", "sequence").split("."):
            value = value[name]
    if isinstance(value, dict):
        lists = [value[name] for name in features or value if isinstance(value[name], list)]
        return np.array([*zip(*lists, strict=True)], np.float32).reshape(-1, len(lists))
    steps = [step if isinstance(step, list) else [step] for step in value]
    return np.array(steps, np.float32).reshape(len(steps), len(steps[0]) if steps else 1)


def taken(command: str, shared_data: Path) -> tuple[Path, list[str], list[np.ndarray]]:
    """The source of a command, what stands behind its destination, and the sequences of all rows."""
    words = shlex.split(command)
    (source,) = (path for path in shared_data.rglob(words[1]) if "hostile" not in path.parts)
    assert words[2:5] == ["out", "--hidden", str(HIDDEN)]
    flags = [word for word in words[5:] if word != "--lossy-cast"]
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    return source, words[3:], [rebuilt(row, options) for row in rows]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computation, "window_shape_for", lambda encoder, mesh, **_: sources.SHAPE)
    sources.command_line_in_this_process(monkeypatch, columns=120)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_rows_of_a_command_are_those_that_plain_python_makes(command: str, shared_data: Path) -> None:
    source, words, sequences = taken(command, shared_data)
    told: dict[str, Any] = {"lossy_cast": "--lossy-cast" in words}
    told |= {name: words[words.index(f"--{name}") + 1] for name in ("column", "layout") if f"--{name}" in words}
    if "--features" in words:
        told["features"] = words[words.index("--features") + 1].split(",")
    plan = plan_job(source, JobOptions(**told))
    options = JobOptions(**told).settled(plan.layout, plan.keep, plan.rows_per_part)
    width = max(sequence.shape[1] for sequence in sequences)
    with closing(read_chunks(plan.source, plan.units, options.reading(width, None))) as chunks:
        rows = [chunk.sequences.row(row) for chunk in chunks for row in range(len(chunk.sequences))]
    assert len(rows) == len(sequences) > 0
    for row, expected in zip(rows, sequences, strict=True):
        assert row.tobytes() == expected.tobytes() and len(row) == len(expected)


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=[] if "old_list" in command else pytest.mark.soak) for command in COMMANDS],
)
def test_a_command_of_the_docs_gives_the_features_of_its_rows(command: str, shared_data: Path, tmp_path: Path) -> None:
    source, words, sequences = taken(command, shared_data)
    assert cli.run(["featurize", str(source), str(tmp_path / "out"), *words]) == 0
    features = sources.features_of(tmp_path / "out")
    assert len(features) == len(sequences) > 0
    width = max(sequence.shape[1] for sequence in sequences)
    judge = Judge(Encoder.from_seed(0, width, HIDDEN))
    for index in range(0, len(sequences), 1 + len(sequences) // MOST_JUDGED):
        judgement = judge(features[index], sequences[index].reshape(-1, width))
        assert judgement.is_faithful, (command, index, judgement)


def test_the_docs_show_a_command_for_each_layout() -> None:
    assert len(COMMANDS) >= 8
