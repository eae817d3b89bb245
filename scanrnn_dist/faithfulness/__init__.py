"""Whether features are as near to the truth as the specification's own: both are held against float64."""

from scanrnn_dist.faithfulness.judge import Judge
