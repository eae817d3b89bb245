"""The drawing of docs/jobs.md: what a crash loses, and what the same command does then.

    python docs/images/make_crash.py            # writes docs/images/crash.svg

It needs nothing but Python. It leaves the pictures of README to a script of their own.
"""

from __future__ import annotations

from pathlib import Path

WIDTH, HEIGHT, BOX, LEFT, LINE = 800, 262, 84, 186, 58
SAVED, WORKED_ON, WAITING, COMPUTED = "saved", "worked on", "waiting", "computed"
LINES = (
    ("The crash", (SAVED, SAVED, SAVED, WORKED_ON, WORKED_ON, WAITING, WAITING)),
    ("The same command", (SAVED, SAVED, SAVED, COMPUTED, COMPUTED, COMPUTED, COMPUTED)),
    ("The output", (SAVED,) * 7),
)
NOTES = (
    "Two units are lost: they had no part yet, and readers saw nothing of them.",
    "It reads the records, keeps what is saved, and computes the rest.",
    "The bits of a job that nothing disturbed. _SUCCESS is written last.",
)
STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #222; }
  .small { font-size: 11px; fill: #555; }
  rect { stroke: #777; }
  .saved { fill: #bde0c4; }
  .worked { fill: #f5c2c9; stroke-dasharray: 4 3; }
  .waiting { fill: none; }
  .computed { fill: #bcd4ee; }
  @media (prefers-color-scheme: dark) {
    text { fill: #eee; }
    .small { fill: #bbb; }
    .saved { fill: #24562f; }
    .worked { fill: #6b2833; }
    .computed { fill: #26486d; }
  }
</style>"""


def drawing() -> str:
    """Three lines of seven units: when the process dies, when the command is run again, and at the end."""
    parts = []
    for nth, (name, units) in enumerate(LINES):
        y = 38 + nth * (LINE + 18)
        parts.append(f'<text x="10" y="{y + 21}">{nth + 1}. {name}</text>')
        for unit, state in enumerate(units):
            x = LEFT + unit * (BOX + 3)
            parts.append(f'<rect class="{state.split()[0]}" x="{x}" y="{y}" width="{BOX}" height="34" rx="3"/>')
            parts.append(f'<text class="small" x="{x + BOX / 2}" y="{y + 21}" text-anchor="middle">{state}</text>')
        parts.append(f'<text class="small" x="{LEFT}" y="{y + 51}">{NOTES[nth]}</text>')
    parts.append(
        f'<text class="small" x="{LEFT}" y="22">A box is a unit: some rows of one file, which become one part.</text>'
    )
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    label = "A crash loses only the units being worked on; the same command computes what is not saved."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">\n{STYLE}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    (Path(__file__).parent / "crash.svg").write_text(drawing())
