"""Do the kept columns go with the other options of a job? Judged by names and types, before a row is read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job.initial_carries import check_own_carries
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.source import Layout, is_comparable


def check_keeps(options: JobOptions, schema: pa.Schema, layout: Layout, keep: Sequence[str]) -> None:
    """Raise a `ConfigError` if kept columns of a source with this schema and layout do not go with the options."""
    if layout.ids:
        _check_one_of_each(schema, layout, keep)
    if options.initial_carry is not None:
        check_own_carries(options.initial_carry, schema, keep)
    if missing := [name for name in options.ids or () if name not in keep]:
        raise ConfigError(f"--ids names {missing[0]!r}, which is no kept column; expected some of {list(keep)}.")
    options.output.check_keeps(keep)


def _check_one_of_each(schema: pa.Schema, layout: Layout, keep: Sequence[str]) -> None:
    """Refuse columns of events of which nobody can tell whether a sequence has one value."""
    for name in keep:
        kind = schema.field(name).type
        if not is_comparable(kind):
            raise ConfigError(
                f"--keep: column {name!r} is {kind}; expected numbers, text, times or bytes, of which each sequence "
                "has one value. Leave it out of --keep."
            )
