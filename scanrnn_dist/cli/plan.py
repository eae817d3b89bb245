"""The command `scanrnn plan`: what featurize would do with the same flags. Writes nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scanrnn_dist.cli.options as flags
from scanrnn_dist.cli.featurize import check_folders
from scanrnn_dist.cli.options import GENERAL, flag, one_or_many, takes_flags
from scanrnn_dist.cli.printing import print_result
from scanrnn_dist.cli.process import start_devices
from scanrnn_dist.cli.run_options import RunFlags
from scanrnn_dist.errors import ConfigError

if TYPE_CHECKING:
    from scanrnn_dist.api import EncoderOnDevices
    from scanrnn_dist.job import Foreseen, JobOptions, Plan
    from scanrnn_dist.source import Chunk

_UNSORTED = "columns and types alone. featurize sorts the rows first; the rest is known once the sorted copy stands"


@takes_flags(run=RunFlags)
def plan(
    source: flags.Source,
    options: Any,
    run: Any,
    destination: Annotated[
        str | None,
        typer.Argument(
            help="Where featurize would write: the last word, if there are several. Checked too.", metavar="DST"
        ),
    ] = None,
    scan: Annotated[
        bool, flag("Check all rows of SRC; without it, the first rows of each file.", "--scan", GENERAL)
    ] = False,
    as_json: flags.Json = False,
) -> None:
    """Show what featurize would do with these flags, what would fail, how long it would take. Writes nothing.

    It takes every flag of featurize, so a command can be tried by changing one word. It reads the first rows of up to
    1,000 files (of 32 in a bucket); what these rows cannot show, --scan finds. It ends with the code that featurize
    would end with: 3 for bad data, 2 for wrong usage.
    """
    check_folders(run, destination)
    computation, handling = run.computation(may_choose=True, check_fits=False), run.handling()
    run.executor()  # which may refuse
    start_devices(run.devices)
    from scanrnn_dist.api import Explanation, doubts, explain, measured_gflops
    from scanrnn_dist.job import check_destination, in_features_of, plan_for, sorted_source, standing_at
    from scanrnn_dist.source import check_width

    given: Any = one_or_many(source)
    standing = standing_at(destination, handling)
    if options.sort:
        given = sorted_source(standing, given, options, handling, computation.input)
        if given is None:
            print_result(Explanation({"checked": _UNSORTED}, {}), as_json)
            return
    planned = plan_for(standing, given, options, handling, computation.input).within(handling.memory)
    in_features = partial(in_features_of, planned, options.matching)
    on_devices = computation.on_devices(in_features)
    if computation.input is None:
        check_width(planned.layout, planned.source.schema, on_devices.encoder.in_features)
    if standing is not None and (recorded := standing[1]) and not handling.restart:
        with suppress(ConfigError):  # which is told below
            on_devices.described(in_features, recorded)  # its kernel and its window
    foreseen = _foreseen(planned, on_devices, options, scan)
    told = explain(planned, on_devices, options, handling.memory, foreseen)
    if not told.refusal and not doubts(on_devices, computation.sizes, run.devices):  # else measuring takes long
        gflops = measured_gflops(on_devices, foreseen.sample)
        told = explain(planned, on_devices, options, handling.memory, foreseen, gflops)
    lines = {**told.lines, "checked": _checked(foreseen, planned, options)}
    refusals: list[Exception] = [ConfigError(f"{told.lines['memory']}")] if told.refusal else []
    is_done = False
    if standing is not None and not refusals:
        try:
            lines["destination"], is_done = check_destination(standing, planned, options, handling, computation)
        except ConfigError as error:
            refusals.append(error)
    numbers = {"rows_checked": foreseen.rows, "failures": foreseen.failures, "set_aside": foreseen.set_aside}
    print_result(replace(told, lines=lines, numbers={**told.numbers, **numbers}), as_json)
    for refusal in refusals:
        raise refusal
    if not is_done:
        foreseen.check(handling.max_bad_rows, of_copy=options.sort)


def _foreseen(plan: Plan, computation: EncoderOnDevices, options: JobOptions, scan: bool) -> Foreseen:
    """What the rows that are read tell of the job."""
    from scanrnn_dist.job import foresee, own_carries
    from scanrnn_dist.observe import rows_progress

    settled = options.settled(plan.layout, plan.keep, plan.rows_per_part)
    encoder = computation.encoder

    def reading(chunk_bytes: int) -> Any:
        return settled.reading(encoder.in_features, encoder.input, chunk_bytes=chunk_bytes)

    def carries(chunk: Chunk) -> Any:
        return own_carries(chunk.kept, settled, encoder.carry_features, chunk.where, chunk.is_null)

    if not scan:
        return foresee(plan, reading, carries)
    with rows_progress("plan --scan") as progress:
        progress.start(0, plan.source.rows)
        return foresee(plan, reading, carries, whole=True, on_rows=progress.advance)


def _checked(foreseen: Foreseen, plan: Plan, options: JobOptions) -> str:
    """What was read, and what came of it."""
    all_files = len(plan.source.files)
    of_files = "1 file" if all_files == 1 else f"{foreseen.files:,} of {all_files:,} files"
    of_files = f"each of the {all_files:,} files" if 1 < all_files == foreseen.files else of_files
    what = f"all {foreseen.rows:,} rows" if foreseen.whole else f"the first rows of {of_files}, {foreseen.rows:,} rows"
    places = "1 place" if foreseen.failed == 1 else f"{foreseen.failed:,} places"
    found = f"{places} would fail" if foreseen.failed else "nothing would fail"
    if foreseen.whole and foreseen.failed:
        what = f"{foreseen.rows:,} of {plan.source.rows:,} rows"
        found += "; each part was read up to the first one"
    is_seen = foreseen.rows or foreseen.failed or foreseen.set_aside
    if options.matching is not None and not foreseen.whole and not is_seen:
        what, found = f"rows of {of_files}" if foreseen.files else "all folders", "no row that matches was found"
    aside = f", {foreseen.set_aside:,} rows would be set aside" if foreseen.set_aside else ""
    return f"{what}: {found}{aside}{'' if foreseen.whole else '; --scan checks all rows'}"
