"""Layouts: how sequences stand in Arrow columns, and how a batch of them is taken apart; no file is opened here.

A layout is one file, written against `layout.py`. `find.py` says which layout a source has, `numbers.py` makes float32.
"""

from scanrnn_dist.source.layouts.find import (
    as_flags,
    find_layout,
    layout_of,
    layout_of_column,
    layouts_found,
    register_layout,
)
from scanrnn_dist.source.layouts.keys import (
    changes,
    comparable,
    differ,
    hashes,
    is_comparable,
    missing,
    picked,
    picked_rows,
    rise,
    taken,
)
from scanrnn_dist.source.layouts.layout import Asked, Layout, Steps, check_width
from scanrnn_dist.source.layouts.lists import is_list, is_view, storage
from scanrnn_dist.source.layouts.long import STEPS
from scanrnn_dist.source.layouts.numbers import EXPECTED_EXACT, as_float32, float32_of, side_by_side
from scanrnn_dist.source.layouts.paths import Path
from scanrnn_dist.source.layouts.types import foreign_extensions, is_string
from scanrnn_dist.source.layouts.value_sizes import value_bytes
from scanrnn_dist.source.layouts.values import REPLACED, in_words, python_values, stored_values, told
