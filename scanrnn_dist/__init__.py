"""scanrnn_dist: one feature vector per sequence, from Parquet data sets, by a recurrent network on all devices.

    import scanrnn_dist as srd

The public names are loaded when they are first used, so that importing this package costs nothing and starts no device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scanrnn_dist.api import BatchFeaturizer, encode, featurize, update, verify
    from scanrnn_dist.encoder import Encoder
    from scanrnn_dist.engine import Engine, default_mesh, profile
    from scanrnn_dist.errors import (
        ConfigError,
        DataError,
        LayoutError,
        ScanRNNError,
        StoppedError,
        UndoneError,
        UnreadableError,
    )
    from scanrnn_dist.input_spec import InputSpec
    from scanrnn_dist.job import JobReport, Sharing, export, quarantined
    from scanrnn_dist.launch import ProcessExecutor, RayExecutor, share_of
    from scanrnn_dist.protocols import WindowShape
    from scanrnn_dist.ragged import Ragged
    from scanrnn_dist.records import Output
    from scanrnn_dist.source import BadRows, Layout, register_layout
    from scanrnn_dist.spec import scan_rnn_forward

__version__ = "0.1.0"

_MODULE_OF = {
    "BadRows": "source",
    "BatchFeaturizer": "api",
    "ConfigError": "errors",
    "DataError": "errors",
    "Encoder": "encoder",
    "Engine": "engine",
    "InputSpec": "input_spec",
    "JobReport": "job",
    "Layout": "source",
    "LayoutError": "errors",
    "Output": "records",
    "ProcessExecutor": "launch",
    "Ragged": "ragged",
    "RayExecutor": "launch",
    "ScanRNNError": "errors",
    "Sharing": "job",
    "StoppedError": "errors",
    "UndoneError": "errors",
    "UnreadableError": "errors",
    "WindowShape": "protocols",
    "default_mesh": "engine",
    "encode": "api",
    "export": "job",
    "featurize": "api",
    "profile": "engine",
    "quarantined": "job",
    "register_layout": "source",
    "scan_rnn_forward": "spec",
    "share_of": "launch",
    "update": "api",
    "verify": "api",
}

_MODULES = {"encoder", "errors", "input_spec", "ray", "sklearn", "source", "weights"}
"""Of the documentation, for whoever names them without importing them."""

__all__ = [
    "BadRows",
    "BatchFeaturizer",
    "ConfigError",
    "DataError",
    "Encoder",
    "Engine",
    "InputSpec",
    "JobReport",
    "Layout",
    "LayoutError",
    "Output",
    "ProcessExecutor",
    "Ragged",
    "RayExecutor",
    "ScanRNNError",
    "Sharing",
    "StoppedError",
    "UndoneError",
    "UnreadableError",
    "WindowShape",
    "default_mesh",
    "encode",
    "export",
    "featurize",
    "profile",
    "quarantined",
    "register_layout",
    "scan_rnn_forward",
    "share_of",
    "update",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scanrnn_dist.errors import check_platform

    check_platform()
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not; `sklearn` only where it can be loaded, since `help` loads them all."""
    from importlib.util import find_spec

    missing = set() if find_spec("sklearn") else {"sklearn"}
    return sorted({*__all__, *_MODULES, "__version__"} - missing)
