"""Listing again what was listed; the first listing is tested with sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanrnn_dist.dataset.listing import filesystem_of, list_again, list_source
from scanrnn_dist.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", "sub/c.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not looked into")
    return tmp_path


def test_a_source_is_listed_again_as_it_was_named(folder: Path) -> None:
    several = [folder / "b.parquet", folder / "a.parquet"]
    for source in (folder, folder / "a.parquet", f"{folder}/*.parquet", folder.as_uri(), several):
        listing = list_source(source)
        again = list_again(source, listing.files)
        assert list(again) == list(listing.files) and again.partition_base == listing.files.partition_base
        assert filesystem_of(source).equals(listing.filesystem)


def test_of_a_list_those_that_are_left_are_listed(folder: Path) -> None:
    source = [folder / "b.parquet", folder / "a.parquet"]
    files = list_source(source).files
    (folder / "b.parquet").unlink()
    assert [file.path for file in list_again(source, files)] == [str(folder / "a.parquet")]
    with pytest.raises(ConfigError, match="Nothing found"):
        list_again(str(folder / "b.parquet"), files)


def test_a_file_that_became_a_folder_is_gone(folder: Path) -> None:
    source = [folder / "b.parquet", folder / "a.parquet"]
    files = list_source(source).files
    (folder / "b.parquet").unlink()
    (folder / "b.parquet").mkdir()
    assert [file.path for file in list_again(source, files)] == [str(folder / "a.parquet")]
