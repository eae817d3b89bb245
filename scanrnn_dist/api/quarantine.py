"""The rows that a job has set aside, as a table; where they are kept says `records/quarantine.py`."""

from __future__ import annotations

import os

import pyarrow as pa

from scanrnn_dist.job import read_quarantined


def quarantined(destination: str | os.PathLike[str]) -> pa.Table:
    """The rows of a job that were set aside so far, in input order.

    Args:
        destination: the folder or URI that `featurize` wrote to.

    Returns:
        A row for each: `file`, `row_group`, `row` (of the row group), `file_row`, `policy`, `reason`, `step` (null
        where no single step is wrong), then the kept columns. One that has the name of one of these is "kept.NAME".

    Raises:
        ConfigError: the folder is no output of a job.
        DataError: a list is missing or damaged; `scanrnn verify --repair` makes it again.
        StoppedError: another output is taking the place of this one, or took it meanwhile.

    Example:
        >>> import pyarrow.parquet as pq, tempfile
        >>> from scanrnn_dist import BadRows, Encoder, featurize
        >>> folder = tempfile.mkdtemp()
        >>> pq.write_table(pa.table({"id": [7, 8], "sequence": [None, [[0.5, 1.0]]]}), folder + "/in.parquet")
        >>> options = {"lossy_cast": True, "bad_rows": BadRows(null_sequence="skip")}
        >>> report = featurize(Encoder.from_seed(0, 2, 3), folder + "/in.parquet", folder + "/out", **options)
        >>> quarantined(folder + "/out").select(["row", "policy", "id"]).to_pylist()
        [{'row': 0, 'policy': 'null_sequence', 'id': 7}]
    """
    return read_quarantined(destination)
