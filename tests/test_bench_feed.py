"""The feed benchmark: every layout's file holds the same rows, and what is fed are all of their steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sources import needs_native

from benchmarks import bench_feed, feed_sources
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import build_engine
from scanrnn_dist.job import plan_job
from scanrnn_dist.protocols import EngineLike, WindowShape
from scanrnn_dist.source import Chunk

ROWS = 60


@pytest.fixture(scope="module", params=["xla", pytest.param("native", marks=needs_native)])
def engine(request: pytest.FixtureRequest) -> EngineLike:
    return build_engine(Encoder.from_seed(0, feed_sources.D, 4), shape=WindowShape(4, 4, 16), kernel=request.param)


@pytest.mark.parametrize("layout", feed_sources.LAYOUTS)
def test_every_layout_holds_the_same_rows_and_feeds_all_of_their_steps(
    tmp_path: Path, engine: EngineLike, layout: str
) -> None:
    source = feed_sources.write_source(layout, tmp_path, ROWS)
    plan = plan_job(str(source.path), source.options, source.input)
    chunks: list[Chunk] = list(bench_feed.chunks_of(plan, source))
    values = np.concatenate([chunk.sequences.values for chunk in chunks])
    lengths = np.concatenate([chunk.sequences.lengths for chunk in chunks])
    expected = feed_sources.made_up(ROWS, is_equal=layout.endswith("equal lengths"))
    if source.input is not None:  # other numbers in the first columns, and the rest scaled
        scaled = [column.name for column in source.input.columns].index("x06")
        numbers = expected.values[:, scaled:].astype(np.float64)
        np.testing.assert_array_equal(values[:, scaled:], ((numbers - 0.5) / 2).astype(np.float32))
    else:
        np.testing.assert_array_equal(values, expected.values)
    np.testing.assert_array_equal(lengths, np.diff(expected.offsets))
    for case in bench_feed.cases_of(source, engine).values():
        assert case() == source.steps
