"""The program of a scan does not grow with T, that of a Python loop does; a slow case is stopped and said to be."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from cells import drawn
from flax import nnx

from benchmarks.bench_unroll import FORWARDS, measure, measure_in_child, median_of, table_of


def test_the_scan_is_the_same_program_at_every_length() -> None:
    short, long = (measure("scan", steps, 3, 8) for steps in (1111, 8888))  # as many digits, so as many bytes
    assert short["hlo_bytes"] == long["hlo_bytes"] and short["hlo_instructions"] == long["hlo_instructions"]


def test_the_loop_is_a_larger_program_the_longer_it_is() -> None:
    short, long = (measure("loop", steps, 3, 8) for steps in (2, 8))
    assert long["hlo_instructions"] > 3 * short["hlo_instructions"]
    assert long["hlo_bytes"] > 2 * short["hlo_bytes"]


def test_both_give_the_same_carry() -> None:
    cell = drawn(nnx.GRUCell, 3, 8)
    x = jax.numpy.asarray(np.random.default_rng(0).standard_normal((4, 3), np.float32))
    loop, scan = (jax.jit(partial(forward, cell))(x) for forward in FORWARDS.values())
    np.testing.assert_allclose(loop, scan, rtol=0, atol=1e-6)  # the bound of the design


def test_a_case_that_takes_too_long_is_stopped_and_said_to_be() -> None:
    assert measure_in_child(["scan", "8", "3", "8"], limit_seconds=0.01) is None
    assert median_of([{"hlo_bytes": 1.0}, None]) is None
    assert median_of([{"hlo_bytes": 1.0}, {"hlo_bytes": 3.0}]) == {"hlo_bytes": 2.0}
    assert "loop   2048  stopped after 9 s" in table_of({"loop": {"2048": None}}, 9.0)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["loop", "scan"])
def test_a_child_measures_what_the_parent_would(kind: str) -> None:
    measured = measure_in_child([kind, "4", "3", "8"], limit_seconds=120)
    assert measured is not None
    assert measured["hlo_instructions"] == measure(kind, 4, 3, 8)["hlo_instructions"]
