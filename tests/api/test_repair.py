"""Parts that are missing or changed are seen, told, and made again: those and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cells import not_for_a_file
from crashing import identities
from faults import Died, dies_at, watched
from holding import hold
from s3_server import S3Server
from sources import D, H, build_encoders_once, encoder_of, entries, featurize, parts_of, random_rows, write_source

from scanrnn_dist.api import verification
from scanrnn_dist.api.verification import verify
from scanrnn_dist.cli import run as scanrnn
from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import MemoryShares, Sharing, read_status
from scanrnn_dist.records import COMMITS, JOB, PARTS, RESTART, SUCCESS
from scanrnn_dist.storage import LocalStore

UNITS = 6


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryShares, "chunk", 1000)
    hold(monkeypatch, read_ahead=1)
    build_encoders_once(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source `in` and the output `out` of a finished job; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    for name in "ab":
        write_source(folder / f"in/{name}.parquet", random_rows(np.full(15, 40), ord(name)))
    featurize(folder / "in", folder / "out", rows_per_part=5)
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the output to change, whose source stays."""
    return Path(shutil.copytree(finished / "out", tmp_path / "out"))


def damage(out: Path) -> None:
    """A part that is missing, and one that was cut."""
    (out / "part-00001.parquet").unlink()
    (out / "part-00004.parquet").write_bytes((out / "part-00004.parquet").read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_status_tells_of_parts_that_are_missing_or_cut_and_the_same_command_makes_them_again(
    finished: Path, out: Path
) -> None:
    assert read_status(out).state == "complete"
    damage(out)
    status = read_status(out)
    assert (status.state, status.parts_damaged) == ("damaged", 2)
    assert str(status).startswith(
        f"{out}: damaged: 2 of 6 parts are missing or changed; the same command makes them again"
    )
    before = identities(out)
    report = featurize(finished / "in", out, rows_per_part=5)
    assert (report.parts, report.rows, report.rows_before, report.is_complete) == (2, 10, 20, True)
    changed = {name for name, identity in identities(out).items() if before.get(name) != identity}
    assert changed == {"part-00001.parquet", "part-00004.parquet"}
    assert parts_of(out) == parts_of(finished / "out") and read_status(out).state == "complete"
    verify(out)


def test_no_success_stands_while_parts_are_made_again(finished: Path, out: Path) -> None:
    damage(out)

    def stop(_: int) -> None:
        assert not (out / SUCCESS).exists()
        raise StoppedError("SIGTERM")

    with pytest.raises(StoppedError):
        featurize(finished / "in", out, rows_per_part=5, on_rows=stop)
    assert not (out / SUCCESS).exists() and read_status(out).state == "stopped"
    assert featurize(finished / "in", out, rows_per_part=5).is_complete
    assert parts_of(out) == parts_of(finished / "out")


def test_shares_make_damaged_parts_again_together(finished: Path, out: Path) -> None:
    for path in out.glob("part-*"):
        path.unlink()
    reports: list[Any] = []

    def on_rows(_: int) -> None:
        if not reports:
            reports.append(featurize(finished / "in", out, rows_per_part=5, sharing=Sharing((2, 2))))

    reports.append(featurize(finished / "in", out, rows_per_part=5, sharing=Sharing((1, 2)), on_rows=on_rows))
    assert [report.parts for report in reports] == [3, 3] and reports[1].is_complete
    assert parts_of(out) == parts_of(finished / "out")


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_list_of_parts_that_is_damaged_is_made_again_from_the_logs(finished: Path, out: Path, change: str) -> None:
    (out / PARTS).unlink() if change == "missing" else flip_a_bit(out / PARTS)
    assert "damaged: the list of parts changed; the same command makes them again" in str(read_status(out))
    with pytest.raises(DataError, match=r"The list of parts .* changed after the job"):
        verify(out)
    before = identities(out)
    report = featurize(finished / "in", out, rows_per_part=5)
    assert (report.parts, report.is_complete) == (0, True)
    assert identities(out) == before and (out / PARTS).read_bytes() == (finished / "out" / PARTS).read_bytes()
    verify(out)


def test_repair_makes_again_what_is_missing_cut_or_changed_in_place_and_removes_what_is_surplus(
    finished: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "scanrnn_dist")
    damage(out)
    flip_a_bit(out / "part-00002.parquet")
    shutil.copy(out / "part-00003.parquet", out / "part-00006.parquet")
    with pytest.raises(DataError, match=r"part-00001.* is missing.*part-00002.*changed.*--repair` makes them again"):
        verify(out)
    before = identities(out)
    result = verify(out, repair=True)
    names = tuple(f"part-0000{number}.parquet" for number in (1, 2, 4, 6))
    assert (result.repaired, result.parts, result.is_complete) == (names, UNITS, True)
    assert "repaired      part-00001.parquet, part-00002.parquet" in str(result)
    assert f"{', '.join(names[:3])} are missing or changed, and made again." in caplog.text
    assert f"{names[3]} is no part of this job, and removed." in caplog.text
    assert parts_of(out) == parts_of(finished / "out")
    changed = {name for name, identity in identities(out).items() if before.get(name) != identity}
    assert changed == set(names[:3])


def test_a_repair_that_dies_goes_on_when_it_is_called_again(finished: Path, out: Path) -> None:
    damage(out)
    flip_a_bit(out / "part-00002.parquet")
    for step in (("delete", "part-00002.parquet"), ("sync", "part-00002.parquet"), ("rename", SUCCESS)):
        with pytest.raises(Died):
            verify(watched(out, dies_at(*step)), repair=True)
        assert not (out / SUCCESS).exists()
    assert verify(out, repair=True).is_complete
    assert parts_of(out) == parts_of(finished / "out")


def test_a_part_that_is_removed_once_it_was_listed_is_missing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = LocalStore.open_input

    def late(store: LocalStore, name: str) -> pa.NativeFile:
        if name == "part-00003.parquet":
            store.delete(name)
        return opened(store, name)

    monkeypatch.setattr(LocalStore, "open_input", late)
    with pytest.raises(DataError, match=r"part-00003\.parquet is missing; expected 5 rows"):
        verify(out)


def test_a_surplus_part_alone_is_removed_and_nothing_is_made_again(out: Path) -> None:
    before = identities(out)
    shutil.copy(out / "part-00003.parquet", out / "part-00006.parquet")
    with pytest.raises(
        DataError, match=r"not of its job: \['part-00006\.parquet'\]. `scanrnn verify --repair` removes"
    ):
        verify(out)
    assert verify(out, repair=True).repaired == ("part-00006.parquet",)
    assert identities(out) == before


def test_a_surplus_part_is_removed_where_nothing_could_be_made_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = shutil.copytree(finished / "in", tmp_path / "in"), tmp_path / "out"
    featurize(source, out, not_for_a_file(D, H), rows_per_part=5)
    before = identities(out), (out / SUCCESS).stat().st_ino
    shutil.copy(out / "part-00003.parquet", out / "part-00006.parquet")
    shutil.rmtree(source)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert verify(out, sample=0, repair=True).repaired == ("part-00006.parquet",)
    assert (identities(out), (out / SUCCESS).stat().st_ino) == before


def test_what_was_surplus_before_another_output_took_the_place_is_not_removed(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(out / "part-00003.parquet", out / "part-00006.parquet")
    source = write_source(tmp_path / "in.parquet", random_rows(np.full(40, 8)))
    look = verification.surplus_files

    def then_restarted(*given: Any) -> Any:
        surplus = look(*given)
        featurize(source, out, rows_per_part=5, restart=True)
        return surplus

    monkeypatch.setattr(verification, "surplus_files", then_restarted)
    with pytest.raises(StoppedError, match="does not hold the job any more"):
        verify(out, repair=True)
    assert verify(out, sample=0).parts == 8


def test_repair_leaves_files_alone_that_cannot_be_ours(out: Path) -> None:
    (out / "notes.parquet").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"not of its job: \['notes\.parquet'\]\. Move them elsewhere"):
        verify(out, repair=True)
    assert (out / "notes.parquet").read_bytes() == b"mine"


def test_repair_of_what_is_right_changes_nothing(out: Path) -> None:
    before = entries(out), identities(out)
    assert verify(out, repair=True).repaired == ()
    assert (entries(out), identities(out)) == before


def test_repair_runs_the_job_as_it_was_run(tmp_path: Path) -> None:
    rows = random_rows(np.full(10, 8), 1)
    carry = pa.array([[0.5] * H] * 10, pa.list_(pa.float64()))
    path = write_source(tmp_path / "a.parquet", rows, carry=carry, more=pa.array(range(10)))
    options = {
        "column": "sequence",
        "keep": ["carry"],
        "max_steps": 5,
        "initial_carry": "carry",
        "lossy_cast": True,
        "rows_per_part": 5,
    }
    featurize(path, tmp_path / "out", **options)
    before = parts_of(tmp_path / "out")
    (tmp_path / "out/part-00001.parquet").unlink()
    verify(tmp_path / "out", repair=True)
    assert parts_of(tmp_path / "out") == before


def test_repair_needs_the_source_as_it_was_and_an_encoder(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "in", tmp_path / "in")
    featurize(tmp_path / "in", tmp_path / "out", not_for_a_file(D, H), rows_per_part=5)
    before = parts_of(tmp_path / "out")
    damage(tmp_path / "out")
    damaged = entries(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"pass the encoder, in Python, as encoder=\.$"):
        verify(tmp_path / "out", repair=True)
    with pytest.raises(ConfigError, match="fingerprint"):
        verify(tmp_path / "out", repair=True, encoder=not_for_a_file(D, H, 1))
    (tmp_path / "in/b.parquet").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"The source changed .*b\.parquet is gone"):
        verify(tmp_path / "out", repair=True, encoder=not_for_a_file(D, H))
    assert entries(tmp_path / "out") == damaged
    (tmp_path / "away").rename(tmp_path / "in/b.parquet")
    verify(tmp_path / "out", repair=True, encoder=not_for_a_file(D, H))
    assert parts_of(tmp_path / "out") == before


