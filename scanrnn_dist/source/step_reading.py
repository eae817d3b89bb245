"""The steps of a source as they stand there: no number is made float32, no row is set aside, nothing is refused.

Rows that a layout cannot take apart are faults of what it gives. Who computes features reads by `read_ahead.py`; this
is for who looks at what there is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial

import pyarrow as pa

from scanrnn_dist.input_spec import Category, Column, InputSpec, Number, Time
from scanrnn_dist.source.decode import Decoder, ReadOptions
from scanrnn_dist.source.layouts import Layout, Steps, is_string
from scanrnn_dist.source.source import Source
from scanrnn_dist.source.taking import placed
from scanrnn_dist.source.units import Unit


class StepReader:
    """Reads the steps of units; a file stays open from one unit of it to the next.

    All have as many features as the first step that there is; before it, `in_features` may be None.
    """

    def __init__(self, source: Source, layout: Layout, chunk_bytes: int = 16 << 20) -> None:
        decoder = Decoder(source, ReadOptions(layout, chunk_bytes=chunk_bytes))
        self._units, self._layout, self._width = decoder.units, layout, layout.width(source.schema)
        self.close = decoder.close

    def batches(self, unit: Unit) -> Generator[Steps, None, None]:
        """Those of a unit, batch by batch, in order, each batch of about so many bytes and at least one row.

        Raises:
            DataError: as `read_chunks`, but for what only features ask for.
            LayoutError: columns that the layout does not take.
        """
        with closing(self._units.unit_batches(unit)) as batches:
            for first_row, batch in batches:
                steps = placed(self._layout.steps, batch, self._width, where=partial(unit.where, after=first_row))
                self._width = steps.in_features or self._width
                yield steps
                del batch, steps  # or they would stay alive while the next ones are decoded


def read_steps(source: Source, units: Iterable[Unit], layout: Layout) -> Generator[Steps, None, None]:
    """The steps of units, one after the other, as a `StepReader` reads them."""
    with closing(StepReader(source, layout)) as reader:
        for unit in units:
            yield from reader.batches(unit)


def unmeasured(names: Sequence[str], types: Sequence[pa.DataType]) -> InputSpec:
    """What to measure of features of these names and types: numbers, differences of times, and texts as categories.

    Texts have a vocabulary of one empty text until theirs is known.

    Example:
        >>> [column.kind for column in unmeasured(["x", "word"], [pa.int64(), pa.string()]).columns]
        ['number', 'category']
    """
    return InputSpec(tuple(map(_column, names, types)))


def _column(name: str, type: pa.DataType) -> Column:
    while pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
        type = type.value_type
    if is_string(type):
        return Category(name, values=("",))
    return Time(name) if pa.types.is_temporal(type) else Number(name)
