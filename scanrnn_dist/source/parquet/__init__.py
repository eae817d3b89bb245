"""Parquet files, opened on footers and read past page headers that were checked: what lies raises, in one line.

And written, where a column of vectors is to be faster than pyarrow's. Which files, columns and rows are read is for the
rest of `source`.
"""

from scanrnn_dist.source.parquet.budget import least_row_bytes, out_of_memory, usual_bytes
from scanrnn_dist.source.parquet.checked_file import CheckedFile
from scanrnn_dist.source.parquet.footer import Footer, read_end, read_tail
from scanrnn_dist.source.parquet.gathered import Gathered
from scanrnn_dist.source.parquet.readable import checked_footer, own_bytes, types_within, without_extensions
from scanrnn_dist.source.parquet.vector_writer import VectorWriter
