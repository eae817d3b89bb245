"""What the site (`mkdocs.yml`) shows besides `docs/*.md`: pages made of README and its like, and of the command line.

mkdocs calls the two functions. Links between files of the checkout become links between pages; where a file is no page,
its name stays.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "results.md",
    "pipelines/README.md": "pipelines.md",
}
"""Files outside of `docs/`, and the pages that they become."""
PLOTS = "benchmarks/plots"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and the plots."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=linked((ROOT / source).read_text(), ROOT / source)))
    files.append(File.generated(config, "commands.md", content=commands()))
    for plot in sorted((ROOT / PLOTS).glob("*.png")):
        files.append(File.generated(config, f"plots/{plot.name}", abs_src_path=str(plot)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Mend the links of a page in `docs/` that leave the folder."""
    if page.file.src_uri in (*PAGES.values(), "commands.md"):
        return markdown
    return linked(markdown, ROOT / "docs" / page.file.src_uri)


def commands() -> str:
    """The reference of all commands, as the command line itself tells it."""
    from scanrnn_dist.cli.reference import reference

    return reference()


def linked(markdown: str, source: Path) -> str:
    """The text of a file, its links those between pages."""

    def link(found: re.Match[str]) -> str:
        bang, text, target, anchor = found.group(1), found.group(2), found.group(3), found.group(4) or ""
        if re.match(r"[a-z]+:", target):
            return found.group(0)
        path = (source.parent / target).resolve().relative_to(ROOT).as_posix()
        page = PAGES.get(path) or PAGES.get(f"{path}/README.md")
        if page is None and path.startswith("docs/") and path not in ("docs/house.md",):
            page = path.removeprefix("docs/")
        if page is None and path.startswith(PLOTS):
            page = path.removeprefix("benchmarks/")
        return f"{bang}[{text}]({page}{anchor})" if page else text

    return LINK.sub(link, markdown)
