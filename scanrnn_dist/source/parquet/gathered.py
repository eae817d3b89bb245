"""Rows that become a row group: in one piece, so the same rows become the same bytes, whatever batches they come in.

pyarrow makes a dictionary for each batch that it reads, of all values that the row group of the file has. Rows keep of
it those that they use, in the order in which they come first. An ordered dictionary stays whole, since its order says
which value is less, and of equal ones in a row one is held.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from scanrnn_dist.source.parquet.readable import has_dictionary


class Gathered:
    """Rows until they are written.

    Args:
        schema: of all batches.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._ordered = dict[tuple[int, ...], pa.Array]()  # the last ones, by the way to them

    def append(self, batch: pa.RecordBatch) -> None:
        """Hold rows."""
        columns = [self._own(column, (number,)) for number, column in enumerate(batch.columns)]
        self._batches.append(pa.record_batch(columns, schema=self._schema))

    def taken(self) -> pa.Table:
        """All rows, each column in one piece; they are not held any more."""
        table = pa.Table.from_batches(self._batches, self._schema)
        self._batches.clear()  # or the rows would be there twice while they are written
        return table.combine_chunks()

    def _own(self, array: pa.Array, way: tuple[int, ...]) -> pa.Array:
        """An array with dictionaries of its own, at any depth."""
        kind = array.type
        if not has_dictionary(kind):
            return array
        if isinstance(array, pa.ExtensionArray):
            return pa.ExtensionArray.from_storage(kind, self._own(array.storage, way))
        if isinstance(array, pa.DictionaryArray):
            return self._whole(array, way) if kind.ordered else _of_used(array)
        array = pa.concat_arrays([array])  # whose buffers and children begin with its own first row
        is_struct = pa.types.is_struct(kind)
        children = [array.field(number) for number in range(kind.num_fields)] if is_struct else [array.values]
        own = [self._own(child, (*way, number)) for number, child in enumerate(children)]
        buffers = array.buffers()[: kind.num_buffers]
        return pa.Array.from_buffers(kind, len(array), buffers, array.null_count, children=own)

    def _whole(self, array: pa.DictionaryArray, way: tuple[int, ...]) -> pa.DictionaryArray:
        last = self._ordered.get(way)
        if last is None or not last.equals(array.dictionary):
            last = self._ordered[way] = array.dictionary
        return pa.DictionaryArray.from_arrays(array.indices, last, ordered=True)


def _of_used(array: pa.DictionaryArray) -> pa.DictionaryArray:
    used = pc.unique(array.indices.drop_null())
    indices = pc.index_in(array.indices, value_set=used).cast(array.type.index_type)
    return pa.DictionaryArray.from_arrays(indices, array.dictionary.take(used))
