"""A crash leaves a trace that the next attempt finds; so does the kernel's count of processes that memory killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanrnn_dist.errors import StoppedError
from scanrnn_dist.records import evidence
from scanrnn_dist.records.commit_log import read_commits
from scanrnn_dist.records.names import COMMITS
from scanrnn_dist.storage import ASIDE, ArrowObjects, LocalStore, ObjectStore

CRASHING = """
import os, signal, sys
from pyarrow import fs
from scanrnn_dist.records import AttemptLog, CrashTrace
from scanrnn_dist.storage.local import LocalStore
from scanrnn_dist.storage.arrow_objects import ArrowObjects
from scanrnn_dist.storage.bucket import ObjectStore

told = [each.split("|") for each in sys.argv[1:]]
numbered = [(root, kind, int(number)) for root, kind, *numbers in told for number in numbers]
for nth, (root, kind, number) in enumerate(numbered):
    if process := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status == -number, status
        continue
    attempt = f"here.{os.getpid()}.{nth:08}"
    local = LocalStore(root, attempt)
    store = local if kind == "folder" else ObjectStore(root, attempt, ArrowObjects(fs.LocalFileSystem()), root)
    log = AttemptLog(store, {"job": "j", "share": [1, 1]})
    trace = CrashTrace(store)
    log.begin(5, alone=True)
    log.read_chunk()
    if number:
        os.kill(os.getpid(), number)
    log.end("done")
    trace.close()
    os._exit(0)
"""


def crash(*told: tuple[Any, ...]) -> None:
    """Processes that end by the signals of each root, one after the other, while they work on unit 5 alone."""
    each = ["|".join([str(root), kind, *(str(int(number)) for number in numbers)]) for root, kind, *numbers in told]
    command = [sys.executable, "-c", CRASHING, *each]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each signal, by which two processes ended, and one for 0, of a process that ended by itself."""
    folder = tmp_path_factory.mktemp("crashed")
    for number in (signal.SIGSEGV, signal.SIGKILL, 0):
        (folder / f"{int(number)}" / COMMITS).mkdir(parents=True)
    twice = [(folder / f"{int(number)}", "folder", number, number) for number in (signal.SIGSEGV, signal.SIGKILL)]
    crash(*twice, (folder / "0", "folder", 0))
    return folder


@pytest.mark.parametrize(("number", "says"), [(signal.SIGSEGV, "Segmentation fault"), (signal.SIGKILL, "")])
def test_a_crash_is_told_from_a_kill(crashed: Path, number: int, says: str) -> None:
    suspect = read_commits(LocalStore(str(crashed / f"{int(number)}"), "x"), "j", np.ones(9, int)).suspects[5]
    assert (suspect.deaths, suspect.deaths_alone) == (2, 2)
    assert suspect.verdict == (f"2 processes that worked on it ended with: {says}" if says else "")


def test_an_attempt_that_ends_by_itself_leaves_no_trace(crashed: Path) -> None:
    assert [path.suffix for path in (crashed / "0" / COMMITS).iterdir()] == [".jsonl"]


