"""Who works where: the shares that schedulers tell of, and executors that hand units to processes and to Ray."""

from scanrnn_dist.launch.processes import ProcessExecutor, visible_gpus
from scanrnn_dist.launch.ray import RayExecutor
from scanrnn_dist.launch.which_share import share_of
