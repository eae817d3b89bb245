"""TODO faithfulness."""

from scanrnn_dist.faithfulness.judge import Judge

__all__ = [
    "Judge",
]
