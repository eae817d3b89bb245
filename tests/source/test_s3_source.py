"""Sources in a bucket: what a server that fails to order may not change, and what comes of one that is gone."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from s3_server import S3Server, refused_uri

from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.job import JobOptions, plan_job
from scanrnn_dist.job.apart import check_apart
from scanrnn_dist.source.decode import ReadOptions
from scanrnn_dist.source.layouts.nested_lists import NestedLists
from scanrnn_dist.source.listing import list_again, list_source
from scanrnn_dist.source.read_ahead import read_chunks
from scanrnn_dist.source.source import Source, open_source, plan_units
from scanrnn_dist.source.units import Units
from scanrnn_dist.storage import ArrowObjects, filesystems, resolve

ROWS = 100
Fault = tuple[str, dict[str, object]]
FAULTS: dict[str, list[Fault]] = {
    "500": [("refuse", {"every": 3})],
    "503": [("refuse", {"every": 2, "status": 503})],
    "dropped": [("drop", {"every": 3})],
    "cut in the middle": [("cut", {"every": 2})],
    "slow": [("delay", {"seconds": 0.02})],
    "all": [
        ("delay", {"seconds": 0.005}), ("refuse", {"every": 4}), ("refuse", {"every": 7, "status": 503}),
        ("lose", {"every": 5}), ("drop", {"every": 6}), ("cut", {"every": 3}),
    ],
}  # fmt: skip


def read(source: Source, units: Units | None = None) -> tuple[list[bytes], list[object]]:
    """The sequences and the kept columns of all rows."""
    chunks = list(
        read_chunks(
            source,
            units or plan_units(source, 40),
            ReadOptions(NestedLists("sequence"), ["id", "split"], 2, chunk_bytes=2000),
        )
    )
    rows = [
        chunk.sequences.values[start:end].tobytes()
        for chunk in chunks
        for start, end in pairwise(chunk.sequences.offsets)
    ]
    return rows, [row for chunk in chunks for row in chunk.kept.to_pylist()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index, split in enumerate(("train", "test")):
        nested = [rng.normal(size=(int(steps), 2)).astype(np.float32).tolist() for steps in rng.integers(0, 9, ROWS)]
        table = pa.table(
            {
                "id": pa.array(range(ROWS)) if index else pa.array(range(ROWS, 2 * ROWS)),
                "sequence": pa.array(nested, pa.list_(pa.list_(pa.float32()))),
            }
        )
        path = tmp_path / f"data/split={split}/a.parquet"
        path.parent.mkdir(parents=True)
        # Small row groups give requests of fewer bytes than the text of an error has.
        pq.write_table(table, path, row_group_size=20)
    (tmp_path / "data/_SUCCESS").touch()
    return tmp_path / "data"


@pytest.fixture
def uri(folder: Path, s3: S3Server) -> str:
    """The same folder in the bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            s3.put("bucket", f"data/{path.relative_to(folder)}", path.read_bytes())
    return s3.uri("bucket/data")


@pytest.mark.parametrize(
    "faults", [pytest.param(FAULTS[it], id=it, marks=[pytest.mark.soak] * (it != "all")) for it in FAULTS]
)
def test_rows_are_those_of_the_local_files(folder: Path, uri: str, s3: S3Server, faults: list[Fault]) -> None:
    local = open_source(folder)
    numbers = [s3.inject(kind, **options) for kind, options in faults]
    source = open_source(uri)
    assert source.schema == local.schema
    assert source.rows == local.rows
    assert [file.size_bytes for file in source.files] == [file.size_bytes for file in local.files]
    rows = read(source)
    assert rows == read(local) and len(rows[0]) == 2 * ROWS
    assert all(s3.injected(number) for number in numbers)
    if faults is FAULTS["all"]:  # of several that hit one request, one is done
        assert {request.outcome for request in s3.requests} >= {500, 503, "lose", "drop", "cut"}


def test_many_columns_and_row_groups_come_in_few_requests(tmp_path: Path, s3: S3Server) -> None:
    lists = pa.array([[1.0, 2.0], [3.0]] * 30, pa.list_(pa.float32()))
    pq.write_table(pa.table({f"x{number}": lists for number in range(12)}), tmp_path / "a.parquet", row_group_size=20)
    s3.put("bucket", "wide/a.parquet", (tmp_path / "a.parquet").read_bytes())
    plan = plan_job(s3.uri("bucket/wide"), JobOptions(layout="list-columns"))
    s3.calm()
    with closing(read_chunks(plan.source, plan.units, ReadOptions(plan.layout, chunk_bytes=2000))) as chunks:
        assert sum(chunk.rows for chunk in chunks) == 60
    assert s3.count("GET") == 2  # the footer, and all columns of all row groups


