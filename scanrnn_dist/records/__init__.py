"""Records of a job, `DST/__scanrnn/`: what is to be done, which parts stand, who is at work.

Files and their formats only; the order in which a job writes them, and what follows from them, is for `job`.
"""

from scanrnn_dist.records.attempt_log import AttemptLog
from scanrnn_dist.records.commit_log import Commits, read_commits, read_parts, renumbered_logs
from scanrnn_dist.records.evidence import CrashTrace, collect_traces, oom_kills
from scanrnn_dist.records.job_file import JOB_FORMAT, JobRecords
from scanrnn_dist.records.lease import Lease
from scanrnn_dist.records.names import (
    COMMITS,
    CRASH,
    ENCODER,
    JOB,
    PARTS,
    PLAN,
    PUBLISHING,
    RECORDS,
    RESTART,
    SUCCESS,
    TABLE,
    UNITS,
    WORKERS,
    part_name,
)
from scanrnn_dist.records.part_file import FEATURES, PartFile, file_sha256, part_schema, read_features, read_part
from scanrnn_dist.records.plan_file import Facts, hashes_of, read_records, read_weights, write_records
from scanrnn_dist.records.workers import (
    DONE,
    EXPIRY_SECONDS,
    REPLACING,
    STOPPED,
    Share,
    Worker,
    lease_names,
    living_workers,
    read_workers,
    runs,
)

__all__ = [
    "COMMITS",
    "CRASH",
    "DONE",
    "ENCODER",
    "EXPIRY_SECONDS",
    "FEATURES",
    "JOB",
    "JOB_FORMAT",
    "PARTS",
    "PLAN",
    "PUBLISHING",
    "RECORDS",
    "REPLACING",
    "RESTART",
    "STOPPED",
    "SUCCESS",
    "TABLE",
    "UNITS",
    "WORKERS",
    "AttemptLog",
    "Commits",
    "CrashTrace",
    "Facts",
    "JobRecords",
    "Lease",
    "PartFile",
    "Share",
    "Worker",
    "collect_traces",
    "file_sha256",
    "hashes_of",
    "lease_names",
    "living_workers",
    "oom_kills",
    "part_name",
    "part_schema",
    "read_commits",
    "read_features",
    "read_part",
    "read_parts",
    "read_records",
    "read_weights",
    "read_workers",
    "renumbered_logs",
    "runs",
    "write_records",
]
