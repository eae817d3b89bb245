"""Values of an Arrow array as float32: which types become numbers, the cast, and what it may lose.

Whatever the layout: what is done with a value that is missing or not finite is `taking.py`'s.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from scanrnn_dist.ragged import first_inexact
from scanrnn_dist.source.layouts.layout import Steps
from scanrnn_dist.source.layouts.lists import null_places


def float32_of(steps: Steps, in_features: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, str] | None]:
    """The values of all steps as float32, a view of Arrow's buffer where they are float32 already.

    Returns:
        The values `(S, in_features)`, NaN where one is missing; the places in their flat order where one is missing,
        sorted; and of the first number that float32 does not hold exactly its step, feature and what it would become,
        None if there is none.
    """
    if isinstance(steps.values, pa.Array):
        values, nulls, inexact = _cast(steps.values)
        place = None if inexact is None else (*divmod(inexact[0], in_features), inexact[1])
        return values.reshape(-1, in_features), nulls, place
    count = int(steps.offsets[-1])
    values, first = np.empty((count, in_features), np.float32), None
    places = [np.zeros(0, np.int64)]
    for feature, array in enumerate(steps.values):
        values[:, feature], missing, inexact = _cast(array)
        places.append(missing * in_features + feature)
        if inexact is not None and (first is None or inexact[0] < first[0]):
            first = inexact[0], feature, inexact[1]
    return values, np.sort(np.concatenate(places)), first


def _cast(array: pa.Array) -> tuple[np.ndarray, np.ndarray, tuple[int, str] | None]:
    """An array as float32, where nulls stand (and NaN is given), and the first number that is not held exactly."""
    nulls = null_places(array)
    numbers = (array.fill_null(0) if len(nulls) else array).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # an overflow is an infinity, which is found later, with its row
        values = numbers.astype(np.float32, copy=False)
    inexact = first_inexact(numbers, values)
    if len(nulls):
        values = values.copy() if values is numbers else values
        values[nulls] = np.nan
    if inexact is None:
        return values, nulls, None
    return values, nulls, (inexact, f"{numbers.dtype} value {numbers[inexact]} would become {values[inexact]}")
