"""A folder and a bucket keep the same promises to a job, and say the same when they cannot."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from scanrnn_dist.errors import ConfigError, StoppedError
from scanrnn_dist.storage import bucket as object_store
from scanrnn_dist.storage import protocol as steps
from scanrnn_dist.storage.open import new_attempt, open_store
from scanrnn_dist.storage.protocol import Store, staged, stopping


@pytest.fixture(params=["folder", "bucket"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same destination, each time as another attempt."""
    if request.param == "folder":
        where = str(tmp_path / "out")
    else:
        s3: S3Server = request.getfixturevalue("s3")
        where = s3.uri("bucket/out")

    def opened() -> Store:
        return open_store(where)

    opened().prepare()
    return opened


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    return opened()


def visible(store: Store) -> dict[str, int]:
    """What stands there besides the folder of what has no name yet."""
    return {name: size for name, size in store.below().items() if not name.startswith("__scanrnn/aside/")}


def test_a_file_is_replaced_whole(store: Store) -> None:
    for content in (b"first", b"", b"a longer one"):
        store.write("__scanrnn/x.json", content)
        assert store.read("__scanrnn/x.json") == content
        with store.open_input("__scanrnn/x.json") as file:
            assert file.size() == len(content) and file.read() == content
        assert visible(store) == {"__scanrnn/x.json": len(content)}
        assert store.exists("__scanrnn/x.json")


def test_what_is_not_there(store: Store) -> None:
    assert not store.exists("x") and not list(store.entries("x")) and not store.below("x")
    with pytest.raises(FileNotFoundError):
        store.read("x")
    with pytest.raises(FileNotFoundError):
        store.open_input("x")
    store.delete("x")
    store.delete_below("x")
    assert not visible(store)


def test_a_file_that_stands_is_not_created_again(opened: Callable[[], Store]) -> None:
    first, second = opened(), opened()
    assert first.create("a/job.json", b"mine")
    assert not second.create("a/job.json", b"theirs")
    assert second.read("a/job.json") == b"mine"


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


def test_a_folder_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    store = open_store(tmp_path)
    assert store.create("x", b"1") and not store.create("x", b"2")
    assert store.read("x") == b"1"


def test_a_part_appears_when_it_is_committed_and_not_when_it_is_abandoned(store: Store) -> None:
    for name, commit in (("part-00000.parquet", True), ("part-00001.parquet", False)):
        part = store.part(name)
        assert part.write(b"some") == 4 and part.write(b"thing") == 5 and part.tell() == 9
        part.flush()
        assert not store.exists(name)
        part.commit() if commit else part.abandon()
    assert store.below() == {"part-00000.parquet": 9}
    assert store.read("part-00000.parquet") == b"something"


def test_a_part_of_many_pieces_is_uploaded_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "UPLOAD_BYTES", 1000)
    content = os.urandom(3_500)
    part = store.part("x")
    part.write(content)
    part.commit()
    assert store.read("x") == content


