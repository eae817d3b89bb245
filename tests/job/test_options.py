"""Options may be numbers of numpy: they are Python's own, which the records can hold. What is no option is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import Handling, JobOptions, Sharing
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.records import Output


@pytest.mark.parametrize(
    "given",
    [
        JobOptions(
            in_features=np.int64(3), min_steps=np.int32(1), max_steps=np.int64(9), rows_per_part=np.int64(5),
            limit=np.uint8(7), lossy_cast=np.True_, keep=np.array(["a", "b"]),
        ),
        Handling(restart=np.False_, max_bad_rows=np.int64(0), memory_bytes=np.int64(2**30)),
        Sharing(share=(np.int64(1), 4), steal=np.True_, expiry_seconds=np.float32(9)),
        WindowShape(np.int64(32), np.int64(4), np.int64(8)),
        Output(row_group_bytes=np.int64(2**20)),
    ],
)  # fmt: skip
def test_numbers_of_numpy_are_options(given: Any) -> None:
    assert type(given)(**{name: getattr(given, name) for name in asdict(given)}) == given
    json.dumps(asdict(given))


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (JobOptions, {"output": "columns"}, r"output is 'columns' \(str\); expected srd\.Output\(\.\.\.\)\.$"),
        (JobOptions, {"output": Output}, r"output is the class Output; expected srd\.Output\("),
        (JobOptions, {"bad_rows": "skip"}, r"bad_rows is 'skip' \(str\); expected srd\.BadRows\("),
        (JobOptions, {"max_steps": "3"}, r"max_steps is '3' \(str\); expected a number or None\.$"),
        (JobOptions, {"limit": [3]}, r"limit is \[3\] \(list\); expected a number or None"),
        (JobOptions, {"min_steps": None}, r"min_steps is None; expected a number\."),
        (JobOptions, {"keep": 3}, r"keep is 3 \(int\); expected a list of names or None"),
        (JobOptions, {"column": 3}, r"column is 3 \(int\); expected a text or None"),
        (JobOptions, {"filter": 3}, "The filter 3 cannot be recorded; expected text"),
        (JobOptions, {"truncate": 3}, r"truncate is 3 \(int\); expected a text"),
        (
            JobOptions,
            {"initial_carry": np.zeros((500, 8))},
            "^initial_carry is of type ndarray; expected the name of a column, or None; encode takes arrays.$",
        ),
        (Handling, {"sharing": (1, 2)}, r"sharing is \(1, 2\) \(tuple\); expected srd\.Sharing\("),
        (Handling, {"memory_bytes": "1GiB"}, r"memory_bytes is '1GiB' \(str\); expected a number or None"),
        (Handling, {"restart": "no"}, r"restart is 'no' \(str\); expected True or False"),
        (Sharing, {"share": "1/2"}, r"share is '1/2' \(str\); expected a tuple"),
        (Sharing, {"share": (1, 2, 3)}, r"share is \(1, 2, 3\); expected two whole numbers"),
        (Sharing, {"share": ("1", "2")}, r"share is \('1', '2'\); expected two whole numbers"),
        (Output, {"row_group_bytes": "4MiB"}, r"row_group_bytes is '4MiB' \(str\); expected a number"),
    ],
)
def test_what_is_of_another_kind_is_refused_with_what_to_write(kind: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kind(**options)


def test_lists_and_iterators_are_what_tuples_are() -> None:
    assert Sharing(share=[1, 4]) == Sharing(share=(1, 4))  # type: ignore[arg-type]
    assert JobOptions(features=iter("xy")) == JobOptions(features=("x", "y"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="features names 'x' more than once"):
        JobOptions(features=iter("xyx"))  # type: ignore[arg-type]
