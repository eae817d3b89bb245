"""The command that a report gives makes the same output again, to the byte."""

from __future__ import annotations

import json
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources

from scanrnn_dist import cli
from scanrnn_dist.cli.reproducing import command_that_makes
from scanrnn_dist.errors import StoppedError
from scanrnn_dist.report import read_numbers

ROWS = 24
SIZES = ["--lanes", "4", "--block-steps", "4", "--window-blocks", "8"]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sources.command_line_in_this_process(monkeypatch, columns=120)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows: list[Any] = [row.tolist() for row in sources.random_rows(sources.some_lengths(ROWS))]
    rows[3] = None
    names = pa.array([f"row {row}" for row in range(ROWS)])
    folder = tmp_path_factory.mktemp("a b")  # a blank, so that quoting matters
    steps = np.random.default_rng(0).permutation(60)  # in no order
    events = {"id": steps % 7, "t": steps, "x": steps / 64, "y": -steps / 32}
    pq.write_table(pa.table(events), folder / "events.parquet")
    return sources.write_source(folder / "in put.parquet", rows, name=names, size=pa.array(np.arange(ROWS)))


def command_of(out: Path) -> str:
    return read_numbers(out, command_of=command_that_makes).command


FLAGS = [
    ["--hidden", "5", "--seed", "3", "--null-sequence", "skip"],
    ["--hidden", "5", "--rows-per-part", "7", "--null-sequence", "null", "--keep", "", "--max-steps", "3",
     "--truncate", "tail", "--output-layout", "list", "--output-dtype", "float16", "--compression", "gzip"],
    ["--hidden", "5", "--bad-value", "zero", "--null-sequence", "skip", "--limit", "20", "--keep", "size,name",
     "--filter", "size < 15 and name != 'row 7'", "--row-group-bytes", "100000", "--min-steps", "2"],
    pytest.param(
        ["--hidden", "5", "--group-by", "id", "--order-by", "t", "--features", "x,y", "--lossy-cast", "--sort"],
        marks=pytest.mark.skipif(find_spec("duckdb") is None, reason="--sort needs the extra 'duckdb'."),
    ),
]  # fmt: skip


@pytest.mark.parametrize("flags", FLAGS)
def test_the_command_makes_the_same_bytes(source: Path, tmp_path: Path, flags: list[str]) -> None:
    out, given = tmp_path / "out", source.with_name("events.parquet") if "--sort" in flags else source
    assert cli.run(["featurize", str(given), str(out), *flags, *SIZES]) == 0
    words = shlex.split(command_of(out).replace("\\\n", ""))  # as a shell reads it
    assert words[:4] == ["scanrnn", "featurize", str(given), f"{out}-again"]
    sources.forget_encoders()
    assert cli.run(words[1:]) == 0
    parts = sorted(path.name for path in out.glob("part-*"))
    assert parts and parts == sorted(path.name for path in Path(words[3]).glob("part-*"))
    for name in parts:
        assert (out / name).read_bytes() == Path(words[3], name).read_bytes()
    if "--sort" in flags:
        shutil.rmtree(f"{out}.sorted")  # which says what it is a copy of
        assert command_of(out) == ""


def test_names_with_commas_are_told_so_that_they_are_found_again(tmp_path: Path) -> None:
    lists = pa.array([[1.0], [2.0, 3.0]])
    pq.write_table(pa.table({"f,1": lists, "f 2": lists, "a,b": [1, 2], "a": [3, 4]}), tmp_path / "in.parquet")
    out, named = tmp_path / "out", ["--features", '"f,1",f 2', "--keep", '"a,b"']
    assert cli.run(["featurize", str(tmp_path / "in.parquet"), str(out), "--hidden", "5", *named, *SIZES]) == 0
    assert pq.read_schema(out / "part-00000.parquet").names == ["a,b", "features"]
    words = shlex.split(command_of(out).replace("\\\n", ""))
    assert words[words.index("--features") + 1] == named[1] and words[words.index("--keep") + 1] == named[3]


def test_an_encoder_that_was_not_drawn_is_taken_from_the_records(source: Path, tmp_path: Path) -> None:
    sources.encoder_of().save(tmp_path / "mine.safetensors")
    out = tmp_path / "out"
    asked = ["--encoder", str(tmp_path / "mine.safetensors"), "--null-sequence", "skip"]
    assert cli.run(["featurize", str(source), str(out), *asked, *SIZES]) == 0
    (tmp_path / "mine.safetensors").unlink()
    words = shlex.split(command_of(out).replace("\\\n", ""))  # as a shell reads it
    assert cli.run(words[1:]) == 0
    assert (out / "part-00000.parquet").read_bytes() == Path(words[3], "part-00000.parquet").read_bytes()
    job = json.loads((out / "__scanrnn/job.json").read_text())
    assert command_that_makes(job, str(source), str(out), has_encoder=False) == ""
    assert command_that_makes(job, str(source), "s3://bucket/out", has_encoder=True) == ""
    drawn, query = {**job, "recipe": {"hidden_features": 5, "seed": 1}}, "?endpoint_override=minio:9000&scheme=http"
    command = command_that_makes(drawn, str(source), f"s3://bucket/out/{query}", has_encoder=True)
    assert shlex.split(command.replace("\\\n", ""))[3] == f"s3://bucket/out-again{query}"
    for root, again in {"s3://bucket": "s3://bucket/again", "gs://bucket/a/": "gs://bucket/a-again"}.items():
        command = command_that_makes(drawn, str(source), f"{root}{query}", has_encoder=True)
        assert shlex.split(command.replace("\\\n", ""))[3] == f"{again}{query}"
    updated = {**job, "options": {**job["options"], "applied": ["x"]}}
    assert command_that_makes(updated, str(source), str(out), has_encoder=True) == ""


@pytest.mark.parametrize("named", [".", ".."])
def test_a_folder_without_a_name_of_its_own_is_told_by_its_path(
    source: Path, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert cli.run(["featurize", str(source), str(out), "--hidden", "5", "--null-sequence", "skip", *SIZES]) == 0
    (out / "below").mkdir()
    monkeypatch.chdir(out if named == "." else out / "below")
    assert shlex.split(command_of(Path(named)).replace("\\\n", ""))[3] == f"{out}-again"


@pytest.mark.parametrize("count", [3, 5])
def test_a_few_files_are_named_one_by_one_and_of_many_no_command_is_given(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row.tolist() for row in sources.random_rows(sources.some_lengths(6))]
    files = [str(sources.write_source(tmp_path / f"in {number}.parquet", rows)) for number in range(count)]
    out = tmp_path / "out"
    assert cli.run(["featurize", *files, str(out), "--hidden", "5", *SIZES]) == 0
    words = shlex.split(command_of(out).replace("\\\n", ""))

    def refused(given: object) -> None:
        raise StoppedError("no network")

    with monkeypatch.context() as patched:
        patched.setattr("scanrnn_dist.job.plan.filesystem_of", refused)
        assert shlex.split(command_of(out).replace("\\\n", "")) == words
    if count > 4:
        assert not words
        return
    assert words[2 : 3 + count] == [*files, f"{out}-again"]
    assert cli.run(words[1:]) == 0
    for part in out.glob("part-*"):
        assert part.read_bytes() == Path(f"{out}-again", part.name).read_bytes()
