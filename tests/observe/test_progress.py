"""Where no terminal is, progress is plain lines on standard error, now and then."""

from __future__ import annotations

import os
import pty
import re
import sys
from contextlib import suppress

import pytest

from scanrnn_dist.observe import SHOWN, progress
from scanrnn_dist.observe.progress import rows_progress


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SHARE", 0.0)  # or none follows a longer pause at once
    monkeypatch.setenv("TERM", "dumb")


def use_terminal(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Have standard error seem to be a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", kind)


@pytest.mark.usefixtures("every_line")
def test_lines_say_how_far_it_is_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with rows_progress("featurize", 4000) as rows:
        for some in (1000, 2500, 500):
            rows.advance(some)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert all(re.match("[0-9]{2}:[0-9]{2}:[0-9]{2} featurize: ", line) for line in lines)
    assert [line[9 : line.index("%")] for line in lines] == [
        "featurize: 1,000 of 4,000 rows (25",
        "featurize: 3,500 of 4,000 rows (88",
        "featurize: 4,000 of 4,000 rows (100",
    ]
    assert all(line.endswith(" left") for line in lines)
    assert lines[-1].endswith(" 0:00:00 left")


@pytest.mark.usefixtures("every_line")
def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_terminal(monkeypatch, "dumb")
    with rows_progress("featurize", 4000) as rows:
        rows.advance(1000)
    assert " featurize: 1,000 of 4,000 rows (25%" in capsys.readouterr().err


@pytest.mark.usefixtures("every_line")
@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_log_gets_lines_although_colours_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm")
    with rows_progress("featurize", 4000) as rows:
        rows.advance(1000)
    (line,) = capsys.readouterr().err.splitlines()
    assert " featurize: 1,000 of 4,000 rows (25%" in line and "\x1b" not in line


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # rich's thread may draw once more
def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", os.fdopen(theirs, "w"))
    with rows_progress("featurize") as rows:
        assert SHOWN.has_bar
        os.close(ours)
        rows.start(0, 10)
        rows.advance(10)
    with suppress(OSError):
        sys.stderr.close()


def test_a_quick_job_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with rows_progress("featurize", 10) as rows:
        rows.advance(10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("every_line")
def test_no_rows_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with rows_progress("featurize", 0):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("every_line")
@pytest.mark.parametrize(("total", "rows"), [(0, 0), (5, 0), (0, 2)])
def test_totals_of_0_and_steps_of_0_break_nothing(total: int, rows: int) -> None:
    with rows_progress("featurize", total) as told:
        told.advance(rows)


@pytest.mark.parametrize("total", [0, 5])
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], total: int) -> None:
    use_terminal(monkeypatch, "xterm")
    with rows_progress("featurize", total) as rows:
        rows.advance(total)
    out, err = capsys.readouterr()
    assert out == ""
    assert "featurize" in err
    assert f"{total} of {total} rows" in err


def test_at_60_columns_no_number_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_terminal(monkeypatch, "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    with rows_progress("featurize", 10**9) as rows:
        rows.advance(999_999_999)
    assert "999,999,999 of 1,000,000,000 rows" in capsys.readouterr().err


def test_a_log_gets_ever_fewer_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with rows_progress("featurize", 7 * 86_400) as rows:
        for hour in range(7 * 24):
            for _ in range(60):
                now[0] += 60
                rows.advance(60)
            if hour == 0:
                assert 20 < len(capsys.readouterr().err.splitlines()) <= 60
    assert 20 < len(capsys.readouterr().err.splitlines()) < 100


def test_errors_pass_through() -> None:
    with pytest.raises(KeyboardInterrupt), rows_progress("featurize", 5):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("every_line")
def test_rows_that_were_there_before_count_for_no_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with rows_progress("featurize", 4000) as rows:
        rows.start(3000, 4000)
        rows.advance(500)
    before, line = capsys.readouterr().err.splitlines()
    assert before.endswith(" featurize: 3,000 of 4,000 rows were there before")
    found = re.search("3,500 of 4,000 rows .88%., ([0-9]+) rows/s, 0:00:([0-9]+) left$", line)
    assert found is not None
    rate, left = map(int, found.groups())
    assert rate < 30 and 15 < left < 60  # 500 rows in a few tens of seconds; with the rows before, 7 times as many


@pytest.mark.parametrize("has_terminal", [False, True])
def test_a_rate_next_to_nothing_breaks_neither_bar_nor_lines(
    has_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SHARE", 0.0)  # or none follows a longer pause at once
    if has_terminal:
        use_terminal(monkeypatch, "xterm")
    with rows_progress("featurize", 10**18) as rows:
        rows.advance(0)
        rows.advance(1)
    assert "unknown time left" in capsys.readouterr().err or has_terminal


@pytest.mark.parametrize(
    ("left", "rate", "seconds"),
    [(10, 2.0, 5.0), (0, 2.0, 0.0), (10, 0.0, None), (10, 1e-320, None), (10**30, 1.0, None), (5, float("inf"), None),
     (5, float("nan"), None), (10 * 365 * 86_400, 1.0, 10 * 365 * 86_400.0)],
)  # fmt: skip
def test_seconds_left_are_told_where_they_are_known(left: int, rate: float, seconds: float | None) -> None:
    assert progress.seconds_left(left, rate) == seconds
