"""TODO observe."""

from scanrnn_dist.observe.memory import check_fits, in_mib, usable_bytes
from scanrnn_dist.observe.progress import rows_progress, seconds_left

__all__ = [
    "check_fits",
    "in_mib",
    "rows_progress",
    "seconds_left",
    "usable_bytes",
]
