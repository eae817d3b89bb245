"""Makes `report-light.png` and `report-dark.png`, the pictures of docs/report.md, of a page that stands.

    python docs/images/make_report_pictures.py PAGE.html [FOLDER]

It needs playwright and a Chromium: the one that CHROMIUM names, else /usr/bin/chromium.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 800, 1300


def main(page: Path, folder: Path) -> None:
    """Open the page by light and by dark, and take a picture of each."""
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            tab = browser.new_page(color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT})
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("#map .scatterlayer .point")
            tab.screenshot(path=folder / f"report-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
