"""The records of a job: what is written is read back, damage is named, of two jobs one stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.records.job_file import JOB_FORMAT, JobRecords
from scanrnn_dist.records.names import part_name
from scanrnn_dist.storage import LocalStore

JOB = {
    "format": JOB_FORMAT,
    "encoder": {"fingerprint": "ef" * 32},
    "options": {"source": "größe/温度.parquet", "keep": ["a.b"], "max_steps": None},
    "window": {"lanes": 4},
    "environment": {"device_kind": "cpu"},
}
PLAN = {"files.table": b"files", "units.table": b"units"}
PARTS = b"the list of parts"


def records_at(folder: Path) -> JobRecords:
    return JobRecords(LocalStore(str(folder), "host.1.00000000"))


@pytest.fixture
def records(tmp_path: Path) -> JobRecords:
    """The records of a finished job."""
    made = records_at(tmp_path / "new" / "out")
    made.create_job(JOB, PLAN)
    made.write_success(PARTS, {"rows": 5, "parts": 1})
    return made


def record(records: JobRecords, name: str) -> Path:
    return Path(records.store.path(name if name == "_SUCCESS" else f"__scanrnn/{name}"))


def test_what_was_written_is_read_back(records: JobRecords) -> None:
    job = records.read_job()
    assert {name: job[name] for name in JOB} == JOB
    records.check_is(job)
    assert records.read_plan(job) == PLAN
    totals, parts = records.read_success()
    assert (totals["rows"], totals["parts"], parts) == (5, 1, PARTS)
    assert records.is_complete
    names = [name.split("-")[0] for name in sorted(records.store.below())]
    assert names == ["_SUCCESS", "__scanrnn/files", "__scanrnn/job.json", "__scanrnn/parts.table", "__scanrnn/units"]


def test_a_job_that_was_not_finished_says_so(records: JobRecords) -> None:
    record(records, "_SUCCESS").unlink()
    assert not records.is_complete
    with pytest.raises(DataError, match="is not finished: there is no _SUCCESS"):
        records.read_success()


def test_who_loses_the_right_to_write_once_the_parts_are_listed_finishes_nothing(records: JobRecords) -> None:
    record(records, "_SUCCESS").unlink()
    listed: list[bytes] = []

    def check() -> None:
        listed.append(record(records, "parts.table").read_bytes())
        if listed[-1] != PARTS:
            raise StoppedError("another process has taken over")

    with pytest.raises(StoppedError, match="taken over"):
        records.write_success(b"another list", {"rows": 5, "parts": 1}, check)
    assert listed == [PARTS, b"another list"] and not records.is_complete


def test_of_two_that_begin_at_once_one_job_stands_and_both_learn_which(tmp_path: Path) -> None:
    first, second = records_at(tmp_path), records_at(tmp_path)
    mine = first.create_job(JOB, PLAN)
    other = {**JOB, "encoder": {"fingerprint": "ab" * 32}}
    assert second.create_job(other, {**PLAN, "units.table": b"other units"}) == mine
    assert first.read_plan(mine) == PLAN


def test_another_job_in_its_place_is_noticed(records: JobRecords) -> None:
    job = records.read_job()
    record(records, "job.json").unlink()
    with pytest.raises(StoppedError, match="does not hold the job any more"):
        records.check_is(job)
    records.create_job(JOB, PLAN)
    records.check_is(job)  # whoever begins the same has a part in it
    record(records, "job.json").unlink()
    records.create_job(JOB, PLAN, replaces=job["id"])
    with pytest.raises(StoppedError, match="does not hold the job any more"):
        records.check_is(job)


def test_a_folder_without_records_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for destination in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert records_at(destination).find_job() is None
        with pytest.raises(ConfigError, match=r"is no output of a job: there is no .*job\.json"):
            records_at(destination).read_job()


@pytest.mark.parametrize("name", ["job.json", "_SUCCESS"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "zeros", "number", "null"])
def test_damaged_records_are_named(records: JobRecords, name: str, damage: str) -> None:
    path = record(records, name)
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
        records.read_job() if name == "job.json" else records.read_success()


def test_a_damaged_or_missing_plan_is_named(records: JobRecords) -> None:
    job = records.read_job()
    (path,) = record(records, "").glob("units-*.table")
    path.write_bytes(b"other")
    with pytest.raises(DataError, match=r"units-[0-9a-f]+\.table is damaged"):
        records.read_plan(job)
    assert records.read_plan(job, "files.table") == {"files.table": b"files"}
    path.unlink()
    with pytest.raises(DataError, match=r"units-[0-9a-f]+\.table is missing"):
        records.read_plan(job)


def test_a_list_of_parts_that_changed_after_the_job_is_told(records: JobRecords) -> None:
    record(records, "parts.table").write_bytes(PARTS[:-1])
    with pytest.raises(DataError, match=r"parts\.table changed after the job"):
        records.read_success()
    record(records, "parts.table").unlink()
    with pytest.raises(DataError, match=r"parts\.table changed after the job"):
        records.read_success()


def test_a_job_of_another_format_is_refused(records: JobRecords) -> None:
    path = record(records, "job.json")
    path.write_text(path.read_text().replace(JOB_FORMAT, "scanrnn_dist.job/9"))
    with pytest.raises(DataError, match=r"is of format 'scanrnn_dist\.job/9'; expected"):
        records.read_job()


def test_a_destination_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    records = records_at(tmp_path)
    records.check_is_free()
    (tmp_path / "__scanrnn").mkdir()
    records.check_is_free()  # of an attempt that died before it recorded its job
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holds 1 entries, such as 'a\.txt', and no job"):
        records.check_is_free()


def test_names_of_parts_sort_as_their_units_do() -> None:
    for units in (1, 99_999, 100_000, 100_001, 1_000_000):
        names = [part_name(unit, units) for unit in (0, 9, 99, units - 1) if unit < units]
        assert names == sorted(names)
    assert part_name(99_999, 100_000) == "part-99999.parquet"


def test_records_are_json_that_other_tools_read(records: JobRecords) -> None:
    assert json.loads(record(records, "job.json").read_text())["options"]["source"] == "größe/温度.parquet"
