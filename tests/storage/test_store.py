"""A folder and a bucket keep the same promises to a job, and say the same when they cannot."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from conformance import StoreConformance, visible
from faults import WITHOUT_OBSTORE, CopyingStore, Died, watched
from pyarrow import fs
from s3_server import S3Server

from scanrnn_dist.disk import Disk, whole_file
from scanrnn_dist.errors import ConfigError, StoppedError
from scanrnn_dist.job.cleaning import _ASIDE
from scanrnn_dist.job.restart import records_to_read
from scanrnn_dist.records import RESTART
from scanrnn_dist.storage import (
    ArrowObjects,
    LocalStore,
    ObjectStore,
    Store,
    new_attempt,
    open_store,
    remote_objects,
    remote_options,
    resolve,
    staged,
    stopping,
)
from scanrnn_dist.storage import bucket as object_store


class TestAFolder(StoreConformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Store]:
        open_store(tmp_path / "out").prepare()
        return lambda: open_store(tmp_path / "out")


class TestABucket(StoreConformance):
    @pytest.fixture
    def opened(self, s3: S3Server) -> Callable[[], Store]:
        return lambda: open_store(s3.uri("bucket/out"))


class TestABucketByPyarrow(StoreConformance):
    @pytest.fixture
    def opened(self, s3: S3Server) -> Callable[[], Store]:
        uri = s3.uri("bucket/out")
        filesystem, _, path = resolve(uri)
        return lambda: ObjectStore("s3://bucket/out", new_attempt(), ArrowObjects(filesystem, uri), path, uri=uri)


class FolderObjects(ArrowObjects):
    """A folder by pyarrow, which renames files and makes the folders that they are in, as HDFS does."""

    def _send(self, key: str, pieces: Iterator[bytes]) -> None:
        os.makedirs(os.path.dirname(key), exist_ok=True)
        super()._send(key, pieces)

    def copy(self, old: str, new: str, version: str | None = None) -> bool:
        os.makedirs(os.path.dirname(new), exist_ok=True)
        return super().copy(old, new, version)


class TestWhatRenames(StoreConformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Store]:
        root = str(tmp_path / "out")
        return lambda: ObjectStore(root, new_attempt(), FolderObjects(fs.LocalFileSystem()), root)

    @pytest.mark.parametrize("size", [9, object_store.AT_ONCE_BYTES + 1])
    def test_a_new_file_is_never_seen_as_it_grows(
        self, opened: Callable[[], Store], size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, send, grew = opened(), FolderObjects._send, list[str]()

        def sent(objects: FolderObjects, key: str, pieces: Iterator[bytes]) -> None:
            grew.append(key)
            send(objects, key, pieces)

        monkeypatch.setattr(FolderObjects, "_send", sent)
        name = "part-00000.parquet"
        new_file(store, name, bytes(size))
        assert store.below() == {name: size} and len(grew) == 1
        assert _ASIDE.fullmatch(grew[0].removeprefix(f"{store.root}/"))

        def taken() -> None:
            if grew[1:]:
                raise StoppedError("another process has taken over")

        file = store.new_file(name)
        file.write(b"new")
        with pytest.raises(StoppedError, match="taken over"):
            file.commit(taken)
        file.abandon()
        assert store.below() == {name: size}

    @pytest.mark.parametrize(
        "write",
        [
            lambda store, log: store.write("x", b"new"),
            lambda store, log: store.write("x", b"new", check=lambda: None),
            lambda store, log: store.create("y", b"new"),
            lambda store, log: store.replace("x", b"new", store.version("x")),
            lambda store, log: log.append("new"),
        ],
    )
    def test_a_record_that_is_cut_as_it_is_sent_leaves_what_stood(
        self, opened: Callable[[], Store], write: Callable[[Store, Any], object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut(objects: FolderObjects, key: str, pieces: Iterator[bytes]) -> None:
            Path(key).write_bytes(next(pieces)[:2])
            raise Died

        store = opened()
        store.write("x", b"old")
        log = store.log("log")
        log.append("old")
        stood = {name: store.read(name) for name in visible(store)}
        with monkeypatch.context() as patch, pytest.raises(Died):
            patch.setattr(FolderObjects, "_send", cut)
            patch.setattr(FolderObjects, "delete", lambda objects, keys: None)  # who is killed tidies nothing
            write(store, log)
        assert {name: store.read(name) for name in visible(store)} == stood
        write(opened(), log)
        assert b"new" in b"".join(map(store.read, visible(store)))

    def test_a_beat_is_written_in_place_so_that_it_is_never_missing(self, opened: Callable[[], Store]) -> None:
        store, renamed = opened(), list[str]()
        store.write("x", b"old")

        def told(kind: str, name: str) -> None:
            renamed.append(f"{kind} {name}")

        assert watched(store, told).replace("x", b"new", store.version("x") or "", durable=False)
        assert renamed == ["put x"] and store.read("x") == b"new"


def test_a_large_record_goes_to_a_bucket_in_pieces(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sent, upload = open_store(s3.uri("bucket/out")), list[int](), remote_objects.RemoteObjects.upload

    def watched(self: remote_objects.RemoteObjects, key: str, file: IO[bytes], size: int) -> None:
        sent.append(size)
        upload(self, key, file, size)

    monkeypatch.setattr(remote_objects.RemoteObjects, "upload", watched)
    content = bytes(object_store.AT_ONCE_BYTES)
    store.write("record", content)
    store.write("record", content + b"1")
    store.write("record", content + b"12", check=lambda: None)
    assert store.read("record") == content + b"12" and sent == [len(content) + 1, len(content) + 2]


class TestARestartInAFolder(StoreConformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Store]:
        open_store(tmp_path / "out").child("restart").prepare()
        return lambda: open_store(tmp_path / "out").child("restart")


class TestARestartInABucket(StoreConformance):
    @pytest.fixture
    def opened(self, s3: S3Server) -> Callable[[], Store]:
        return lambda: open_store(s3.uri("bucket/out")).child("restart")


class TestAFolderThatIsWatched(StoreConformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Store]:
        open_store(tmp_path / "out").prepare()
        return lambda: watched(tmp_path / "out", lambda kind, name: None)


@pytest.mark.soak
class TestABucketThatIsWatched(StoreConformance):
    @pytest.fixture
    def opened(self, s3: S3Server) -> Callable[[], Store]:
        return lambda: watched(s3.uri("bucket/out"), lambda kind, name: None)


class TestAFolderThatCopies(StoreConformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Store]:
        open_store(tmp_path / "out").prepare()
        return lambda: CopyingStore(str(tmp_path / "out"), new_attempt())


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "out")
    return open_store(request.getfixturevalue("s3").uri("bucket/out"))


def test_a_file_of_a_folder_has_its_name_once_it_is_durable_and_then_the_name_is_made_durable(tmp_path: Path) -> None:
    steps: list[str] = []
    store = watched(tmp_path, lambda kind, name: steps.append(f"{kind} {name}"))
    name, folder = "__scanrnn/workers/x", "__scanrnn/workers"
    whole = [f"open {name}", f"write {name}", f"sync {name}"]

    def log(name: str) -> None:
        log = store.log(name)
        log.append("1")
        log.close()

    for write, expected in {
        lambda name: store.write(name, b"1"): [*whole, f"rename {name}", f"sync {folder}"],
        lambda name: store.create(name, b"1"): [*whole, f"link {name}", f"sync {folder}", f"delete {name}"],
        lambda name: new_file(store, name): [*whole, f"rename {name}", f"sync {folder}"],
        log: [f"open {name}.jsonl", f"sync {folder}", f"append {name}.jsonl", f"sync {name}.jsonl"],
    }.items():
        store.write(f"{folder}/first", b"")
        store.delete(name)
        steps.clear()
        write(name)
        assert steps == expected
    first = f"{folder}/first"
    steps.clear()
    assert store.replace(first, b"1", store.version(first) or "", durable=False)
    assert steps == [f"open {first}", f"write {first}", f"rename {first}"]
    steps.clear()
    store.write("b/c/y", b"")
    assert steps[:4] == ["mkdir b", "sync .", "mkdir b/c", "sync b"]


def new_file(store: Store, name: str, *pieces: bytes) -> None:
    file = store.new_file(name)
    try:
        for piece in pieces or [b"new"]:
            file.write(piece)
        file.commit()
    except Died:
        with suppress(Died):
            file.abandon()
        raise


def write_and_move(store: Store) -> None:
    store.write("y", b"new")
    store.move("y", "x")


@pytest.mark.parametrize("kind", [LocalStore, CopyingStore])
@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.write("x", b"new"),
        lambda store: new_file(store, "x", b"n", b"ew"),
        write_and_move,
    ],
)
def test_a_write_to_a_folder_that_dies_at_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, kind: type[LocalStore], write: Callable[[Store], None]
) -> None:
    store = kind(str(tmp_path), "host.1.00000000")
    for last in range(100):
        store.write("x", b"old")
        steps: list[str] = []

        def told(kind: str, name: str, last: int = last, steps: list[str] = steps) -> None:
            if len(steps) == last:
                raise Died
            steps.append(f"{kind} {name}")

        try:
            write(watched(store, told))
            break
        except Died:
            assert store.read("x") in (b"old", b"new"), steps
    assert last >= 5 and store.read("x") == b"new"


def test_of_many_that_create_a_file_in_a_folder_at_once_one_does(tmp_path: Path) -> None:
    open_store(tmp_path).prepare()
    barrier, created = threading.Barrier(8), []

    def create() -> None:
        store = open_store(tmp_path)
        barrier.wait()
        if store.create("job.json", store.attempt.encode()):
            created.append(store.attempt)

    for _ in range(20):
        threads = [threading.Thread(target=create) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [name.encode() for name in created] == [(tmp_path / "job.json").read_bytes()]
        (tmp_path / "job.json").unlink()
        created.clear()


def test_a_folder_without_hard_links_will_do(tmp_path: Path) -> None:
    class Fat(Disk):
        def link(self, old: str, new: str) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")  # also where that name is taken

    store = LocalStore(str(tmp_path), "host.1.00000000", disk=Fat())
    assert store.create("x", b"1") and not store.create("x", b"2")
    assert store.read("x") == b"1"
    store.link("x", "y")
    store.write("x", b"3")
    with pytest.raises(StoppedError, match="y could not be written: File exists"):
        store.link("x", "y")
    assert store.read("y") == b"1" and store.below() == {"x": 1, "y": 1}


def test_a_folder_that_cannot_be_synced_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync
    refusal = OSError(errno.EINVAL, "Invalid argument")

    def as_9p(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise refusal
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", as_9p)
    store = LocalStore(str(tmp_path), "host.1.00000000")
    store.write("x", b"1")
    with whole_file(tmp_path / "y") as write:
        write(b"2")
    assert store.read("x") == b"1" and store.read("y") == b"2"
    refusal = OSError(errno.EIO, "Input/output error")
    with pytest.raises(StoppedError, match="Input/output error"):
        store.write("x", b"3")


def test_a_line_that_does_not_fit_is_taken_back_and_the_next_one_is_whole(tmp_path: Path) -> None:
    class Full(Disk):
        room = 100

        def append(self, file: IO[bytes], content: bytes) -> int:
            return super().append(file, content[: self.room])

    disk = Full()
    store = replace(open_store(tmp_path), disk=disk)
    log = store.log("a")
    log.append("first")
    for disk.room in (3, 5, 1):
        with pytest.raises(StoppedError, match=r"a\.jsonl could not be written: No space left on device.*Free some"):
            log.append("second")
        assert store.read("a.jsonl") == b"first\n"
    disk.room = 100
    log.append("third")
    assert store.read("a.jsonl") == b"first\nthird\n"
    log.close()


@pytest.mark.skipif(WITHOUT_OBSTORE, reason="pyarrow has no such copies.")
def test_what_s3_does_not_copy_in_one_request_it_copies_by_ranges(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(9 << 20)
    monkeypatch.setattr(remote_objects, "COPY_BYTES", len(content) - 1)
    store = open_store(s3.uri("bucket/out"))
    file = store.new_file("new/part")
    file.write(content)
    file.commit()
    store.write("part", b"old")
    s3.calm()
    store.move("new/part", "part")
    assert s3.count("PUT", "part.*partNumber=2") and not s3.count("GET"), "no byte passes through this machine"
    assert store.read("part") == content and store.below() == {"part": len(content)}


def test_a_move_by_ranges_that_is_cut_leaves_the_old_file_and_can_be_done_again(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_objects, "COPY_BYTES", 10)
    store = open_store(s3.uri("bucket/out"))
    store.write("new", b"x" * 1000)
    fault = s3.inject("refuse", methods=("PUT",), match="old", status=403)
    with pytest.raises(StoppedError):
        store.move("new", "old")
    assert s3.injected(fault)
    s3.calm()
    assert store.below() == {"new": 1000}
    store.move("new", "old")
    assert store.below() == {"old": 1000}


@pytest.mark.parametrize("content", [b"few", b"many" * 10_000])
def test_a_full_temporary_folder_is_not_told_as_a_full_bucket(
    content: bytes, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b"))  # noqa: SIM115
    monkeypatch.setattr(object_store.tempfile, "tempdir", "/scratch")
    store = open_store(s3.uri("bucket/out"))
    file = store.new_file("x")
    with pytest.raises(StoppedError, match=r"temporary folder /scratch .*No space left on device.*with TMPDIR"):
        file.write(content)
        file.commit()
    file.abandon()
    assert file.closed and not store.below()


def test_a_temporary_folder_that_is_not_there_is_told(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(object_store.tempfile, "TemporaryFile", missing)
    with pytest.raises(StoppedError, match=r"temporary folder .*No usable temporary directory.*with TMPDIR"):
        open_store(s3.uri("bucket/out")).new_file("x")


def test_a_part_of_a_child_has_no_ending_that_readers_look_for_until_it_is_moved(store: Store) -> None:
    store.prepare()
    child, name = store.child("a"), "part-00000.parquet"
    child.prepare()
    file = child.new_file(name)
    file.write(b"123")
    file.commit()
    assert not [below for below in store.below() if below.endswith(".parquet")]
    assert dict(child.entries())[name] == child.below()[name] == 3
    assert child.exists(name) and child.read(name) == child.open_input(name).read() == b"123"
    store.move(f"a/{staged(name)}", name)
    assert store.read(name) == b"123" and not child.exists(name)
    child.write(name, b"4")
    child.delete(name)
    assert not child.exists(name) and not [below for below in store.below("a") if "part" in below]


def test_a_store_travels_to_another_process_without_what_is_secret(store: Store) -> None:
    store.prepare()
    content = pickle.dumps(store)
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in content
    there = pickle.loads(content)
    there.write("x", b"1")
    assert store.read("x") == b"1" and (there.root, there.attempt) == (store.root, store.attempt)


def test_a_destination_is_named_without_its_query(s3: S3Server) -> None:
    assert open_store(s3.uri("bucket/out/")).root == "s3://bucket/out"
    assert open_store(s3.uri("bucket/out")).path("_SUCCESS") == "s3://bucket/out/_SUCCESS"


def test_what_stands_in_a_bucket_can_be_given_to_a_command(s3: S3Server) -> None:
    restart = open_store(s3.uri("bucket/out/")).child(RESTART)
    restart.write("x", b"1")
    assert restart.root == f"s3://bucket/out/{RESTART}" and os.fspath(restart) == s3.uri(f"bucket/out/{RESTART}")
    assert records_to_read(os.fspath(restart)).store.read("x") == records_to_read(restart).store.read("x") == b"1"


@pytest.mark.parametrize("name", ["a%23b", "a%3Fb", "a%2523b", "a=b%20c"])
def test_the_name_that_is_shown_is_one_of_the_same_destination(s3: S3Server, name: str) -> None:
    store = open_store(s3.uri(f"bucket/{name}"))
    store.write("x", b"1")
    shown = open_store(s3.uri(store.root.removeprefix("s3://")))
    assert shown.read("x") == b"1" and shown.root == store.root


def test_a_bucket_that_is_not_there_is_told(s3: S3Server) -> None:
    with pytest.raises(
        StoppedError, match=r"no-such-bucket/out/x could not be written: .*(NoSuchBucket: |NO_SUCH_BUCKET)"
    ):
        open_store(s3.uri("no-such-bucket/out")).write("x", b"")


@pytest.mark.skipif(WITHOUT_OBSTORE, reason="pyarrow has no such requests.")
def test_a_file_that_is_removed_as_another_one_is_refused_is_no_missing_bucket(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3.uri("bucket/out"))
    monkeypatch.setattr(remote_objects.RemoteObjects, "_was_put", lambda *_: False)
    assert not store.create("x", b"1")


def test_a_file_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        with pytest.raises(ConfigError, match="file is a file; the destination must be a folder"):
            open_store(tmp_path / name)


def test_what_pyarrow_would_take_for_another_place_is_refused(tmp_path: Path) -> None:
    for name in (f"file://{tmp_path}/a#2", f"file://{tmp_path}/a?x=1", f"file://{tmp_path}/a?", "s3://bucket/a#2"):
        with pytest.raises(ConfigError, match=r"holds a '[#?]', .* write it as %(23|3F)\."):
            open_store(name)
    assert open_store(f"file://{tmp_path}/a%232").root == str(tmp_path / "a#2")
    for name in ("s3://bucket/a//b", "s3://bucket/a/../b"):
        with pytest.raises(ConfigError, match=r"a part without a name, or '\.' or '\.\.', between its slashes"):
            open_store(f"{name}?region=us-east-1")


def test_the_records_of_a_job_are_no_destination(tmp_path: Path) -> None:
    for name in (tmp_path / "__scanrnn/restart", "s3://bucket/out/__scanrnn?region=us-east-1"):
        with pytest.raises(ConfigError, match="lies among the records of a job"):
            open_store(name)


def test_attempts_have_names_of_their_own() -> None:
    names = {new_attempt() for _ in range(100)}
    assert len(names) == 100
    assert all(name.split(".")[-2] == str(os.getpid()) and "/" not in name for name in names)


@pytest.mark.parametrize("what", ["read", "written"])
def test_the_remedy_for_a_lack_of_rights_fits_reads_and_writes(what: str) -> None:
    with (
        pytest.raises(StoppedError, match=f"^a could not be {what}: .*Correct the access rights, then"),
        stopping("a", what),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "a")


@pytest.mark.skipif(WITHOUT_OBSTORE, reason="pyarrow asks for all pages.")
def test_a_listing_is_asked_for_page_by_page_and_from_where_it_was_cut(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutError(Exception):
        __module__ = "obstore.exceptions"

    keys, asked, is_whole = [f"out/part-{number}" for number in range(6)], list[str](), list[bool]()

    def listed(_: str, offset: str | None, chunk_size: int) -> Iterator[list[dict[str, Any]]]:
        for begin in range(keys.index(offset) + 1 if offset else 0, len(keys), 2):
            asked.append(keys[begin])
            if begin == 2 and not is_whole:
                is_whole.append(True)
                raise CutError("error decoding response body")
            yield [{"path": key, "size": 1} for key in keys[begin : begin + 2]]

    store = open_store(s3.uri("bucket/out"))
    monkeypatch.setattr(remote_objects, "obstore_client", lambda _: SimpleNamespace(list=listed))
    assert list(store.below()) == [key.removeprefix("out/") for key in keys]
    assert asked == [keys[0], keys[2], keys[2], keys[4]]


@pytest.mark.skipif(WITHOUT_OBSTORE, reason="pyarrow has no such requests.")
def test_a_conditional_removal_is_given_up_and_tried_again_as_other_requests_are(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3.uri("bucket/out"))
    store.write("x", b"1")
    version = store.version("x")
    assert version is not None
    monkeypatch.setattr(remote_objects, "boto3_client", remote_options.boto3_client.__wrapped__)  # none is kept
    monkeypatch.setattr(remote_options, "REQUEST_SECONDS", 0.6)
    s3.inject("refuse", methods=("DELETE",), times=5, status=503)
    store.remove("x", version)
    assert not store.exists("x")
    store.write("x", b"1")
    s3.calm()
    monkeypatch.setattr(remote_objects, "RETRY_SECONDS", 0.5)
    late = s3.inject("delay", methods=("DELETE",), seconds=1)
    with pytest.raises(StoppedError, match="Read timeout"):
        store.remove("x", version)
    assert s3.injected(late) == 3, "of a fifth of a second each"
