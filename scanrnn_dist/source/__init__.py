"""Sources: which files there are, how they are cut into units of work, and their rows as sequences.

Parquet becomes `Ragged` and kept columns here, and nowhere else; what happens to the rows is for `job`.
"""

from scanrnn_dist.source.bad_rows import ERROR, INITIAL_CARRY, SKIP, BadRows, Lengths, count_name, told_counts
from scanrnn_dist.source.conform import conformed, conforms
from scanrnn_dist.source.decode import Chunk, ReadOptions, first_step_features, take_batch
from scanrnn_dist.source.file_table import UNKNOWN_TIME, FileTable, differences, new_files, unchanged
from scanrnn_dist.source.filters import Filter, filter_text, parsed_filter
from scanrnn_dist.source.footers import read_footers
from scanrnn_dist.source.groups import find_starts, read_rows
from scanrnn_dist.source.kept import KeptReader, read_kept
from scanrnn_dist.source.layouts import (
    REPLACED,
    Asked,
    Layout,
    Steps,
    as_flags,
    check_width,
    comparable,
    find_layout,
    hashes,
    is_comparable,
    layout_of,
    layouts_found,
    picked_rows,
    python_values,
    register_layout,
    stored_values,
    told,
    value_bytes,
)
from scanrnn_dist.source.listing import SourceLike, check_source, filesystem_of, list_again, pattern_of
from scanrnn_dist.source.parquet import Gathered, VectorWriter, types_within
from scanrnn_dist.source.read_ahead import (
    WAITING_UNITS,
    FailedUnit,
    Prefetched,
    ends_unit,
    may_match,
    read_chunks,
    read_first,
)
from scanrnn_dist.source.schemas import with_true_metadata
from scanrnn_dist.source.set_aside import SetAside, aside_batch, aside_schema
from scanrnn_dist.source.source import ROWS_PER_PART, LeftOut, Source, limited, open_source, plan_units
from scanrnn_dist.source.step_input import apply_input, check_columns, layout_of_input
from scanrnn_dist.source.step_reading import StepReader, read_steps, unmeasured
from scanrnn_dist.source.step_statistics import MOST_DISTINCT, ColumnStatistics, StepStatistics
from scanrnn_dist.source.taking import Taken, fixed_lists, is_fixed_lists, sequence_columns, to_ragged
from scanrnn_dist.source.united import with_wide_indices
from scanrnn_dist.source.units import Spans, Unit, Units, found_again
