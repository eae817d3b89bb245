"""`scanrnn resume DST`: go on with a job by what its records say, whoever began it and with whatever command."""

from __future__ import annotations

from typing import Any

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli import running
from scanrnn_dist.cli.computation import AskedComputation
from scanrnn_dist.cli.options import bytes_told
from scanrnn_dist.cli.printing import print_result
from scanrnn_dist.cli.process import SIGNALS, check_outside, leave_pandas_out
from scanrnn_dist.errors import SAVED, ConfigError


def resume(
    destination: flags.Output,
    devices: flags.Devices = None,
    memory: flags.Memory = None,
    allow_mixed: flags.AllowMixed = False,
    retry: flags.Retry = False,
    max_bad_rows: flags.MaxBadRows = None,
    compilation_cache: flags.CacheFolder = None,
    as_json: flags.Json = False,
) -> None:
    """Continue the job in DST, as the command that began it would: source, encoder and options are in its records.

    If the job is finished, nothing is done.
    """
    SIGNALS.rest = SAVED
    from scanrnn_dist.job import Handling, JobOptions, Sharing, finish_publishing
    from scanrnn_dist.records import ENCODER, JobRecords
    from scanrnn_dist.storage import open_store

    check_outside("--compilation-cache", compilation_cache, destination)
    leave_pandas_out()
    records = JobRecords(open_store(destination))
    finish_publishing(records)
    job = records.read_job()
    recipe = job.get("recipe", {})
    given: dict[str, Any] = {"sizes": {}, "devices": devices, "cache": compilation_cache}
    if records.has_encoder:  # first: another machine may draw other bits of the same seed
        computation = AskedComputation(records.store.read(ENCODER), None, None, **given)
    elif "seed" in recipe:
        computation = AskedComputation.of_recipe(recipe, **given)
    else:
        raise ConfigError(
            f"{records.store.root} holds no encoder file: the encoder is of Python code, or the job was stopped before "
            "it was saved. Continue it with the command, or the call of featurize, that began it."
        )
    handling = Handling(
        allow_mixed,
        sharing=Sharing(retry=retry, owns_process=True),
        max_bad_rows=max_bad_rows,
        memory_bytes=bytes_told(memory),
    )
    print_result(running.run_shown(destination, None, JobOptions(), handling, computation), as_json)
