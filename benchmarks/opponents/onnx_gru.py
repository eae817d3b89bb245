"""ONNX Runtime's GRU with `sequence_lens`, two single-threaded workers on one session."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.opponents.common import Model, Settings, Weights, main, padded_index, start
from benchmarks.opponents.reading import Rows
from benchmarks.opponents.tuned import TUNED

SETTINGS = TUNED["onnx"]


def build(weights: Weights, settings: Settings) -> Model:
    """A session with these weights; `run` lets go of Python's lock."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(gru_model(weights), options, providers=["CPUExecutionProvider"])

    def model(rows: Rows, batch: np.ndarray) -> np.ndarray:
        lengths = (rows.offsets[batch + 1] - rows.offsets[batch]).astype(np.int32)
        x = rows.values.take(padded_index(rows, batch, int(lengths[0]), len(batch)), axis=0)
        return session.run(None, {"x": x, "lengths": lengths})[0][0]

    return model


def gru_model(weights: Weights) -> bytes:
    """A model of one GRU node whose only output is the final state; its gates stand in the order z, r, n."""
    hidden = weights.hidden
    initializers = {
        "W": zrn(weights.W_i.T, hidden),
        "R": zrn(weights.W_h.T, hidden),
        "B": np.concatenate([zrn(weights.b_i, hidden), np.zeros((1, 3 * hidden), np.float32)], axis=1),
    }
    node = helper.make_node(
        "GRU", ["x", "W", "R", "B", "lengths"], ["", "y_h"], hidden_size=hidden, linear_before_reset=1
    )
    graph = helper.make_graph(
        [node],
        "gru",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", len(weights.W_i)]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
        ],
        [helper.make_tensor_value_info("y_h", TensorProto.FLOAT, [1, "B", hidden])],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    opset = helper.make_opsetid("", 14)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def zrn(gates: np.ndarray, hidden: int) -> np.ndarray:
    """Gates along the first axis from the order r, z, n to z, r, n, with an axis for the direction."""
    r, z, n = gates[:hidden], gates[hidden : 2 * hidden], gates[2 * hidden :]
    return np.concatenate([z, r, n])[None].astype(np.float32)


job = partial(start, build)

if __name__ == "__main__":
    main(job, SETTINGS)
