"""The window program compiled for TPUs and GPUs that are not here: what it holds there. Nothing of it is run.

    pip install -e ".[aot-tpu,aot-cuda]"
    python -m benchmarks.aot                                                    # the table of docs/accelerators.md
    python -m benchmarks.aot --unroll 1,4 --gates exact,tanh --hidden 64,128,512 --targets v5e:2x2,h200:1x1x1

A target is a topology of libtpu, such as `v5e:16x16`, or `h200:SLICESxHOSTSxGPUS`. Covered: collectives; trip counts
that are known; kernels a step, which on a TPU are the instructions that its compiler schedules; relayouts; temporaries,
and whether a job's two windows fit; the compiler's own estimate of cycles, for TPUs. Not covered: time, the autotuning
of a GPU's matrix products, which needs the GPU, and the host.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.topologies import get_topology_desc
from jax.sharding import AxisType, Mesh

from benchmarks.harness import finish
from benchmarks.hlo import Program, read_program
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import AXIS, lowered_window, window_shape_for

TARGETS = ("v5e:2x2", "v5e:16x16", "v6e:2x2", "tpu7x:2x2x1", "h200:1x1x1", "h200:1x1x8", "h200:1x2x8")
MEMORY_GIB = {"v5e": 15.75, "v6e": 31.24, "tpu7x": 94.74, "h200": 0.75 * 151397597184 / 2**30}
"""What a program may take on one device: of TPUs as libtpu says when it refuses more; of GPUs JAX takes 75 %."""
TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Environment of a libtpu that has no TPU, and is not to look for one."""
PLUGINS = {"tpu": "libtpu", "cuda": "jax_plugins.xla_cuda13"}
GATES = {"exact": jax.nn.sigmoid, "tanh": lambda x: 0.5 + 0.5 * jnp.tanh(0.5 * x)}
"""The specification's sigmoid, and one that is not accurate enough: docs/accelerators.md."""
MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """What one program holds; bytes are those of one device."""

    target: str
    hidden: int
    devices: int
    lanes: int
    window_blocks: int
    collectives: list[str]
    trip_counts: list[int | None]
    kernels_per_step: float
    cycles_per_step: float
    relayouts_in_loop: int
    relayout_bytes: int
    argument_bytes: int
    temporary_bytes: int
    code_bytes: int
    held_bytes: int
    memory_bytes: int
    compile_seconds: float

    @property
    def is_static(self) -> bool:
        """Whether no loop asks the host, or the device, how often it is to run."""
        return None not in self.trip_counts


def mesh_of(target: str) -> Mesh:
    """All devices of a target along `"data"`."""
    kind, _, size = target.partition(":")
    if kind == "h200":
        told = (Path(__file__).parent / "targets" / "h200.txtpb").read_text()
        topology = get_topology_desc(platform="cuda", target_config=told, topology=size)
    else:
        topology = get_topology_desc(target, platform="tpu")
    devices: list[Any] = np.ravel(topology.devices).tolist()
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def figures_of(target: str, in_features: int, hidden: int, unroll: int | None = None, gate: str = "exact") -> Figures:
    """Compile the program of a GRU for a target, in the default window of its devices, and read it."""
    mesh, kind = mesh_of(target), target.partition(":")[0]
    memory_bytes = int(MEMORY_GIB.get(kind, MEMORY_GIB["v5e"]) * 2**30)
    encoder = Encoder(nnx.GRUCell(in_features, hidden, gate_fn=GATES[gate], rngs=nnx.Rngs(0)))
    shape = window_shape_for(encoder, mesh, memory_bytes)
    begin = time.perf_counter()
    compiled = lowered_window(encoder, mesh, shape, unroll).compile()
    seconds = time.perf_counter() - begin
    program, memory = read_program(compiled.as_text() or ""), compiled.memory_analysis()
    assert memory is not None
    window = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = 2 * window + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Figures(
        target=target,
        hidden=hidden,
        devices=mesh.size,
        lanes=shape.lanes,
        window_blocks=shape.window_blocks,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        held_bytes=held,
        memory_bytes=memory_bytes,
        compile_seconds=round(seconds, 1),
        **_read(program, shape.block_steps),
    )


def _read(program: Program, block_steps: int) -> dict[str, Any]:
    """What the program's text tells: of the loop over the blocks, and of what is before and after it."""
    (blocks,) = program.loops()
    body = blocks.called("body")
    in_loop = program.relayouts(body)
    for steps in program.loops(body):
        in_loop += program.relayouts(steps.called("body"))
    return {
        "collectives": program.collectives(),
        "trip_counts": [program.trips(loop) for loop in program.all_loops()],
        "kernels_per_step": program.launched(body) / block_steps,
        "cycles_per_step": program.cycles(body) / block_steps,
        "relayouts_in_loop": len(in_loop),
        "relayout_bytes": sum(each.result_bytes for each in program.relayouts(program.entry)),
    }


def line_of(figures: Figures, variant: str) -> str:
    """A row of the table."""
    cycles = f"{figures.cycles_per_step:,.0f}" if figures.cycles_per_step else ""
    held = f"{figures.held_bytes / 2**30:.2f} of {figures.memory_bytes / 2**30:.1f}"
    trips = ", ".join(str(count or "not known") for count in figures.trip_counts)
    relayouts = f"{figures.relayouts_in_loop}; {figures.relayout_bytes / MIB:.0f}"
    cells = (
        f"{figures.target}, {figures.devices}", f"{figures.hidden}{variant}",
        f"{figures.lanes:,} x {figures.window_blocks}", ", ".join(figures.collectives) or "none", trips,
        f"{figures.kernels_per_step:.2f}", cycles, relayouts, f"{figures.temporary_bytes / MIB:.1f}", held,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


HEADER = """| target, devices | H | lanes x blocks | collectives | trip counts | kernels a step | cycles a step | relayouts: in the loop; MiB a window | temporaries, MiB | held by a job, GiB |
|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def main() -> None:
    """Parse, compile target by target, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=",".join(TARGETS), help="with commas (default %(default)s)")
    parser.add_argument("--hidden", default="64,128,512", help="values of H, with commas (default %(default)s)")
    parser.add_argument("--in-features", type=int, default=16)
    parser.add_argument("--unroll", default="0", help="steps a round of a block's loop; 0 for the engine's own")
    parser.add_argument("--gates", default="exact", help=f"with commas, of {', '.join(GATES)}")
    arguments = parser.parse_args()
    os.environ |= TPU
    jax.config.update("jax_platforms", "cpu")
    results = []
    print(HEADER)
    for target in arguments.targets.split(","):
        plugin = PLUGINS["cuda" if target.startswith("h200") else "tpu"]
        if find_spec(plugin.partition(".")[0]) is None or find_spec(plugin) is None:
            parser.error(f"{target} needs {plugin}: pip install -e '.[aot-tpu,aot-cuda]'.")
        for hidden in map(int, arguments.hidden.split(",")):
            for unroll in map(int, arguments.unroll.split(",")):
                for gate in arguments.gates.split(","):
                    figures = figures_of(target, arguments.in_features, hidden, unroll or None, gate)
                    variant = (f", unroll {unroll}" if unroll else "") + (f", {gate}" if gate != "exact" else "")
                    print(line_of(figures, variant), flush=True)
                    results.append({"unroll": unroll, "gate": gate, **asdict(figures)})
    finish("aot", {"programs": results})


if __name__ == "__main__":
    main()
