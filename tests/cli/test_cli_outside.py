"""The command line in a world that is not as it should be: one line, the code of its cause, no traceback."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import command_line_in_this_process, entries, random_rows, write_source

from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli import running
from scanrnn_dist.cli.computation import AskedComputation
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.job import attempt
from scanrnn_dist.observe import available_cores, check_fits, memory, peak_memory_bytes, usable_bytes

GRU = ["--hidden", "4"]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line_in_this_process(monkeypatch, columns=200)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_source(tmp_path / "in.parquet", random_rows([3, 5])))


def failed(capsys: pytest.CaptureFixture[str], arguments: list[Any], code: int) -> str:
    """The one line on standard error of a run that ends with `code`."""
    assert cli.run([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize("way", ["a folder", "a list", "a glob that the shell expanded"])
def test_of_a_job_whose_source_is_not_there_every_command_ends_with_4(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write_source(tmp_path / f"in/{number}.parquet", random_rows([3, 5], number)) for number in range(2)]
    out, named = tmp_path / "out", [tmp_path / "in"] if way == "a folder" else files
    assert cli.run(["featurize", *map(str, named), str(out), *GRU]) == 0
    capsys.readouterr()
    (tmp_path / "in").rename(tmp_path / "away")
    (tmp_path / "in").mkdir()  # as a disk that is not mounted leaves it
    before = entries(out)
    words = [tmp_path / "in/*.parquet"] if way == "a glob that the shell expanded" else named
    for command in (
        ["featurize", *words, out, *GRU],
        ["featurize", *words, out, *GRU, "--accept-changes"],
        ["plan", *words, out, *GRU],
        ["resume", out],
    ):
        told = failed(capsys, command, 4)
        assert "cannot be read" in told and "start the same command again" in told and "--accept" not in told
    failed(capsys, ["featurize", *words, tmp_path / "new", *GRU], 2)
    failed(capsys, ["plan", *words, tmp_path / "new", *GRU], 2)
    assert entries(out) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["encoder", pytest.param("featurize", marks=pytest.mark.soak)])
def test_a_platform_that_is_not_there_is_told(command: str, source: str, tmp_path: Path) -> None:
    has_plugin = any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))
    platforms = ["foo"] if has_plugin else ["foo", "cuda"]
    script = (  # each platform in a fork of one process, which has not started JAX
        "import os, sys, jax; from scanrnn_dist.cli import app\n"
        "for platform in sys.argv[1].split():\n"
        "    if not (child := os.fork()):\n"
        "        os.environ['JAX_PLATFORMS'] = platform; jax.config.update('jax_platforms', platform)\n"
        "        os._exit(app.run(sys.argv[2:], owns_process=True))\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    commands = {
        "featurize": ["featurize", source, tmp_path / "out", *GRU],
        "encoder": ["encoder", "make", tmp_path / "e.safetensors", "--in-features", 2, *GRU],
    }
    words = [sys.executable, "-W", "ignore", "-c", script, " ".join(platforms), *map(str, commands[command])]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["2"] * len(platforms)
    for platform, said in zip(platforms, run.stderr.splitlines(), strict=True):
        assert said.startswith(f"ConfigError: JAX does not start with JAX_PLATFORMS={platform}: ")


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--lanes", "--window-blocks", "--block-steps"])
def test_windows_that_never_fit_are_refused_before_they_are_made_and_plan_says_so(
    flag: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = [flag, "1000000000", "--kernel", "xla"]
    said = failed(capsys, ["featurize", source, tmp_path / "out", *GRU, *large], 2)
    assert "Windows of this shape would take" in said and "Choose fewer --lanes" in said
    assert not (tmp_path / "out").exists()
    assert "Choose fewer --lanes" in failed(capsys, ["bench", source, *GRU, *large], 2)
    assert cli.run(["plan", source, *GRU, *large]) == 2
    assert "so featurize would refuse" in capsys.readouterr().out
    assert cli.run(["plan", source, *GRU]) == 0
    assert "would refuse" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "hidden"), [("featurize", 100_000_000), ("plan", 100_000_000), ("encoder", 10_000_000)]
)
def test_weights_that_never_fit_are_refused(
    command: str, hidden: int, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {
        "featurize": ["featurize", source, tmp_path / "out"],
        "plan": ["plan", source],
        "encoder": ["encoder", "make", tmp_path / "e.safetensors", "--in-features", 2],
    }
    said = failed(capsys, [*commands[command], "--hidden", hidden], 2)
    assert f"Weights of {hidden} hidden features would take" in said and "Choose fewer with --hidden" in said


@pytest.mark.parametrize("flag", ["--lanes", "--window-blocks", "--block-steps", "--devices", "--hidden"])
def test_numbers_without_end_are_wrong_usage(flag: str, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", source, flag, "1" + "0" * 400]) == 2
    assert f"'{flag}'" in capsys.readouterr().err


def machine(root: Path, groups: str, limits: dict[str, str]) -> Path:
    """A root with so much as is read of a machine with 1,000 KiB."""
    for name, content in {
        "proc/meminfo": "MemFree: 1 kB\nMemTotal: 1000 kB\n",
        "proc/self/cgroup": groups,
        **limits,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
V1_CPU = "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs"


@pytest.mark.parametrize(
    ("groups", "limits", "usable"),
    [
        ("", {}, 1_024_000),
        ("0::/a/b\n", {f"{V2}/a/b/memory.max": "max\n"}, 1_024_000),
        ("0::/a/b\n", {f"{V2}/a/b/memory.max": "max\n", f"{V2}/a/memory.max": "5000\n"}, 5000),
        ("0::/a/b\n", {f"{V2}/a/b/memory.max": "4000\n", f"{V2}/a/memory.max": "5000\n"}, 4000),
        ("0::/of/the/host\n", {f"{V2}/memory.max": "3000\n"}, 3000),
        ("0::/../x\n", {f"{V2}/x/memory.max": "3000\n"}, 3000),
        ("4:memory:/a\n0::/\n", {f"{V1}/a/memory.limit_in_bytes": "2000\n"}, 2000),
        ("4:memory:/a\n1:cpu:/b\n", {f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}, 1_024_000),
    ],
)  # fmt: skip
def test_the_lowest_limit_is_what_a_process_may_use(
    groups: str, limits: dict[str, str], usable: int, tmp_path: Path
) -> None:
    assert usable_bytes(machine(tmp_path, groups, limits)) == usable


CORES = available_cores()


@pytest.mark.parametrize(
    ("groups", "limits", "usable"),
    [
        ("", {}, CORES),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "max 100000\n", f"{V2}/a/cpu.max": "9900000 100000\n"}, min(CORES, 99)),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "50000 100000\n", f"{V2}/a/cpu.max": "400000 100000\n"}, 1),
        ("0::/of/the/host\n", {f"{V2}/cpu.max": "110000 100000\n"}, min(CORES, 2)),
        ("4:cpu,cpuacct:/a\n", {f"{V1_CPU}_quota_us": "100000\n", f"{V1_CPU}_period_us": "100000\n"}, 1),
        ("4:cpu,cpuacct:/a\n", {f"{V1_CPU}_quota_us": "-1\n", f"{V1_CPU}_period_us": "100000\n"}, CORES),
    ],
)  # fmt: skip
def test_a_quota_of_a_container_is_a_number_of_cores(
    groups: str, limits: dict[str, str], usable: int, tmp_path: Path
) -> None:
    assert available_cores(machine(tmp_path, groups, limits)) == usable


def test_where_nothing_tells_everything_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_bytes(tmp_path) is None
    monkeypatch.setattr(memory, "usable_bytes", lambda: None)
    check_fits(2**80, "This", "")
    monkeypatch.setattr(memory, "usable_bytes", lambda: 2**20)
    check_fits(2**20, "This", "")
    with pytest.raises(ConfigError, match=r"This would take 2 MiB; this process may use 1 MiB, all in all\. Do less\."):
        check_fits(2**21, "This", "Do less.")


# Names, files, messages ----------------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_made(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"caf\xe9")
    said = failed(capsys, ["featurize", source, tmp_path / name, *GRU], 2)
    assert r"caf\xe9' is not UTF-8" in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    os.link(source, "in.parquet")
    assert r"caf\xe9/out' is not UTF-8" in failed(capsys, ["featurize", "in.parquet", "out", *GRU], 2)


def test_what_the_machine_refuses_ends_with_4_in_words(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere")

    monkeypatch.setattr(running, "run_shown", denied)
    said = failed(capsys, ["featurize", source, tmp_path / "out", *GRU], 4)
    assert said.startswith("StoppedError: Permission denied (/somewhere). Stopped.")


def test_an_error_of_several_lines_is_told_in_one(
    source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any, **__: Any) -> None:
        raise DataError("a.parquet  is damaged:\n  deep\nwithin.")

    monkeypatch.setattr(AskedComputation, "on_devices", damaged)
    assert failed(capsys, ["plan", source], 3) == "DataError: a.parquet  is damaged: deep within.\n"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.pt", "torch"),
        ("model.h5", "keras"),
        ("model.keras", "keras"),
        ("model.onnx", "onnx"),
        ("checkpoint", "orbax"),
    ],
)
def test_weights_of_others_are_no_encoder_file_and_the_command_that_converts_them_is_named(
    name: str, says: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    file.mkdir() if name == "checkpoint" else file.write_bytes(bytes(100))
    said = failed(capsys, ["featurize", source, tmp_path / "out", "--encoder", file], 3)
    assert f"scanrnn encoder convert {file} " in said and f" --from {says}" in said


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["rnn.weight_ih_l0", "rnn.weight_hh_l0"], "--from torch"),
        (["gru/gru_cell/kernel", "gru/gru_cell/recurrent_kernel"], "--from keras"),
        (["dense_i.kernel", "dense_h.kernel"], "--from safetensors --like FILE"),
    ],
)
def test_weights_in_safetensors_are_told_by_their_names(
    names: list[str], says: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import safetensors.numpy

    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({name: np.zeros((2, 2), np.float32) for name in names}, file)
    said = failed(capsys, ["featurize", source, tmp_path / "out", "--encoder", file], 3)
    assert f"scanrnn encoder convert {file} " in said and says in said and "None" not in said


def test_an_encoder_file_that_may_not_be_read_is_no_damaged_one(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanrnn_dist.encoder import file as encoder_file

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    file, read_bytes = tmp_path / "e.safetensors", Path.read_bytes
    Encoder.from_seed(0, 3, 4).save(file)
    monkeypatch.setattr(encoder_file, "open", denied, raising=False)
    monkeypatch.setattr(Path, "read_bytes", lambda path: denied() if path == file else read_bytes(path))
    said = failed(capsys, ["featurize", source, tmp_path / "out", "--encoder", file], 4)
    assert f"{file} could not be read: Permission denied." in said


def test_letters_that_the_output_cannot_show_are_no_defect(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["featurize", source, str(tmp_path / "d\xe9"), *GRU]) == 0
    run = subprocess.run(
        [sys.executable, "-m", "scanrnn_dist", "status", tmp_path / "d\xe9"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0 and "d\\xe9" in run.stdout and "defect" not in run.stderr


def test_what_print_config_prints_is_read_back_whatever_the_terminal_shows() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "scanrnn_dist", "featurize", "d\xe9", "\u6e29\U0001f600", "--print-config"],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True,
    )  # fmt: skip
    assert tomllib.loads(run.stdout.decode()) == {"source": ["d\xe9"], "destination": "\u6e29\U0001f600"}


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_the_command_line_is_imported_ends_it_in_a_sentence(tmp_path: Path, number: str) -> None:
    stops = f"import os, signal, time\nos.kill(os.getpid(), signal.{number})\ntime.sleep(5)\n"
    (tmp_path / "typer.py").write_text(stops)
    paths = os.pathsep.join([str(tmp_path), str(Path(cli.__file__).parents[2])])
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has ignored, and then a command ignores it too
    try:
        run = subprocess.run(
            [sys.executable, "-m", "scanrnn_dist", "--version"],
            env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (run.returncode, run.stdout, run.stderr) == (4, "", "Stopped before anything was begun.\n")


def test_what_reading_may_take_of_memory_is_told_and_held(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = r"in.parquet, row group 0, column .* would take about 1 MiB of memory; reading may take 1 MiB at once"
    commands = [["featurize", source, tmp_path / "out"], ["plan", source], ["bench", source]]
    with monkeypatch.context() as with_little:
        with_little.setattr(memory, "usable_bytes", lambda: 512)
        for command in commands:
            error = failed(capsys, [*command, *GRU], DataError.exit_code)
            assert re.search(told, error) and "--memory" in error, error
        assert cli.run([*map(str, commands[1]), *GRU, "--memory", "32MiB"]) == 0, "a larger budget lets them pass"
        assert "memory:       at most about" in capsys.readouterr().out
    for command in commands:
        error = failed(capsys, [*command, *GRU, "--memory", "31MiB"], ConfigError.exit_code)
        assert "--memory is 32,505,856 bytes; expected at least 32MiB" in error
    for wrong in ("lots", "-1", "0", "4 Gibibytes"):
        error = failed(capsys, [*commands[0], *GRU, "--memory", wrong], ConfigError.exit_code)
        assert f"'{wrong}' is no number of bytes; expected one such as 4GiB" in error
    assert cli.run([*map(str, commands[0]), *GRU, "--memory", "0.5GB"]) == 0
    assert cli.run([*map(str, commands[0]), *GRU, "--memory", "32 MiB"]) == 0, "it is no option of the job"


def test_the_limits_of_the_process_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: 4 << 30, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    assert usable_bytes(tmp_path) == 4 << 30
    assert memory.bytes_of("2GiB") == 2 << 30 and memory.bytes_of("1.5k") == 1500


NOTHING = "Nothing was written."
SAVED = "What is done is saved; run the same command to continue."
STOPPED = {
    "plan in": ("scanrnn_dist.job", NOTHING),
    "--log-format json encoder make out.safetensors --hidden 4 --in-features 3": ("jax", NOTHING),
    "verify out": ("jax", NOTHING),
    "verify out --repair": ("jax", SAVED),
    "-q featurize plan out --hidden 4": ("scanrnn_dist.launch", SAVED),
    "resume out": ("scanrnn_dist.job", SAVED),
    "update out in": ("jax", SAVED),
    "clean out": ("scanrnn_dist.job", SAVED),
    "demo": ("jax", "If the demo's folder is there, remove it, then run the same command."),
    "status out --json": ("scanrnn_dist.job", NOTHING),
}
"""Commands, what each imports when it gets Ctrl-C, and what it says then of the rest."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each command says, in one line, and its exit code, in the next; each in a fork of one process."""
    script = (
        "import os, signal, sys\n"
        "from scanrnn_dist.cli import app\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *given):\n"
        "        if name == imported: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "for words, imported in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    if not (child := os.fork()):\n"
        "        os._exit(app.run(words.split()))\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)"
    )
    words = [word for command, (imported, _) in STOPPED.items() for word in (command, imported)]
    folder = tmp_path_factory.mktemp("stopped")
    run = subprocess.run([sys.executable, "-c", script, *words], cwd=folder, capture_output=True, text=True, check=True)
    assert not run.stdout
    return run.stderr.splitlines()


