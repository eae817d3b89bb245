"""What the values of a column take: the same for a value in whatever batch it comes, and however Arrow stores that."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.ragged import running_sums
from scanrnn_dist.source.layouts.lists import is_list, null_places, storage, taken_apart
from scanrnn_dist.source.parquet import least_row_bytes

_PLACE_BYTES = 4


def value_bytes(array: pa.Array) -> int | np.ndarray:
    """Bytes of each value, `(n,)` int64; one number where the type says that all take as many.

    Lists, maps and texts take what they hold, and 4 bytes for where that is; if null, these alone; of a fixed size,
    though, they have their room even then. Of dictionaries the indices count. `Array.nbytes` is another matter: it
    rounds bits up, and depends on whether a batch has a null.

    Example:
        >>> import pyarrow as pa
        >>> value_bytes(pa.array(["a", None, "bcd"])).tolist(), value_bytes(pa.array([1, None, 3]))
        ([5, 4, 7], 8)
    """
    array = storage(array)
    types, kind = pa.types, array.type
    if types.is_null(kind):
        return 0
    if types.is_struct(kind):
        return sum(map(value_bytes, array.flatten()))
    if types.is_dictionary(kind):
        return value_bytes(array.indices)
    if types.is_map(kind) or is_list(kind):
        offsets, elements = taken_apart(array)
        each = value_bytes(elements)
        held = np.diff(offsets) * each if isinstance(each, int) else np.diff(running_sums(each)[offsets])
        if types.is_fixed_size_list(kind):
            held[null_places(array)] = least_row_bytes(kind)
        return _PLACE_BYTES + held
    if any(is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)):
        return _PLACE_BYTES + pc.binary_length(array).fill_null(0).to_numpy().astype(np.int64)
    return -(-int(kind.bit_width) // 8)
