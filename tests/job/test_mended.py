"""Bad rows in some of many files, from the first run until all is mended: exactly their units are done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from crashing import identities
from sources import FILE_ROWS, SEQUENCE, leftovers, write_file, write_files

from scanrnn_dist.api import verify
from scanrnn_dist.errors import DataError, UndoneError
from scanrnn_dist.job.status import read_status

FILES, BAD = 10, {3, 6, 9}


def featurize(source: Path, out: Path, **options: Any) -> Any:
    return sources.featurize(source, out, **{"rows_per_part": FILE_ROWS, "column": "sequence", **options})


def says(source: Path, out: Path, **options: Any) -> str:
    """What a job says that ends with exit code 3."""
    with pytest.raises(DataError) as caught:
        featurize(source, out, **options)
    assert ("\n" in str(caught.value)) == isinstance(caught.value, UndoneError) and not leftovers(out)
    return str(caught.value)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("part-*")}


def test_of_10_files_with_3_bad_ones_7_are_done_and_the_mended_ones_alone_follow(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", BAD, FILES), tmp_path / "out"
    told = says(source, out)
    assert told.startswith("3 of 10 parts could not be made")
    for number in BAD:
        assert f"{source}/{number:02}.parquet, row group 0, row 2 (row 2 of the file)" in told
    first = identities(out)
    assert len(first) == FILES - 3
    # Two are mended. The command without the flag tells what that concerns, and changes nothing.
    for number in (3, 6):
        write_file(source, number)
    told = says(source, out)
    assert "03.parquet was " in told and "06.parquet was " in told and "concerns 2 of 10 parts." in told
    assert identities(out) == first
    # With the flag these two are done, and the third is told.
    told = says(source, out, accept_changes=True)
    assert told.startswith("1 of 10 parts could not be made") and "09.parquet" in told
    second = identities(out)
    assert len(second) == FILES - 1 and first.items() <= second.items()
    assert list(read_status(out).failed_units) == [9]
    assert verify(out, sample=8).parts == FILES - 1
    write_file(source, 9)
    assert "concerns 1 of 10 parts" in says(source, out)
    assert featurize(source, out, accept_changes=True).parts == 1
    assert second.items() <= identities(out).items()
    assert not read_status(out).failed_units and featurize(source, out).parts == 0
    featurize(source, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert verify(out, sample=0).is_complete


def test_a_bad_file_may_be_removed_instead(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", {1}, 4), tmp_path / "out"
    says(source, out)
    (source / "01.parquet").unlink()
    assert featurize(source, out, accept_changes=True).parts == 0
    featurize(source, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed") and verify(out, sample=0).is_complete


def test_a_mended_file_with_nulls_in_a_column_that_never_was_null_fails_alone(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()

    def write(name: str, ids: list[int | None], may_be_null: bool) -> None:
        schema = pa.schema([pa.field("id", pa.int64(), may_be_null), pa.field("sequence", SEQUENCE)])
        rows = {"id": ids, "sequence": [[[1.0, 2.0, 3.0]]] * len(ids)}
        pq.write_table(pa.table(rows, schema), source / name)

    write("a.parquet", [1, 2], False)
    write("b.parquet", [3, 4], False)
    featurize(source, out)
    write("b.parquet", [3, None], True)
    told = says(source, out, accept_changes=True)
    assert "b.parquet, row group 0, row 1 (row 1 of the file): 'id' is null" in told
    write("b.parquet", [3, 5], True)
    featurize(source, out, accept_changes=True)
    assert pq.read_table(out)["id"].to_pylist() == [1, 2, 3, 5] and verify(out).is_complete


def test_a_restart_that_was_begun_is_told_of_when_changes_are_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, out = write_files(tmp_path / "in", set(), 3), tmp_path / "out"
    featurize(source, out)
    write_file(source, 1, bad=True)
    told = says(source, out, restart=True, max_steps=2)
    assert "again: the restart begins anew" in told and "--accept-changes" not in told
    assert read_status(out).restart is not None
    write_file(source, 1)
    assert featurize(source, out, accept_changes=True).parts == 1
    assert "the --restart that was begun here is removed" in caplog.text and read_status(out).restart is None
    caplog.clear()
    write_file(source, 2)
    assert featurize(source, out, accept_changes=True).parts == 1
    assert "removed" not in caplog.text


def test_an_unfinished_restart_that_cannot_be_understood_begins_anew(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "in", {1}, 3), tmp_path / "out"
    says(source, out)
    says(source, out, restart=True, max_steps=2)
    job = out / "__scanrnn/restart/__scanrnn/job.json"
    for spoil in (
        lambda: job.write_text('{"format": "scanrnn_dist.api.data_sets/9"}'),
        lambda: job.write_text("{"),
        lambda: next(job.parent.glob("units-*")).unlink(),
    ):
        spoil()
        told = says(source, out, restart=True, max_steps=2)
        assert told.startswith("1 of 3 parts could not be made")
    write_file(source, 1)
    assert featurize(source, out, restart=True, max_steps=2).parts == 3
    assert verify(out, sample=4).is_complete