@pytest.mark.parametrize("words", STOPPED)
def test_a_command_that_is_stopped_says_what_is_left(stopped: list[str], words: str) -> None:
    assert len(stopped) == 2 * len(STOPPED)
    said, code = stopped[2 * list(STOPPED).index(words) :][:2]
    told = f"Stopped. {STOPPED[words][1]}"
    assert code == "4"
    if words.endswith("--json"):
        assert json.loads(said) == {"error": told, "kind": "StoppedError", "exit_code": 4}
    else:
        assert (json.loads(said)["message"] if "--log-format json" in words else said) == told


def test_a_demo_that_is_stopped_while_it_computes_does_not_say_that_it_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = attempt.Attempt.work

    def stopped(self: Any, *given: int) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return work(self, *given)

    monkeypatch.setattr(attempt.Attempt, "work", stopped)
    assert cli.run(["demo", "--folder", str(tmp_path / "demo"), "--rows", "12"]) == 4
    said = capsys.readouterr().err
    assert "Stopped by Ctrl-C. If the demo's folder is there, remove it, then run the same command." in said
    assert "continue" not in said


@pytest.mark.parametrize("told", [None, "Name:\tpython\nVmRSS:\t    9000 kB\n"])
def test_the_peak_of_memory_is_told_where_a_sandbox_does_not_tell_of_it(tmp_path: Path, told: str | None) -> None:
    status = tmp_path / "proc/self/status"
    if told is not None:
        status.parent.mkdir(parents=True)
        status.write_text(told)
    assert 2**20 < peak_memory_bytes(tmp_path) <= 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text("VmHWM:\t    9000 kB\n")
    assert peak_memory_bytes(tmp_path) == 9000 << 10
