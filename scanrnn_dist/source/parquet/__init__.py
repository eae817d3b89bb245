"""TODO source.parquet."""

from scanrnn_dist.source.parquet.checked_file import CheckedFile
from scanrnn_dist.source.parquet.footer import Footer

__all__ = [
    "CheckedFile",
    "Footer",
]
