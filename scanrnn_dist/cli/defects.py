"""What a person reads where the package itself is wrong: one paragraph, and a file for whoever mends it."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version

from scanrnn_dist.cli.printing import print_error
from scanrnn_dist.errors import ScanRNNError, one_line

PACKAGES = ("scanrnn_dist", "jax", "jaxlib", "flax", "numpy", "pyarrow", "typer")


def tell_defect(error: BaseException, command: str, rest: str) -> int:
    """Print what happened and what to do; the traceback goes to a file, with versions and devices and no data.

    Args:
        error: what was raised.
        command: the name of the command; its words may name files, so they are left out.
        rest: what the command left, and what to do.
    """
    said = one_line("".join(traceback.format_exception_only(error)))
    told = f"This is a defect of scanrnn_dist, not of your data or your command: {said}."
    try:
        with tempfile.NamedTemporaryFile(prefix="scanrnn-defect-", suffix=".txt", delete=False) as file:
            file.write(report_of(error, command).encode(errors="backslashreplace"))
        told += f" The traceback, versions and devices are in {file.name}; please report it with that file."
    except OSError:
        traceback.print_exception(error)
    return print_error(ScanRNNError(f"{told} {rest}"))


def report_of(error: BaseException, command: str) -> str:
    """What a report of the defect needs: the command's name, versions, devices, the traceback."""
    lines = [f"scanrnn {command}", f"Python {sys.version}", platform.platform(), f"{os.cpu_count()} cores"]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed as a package")
    if "jax" in sys.modules:  # else asking would start it
        lines += [f"{key} {value}" for key, value in _devices()]
    return "\n".join([*lines, "", *traceback.format_exception(error)])


def _devices() -> list[tuple[str, object]]:
    jax = sys.modules["jax"]
    try:
        kinds = sorted({device.device_kind for device in jax.local_devices()})
        return [("devices", jax.local_device_count()), ("kinds of device", kinds)]
    except (RuntimeError, AttributeError) as error:  # it did not start, or was being imported
        return [("devices", error)]