def test_requests_smaller_than_the_text_of_an_error_are_retried(uri: str, s3: S3Server) -> None:
    filesystem, _, path = resolve(uri)
    content = s3.get("bucket", "data/split=test/a.parquet")
    with ArrowObjects(filesystem).open(f"{path}/split=test/a.parquet") as file:
        number = s3.inject("refuse", methods=("GET",), times=3)
        assert file.read(8) == content[:8] and s3.injected(number) == 3
        assert file.read(4) == content[8:12] and file.tell() == 12
        number = s3.inject("refuse", methods=("GET",), times=1)
        assert file.read_at(4, len(content) - 4) == b"PAR1" and s3.injected(number) == 1


@pytest.mark.soak
def test_an_answer_that_takes_longer_than_three_seconds_is_waited_for(uri: str, s3: S3Server) -> None:
    filesystem, _, path = resolve(uri)
    s3.inject("delay", seconds=3.3, methods=("GET",))  # pyarrow's own filesystem would ask again, and again
    with ArrowObjects(filesystem).open(f"{path}/split=test/a.parquet") as file:
        assert file.read(4) == b"PAR1"
    assert s3.count("GET") == 1


def test_a_file_and_a_list_are_read_as_a_folder_is(folder: Path, uri: str, s3: S3Server) -> None:
    name = "split=test/a.parquet"
    file = s3.uri(f"bucket/data/{name}")
    assert [item.path for item in list_source(file).files] == [f"bucket/data/{name}"]
    both = open_source([s3.uri("bucket/data/split=train/a.parquet"), file])
    assert [item.path for item in both.files] == ["bucket/data/split=train/a.parquet", f"bucket/data/{name}"]
    assert all(item.modified_ns for item in both.files)
    assert (both.rows, both.schema) == (2 * ROWS, open_source(sorted(folder.glob("*/*.parquet"))[::-1]).schema)


GLOBS = ["*/*.parquet", "**", "**/*.parquet", "split=[a-t]*/*", "split=test/*.parquet", "**/_old/*", "split=*/**/a.*"]


@pytest.mark.parametrize("pattern", GLOBS)
def test_globs_find_in_a_bucket_what_they_find_in_a_folder(folder: Path, uri: str, s3: S3Server, pattern: str) -> None:
    for name in ("_old/a.parquet", "split=test/.x.parquet", "split=test/deep/a.parquet", "b.parquet"):
        content = (folder / "split=test/a.parquet").read_bytes()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        s3.put("bucket", f"data/{name}", content)
    local, remote = list_source(f"{folder}/{pattern}"), list_source(s3.uri(f"bucket/data/{pattern}"))
    assert [file.path for file in remote.files] == [
        file.path.replace(str(folder), "bucket/data") for file in local.files
    ]
    assert remote.files.partition_base == local.files.partition_base.replace(str(folder), "bucket/data")
    assert len(remote.files) and list(list_again(s3.uri(f"bucket/data/{pattern}"), remote.files)) == list(remote.files)


def test_rows_of_a_glob_in_a_bucket_are_read_and_nothing_found_is_said(folder: Path, uri: str, s3: S3Server) -> None:
    pattern = s3.uri("bucket/data/*/*.parquet")
    plan = plan_job(pattern)
    assert read(plan.source, plan.units) == read(open_source(folder))
    assert list(plan.changes().told) == []
    with pytest.raises(ConfigError, match="lies within the source"):
        check_apart(plan.given, plan.source, s3.uri("bucket/data/out"))
    check_apart(plan.given, plan.source, s3.uri("bucket/out"))
    with pytest.raises(ConfigError, match="No files match the glob"):
        list_source(s3.uri("bucket/data/*/*.csv"))
    with pytest.raises(ConfigError, match="expected a glob below one bucket"):
        list_source(s3.uri("buck*/data/*"))


def test_markers_of_folders_are_skipped(folder: Path, uri: str, s3: S3Server) -> None:
    before = list(list_source(uri).files)
    for key in ("data_$folder$", "data/", "data", "data/split=test_$folder$", "data/split=test/", "data/split=test",
                "data/empty_$folder$"):  # fmt: skip
        s3.put("bucket", key, b"")
    assert list(list_source(uri).files) == before
    assert list(list_source(s3.uri("bucket/data/*/*")).files) == before
    assert [file.path for file in list_source(s3.uri("bucket/data/**")).files] == [file.path for file in before]
    s3.put("bucket", "data/split=test/empty.parquet", b"")  # no marker: a file that lost its content
    assert len(list_source(uri).files) == len(before) + 1


