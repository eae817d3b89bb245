"""The command line, `scanrnn`: flags in, one of the doors asked, results printed, an exit code out."""

from scanrnn_dist.cli.app import main, run
from scanrnn_dist.cli.process import start_devices
