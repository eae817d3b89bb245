"""The package's library of C++, which the build makes where a compiler is: whether it is there, and copying by it.

Its sources stand in `cpp/`. The kernel is the greater part of it; `engine/kernels/` tells JAX of that.
"""

from scanrnn_dist.native.library import Opened, copy_side_by_side, opened