def test_repair_in_another_environment_is_refused_before_anything_is_removed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_a_bit(out / "part-00002.parquet")
    before = entries(out)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    with pytest.raises(ConfigError, match=r"xla_flags was.*--allow-mixed goes on"):
        verify(out, repair=True)
    assert entries(out) == before
    assert verify(out, repair=True, allow_mixed=True).repaired == ("part-00002.parquet",)


def test_a_bucket_is_repaired_as_a_folder_is(finished: Path, s3: S3Server) -> None:
    uri = s3.uri("bucket/out")
    featurize(finished / "in", uri, rows_per_part=5)
    part = s3.get("bucket", "out/part-00002.parquet")
    s3.put("bucket", "out/part-00002.parquet", part[:-1])
    assert read_status(uri).state == "damaged"
    assert featurize(finished / "in", uri, rows_per_part=5).parts == 1
    s3.put("bucket", "out/part-00002.parquet", part[:-1] + bytes([part[-1] ^ 1]))
    assert verify(uri, repair=True).repaired == ("part-00002.parquet",)
    assert s3.get("bucket", "out/part-00002.parquet") == part


# Unfinished -----------------------------------------------------------------------------------------------------------


def unfinished(finished: Path, out: Path) -> int:
    """Share 1 of 2 of the job; how many units are committed."""
    return featurize(finished / "in", out, rows_per_part=5, sharing=Sharing((1, 2))).parts


