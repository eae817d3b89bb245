"""The page in a real Chromium: it draws, asks for nothing, and axe finds nothing serious by light, by dark and narrow.

They run where playwright, axe-core-python and a Chromium are: the one that CHROMIUM names, that of the PATH, or
playwright's own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evil import EVIL
from test_report_live import served

from scanrnn_dist.cli.reproducing import command_that_makes
from scanrnn_dist.report import Check, LiveServer, ReportNumbers, page, read_numbers, write_report

pytestmark = pytest.mark.soak
INK = {"light": "rgb(29, 35, 48)", "dark": "rgb(228, 232, 239)"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    for name in page.NEEDED:
        pytest.importorskip(name)
    playwright = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("axe_core_python")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as it:
        if chromium is None and not Path(it.chromium.executable_path).exists():
            pytest.skip("There is no Chromium (Debian: apt-get install chromium; or playwright install chromium).")
        opened = it.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def whole(out: Path) -> ReportNumbers:
    """All that a page can show."""
    from scanrnn_dist.api import verify

    numbers = read_numbers(out, command_of=command_that_makes)
    assert numbers.aside and numbers.work.took.seconds and len(numbers.lengths.counts.bars()) == 2
    return dataclasses.replace(numbers, check=Check(verify(out)), command=f"scanrnn featurize {EVIL}")


def opened(browser: Any, url: str, scheme: str = "light", width: int = 1000) -> tuple[Any, list[str], list[str]]:
    """A tab with a page, what is wrong with it, and what it asked for."""
    tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    tab.set_default_timeout(20_000)
    wrong, asked = list[str](), list[str]()
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(url)
    tab.wait_for_selector("body[data-drawn]")
    return tab, wrong, asked


@pytest.mark.parametrize(("scheme", "width"), [("light", 1000), ("dark", 1000), ("light", 400), ("dark", 400)])
def test_a_browser_opens_the_page_without_a_network(
    whole: ReportNumbers, tmp_path: Path, browser: Any, scheme: str, width: int
) -> None:
    from axe_core_python.sync_playwright import Axe

    write_report(whole, tmp_path / "page.html")
    url = (tmp_path / "page.html").as_uri()
    tab, wrong, asked = opened(browser, url, scheme, width)
    assert tab.locator("#map .point").count() == 60
    assert tab.locator("#throughput .bars .point").count() and tab.locator("#lengths .bars .point").count() == 2
    assert tab.locator("#features .scatterlayer .point").count()
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert "evil" not in tab.title() and tab.locator("img").count() == 0 and tab.locator("main b").count() == 0
    assert EVIL in tab.locator("#map-title ~ p").first.inner_text()
    assert tab.evaluate("getComputedStyle(document.querySelector('#map .xtick text')).fill") == INK[scheme]
    found = [it for it in Axe().run(tab)["violations"] if it["impact"] in ("serious", "critical")]
    assert not found, json.dumps(found, indent=1)[:3000]
    assert wrong == [] and asked == [url]
    tab.close()


def test_a_page_that_is_served_takes_news_and_keeps_what_is_open(
    out: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "NEWS_SECONDS", 0.5)
    monkeypatch.setattr("scanrnn_dist.report.live.FRESH_SECONDS", 0.0)
    numbers = read_numbers(out)
    shown = [dataclasses.replace(numbers, status=dataclasses.replace(numbers.status, state="running"))]
    with served(LiveServer(lambda before: shown[-1])) as server:
        tab, wrong, asked = opened(browser, server.url)
        tab.locator("#features-in-numbers summary").click()
        tab.evaluate("document.getElementById('map').mine = true")
        tab.evaluate("window.scrollTo(0, 500)")
        assert tab.locator("text=The page follows the job.").count() == 1
        shown.append(dataclasses.replace(numbers, status=dataclasses.replace(numbers.status, rows_committed=4321)))
        tab.locator("dd", has_text="4,321").wait_for()
        tab.locator("#live", has_text="complete").wait_for()
        assert tab.evaluate("document.getElementById('map').mine"), "the plot is the same one"
        assert tab.evaluate("document.getElementById('features-in-numbers').open") and tab.evaluate("scrollY") == 500
        assert tab.locator("#map .point").count() == 60 and "complete" in tab.title()
        assert wrong == [] and set(asked) == {server.url, f"{server.url}now.json"}
        tab.close()
