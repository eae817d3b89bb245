"""Names and paths of all that stands at a destination; what is in them is told by who writes them.

    DST/__scanrnn/job.json                the job: an id, its configuration, hashes of the plan; made once, first
    DST/__scanrnn/files-HASH.table        the plan: files with size and time, units with row groups and rows
    DST/__scanrnn/units-HASH.table
    DST/__scanrnn/first-*-HASH.table      of an updated output: the plan of the source that it began with
    DST/__scanrnn/encoder.safetensors     the encoder, where its cell can be written to a file
    DST/__scanrnn/workers/                who is at work: see `workers.py`
    DST/__scanrnn/commits/ATTEMPT.jsonl   what an attempt began and committed: see `commit_log.py`
    DST/__scanrnn/quarantine/unit-N.rows  rows of a unit that were set aside, a Parquet file: see `quarantine.py`
    DST/__scanrnn/parts.table             every part with rows, bytes and hash; made when the last one stands
    DST/__scanrnn/aside/                  what is being written, and has no name yet
    DST/__scanrnn/restart/                a job that is to take this one's place: the same layout once more
    DST/__scanrnn/restart/__scanrnn/publishing.json    once it takes that place: what comes, and what stays
    DST/_SUCCESS                         appears last: totals, and the hash of parts.table

Some readers of Parquet data sets skip names that begin with `_`, others read all that `**/*.parquet` finds. So no file
but the parts ends in `.parquet`: the `.table` and `.rows` files are Parquet files too, and the parts of a restart end
in `.parquet.staged` until they take their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from scanrnn_dist.storage import RECORDS

TABLE = ".table"
"""The ending of a record that is a Parquet file."""
SUCCESS = "_SUCCESS"
JOB = f"{RECORDS}/job.json"
ENCODER = f"{RECORDS}/encoder.safetensors"
PARTS = f"{RECORDS}/parts{TABLE}"
RESTART = f"{RECORDS}/restart"
PUBLISHING = f"{RECORDS}/publishing.json"
WORKERS = f"{RECORDS}/workers"
COMMITS = f"{RECORDS}/commits"
QUARANTINE = f"{RECORDS}/quarantine"
CRASH = ".crash"
FILES, UNITS = f"files{TABLE}", f"units{TABLE}"
FIRST = "first-"
"""Before the names of records of a plan: those of what an updated output began with."""
PLAN = re.compile(rf"{RECORDS}/((?:{FIRST})?(?:files|units))-([0-9a-f]{{16}}){re.escape(TABLE)}")


def plan_name(record: str, hashes: Mapping[str, str]) -> str:
    """Where a record of the plan stands: under a name that tells its content, so that no two plans meet."""
    stem, _, ending = record.rpartition(".")
    return f"{RECORDS}/{stem}-{hashes[record][:16]}.{ending}"


def part_name(unit: int, units: int) -> str:
    """The file name of a unit's part; as many digits as sort the parts of all units.

    Example:
        >>> part_name(17, 640), part_name(17, 1_000_001)
        ('part-00017.parquet', 'part-0000017.parquet')
    """
    return part_names([unit], units)[0]


def part_names(numbers: Iterable[int], units: int) -> list[str]:
    """The same for many units."""
    digits = _digits(units)
    return [f"part-{number:0{digits}}.parquet" for number in numbers]


def quarantine_name(unit: int, units: int) -> str:
    """Where the rows of a unit that were set aside stand.

    Example:
        >>> quarantine_name(17, 640)
        '__scanrnn/quarantine/unit-00017.rows'
    """
    return f"{QUARANTINE}/unit-{unit:0{_digits(units)}}.rows"


def _digits(units: int) -> int:
    """So many digits sort the files of all units."""
    return max(5, len(str(units - 1)))


def unit_of_part(name: str, units: int) -> int | None:
    """The unit whose part has this name; None if it is the name of none.

    Example:
        >>> unit_of_part("part-00017.parquet", 640), unit_of_part("part-17.parquet", 640), unit_of_part("_SUCCESS", 640)
        (17, None, None)
    """
    number = name[len("part-") : -len(".parquet")]
    if not (number.isdecimal() and number.isascii() and int(number) < units):
        return None
    return int(number) if name == part_name(int(number), units) else None