def test_a_log_grows_by_whole_lines_whoever_appends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "SEGMENT_LINES", 7)
    log = store.log("logs/a")
    threads = [threading.Thread(target=lambda n=n: [log.append(f"{n}:{i}") for i in range(5)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    names = sorted(name for name, _ in store.entries("logs"))
    assert len(names) == (3 if "000002" in names[-1] else 1)
    lines = b"".join(store.read(f"logs/{name}") for name in names).decode().splitlines()
    assert sorted(lines) == sorted(f"{n}:{i}" for n in range(4) for i in range(5))


def test_a_line_that_does_not_fit_is_taken_back_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    log = store.log("a")
    log.append("first")
    file = log._file  # type: ignore[attr-defined]

    class Full:
        """Takes three bytes."""

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def write(self, content: bytes) -> int:
            return int(file.write(content[:3]))

    log._file = Full()  # type: ignore[attr-defined]
    with pytest.raises(StoppedError, match=r"a\.jsonl could not be written: No space left on device.*Free some space"):
        log.append("second")
    assert store.read("a.jsonl") == b"first\n"
    log._file = file  # type: ignore[attr-defined]
    log.append("third")
    assert store.read("a.jsonl") == b"first\nthird\n"
    log.close()


def test_files_move_and_go(store: Store) -> None:
    store.write("a/x", b"new")
    store.write("x", b"old")
    store.move("a/x", "x")
    assert visible(store) == {"x": 3} and store.read("x") == b"new"
    store.write("a/b/y", b"")
    store.write("a/z", b"")
    store.delete_below("a")
    assert visible(store) == {"x": 3}
    store.delete("x")
    assert not visible(store)


@pytest.mark.parametrize("size", [1000, 1001, 3500])
def test_what_s3_does_not_copy_in_one_request_is_moved_in_pieces(
    size: int, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "COPY_BYTES", 1000)
    monkeypatch.setattr(object_store, "UPLOAD_BYTES", 900)
    store, content = open_store(s3.uri("bucket/out")), os.urandom(size)
    store.write("new/part", content)
    store.write("part", b"old")
    s3.calm()
    store.move("new/part", "part")
    assert (s3.count("GET", "new/part") > 0) == (size > 1000), "read here, or copied by the server"
    assert store.read("part") == content and store.below() == {"part": size}


def test_a_move_in_pieces_that_is_cut_leaves_the_old_file_and_can_be_done_again(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "COPY_BYTES", 10)
    store = open_store(s3.uri("bucket/out"))
    store.write("new", b"x" * 1000)
    fault = s3.inject("refuse", methods=("GET",), match="new", status=403)
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
    part = store.part("x")
    with pytest.raises(StoppedError, match=r"temporary folder /scratch .*No space left on device.*with TMPDIR"):
        part.write(content)
        part.commit()
    part.abandon()
    assert part.closed and not store.below()


def test_a_temporary_folder_that_is_not_there_is_told(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(object_store.tempfile, "TemporaryFile", missing)
    with pytest.raises(StoppedError, match=r"temporary folder .*No usable temporary directory.*with TMPDIR"):
        open_store(s3.uri("bucket/out")).part("x")


def test_entries_tell_files_from_folders_and_a_child_is_a_part_of_the_whole(store: Store) -> None:
    store.write("a/b", b"12")
    store.write("c", b"1")
    assert {name: size for name, size in store.entries() if name != "__scanrnn/"} == {"a/": 0, "c": 1}
    child = store.child("a")
    assert dict(child.entries()) == {"b": 2} and child.read("b") == b"12"
    assert child.path("b") == f"{store.root}/a/b" and child.attempt == store.attempt


def test_a_part_of_a_child_has_no_ending_that_readers_look_for_until_it_is_moved(store: Store) -> None:
    store.prepare()
    child, name = store.child("a"), "part-00000.parquet"
    child.prepare()
    part = child.part(name)
    part.write(b"123")
    part.commit()
    assert not [below for below in store.below() if below.endswith(".parquet")]
    assert dict(child.entries())[name] == child.below()[name] == 3
    assert child.exists(name) and child.read(name) == child.open_input(name).read() == b"123"
    store.move(f"a/{staged(name)}", name)
    assert store.read(name) == b"123" and not child.exists(name)
    child.write(name, b"4")
    child.delete(name)
    assert not child.exists(name) and not [below for below in store.below("a") if "part" in below]


def test_a_store_that_refuses_names_the_file_and_says_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(kind: str, name: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(steps, "step", full)
        for write in (store.write, store.create):
            with pytest.raises(
                StoppedError, match=r"out/x could not be written: No space left.*the same command again"
            ):
                write("x", b"")
    assert not store.below()


def test_a_destination_is_named_without_its_query(s3: S3Server) -> None:
    assert open_store(s3.uri("bucket/out/")).root == "s3://bucket/out"
    assert open_store(s3.uri("bucket/out")).path("_SUCCESS") == "s3://bucket/out/_SUCCESS"


def test_a_bucket_that_is_not_there_is_told(s3: S3Server) -> None:
    with pytest.raises(StoppedError, match=r"s3://no-such-bucket/out/x could not be written: .*NO_SUCH_BUCKET"):
        open_store(s3.uri("no-such-bucket/out")).write("x", b"")


def test_a_file_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        with pytest.raises(ConfigError, match="is or lies below"):
            open_store(tmp_path / name)


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
