"""What every store promises: a class of tests, to be inherited with a fixture `opened` for one kind of store."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
from faults import full, watched

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.storage import LocalStore, Store, arrow_objects, remote_objects
from scanrnn_dist.storage import bucket as object_store

Opened = Callable[[], Store]


def visible(store: Store) -> dict[str, int]:
    """What stands there besides the folder of what has no name yet."""
    return {name: size for name, size in store.below().items() if not name.startswith("__scanrnn/aside/")}


class StoreConformance:
    """Every store passes these; `opened` opens the same destination, each time as another attempt."""

    @pytest.fixture
    def store(self, opened: Opened) -> Store:
        return opened()

    def test_a_file_is_replaced_whole(self, store: Store) -> None:
        for content in (b"first", b"", b"a longer one"):
            store.write("__scanrnn/x.json", content)
            assert store.read("__scanrnn/x.json") == content
            with store.open_input("__scanrnn/x.json") as file:
                assert file.size() == len(content) and file.read() == content
            assert visible(store) == {"__scanrnn/x.json": len(content)}
            assert store.exists("__scanrnn/x.json")

    def test_a_file_that_may_not_be_written_any_more_stays(self, store: Store) -> None:
        def taken() -> None:
            raise StoppedError("another process has taken over")

        store.write("x", b"old")
        with pytest.raises(StoppedError, match="taken over"):
            store.write("x", b"new", check=taken)
        assert store.read("x") == b"old" and store.below() == {"x": 3}

    def test_what_is_not_there(self, store: Store) -> None:
        assert not store.exists("x") and not list(store.entries("x")) and not store.below("x")
        with pytest.raises(FileNotFoundError):
            store.read("x")
        with pytest.raises(FileNotFoundError):
            store.open_input("x")
        store.delete("x")
        store.delete_empty("x")
        assert not visible(store)

    def test_each_of_many_files_is_read_in_the_order_of_their_names_as_given(self, store: Store) -> None:
        names = [f"a/{number}.json" for number in reversed(range(20))]
        for name in names:
            if name not in ("a/3.json", "a/19.json"):
                store.write(name, name.encode())
        contents = [None if name in ("a/3.json", "a/19.json") else name.encode() for name in names]
        for count in (20, 2, 0):
            assert list(store.read_each(names[:count])) == contents[:count]

    def test_a_file_that_stands_is_not_created_again(self, opened: Opened) -> None:
        first, second = opened(), opened()
        assert first.create("a/job.json", b"mine")
        assert not second.create("a/job.json", b"theirs")
        assert second.read("a/job.json") == b"mine" and second.below() == {"a/job.json": 4}

    def test_a_file_is_replaced_and_removed_as_long_as_it_is_the_one_that_was_seen(self, opened: Opened) -> None:
        mine, theirs = opened(), opened()
        assert mine.version("a/x") is None and mine.create("a/x", b"1")
        content, seen = mine.read_version("a/x")
        assert content == b"1" and seen == mine.version("a/x") == theirs.version("a/x")
        assert theirs.replace("a/x", b"2", seen)
        assert not mine.replace("a/x", b"3", seen)
        mine.remove("a/x", seen)
        assert theirs.read("a/x") == b"2" and theirs.below() == {"a/x": 1}
        newer = theirs.version("a/x")
        assert newer is not None and newer != seen
        mine.remove("a/x", newer)
        assert not theirs.exists("a/x") and not theirs.replace("a/x", b"4", newer) and not visible(theirs)
        mine.remove("a/x", newer)

    def test_a_folder_is_removed_once_it_is_empty(self, store: Store) -> None:
        store.write("a/b/x", b"1")
        store.delete_empty("a")
        assert store.exists("a/b/x")
        store.delete("a/b/x")
        store.delete_empty("a")
        assert not list(store.entries("a"))

    def test_a_new_file_appears_when_it_is_committed_and_not_when_it_is_abandoned(self, store: Store) -> None:
        for name, commit in (("part-00000.parquet", True), ("part-00001.parquet", False)):
            file = store.new_file(name)
            assert file.write(b"some") == 4 and file.write(b"thing") == 5
            assert not store.exists(name) and not file.closed
            file.commit() if commit else file.abandon()
            assert file.closed
        assert store.below() == {"part-00000.parquet": 9}
        assert store.read("part-00000.parquet") == b"something"

    def test_a_new_file_of_many_pieces_is_whole(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        least = 5 << 20  # of a piece, on S3
        for module in (arrow_objects, remote_objects):
            monkeypatch.setattr(module, "UPLOAD_BYTES", least)
        content = os.urandom(2 * least + 500)
        file = store.new_file("x")
        for begin in range(0, len(content), least):
            file.write(memoryview(content)[begin : begin + least])
            file.begin_sync()
        file.commit()
        assert store.read("x") == content

    def test_a_log_grows_by_whole_lines_whoever_appends(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(object_store, "SEGMENT_LINES", 7)
        log = store.log("logs/a")
        threads = [threading.Thread(target=lambda n=n: [log.append(f"{n}:{i}") for i in range(5)]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.close()
        names = sorted(name for name, _ in store.entries("logs"))
        assert len(names) == (1 if isinstance(store, LocalStore) else 3)
        lines = b"".join(store.read(f"logs/{name}") for name in names).decode().splitlines()
        assert sorted(lines) == sorted(f"{n}:{i}" for n in range(4) for i in range(5))

    def test_a_log_that_is_closed_takes_no_line(self, store: Store) -> None:
        log = store.log("logs/a")
        log.append("whole")
        log.close()
        with pytest.raises(ValueError, match="closed"):
            log.append("late")
        assert [store.read(f"logs/{name}") for name, _ in store.entries("logs")] == [b"whole\n"]

    def test_files_move_and_go(self, store: Store) -> None:
        store.write("a/x", b"new")
        store.write("x", b"old")
        store.move("a/x", "x")
        store.sync()
        assert visible(store) == {"x": 3} and store.read("x") == b"new"
        store.delete("x")
        assert not visible(store)

    def test_a_second_name_keeps_its_content_when_the_first_gets_another(self, store: Store) -> None:
        store.write("x", b"1")
        store.link("x", "a/y")
        store.write("x", b"22")
        assert visible(store) == {"x": 2, "a/y": 1} and store.read("a/y") == b"1"
        with pytest.raises(StoppedError, match=r"a/y could not be written: File exists"):
            store.link("x", "a/y")
        assert visible(store) == {"x": 2, "a/y": 1} and store.read("a/y") == b"1"

    def test_entries_tell_files_from_folders_and_a_child_is_a_part_of_the_whole(self, store: Store) -> None:
        store.write("a/b", b"12")
        store.write("c", b"1")
        assert {name: size for name, size in store.entries() if name != "__scanrnn/"} == {"a/": 0, "c": 1}
        child = store.child("a")
        assert dict(child.entries()) == {"b": 2} and child.read("b") == b"12"
        assert child.path("b") == f"{store.root}/a/b" and child.attempt == store.attempt

    def test_a_refusal_names_the_file_and_says_what_to_do(self, opened: Opened) -> None:
        store = watched(opened(), full)
        for write in (store.write, store.create):
            with pytest.raises(
                StoppedError, match=r"out.*/x could not be written: No space left.*the same command again"
            ):
                write("x", b"")
        assert not store.below()
