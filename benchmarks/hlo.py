"""What an optimised XLA program holds, read from its text: its loops, what runs in them, what moves and what talks.

The text is that of `jax.stages.Compiled.as_text()`. Nothing is run. `aot.py` asks for it. Not seen: what a fusion does
inside, so a transpose that XLA fused with arithmetic is no relayout here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import nan, prod

COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "ragged-all-to-all", "collective-permute", "collective-broadcast",
    "reduce-scatter", "send", "recv",
)  # fmt: skip
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "while", "call"}
"""What starts nothing on a device; loops and calls are counted by what is in them. What ends in `-done` only waits."""
MOVES = {"copy", "copy-start", "transpose"}
ITEM_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclass(frozen=True)
class Instruction:
    """One line: what it gives, and what from."""

    name: str
    result: str
    opcode: str
    rest: str

    @property
    def result_bytes(self) -> int:
        """Of the first array that it gives."""
        found = _ARRAY.search(self.result)
        if found is None:
            return 0
        return ITEM_BYTES.get(found[1], 4) * prod(int(size) for size in found[2].split(",") if size)

    @property
    def layout(self) -> str:
        """The order of the axes in memory of the first array that it gives, tiles left out."""
        found = _ARRAY.search(self.result)
        return "" if found is None else found[3] or ""

    @property
    def operands(self) -> list[str]:
        """Names of what it is made from."""
        return re.findall(r"%([\w.\-]+)", self.rest.split("), ")[0])

    def called(self, attribute: str) -> str:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.rest)
        return "" if found is None else found[1]


@dataclass(frozen=True)
class Program:
    """Computations by name, the entry's name, and the loops that hold one another."""

    computations: dict[str, list[Instruction]] = field(default_factory=dict)
    entry: str = ""

    def collectives(self) -> list[str]:
        """Opcodes of what makes devices wait for one another, wherever it stands."""
        names = {instruction.opcode for body in self.computations.values() for instruction in body}
        return sorted(name for name in names if name.removesuffix("-start").removesuffix("-done") in COLLECTIVES)

    def loops(self, computation: str | None = None) -> list[Instruction]:
        """The `while` instructions of a computation, the entry by default, and of what it calls."""
        return [each for each in self.scheduled(computation or self.entry) if each.opcode == "while"]

    def all_loops(self) -> list[Instruction]:
        """The `while` instructions of all computations."""
        return [each for body in self.computations.values() for each in body if each.opcode == "while"]

    def trips(self, loop: Instruction) -> int | None:
        """How often a loop runs, if the program says: by XLA's own note, or by a constant in the loop's condition."""
        if noted := _TRIPS.search(loop.rest):
            return int(noted[1])
        condition = self.computations[loop.called("condition")]
        by_name = {each.name: each for each in condition}
        for each in condition:
            if each.opcode == "compare" and "direction=LT" in each.rest:
                bounds = [by_name[name] for name in each.operands if by_name[name].opcode == "constant"]
                return int(bounds[0].rest.split(")")[0]) if bounds else None
        return None

    def scheduled(self, computation: str) -> Iterator[Instruction]:
        """What a run of a computation goes through, calls included, without what is in its loops."""
        for each in self.computations[computation]:
            yield each
            if each.opcode == "call":
                yield from self.scheduled(each.called("to_apply"))

    def launched(self, computation: str) -> float:
        """What a run of a computation starts on the device, loops within it by their trips; NaN if one has none."""
        total = 0.0
        for each in self.scheduled(computation):
            if each.opcode == "while":
                total += (self.trips(each) or nan) * self.launched(each.called("body"))
            elif each.opcode not in FREE and not each.opcode.endswith("-done"):
                total += 1
        return total

    def cycles(self, computation: str) -> float:
        """What the compiler thinks that a run of a computation takes; 0 where it says nothing, as for GPUs."""
        total = 0.0
        for each in self.scheduled(computation):
            if each.opcode == "while":
                total += (self.trips(each) or nan) * self.cycles(each.called("body"))
            elif noted := _CYCLES.search(each.rest):
                total += int(noted[1])
        return total

    def relayouts(self, computation: str, least_bytes: int = 1 << 16) -> list[Instruction]:
        """Copies and transposes that change the order of axes, of at least so many bytes; in its loops not."""
        by_name = {each.name: each for body in self.computations.values() for each in body}
        return [
            each
            for each in self.scheduled(computation)
            if each.opcode in MOVES and each.result_bytes >= least_bytes
            if each.opcode == "transpose" or by_name[each.operands[0]].layout != each.layout
        ]


def read_program(text: str) -> Program:
    """The program of a text."""
    computations: dict[str, list[Instruction]] = {}
    entry, body = "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            body = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line == "}":
            body = None
        elif body is not None and (found := _INSTRUCTION.match(line)):
            body.append(Instruction(*found.groups()))
    return Program(computations, entry)
