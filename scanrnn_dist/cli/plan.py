"""The command `scanrnn plan`: what featurize would do with the same flags. Writes nothing."""

from __future__ import annotations

from typing import Annotated, Any

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.featurize import check_profile
from scanrnn_dist.cli.options import GENERAL, flag, one_or_many, takes_flags
from scanrnn_dist.cli.printing import print_result
from scanrnn_dist.cli.process import start_devices
from scanrnn_dist.cli.run_options import RunFlags


@takes_flags(run=RunFlags)
def plan(
    source: flags.Source,
    options: Any,
    run: Any,
    destination: flags.MaybeDestination = None,
    scan: Annotated[
        bool, flag("Check all rows of SRC; without it the first rows of each file.", "--scan", GENERAL)
    ] = False,
    as_json: flags.Json = False,
) -> None:
    """Show what featurize would do with these flags, what would fail, how long it takes. Writes nothing.

    It takes every flag of featurize, so a command can be tried by changing one word.
    """
    check_profile(run, destination)
    computation, handling = run.computation(may_choose=True, check_fits=False), run.handling()
    run.executor()  # which may refuse
    start_devices(run.devices)
    from scanrnn_dist.api import explain
    from scanrnn_dist.job import plan_job

    planned = plan_job(one_or_many(source), options, computation.input).within(handling.memory)
    on_devices = computation.on_devices(planned.in_features)
    print_result(explain(planned, on_devices, options.filter, handling.memory))
