"""Benchmarks: one harness, one command each; every number in the documentation names the one that made it."""

import os

from scanrnn_dist.allocator import allocator_of_jobs

os.environ.update(allocator_of_jobs())  # as of commands; before pyarrow is imported
