"""What commands print beside their results: how much of it, in which form, and what they say of a defect."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import command_line_in_this_process

from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli.defects import report_of
from scanrnn_dist.cli.printing import log_to_stderr
from scanrnn_dist.errors import UndoneError
from scanrnn_dist.job import Foreseen
from scanrnn_dist.observe import progress, to_stderr

GRU = ["--column", "x", "--hidden", "4"]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pq.write_table(pa.table({"x": pa.array([[[1.0]]] * 5, pa.list_(pa.list_(pa.float32())))}), tmp_path / "a.parquet")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "dumb")
    command_line_in_this_process(monkeypatch, columns=200)
    return str(tmp_path / "a.parquet")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_quiet_prints_results_alone(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--quiet", "featurize", source, str(tmp_path / "out"), *GRU)
    assert (code, err) == (0, "") and "5 rows" in out
    code, _, err = run(capsys, "--quiet", "featurize", source, str(tmp_path / "out"), "--column", "y", "--hidden", "4")
    assert code == 2 and err.startswith("ConfigError: ")


def test_verbose_prints_what_is_decided_too(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["featurize", source, str(tmp_path / "out"), *GRU, "--kernel", "xla", "--memory", "64MiB", "--restart"]
    code, out, err = run(capsys, *words)
    verbose_code, verbose_out, verbose_err = run(capsys, "--verbose", *words)
    assert code == verbose_code == 0 and out.splitlines()[0] == verbose_out.splitlines()[0]
    for told in (
        "The layout is nested-lists: a list for each row, in column 'x'.",
        "The kernel is not native. ",
        "Each device has ",
        "Rows may take 64 MiB of memory (--memory).",
    ):
        assert told not in err and f"\n{told}" in f"\n{verbose_err}", verbose_err


def test_quiet_prints_warnings(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = [*GRU, "--lanes", "40000", "--block-steps", "1", "--window-blocks", "1"]
    code, _, err = run(capsys, "--quiet", "featurize", source, str(tmp_path / "out"), *many)
    assert code == 0 and err.startswith("Warning: --lanes 40,000 has each device compute")
    code, _, err = run(capsys, "-q", "--log-format", "json", "featurize", source, str(tmp_path / "another"), *many)
    assert code == 0 and json.loads(err)["level"] == "warning"


def test_a_name_with_a_new_line_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("scanrnn_dist")
    log_to_stderr()
    logger.warning("%s is left out.", "a\nStoppedError: forged")
    to_stderr("a\u2028forged is written.")
    try:
        raise ValueError("as it is")
    except ValueError:
        logger.exception("told")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "a StoppedError: forged is left out.", "a forged is written.", "told", "Traceback (most recent call last):",
    ]  # fmt: skip
    assert lines[-1] == "ValueError: as it is"


def test_as_json_each_line_is_an_object(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--log-format", "json", "featurize", source, str(tmp_path / "out"), *GRU)
    lines = [json.loads(line) for line in err.splitlines()]
    assert code == 0 and lines and all({"time", "level"} <= line.keys() for line in lines)
    assert lines[-1]["event"] == "progress" and lines[-1]["rows"] == lines[-1]["total"] == 5
    code, _, err = run(capsys, "--log-format", "json", "status", str(tmp_path / "nothing"))
    assert code == 2 and json.loads(err)["level"] == "error"


def test_warnings_of_a_worker_are_objects_too(source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--log-format", "json", "featurize", source, str(tmp_path / "out"), *GRU, "--processes", "1"]
    code, _, err = run(capfd, *words, "--lanes", "40000", "--block-steps", "1", "--window-blocks", "1")
    lines = [json.loads(line) for line in err.splitlines()]
    assert code == 0
    (warning,) = [line["message"] for line in lines if line["level"] == "warning"]
    assert warning.startswith("Warning: --lanes 40,000 has each device compute")


def test_the_next_command_prints_as_usual_again(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "--quiet", "status", str(tmp_path / "out"))
    assert " featurize: 5 of 5 rows" in run(capsys, "featurize", source, str(tmp_path / "out"), *GRU)[2]


@pytest.mark.parametrize("words", [["--quiet", "--verbose", "demo"], ["--log-format", "xml", "demo"]])
def test_what_makes_no_sense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *words)[0] == 2


def test_a_defect_is_told_in_one_paragraph_and_kept_in_a_file(tmp_path: Path) -> None:
    script = (
        "import sys; import scanrnn_dist.cli.outputs as outputs; from scanrnn_dist import job\n"
        "def read_status(destination): raise ValueError('lost \\udce9')\n"
        "job.read_status = read_status\n"
        "from scanrnn_dist.cli.app import run\n"
        "sys.exit(run(['--log-format', 'text', 'status', 'secret'], owns_process=True))"
    )
    own = {"TMPDIR": str(tmp_path), "PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=own)
    (file,) = tmp_path.glob("scanrnn-defect-*.txt")
    assert done.returncode == 1 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert "a defect of scanrnn_dist, not of your data or your command: ValueError: lost \\udce9. The tr" in done.stderr
    assert str(file) in done.stderr and done.stderr.endswith(" Nothing was written.\n")
    kept = file.read_text()
    assert "ValueError: lost \\udce9" in kept and "scanrnn status\n" in kept
    assert "pyarrow " in kept and "secret" not in kept


def test_a_report_names_the_devices_once_jax_has_them() -> None:
    assert "\ndevices 8\n" in report_of(ValueError("x"), "plan")


@pytest.mark.parametrize(
    "words",
    ["inspect {source} --scan", pytest.param("featurize {source} {out} --column x --hidden 4", marks=pytest.mark.soak)],
)
def test_a_terminal_has_its_cursor_again_where_a_bar_is_cut_off(source: str, tmp_path: Path, words: str) -> None:
    """By Ctrl-C outside of a job, or the second one within."""
    script = (
        "import os, signal, sys, time; from scanrnn_dist.observe import progress\n"
        "def cut_off(bar, rows):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally: os.kill(os.getpid(), signal.SIGINT)\n"
        "progress._Bar.advance, end = cut_off, os._exit\n"
        "os._exit = lambda code: (time.sleep(0.3), end(code))\n"  # in which a bar is drawn three times
        "from scanrnn_dist.cli.app import run; run(sys.argv[1:])"
    )
    ours, theirs = pty.openpty()
    given = words.format(source=source, out=tmp_path / "out").split()
    with open(theirs, "wb") as terminal:
        command = [sys.executable, "-c", script, *given]
        environment = os.environ | {"TERM": "xterm"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=environment)
    said = b""
    with open(ours, "rb", buffering=0) as terminal, suppress(OSError):  # which it raises at the end
        while some := terminal.read(4096):
            said += some
    assert process.wait(60) == 4 and b"\x1b[?25l" in said, said  # rich hides the cursor
    assert re.search(rb"\n\x1b\[\?25hStopped\. [^\n]*\n$", said), said


def test_standard_error_that_is_closed_gets_nothing_and_standard_output_results_alone() -> None:
    words = [sys.executable, "-m", "scanrnn_dist", "status", "nosuch", "--json"]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], stdout=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stdout) == (2, b"")


def test_no_file_is_opened_as_standard_error_that_is_closed() -> None:
    script = (
        "import os; from scanrnn_dist import __main__, cli\n"
        "cli.main = lambda: print(os.readlink('/proc/self/fd/2'), os.get_inheritable(2))\n"
        "__main__.main()"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], stdout=subprocess.PIPE, timeout=120)
    assert done.stdout == b"/dev/null True\n"


def test_lines_without_a_standard_error_go_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    to_stderr("x", logging.ERROR)
    assert capsys.readouterr().out == ""


def test_a_place_with_a_new_line_forges_no_other_place() -> None:
    with pytest.raises(UndoneError) as raised:
        Foreseen(whole=True, failed=1, failures=["a\nb.parquet, row 3: null"]).check()
    assert "\n  a b.parquet, row 3: null\n" in str(raised.value)
