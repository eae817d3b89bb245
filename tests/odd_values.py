"""Values that Parquet and Arrow hold and Python does not: of each kind two different ones, then a null."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

YEAR_10000 = 253402300800
"""In seconds since 1970."""
FAR = (YEAR_10000 - 1, YEAR_10000, -(2**62), 2**60, -(2**63))


def stored(numbers: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    """Times, dates or durations by the integers that are stored."""
    return pa.array(numbers, pa.int64() if kind.bit_width == 64 else pa.int32()).view(kind)


def texts(values: Sequence[bytes | None]) -> pa.Array:
    """Texts of any bytes."""
    return pa.array(values, pa.binary()).view(pa.string())


_TEXTS = texts([b"\xff\xfe", b"\xfe\xff", None])

ODD = {
    "text": _TEXTS,
    "large text": _TEXTS.cast(pa.large_string()),
    "view of text": _TEXTS.cast(pa.string_view()),
    "dictionary of texts": pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), _TEXTS[:2]),
    "unknown zone": stored([5, 6, None], pa.timestamp("us", "Foo/Bar")),
    "year 10000 of a zone": stored([YEAR_10000 - 1, 0, None], pa.timestamp("s", "Asia/Tokyo")),
    "year 10000": stored([YEAR_10000 + 9, 0, None], pa.timestamp("s")),
    "before the years": stored([-(2**62), 0, None], pa.timestamp("us")),
    "far date": stored([5_000_000, 0, None], pa.date32()),
    "far date in milliseconds": stored([YEAR_10000 * 1000, 0, None], pa.date64()),
    "long duration": stored([2**60, 0, None], pa.duration("s")),
    "nanoseconds": stored([5, 6, None], pa.timestamp("ns")),
    "nanoseconds of a day": stored([5, 6, None], pa.time64("ns")),
    "no time for numpy": stored([-(2**63), 0, None], pa.timestamp("us")),
}
SOME = [
    "text",
    "view of text",
    "unknown zone",
    "year 10000 of a zone",
    "far date",
    "long duration",
    "no time for numpy",
]
"""For tests that write them, one of each cause."""
