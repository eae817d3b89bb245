"""The pictures of README: how rows become features, and a terminal in which a job is stopped and continues.

    python docs/images/make_pictures.py            # both, into docs/images; about 30 seconds

The first is drawn from numbers that stand here. The second is a recording: the commands are run, and what they print is
drawn by `rich`, so it needs the package installed in the Python that runs this.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).parent
LENGTHS = (7, 2, 5, 3, 9, 4, 6, 2)
"""Steps of the rows that are drawn."""
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888", "#ee8866")
STEP, GAP, LANES = 13, 22, 3
STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #222; }
  .small { font-size: 11px; fill: #555; }
  .arrow { stroke: #555; stroke-width: 1.5; fill: none; marker-end: url(#head); }
  #head path { fill: #555; }
  .lane { fill: none; stroke: #999; }
  @media (prefers-color-scheme: dark) {
    text { fill: #eee; }
    .small, #head path { fill: #bbb; }
    .arrow { stroke: #bbb; }
    .lane { stroke: #777; }
  }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0,0 L8,4 L0,8 z"/></marker></defs>"""


def lanes_of(lengths: tuple[int, ...], lanes: int) -> list[list[int]]:
    """Which rows each lane takes, one after the other: a lane that is free takes the next row."""
    taken: list[list[int]] = [[] for _ in range(lanes)]
    for row in range(len(lengths)):
        free = min(range(lanes), key=lambda lane: sum(lengths[of] for of in taken[lane]))
        taken[free].append(row)
    return taken


def steps_of(row: int, x: float, y: float) -> str:
    """The steps of a row, as squares in its colour."""
    return "".join(
        f'<rect x="{x + nth * STEP}" y="{y}" width="{STEP - 1}" height="{STEP + 1}" fill="{COLOURS[row]}"/>'
        for nth in range(LENGTHS[row])
    )


def picture() -> str:
    """Rows of unequal length, the lanes that compute them, and the column of features."""
    parts = ['<text x="10" y="22">A row is a sequence of steps</text>']
    for row in range(len(LENGTHS)):
        parts.append(
            steps_of(row, 28, 36 + row * GAP) + f'<text class="small" x="10" y="{47 + row * GAP}">{row}</text>'
        )
    parts.append('<path class="arrow" d="M165,120 H235"/>')
    parts.append('<text x="250" y="52">Lanes compute the rows</text>')
    for lane, rows in enumerate(lanes_of(LENGTHS, LANES)):
        x, y = 250, 66 + lane * 36
        parts.append(f'<rect class="lane" x="{x - 3}" y="{y - 4}" width="{15 * STEP + 5}" height="{STEP + 9}" rx="3"/>')
        for row in rows:
            parts.append(steps_of(row, x, y))
            x += LENGTHS[row] * STEP
    parts.append('<text class="small" x="250" y="190">A lane that is free takes the next row:</text>')
    parts.append('<text class="small" x="250" y="206">no padding, whatever the lengths.</text>')
    parts.append('<path class="arrow" d="M460,120 H518"/>')
    parts.append('<text x="530" y="22">One vector for each, in the same order</text>')
    for row in range(len(LENGTHS)):
        y = 36 + row * GAP
        parts.append(f'<text class="small" x="530" y="{y + 11}">{row}</text>')
        for nth in range(8):
            strength = 0.25 + 0.75 * ((row * 37 + nth * 53) % 11) / 10
            at = f'x="{548 + nth * 18}" y="{y}" width="17" height="{STEP + 1}"'
            parts.append(f'<rect {at} fill="{COLOURS[row]}" fill-opacity="{strength:.2f}"/>')
    size = 'width="800" height="220" viewBox="0 0 800 220"'
    title = "Rows of unequal length are computed side by side in lanes; each gives one feature vector."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">\n{STYLE}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def run(command: str, folder: Path, interrupt_after: float | None = None) -> str:
    """What a command prints in a terminal that is none; interrupted, as Ctrl-C would, after so many seconds."""
    own = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "88"}
    process = subprocess.Popen(
        command.split(), cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if interrupt_after is not None:
        committed = folder / "features" / "part-00002.parquet"
        for _ in range(int(interrupt_after * 100)):
            if committed.exists() or process.poll() is not None:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    return said


def recording() -> str:
    """A job that is stopped by Ctrl-C, its status, and the same command once more."""
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        run("scanrnn demo --rows 120000 --folder made", folder)
        (folder / "made" / "recordings").rename(folder / "recordings")
        command = "scanrnn featurize recordings features --hidden 128 --rows-per-part 2000"
        console = Console(record=True, width=92, file=open(os.devnull, "w"))  # noqa: SIM115  # as long as the process
        for asked, seconds in ((command, 60), ("scanrnn status features", None), (command, None)):
            console.print(Text("$ ", "bold green") + Text(asked, "bold"))
            said = run(asked, folder, interrupt_after=seconds).replace(str(folder), "/data")
            console.print(Text(said.rstrip()))
        return console.export_svg(title="a job that is stopped, and continues")


def main() -> None:
    """Write both."""
    (FOLDER / "rows-to-features.svg").write_text(picture())
    (FOLDER / "stopped.svg").write_text(recording())


if __name__ == "__main__":
    main()
