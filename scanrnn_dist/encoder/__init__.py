"""One sequence in, one vector out: cells, their scan, and what is read of it. No batches, no devices, no data sets."""

from scanrnn_dist.encoder.architecture import with_recurrent_bias
from scanrnn_dist.encoder.cells import Layer, chosen, initial_carry
from scanrnn_dist.encoder.encoder import PRECISIONS, Encoder, checked_encoder
from scanrnn_dist.encoder.file import (
    encoder_content,
    encoder_of_content,
    is_key,
    read_safetensors,
    stand_in,
    structure_of,
    value_of,
    why_no_file,
    without_key,
)
from scanrnn_dist.encoder.kept_state import COUNT_BASE, StatefulEncoder, is_plain
from scanrnn_dist.encoder.scan import State
from scanrnn_dist.encoder.words import in_words
