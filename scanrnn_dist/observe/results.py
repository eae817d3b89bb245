"""How a notebook shows what a call returned."""

from __future__ import annotations

from typing import Any


def as_text(result: Any, printer: Any, cycle: bool) -> None:
    """Show the text for people; for `_repr_pretty_` of a result's own class, which IPython prefers to its `repr`."""
    printer.text(str(result))
