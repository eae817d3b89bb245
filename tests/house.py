"""The rooms of the package and who imports whom, read from the source; and the picture of them.

    python tests/house.py

prints the picture that stands in `docs/house.md`; `test_layout_rules.py` holds the laws, and that the picture is true.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "scanrnn_dist"

FLOORS = [
    ("__main__",),
    ("cli", "ray", "sklearn"),
    ("launch", "report"),
    ("api",),
    ("job",),
    ("records", "engine", "weights", "faithfulness"),
    ("source", "encoder"),
    ("storage", "observe", "spec"),
    ("protocols",),
    ("ragged", "input_spec", "draws", "threads", "kinds"),
    ("errors", "disk", "allocator", "native", "plain"),
]
"""The rooms, top floor first: imports run downwards only. A room is a folder, or a file that stands alone."""


def files() -> list[Path]:
    """All of the package but its own face, which loads every public name when it is first used."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def room_of(path: Path) -> str:
    """The room that a file stands in."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All that stands in a tree, but no expressions: most of it is those, and none of them imports."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from statements(child)


@cache
def imported(path: Path) -> frozenset[str]:
    """Every module or name that a file imports anywhere, as full dotted names."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; write the full name"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def rooms() -> set[str]:
    """The names of all rooms."""
    return {room_of(path) for path in files()}


@cache
def rooms_imported(room: str) -> frozenset[str]:
    """The other rooms that a room imports."""
    names = set().union(*(imported(path) for path in files() if room_of(path) == room))
    return frozenset({name.split(".")[1] for name in names if name.startswith("scanrnn_dist.")} & rooms() - {room})


@cache
def everything_below(room: str) -> frozenset[str]:
    """A room and all that it imports, directly or not."""
    reached, ahead = set[str](), {room}
    while ahead:
        reached |= ahead
        ahead = set().union(*map(rooms_imported, ahead)) - reached
    return frozenset(reached)


def outside_packages(some: frozenset[str] | set[str]) -> set[str]:
    """Top-level names of all that these rooms import."""
    return {name.split(".")[0] for path in files() if room_of(path) in some for name in imported(path)}


def picture() -> str:
    """The house as a Mermaid graph, one line a floor; an arrow that others imply is left out."""
    lines = ["flowchart TD"]
    for number, floor in enumerate(FLOORS):
        lines.append(f"  subgraph floor{len(FLOORS) - number - 1}[ ]")
        for room in floor:
            lines.append(f"    {room}")
        lines.append("  end")
    for floor in FLOORS:
        for room in floor:
            below = rooms_imported(room)
            implied = set().union(*(everything_below(other) - {other} for other in below))
            lines += [f"  {room} --> {other}" for other in sorted(below - implied)]
    return "\n".join(lines)


def purposes() -> str:
    """The rooms as a table, top floor first, each with the first sentence that it says of itself."""
    lines = ["| room | what it is for |", "|---|---|"]
    for room in (room for floor in FLOORS for room in floor):
        path = PACKAGE / room / "__init__.py"
        text = ast.get_docstring(ast.parse((path if path.exists() else PACKAGE / f"{room}.py").read_text())) or ""
        first = " ".join(text.split("\n\n")[0].split())
        lines.append(f"| `{room}` | {first.replace('|', '/')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"```mermaid\n{picture()}\n```\n\n{purposes()}")
