"""The records of a job: what is written is read back, damage is named, of two jobs one stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanrnn_dist.dataset.local_store import LocalStore
from scanrnn_dist.dataset.manifest import JOB_FORMAT, Manifest, part_name
from scanrnn_dist.errors import ConfigError, DataError, StoppedError

JOB = {
    "format": JOB_FORMAT,
    "encoder": {"fingerprint": "ef" * 32},
    "options": {"source": "größe/温度.parquet", "keep": ["a.b"], "max_steps": None},
    "window": {"lanes": 4},
    "environment": {"device_kind": "cpu"},
}
PLAN = {"files.table": b"files", "units.table": b"units"}
PARTS = b"the list of parts"


def manifest_at(folder: Path) -> Manifest:
    return Manifest(LocalStore(str(folder), "host.1.00000000"))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """The records of a finished job."""
    made = manifest_at(tmp_path / "new" / "out")
    made.create_job(JOB, PLAN)
    made.write_success(PARTS, {"rows": 5, "parts": 1})
    return made


def record(manifest: Manifest, name: str) -> Path:
    return Path(manifest.store.path(name if name == "_SUCCESS" else f"__scanrnn/{name}"))


def test_what_was_written_is_read_back(manifest: Manifest) -> None:
    job = manifest.read_job()
    assert {name: job[name] for name in JOB} == JOB
    manifest.check_is(job)
    assert manifest.read_plan(job) == PLAN
    totals, parts = manifest.read_success()
    assert (totals["rows"], totals["parts"], parts) == (5, 1, PARTS)
    assert manifest.is_complete
    names = [name.split("-")[0] for name in sorted(manifest.store.below())]
    assert names == ["_SUCCESS", "__scanrnn/files", "__scanrnn/job.json", "__scanrnn/parts.table", "__scanrnn/units"]


def test_a_job_that_was_not_finished_says_so(manifest: Manifest) -> None:
    record(manifest, "_SUCCESS").unlink()
    assert not manifest.is_complete
    with pytest.raises(DataError, match="is not finished: there is no _SUCCESS"):
        manifest.read_success()


def test_of_two_that_begin_at_once_one_job_stands_and_both_learn_which(tmp_path: Path) -> None:
    first, second = manifest_at(tmp_path), manifest_at(tmp_path)
    mine = first.create_job(JOB, PLAN)
    other = {**JOB, "encoder": {"fingerprint": "ab" * 32}}
    assert second.create_job(other, {**PLAN, "units.table": b"other units"}) == mine
    assert first.read_plan(mine) == PLAN


def test_another_job_in_its_place_is_noticed(manifest: Manifest) -> None:
    job = manifest.read_job()
    record(manifest, "job.json").unlink()
    with pytest.raises(StoppedError, match="does not hold the job any more"):
        manifest.check_is(job)
    manifest.create_job(JOB, PLAN)
    manifest.check_is(job)  # whoever begins the same has a part in it
    record(manifest, "job.json").unlink()
    manifest.create_job(JOB, PLAN, replaces=job["id"])
    with pytest.raises(StoppedError, match="does not hold the job any more"):
        manifest.check_is(job)


def test_a_folder_without_records_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for destination in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert manifest_at(destination).find_job() is None
        with pytest.raises(ConfigError, match=r"is no output of a job: there is no .*job\.json"):
            manifest_at(destination).read_job()


@pytest.mark.parametrize("name", ["job.json", "_SUCCESS"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "zeros", "number", "null"])
def test_damaged_records_are_named(manifest: Manifest, name: str, damage: str) -> None:
    path = record(manifest, name)
    content = path.read_bytes()
    damaged = {
        "cut": content[:-9],
        "garbage": b"\xff\xfe{]",
        "zeros": bytes(len(content)),
        "number": b"5",
        "null": b"null",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        manifest.read_job() if name == "job.json" else manifest.read_success()


def test_a_damaged_or_missing_plan_is_named(manifest: Manifest) -> None:
    job = manifest.read_job()
    (path,) = record(manifest, "").glob("units-*.table")
    path.write_bytes(b"other")
    with pytest.raises(DataError, match=r"units-[0-9a-f]+\.table is damaged"):
        manifest.read_plan(job)
    assert manifest.read_plan(job, "files.table") == {"files.table": b"files"}
    path.unlink()
    with pytest.raises(DataError, match=r"units-[0-9a-f]+\.table is missing"):
        manifest.read_plan(job)


def test_a_list_of_parts_that_changed_after_the_job_is_told(manifest: Manifest) -> None:
    record(manifest, "parts.table").write_bytes(PARTS[:-1])
    with pytest.raises(DataError, match=r"parts\.table changed after the job"):
        manifest.read_success()
    record(manifest, "parts.table").unlink()
    with pytest.raises(DataError, match=r"parts\.table changed after the job"):
        manifest.read_success()


def test_a_job_of_another_format_is_refused(manifest: Manifest) -> None:
    path = record(manifest, "job.json")
    path.write_text(path.read_text().replace(JOB_FORMAT, "scanrnn_dist.job/9"))
    with pytest.raises(DataError, match=r"is of format 'scanrnn_dist\.job/9'; expected"):
        manifest.read_job()


def test_a_destination_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    manifest = manifest_at(tmp_path)
    manifest.check_is_free()
    (tmp_path / "__scanrnn").mkdir()
    manifest.check_is_free()  # of an attempt that died before it recorded its job
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holds 1 entries, such as 'a\.txt', and no job"):
        manifest.check_is_free()


def test_names_of_parts_sort_as_their_units_do() -> None:
    for units in (1, 99_999, 100_000, 100_001, 1_000_000):
        names = [part_name(unit, units) for unit in (0, 9, 99, units - 1) if unit < units]
        assert names == sorted(names)
    assert part_name(99_999, 100_000) == "part-99999.parquet"


def test_records_are_json_that_other_tools_read(manifest: Manifest) -> None:
    assert json.loads(record(manifest, "job.json").read_text())["options"]["source"] == "größe/温度.parquet"
