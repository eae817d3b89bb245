"""Weights from where people trained them: PyTorch, Keras, ONNX, and nnx states in safetensors or Orbax.

Every source has two doors: `*_layers` gives a list of layers, each a cell or a pair `(forward, backward)`, and `from_*`
makes an `Encoder` of them. The sources know their own names, shapes and gate orders; `cells` knows those of flax,
`files` reads arrays by name and says what is wrong with them. Nothing here unpickles.
"""

from scanrnn_dist.weights.cells import GATES
from scanrnn_dist.weights.files import flat
from scanrnn_dist.weights.keras import from_keras, keras_layers
from scanrnn_dist.weights.onnx import from_onnx, onnx_layers
from scanrnn_dist.weights.pytorch import from_torch, torch_layers
from scanrnn_dist.weights.state import from_orbax, from_state
