"""The command `scanrnn bench`: the engine on a sample of a source, in memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.options import SPEED, bytes_told, count, flag, given, one_or_many, takes_flags
from scanrnn_dist.cli.printing import print_result
from scanrnn_dist.cli.process import start_devices, use_cache
from scanrnn_dist.cli.run_options import RunFlags
from scanrnn_dist.observe import to_stderr

_TAKEN = (
    "encoder", "hidden", "input", "devices", "kernel", "lanes", "block_steps", "window_blocks", "memory",
    "compilation_cache",
)  # fmt: skip


@takes_flags(("layout", "column", "features", "in_features", "group_by", "order_by"), run=RunFlags, run_names=_TAKEN)
def bench(
    source: flags.Source,
    options: Any,
    run: Any,
    tune: Annotated[
        bool, flag("Look for the fastest --lanes, --block-steps and --window-blocks.", "--tune", SPEED)
    ] = False,
    rounds: Annotated[int | None, count("How often each choice is measured (default: 7).", group=SPEED)] = None,
    as_json: flags.Json = False,
) -> None:
    """Measure the engine on a sample of SRC, in memory; with --tune, say which flags make it fastest here.

    It starts from the flags that are given, or from the default of the devices.
    """
    computation = run.computation(may_choose=True)
    use_cache(run.compilation_cache)
    start_devices(run.devices)
    from scanrnn_dist.api import read_sample
    from scanrnn_dist.api import tune as tune_shape
    from scanrnn_dist.job import Memory, in_features_of, plan_job

    memory = Memory(bytes_told(run.memory))
    planned = plan_job(one_or_many(source), replace(options, keep=()), computation.input).within(memory)
    on_devices = computation.on_devices(partial(in_features_of, planned))
    sample = read_sample(planned, on_devices.encoder)
    told = given(candidates=None if tune else {}, rounds=rounds)
    shown = tune_shape(
        on_devices.encoder, sample, start=on_devices.fit(), kernel=on_devices.kernel, say=to_stderr, **told
    )
    print_result(shown, as_json)
