"""`torch.nn.GRU` over packed sequences, two single-threaded workers.

A `PackedSequence` is built directly from the flat values: one vectorised gather, time-major, no padding, no Python per
row. Start it with OMP_NUM_THREADS=1; `contenders.py` does, and says what else its environment needs.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from benchmarks.opponents.common import Model, Settings, Weights, main, start
from benchmarks.opponents.reading import Rows
from benchmarks.opponents.tuned import TUNED

SETTINGS = TUNED["torch"]


def build(weights: Weights, settings: Settings) -> Model:
    """The GRU with these weights; torch's gates are r, z, n too."""
    torch.set_num_threads(1)
    in_features, hidden = len(weights.W_i), weights.hidden
    gru = torch.nn.GRU(in_features, hidden)
    parameters = {
        "weight_ih_l0": weights.W_i.T,
        "weight_hh_l0": weights.W_h.T,
        "bias_ih_l0": weights.b_i,
        "bias_hh_l0": np.zeros(3 * hidden, np.float32),
    }
    gru.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(w)) for name, w in parameters.items()})
    gru.eval()

    def model(rows: Rows, batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return gru(packed(rows, batch))[1][0].numpy()

    return model


def packed(rows: Rows, batch: np.ndarray) -> PackedSequence:
    """The rows `batch`, which are sorted, longest first: step 0 of all, step 1 of all that have one, and so on."""
    starts = rows.offsets[batch]
    lengths = rows.offsets[batch + 1] - starts
    index = starts + np.arange(lengths[0])[:, None]
    batch_sizes = np.searchsorted(-lengths, -np.arange(lengths[0]), side="left")
    index = index[np.arange(len(batch)) < batch_sizes[:, None]] if lengths[-1] < lengths[0] else index.reshape(-1)
    return PackedSequence(torch.from_numpy(rows.values.take(index, axis=0)), torch.from_numpy(batch_sizes))


job = partial(start, build)

if __name__ == "__main__":
    main(job, SETTINGS)
