"""Makes `report-light.png` and `report-dark.png`, the pictures of docs/report.md: features and map of a page.

    python docs/images/make_report_pictures.py PAGE.html [FOLDER]

It needs playwright and a Chromium: the one that CHROMIUM names, else /usr/bin/chromium.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 680, 1000
SECTIONS = ("features-title", "map-title")
"""The first and the last that are seen; what stands above them names folders."""


def main(page: Path, folder: Path) -> None:
    """Open the page by light and by dark, and take a picture of each."""
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            tab = browser.new_page(color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT})
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("#map .scatterlayer .point")
            top, bottom = (tab.locator(f"section[aria-labelledby={name}]").bounding_box() for name in SECTIONS)
            assert top is not None and bottom is not None
            clip = {"x": 0, "y": top["y"], "width": WIDTH, "height": bottom["y"] + bottom["height"] - top["y"] + 16}
            tab.screenshot(path=folder / f"report-{scheme}.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
