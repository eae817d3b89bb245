"""TODO source.layouts."""

from scanrnn_dist.source.layouts.column_types import foreign_extension
from scanrnn_dist.source.layouts.nested_lists import (
    Nonfinite,
    find_sequence_column,
    first_width,
    fixed_in_features,
    fixed_lists,
    to_ragged,
)

__all__ = [
    "Nonfinite",
    "find_sequence_column",
    "first_width",
    "fixed_in_features",
    "fixed_lists",
    "foreign_extension",
    "to_ragged",
]
