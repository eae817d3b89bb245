"""The records of a job: what is written is read back, and damage is told from absence."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from scanrnn_dist.dataset.manifest import Manifest
from scanrnn_dist.dataset.writer import PartRecord
from scanrnn_dist.errors import ConfigError, DataError, StoppedError

JOB = {
    "format": "scanrnn_dist.job/1",
    "encoder": {"fingerprint": "ef" * 32},
    "source": "größe/温度.parquet",
    "options": {"keep": ["a.b"], "max_steps": None},
}
PARTS = {0: PartRecord("part-00000.parquet", 5, 1234, "ab" * 32), 1: PartRecord("part-00001.parquet", 0, 99, "cd" * 32)}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """The records of a finished job."""
    made = Manifest(tmp_path / "new" / "out")
    made.create()
    made.write_job(JOB)
    for unit, part in PARTS.items():
        made.append_part(unit, part)
    made.write_success({"rows": 5})
    return made


def record(manifest: Manifest, name: str) -> Path:
    return manifest.destination / ("_SUCCESS" if name == "_SUCCESS" else f"_scanrnn/{name}")


def read(manifest: Manifest, name: str) -> Any:
    reading = {"job.json": manifest.read_job, "parts.jsonl": manifest.read_parts, "_SUCCESS": manifest.read_success}
    return reading[name]()


def test_what_was_written_is_read_back(manifest: Manifest) -> None:
    assert manifest.read_job() == JOB
    assert manifest.read_parts() == PARTS
    assert manifest.read_success() == {"rows": 5, "parts_sha256": manifest.parts_sha256()}
    assert manifest.is_complete
    names = sorted(path.name for path in manifest.destination.rglob("*"))
    assert names == ["_SUCCESS", "_scanrnn", "job.json", "parts.jsonl"]


def test_the_records_of_a_plan_are_read_back(manifest: Manifest) -> None:
    assert manifest.read_plan() == {}
    records = {"files.parquet": b"PAR1", "units.parquet": b""}
    manifest.write_plan(records)
    assert manifest.read_plan() == records


def test_a_job_that_was_not_finished_says_so(manifest: Manifest) -> None:
    record(manifest, "_SUCCESS").unlink()
    assert not manifest.is_complete
    with pytest.raises(DataError, match="is not finished: there is no _SUCCESS"):
        manifest.read_success()


def test_no_parts_are_no_error(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.create()
    assert manifest.read_parts() == {}
    manifest.write_success({"rows": 0})
    assert manifest.read_success()["rows"] == 0


def test_a_folder_without_records_is_no_output(tmp_path: Path) -> None:
    for destination in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"is no output of a job: there is no .*job\.json"):
            Manifest(destination).read_job()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="is no output of a job"):
        Manifest(tmp_path / "file").read_job()


@pytest.mark.parametrize("name", ["job.json", "parts.jsonl", "_SUCCESS"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "zeros"])
def test_damaged_records_are_named(manifest: Manifest, name: str, damage: str) -> None:
    path = record(manifest, name)
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-9], "garbage": b"\xff\xfe{]", "zeros": bytes(len(content))}[damage])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        read(manifest, name)


@pytest.mark.parametrize("name", ["job.json", "parts.jsonl", "_SUCCESS"])
@pytest.mark.parametrize("content", ["5", "null"])
def test_records_that_are_json_of_another_kind_are_damaged(manifest: Manifest, name: str, content: str) -> None:
    record(manifest, name).write_text(content)
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        read(manifest, name)


@pytest.mark.parametrize("line", ["{}", '{"unit": 0}', '{"unit": "x", "name": "p", "rows": 1}', "[1]"])
def test_a_part_that_lacks_a_figure_is_damage(manifest: Manifest, line: str) -> None:
    with open(record(manifest, "parts.jsonl"), "a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"parts\.jsonl is damaged"):
        manifest.read_parts()


def test_a_list_of_parts_that_changed_after_the_job_is_told(manifest: Manifest) -> None:
    path = record(manifest, "parts.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    for content in (lines[0], "".join(lines + lines[:1]), "".join(lines).replace("1234", "1235")):
        path.write_text(content)
        with pytest.raises(DataError, match=r"parts\.jsonl changed after the job"):
            manifest.read_success()
    path.unlink()
    with pytest.raises(DataError, match=r"parts\.jsonl changed after the job"):
        manifest.read_success()


def test_a_destination_with_anything_in_it_is_refused_and_its_state_told(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"2 entries \(a finished run\)"):
        manifest.create()
    record(manifest, "_SUCCESS").unlink()
    with pytest.raises(ConfigError, match=r"1 entries \(an unfinished run\)"):
        manifest.create()
    assert manifest.read_job() == JOB


def test_a_full_disk_stops_and_names_the_record(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoppedError, match=r"parts\.jsonl could not be written: No space left"):
        manifest.append_part(2, PARTS[0])
    with pytest.raises(StoppedError, match=r"job\.json could not be written: No space left"):
        manifest.write_job({})
    with pytest.raises(StoppedError, match="_SUCCESS could not be written: No space left"):
        manifest.write_success({})
    assert manifest.read_job() == JOB


def test_records_are_json_that_other_tools_read(manifest: Manifest) -> None:
    assert json.loads(record(manifest, "job.json").read_text())["source"] == "größe/温度.parquet"
    lines = record(manifest, "parts.jsonl").read_text().splitlines()
    assert [json.loads(line)["unit"] for line in lines] == [0, 1]
