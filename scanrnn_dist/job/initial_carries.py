"""The initial carries that rows bring of their own: which kept column may hold them, and how they are read.

A job reads them where its rows meet the engine (`in_order.py`). Who foresees or verifies a job, or computes batches
that another engine hands over, reads them here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.source import fixed_lists, is_fixed_lists


def own_carries(
    kept: pa.RecordBatch,
    options: JobOptions,
    carry_features: int,
    where: Callable[[int], str],
    left_out: np.ndarray | None = None,
) -> np.ndarray | None:
    """What each of `n` rows begins from, `(n, carry_features)` float32; None where rows bring no carry.

    Args:
        kept: the kept columns of the rows.
        options: of the job.
        carry_features: numbers of a carry.
        where: says where a row stands.
        left_out: `(n,)` bool, the rows whose features are null. They need no carry, and get zeros; None for none.

    Raises:
        DataError: a carry that is null, or not so many finite numbers, or one that float32 does not hold.
    """
    if options.initial_carry is None:
        return None
    return fixed_lists(
        kept, options.initial_carry, carry_features, lossy_cast=options.lossy_cast, where=where, left_out=left_out
    )


def check_own_carries(column: str, schema: pa.Schema, keep: Sequence[str]) -> None:
    """Raise a `ConfigError` if the column of the initial carries is not kept, or no column of lists of numbers."""
    if column not in keep:
        raise ConfigError(f"The initial carries' column {column!r} is not kept; expected one of {keep}.")
    field = schema.field(column)
    if not is_fixed_lists(field):
        raise ConfigError(
            f"The initial carries' column {column!r} is {field.type}; expected a list of numbers per row. Choose "
            "another with --initial-carry."
        )
