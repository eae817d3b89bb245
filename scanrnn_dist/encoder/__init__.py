"""One sequence in, one vector out: cells, their scan, and what is read of it. No batches, no devices, no data sets."""

from scanrnn_dist.encoder.cells import chosen, initial_carry, join_directions
from scanrnn_dist.encoder.encoder import PRECISIONS, Encoder, State, checked_encoder
from scanrnn_dist.encoder.file import encoder_content, variables_of
