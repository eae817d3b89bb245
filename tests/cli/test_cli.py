"""The command line: each cause has its exit code, results go to standard output, errors are words, not tracebacks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from sources import (
    SEED,
    TOLERANCE,
    H,
    encoder_of,
    entries,
    features_of,
    random_rows,
    some_lengths,
    write_source,
)

from scanrnn_dist.api import computation
from scanrnn_dist.api.tuning import ROUNDS
from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli import running
from scanrnn_dist.cli.computation import AskedComputation
from scanrnn_dist.engine.profiling import PROFILE_SECONDS
from scanrnn_dist.errors import ScanRNNError, StoppedError
from scanrnn_dist.job import attempt
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.records import EXPIRY_SECONDS
from scanrnn_dist.source import ROWS_PER_PART

ROWS = random_rows(some_lengths(12))
GRU = ["--hidden", str(H), "--seed", str(SEED)]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small window."""
    monkeypatch.setattr(computation, "window_shape_for", lambda encoder, mesh, **_: sources.SHAPE)
    sources.command_line_in_this_process(monkeypatch, columns=120)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_source(tmp_path / "in.parquet", ROWS))


def failed(capsys: pytest.CaptureFixture[str], arguments: list[Any], code: int) -> str:
    """What stands on standard error after a run that ends with `code` and prints no result."""
    assert cli.run([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip()
    assert "Traceback" not in err
    return " ".join(err.split())


def done(capsys: pytest.CaptureFixture[str], arguments: list[Any]) -> str:
    assert cli.run([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out


# Done ----------------------------------------------------------------------------------------------------------------


def test_featurize_then_verify(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, ["featurize", source, tmp_path / "out", *GRU, "--max-steps", "4", "--rows-per-part", "5"])
    assert f"-> 3 parts in {tmp_path / 'out'}" in out
    expected = oracle.gru_rows(encoder_of().cell, [row[:4] for row in ROWS])
    assert np.abs(features_of(tmp_path / "out") - expected).max() <= TOLERANCE
    out = done(capsys, ["verify", tmp_path / "out", "--sample", "100"])
    assert "3 with 12 rows, unchanged" in out and "right in all 12 rows that were recomputed" in out


def test_json_is_all_of_standard_output(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(done(capsys, ["featurize", source, tmp_path / "out", *GRU, "--json"]))
    assert (report["rows"], report["parts"], report["steps"]) == (12, 1, sum(map(len, ROWS)))
    assert report["destination"] == str(tmp_path / "out")
    result = json.loads(done(capsys, ["verify", tmp_path / "out", "--json"]))
    assert (result["rows"], result["parts"], result["sampled"]) == (12, 1, 12)
    assert result["greatest_difference"] <= TOLERANCE


def test_an_encoder_file_gives_the_bits_of_its_seed(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder_of().save(tmp_path / "encoder.safetensors")
    done(capsys, ["featurize", source, tmp_path / "a", "--encoder", tmp_path / "encoder.safetensors"])
    done(capsys, ["featurize", source, tmp_path / "b", *GRU])
    assert features_of(tmp_path / "a").tobytes() == features_of(tmp_path / "b").tobytes()


def test_several_sources_column_and_keep(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    both = {"x": pa.array([[1.0, 2.0]] * 12), "name": pa.array(list("abcdefghijkl"))}
    first = write_source(tmp_path / "1.parquet", ROWS, **both)
    second = write_source(tmp_path / "2.parquet", ROWS, **both)
    arguments = ["featurize", second, first, tmp_path / "out", *GRU, "--column", "sequence"]
    done(capsys, [*arguments, "--keep", "name,id"])
    table = pq.read_table(tmp_path / "out")
    assert table.column_names == ["name", "id", "features"]
    assert table["id"].to_pylist() == [*range(12)] * 2


def test_an_empty_list_of_columns_keeps_none(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, ["featurize", source, tmp_path / "out", *GRU, "--keep", ""])
    assert pq.read_schema(tmp_path / "out/part-00000.parquet").names == ["features"]
    assert "kept columns: none" in done(capsys, ["plan", source, "--keep", ""])


def test_plan_says_what_would_be_done_and_writes_nothing(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = entries(tmp_path)
    out = done(capsys, ["plan", source, "--hidden", "7", "--rows-per-part", "5"])
    assert entries(tmp_path) == before
    assert "1 file, 12 rows" in out
    assert "column 'sequence', 3 features per step" in out
    assert "3 parts, features: fixed_size_list<float32>[7]" in out
    assert re.search(r"about \d+ steps", out)


def test_demo_ends_well_and_its_output_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / 'it\'s a "demo"'
    out = done(capsys, ["demo", "--folder", folder, "--rows", "12", "--hidden", "8"])
    assert "12 rows" in out
    assert "right (by chance 33%)" in out
    assert "12 rows" in done(capsys, ["verify", folder / "features", "--sample", "0"])  # as `demo` did with a sample
    (reads,) = (line for line in out.splitlines() if "read_table" in line)
    run = subprocess.run(["bash", "-c", reads], capture_output=True, text=True, check=True)
    assert "features: fixed_size_list<" in run.stdout
    assert "not empty" in failed_after_output(capsys, ["demo", "--folder", folder], 2)


def failed_after_output(capsys: pytest.CaptureFixture[str], arguments: list[Any], code: int) -> str:
    assert cli.run([str(argument) for argument in arguments]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


def test_what_a_demo_does_is_printed_before_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: Any) -> None:
        assert b"1. 12 recordings" in out.getvalue() and b"\n2. featurize: " in out.getvalue()
        raise StoppedError("x")

    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
    monkeypatch.setattr(running, "run_shown", stopped)
    assert cli.run(["demo", "--folder", str(tmp_path / "demo"), "--rows", "12"]) == 4


@pytest.mark.parametrize("command", ["", "bench"])
def test_help_and_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, [*command.split(), "--help"])
    assert "Usage: scanrnn" in out
    if not command:
        assert "Exit codes: 0 done" in out
        assert all(package in done(capsys, ["--version"]) for package in ("scanrnn_dist 0.", "jax ", "pyarrow "))


def test_the_same_command_on_a_finished_job_starts_no_jax(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    featurize = ["featurize", source, str(tmp_path / "out"), *GRU]
    done(capsys, featurize)
    featurize += ["--compilation-cache", str(tmp_path / "cache")]
    # It ends as the command does: pyarrow may abort a process whose threads are not done.
    code = "import os, sys, scanrnn_dist.cli as cli; "
    code += f"print(cli.run({featurize}, owns_process=True), 'jax' in sys.modules, flush=True); os._exit(0)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "0 False"


def test_shares_then_status_clean_and_the_same_command_again(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    featurize = ["featurize", source, out, *GRU, "--rows-per-part", "5"]
    assert "1 part left to other processes" in done(capsys, [*featurize, "--shard", "2/2"])
    assert f"{out}: stopped" in done(capsys, ["status", out])
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    assert cli.run([*featurize, "--shard", "auto/2", "--steal", "--json"]) == 0
    printed, said = capsys.readouterr()
    assert json.loads(printed)["is_complete"]
    assert "--shard auto/2 is 1/2: Kubernetes: JOB_COMPLETION_INDEX=0." in said
    status = json.loads(done(capsys, ["status", out, "--json"]))
    assert (status["state"], status["rows_committed"], len(status["workers"])) == ("complete", 12, 2)
    assert done(capsys, featurize) == f"Nothing to do: {out} is finished, with 12 rows.\n"
    assert "2 files" in done(capsys, ["clean", out, "--dry-run"])
    assert json.loads(done(capsys, ["clean", out, "--json"]))["is_done"]
    assert "nothing to remove" in done(capsys, ["clean", out])
    featurize = ["featurize", source, out, "--hidden", str(H), "--seed", "9", "--rows-per-part", "5"]
    assert f"differs: seed was {SEED} and is 9" in failed(capsys, featurize, 2)
    assert "12 rows" in done(capsys, [*featurize, "--restart"])
    done(capsys, ["verify", out])


# Wrong usage: 2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["featurize", "SRC", "OUT"], "either --hidden (and --seed) for random weights, or --encoder FILE"),
        (["featurize", "SRC", "OUT", *GRU, "--encoder", "FILE"], "either --hidden"),
        (["featurize", "SRC", "OUT", "--encoder", "FILE", "--seed", "1"], "--seed is for random weights"),
        (["featurize", "SRC", "OUT", "--encoder", "nowhere"], "no encoder file nowhere"),
        (["featurize", "nowhere", "OUT", *GRU], "Nothing found at 'nowhere'"),
        (["featurize", "SRC", "OUT", *GRU, "--keep", "idd"], "no column 'idd' to keep"),
        (["featurize", "SRC", "OUT", *GRU, "--column", "sequense"], "no column 'sequense'; expected one. Did you mean"),
        (["featurize", "SRC", "HELD", *GRU], "nothing is ever overwritten"),
        (["featurize", "SRC", "OUT", "--hidden", "0"], "'--hidden': Input should be greater than or equal to 1"),
        (["featurize", "SRC", "OUT", *GRU, "--max-steps", "-1"], "--max-steps"),
        (["featurize", "SRC"], "DST is missing: a folder or URI"),
        (["bench", "--tune", "SRC", *GRU[:2], "--encoder", "FILE"], "either --hidden or --encoder FILE; not both"),
        (["bench", "--tune", "nowhere"], "Nothing found at 'nowhere'"),
        (["featurize", "SRC", "OUT", *GRU, "--block-steps", "0"], "--block-steps"),
        (["featurize", "SRC", "OUT", *GRU, "--profile", "OUT"], "of --profile lies within the destination"),
        (["featurize", "SRC", "OUT", *GRU, "--compilation-cache", "OUT"], "-cache lies within the destination"),
        (["resume", "HELD", "--compilation-cache", "HELD/a"], "--compilation-cache lies within the destination"),
        (["verify", "HELD", "--compilation-cache", "HELD/a"], "--compilation-cache lies within the destination"),
        (["update", "HELD", "SRC", "--compilation-cache", "HELD/a"], "-cache lies within the destination"),
        (["export", "OUT", "s3://bucket/a.npy"], "s3://bucket/a.npy is a URI; expected a file of this machine"),
        (["featurize", "SRC", "OUT", *GRU, "--profile", "trace", "--processes", "2"], "--profile traces this process"),
        (["plan", "SRC", "OUT", *GRU, "--profile", "trace", "--processes", "2"], "--profile traces this process"),
        (["featurize", "SRC", "OUT", *GRU, "--profile-seconds", "2"], "--profile-seconds is for --profile"),
        (["featurize", "SRC", "OUT", *GRU, "--profile", "HELD/a"], "No trace can be written to"),
        (["featurize", "SRC", "OUT", *GRU, "--compilation-cache", "HELD/a"], "no compilation cache at"),
        (["plan", "nowhere"], "Nothing found at 'nowhere'"),
        (["verify", "HELD"], "no output of a job"),
        (["verify", "HELD", "--sample", "-1"], "--sample"),
        (["featurize", "SRC", "OUT", *GRU, "--shard", "0/3"], "Share 0 of 3 does not exist"),
        (["featurize", "SRC", "OUT", *GRU, "--shard", "third"], "expected K/N such as 3/16"),
        (["featurize", "SRC", "OUT", *GRU, "--lock-seconds", "0"], "--lock-seconds"),
        (["featurize", "SRC", "s3://key:secret@bucket/out", *GRU], "URI holds a secret"),
        (["status", "HELD"], "no output of a job"),
        (["clean", "HELD"], "no output of a job"),
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
    ],
)
@pytest.mark.usefixtures("no_compilation_cache")
def test_wrong_usage_ends_with_2(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held/a").write_bytes(b"")
    named = {
        "SRC": source,
        "OUT": tmp_path / "out",
        "FILE": tmp_path / "e.safetensors",
        "HELD": tmp_path / "held",
        "HELD/a": tmp_path / "held/a",
    }
    assert says in failed(capsys, [named.get(argument, argument) for argument in arguments], 2)
    assert not (tmp_path / "out").exists()
    assert list(entries(tmp_path / "held")) == ["a"]


def test_no_command_at_all_shows_the_help_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert "Usage: scanrnn" in "".join(capsys.readouterr())


def test_the_help_tells_the_defaults_of_the_profile_and_the_bench(capsys: pytest.CaptureFixture[str]) -> None:
    def words(command: str) -> str:
        return " ".join(done(capsys, [command, "--help"]).replace("│", " ").split())

    assert f"after compilation (default: {PROFILE_SECONDS:g})" in words("featurize")
    assert f"measured (default: {ROUNDS})" in words("bench")
    assert f"counts as dead (default: {EXPIRY_SECONDS:g})" in words("featurize")


def test_a_seed_that_is_too_large_is_wrong_usage(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed(capsys, ["featurize", source, tmp_path / "out", "--hidden", "4", "--seed", str(2**63)], 2)


# Bad data: 3 ---------------------------------------------------------------------------------------------------------


def test_bad_data_ends_with_3(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    def featurize(path: Any, *options: str) -> str:
        return failed(capsys, ["featurize", path, tmp_path / "out", *GRU, *options], 3)

    two = write_source(tmp_path / "two.parquet", ROWS, other=pa.array([[1.0]] * 12))
    assert "--column other (a list for each row); or --column sequence (a list for each row)" in featurize(two)
    (tmp_path / "no.parquet").write_bytes(b"not Parquet")
    assert "cannot be read as Parquet" in featurize(tmp_path / "no.parquet")
    assert not (tmp_path / "out").exists()
    null = write_source(tmp_path / "null.parquet", [*ROWS, None])
    assert "row group 2, row 2 (row 12 of the file): the sequence is null" in featurize(null)


def test_a_changed_output_ends_with_3(tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, ["featurize", source, tmp_path / "out", *GRU])
    part = tmp_path / "out/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    assert "part-00000.parquet changed after it was written" in failed(capsys, ["verify", tmp_path / "out"], 3)
    (tmp_path / "out/_SUCCESS").unlink()
    assert "`scanrnn verify --repair` removes them" in failed(capsys, ["verify", tmp_path / "out"], 3)


# Stopped: 4 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "says"), [(KeyboardInterrupt(), "Stopped."), (StoppedError("the disk is full"), "the disk is full")]
)
def test_stopped_ends_with_4(
    tmp_path: Path,
    source: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    says: str,
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(running, "run_shown", stopped)
    assert says in failed(capsys, ["featurize", source, tmp_path / "out", *GRU], 4)


def test_a_defect_of_ours_is_not_hidden(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ScanRNNError.exit_code == 1

    def defect(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(AskedComputation, "on_devices", defect)
    with pytest.raises(ZeroDivisionError):
        cli.run(["plan", source])


def test_a_signal_whose_exception_was_lost_stops_the_job_all_the_same(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = attempt.Attempt.work

    def swallowing(self: Any, *given: int) -> Any:
        with contextlib.suppress(StoppedError):  # as Python does in a callback of the garbage collector
            os.kill(os.getpid(), signal.SIGTERM)
        return work(self, *given)

    monkeypatch.setattr(attempt.Attempt, "work", swallowing)
    said = failed(capsys, ["featurize", source, tmp_path / "out", *GRU], 4)
    assert "Stopped by SIGTERM. 12 of 12 rows are saved. To continue, run the same command, or scanrnn resume " in said
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_nohup_is_heeded_and_what_a_script_began_can_be_stopped(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (signal.SIGHUP, signal.SIGINT):  # a shell without a terminal has its background jobs ignore SIGINT
        signal.signal(number, signal.SIG_IGN)
    done(capsys, ["plan", source])
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.SIG_DFL)


def test_a_reader_that_goes_early_is_no_defect(tmp_path: Path) -> None:
    bad = write_source(tmp_path / "bad.parquet", [[[float("nan")] * 3]])  # so that no speed is measured
    command = f"set -o pipefail; {sys.executable} -m scanrnn_dist plan {bad} | true; echo $?"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout == "3\n" and run.stderr.startswith("UndoneError: ")


def test_a_result_that_cannot_be_printed_is_told(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done(capsys, ["featurize", source, tmp_path / "out", *GRU])
    script = (  # each command in a fork of one process
        "import os, sys; from scanrnn_dist import cli, job; from scanrnn_dist.__main__ import main\n"
        "def ends(stream, file, words):\n"
        "    if not (child := os.fork()):\n"
        "        if file:\n"
        "            os.dup2(os.open(file, os.O_WRONLY), stream)\n"
        "        else:\n"
        "            os.close(stream); sys.stdout = None\n"
        "        sys.argv[1:] = words.split(); main()\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)\n"
        "for told in sys.argv[1:]:\n"
        "    ends(*eval(told))"
    )
    status = f"status {tmp_path / 'out'}"
    inspect = f"inspect {source} --statistics --output {tmp_path / 'in.toml'}"
    given = [
        (1, "/dev/full", status),
        (1, "/dev/full", "--version"),
        (1, "", status),
        (2, "/dev/full", inspect),
        (1, "", f"inspect {source}"),
    ]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-W", "ignore", "-c", script, *map(repr, given)]
    run = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, check=True)
    told = "StoppedError: The result could not be printed: No space left on device. Nothing else failed."
    # What `status` prints goes out at once, the version at the end.
    assert run.stderr.splitlines() == [told, "4", told, "4", "0", "0", "0"]


def test_a_restart_that_is_refused_has_written_nothing(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done(capsys, ["featurize", source, tmp_path / "out", *GRU])
    before = entries(tmp_path / "out")
    again = ["featurize", source, tmp_path / "out", "--restart"]
    assert "no encoder file nowhere" in failed(capsys, [*again, "--encoder", "nowhere"], 2)
    wide = failed(capsys, [*again, *GRU, "--lanes", str(2**31 - 1), "--window-blocks", "65536"], 2)
    assert wide.startswith("ConfigError: Windows of this shape would take")
    assert entries(tmp_path / "out") == before


def test_a_demo_that_the_memory_does_not_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computation, "window_shape_for", lambda encoder, mesh, **_: WindowShape(2**31 - 1, 1, 65_536))
    assert cli.run(["demo", "--folder", str(tmp_path / "demo"), "--rows", "12"]) == 2
    assert "ConfigError: Windows of this shape would take" in capsys.readouterr().err
    assert not (tmp_path / "demo/features").exists()


@pytest.mark.parametrize("error", [MemoryError("16 TiB"), RuntimeError("RESOURCE_EXHAUSTED: 16 TiB")])
def test_too_little_memory_ends_with_4(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(running, "run_shown", fails)
    said = failed(capsys, ["featurize", source, tmp_path / "out", *GRU], 4)
    assert said.startswith("StoppedError: Out of memory: ") and "16 TiB. Find more memory, or choose a smaller" in said
    assert "--hidden" not in said and "--window-blocks" not in said, "these make another job"


def test_a_signal_that_a_library_made_another_error_of_ends_with_4(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, *given: int) -> Any:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except StoppedError:
            raise RuntimeError("Query interrupted") from None  # as DuckDB does

    monkeypatch.setattr(attempt.Attempt, "work", interrupted)
    assert "Stopped by SIGTERM." in failed(capsys, ["featurize", source, tmp_path / "out", *GRU], 4)


@pytest.mark.parametrize("number", [pytest.param(None, marks=pytest.mark.soak), signal.SIGTERM])
def test_a_job_whose_messages_nobody_reads_ends_as_any_other(
    tmp_path: Path, source: str, number: signal.Signals | None
) -> None:
    out, (read, written) = tmp_path / "out", os.pipe()
    script = (
        "import os, time; from scanrnn_dist import cli; from scanrnn_dist.disk import Disk\n"
        "from scanrnn_dist.cli.process import SIGNALS\n"
        "opens = Disk.open\n"
        "def opened(disk, path):\n"
        f"    if {number is not None} and 'part-00002.parquet' in path:\n"
        f"        os.kill(os.getpid(), {number or 0:d})\n"
        "        while not SIGNALS.stopped_by: time.sleep(0.001)\n"
        "    return opens(disk, path)\n"
        "Disk.open = opened; cli.main()"
    )
    words = ["--log-format", "json", "featurize", source, str(out), *GRU, "--rows-per-part", "5"]
    process = subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.DEVNULL, stderr=written)
    os.close(written)
    os.close(read)  # as of `2>&1 | tee log` once Ctrl-C has ended `tee`
    try:
        assert process.wait(timeout=60) == (4 if number else 0)
    finally:
        process.kill()
    assert (out / "_SUCCESS").exists() == (number is None)


def test_the_help_tells_the_default_that_the_library_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"(default: {ROWS_PER_PART:,}, or" in " ".join(
        done(capsys, ["featurize", "--help"]).replace("│", " ").split()
    )
