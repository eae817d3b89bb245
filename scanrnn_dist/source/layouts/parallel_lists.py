"""One list for each feature, side by side: all lists of a row have the same length. Where they stand says a layout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.source.layouts.layout import Fault, Steps
from scanrnn_dist.source.layouts.lists import alike_taken_apart, null_places, storage, without_rows
from scanrnn_dist.source.layouts.nested_lists import NULL_SEQUENCE
from scanrnn_dist.source.layouts.types import list_value, shortened


def parallel_steps(arrays: Sequence[pa.Array], names: Sequence[str]) -> Steps:
    """Rows of which each has one list for each feature, as `Layout.steps` takes them apart.

    Args:
        arrays: `D` arrays of `N` lists of values.
        names: of the features.
    """
    known = None  # of most sources all are of one type
    for name, array in zip(names, arrays, strict=True):
        if array.type != known and list_value(known := array.type) is None:
            raise LayoutError(f"{name!r} is {shortened(str(array.type))}; expected a list of numbers for each row.")
    stored = [storage(array) for array in arrays]
    lists = alike_taken_apart(stored)
    offsets = lists[0][0]
    faults = _nulls(stored, names) if any(array.null_count for array in stored) else []
    if any(other is not offsets and not np.array_equal(other, offsets) for other, _ in lists[1:]):
        faults += _unequal(np.stack([np.diff(own) for own, _ in lists]), names, {fault.row for fault in faults})
    rows = np.array([fault.row for fault in faults], np.int64)
    if not len(rows):
        return Steps(offsets, tuple(values for _, values in lists), len(names), names=tuple(names))
    parts = [(without_rows(own, rows), values) for own, values in lists]
    values = tuple(values.take(pa.array(kept)) for (_, kept), values in parts)
    return Steps(parts[0][0][0], values, len(names), tuple(sorted(faults)), tuple(names))


def _nulls(arrays: Sequence[pa.Array], names: Sequence[str]) -> list[Fault]:
    """The rows of which some list is null."""
    missing: dict[int, list[str]] = {}
    for name, array in zip(names, arrays, strict=True):
        for row in null_places(array):
            missing.setdefault(int(row), []).append(name)
    return [Fault(row, "null_sequence", _null(absent, len(names))) for row, absent in missing.items()]


def _null(absent: Sequence[str], count: int) -> str:
    if len(absent) == count:
        return NULL_SEQUENCE
    more = f" (and of {len(absent) - 1} more features)" if len(absent) > 1 else ""
    return (
        f"the list of {absent[0]!r}{more} is null, and others are not; expected a list for every feature. Drop such "
        "rows, or store lists of equal lengths."
    )


def _unequal(lengths: np.ndarray, names: Sequence[str], known: set[int]) -> list[Fault]:
    """The rows whose lists have several lengths, `(D, N)`, but for those that are known to be at fault."""
    differs = lengths != lengths[0]
    faults = []
    for row in np.flatnonzero(differs.any(axis=0)):
        other = int(differs[:, row].argmax())
        if int(row) not in known:
            reason = (
                f"{names[0]!r} has {lengths[0, row]} values and {names[other]!r} has {lengths[other, row]}; expected "
                "lists of equal lengths. Correct the row."
            )
            faults.append(Fault(int(row), "unequal_lengths", reason))
    return faults
