"""Layouts: how sequences stand in an Arrow column, and how they become a `Ragged`; no file is opened here.

A layout is one file. `find.py` says which column it is, `numbers.py` which numbers may pass.
"""

from scanrnn_dist.source.layouts.find import find_sequence_column, fixed_in_features, foreign_extension
from scanrnn_dist.source.layouts.nested_lists import first_width, fixed_lists, to_ragged
from scanrnn_dist.source.layouts.numbers import Nonfinite
