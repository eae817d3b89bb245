"""Numbers of an Arrow column as float32: the cast, what it may lose, and what is not finite.

Whatever the layout: who calls says which steps the numbers belong to, and in which rows these stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from scanrnn_dist.errors import DataError
from scanrnn_dist.ragged import Ragged, first_inexact

Nonfinite = Literal["error", "propagate"]


def ragged_of(
    numbers: np.ndarray,
    offsets: np.ndarray,
    in_features: int,
    *,
    lossy_cast: bool,
    nonfinite: Nonfinite,
    at: Callable[[int], str],
) -> Ragged:
    """Steps of `in_features` numbers each, cast to float32 and checked; a view where they are float32.

    `numbers` are `(S * D,)`, step after step; `offsets` `(N + 1,)` int64, where rows begin among the steps; `at` says
    where a step stands, by its number, for messages. The options are those of `to_ragged`.

    Raises:
        DataError: a number that float32 does not hold, a NaN or an infinity.
    """
    with np.errstate(over="ignore"):  # an overflow is an infinity, which is refused below, with its row
        values = numbers.astype(np.float32, copy=False)
    inexact = None if lossy_cast else first_inexact(numbers, values)
    if inexact is not None:
        raise DataError(
            f"{at(inexact // in_features)}: {numbers.dtype} value {numbers[inexact]} would become {values[inexact]}; "
            "expected a value that float32 holds exactly. Allow rounding with --lossy-cast / lossy_cast=True."
        )
    ragged = Ragged(values.reshape(-1, in_features), offsets)
    bad = ragged.first_nonfinite() if nonfinite == "error" else None
    if bad is not None:
        row, step = bad
        index = int(offsets[row]) + step
        feature = int(np.isfinite(ragged.values[index]).argmin())
        value = numbers[index * in_features + feature]
        became = f"{value} (too large for float32)" if np.isfinite(value) else f"{value}"
        raise DataError(
            f"{at(index)}: feature {feature} is {became}; expected a finite number. "
            "Clean the data: a recurrent cell would carry it through all later steps."
        )
    return ragged
