"""The page of a report: nothing of the data is markup in it, it says how to go on; and the command that writes it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sources import featurize, random_rows, stop_once_committed, write_source

from scanrnn_dist import cli
from scanrnn_dist.errors import ConfigError, StoppedError
from scanrnn_dist.job import Sharing
from scanrnn_dist.report import page, read_numbers, write_report
from scanrnn_dist.report.features import Map, numbers_of
from scanrnn_dist.report.page import as_script
from scanrnn_dist.report.plots import OTHERS, feature_plot, groups_of, map_plot
from scanrnn_dist.report.sample import Sample

EVIL = "</script><script>document.title='evil'</script><!--<img src=x onerror=alert(1)>"
VALUES = (EVIL, "<b>bold</b>", "a & b", None)


def evil_job(folder: Path) -> Path:
    """A job whose kept column, its values and its destination are markup; it was stopped once, and is finished."""
    kinds = pa.array([VALUES[row % 4] for row in range(60)], pa.string())
    out = folder / "<i>out & more"
    source = write_source(folder / "a.parquet", random_rows([4] * 60), **{EVIL: kinds})
    with pytest.raises(StoppedError):
        featurize(source, out, rows_per_part=5, on_rows=stop_once_committed(out, 10))
    featurize(source, out, rows_per_part=5)
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evil_job(tmp_path_factory.mktemp("page"))


@pytest.fixture
def needs_extra() -> None:
    for name in page.NEEDED:
        pytest.importorskip(name)


def test_nothing_that_a_script_reads_ends_it() -> None:
    told = as_script({EVIL: [EVIL]})
    assert "</" not in told and "<!--" not in told and "<\\/script>" in told
    assert json.loads(told) == {EVIL: [EVIL]}


def test_a_plot_shows_values_as_text() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 3))
    plot = map_plot(Sample(rows, colour=EVIL, values=VALUES), Map(rows[:, :2], (0.6, 0.4)))
    names = [trace["name"] for trace in plot["data"]] if plot else []
    assert len(names) == 4 and not [name for name in names if "<" in name or ">" in name]
    assert {"&lt;b&gt;bold&lt;/b&gt;", "a &amp; b", "(null)"} < set(names)


def test_of_many_values_the_rare_ones_share_a_colour() -> None:
    values = [str(number) for number in range(30) for _ in range(30 - number)]
    names, which = groups_of(Sample(np.zeros((len(values), 1)), colour="c", values=tuple(values)))
    assert names == [*map(str, range(19)), OTHERS]
    assert np.bincount(which).tolist() == [*range(30, 11, -1), sum(range(1, 12))]


def test_many_numbers_colour_along_a_scale() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    plot = map_plot(Sample(rows, colour="<b>", values=(None, float("nan"), *range(28))), Map(rows[:, :2], (0.6, 0.4)))
    assert plot is not None and len(plot["data"]) == 1 and not plot["layout"]["showlegend"]
    marker = plot["data"][0]["marker"]
    assert marker["color"] == [None, None, *range(28)] and marker["colorbar"]["title"]["text"] == "&lt;b&gt;"
    few = map_plot(Sample(rows, colour="c", values=tuple(range(10)) * 3), Map(rows[:, :2], (0.6, 0.4)))
    assert few is not None and len(few["data"]) == 10


def test_plots_of_no_rows_are_left_out() -> None:
    assert feature_plot(numbers_of(np.zeros((0, 3)))) is None and map_plot(Sample(np.zeros((0, 3))), None) is None


def test_without_the_extra_the_command_says_how_to_install_it(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "NEEDED", ("nowhere_to_be_found",))
    assert cli.run(["report", str(out), "--output", str(tmp_path / "a.html")]) == 2
    assert "pip install '.[report]'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_page_says_how_to_go_on_and_has_no_markup_of_the_data(out: Path, needs_extra: None) -> None:
    told = page.page_of(read_numbers(out))
    assert "<i>" not in told and "<b>bold" not in told and EVIL not in told and "<img" not in told
    assert "<script>document.title" not in told
    assert re.search(r"scanrnn verify &#39;.*/&lt;i&gt;out &amp; more&#39;", told)
    assert re.search(r"scanrnn resume &#39;.*/&lt;i&gt;out &amp; more&#39;", told)
    assert "60 rows" in told and "GRU" in told


def test_the_command_writes_the_page_and_says_where(
    out: Path, tmp_path: Path, needs_extra: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["report", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "<i>out & more-report.html" and told["rows"] == 60 and told["state"] == "complete"
    assert [path.name for path in tmp_path.iterdir()] == [told["path"]]
    assert cli.run(["report", str(tmp_path)]) == 2 and "no output of a job" in capsys.readouterr().err


def test_while_the_job_runs_the_page_is_written_anew(
    tmp_path: Path, needs_extra: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path / "a.parquet", random_rows([4] * 30))
    featurize(source, tmp_path / "out", rows_per_part=5, sharing=Sharing((2, 3)))
    (lease,) = (tmp_path / "out/__scanrnn/workers").glob("2-of-3.*")
    ended = lease.read_text()
    at_work = {"state": "working", "beat": time.time(), "machine": "another"}
    lease.write_text(json.dumps({**json.loads(ended), **at_work}))
    seen = []

    def sleep(seconds: float) -> None:
        seen.append((tmp_path / "page.html").read_text())
        assert len(seen) < 3
        if len(seen) == 2:
            lease.write_text(ended)

    monkeypatch.setattr("scanrnn_dist.cli.report.time.sleep", sleep)
    assert cli.run(["report", str(tmp_path / "out"), "--output", str(tmp_path / "page.html"), "--live"]) == 0
    refresh = '<meta http-equiv="refresh" content="10">'
    assert [refresh in page and ">running<" in page for page in seen] == [True, True]
    last = (tmp_path / "page.html").read_text()
    assert refresh not in last and ">stopped<" in last


@pytest.mark.parametrize("name", ["", "no/page.html"])
def test_a_page_is_written_to_a_file_in_a_folder(out: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a file to write"):
        write_report(read_numbers(out), tmp_path / name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    for name in page.NEEDED:
        pytest.importorskip(name)
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip(f"There is no {chromium}.")
    with playwright.sync_playwright() as it:
        opened = it.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.soak
@pytest.mark.parametrize(("scheme", "width"), [("light", 1000), ("dark", 360)])
def test_a_browser_opens_the_page_without_a_network(
    out: Path, tmp_path: Path, browser: Any, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright").Axe()
    write_report(read_numbers(out), tmp_path / "page.html")
    tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    tab.set_default_timeout(10_000)
    wrong: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("#map .scatterlayer .point")
    assert tab.locator("#map .point").count() == 60
    assert tab.locator("#throughput .bars .point").count() and tab.locator("#features .scatterlayer .point").count()
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert "evil" not in tab.title() and tab.locator("img").count() == 0 and tab.locator("main b").count() == 0
    assert EVIL in tab.locator("#map-title ~ p").inner_text()
    ink = tab.evaluate("getComputedStyle(document.querySelector('#map .xtick text')).fill")
    assert ink == ("rgb(29, 35, 48)" if scheme == "light" else "rgb(228, 232, 239)")
    found = [it for it in axe.run(tab)["violations"] if it["impact"] in ("serious", "critical")]
    assert not found, json.dumps(found, indent=1)[:3000]
    assert wrong == [] and asked == [(tmp_path / "page.html").as_uri()]
    tab.close()
