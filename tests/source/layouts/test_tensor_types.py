"""What fields say of tensors is told apart where only their metadata differs."""

from __future__ import annotations

import pyarrow as pa

from scanrnn_dist.source.layouts.tensor_types import tensor_type
from scanrnn_dist.source.layouts.types import EXTENSION_METADATA, EXTENSION_NAME, VARIABLE_TENSOR

STORED = pa.struct([("data", pa.list_(pa.float32())), ("shape", pa.list_(pa.int32(), 2))])
SAID = {b"{}": (0, None), b'{"permutation": [1, 0]}': (1, None), b'{"uniform_shape": [null, 3]}': (0, 3)}


def test_fields_that_differ_in_metadata_only_are_told_apart() -> None:
    for told, (time, width) in SAID.items():
        field = pa.field("seq", STORED, metadata={EXTENSION_NAME: VARIABLE_TENSOR, EXTENSION_METADATA: told})
        read = pa.ipc.read_schema(pa.schema([field]).serialize()).field(0)  # as a type where pyarrow knows it
        for each in (field, read):
            kind = tensor_type(each)
            assert kind is not None and (kind.time, kind.shape[1]) == (time, width)
        assert tensor_type(field.remove_metadata()) is None
