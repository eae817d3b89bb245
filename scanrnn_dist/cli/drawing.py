"""Tables and bars for a terminal: as wide as it is, and of plain letters where it shows no others."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from scanrnn_dist.errors import one_line

NARROWEST, WIDEST = 40, 120
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def terminal_width() -> int:
    """Letters of a line: as many as the terminal has, 80 where there is none."""
    return min(WIDEST, max(NARROWEST, shutil.get_terminal_size().columns))


def shows(text: str) -> bool:
    """Whether standard output can say a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")  # there is none where it was closed at the start
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def bar(share: float, width: int, plain: bool = False) -> str:
    """A bar that fills a share of so many letters; the least that is more than nothing is seen.

    Example:
        >>> bar(0.5, 5), bar(0.5, 5, plain=True), bar(0.0, 5), bar(1e-9, 5)
        ('██▌', '##', '', '▏')
    """
    if share <= 0:
        return ""
    if plain:
        return "#" * max(1, round(share * width))
    eighths = max(1, round(share * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        head: its name.
        cells: its texts.
        is_text: whether it stands to the left, and is cut where there is no room; numbers stand to the right, whole.
        matters: the columns that matter least are left out where there is no room.
    """

    head: str
    cells: Sequence[str]
    is_text: bool = False
    matters: int = 9

    @property
    def width(self) -> int:
        """Letters of its longest text."""
        return max(map(len, [self.head, *self.cells]))


def table(columns: Sequence[Column], width: int, indent: int = 2) -> list[str]:
    """The lines of a table that is at most so wide: texts are cut down to 12 letters, then columns are left out."""
    columns = list(columns)
    while True:
        room = width - indent - 2 * (len(columns) - 1) - sum(it.width for it in columns)
        if room >= 0:
            widths = [it.width for it in columns]
            break
        shrinks = [max(0, it.width - max(12, len(it.head))) if it.is_text else 0 for it in columns]
        if sum(shrinks) + room >= 0:
            widths = _shrunk([it.width for it in columns], shrinks, -room)
            break
        least = min(columns[1:], key=lambda it: it.matters, default=None)
        if least is None:
            widths = [width - indent]
            break
        columns.remove(least)
    lines = []
    for row in zip(*([it.head, *it.cells] for it in columns), strict=True):
        cells = [
            shortened(cell, size).ljust(size) if it.is_text else cell.rjust(size)
            for cell, it, size in zip(row, columns, widths, strict=True)
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def _shrunk(widths: list[int], shrinks: list[int], by: int) -> list[int]:
    """Widths of which those that can shrink lose so many letters together, the widest first."""
    for _ in range(by):
        widest = max((i for i, left in enumerate(shrinks) if left), key=lambda i: widths[i])
        widths[widest], shrinks[widest] = widths[widest] - 1, shrinks[widest] - 1
    return widths


def shortened(text: str, letters: int) -> str:
    """A text as one line of at most so many letters.

    Example:
        >>> shortened("a long name", 8), shortened("short", 8)
        ('a lon...', 'short')
    """
    text = one_line(text)
    return text if len(text) <= letters else f"{text[: max(1, letters - 3)]}..."[:letters]


def folded(text: str, width: int, first: str = "", indent: int = 2) -> list[str]:
    """A text in lines of at most so many letters, `first` before it, the others moved to the right."""
    import textwrap

    return textwrap.wrap(
        one_line(text), width, initial_indent=first, subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
