"""What a person sees of a job while it runs, and what it takes of the machine's memory."""

from scanrnn_dist.observe.memory import (
    MEMORY_SHARE,
    available_cores,
    bytes_of,
    check_cpus_compute,
    check_fits,
    cpu_devices_are_chosen,
    in_mib,
    peak_memory_bytes,
    share_of_memory,
    usable_bytes,
)
from scanrnn_dist.observe.messages import SHOWN, ToStderr, as_shown, print_line, to_stderr
from scanrnn_dist.observe.progress import rows_progress, seconds_left
from scanrnn_dist.observe.results import as_text
