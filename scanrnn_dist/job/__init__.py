"""Jobs: a source becomes a data set of features, unit by unit, so that whatever dies is gone on with.

`open_job` is the only way to one, `run_job` does what is this process's of it. Knows Parquet and the records, no JAX:
what it computes with is handed to it as a `Computation`.
"""

from scanrnn_dist.job.attempt import OnRows
from scanrnn_dist.job.cleaning import clean
from scanrnn_dist.job.columns import left_out_in_words
from scanrnn_dist.job.computation import RECIPE, Computation, InFeatures
from scanrnn_dist.job.continued import APPLIED, FirstSource, check_is_whole, first_source
from scanrnn_dist.job.damage import (
    PROBLEMS_TOLD,
    check_parts,
    damaged_parts,
    recorded_parts,
    remove_parts,
    surplus_files,
    unread_units,
    wrong_parts,
)
from scanrnn_dist.job.destination import check_destination, plan_for, sorted_source, standing_at
from scanrnn_dist.job.executor import Executor
from scanrnn_dist.job.exporting import export
from scanrnn_dist.job.first_rows import in_features_of
from scanrnn_dist.job.foresight import Foreseen, foresee
from scanrnn_dist.job.hand_out import HandOut, WorkerDied
from scanrnn_dist.job.in_order import Stream
from scanrnn_dist.job.in_words import command_that_continues, source_of
from scanrnn_dist.job.initial_carries import own_carries
from scanrnn_dist.job.inspection import Inspection, Measured, Sequences, inspect
from scanrnn_dist.job.keeping import check_keeps
from scanrnn_dist.job.kept_columns import compare_kept
from scanrnn_dist.job.lengths import Bar, LengthCounts
from scanrnn_dist.job.memory import Memory, MemoryShares
from scanrnn_dist.job.new_steps import read_new_steps
from scanrnn_dist.job.options import Handling, JobOptions, Sharing, names_of
from scanrnn_dist.job.plan import Plan, plan_job
from scanrnn_dist.job.report import JobReport
from scanrnn_dist.job.restart import PART, check_not_ready, finish_publishing, is_of_restart, records_to_read
from scanrnn_dist.job.sampling import read_lengths
from scanrnn_dist.job.set_aside import quarantined
from scanrnn_dist.job.shares import share_of_units
from scanrnn_dist.job.sorting import original_of
from scanrnn_dist.job.status import Status, look_at, read_status, saved_rows
from scanrnn_dist.job.update_plan import continued_plan
from scanrnn_dist.job.work import OnStart, run_job
from scanrnn_dist.job.worker import Answer, UnitWorker
