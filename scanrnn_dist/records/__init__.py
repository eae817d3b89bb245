"""Records of a job, `DST/__scanrnn/`: what is to be done, which parts stand, who is at work.

Files and their formats only; the order in which a job writes them, and what follows from them, is for `job`.
"""

from scanrnn_dist.records.attempt_log import AttemptLog, PartRecord, Took
from scanrnn_dist.records.commit_log import (
    Commits,
    counts_of,
    read_commits,
    read_parts,
    records_of_parts,
    renumbered_logs,
)
from scanrnn_dist.records.evidence import CrashTrace, collect_traces, oom_kills
from scanrnn_dist.records.history import AttemptHistory
from scanrnn_dist.records.job_file import JOB_FORMAT, JobRecords
from scanrnn_dist.records.lease import HeldError, Lease
from scanrnn_dist.records.names import (
    COMMITS,
    CRASH,
    ENCODER,
    FILES,
    FIRST,
    JOB,
    PARTS,
    PLAN,
    PUBLISHING,
    QUARANTINE,
    RECORDS,
    RESTART,
    SUCCESS,
    TABLE,
    UNITS,
    WORKERS,
    part_name,
    part_names,
    quarantine_name,
)
from scanrnn_dist.records.output import (
    DEFAULT_OUTPUT,
    FEATURES,
    STATE,
    Output,
    are_steps,
    feature_columns,
    feature_names,
    features_in_words,
    out_features_of,
    value_dtype,
    vector_of,
)
from scanrnn_dist.records.part_file import (
    PartFile,
    file_sha256,
    part_schema,
    read_features,
    read_matrices,
    read_part,
    read_part_schema,
)
from scanrnn_dist.records.plan_file import Facts, hashes_of, read_records, read_weights, write_records
from scanrnn_dist.records.quarantine import QuarantineFile, read_quarantine
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
    this_machine,
)
