"""Values of an Arrow array as float32: which types become numbers, the cast, and what it may lose.

Booleans are 0 and 1; times, dates and durations are numbers in the unit of their type, from 1970 or midnight on where
they are no durations. Whatever the layout: what is done with a value that is missing or not finite is `taking.py`'s.

Measured with 96 MB of float32, 16 features a step, 50 steps a row, in batches of 5,000 rows on one core; milliseconds
of pyarrow's decoding, and of taking the rows apart and checking them: nested lists 114 and 10, flat lists 76 and 5, a
list column per feature 75 and 30 (half of them int64: 90 and 62), lists of structs 84 and 40, structs of lists 85 and
40, tensors 127 and 10, transposed ones 73 and 190. Six million decimal128 take 365 and 276.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import LayoutError
from scanrnn_dist.native import copy_side_by_side
from scanrnn_dist.ragged import first_inexact
from scanrnn_dist.source.layouts.decimals import decimal_numbers
from scanrnn_dist.source.layouts.layout import Steps
from scanrnn_dist.source.layouts.lists import NO_PLACES, null_places, storage
from scanrnn_dist.source.layouts.types import is_number, is_string
from scanrnn_dist.source.layouts.values import as_integers, in_words

_BLOCK_VALUES, _LEAST_BLOCK_STEPS = 65_536, 2048
"""Values that numpy puts side by side at a time, so that they stay in the cache, and steps of these at least: 100 MB in
chunks of 2 MB take 6.9 ms of 2 columns, 12.9 of 16 and 18.3 of 64; in blocks of 16,384 steps 7.3, 14.3 and 18.7."""
Inexact = tuple[int, str]
EXPECTED_EXACT = (
    "expected a value that float32 holds exactly. Allow rounding with --lossy-cast / lossy_cast=True (an update does "
    "as its output was made), or write these numbers as float32 first"
)
"""What is said after such a number."""


def float32_of(steps: Steps, in_features: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, str] | None]:
    """The values of all steps as float32, a view of Arrow's buffer where they are float32 already.

    Returns:
        The values `(S, in_features)`, NaN where one is missing; the places in their flat order where one is missing,
        sorted; and of the first number that float32 does not hold exactly its step, feature and what it would become,
        None if there is none.

    Raises:
        LayoutError: values that are no numbers; its message begins after the place.
    """
    if isinstance(steps.values, pa.Array):
        values, nulls, inexact = as_float32(steps.values, steps.names[0] if steps.names else "")
        place = None if inexact is None else (*divmod(inexact[0], in_features), inexact[1])
        return values.reshape(-1, in_features), nulls, place
    names = steps.names or tuple(map(str, range(in_features)))
    cast = [as_float32(array, name) for array, name in zip(steps.values, names, strict=True)]
    values = side_by_side([column for column, _, _ in cast], int(steps.offsets[-1]))
    there = [missing * in_features + nth for nth, (_, missing, _) in enumerate(cast) if len(missing)]
    nulls = np.sort(np.concatenate(there)) if there else NO_PLACES
    inexact_ones = [(found[0], nth, found[1]) for nth, (_, _, found) in enumerate(cast) if found is not None]
    return values, nulls, min(inexact_ones, default=None)


def side_by_side(columns: Sequence[np.ndarray], count: int) -> np.ndarray:
    """`D` arrays `(count,)` as one `(count, D)` float32: by the package's library, or where there is none by numpy."""
    values = np.empty((count, len(columns)), np.float32)
    columns = [np.ascontiguousarray(column, np.float32) for column in columns]
    if copy_side_by_side(columns, values):
        return values
    steps = max(_LEAST_BLOCK_STEPS, _BLOCK_VALUES // len(columns))
    for begin in range(0, count, steps):
        block = values[begin : begin + steps]
        for nth, column in enumerate(columns):
            block[:, nth] = column[begin : begin + steps]
    return values


def as_float32(array: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray, Inexact | None]:
    """An array as float32, where nulls stand (and NaN is given), and the first number that is not held exactly.

    Of that its place, and what it is and would become. `name` is the array's, for messages.
    """
    if isinstance(array, pa.FloatArray) and not array.null_count:
        return array.to_numpy(), NO_PLACES, None  # 0.5 us instead of 10, of which there may be one for each feature
    array = _decoded(array, name)
    nulls = null_places(array)
    if len(nulls) == len(array):
        return np.full(len(array), np.nan, np.float32), nulls, None
    if pa.types.is_decimal(array.type):
        values, is_exact = decimal_numbers(array)
        is_exact[nulls] = True
        numbers, inexact = values, (None if is_exact.all() else int(is_exact.argmin()))
    else:
        plain = as_integers(array)
        zero = False if pa.types.is_boolean(plain.type) else 0
        numbers = (plain.fill_null(zero) if len(nulls) else plain).to_numpy(zero_copy_only=False)
        values = _rounded(numbers)
        inexact = first_inexact(numbers, values)
    if len(nulls):
        values = values.copy() if values is numbers else values
        values[nulls] = np.nan
    if inexact is None:
        return values, nulls, None
    return values, nulls, (inexact, f"{_told(array, numbers, inexact)} would become {values[inexact]}")


def _decoded(array: pa.Array, name: str) -> pa.Array:
    """Values without the dictionary that they may stand in; refuses those that are no numbers."""
    array = storage(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not is_number(array.type) and not pa.types.is_null(array.type):
        raise LayoutError(no_number(name, array.type))
    return array


def no_number(name: str, type: pa.DataType) -> str:
    """What is said of a feature whose values are no numbers."""
    what = "texts" if is_string(type) else f"values of the type {type}"
    return (
        f"{name!r} holds {what}, which are no numbers; expected numbers, or an input specification that says what the "
        "texts stand for. Leave it out, or make numbers of it."
    )


def _rounded(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow is an infinity, which is found later, with its row
        return numbers.astype(np.float32, copy=False)


def _told(array: pa.Array, numbers: np.ndarray, place: int) -> str:
    """A number as it stands in the source."""
    if pa.types.is_decimal(array.type):
        return f"{array.type} value {in_words(array, place)}"
    if pa.types.is_temporal(array.type):
        differences = "an input specification can take differences between steps instead"
        return f"{array.type} value {numbers[place]} ({differences})"
    return f"{numbers.dtype} value {numbers[place]}"
