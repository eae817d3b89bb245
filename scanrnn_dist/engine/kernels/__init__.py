"""What one device does with rows: the scan of the specification, compiled by XLA, or a kernel made for the device.

`scan.py` is a function of one device's arrays, which `program.py` puts on all devices: for any cell on any device. The
native kernel is for usual cells on a CPU: `library.py` loads it, `network.py` says which encoders it takes and lays out
their weights, and its source stands in `native/cpp/`.
"""

from scanrnn_dist.engine.kernels.library import TARGET, loaded, native_library, not_to_be_had
from scanrnn_dist.engine.kernels.network import network_of, why_not
from scanrnn_dist.engine.kernels.scan import device_scan
