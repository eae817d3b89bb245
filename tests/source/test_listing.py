"""Which files a source is made of: links, globs, tables, names and URIs; and listing again what was listed."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.source.listing import SourceLike, filesystem_of, list_again, list_source
from scanrnn_dist.storage import LocalStore, filesystems, looking_at, open_input_file, open_store, resolve


class Frame:
    """As data frames are, which give the names of their columns."""

    columns = ("a.parquet",)

    def __iter__(self) -> Any:
        return iter(self.columns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("b.parquet", "a.parquet", "sub/c.parquet"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"not looked into")
    return folder


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


def paths_of(source: SourceLike) -> list[str]:
    return [file.path for file in list_source(source).files]


def test_every_real_file_counts_once_however_many_links_lead_to_it(folder: Path) -> None:
    before = paths_of(folder)
    (folder / "Latest").symlink_to("sub")  # sorts before what it leads to
    (folder / "self").symlink_to(".")
    (folder / "sub/up").symlink_to("..")
    (folder / "0.parquet").symlink_to("a.parquet")
    (folder.parent / "alias").symlink_to(folder)
    for source in (folder, f"{folder}/**/*.parquet", f"{folder}/**", folder.as_uri()):
        listing = list_source(source)
        assert [file.path for file in listing.files] == before
        assert {link for link, _ in listing.repeated} >= {
            f"{folder}/{name}" for name in ("Latest", "self", "0.parquet")
        }
        assert list(list_again(source, listing.files)) == list(listing.files)
    assert paths_of(folder.parent / "alias") == [path.replace(str(folder), f"{folder.parent}/alias") for path in before]
    assert paths_of(f"{folder}/L*/*.parquet") == [f"{folder}/Latest/c.parquet"], "the link alone is named"
    assert paths_of(f"{folder}/*/*.parquet") == [f"{folder}/{name}.parquet" for name in ("self/a", "self/b", "sub/c")]
    with pytest.raises(ConfigError, match=r"0\.parquet' is named twice"):
        list_source([folder / "a.parquet", folder / "0.parquet"])
    for name, what in ((folder / "s*" / "*.parquet", "a glob"), (folder / "sub", "a folder")):
        with pytest.raises(ConfigError, match=f"is {what}; expected a list of files"):
            list_source([folder / "a.parquet", name])


def test_what_only_links_lead_to_is_taken_once_under_the_first_name(folder: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "deep").mkdir()
    for name in ("x.parquet", "deep/y.parquet"):
        (outside / name).write_bytes(b"not looked into")
    (folder / "n").symlink_to(outside)
    (folder / "m").symlink_to(outside)
    (folder / "k.parquet").symlink_to(outside / "x.parquet")
    (outside / "back").symlink_to(folder)
    expected = ["a.parquet", "b.parquet", "k.parquet", "m/deep/y.parquet", "sub/c.parquet"]
    assert paths_of(folder) == paths_of(f"{folder}/**/*.parquet") == [f"{folder}/{name}" for name in expected]
    assert paths_of(folder / "m") == [f"{folder}/m/{name}" for name in (
        "back/a.parquet", "back/b.parquet", "back/sub/c.parquet", "deep/y.parquet", "x.parquet")]  # fmt: skip


@pytest.mark.parametrize("target", ["../blobs/of-b", "d.parquet", "a.parquet/x"])
def test_a_link_that_leads_nowhere_is_named(folder: Path, target: str) -> None:
    files = list_source(folder).files
    (folder / "d.parquet").symlink_to(target)
    for source in (folder, f"{folder}/*.parquet", f"{folder}/**/*"):
        with pytest.raises(DataError, match=rf"d\.parquet is a link that leads nowhere: '{target}' is not there"):
            list_source(source)
        with pytest.raises(DataError, match=r"d\.parquet is a link that leads nowhere"):
            list_again(source, files)
    with pytest.raises(ConfigError, match=r"d\.parquet' is not there"):
        list_source([folder / "a.parquet", folder / "d.parquet"])
    assert paths_of(f"{folder}/[ab].parquet") == [f"{folder}/a.parquet", f"{folder}/b.parquet"]
    (folder / "d.parquet").rename(folder / ".#lock")  # as editors leave them
    assert list(list_source(folder).files) == list(files)


def test_twice_as_many_links_take_twice_the_work(tmp_path: Path) -> None:
    """git annex and DVC lay data sets of a hundred thousand files out as links."""
    calls = []
    for count in (50, 100):
        links, files = tmp_path / f"links-{count}", tmp_path / f"files-{count}"
        links.mkdir()
        files.mkdir()
        for number in range(count):
            (files / f"{number}.parquet").write_bytes(b"not looked into")
            (links / f"{number}.parquet").symlink_to(files / f"{number}.parquet")
        made: list[str] = []
        sys.setprofile(lambda frame, event, _, made=made: made.append(event) if event == "call" else None)
        try:
            listing = list_source(links)
        finally:
            sys.setprofile(None)
        assert len(listing.files) == count
        calls.append(len(made))
    assert calls[1] < 2.5 * calls[0]


def test_what_is_neither_a_file_nor_a_folder_is_named(folder: Path) -> None:
    os.mkfifo(folder / "pipe.parquet")
    with pytest.raises(DataError, match=r"pipe\.parquet is neither a file nor a folder"):
        list_source(folder)
    assert len(paths_of(f"{folder}/[ab].parquet")) == 2


@pytest.mark.parametrize("source", ["", "/**/*.parquet"])
def test_a_folder_that_refuses_stops_the_run(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refusing(path: str) -> Any:  # rights do not stop the one who owns the machine
        if path.endswith("/sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(StoppedError, match=r"cannot be looked at: .*Permission denied: '.*/sub'\. Make it readable"):
        list_source(f"{folder}{source}")


@pytest.mark.parametrize("log", ["_delta_log", ".hoodie", "metadata"])
def test_tables_whose_log_says_what_is_live_are_refused(folder: Path, log: str) -> None:
    (folder / "sub" / log).mkdir()
    (folder / "sub" / log / "v1.metadata.json").write_text("{}")
    (folder / "sub/d=1").mkdir()
    (folder / "sub/d=1/e.parquet").write_bytes(b"not looked into")
    names = ["", "/sub", "/sub/d=1", "/**/*.parquet", "/sub/*.parquet", "/*/*/*.parquet", "/sub/d=*/*.parquet"]
    for name in names:
        with pytest.raises(ConfigError, match=r"/sub is a table of (Delta Lake|Hudi|Iceberg), .*live.*Recipes"):
            list_source(f"{folder}{name}")
    (folder.parent / "alias").symlink_to(folder / "sub/d=1")
    with pytest.raises(ConfigError, match="/sub is a table"):
        list_source(folder.parent / "alias")
    assert len(paths_of(f"{folder}/*.parquet")) == 2, "none of them lies in the table"
    assert len(paths_of([folder / "sub/c.parquet", folder / "a.parquet"])) == 2 and len(
        paths_of(folder / "sub/c.parquet")
    )


PATTERNS = ["*.parquet", "**", "**/*", "**/*.parquet", "*/**", "*/*", "?.parquet", "s*/c*", "**/sub/*",
            "**/**/c.parquet", "[a-b]*", "sub/**/*.p*", "_*/*", "*/.h*"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_globs_find_what_those_of_python_find(folder: Path, pattern: str) -> None:
    for name in ("_old/x.parquet", "sub/deep/.h.parquet", "sub/.h.parquet", "sub/deep/sub/f.parquet", "sub/_SUCCESS"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"")
    spelled = {"_*/*": "_", "*/.h*": "."}.get(pattern, "")
    found = {str(Path(path).relative_to(folder)) for path in glob.glob(f"{folder}/{pattern}", recursive=True)}
    expected = sorted(
        name for name in found if (folder / name).is_file()
        and not any(part[0] in "._" and part[0] != spelled for part in name.split("/"))
    )  # fmt: skip
    assert expected and paths_of(f"{folder}/{pattern}") == [f"{folder}/{name}" for name in expected]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (pa.table({"a": [1]}), "is a Table;"),
        (Frame(), "is a Frame;"),
        ({"a.parquet": 1}, "is a dict;"),
        ([np.ones((3, 2))], "is a list that holds a ndarray;"),
        (3, "is a int;"),
        (Path("in").glob("*.parquet"), "is a generator;"),
    ],
)
def test_what_names_no_files_is_refused(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"The source {says} expected Parquet files: .*use encode"):
        list_source(given)


def test_nothing_found_says_whether_folders_match(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"No files match.* Below matching folders: add '/\*\*/\*\.parquet'"):
        list_source(f"{folder}/s*")
    for pattern in ("nope/*.parquet", "a.parquet/*", "*.csv"):
        with pytest.raises(ConfigError, match=r"No files match the glob '.*'\.$"):
            list_source(f"{folder}/{pattern}")


def test_names_that_are_no_text_are_refused_by_name(folder: Path) -> None:
    bad = os.fsencode(folder) + b"/caf\xe9"
    os.mkdir(bad)
    with open(bad + b"/d.parquet", "wb"):
        pass
    named = r"The name '.*/caf\\xe9.*' is not UTF-8; expected one that is. Rename it."
    for source in (folder, f"{folder}/**/*.parquet", os.fsdecode(bad), [os.fsdecode(bad + b"/d.parquet")]):
        with pytest.raises(ConfigError, match=named):
            list_source(source)
    assert len(paths_of(f"{folder}/*.parquet")) == 2
    with pytest.raises(ConfigError, match=named):
        open_store(os.fsdecode(bad + b"/out"))


@pytest.mark.parametrize("scheme", ["file://", "FILE://"])
def test_file_uris_are_folders_of_this_machine(folder: Path, scheme: str) -> None:
    (folder / "with space [1]").mkdir()
    (folder / "with space [1]/d.parquet").write_bytes(b"")
    uri = f"{scheme}{folder}/with%20space%20[1]"
    assert paths_of(uri) == [f"{folder}/with space [1]/d.parquet"]
    assert paths_of(f"{scheme}{folder}/*.parquet") == [f"{folder}/a.parquet", f"{folder}/b.parquet"]
    assert list_source(uri).filesystem.type_name == "local"
    store = open_store(f"{scheme}{folder}/out")
    assert isinstance(store, LocalStore) and store.root == f"{folder}/out"


def test_a_scheme_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ConfigError, match=r"'hf://datasets/a/b' cannot be opened: .*pip install huggingface_hub"
    ) as raised:
        list_source("hf://datasets/a/b")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "uri", ["nonsense://a/b", "http://host/a.parquet", "abfs://c/x", "file://host/x", "hdfs://h:1/x"]
)
def test_a_uri_that_cannot_be_opened_is_one_line(uri: str) -> None:
    with pytest.raises(ConfigError, match="cannot be opened") as raised:
        list_source(uri)
    assert "\n" not in str(raised.value) and ("Download" in str(raised.value)) == uri.startswith("http:")


def test_a_bucket_that_cannot_be_reached_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pyarrow says without a network; with one, no address fails for sure."""

    def unreachable(uri: str) -> Any:
        raise OSError("When resolving region: AWS Error NETWORK_CONNECTION: curlCode: 6, Could not resolve\nhostname")

    monkeypatch.setattr(filesystems, "fs", SimpleNamespace(FileSystem=SimpleNamespace(from_uri=unreachable)))
    with pytest.raises(StoppedError, match=r"^'s3://bucket/x' cannot be reached: .* resolve hostname\. Check"):
        resolve("s3://bucket/x")


