"""TODO launch."""

from scanrnn_dist.launch.which_share import share_of

__all__ = [
    "share_of",
]