def test_of_a_bucket_the_next_attempt_on_the_machine_brings_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import fs

    (tmp_path / "temporary").mkdir()
    for folder in (COMMITS, ASIDE):
        (tmp_path / "bucket" / folder).mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    crash((tmp_path / "bucket", "bucket", 0, signal.SIGSEGV, signal.SIGKILL))
    others = {"scanrnn-other.1.00000003.crash", "scanrnn-notes.crash"}
    for name in others:
        (tmp_path / "temporary" / name).write_bytes(b"of another job, or of nobody's")
    (log,) = (tmp_path / "bucket" / COMMITS).glob("*00000001.*.jsonl")
    names = [log.name.replace("00000001", f"0000000{number}") for number in (4, 5, 6)]
    for name in names:  # what another user may put there
        (tmp_path / "bucket" / COMMITS / name).write_bytes(log.read_bytes())
    pipe, folder, link = (f"scanrnn-{name.rpartition('.')[0].rpartition('.')[0]}.crash" for name in names)
    others |= {pipe, folder, link}
    os.mkfifo(tmp_path / "temporary" / pipe)
    (tmp_path / "temporary" / folder).mkdir()
    (tmp_path / "temporary" / link).symlink_to(log)
    root = str(tmp_path / "bucket")

    def another_users(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    with monkeypatch.context() as in_sticky_folder:
        in_sticky_folder.setattr(Path, "unlink", another_users)
        evidence.collect_traces(ObjectStore(root, "x", ArrowObjects(fs.LocalFileSystem()), root))
    evidence.collect_traces(ObjectStore(root, "x", ArrowObjects(fs.LocalFileSystem()), root))
    assert set(os.listdir(tmp_path / "temporary")) == others
    (trace,) = (tmp_path / "bucket" / COMMITS).glob("*.crash")
    assert trace.name.endswith("00000001.crash") and evidence.crash_in(trace.read_bytes()) == "Segmentation fault"


def test_without_a_temporary_folder_a_folder_has_its_trace_and_a_bucket_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import fs

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(evidence.faulthandler, "is_enabled", lambda: True)  # pytest's
    (tmp_path / COMMITS).mkdir(parents=True)
    evidence.CrashTrace(LocalStore(str(tmp_path), "x")).close()
    bucket = ObjectStore(str(tmp_path), "x", ArrowObjects(fs.LocalFileSystem()), str(tmp_path))
    for asks in (evidence.CrashTrace, evidence.collect_traces):
        with pytest.raises(StoppedError, match=r"No usable temporary directory.* Name a folder with TMPDIR"):
            asks(bucket)


def test_the_commits_are_listed_once_whatever_the_traces_and_not_for_those_of_living_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import fs

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    listed: list[str] = []
    monkeypatch.setattr(ObjectStore, "entries", lambda _, folder: iter(listed.append(folder) or ()))
    store = ObjectStore(str(tmp_path), "x", ArrowObjects(fs.LocalFileSystem()), str(tmp_path))
    for process, listings in ((os.getpid(), 0), (2**22 + 1, 1)):
        for number in range(3):
            (tmp_path / f"scanrnn-here.{process}.{number:08}.crash").touch()
        evidence.collect_traces(store)
        assert len(listed) == listings


def test_memory_that_ran_out_between_two_attempts_of_one_group_and_share_is_evidence(tmp_path: Path) -> None:
    (tmp_path / COMMITS).mkdir(parents=True)
    # (group, share, kills so far): of the first, the next one on its share in its group is told of one more.
    attempts = [("g", 1, 0), ("g", 2, 0), ("h", 1, 3), ("g", 2, 0), ("g", 1, 1), ("g", 1, 1)]
    for number, (group, share, kills) in enumerate(attempts):
        header = {"attempt": f"a.1.{number}", "job": "j", "started": float(number), "share": [share, 2]}
        lines = [{**header, "cgroup": group, "oom_kills": kills}, {"begin": number, "alone": True}]
        (tmp_path / COMMITS / f"a.1.{number}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    twice = [
        {"attempt": "b.1.0", "job": "j", "started": -1.0, "share": [1, 2]},
        *({"begin": unit} for unit in range(6)),
    ]
    (tmp_path / COMMITS / "b.1.0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in twice))
    (tmp_path / COMMITS / "b.1.0.crash").write_bytes(b"Fatal Python error: Bus error\n")
    suspects = read_commits(LocalStore(str(tmp_path), "x"), "j", np.ones(9, int)).suspects
    assert [unit for unit, suspect in suspects.items() if suspect.verdict] == [0]
    assert suspects[0].verdict.endswith(f"ended with: Bus error, {evidence.OUT_OF_MEMORY}")


def test_memory_that_ran_out_is_told_of_the_worker_whose_place_the_next_one_took() -> None:
    def header(attempt: str, replaces: str, kills: int, group: str = "g") -> dict[str, Any]:
        return {"attempt": attempt, "replaces": replaces, "share": [1, 1], "cgroup": group, "oom_kills": kills}

    driver = {"attempt": "driver", "share": [1, 1], "cgroup": "g", "oom_kills": 0}
    began = [header("a", "", 0), header("b", "", 0), header("c", "", 0)]
    assert evidence.attempts_out_of_memory([driver, *began, header("d", "a", 1)]) == {"a"}
    killed_otherwise = [header("d", "b", 0), header("e", "d", 1)]
    assert evidence.attempts_out_of_memory([driver, *began, *killed_otherwise]) == {"d"}
    assert evidence.attempts_out_of_memory([driver, *began, header("d", "a", 5, "of another machine")]) == set()


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("0::/a/b", "a/b/memory.events"),
        ("0::/a/b", "memory.events"),
        ("4:cpu,memory:/x", "memory/x/memory.oom_control"),
    ],
)
def test_the_count_of_the_kernel_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("oom 7\noom_kill 3\noom_group_kill 0\n")
    read = evidence._lines
    monkeypatch.setattr(evidence, "_CGROUPS", tmp_path)
    monkeypatch.setattr(evidence, "_lines", lambda path: [told] if str(path) == "/proc/self/cgroup" else read(path))
    found = evidence.oom_kills()
    assert found["oom_kills"] == 3 and str(path.parent) in found["cgroup"]
    path.unlink()
    assert evidence.oom_kills() == {}