@pytest.mark.parametrize("scheme", ["gs", "gcs"])
def test_google_cloud_storage_is_not_asked_for_a_quarter_of_an_hour(scheme: str) -> None:
    name = f"{scheme}://anonymous@bucket/x"
    filesystem, uri, path = resolve(name)
    options = filesystem.__reduce__()[1][0]
    assert (options["retry_time_limit"].total_seconds(), uri, path) == (20, name, "bucket/x")
    own = resolve(f"{name}?retry_limit_seconds=5")[0].__reduce__()[1][0]
    assert own["retry_time_limit"].total_seconds() == 5


def test_whatever_a_filesystem_of_python_raises_stops_the_run() -> None:
    class Failing(fs.FileSystemHandler):
        """Fails as a package that asks a server does."""

        def get_type_name(self) -> str:
            return "failing"

        def get_file_info(self, paths: list[str]) -> Any:
            raise RuntimeError("Name or service\nnot known")

    Failing.__abstractmethods__ = frozenset()
    filesystem = fs.PyFileSystem(Failing())
    named = r"'hf://x' cannot be looked at: Name or service not known\. Check"
    with pytest.raises(StoppedError, match=named), looking_at("hf://x", filesystem):
        filesystem.get_file_info(["x"])


@pytest.mark.parametrize(
    "name, kind", [("", IsADirectoryError), ("no", FileNotFoundError), ("file/x", NotADirectoryError)]
)
def test_what_is_no_file_is_no_trouble_on_the_way(tmp_path: Path, name: str, kind: type[OSError]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(kind):
        open_input_file(fs.LocalFileSystem(), str(tmp_path / name))


def test_a_file_that_may_not_be_read_stops_the_run() -> None:
    class Refusing:
        type_name = "local"

        def open_input_file(self, path: str) -> Any:
            raise PermissionError(13, "Permission denied", path)

    with pytest.raises(StoppedError, match=r"/x could not be read: .*Permission denied.*check the access rights"):
        open_input_file(Refusing(), "/x")
