"""Programs read from their text; and the window program compiled for devices that are not here, where the plugin is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.hlo import Program, read_program

ROOT = Path(__file__).parents[1]
MIB = 1 << 20


def program_of(function: Any, *shapes: tuple[int, ...], devices: int = 1, spec: P | None = None) -> Program:
    """A function compiled for CPU devices."""
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P() if spec is None else spec)
    given = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for shape in shapes]
    return read_program(jax.jit(function).lower(*given).compile().as_text() or "")


def test_loops_within_loops_tell_their_trips() -> None:
    def inner(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.sort(jnp.sin(y)), x)

    program = program_of(lambda x: jax.lax.fori_loop(0, 7, lambda _, y: inner(y)[::-1], x), (64, 64))
    (outer,) = program.loops()
    assert program.trips(outer) == 7
    (within,) = program.loops(outer.called("body"))
    assert program.trips(within) == 5 and len(program.all_loops()) == 2
    once = program.launched(within.called("body"))
    assert once >= 1 and program.launched(outer.called("body")) >= 5 * once


def test_a_loop_whose_trips_are_data_is_seen() -> None:
    program = program_of(lambda x, n: jax.lax.fori_loop(0, n[0].astype(int), lambda _, y: jnp.sin(y), x), (8,), (1,))
    (loop,) = program.loops()
    assert program.trips(loop) is None
    assert program.launched(program.entry) != program.launched(program.entry), "NaN: nobody knows"


def test_collectives_are_seen() -> None:
    assert program_of(lambda x: x.sum(), (8, 8), devices=2, spec=P("data")).collectives() == ["all-reduce"]
    assert program_of(lambda x: x * 2, (8, 8), devices=2, spec=P("data")).collectives() == []


TEXT = """HloModule made_up

%inside (p: f32[64,8]) -> f32[64,8] {
  %p = f32[64,8]{1,0} parameter(0)
  ROOT %moved = f32[64,8]{0,1} copy(f32[64,8]{1,0} %p)
}

ENTRY %main (x: f32[512,1024]) -> f32[1024,512] {
  %x = f32[512,1024]{1,0:T(8,128)} parameter(0)
  %there = f32[512,1024]{1,0:T(8,128)S(1)} copy(%x)
  %turned = f32[512,1024]{0,1:T(8,128)} copy(%there), backend_config={"estimated_cycles":"900"}
  %small = f32[64,8]{0,1} call(%x), to_apply=%inside
  ROOT %last = f32[1024,512]{1,0} transpose(%turned), dimensions={1,0}, backend_config={"estimated_cycles":"100"}
}
"""


def test_relayouts_are_told_from_other_copies() -> None:
    program = read_program(TEXT)
    assert [each.name for each in program.relayouts(program.entry)] == ["turned", "last"]
    assert [each.name for each in program.relayouts(program.entry, least_bytes=1)] == ["turned", "moved", "last"]
    assert sum(each.result_bytes for each in program.relayouts(program.entry)) == 4 * MIB
    assert program.launched(program.entry) == 4 and program.cycles(program.entry) == 1000


@pytest.mark.soak
@pytest.mark.parametrize(("plugin", "target"), [("libtpu", "v5e:2x2"), ("jax_cuda13_plugin", "h200:1x1x1")])
def test_the_window_program_of_accelerators_that_are_not_here(plugin: str, target: str) -> None:
    pytest.importorskip(plugin, reason="Programs for accelerators need the extras 'aot-tpu' and 'aot-cuda'.")
    command = [sys.executable, "-m", "benchmarks.aot", "--targets", target, "--hidden", "64"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    (figures,) = json.loads(told.splitlines()[-1])["results"]["programs"]
    assert figures["collectives"] == [] and figures["trip_counts"] == [figures["window_blocks"]]
    assert figures["relayouts_in_loop"] == 0 and figures["temporary_bytes"] < 128 * MIB
    assert figures["held_bytes"] < figures["memory_bytes"] // 2
    assert 3 <= figures["kernels_per_step"] < 7, "a loop over the steps of a block takes 6.75 on a GPU"
