"""The tuned settings of each opponent on each workload.

Made with `python -m benchmarks.tune`, which tries a grid around them, in turns, and prints the best.
"""

from __future__ import annotations

from benchmarks.opponents.common import Settings

TUNED: dict[str, dict[str, Settings]] = {
    "torch": {
        "W1": Settings(512),
        "W2": Settings(512),
        "W3": Settings(512, look_ahead_mb=512),
        "W4": Settings(256),
        "W5": Settings(1024),
    },
    "onnx": {
        "W1": Settings(32),
        "W2": Settings(32),
        "W3": Settings(32, look_ahead_mb=512),
        "W4": Settings(64),
        "W5": Settings(512),
    },
    "vmap": {
        "W1": Settings(32),
        "W2": Settings(32, growth=1.06),
        "W3": Settings(32, look_ahead_mb=512, growth=1.06, fill=0.8),
        "W4": Settings(64),
        "W5": Settings(512),
    },
    "nnx": {
        "W1": Settings(32),
        "W2": Settings(32, growth=1.06),
        "W3": Settings(32, look_ahead_mb=512, growth=1.06, fill=0.8),
        "W4": Settings(64),
        "W5": Settings(512),
    },
}
