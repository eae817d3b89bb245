"""Do the kept columns go with the other options of a job? Judged by names and types, before a row is read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.own_carries import check_own_carries


def check_keeps(options: JobOptions, schema: pa.Schema, keep: Sequence[str]) -> None:
    """Raise a `ConfigError` if kept columns of a source with this schema do not go with the other options."""
    if options.initial_carry is not None:
        check_own_carries(options.initial_carry, schema, keep)
    options.output.check_keeps(keep)