@pytest.mark.parametrize("key", ["_delta_log/0.json", ".hoodie/hoodie.properties", "metadata/v1.metadata.json"])
def test_tables_in_a_bucket_are_refused(uri: str, s3: S3Server, key: str) -> None:
    s3.put("bucket", f"data/{key}", b"{}")
    for name in ("bucket/data", "bucket", "bucket/data/split=test", "bucket/data/*/*.parquet", "bucket/**/*.parquet"):
        with pytest.raises(ConfigError, match=r"bucket/data is a table of (Delta Lake|Hudi|Iceberg).*live"):
            list_source(s3.uri(name))
    assert len(list_source([s3.uri("bucket/data/split=test/a.parquet")]).files) == 1


def test_a_uri_keeps_its_options(s3: S3Server) -> None:
    uri = s3.uri("bucket/a", allow_bucket_creation="true")
    options = resolve(uri)[0].__reduce__()[1][0]
    own = fs.FileSystem.from_uri(uri)[0].__reduce__()[1][0]
    times = {"request_timeout": filesystems.REQUEST_SECONDS, "connect_timeout": filesystems.CONNECT_SECONDS}
    assert options == {**own, **times, "allow_delayed_open": True} and options["allow_bucket_creation"]
    # What Python cannot ask for stays with the filesystem that pyarrow made.
    assert resolve(s3.uri("bucket/a", smart_defaults="legacy"))[0].__reduce__()[1][0] == {
        **own,
        "allow_bucket_creation": False,
    }


@pytest.mark.parametrize("name", ["bucket/nothing", "no-such-bucket/a", "no-such-bucket"])
def test_what_is_not_there_is_named(s3: S3Server, name: str) -> None:
    with pytest.raises(ConfigError, match=f"Nothing found at 's3://{name}"):
        open_source(s3.uri(name))
    with pytest.raises(ConfigError, match="is not there; expected a list of files"):
        open_source([s3.uri(name)])


def test_no_access_is_an_error_at_once(uri: str, s3: S3Server) -> None:
    s3.inject("refuse", status=403)
    with pytest.raises(StoppedError, match=r"cannot be looked at: .*ACCESS_DENIED.*access rights"):
        open_source(uri)
    assert s3.count() == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few retries; `RETRIES` says how long all of them take."""
    monkeypatch.setattr(filesystems, "RETRIES", 2)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_gone_is_named(folder: Path) -> None:
    began = time.monotonic()
    refused = pytest.raises(StoppedError, match=r"'s3://bucket/data.*' cannot be looked at: .*NETWORK_CONNECTION")
    with refused_uri("bucket/data") as uri, refused:
        open_source(uri)
    assert time.monotonic() - began < 20, "not a measurement: it must end"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kinds", [("refuse", "cut"), pytest.param(("drop",), marks=pytest.mark.soak)])
def test_a_server_that_fails_for_good_while_rows_are_read_stops_the_run(
    uri: str, s3: S3Server, kinds: tuple[str, ...]
) -> None:
    source = open_source(uri)
    refused = r"bucket/data/split=test/a.parquet could not be read: AWS"
    for kind in kinds:
        s3.calm()
        s3.inject(kind, methods=("GET",), after=1)
        with pytest.raises(StoppedError, match=refused):
            read(source)
        s3.calm()
        assert len(read(source)[0]) == 2 * ROWS


@pytest.mark.sweep  # the child's own retries take 26 s
def test_a_server_that_fails_for_good_while_footers_are_read_stops_the_run(uri: str, s3: S3Server) -> None:
    s3.inject("drop", methods=("GET",), match="parquet")
    with pytest.raises(StoppedError, match=r"bucket/data/split=test/a.parquet could not be read: AWS"):
        open_source(uri)


def test_a_file_that_is_no_longer_what_it_was_is_a_data_error(uri: str, s3: S3Server) -> None:
    source = open_source(uri)
    key = "data/split=test/a.parquet"
    content = s3.get("bucket", key)
    for change in (
        lambda: s3.put("bucket", key, content[: len(content) // 2]),
        lambda: s3.client.delete_object(Bucket="bucket", Key=key),
    ):
        change()
        with pytest.raises(DataError, match=r"bucket/data/split=test/a.parquet"):
            read(source)


@pytest.mark.parametrize(
    "name", ["s3://key:secret@bucket/a", "s3://key:secret@bucket/a?scheme=http", "s3://key:secret/more@bucket/a"]
)
def test_a_secret_in_a_uri_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(ConfigError, match=r"s3:// URI holds a secret.*AWS_SECRET_ACCESS_KEY") as raised:
        open_source(name)
    assert "key" not in str(raised.value).replace("ACCESS_KEY", "") and ":secret" not in str(raised.value)
    assert "more" not in str(raised.value)
