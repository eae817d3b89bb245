"""The tuned settings of each opponent on each workload.

From `python -m benchmarks.tune` on two Zen 5 cores, 3 to 4 rounds each, whose spread is as large as most differences.
Parquet to Parquet on W1: onnx with batches of 16 was 11 % faster than with 32 and 22 % than with 64; torch with 128 was
7 % slower than with 512; vmap with a look-ahead of 16 MB was 7 to 27 % faster than with the whole file.

The long ones and W6 were tuned on a busy machine, by processor seconds, one or two rounds (`--end-to-end --rounds 1`):

- W1L: vmap 10.4 with 48 rows, 10.9 with 64, 10.8 with 96; onnx 12.9 with 16 rows, 13.1 with 32, 14.2 with 8;
  torch 13.4 to 14.2 with 256 to 1,024.
- W3L: vmap 3.8 with 64 rows and 256 MB, 4.4 with 32 and 256, 4.7 with 64 MB; onnx 7.5 with 32 rows
  and 256 MB, else 7.9 to 8.2; torch 6.7 with 256 MB, 7.3 with 64.
- W5L: vmap 5.0 with 2,048 rows, 5.3 with 1,024, 5.9 with 512; onnx 9.3 to 9.6 with 256 to 1,024; torch 7.5 to 7.6.
- W6: vmap 2.6 to 2.9 with 48 and 96 rows, 48 the faster by the clock; onnx 4.6 with 16, 32 and 64; torch 4.5 with 512
  rows, 4.9 with 1,024.

Not tuned by themselves: `nnx`, which has the settings of `vmap`, and `ray`, of which only the blocks were tried, on W2.
"""

from __future__ import annotations

from benchmarks.opponents.common import Settings

BUCKETS = {
    "W1": Settings(48, look_ahead_mb=16),
    "W2": Settings(48, look_ahead_mb=32, growth=1.06, once_growth=1.5),
    "W3": Settings(32, growth=1.06, fill=0.8, once_growth=1.5),
    "W4": Settings(128, look_ahead_mb=16),
    "W5": Settings(1024, look_ahead_mb=16, once_growth=1.5),
    "W6": Settings(48, look_ahead_mb=128, growth=1.06, once_growth=1.5),
    "W1L": Settings(48, look_ahead_mb=16),
    "W3L": Settings(64, look_ahead_mb=256, growth=1.06, fill=0.8, once_growth=1.5),
    "W5L": Settings(2048, look_ahead_mb=16, once_growth=1.5),
}

TUNED: dict[str, dict[str, Settings]] = {
    "torch": {
        "W1": Settings(512, look_ahead_mb=32),
        "W2": Settings(512),
        "W3": Settings(512),
        "W4": Settings(500, look_ahead_mb=16),
        "W5": Settings(512, look_ahead_mb=16),
        "W6": Settings(512),
        "W1L": Settings(512, look_ahead_mb=32),
        "W3L": Settings(512, look_ahead_mb=256),
        "W5L": Settings(512),
    },
    "onnx": {
        "W1": Settings(16),
        "W2": Settings(16),
        "W3": Settings(16),
        "W4": Settings(32, look_ahead_mb=16),
        "W5": Settings(512),
        "W6": Settings(16),
        "W1L": Settings(16),
        "W3L": Settings(32, look_ahead_mb=256),
        "W5L": Settings(1024),
    },
    "vmap": BUCKETS,
    "nnx": BUCKETS,
    "ray": {
        "W1": Settings(256, blocks=4),
        "W2": Settings(256, blocks=4),
        "W3": Settings(256, blocks=4),
        "W4": Settings(250, blocks=4),
        "W5": Settings(1024, blocks=4),
        "W6": Settings(256, blocks=4),
        "W1L": Settings(256, blocks=8),
        "W3L": Settings(256, blocks=8),
        "W5L": Settings(1024, blocks=8),
    },
}
