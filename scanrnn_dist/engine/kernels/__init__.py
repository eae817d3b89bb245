"""What one device does with a window: the scan of the specification, or what a device kind wants instead of it.

Each kernel is a function of one device's arrays; `program.py` puts it on all devices.
"""

from scanrnn_dist.engine.kernels.scan import device_scan
