"""The drawing of docs/clusters.md: four processes, one of them slow, that are handed work or have a share each.

    python docs/images/make_shares.py            # writes docs/images/shares.svg

It needs nothing but Python; the bars are computed here, from the speeds of the processes.
"""

from __future__ import annotations

from pathlib import Path

SECONDS = (1, 1, 1, 2)
"""That each process takes for a piece of the work."""
PIECES = 16
LEFT, SECOND, LINE, WIDTH = 110, 76, 30, 740
STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #222; }
  .small { font-size: 11px; fill: #555; }
  rect { fill: #bcd4ee; stroke: #777; }
  .slow { fill: #f3dfa8; }
  line { stroke: #b3364a; stroke-dasharray: 4 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #eee; }
    .small { fill: #bbb; }
    rect { fill: #26486d; }
    .slow { fill: #6b5618; }
    line { stroke: #f08a99; }
  }
</style>"""


def handed_out() -> list[int]:
    """How many pieces each process does, if whoever is free first gets the next one."""
    done = [0] * len(SECONDS)
    for _ in range(PIECES):
        first = min(range(len(SECONDS)), key=lambda nth: ((done[nth] + 1) * SECONDS[nth], nth))
        done[first] += 1
    return done


def panel(title: str, done: list[int], top: int) -> list[str]:
    """One way to divide the work: a line for each process, and when the last one ends."""
    parts = [f'<text x="10" y="{top}">{title}</text>']
    for nth, count in enumerate(done):
        y, seconds = top + 12 + nth * LINE, SECONDS[nth]
        name = f"process {nth + 1}{', slow' if seconds > 1 else ''}"
        parts.append(f'<text class="small" x="10" y="{y + 16}">{name}</text>')
        style = ' class="slow"' if seconds > 1 else ""
        for piece in range(count):
            x, width = LEFT + piece * seconds * SECOND, seconds * SECOND - 3
            parts.append(f'<rect{style} x="{x}" y="{y}" width="{width}" height="24" rx="3"/>')
    end = LEFT + max(count * seconds for count, seconds in zip(done, SECONDS, strict=True)) * SECOND
    bottom = top + 12 + len(done) * LINE
    parts.append(f'<line x1="{end}" y1="{top + 4}" x2="{end}" y2="{bottom}"/>')
    parts.append(f'<text class="small" x="{end}" y="{top - 2}" text-anchor="end">the job ends</text>')
    return parts


def drawing() -> str:
    """Both ways, one above the other."""
    step = 12 + len(SECONDS) * LINE + 44
    parts = panel("Handed out: --processes, Ray", handed_out(), 26)
    parts += panel("A share each: --shard 1/4 to 4/4", [PIECES // len(SECONDS)] * len(SECONDS), 26 + step)
    height = 26 + 2 * step - 32
    label = "Work that is handed out ends soon after the fastest processes; a share ends when its own process does."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{label}">\n{STYLE}\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    (Path(__file__).parent / "shares.svg").write_text(drawing())