def test_of_an_unfinished_job_what_is_committed_is_checked(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    units = unfinished(finished, out)
    result = verify(out)
    assert (result.parts, result.units, result.is_complete) == (units, UNITS, False) == (3, 6, False)
    assert result.rows_compared == result.rows == 15 and result.sampled > 0
    assert f"{out} (unfinished: 3 of 6 parts are saved)" in str(result) and "3 with 15 rows" in str(result)
    assert scanrnn(["verify", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_complete"] is False
    name = sorted(parts_of(out))[1]
    flip_a_bit(out / name)
    with pytest.raises(
        DataError, match=rf"{name} changed .*--repair` removes them, and the command that goes on makes"
    ):
        verify(out)
    assert verify(out, repair=True).repaired == (name,)
    assert name not in parts_of(out) and verify(out).parts == 2
    featurize(finished / "in", out, rows_per_part=5)
    assert parts_of(out) == parts_of(finished / "out")


def test_of_an_unfinished_job_a_clock_that_is_ahead_costs_no_right_part(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    units = unfinished(finished, out)
    (log,) = (out / COMMITS).glob("*.jsonl")
    header, *lines = map(json.loads, log.read_text().splitlines())
    records = [line for line in lines if "unit" in line]
    early = [
        {**line, "size_bytes": line["size_bytes"] + 7, "sha256": "0" * 64, "finished": line["finished"] + 3600}
        for line in records
    ]
    told = [header, *early, {"end": "done"}]
    (out / COMMITS / "other.1.deadbeef.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in told))
    before = parts_of(out)
    assert verify(out).parts == units and verify(out, sample=0, repair=True).repaired == ()
    assert parts_of(out) == before
    name = min(before)
    (out / name).write_bytes(before[name][:-9])
    with pytest.raises(DataError, match=f"{name} changed"):
        verify(out)
    assert verify(out, sample=0, repair=True).repaired == (name,)


def test_a_part_that_is_named_and_not_recorded_is_no_fault_of_an_unfinished_job(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unfinished(finished, out)
    left = min(parts_of(finished / "out").keys() - parts_of(out).keys())
    (out / left).write_bytes(b"as of one who died before it was recorded")
    assert verify(out).parts == 3


def test_a_new_output_that_is_taking_its_place_is_not_verified(out: Path) -> None:
    (out / RESTART).mkdir()
    for name in (JOB, SUCCESS):
        (out / RESTART / name).parent.mkdir(parents=True, exist_ok=True)
        (out / RESTART / name).write_text("{}")
    with pytest.raises(StoppedError, match="is being replaced by a new output, or that was cut short"):
        verify(out)


def test_an_output_whose_place_was_taken_meanwhile_is_not_verified(
    finished: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = verification.recorded_parts

    def then_restarted(*given: Any) -> Any:
        featurize(finished / "in", out, rows_per_part=5, restart=True)
        return read(*given)

    monkeypatch.setattr(verification, "recorded_parts", then_restarted)
    with pytest.raises(StoppedError, match="does not hold the job any more"):
        verify(out, sample=0)


# The command line -----------------------------------------------------------------------------------------------------


def test_the_command_line_accepts_changes_and_repairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder_of().save(tmp_path / "encoder.safetensors")
    for name in "ab":
        write_source(tmp_path / f"in/{name}.parquet", random_rows(np.full(5, 8), ord(name)))
    shape = ["--lanes", "4", "--block-steps", "4", "--window-blocks", "8"]
    command = ["featurize", f"{tmp_path}/in", f"{tmp_path}/out", "--encoder", f"{tmp_path}/encoder.safetensors", *shape]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_NUM_CPU_DEVICES", "8")  # the command line leaves the devices of the tests alone
        assert scanrnn(command) == 0
        write_source(tmp_path / "in/c.parquet", random_rows(np.full(5, 8), 3))
        assert scanrnn(command) == DataError.exit_code
        assert "--accept-changes" in capsys.readouterr().err
        assert scanrnn([*command, "--accept-changes", "--restart"]) == ConfigError.exit_code
        assert scanrnn([*command, "--accept-changes", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["parts"] == 1
        flip_a_bit(tmp_path / "out/part-00002.parquet")
        assert scanrnn(["verify", f"{tmp_path}/out"]) == DataError.exit_code
        assert scanrnn(["verify", f"{tmp_path}/out", "--repair", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["repaired"] == ["part-00002.parquet"]
        assert scanrnn(["status", f"{tmp_path}/out", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accepted"] == [f"{tmp_path}/in/c.parquet is new"]
