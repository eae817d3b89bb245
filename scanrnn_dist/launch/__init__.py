"""Who runs which share of a job where: what schedulers and `jax.distributed` tell."""

from scanrnn_dist.launch.which_share import share_of
