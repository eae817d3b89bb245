"""TODO job."""

from scanrnn_dist.job.amend import ACCEPTED
from scanrnn_dist.job.attempt import Attempt, Sharing
from scanrnn_dist.job.clean import clean
from scanrnn_dist.job.damage import (
    PROBLEMS_TOLD,
    check_parts,
    damaged_parts,
    recorded_parts,
    surplus_files,
    wrong_parts,
)
from scanrnn_dist.job.in_order import OPEN_BYTES, Stream
from scanrnn_dist.job.kept_columns import compare_kept
from scanrnn_dist.job.open_job import OpenJob, Wanted, check_apart, opened_job, plan_for, recorded_plan
from scanrnn_dist.job.plan import ROWS_PER_PART, Plan, SourceLike, plan_job
from scanrnn_dist.job.restart import PART, finish_publishing, is_ready, replacing
from scanrnn_dist.job.status import read_status
from scanrnn_dist.job.write_behind import WAITING_BYTES, WriteBehind

__all__ = [
    "ACCEPTED",
    "OPEN_BYTES",
    "PART",
    "PROBLEMS_TOLD",
    "ROWS_PER_PART",
    "WAITING_BYTES",
    "Attempt",
    "OpenJob",
    "Plan",
    "Sharing",
    "SourceLike",
    "Stream",
    "Wanted",
    "WriteBehind",
    "check_apart",
    "check_parts",
    "clean",
    "compare_kept",
    "damaged_parts",
    "finish_publishing",
    "is_ready",
    "opened_job",
    "plan_for",
    "plan_job",
    "read_status",
    "recorded_parts",
    "recorded_plan",
    "replacing",
    "surplus_files",
    "wrong_parts",
]
